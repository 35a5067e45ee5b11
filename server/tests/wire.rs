//! The server at the level of its bytes: a scripted peer on a real socket.
#![allow(missing_docs)]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use common::{Wire, World, flagged, plain_hello, request};
use onceloop_protocol::codec;
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{Flags, Header, Kind};
use onceloop_protocol::handshake::{CellReport, Order, Resumed};
use onceloop_protocol::limits::Limits;
use onceloop_server::Builder;

#[test]
fn a_request_sent_twice_runs_once_and_is_answered_twice() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    for _ in 0..2 {
        wire.call(&mut world, 1, 0, "bank.debit", &(10u64,));
        assert_eq!(wire.one(&mut world).number(), 10);
    }
    assert_eq!(world.app.spent, 10);
}

#[test]
fn a_retry_over_another_connection_gets_the_first_answer() {
    let mut world = World::new();
    let (mut first, welcome) = Wire::hello(&mut world, Order::Unordered);
    first.call(&mut world, 1, 0, "bank.debit", &(10u64,));
    drop(first); // the answer is lost
    let mut second = Wire::resume(&mut world, &welcome, 1, 0);
    let frames = second.all(&mut world);
    assert_eq!(frames[0].header.kind, Kind::Resumed);
    let resumed: Resumed = codec::decode_whole(&frames[0].body).expect("a RESUMED");
    assert_eq!(resumed.report(1), CellReport::Finished);
    assert_eq!((frames[1].header.seq, frames[1].number()), (1, 10));
    second.call(&mut world, 1, 0, "bank.debit", &(10u64,));
    assert_eq!(second.one(&mut world).number(), 10);
    assert_eq!(world.app.spent, 10);
    let stats = world.server.stats(world.reactor.registry());
    assert_eq!(stats.calls_replayed, 2, "once by the RESUME, once for the copy");
}

#[test]
fn a_call_that_runs_while_its_client_is_away_is_answered_when_it_comes_back() {
    let mut world = World::new();
    let (mut first, welcome) = Wire::hello(&mut world, Order::Unordered);
    first.call(&mut world, 1, 0, "bank.later", &(3u64,));
    drop(first);
    let mut second = Wire::resume(&mut world, &welcome, 1, 0);
    let resumed: Resumed = codec::decode_whole(&second.one(&mut world).body).expect("a RESUMED");
    assert_eq!(resumed.report(1), CellReport::Running);
    second.call(&mut world, 1, 0, "bank.later", &(3u64,));
    assert_eq!(world.app.waiting.len(), 1, "the copy waits for the first");
    world.answer_all();
    assert_eq!(second.one(&mut world).number(), 3);
}

#[test]
fn a_replaced_connection_is_closed_and_what_it_still_sends_does_not_run() {
    let mut world = World::new();
    let (mut first, welcome) = Wire::hello(&mut world, Order::Unordered);
    let mut second = Wire::resume(&mut world, &welcome, 1, 0);
    assert_eq!(second.one(&mut world).header.kind, Kind::Resumed);
    let _ = first.stream.write_all(&request(1, 0, "bank.debit", &(10u64,)));
    assert!(first.is_closed(&mut world));
    assert_eq!(world.app.spent, 0);
    let mut late = Wire::resume(&mut world, &welcome, 1, 0);
    assert_eq!(late.one(&mut world).code(), Some(Code::Fenced));
    assert!(late.is_closed(&mut world));
    second.call(&mut world, 1, 0, "bank.debit", &(1u64,));
    assert_eq!(second.one(&mut world).number(), 1, "the newest connection lives");
}

#[test]
fn a_session_of_nobody_and_a_wrong_secret_get_the_same_answer() {
    let mut world = World::new();
    let (_first, welcome) = Wire::hello(&mut world, Order::Unordered);
    let mut forged = welcome.clone();
    forged.sid.secret ^= 1;
    let mut unknown = welcome.clone();
    unknown.sid.place = 99 << 32 | 99;
    let bodies = [forged, unknown].map(|welcome| {
        let got = Wire::resume(&mut world, &welcome, 1, 0).one(&mut world);
        assert_eq!(got.code(), Some(Code::SessionUnknown));
        got.body
    });
    assert_eq!(bodies[0], bodies[1]);
}

#[test]
fn row_17_a_panic_is_caught_and_is_the_recorded_answer() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    for _ in 0..2 {
        wire.call(&mut world, 1, 0, "bank.broken", &());
        assert_eq!(wire.one(&mut world).code(), Some(Code::ApplicationError));
    }
    wire.call(&mut world, 2, 1, "bank.balance", &());
    assert_eq!(wire.one(&mut world).number(), 0);
}

#[test]
fn row_17_a_program_may_rather_stop() {
    let mut world = World::built(Limits::default(), Builder::stop_on_panic);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.stream.write_all(&request(1, 0, "bank.broken", &())).expect("the server reads");
    let turns = || {
        for _ in 0..50 {
            world.turn();
        }
    };
    let panic = catch_unwind(AssertUnwindSafe(turns)).expect_err("the panic passes through");
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    let stats = world.stats();
    assert_eq!((stats.in_flight, stats.calls_answered), (1, 0), "nobody is told a result");
}

#[test]
fn refusals_do_not_consume_the_xid() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.nothing", &());
    assert_eq!(wire.one(&mut world).code(), Some(Code::NoMethod));
    wire.call(&mut world, 1, 0, "bank.debit", &("ten",));
    assert_eq!(wire.one(&mut world).code(), Some(Code::BadArguments));
    let unprotected = flagged(1, 0, "bank.debit", &(1u64,), Flags::UNPROTECTED);
    wire.send(&mut world, &unprotected);
    assert_eq!(wire.one(&mut world).code(), Some(Code::NotProtected));
    wire.call(&mut world, 1, 0, "bank.debit", &(10u64,));
    assert_eq!(wire.one(&mut world).number(), 10);
    wire.call(&mut world, 1, 0, "bank.debit", &(11u64,));
    assert_eq!(wire.one(&mut world).code(), Some(Code::XidReused));
    assert_eq!(world.app.spent, 10);
}

#[test]
fn row_1b_a_body_that_is_too_large_is_skipped_and_the_connection_lives() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let mut huge = Vec::new();
    Header::new(Kind::Request, 1).append(&vec![0; 3 << 20], &mut huge);
    // In pieces, as a network would bring it.
    for piece in huge.chunks(100_000) {
        wire.send(&mut world, piece);
    }
    assert_eq!(wire.one(&mut world).code(), Some(Code::TooLarge));
    let mut malformed = Vec::new();
    Header::new(Kind::Request, 1).append(&[0x91, 0x91], &mut malformed);
    wire.send(&mut world, &malformed);
    assert_eq!(wire.one(&mut world).code(), Some(Code::Malformed));
    wire.call(&mut world, 1, 0, "bank.debit", &(1u64,));
    assert_eq!(wire.one(&mut world).number(), 1);
}

#[test]
fn a_large_request_and_a_large_reply_come_through_in_pieces() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.big", &(1_000_000usize,));
    let reply = wire.one(&mut world);
    let bytes: bytes::Bytes = codec::decode_whole(&reply.body).expect("bytes");
    assert_eq!(bytes.len(), 1_000_000);
    let padded = request(2, 1, "bank.debit", &(bytes,));
    for piece in padded.chunks(70_000) {
        wire.send(&mut world, piece);
    }
    assert_eq!(wire.one(&mut world).code(), Some(Code::BadArguments), "whole, but not a number");
    wire.call(&mut world, 3, 1, "bank.big", &(2_000_000usize,));
    assert_eq!(wire.one(&mut world).code(), Some(Code::ApplicationError), "no frame carries that");
}

#[test]
fn a_frame_cut_at_every_byte_is_one_call() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    for byte in request(1, 0, "bank.debit", &(10u64,)) {
        wire.stream.write_all(&[byte]).expect("the server reads");
        world.reactor.turn(&mut world.app, Some(Duration::from_millis(50))).expect("a turn");
    }
    assert_eq!(wire.one(&mut world).number(), 10);
}

#[test]
fn after_a_fin_what_was_asked_is_answered() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let mut both = request(1, 0, "bank.later", &(4u64,));
    both.extend(request(2, 0, "bank.debit", &(10u64,)));
    wire.stream.write_all(&both).expect("the server reads");
    wire.stream.shutdown(Shutdown::Write).expect("a FIN");
    let mut frames = wire.all(&mut world);
    assert_eq!((frames.len(), frames[0].header.seq), (1, 2));
    world.answer_all();
    frames = wire.all(&mut world);
    assert_eq!((frames.len(), frames[0].number()), (1, 4));
    assert!(wire.is_closed(&mut world));
    assert_eq!(world.server.stats(world.reactor.registry()).connections, 0);
}

#[test]
fn an_http_client_is_told_in_its_own_words() {
    let mut world = World::new();
    let mut wire = Wire::open(&mut world);
    wire.send(&mut world, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut text = String::new();
    wire.stream.read_to_string(&mut text).expect("text");
    assert!(text.starts_with("HTTP/1.0 400") && text.contains("Onceloop"), "{text}");
}

#[test]
fn row_1_where_framing_is_lost_the_connection_closes_and_the_session_stays() {
    let mut world = World::new();
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    let mut bytes = request(1, 0, "bank.debit", &(10u64,));
    bytes.extend([0, 0, 0, 12, 99, 0, 0, 0]); // a kind that there is not
    bytes.extend(request(2, 0, "bank.debit", &(10u64,)));
    wire.send(&mut world, &bytes);
    let (_, frames) = wire.until_closed(&mut world);
    assert_eq!(frames[0].number(), 10, "what came before was a call");
    assert_eq!((frames.len(), frames[1].code()), (2, Some(Code::Protocol)));
    let mut back = Wire::resume(&mut world, &welcome, 1, 0);
    assert_eq!(back.all(&mut world)[1].number(), 10);
    assert_eq!(world.app.spent, 10);
}

#[test]
fn a_second_hello_is_an_error_of_the_client() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let mut again = Vec::new();
    Header::new(Kind::Hello, 0).append(&[0xc0], &mut again);
    wire.send(&mut world, &again);
    assert_eq!(wire.one(&mut world).code(), Some(Code::Protocol));
    assert!(wire.is_closed(&mut world));
}

#[test]
fn in_order_sessions_run_by_seq_however_requests_come() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::InOrder);
    wire.call(&mut world, 3, 0, "bank.debit", &(100u64,));
    wire.call(&mut world, 2, 0, "bank.later", &(5u64,));
    assert!(wire.all(&mut world).is_empty(), "both wait for the first");
    wire.call(&mut world, 1, 0, "bank.debit", &(1u64,));
    assert_eq!(wire.one(&mut world).header.seq, 1);
    assert_eq!((world.app.waiting.len(), world.app.spent), (1, 1), "the third waits on");
    world.answer_all();
    let frames = wire.all(&mut world);
    assert_eq!(frames.iter().map(|frame| frame.header.seq).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(world.app.spent, 101);
}

#[test]
fn a_responder_that_is_dropped_answers_with_an_error() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.later", &(5u64,));
    world.app.waiting.clear();
    assert_eq!(wire.one(&mut world).code(), Some(Code::ApplicationError));
}

#[test]
fn a_drain_answers_what_runs_and_refuses_what_is_new() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.later", &(5u64,));
    let server = world.server;
    server.drain(world.reactor.registry(), Duration::from_secs(60), |drained, cx| {
        assert_eq!(drained.unfinished, 0);
        cx.state.spent = 42;
    });
    assert_eq!(wire.one(&mut world).header.kind, Kind::GoAway);
    wire.call(&mut world, 2, 0, "bank.debit", &(5u64,));
    assert_eq!(wire.one(&mut world).code(), Some(Code::Draining));
    world.answer_all();
    assert_eq!(wire.one(&mut world).number(), 5);
    // What was on its way when the server said GOAWAY is refused, not cut off.
    wire.call(&mut world, 3, 0, "bank.debit", &(5u64,));
    assert_eq!(wire.one(&mut world).code(), Some(Code::Draining));
    assert_eq!(world.app.spent, 0, "the drain is not over");
    drop(wire);
    world.settle();
    assert_eq!(world.app.spent, 42, "the drain is over");
}

#[test]
fn a_drain_does_not_wait_for_clients_that_stay() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let mut stranger = Wire::open(&mut world);
    let server = world.server;
    let begin = Instant::now();
    server.drain(world.reactor.registry(), Duration::from_secs(60), |drained, cx| {
        assert_eq!(drained.unfinished, 0);
        cx.state.spent = 42;
    });
    assert_eq!(wire.one(&mut world).header.kind, Kind::GoAway);
    assert!(stranger.is_closed(&mut world), "one that has no session asked for nothing");
    drop(stranger);
    wire.stream.set_nonblocking(true).expect("a socket");
    while wire.stream.read(&mut [0; 1]).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10), "it is still open");
        world.reactor.turn(&mut world.app, Some(Duration::from_millis(50))).expect("a turn");
    }
    assert!(begin.elapsed() >= Duration::from_millis(900), "it had its time");
    drop(wire);
    world.settle();
    assert_eq!(world.app.spent, 42, "the drain is over");
}

#[test]
fn more_connections_than_allowed_wait_until_there_is_room() {
    let mut limits = Limits::default();
    limits.connections_max = 2;
    let mut world = World::with(limits);
    let (first, _) = Wire::hello(&mut world, Order::Unordered);
    let (_second, _) = Wire::hello(&mut world, Order::Unordered);
    let mut third = Wire::open(&mut world);
    third.begin(&mut world, Kind::Hello, &plain_hello());
    assert!(third.all(&mut world).is_empty());
    drop(first);
    assert_eq!(third.one(&mut world).header.kind, Kind::Welcome);
}

#[test]
fn a_late_answer_lets_run_what_waits_on_a_newer_connection() {
    let mut world = World::new();
    let (mut first, welcome) = Wire::hello(&mut world, Order::InOrder);
    first.call(&mut world, 1, 0, "bank.later", &(5u64,));
    drop(first);
    let mut second = Wire::resume(&mut world, &welcome, 1, 0);
    assert_eq!(second.one(&mut world).header.kind, Kind::Resumed);
    second.call(&mut world, 2, 0, "bank.debit", &(10u64,));
    assert!(second.all(&mut world).is_empty(), "it waits for the first call");
    world.answer_all();
    let frames = second.all(&mut world);
    assert_eq!(frames.iter().map(|frame| frame.header.seq).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn row_4d_deferred_notifications_are_bounded_like_calls() {
    let mut limits = Limits::default();
    limits.in_flight_max = 2;
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let mut notify = request(0, 0, "bank.later", &(5u64,));
    notify[4] = Kind::Notify as u8;
    wire.send(&mut world, &notify.repeat(3));
    assert_eq!((world.app.waiting.len(), world.stats().notifications_dropped), (2, 1));
    // One is answered, the other dropped: both have ended.
    drop(world.app.waiting.pop());
    world.answer_all();
    wire.send(&mut world, &notify.repeat(2));
    assert_eq!((world.app.waiting.len(), world.stats().notifications_dropped), (2, 1));
    assert!(wire.all(&mut world).is_empty(), "nothing is answered");
}
