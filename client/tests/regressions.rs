//! Each test is a mistake that was made here once, or a loop that would be busy if it were made.
#![allow(missing_docs)]

mod support;

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use onceloop_client::{BlockingClient, CallOptions, Client, State};
use onceloop_protocol::error::{Code, ErrorBody, Ran};
use onceloop_protocol::frame::Kind;
use onceloop_protocol::limits::Limits;
use onceloop_reactor::Cx;
use support::peer::{Peer, play};
use support::{App, SocketPath, World, bank, err, hasty_limits, ok};

/// How long a loop is watched, and how many turns it may make in that time without an event: output
/// that is held up is looked at each 10 ms, and each look, like each piece that the socket takes,
/// brings a second turn. A busy loop makes many thousands.
const WATCHED: Duration = Duration::from_millis(200);
const TURNS_MAX: u32 = 500;

/// Turns for a while in which there is next to nothing to do.
#[track_caller]
fn watch(world: &mut World) {
    let end = Instant::now() + WATCHED;
    let mut turns = 0;
    while let left = end.saturating_duration_since(Instant::now())
        && !left.is_zero()
    {
        let turn = world.reactor.turn(&mut world.app, Some(left)).unwrap();
        // A socket may take what it is given in many small pieces.
        turns += u32::from(turn.events == 0);
        assert!(turns <= TURNS_MAX, "{turns} turns with nothing to do");
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn connect(world: &mut World, listener: &TcpListener, limits: Limits) -> Client<App> {
    let address = listener.local_addr().unwrap();
    Client::builder()
        .limits(limits)
        .on_state(|state, cx: &mut Cx<'_, App>| cx.state.states.push(state.clone()))
        .connect(world.registry(), address)
        .unwrap()
}

/// Sends far more than a socket takes to a server that reads nothing.
fn congest(world: &mut World, client: Client<App>) {
    let text = "x".repeat(512 * 1024);
    for _ in 0..64 {
        client.notify(world.registry(), bank::echo, (&text,)).unwrap();
    }
    for _ in 0..20 {
        world.reactor.turn(&mut world.app, Some(Duration::ZERO)).unwrap();
    }
    assert!(client.pending(world.registry()) > 0, "the socket took all of it");
}

#[test]
fn a_peer_that_does_not_read_makes_no_busy_loop() {
    let mut world = World::new();
    let listener = listener();
    let mut limits = hasty_limits();
    limits.output_bytes_mark = 16 * 1024;
    limits.call_timeout = Duration::from_millis(400);
    let client = connect(&mut world, &listener, limits);
    let mut peer = Peer::accept_beside(&mut world, &listener);
    peer.welcome();
    world.until(|world| world.app.states.contains(&State::Connected { resumed: false }));
    congest(&mut world, client);
    watch(&mut world);
    // What waited for room is given up: there is nothing left to send.
    world.until(|world| client.pending(world.registry()) == 0);
    watch(&mut world);
}

#[test]
fn a_congested_connection_that_is_lost_makes_no_busy_loop() {
    let mut world = World::new();
    let listener = listener();
    let mut limits = Limits::default();
    limits.output_bytes_mark = 16 * 1024;
    limits.backoff_min = Duration::from_secs(60);
    limits.backoff_max = Duration::from_secs(60);
    let client = connect(&mut world, &listener, limits);
    let mut peer = Peer::accept_beside(&mut world, &listener);
    peer.welcome();
    world.until(|world| world.app.states.contains(&State::Connected { resumed: false }));
    congest(&mut world, client);
    drop((peer, listener));
    world.until(|world| matches!(world.app.states.last(), Some(State::Disconnected { .. })));
    watch(&mut world);
}

#[test]
fn waiting_is_never_busy() {
    let mut world = World::new();
    world.registry().after(Duration::from_secs(3_600), |_| unreachable!("too early"));
    watch(&mut world);

    // Nobody listens: the client waits for its next attempt.
    let gone = listener();
    let mut limits = Limits::default();
    limits.backoff_min = Duration::from_secs(60);
    limits.backoff_max = Duration::from_secs(60);
    let address = gone.local_addr().unwrap();
    drop(gone);
    let early = Client::builder().limits(limits).connect(world.registry(), address).unwrap();
    early.call(world.registry(), bank::debit, (1,), note!(1));
    watch(&mut world);

    // The server does not say WELCOME.
    let listener = listener();
    let client = connect(&mut world, &listener, Limits::default());
    let mut peer = Peer::accept_beside(&mut world, &listener);
    watch(&mut world);

    // Calls wait for a window that is full, and then for the end of a server.
    peer.welcome();
    for call in 0..20 {
        client.call(world.registry(), bank::debit, (1,), note!(call));
    }
    watch(&mut world);
    peer.send_empty(Kind::GoAway);
    world.until(|world| world.app.states.contains(&State::Draining));
    watch(&mut world);
}

#[test]
fn a_server_that_drains_is_left_when_the_last_call_is_given_up() {
    for is_cancelled in [false, true] {
        let mut world = World::new();
        let listener = listener();
        let client = connect(&mut world, &listener, hasty_limits());
        let timeout = Duration::from_millis(if is_cancelled { 60_000 } else { 50 });
        let options = CallOptions::new().deadline(timeout);
        let call = client.call_with(world.registry(), options, bank::debit, (1,), note!(1));
        let mut first = Peer::accept_beside(&mut world, &listener);
        first.welcome();
        world.until(|world| client.counters(world.registry()).calls == 1);
        first.send_empty(Kind::GoAway);
        world.until(|world| world.app.states.contains(&State::Draining));
        if is_cancelled {
            assert!(client.cancel(world.registry(), call));
        }
        let code = if is_cancelled { Code::Cancelled } else { Code::Deadline };
        assert_eq!(world.answers(1), [err(1, Ran::Unknown, code)]);
        // This server never closes: it is for the client to go.
        client.call(world.registry(), bank::debit, (2,), note!(2));
        let mut second = Peer::accept_beside(&mut world, &listener);
        second.resumed(&[]);
        let (request, _) = second.next_beside(&mut world).unwrap();
        assert_eq!((request.kind, request.seq), (Kind::Request, 2));
        second.send(Kind::Reply, 2, &7_u64);
        assert_eq!(world.answers(1), [ok(2, "7")]);
    }
}

#[test]
fn attempts_without_a_pause_do_not_hold_up_the_loop() {
    let mut world = World::new();
    let mut limits = Limits::default();
    limits.backoff_min = Duration::ZERO;
    limits.backoff_max = Duration::ZERO;
    let path = SocketPath::new();
    // There is no such file: each attempt fails at once.
    let client =
        Client::builder().limits(limits).connect(world.registry(), &path.address()[..]).unwrap();
    client.call(world.registry(), bank::debit, (1,), note!(1));
    let _server = world.serve(&path.address());
    assert_eq!(world.answers(1), [ok(1, "1")]);
}

#[test]
fn a_blocking_client_finds_out_that_its_server_was_restarted_before_it_calls() {
    let (closed, is_closed) = mpsc::channel();
    let (address, script) = play(move |listener| {
        let mut first = Peer::accept(&listener);
        first.welcome();
        first.expect(Kind::Request);
        first.send(Kind::Reply, 1, &1_u64);
        drop(first);
        closed.send(()).unwrap();
        let mut second = Peer::accept(&listener);
        second.expect(Kind::Resume);
        second.send(Kind::Error, 0, &ErrorBody::new(Code::SessionUnknown, "never heard of it"));
        let mut third = Peer::accept(&listener);
        third.welcome();
        third.expect(Kind::Request);
        third.send(Kind::Reply, 1, &2_u64);
        while third.next().is_some() {}
    });
    let builder = Client::builder().limits(hasty_limits());
    let mut bank = bank::Stub(BlockingClient::connect_with(builder, address).unwrap());
    assert_eq!(bank.debit(1), Ok(1));
    is_closed.recv().unwrap();
    // Sent on the connection that is gone, the call might have run, in the session that is gone.
    assert_eq!(bank.debit(1), Ok(2));
    drop(bank);
    script.join().unwrap();
}

#[test]
fn a_welcome_that_came_while_the_loop_was_held_up_counts() {
    let mut world = World::new();
    let listener = listener();
    let mut limits = hasty_limits();
    limits.handshake_timeout = Duration::from_millis(100);
    let client = connect(&mut world, &listener, limits);
    client.call(world.registry(), bank::debit, (1,), note!(1));
    let begun = Instant::now();
    let mut peer = Peer::accept_beside(&mut world, &listener);
    peer.welcome();
    // A callback that takes long: the answer waits in the socket.
    while begun.elapsed() < Duration::from_millis(120) {
        std::hint::spin_loop();
    }
    let (request, _) = peer.next_beside(&mut world).unwrap();
    assert_eq!(request.kind, Kind::Request);
    peer.send(Kind::Reply, 1, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);
    let lost = |state: &State| matches!(state, State::Disconnected { .. });
    assert!(!world.app.states.iter().any(lost), "{:?}", world.app.states);
}
