//! Mistakes that were made once.
#![allow(missing_docs)]

mod common;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use common::{Wire, World, first_frame, frame, plain_resume, request};
use onceloop_protocol::codec;
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{Flags, Kind};
use onceloop_protocol::handshake::{Order, Resumed};
use onceloop_protocol::limits::Limits;
use onceloop_reactor::Reactor;
use onceloop_server::{Builder, Responder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An answer queued while a RESUME was being answered went out before the magic.
#[test]
fn nothing_goes_out_before_the_magic() {
    let mut world = World::new();
    let (first, welcome) = Wire::hello(&mut world, Order::Unordered);
    drop(first);
    let mut second = Wire::open(&mut world);
    let mut script = first_frame(Kind::Resume, &plain_resume(&welcome, 1, 0));
    // Too early for a client of ours, and large: it is not copied behind what waits.
    script.extend(request(1, 0, "bank.big", &(5_000usize,)));
    second.send(&mut world, &script);
    let frames = second.all(&mut world);
    let kinds: Vec<Kind> = frames.iter().map(|frame| frame.header.kind).collect();
    assert_eq!(kinds, [Kind::Resumed, Kind::Reply]);
}

/// A large answer went out before the small ones of its batch.
#[test]
fn answers_of_a_batch_keep_their_order() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let mut script = Vec::new();
    for seq in 1..=6 {
        let bytes = if seq % 2 == 0 { 5_000 } else { 5 };
        script.extend(request(seq, 0, "bank.big", &(bytes as usize,)));
    }
    wire.send(&mut world, &script);
    let seqs: Vec<u64> = wire.all(&mut world).iter().map(|frame| frame.header.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
}

/// The header was counted as if it were body.
#[test]
fn a_reply_as_large_as_a_body_may_be_is_delivered() {
    let mut limits = Limits::default();
    limits.body_bytes_max = 10_000;
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let head = codec::encode(&Bytes::from(vec![7; 9_000])).expect("it encodes").len() - 9_000;
    wire.call(&mut world, 1, 0, "bank.big", &(10_000 - head,));
    assert_eq!(wire.one(&mut world).body.len(), 10_000);
    wire.call(&mut world, 2, 1, "bank.big", &(10_001 - head,));
    assert_eq!(wire.one(&mut world).code(), Some(Code::ApplicationError));
}

/// A callback of the program that panicked could take the rest of its batch with it.
#[test]
fn a_cancel_hook_that_panics_costs_no_other_frame() {
    let mut world = World::new();
    world.app.on_cancel = Some(|cx| {
        cx.state.cancelled += 1;
        panic!("on purpose");
    });
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.later", &(4u64,));
    let mut script = request(2, 0, "bank.debit", &(10u64,));
    script.extend(frame(Kind::Cancel, 1, &[]));
    script.extend(request(3, 0, "bank.debit", &(100u64,)));
    script.extend(&request(4, 0, "bank.debit", &(1_000u64,))[..30]);
    wire.stream.write_all(&script).expect("the server reads");
    let mut panics = 0;
    for _ in 0..50 {
        let turn = catch_unwind(AssertUnwindSafe(|| world.turn()));
        panics += usize::from(turn.is_err());
    }
    assert_eq!((panics, world.app.cancelled), (1, 1));
    wire.send(&mut world, &request(4, 0, "bank.debit", &(1_000u64,))[30..]);
    let seqs: Vec<u64> = wire.all(&mut world).iter().map(|frame| frame.header.seq).collect();
    assert_eq!(seqs, [2, 3, 4]);
    assert_eq!(world.app.spent, 1_110);
    world.answer_all();
    assert_eq!(wire.one(&mut world).number(), 4, "cancelled, it is answered all the same");
}

/// A task of the program that panics in a turn costs nobody else's frames.
#[test]
fn a_deferred_task_that_panics_costs_no_frame() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.stream.write_all(&request(1, 0, "bank.debit", &(10u64,))).expect("the server reads");
    world.reactor.registry().defer(|_| panic!("on purpose"));
    let result = catch_unwind(AssertUnwindSafe(|| world.settle()));
    assert!(result.is_err());
    assert_eq!(wire.one(&mut world).number(), 10);
}

#[derive(Debug)]
#[allow(unreachable_pub, reason = "a service may name it")]
pub struct Explosive;

impl Serialize for Explosive {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("on purpose")
    }
}

impl<'de> Deserialize<'de> for Explosive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Explosive)
    }
}

onceloop_protocol::service! {
    pub mod odd {
        fn explosive() -> super::Explosive;
        fn dropped() -> u64;
    }
}

struct Odd {
    waiting: Vec<Responder<Odd, odd::explosive>>,
}

/// A late reply whose own code panicked while it was encoded left its call in flight for ever; a
/// responder dropped by a handler that panicked counted as a second answer.
#[test]
fn a_call_is_answered_once_whatever_panics() {
    let mut reactor = Reactor::new().expect("a reactor");
    let server = Builder::<Odd>::new()
        .deferred(odd::explosive, |(), responder, cx| cx.state.waiting.push(responder))
        .deferred(odd::dropped, |(), _responder, _| panic!("on purpose"))
        .listen(reactor.registry(), "127.0.0.1:0")
        .expect("a server");
    let address = server.local_addresses(reactor.registry()).remove(0).to_string();
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    let mut script = first_frame(Kind::Hello, &common::plain_hello());
    script.extend(request(1, 0, "odd.explosive", &()));
    script.extend(request(2, 0, "odd.dropped", &()));
    stream.write_all(&script).expect("the server reads");
    let mut state = Odd { waiting: Vec::new() };
    let mut panics = 0;
    let begin = std::time::Instant::now();
    loop {
        let stats = server.stats(reactor.registry());
        if stats.calls_answered == 2 && stats.in_flight == 0 {
            break;
        }
        assert!(begin.elapsed() < common::PATIENCE, "{stats:?}");
        if let Some(responder) = state.waiting.pop() {
            reactor.registry().defer(move |cx| responder.respond(cx, Ok(Explosive)));
        }
        let turn = || reactor.turn(&mut state, Some(Duration::from_millis(2)));
        panics += usize::from(catch_unwind(AssertUnwindSafe(turn)).is_err());
    }
    for _ in 0..10 {
        reactor.turn(&mut state, Some(Duration::from_millis(1))).expect("a turn");
    }
    assert_eq!(panics, 1, "the program hears of it");
    assert_eq!(server.stats(reactor.registry()).calls_answered, 2);
}

/// A server that was closed while it drained never told so.
#[test]
fn closing_a_server_that_drains_ends_the_drain() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.later", &(4u64,));
    let server = world.server;
    for _ in 0..2 {
        server.drain(world.reactor.registry(), Duration::from_secs(3600), |drained, cx| {
            assert_eq!(drained.unfinished, 1);
            cx.state.spent += 1;
        });
    }
    server.close(world.reactor.registry());
    world.settle();
    assert_eq!(world.app.spent, 2);
    assert!(wire.is_closed(&mut world));
    world.answer_all();
    assert_eq!(world.app.spent, 2);
}

/// A drain ends at its deadline though a call does not.
#[test]
fn a_drain_gives_up_calls_that_do_not_end() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.later", &(4u64,));
    let silent = Wire::open(&mut world);
    world.until(|world| world.stats().connections == 2);
    let server = world.server;
    server.drain(world.reactor.registry(), Duration::from_millis(50), |drained, cx| {
        assert_eq!(drained.unfinished, 1);
        cx.state.spent += 1;
    });
    world.until(|world| world.app.spent == 1);
    let (_, frames) = wire.until_closed(&mut world);
    assert_eq!(frames.iter().map(|frame| frame.header.kind).collect::<Vec<_>>(), [Kind::GoAway]);
    world.answer_all(); // into the void
    world.settle();
    assert_eq!(world.app.spent, 1, "told once");
    drop(silent);
}

/// Cancelled calls: one that waits for its turn, one that runs, one that nobody made.
#[test]
fn a_cancel_reaches_what_waits_and_what_runs() {
    let mut world = World::new();
    world.app.on_cancel = Some(|cx| cx.state.cancelled += 1);
    let (mut wire, _) = Wire::hello(&mut world, Order::InOrder);
    wire.call(&mut world, 1, 0, "bank.later", &(4u64,));
    wire.call(&mut world, 2, 0, "bank.debit", &(10u64,));
    wire.call(&mut world, 3, 0, "bank.debit", &(100u64,));
    let cancels = [frame(Kind::Cancel, 2, &[]), frame(Kind::Cancel, 1, &[])].concat();
    wire.send(&mut world, &cancels.repeat(2));
    wire.send(&mut world, &frame(Kind::Cancel, 7, &[]));
    let refused = wire.one(&mut world);
    assert_eq!((refused.header.seq, refused.code()), (2, Some(Code::Cancelled)));
    assert_eq!(world.app.cancelled, 1, "the hook runs once");
    let (_, responder) = &world.app.waiting[0];
    assert!(responder.call().is_cancelled(world.reactor.registry()));
    world.answer_all();
    assert_eq!(wire.one(&mut world).header.seq, 1, "it counts until its handler ends");
    wire.call(&mut world, 2, 0, "bank.debit", &(20u64,));
    let seqs: Vec<u64> = wire.all(&mut world).iter().map(|frame| frame.header.seq).collect();
    assert_eq!(seqs, [2, 3], "the cancelled seq was not consumed");
    assert_eq!(world.app.spent, 120);
}

/// Row 19b: what the replaced connection had sent and was not run yet is never run.
#[test]
fn row_19b_a_backlog_of_a_replaced_connection_is_dropped() {
    let mut world = World::new();
    let (mut first, welcome) = Wire::hello(&mut world, Order::Unordered);
    // More than a turn's budget, and then a call that is protected.
    let balance = common::flagged(9, 0, "bank.balance", &(), Flags::UNPROTECTED);
    let mut script = balance.repeat(3_000);
    script.extend(request(1, 0, "bank.debit", &(10u64,)));
    first.stream.write_all(&script).expect("the server reads");
    let mut second = Wire::open(&mut world);
    let resume = first_frame(Kind::Resume, &plain_resume(&welcome, 1, 0));
    second.stream.write_all(&resume).expect("the server reads");
    let resumed = second.next(&mut world);
    let resumed: Resumed = codec::decode_whole(&resumed.body).expect("a RESUMED");
    assert!(resumed.cells.is_empty(), "nothing of it had run");
    world.settle();
    assert_eq!(world.app.spent, 0);
    second.call(&mut world, 1, 0, "bank.debit", &(10u64,));
    assert_eq!(second.one(&mut world).number(), 10);
}
