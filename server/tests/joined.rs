//! Two connections of one session, and sessions of principals.
#![allow(missing_docs)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Got, Wire, World, flagged, frame, plain_hello, plain_resume, request};
use onceloop_protocol::codec;
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{Flags, Kind};
use onceloop_protocol::handshake::{CellReport, Hello, Order, Resume, Resumed, Welcome};
use onceloop_protocol::limits::Limits;
use onceloop_server::Principal;

/// A session with two connections.
fn joined(world: &mut World, order: Order) -> (Wire, Wire, Welcome) {
    let (first, welcome) = Wire::hello(world, order);
    let mut second = Wire::join(world, &welcome, 1);
    assert_eq!(second.one(world).header.kind, Kind::Resumed);
    (first, second, welcome)
}

fn seqs(frames: &[Got]) -> Vec<u64> {
    frames.iter().map(|frame| frame.header.seq).collect()
}

#[test]
fn a_call_sent_by_two_connections_runs_once_and_is_answered_on_both() {
    let mut world = World::new();
    let (mut first, mut second, _) = joined(&mut world, Order::Unordered);
    for wire in [&mut first, &mut second] {
        wire.call(&mut world, 1, 0, "bank.later", &(7u64,));
    }
    assert_eq!(world.app.waiting.len(), 1);
    world.answer_all();
    assert_eq!([first.one(&mut world).number(), second.one(&mut world).number()], [7, 7]);
    first.call(&mut world, 2, 0, "bank.debit", &(10u64,));
    assert_eq!([first.one(&mut world).number(), second.one(&mut world).number()], [10, 10]);
    second.call(&mut world, 2, 0, "bank.debit", &(10u64,));
    assert_eq!(second.one(&mut world).number(), 10, "a copy is answered where it came from");
    assert!(first.all(&mut world).is_empty());
    assert_eq!(world.app.spent, 10);
}

/// A client that has sent two copies waits for two refusals.
#[test]
fn what_is_refused_after_all_is_refused_on_both() {
    let mut world = World::new();
    let (mut first, mut second, _) = joined(&mut world, Order::InOrder);
    // Running, and put off.
    for wire in [&mut first, &mut second] {
        wire.call(&mut world, 1, 0, "bank.later", &(7u64,));
    }
    // Held, and its arguments do not fit.
    for wire in [&mut first, &mut second] {
        wire.call(&mut world, 2, 0, "bank.debit", &("no number",));
    }
    let (_, responder) = world.app.waiting.remove(0);
    world.reactor.registry().defer(|cx| responder.retry_later(cx, Duration::from_millis(5)));
    for wire in [&mut first, &mut second] {
        assert_eq!(wire.one(&mut world).code(), Some(Code::Busy));
    }
    first.call(&mut world, 1, 0, "bank.debit", &(1u64,));
    for wire in [&mut first, &mut second] {
        let got = wire.all(&mut world);
        assert_eq!((seqs(&got), got[0].number()), (vec![1, 2], 1));
        assert_eq!(got[1].code(), Some(Code::BadArguments));
    }
}

#[test]
fn a_large_reply_goes_to_both_connections_too() {
    let mut world = World::new();
    let (mut first, mut second, _) = joined(&mut world, Order::Unordered);
    second.call(&mut world, 1, 0, "bank.big", &(100_000usize,));
    for wire in [&mut first, &mut second] {
        let got = wire.next(&mut world);
        assert_eq!((got.header.kind, got.body.len()), (Kind::Reply, 100_005));
    }
}

#[test]
fn when_one_connection_is_lost_the_other_goes_on() {
    let mut world = World::new();
    let (first, mut second, _) = joined(&mut world, Order::Unordered);
    second.call(&mut world, 1, 0, "bank.later", &(7u64,));
    drop(first);
    world.settle();
    world.answer_all();
    assert_eq!(second.one(&mut world).number(), 7);
    second.call(&mut world, 2, 1, "bank.debit", &(1u64,));
    assert_eq!(second.one(&mut world).number(), 1);
}

#[test]
fn a_resume_without_join_closes_both() {
    let mut world = World::new();
    let (mut first, mut second, welcome) = joined(&mut world, Order::Unordered);
    let mut third = Wire::resume(&mut world, &welcome, 2, 0);
    assert_eq!(third.one(&mut world).header.kind, Kind::Resumed);
    assert!(first.is_closed(&mut world) && second.is_closed(&mut world));
}

#[test]
fn goodbye_on_one_connection_ends_the_other() {
    let mut world = World::new();
    let (mut first, mut second, _) = joined(&mut world, Order::Unordered);
    second.send(&mut world, &frame(Kind::Bye, 0, &[]));
    assert!(first.is_closed(&mut world) && second.is_closed(&mut world));
    assert_eq!(world.stats().sessions, 0);
}

#[test]
fn calls_in_order_come_by_two_connections_and_keep_it() {
    let mut world = World::new();
    let (mut first, mut second, _) = joined(&mut world, Order::InOrder);
    second.call(&mut world, 2, 0, "bank.debit", &(20u64,));
    first.call(&mut world, 3, 0, "bank.nonsense", &());
    first.call(&mut world, 4, 0, "bank.debit", &(40u64,));
    assert_eq!(world.app.spent, 0, "1 has not come");
    first.call(&mut world, 1, 0, "bank.debit", &(10u64,));
    // 3 has no method and was refused where it came from; 4 waits for it.
    let frames = first.all(&mut world);
    assert_eq!(seqs(&frames), [3, 1, 2]);
    assert_eq!(frames[0].code(), Some(Code::NoMethod));
    let frames = second.all(&mut world);
    let numbers: Vec<_> = frames.iter().map(Got::number).collect();
    assert_eq!((seqs(&frames), numbers), (vec![1, 2], vec![10, 30]));
    second.call(&mut world, 3, 0, "bank.debit", &(30u64,));
    assert_eq!(seqs(&second.all(&mut world)), [3, 4]);
    assert_eq!(seqs(&first.all(&mut world)), [3, 4]);
    assert_eq!(world.app.spent, 100);
}

#[test]
fn a_held_call_is_cancelled_where_it_came_from() {
    let mut world = World::new();
    let (mut first, mut second, _) = joined(&mut world, Order::InOrder);
    first.call(&mut world, 2, 0, "bank.debit", &(20u64,));
    second.send(&mut world, &frame(Kind::Cancel, 2, &[]));
    assert!(second.all(&mut world).is_empty());
    assert_eq!(first.one(&mut world).code(), Some(Code::Cancelled));
}

#[test]
fn an_unprotected_answer_goes_where_its_call_came_from() {
    let mut world = World::new();
    let (mut first, mut second, _) = joined(&mut world, Order::Unordered);
    let bytes = flagged(1, 0, "bank.balance", &(), Flags::UNPROTECTED);
    second.send(&mut world, &bytes);
    assert_eq!(second.one(&mut world).number(), 0);
    assert!(first.all(&mut world).is_empty());
}

#[test]
fn a_server_that_answers_in_progress_does_so_at_once() {
    let mut world = World::built(Limits::default(), |builder| {
        builder.answer_in_progress(Duration::from_millis(40))
    });
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    for _ in 0..2 {
        wire.call(&mut world, 1, 0, "bank.later", &(7u64,));
    }
    assert_eq!(wire.one(&mut world).code(), Some(Code::InProgress));
    world.answer_all();
    assert_eq!(wire.one(&mut world).number(), 7);
    assert_eq!(world.stats().calls_started, 1);
}

/// A server that knows two tokens.
fn doorkeeper() -> World {
    let mut limits = Limits::default();
    limits.sessions_max = 4;
    limits.sessions_per_principal_max = 3;
    World::built(limits, |builder| {
        builder.authenticate(|token, _| match token {
            None => Some(Principal::ANYONE),
            Some(b"ann") => Some(Principal(1)),
            Some(b"bob") => Some(Principal(2)),
            Some(_) => None,
        })
    })
}

fn hello_of(token: &'static str) -> Hello {
    Hello { token: Some(Bytes::from_static(token.as_bytes())), ..plain_hello() }
}

#[test]
fn a_peer_that_is_not_taken_is_told_so() {
    let mut world = doorkeeper();
    let mut wire = Wire::open(&mut world);
    wire.begin(&mut world, Kind::Hello, &hello_of("eve"));
    assert_eq!(wire.one(&mut world).code(), Some(Code::NotAuthorized));
    assert!(wire.is_closed(&mut world));
    assert_eq!(world.stats().sessions, 0);
}

#[test]
fn a_session_is_for_its_principal_alone() {
    let mut world = doorkeeper();
    let (mut wire, welcome) = Wire::hello_of(&mut world, &hello_of("ann"));
    wire.call(&mut world, 1, 0, "bank.debit", &(10u64,));
    assert_eq!(wire.one(&mut world).number(), 10);
    let resume = |token: Option<&'static str>| Resume {
        token: token.map(|token| Bytes::from_static(token.as_bytes())),
        ..plain_resume(&welcome, 1, 0)
    };
    for token in [Some("bob"), None] {
        let mut other = Wire::open(&mut world);
        other.begin(&mut world, Kind::Resume, &resume(token));
        assert_eq!(other.one(&mut world).code(), Some(Code::SessionUnknown));
    }
    let mut back = Wire::open(&mut world);
    back.begin(&mut world, Kind::Resume, &resume(Some("ann")));
    let frames = back.all(&mut world);
    let resumed: Resumed = codec::decode_whole(&frames[0].body).expect("a RESUMED");
    assert_eq!(resumed.report(1), CellReport::Finished);
    assert_eq!(frames[1].number(), 10);
}

#[test]
fn strangers_together_have_half_of_the_sessions() {
    let mut world = doorkeeper();
    let _wires = [(); 2].map(|()| Wire::hello(&mut world, Order::Unordered));
    let mut wire = Wire::open(&mut world);
    wire.begin(&mut world, Kind::Hello, &plain_hello());
    assert_eq!(wire.one(&mut world).code(), Some(Code::Busy));
    let (mut wire, _) = Wire::hello_of(&mut world, &hello_of("bob"));
    wire.send(&mut world, &request(1, 0, "bank.debit", &(1u64,)));
    assert_eq!(wire.one(&mut world).number(), 1);
}
