//! Clients and servers that are killed: in processes of their own, this program run again.
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use onceloop::{CallOptions, Code, Ran, State};
use support::app::{App, err, note, ok, shop};
use support::process::{Process, part, tell};
use support::{World, hasty, hasty_limits};

/// A server that serves until it is killed. As a test of its own it does nothing.
#[test]
fn a_server_of_its_own() {
    let Some(address) = part() else { return };
    let mut world = World::<App>::new();
    let server = shop().listen(world.registry(), address.as_str()).expect("the address is free");
    let address = server.local_addresses(world.registry()).remove(0);
    tell("address", &address.to_string());
    // Tells how many calls it has begun, whenever that has changed.
    let mut begun = 0;
    loop {
        world.turn();
        let now = server.stats(world.registry()).calls_started;
        if now != begun {
            begun = now;
            tell("begun", &begun.to_string());
        }
    }
}

/// A client that calls without end, until it is killed.
#[test]
fn a_client_of_its_own() {
    let Some(address) = part() else { return };
    let mut world = World::<App>::new();
    let client = hasty().connect(world.registry(), address.as_str()).expect("a client");
    for call in 0..20 {
        client.call(world.registry(), shop::later, (1,), note(call));
    }
    loop {
        client.call(world.registry(), shop::add, (1,), note(100));
        world.until(|world| !world.app.told.is_empty());
        world.app.told.clear();
    }
}

#[test]
fn a_client_that_is_killed_leaves_nothing_behind_when_its_lease_is_over() {
    let mut world = World::<App>::new();
    let mut limits = hasty_limits();
    limits.lease = Duration::from_millis(50);
    // One who sends no more may still read what is owed: only for so long.
    limits.half_close_timeout = Duration::from_millis(20);
    let (server, address) = world.serve(shop().limits(limits));
    let mut client = Process::start("a_client_of_its_own", &address.to_string());
    world.until(|world| world.app.waiting.len() == 20 && world.app.sum > 100);
    client.kill();
    world.until(|world| server.stats(world.reactor.registry()).connections == 0);
    world.pass(Duration::from_millis(100));
    let stats = server.stats(world.registry());
    assert_eq!((stats.sessions, stats.in_flight), (1, 20), "what runs keeps its session");
    world.answer_later();
    world.until(|world| server.stats(world.reactor.registry()).sessions == 0);
    let stats = server.stats(world.registry());
    assert_eq!((stats.in_flight, stats.kept_replies, stats.kept_reply_bytes), (0, 0, 0));
    assert_eq!(stats.sessions_expired, 1);
}

#[test]
fn a_server_that_is_killed_leaves_its_callers_in_doubt_only_where_there_is_doubt() {
    let mut first = Process::start("a_server_of_its_own", "127.0.0.1:0");
    let address = first.told("address");
    let mut world = World::<App>::new();
    let builder = hasty().on_state(|state, cx: &mut onceloop::Cx<'_, App>| {
        cx.state.states.push(state.clone());
    });
    // A small window: of many calls, only some have left.
    let client = builder.window(4).connect(world.registry(), address.as_str()).unwrap();
    client.call(world.registry(), shop::add, (1,), note(0));
    assert_eq!(world.told(1), [ok(0, "1")]);
    for call in 1..=4 {
        client.call(world.registry(), shop::later, (1,), note(call));
    }
    for call in 5..=10 {
        client.call(world.registry(), shop::add, (1,), note(call));
    }
    world.until(|_| first.told("begun") == "5");
    first.kill();
    world.until(|world| matches!(world.app.states.last(), Some(State::Disconnected { .. })));
    let options = CallOptions::new().deadline(Duration::from_millis(10));
    client.call_with(world.registry(), options, shop::add, (1,), note(11));
    assert_eq!(world.told(1), [err(11, Ran::No, Code::Deadline)], "nothing else has ended");

    let mut second = Process::start("a_server_of_its_own", &address);
    assert_eq!(second.told("address"), address);
    let told = world.told(10);
    for (call, told) in &told[..4] {
        assert_eq!(*told, Err((Ran::Unknown, Some(Code::SessionUnknown))), "call {call}");
    }
    for (call, told) in &told[4..] {
        // In a server without a memory they ran once each.
        assert!(matches!(told, Ok(sum) if *sum <= 6.to_string()), "call {call}: {told:?}");
    }
    client.call(world.registry(), shop::sum, (), note(12));
    assert_eq!(world.told(1), [ok(12, "6")]);
    assert!(world.app.states.contains(&State::Connected { resumed: false }));
}

#[test]
fn a_client_waits_for_a_server_that_comes_later() {
    let path = support::socket_path();
    let address = format!("unix:{}", path.display());
    let mut world = World::<App>::new();
    let client = hasty().connect(world.registry(), address.as_str()).unwrap();
    for call in 0..100 {
        client.call(world.registry(), shop::add, (1,), note(call));
    }
    world.pass(Duration::from_millis(20));
    assert_eq!(world.app.told, []);
    let mut server = Process::start("a_server_of_its_own", &address);
    assert!(world.told(100).iter().all(|(_, told)| told.is_ok()));
    // Killed, it leaves its socket file; the next one replaces it.
    server.kill();
    assert!(path.exists());
    // A call made before the loss was seen would have left, for all its caller can know.
    world.until(|world| !matches!(client.state(world.reactor.registry()), State::Connected { .. }));
    let mut server = Process::start("a_server_of_its_own", &address);
    assert_eq!(server.told("address"), address);
    client.call(world.registry(), shop::add, (1,), note(1));
    assert_eq!(world.told(1), [ok(1, "1")], "of a server that begins anew");
    drop(server);
    std::fs::remove_file(path).unwrap();
}
