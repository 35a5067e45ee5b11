//! Connections that are late, lost, silent or refused.
#![allow(missing_docs)]

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onceloop_client::{CallOptions, Client, State};
use onceloop_protocol::error::{Code, Ran};
use support::relay::Relay;
use support::{SocketPath, World, bank, err, hasty, hasty_limits, ok};

fn watched() -> onceloop_client::Builder<support::App> {
    hasty().on_state(|state, cx| cx.state.states.push(state.clone()))
}

/// Returns the states that were told, without how long the next attempt was away.
fn states(world: &mut World) -> Vec<&'static str> {
    let states = std::mem::take(&mut world.app.states);
    let mut names: Vec<_> = states
        .iter()
        .map(|state| match state {
            State::Closed => "closed",
            State::Connected { resumed: false } => "connected",
            State::Connected { resumed: true } => "resumed",
            State::Connecting => "connecting",
            State::Disconnected { .. } => "disconnected",
            State::Draining => "draining",
            _ => "something new",
        })
        .collect();
    names.dedup();
    names
}

#[test]
fn a_client_may_start_before_its_server() {
    let mut world = World::new();
    let path = SocketPath::new();
    let client = watched().connect(world.registry(), path.address()).unwrap();
    client.call(world.registry(), bank::debit, (5,), note!(1));
    world.until(|world| world.app.states.len() >= 4);
    assert_eq!(world.app.answers, []);
    let Some(State::Disconnected { why, .. }) = world.app.states.get(1) else { panic!() };
    assert!(why.contains("could not connect"), "{why}");
    world.serve(&path.address());
    assert_eq!(world.answers(1), [ok(1, "5")]);
    assert!(states(&mut world).ends_with(&["disconnected", "connecting", "connected"]));
}

#[test]
fn calls_outlive_their_connection() {
    let mut world = World::new();
    let server = world.serve("127.0.0.1:0");
    let address = server.local_addresses(world.registry()).remove(0).to_string();
    // HELLO and WELCOME with their limits take less; the call's request is cut.
    let relay = Relay::new(address, |connection| if connection == 0 { 400 } else { u64::MAX });
    let client = watched().connect(world.registry(), relay.address).unwrap();
    for call in 1..=20 {
        client.call(world.registry(), bank::debit, (1,), note!(call));
    }
    let mut replies = world.answers(20);
    replies.sort_unstable_by_key(|answer| answer.reply.clone().unwrap().parse::<u64>().unwrap());
    assert_eq!(replies[19].reply, Ok("20".to_owned()));
    assert_eq!(world.app.balance, 20, "each ran once");
    let names = states(&mut world);
    assert_eq!(names, ["connecting", "connected", "disconnected", "connecting", "resumed"]);
    client.close(world.registry());
    world.until(|world| !world.app.states.is_empty());
    assert_eq!(states(&mut world), ["closed"]);
}

#[test]
fn a_connection_that_is_cut_again_and_again_runs_each_call_once() {
    const CALLS: u32 = 1_000;
    let mut world = World::new();
    let server = world.serve("127.0.0.1:0");
    let address = server.local_addresses(world.registry()).remove(0).to_string();
    let relay = Relay::new(address, |connection| 300 + connection * 7_919 % 1_500);
    let client = hasty().connect(world.registry(), relay.address).unwrap();
    for call in 1..=CALLS {
        let options =
            if call % 5 == 0 { CallOptions::new().at_most_once() } else { CallOptions::new() };
        client.call_with(world.registry(), options, bank::debit, (1,), note!(call));
    }
    let answers = world.answers(CALLS as usize);
    let ran = answers.iter().filter(|answer| answer.reply.is_ok()).count() as u64;
    let refused = answers
        .iter()
        .filter(|answer| matches!(answer.reply, Err((Ran::No, _))) && answer.call % 5 == 0);
    assert_eq!(ran + refused.count() as u64, u64::from(CALLS), "exactly-once calls all ran");
    assert_eq!(world.app.balance, ran, "each ran once");
    let cuts = relay.cuts.load(Ordering::Relaxed);
    assert!(cuts > 30, "{cuts} cuts");
}

#[test]
fn a_server_that_forgot_the_session_is_not_asked_to_run_calls_again() {
    let mut world = World::new();
    let path = SocketPath::new();
    let server = world.serve(&path.address());
    let client = watched().connect(world.registry(), path.address()).unwrap();
    client.call(world.registry(), bank::later, (1,), note!(1));
    world.until(|world| !world.app.waiting.is_empty());
    server.close(world.registry());
    world.app.waiting.clear();
    world.until(|world| world.app.states.len() > 4);
    client.call(world.registry(), bank::debit, (7,), note!(2));
    world.serve(&path.address());
    assert_eq!(world.answers(2), [err(1, Ran::Unknown, Code::SessionUnknown), ok(2, "7")]);
    assert_eq!(client.state(world.registry()), State::Connected { resumed: false });
}

#[test]
fn a_server_that_drains_finishes_what_runs() {
    let mut world = World::new();
    let path = SocketPath::new();
    let server = world.serve(&path.address());
    let client = watched().connect(world.registry(), path.address()).unwrap();
    client.call(world.registry(), bank::later, (1,), note!(1));
    world.until(|world| !world.app.waiting.is_empty());
    server.drain(world.registry(), Duration::from_secs(10), |_, cx| cx.state.balance = 1);
    world.until(|world| states(world).contains(&"draining"));
    client.call(world.registry(), bank::debit, (2,), note!(2));
    world.quiet();
    world.answer_later();
    assert_eq!(world.answers(1), [ok(1, "1")]);
    world.until(|world| world.app.balance == 1);
    world.serve(&path.address());
    assert_eq!(world.answers(1), [ok(2, "3")]);
}

#[test]
fn a_name_that_cannot_be_resolved_is_said_and_tried_again() {
    let mut world = World::new();
    // An empty label: refused by the resolver itself, which asks nobody.
    let client = watched().connect(world.registry(), "no..name:7000").unwrap();
    let options = CallOptions::new().deadline(Duration::from_millis(300));
    client.call_with(world.registry(), options, bank::balance, (), |reply, cx| {
        let error = reply.unwrap_err();
        assert!(error.to_string().contains("no..name:7000 cannot be resolved"), "{error}");
        note!(1)(Err::<u64, _>(error), cx);
    });
    assert_eq!(world.answers(1), [err(1, Ran::No, Code::Deadline)]);
    assert!(world.app.states.len() > 2, "tried again: {:?}", world.app.states);
}

#[test]
fn an_address_that_is_none_is_refused_at_once() {
    let mut world = World::new();
    for address in ["", "localhost", "unix:"] {
        let error = Client::connect(world.registry(), address).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

#[test]
fn every_address_of_a_name_is_tried() {
    let mut world = World::new();
    let server = world.serve("127.0.0.1:0");
    let address = server.local_addresses(world.registry()).remove(0).to_string();
    let port = address.rsplit_once(':').unwrap().1;
    // May be ::1 first, where nobody listens.
    let client = watched().connect(world.registry(), format!("localhost:{port}")).unwrap();
    client.call(world.registry(), bank::debit, (1,), note!(1));
    assert_eq!(world.answers(1), [ok(1, "1")]);
    assert_eq!(states(&mut world), ["connecting", "connected"], "one round was enough");
}

#[test]
fn a_stranger_on_the_port_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new();
    let mut limits = hasty_limits();
    limits.backoff_min = Duration::from_secs(60);
    limits.backoff_max = Duration::from_secs(60);
    let address = listener.local_addr().unwrap();
    let client = watched().limits(limits).connect(world.registry(), address).unwrap();
    // It speaks first: its bytes are there when the client learns that it is connected.
    let (mut stranger, _) = listener.accept().unwrap();
    stranger.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    world.until(|world| world.app.states.len() >= 2);
    let State::Disconnected { why, retry_in } = client.state(world.registry()) else { panic!() };
    assert!(why.contains("HTTP"), "{why}");
    assert!(retry_in >= Duration::from_secs(48));
}
