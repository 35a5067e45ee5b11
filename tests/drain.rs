//! Servers that shut down under load, and what becomes of the calls.
#![allow(missing_docs)]

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use onceloop::{Address, CallOptions, Code, Cx, Ran, Remote, Server, State};
use support::app::{App, err, note, ok, shop};
use support::{PATIENCE, World, hasty};

/// How many calls the load keeps open.
const OPEN: usize = 50;

#[test]
fn a_server_that_is_drained_under_load_and_replaced_loses_no_call_and_runs_none_twice() {
    const CALLS: u64 = 5_000;
    const SERVERS: u32 = 5;
    let mut world = World::<App>::new();
    let address = Address::Unix(support::socket_path());
    let mut server = shop().listen(world.registry(), address.to_string()).unwrap();
    let client = world.connect(&address);
    let mut asked = 0;
    for generation in 1..=SERVERS {
        // While calls are made, some are always on their way when the drain begins.
        let until = CALLS * u64::from(generation) / u64::from(SERVERS);
        while asked < until {
            while client.pending(world.registry()) < OPEN && asked < until {
                client.call(world.registry(), shop::add, (1,), note(0));
                asked += 1;
            }
            world.turn();
        }
        server.drain(world.registry(), Duration::from_secs(10), |drained, cx| {
            assert_eq!(drained.unfinished, 0);
            cx.state.drained += 1;
        });
        world.until(|world| world.app.drained == generation);
        server = shop().listen(world.registry(), address.to_string()).unwrap();
    }
    let told = world.told(usize::try_from(CALLS).unwrap());
    let failed: Vec<_> = told.iter().filter(|(_, told)| told.is_err()).collect();
    assert_eq!(failed.len(), 0, "of {CALLS}: {:?}", failed.first());
    assert_eq!(world.app.sum, CALLS);
}

/// Serves at `address` until it is drained, several times over, each time without a memory; returns
/// how many calls ran.
fn serve_again_and_again(
    address: &Address,
    times: u32,
    tell: &mpsc::Sender<(Server<App>, Remote<App>)>,
) -> u64 {
    let mut ran = 0;
    for _ in 0..times {
        let mut world = World::<App>::new();
        let server = shop().listen(world.registry(), address.to_string()).unwrap();
        tell.send((server, world.registry().remote())).unwrap();
        world.until(|world| world.app.drained == 1);
        ran += world.app.sum;
    }
    ran
}

fn drain(server: Server<App>, remote: &Remote<App>) {
    let drain = move |cx: &mut Cx<'_, App>| {
        server.drain(cx.registry, Duration::from_secs(10), |_, cx| cx.state.drained += 1);
    };
    remote.post(drain).expect("the server is there");
}

#[test]
fn a_server_on_another_thread_that_is_drained_under_load_loses_no_call() {
    const CALLS: usize = 10_000;
    const SERVERS: u32 = 10;
    let mut world = World::<App>::new();
    let address = Address::Unix(support::socket_path());
    let (tell, ready) = mpsc::channel();
    let there = address.clone();
    let servers = thread::spawn(move || serve_again_and_again(&there, SERVERS, &tell));
    let client = world.connect(&address);
    let mut asked = 0;
    let mut drained = 0;
    let give_up_at = Instant::now() + PATIENCE;
    while world.app.told.len() < CALLS {
        assert!(Instant::now() < give_up_at, "{} of {CALLS} answered", world.app.told.len());
        while client.pending(world.registry()) < OPEN && asked < CALLS {
            client.call(world.registry(), shop::add, (1,), note(0));
            asked += 1;
        }
        world.turn();
        // The next one is drained when it has run its share, or at the end.
        let is_next = drained + 1 < SERVERS as usize
            && world.app.told.len() > CALLS * drained / SERVERS as usize;
        if is_next && let Ok((server, remote)) = ready.try_recv() {
            drained += 1;
            drain(server, &remote);
        }
    }
    let told = world.told(CALLS);
    let failed: Vec<_> = told.iter().filter(|(_, told)| told.is_err()).collect();
    assert_eq!(failed.len(), 0, "of {CALLS}: {:?}", failed.first());
    client.close(world.registry());
    world.turn();
    ready.iter().for_each(|(server, remote)| drain(server, &remote));
    assert_eq!(servers.join().unwrap(), CALLS as u64, "each ran once");
}

#[test]
fn a_drain_waits_for_what_runs() {
    let mut world = World::<App>::new();
    let (server, client) = world.pair();
    client.call(world.registry(), shop::later, (1,), note(1));
    world.until(|world| !world.app.waiting.is_empty());
    server.drain(world.registry(), Duration::from_secs(10), |drained, cx| {
        assert_eq!(drained.unfinished, 0);
        cx.state.drained += 1;
    });
    world.until(|world| client.state(world.reactor.registry()) == State::Draining);
    assert_eq!(world.app.drained, 0);
    // A new client is not let in, and what it asks did not run.
    let options = CallOptions::new().deadline(Duration::from_millis(20));
    client.call_with(world.registry(), options, shop::add, (10,), note(2));
    assert_eq!(world.told(1), [err(2, Ran::No, Code::Deadline)]);
    world.answer_later();
    assert_eq!(world.told(1), [ok(1, "1")]);
    world.until(|world| world.app.drained == 1);
    assert_eq!(world.app.sum, 1);
}

#[test]
fn a_drain_gives_up_what_does_not_end_in_time() {
    let mut world = World::<App>::new();
    let (server, client) = world.pair();
    let options = CallOptions::new().deadline(Duration::from_millis(100));
    client.call_with(world.registry(), options, shop::later, (1,), note(1));
    world.until(|world| !world.app.waiting.is_empty());
    server.drain(world.registry(), Duration::from_millis(20), |drained, cx| {
        assert_eq!(drained.unfinished, 1);
        cx.state.drained += 1;
    });
    world.until(|world| world.app.drained == 1);
    let told = world.told(1);
    assert_eq!(told, [err(1, Ran::Unknown, Code::Deadline)]);
    // Its handler may still answer; nobody is there.
    world.answer_later();
    world.pass(Duration::from_millis(2));
}

#[test]
fn a_drain_does_not_wait_for_idle_clients() {
    let mut world = World::<App>::new();
    let (server, client) = world.pair();
    client.call(world.registry(), shop::add, (1,), note(1));
    world.told(1);
    let begin = Instant::now();
    server.drain(world.registry(), Duration::from_secs(60), |_, cx| cx.state.drained += 1);
    world.until(|world| world.app.drained == 1);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[test]
fn a_server_that_is_closed_under_load_leaves_its_callers_in_doubt_not_in_the_dark() {
    let mut world = World::<App>::new();
    let (server, address) = world.serve(shop());
    let client = hasty().connect(world.registry(), address.clone()).unwrap();
    for call in 0..100 {
        client.call(world.registry(), shop::later, (1,), note(call));
    }
    world.until(|world| world.app.waiting.len() >= 10);
    server.close(world.registry());
    let ran = world.app.waiting.len();
    let _new = shop().listen(world.registry(), address.to_string()).unwrap();
    world.until(|world| {
        // The new server runs those that certainly had not run.
        world.answer_later();
        world.app.told.len() == 100
    });
    let told = world.told(100);
    let unknown =
        told.iter().filter(|(_, told)| *told == Err((Ran::Unknown, Some(Code::SessionUnknown))));
    let unknown = unknown.count();
    assert!(unknown >= ran, "{unknown} of {ran} that ran");
    assert_eq!(told.iter().filter(|(_, told)| told.is_ok()).count(), 100 - unknown);
    assert_eq!(world.app.sum, (100 - unknown + ran) as u64);
}
