//! Calls over a second connection, when the first does not answer; and bounded attempts.
//!
//! Client and script take turns on one thread.
#![allow(missing_docs)]

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use onceloop_client::{CallOptions, Client};
use onceloop_protocol::error::{Code, ErrorBody, Ran};
use onceloop_protocol::frame::{Header, Kind};
use support::peer::Peer;
use support::relay::{Swallows, black_hole};
use support::{App, World, bank, err, hasty, ok};

const HEDGED: CallOptions = CallOptions::new().hedge_after(Duration::from_millis(10));

fn client(world: &mut World) -> (TcpListener, Client<App>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, hasty().connect(world.registry(), address).unwrap())
}

#[test]
fn a_call_that_the_first_connection_swallows_is_answered_on_the_second() {
    let mut world = World::new();
    let (listener, client) = client(&mut world);
    client.call_with(world.registry(), HEDGED, bank::debit, (7,), note!(1));
    let mut first = Peer::accept_beside(&mut world, &listener);
    first.welcome();
    let (request, args) = first.next_beside(&mut world).unwrap();
    assert_eq!((request.kind, request.seq), (Kind::Request, 1));

    let mut second = Peer::accept_beside(&mut world, &listener);
    let resume = second.resumed(&[]);
    assert!(resume.join && resume.attachment == 2);
    let (copy, copied_args) = second.next_beside(&mut world).unwrap();
    assert_eq!((copy.kind, copy.seq, copied_args), (Kind::Request, 1, args));
    second.send(Kind::Reply, 1, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);

    first.send(Kind::Reply, 1, &7_u64);
    world.until(|world| client.counters(world.registry()).answers_ignored == 1);
    let counters = client.counters(world.registry());
    assert_eq!((counters.calls, counters.hedges, counters.resends), (1, 1, 0));

    client.close(world.registry());
    assert_eq!(first.next_beside(&mut world).unwrap().0.kind, Kind::Bye);
    assert!(second.next_beside(&mut world).is_none());
}

#[test]
fn a_server_that_attaches_one_connection_costs_the_hedge_only() {
    let mut world = World::new();
    let (listener, client) = client(&mut world);
    client.call_with(world.registry(), HEDGED, bank::debit, (7,), note!(1));
    let mut first = Peer::accept_beside(&mut world, &listener);
    first.welcome();
    assert_eq!(first.next_beside(&mut world).unwrap().0.kind, Kind::Request);
    let mut second = Peer::accept_beside(&mut world, &listener);
    second.expect(Kind::Resume);
    second.send(Kind::Error, 0, &ErrorBody::new(Code::Unsupported, "one is enough"));
    assert!(second.next_beside(&mut world).is_none(), "the client leaves");
    world.quiet();
    first.send(Kind::Reply, 1, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);
    assert_eq!(client.counters(world.registry()).hedges, 0);
}

#[test]
fn a_second_connection_that_nobody_needs_is_closed() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut limits = support::hasty_limits();
    limits.spare_idle = Duration::from_millis(20);
    let address = listener.local_addr().unwrap();
    let client = Client::builder().limits(limits).connect(world.registry(), address).unwrap();
    client.call_with(world.registry(), HEDGED, bank::debit, (7,), note!(1));
    let mut first = Peer::accept_beside(&mut world, &listener);
    first.welcome();
    first.next_beside(&mut world).unwrap();
    let mut second = Peer::accept_beside(&mut world, &listener);
    second.resumed(&[]);
    assert_eq!(second.next_beside(&mut world).unwrap().0.kind, Kind::Request);
    second.send(Kind::Reply, 1, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);
    assert!(second.next_beside(&mut world).is_none());
    client.call(world.registry(), bank::debit, (8,), note!(2));
    loop {
        let (header, _) = first.next_beside(&mut world).unwrap();
        if header.kind == Kind::Request {
            break first.send(Kind::Reply, header.seq, &15_u64);
        }
    }
    assert_eq!(world.answers(1), [ok(2, "15")], "the first connection never noticed");
}

#[test]
fn when_the_first_connection_dies_a_resume_replaces_both() {
    let mut world = World::new();
    let (listener, client) = client(&mut world);
    client.call_with(world.registry(), HEDGED, bank::debit, (7,), note!(1));
    let mut first = Peer::accept_beside(&mut world, &listener);
    first.welcome();
    first.next_beside(&mut world).unwrap();
    let mut second = Peer::accept_beside(&mut world, &listener);
    second.resumed(&[]);
    second.next_beside(&mut world).unwrap();
    drop(first);
    let mut third = Peer::accept_beside(&mut world, &listener);
    let resume = third.resumed(&[]);
    assert!(!resume.join && resume.attachment == 3);
    assert!(second.next_beside(&mut world).is_none(), "the survivor is closed");
    assert_eq!(third.next_beside(&mut world).unwrap().0.seq, 1, "its cell is vacant");
    third.send(Kind::Reply, 1, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);
}

#[test]
fn attempts_that_are_used_up_end_a_call() {
    let mut world = World::new();
    let (listener, client) = client(&mut world);
    let twice = CallOptions::new().attempts(2);
    client.call_with(world.registry(), twice, bank::debit, (7,), note!(1));
    let mut peer = Peer::accept_beside(&mut world, &listener);
    peer.welcome();
    let mut body = ErrorBody::new(Code::Busy, "later");
    body.retry_after_ms = Some(1);
    for _ in 0..2 {
        assert_eq!(peer.next_beside(&mut world).unwrap().0.kind, Kind::Request);
        peer.send(Kind::Error, 1, &body);
    }
    assert_eq!(world.answers(1), [err(1, Ran::No, Code::Busy)]);
}

#[test]
fn an_at_least_once_call_is_sent_again_after_a_timeout() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut limits = support::hasty_limits();
    limits.retransmit_timeout = Duration::from_millis(30);
    let address = listener.local_addr().unwrap();
    let client = Client::builder().limits(limits).connect(world.registry(), address).unwrap();
    let options = CallOptions::new().at_least_once();
    client.call_with(world.registry(), options, bank::balance, (), note!(1));
    let mut peer = Peer::accept_beside(&mut world, &listener);
    peer.welcome();
    let (request, _) = peer.next_beside(&mut world).unwrap();
    loop {
        let (header, _) = peer.next_beside(&mut world).unwrap();
        if header.kind == Kind::Request {
            assert_eq!(header.seq, request.seq);
            break;
        }
        let mut out = Vec::new();
        Header::new(Kind::Pong, header.seq).append(&[], &mut out);
        peer.stream.write_all(&out).unwrap();
    }
    peer.send(Kind::Reply, request.seq, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);
}

#[test]
fn a_call_through_a_black_hole_is_answered_by_the_hedge_and_runs_once() {
    for swallows in [Swallows::Answers, Swallows::Requests] {
        let mut world = World::new();
        let server = world.serve("127.0.0.1:0");
        let address = server.local_addresses(world.registry()).remove(0).to_string();
        let relay = black_hole(address, swallows);
        let client = hasty().connect(world.registry(), relay).unwrap();
        let begun = Instant::now();
        client.call_with(world.registry(), HEDGED, bank::debit, (7,), note!(1));
        assert_eq!(world.answers(1), [ok(1, "7")], "{swallows:?}");
        let counters = client.counters(world.registry());
        // Long before the first connection is found dead; but a busy machine may take its time.
        if begun.elapsed() < Duration::from_secs(2) {
            assert_eq!((counters.hedges, counters.resends), (1, 0), "{swallows:?}");
        }
        // The window goes on by hedges until the first connection is given up, and after that.
        for call in 2..=4 {
            client.call_with(world.registry(), HEDGED, bank::debit, (1,), note!(call));
        }
        assert_eq!(world.answers(3).len(), 3);
        assert_eq!(world.app.balance, 10, "{swallows:?}: each ran once");
    }
}
