//! A client against a server that is played by hand, on a plain socket.
//!
//! Most scripts have a thread of their own. Where the client's patience is short, client and script
//! take turns on one thread: a machine that is busy elsewhere then delays both, and proves nothing.
#![allow(missing_docs)]

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use onceloop_client::Client;
use onceloop_protocol::error::{Code, ErrorBody, Ran};
use onceloop_protocol::frame::{Header, Kind};
use onceloop_protocol::handshake::CellReport;
use support::peer::{Peer, play};
use support::{App, World, bank, err, hasty, hasty_limits, ok};

/// Returns a client of `listener` that asks a silent server soon.
fn impatient(world: &mut World, listener: &TcpListener) -> Client<App> {
    let mut limits = hasty_limits();
    limits.retransmit_timeout = Duration::from_millis(30);
    let address = listener.local_addr().unwrap();
    Client::builder().limits(limits).connect(world.registry(), address).unwrap()
}

#[test]
fn a_server_that_falls_silent_is_asked_and_then_left() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = impatient(&mut world, &listener);
    client.call(world.registry(), bank::debit, (7,), note!(1));
    let mut first = Peer::accept_beside(&mut world, &listener);
    first.welcome();
    let (request, request_body) = first.next_beside(&mut world).unwrap();
    assert_eq!(request.kind, Kind::Request);
    assert_eq!(first.next_beside(&mut world).unwrap().0.kind, Kind::Ping);
    // No PONG: the client gives the connection up and comes back.
    assert!(first.next_beside(&mut world).is_none(), "the first connection is closed");
    let mut second = Peer::accept_beside(&mut world, &listener);
    let resume = second.resumed(&[CellReport::Vacant]);
    assert_eq!((resume.ack, resume.attachment), (0, 2));
    let (again, again_body) = second.next_beside(&mut world).unwrap();
    assert_eq!((again.seq, again_body), (1, request_body));
    second.send(Kind::Reply, 1, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);
}

#[test]
fn a_server_that_answers_pings_is_waited_for() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = impatient(&mut world, &listener);
    client.call(world.registry(), bank::debit, (7,), note!(1));
    let mut peer = Peer::accept_beside(&mut world, &listener);
    peer.welcome();
    assert_eq!(peer.next_beside(&mut world).unwrap().0.kind, Kind::Request);
    for _ in 0..4 {
        let (ping, _) = peer.next_beside(&mut world).unwrap();
        assert_eq!(ping.kind, Kind::Ping);
        let mut out = Vec::new();
        Header::new(Kind::Pong, ping.seq).append(&[], &mut out);
        peer.stream.write_all(&out).unwrap();
    }
    peer.send(Kind::Reply, 1, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);
    assert_eq!(client.counters(world.registry()).resends, 0);
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let (address, script) = play(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.welcome();
        for _ in 0..3 {
            let (header, _) = peer.expect(Kind::Request);
            assert_eq!(header.seq, 1);
            let mut body = ErrorBody::new(Code::Busy, "not now");
            body.retry_after_ms = Some(5);
            peer.send(Kind::Error, 1, &body);
        }
        peer.expect(Kind::Request);
        peer.send(Kind::Reply, 1, &7_u64);
        while peer.next().is_some() {}
    });
    let mut world = World::new();
    let client = Client::connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::debit, (7,), note!(1));
    assert_eq!(world.answers(1), [ok(1, "7")]);
    drop(world);
    script.join().unwrap();
}

#[test]
fn a_reply_that_is_too_large_has_run() {
    let (address, script) = play(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.welcome();
        peer.expect(Kind::Request);
        peer.send(Kind::Reply, 1, &"x".repeat(3_000));
        peer.expect(Kind::Request);
        peer.send(Kind::Reply, 2, &"y");
        while peer.next().is_some() {}
    });
    let mut world = World::new();
    let mut limits = hasty_limits();
    limits.body_bytes_max = 2_000;
    let client = Client::builder().limits(limits).connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::echo, ("x",), note!(1));
    assert_eq!(world.answers(1), [err(1, Ran::Yes, Code::TooLarge)]);
    client.call(world.registry(), bank::echo, ("y",), note!(2));
    assert_eq!(world.answers(1), [ok(2, "\"y\"")]);
    drop(world);
    script.join().unwrap();
}

#[test]
fn a_server_that_breaks_the_protocol_is_left_and_resumed() {
    let (address, script) = play(|listener| {
        let mut first = Peer::accept(&listener);
        first.welcome();
        first.expect(Kind::Request);
        first.send(Kind::Reply, 99, &7_u64);
        let mut second = Peer::accept(&listener);
        second.resumed(&[CellReport::Finished]);
        second.send(Kind::Reply, 1, &7_u64);
        while second.next().is_some() {}
    });
    let mut world = World::new();
    let client = hasty().connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::debit, (7,), note!(1));
    assert_eq!(world.answers(1), [ok(1, "7")]);
    drop(world);
    script.join().unwrap();
}

#[test]
fn a_closed_client_says_bye_and_what_it_has_consumed() {
    let (address, script) = play(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.welcome();
        peer.expect(Kind::Request);
        peer.send(Kind::Reply, 1, &7_u64);
        let (bye, body) = peer.expect(Kind::Bye);
        assert_eq!((bye.seq, body.len()), (1, 0));
        assert!(peer.next().is_none());
    });
    let mut world = World::new();
    let client = Client::connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::debit, (7,), move |reply, cx| {
        note!(1)(reply, cx);
        client.close(cx.registry);
    });
    assert_eq!(world.answers(1), [ok(1, "7")]);
    world.until(|_| script.is_finished());
    script.join().unwrap();
}

#[test]
fn a_server_that_never_answers_the_handshake_is_left() {
    let (address, script) = play(|listener| {
        let mut first = Peer::accept(&listener);
        first.expect(Kind::Hello);
        // A machine that is busy elsewhere may make more than one handshake late.
        loop {
            let mut peer = Peer::accept(&listener);
            peer.welcome();
            if peer.next().is_some() {
                peer.send(Kind::Reply, 1, &7_u64);
                while peer.next().is_some() {}
                return;
            }
        }
    });
    let mut world = World::new();
    let mut limits = hasty_limits();
    limits.handshake_timeout = Duration::from_millis(50);
    let client = Client::builder().limits(limits).connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::debit, (7,), note!(1));
    assert_eq!(world.answers(1), [ok(1, "7")]);
    drop(world);
    script.join().unwrap();
}
