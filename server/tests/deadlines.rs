//! Every state of a connection has its time, and no more.
#![allow(missing_docs)]

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::{PATIENCE, Wire, World, first_frame, frame, plain_hello, request};
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::Kind;
use onceloop_protocol::handshake::Order;
use onceloop_protocol::limits::Limits;

const SHORT: Duration = Duration::from_millis(40);
/// What a loop on a busy machine may add to a deadline of a few milliseconds.
const SLACK: Duration = Duration::from_secs(3);

/// Holds the loop up for so long: a handler that blocks.
fn hold_up(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Sends a frame byte by byte, with a few turns after each, until it is out or the server closes;
/// returns how many bytes that took.
fn trickle(world: &mut World, wire: &mut Wire, bytes: &[u8]) -> usize {
    for (i, byte) in bytes.iter().enumerate() {
        if wire.stream.write_all(&[*byte]).is_err() || world.stats().connections == 0 {
            return i;
        }
        world.turn_for(Duration::from_millis(2));
    }
    bytes.len()
}

#[test]
fn a_handshake_that_does_not_come_ends_the_connection() {
    let mut limits = Limits::default();
    limits.handshake_timeout = SHORT;
    let mut world = World::with(limits);
    let mut silent = Wire::open(&mut world);
    let (time, frames) = silent.until_closed(&mut world);
    assert!(time >= SHORT - Duration::from_millis(5) && time < SLACK, "{time:?}");
    assert!(frames.is_empty());

    let mut slow = Wire::open(&mut world);
    world.until(|world| world.stats().connections == 1);
    let hello = first_frame(Kind::Hello, &plain_hello());
    assert!(trickle(&mut world, &mut slow, &hello) < hello.len());
    let mut asks = Wire::open(&mut world);
    asks.stream.write_all(b"onceloop").expect("the server reads");
    asks.stream.write_all(&frame(Kind::Ping, 0, &[])).expect("the server reads");
    let (_, frames) = asks.until_closed(&mut world);
    assert!(frames.len() <= 1, "{frames:?}"); // an ERROR, behind the magic that `cut` took off
    assert_eq!(world.stats().sessions, 0);
}

#[test]
fn a_frame_that_trickles_in_is_closed_however_many_pieces_it_comes_in() {
    let mut limits = Limits::default();
    (limits.frame_timeout, limits.frame_bytes_per_second_min) = (SHORT, 1 << 20);
    let mut world = World::with(limits);
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    let slow = request(1, 0, "bank.debit", &(vec![7u8; 300],));
    let begin = Instant::now();
    let sent = trickle(&mut world, &mut wire, &slow);
    assert!(sent < slow.len() / 2, "{sent} of {}", slow.len());
    assert!(begin.elapsed() >= SHORT);
    assert_eq!(world.stats().sessions, 1, "the session stays");
    let mut again = Wire::resume(&mut world, &welcome, 1, 0);
    assert_eq!(again.next(&mut world).header.kind, Kind::Resumed);
    again.call(&mut world, 1, 0, "bank.debit", &(5u64,));
    assert_eq!(again.one(&mut world).number(), 5, "the seq is not consumed");
}

#[test]
fn each_frame_has_its_own_time() {
    let mut limits = Limits::default();
    (limits.frame_timeout, limits.frame_bytes_per_second_min) =
        (Duration::from_millis(200), 1 << 20);
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let begin = Instant::now();
    // Each write ends one frame and begins the next, for longer than one frame may take.
    let mut held = Vec::new();
    for seq in 1.. {
        let frame = request(seq, seq - 1, "bank.debit", &(1u64,));
        held.extend_from_slice(&frame[..20]);
        wire.stream.write_all(&held).expect("the server reads");
        held = frame[20..].to_vec();
        let before = Instant::now();
        while before.elapsed() < Duration::from_millis(20) {
            world.turn();
        }
        if begin.elapsed() > Duration::from_millis(500) {
            break;
        }
    }
    assert_eq!(world.stats().connections, 1);
    assert!(world.app.spent > 10);
}

#[test]
fn a_large_frame_within_the_rate_is_not_too_slow() {
    let mut limits = Limits::default();
    (limits.frame_timeout, limits.frame_bytes_per_second_min) = (SHORT, 10_000);
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let large = request(1, 0, "bank.debit", &(bytes::Bytes::from(vec![7; 30_000]),));
    let begin = Instant::now();
    for piece in large.chunks(1_500) {
        wire.stream.write_all(piece).expect("the server reads");
        world.turn_for(Duration::from_millis(12));
    }
    assert!(begin.elapsed() > 4 * SHORT, "far beyond a small frame's time");
    assert_eq!(wire.next(&mut world).code(), Some(Code::BadArguments), "whole, but not a number");
}

#[test]
fn a_body_that_is_skipped_has_no_more_time_than_one_that_is_read() {
    let mut limits = Limits::default();
    (limits.frame_timeout, limits.frame_bytes_per_second_min) = (SHORT, 1 << 20);
    limits.body_bytes_max = 1_000;
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let huge = frame(Kind::Request, 1, &[0; 5_000]);
    wire.stream.write_all(&huge[..2_000]).expect("the server reads");
    assert_eq!(wire.next(&mut world).code(), Some(Code::TooLarge));
    let sent = trickle(&mut world, &mut wire, &huge[2_000..]);
    assert!(sent < 1_000, "{sent}");
    world.until(|world| world.stats().connections == 0);
}

#[test]
fn an_idle_connection_is_asked_and_lives_as_long_as_it_answers() {
    let mut limits = Limits::default();
    limits.idle_ping = SHORT;
    let mut world = World::with(limits);
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    let mut frames = Vec::new();
    for asked in 1..=6 {
        world.until(|_| {
            assert!(wire.poll(&mut frames), "closed after {asked} pings");
            frames.len() == asked
        });
        assert_eq!(frames[asked - 1].header.kind, Kind::Ping);
        wire.stream.write_all(&frame(Kind::Pong, 0, &[])).expect("the server reads");
    }
    let (time, rest) = wire.until_closed(&mut world);
    assert!(time >= 2 * SHORT && time < SLACK, "{time:?}");
    assert_eq!(rest.len(), 2, "asked twice before it is given up");
    assert_eq!(world.stats().sessions, 1);
    let mut again = Wire::resume(&mut world, &welcome, 1, 0);
    assert_eq!(again.next(&mut world).header.kind, Kind::Resumed);
}

#[test]
fn a_loop_that_was_held_up_does_not_blame_its_peers() {
    let mut limits = Limits::default();
    (limits.idle_ping, limits.handshake_timeout, limits.frame_timeout) = (SHORT, SHORT, SHORT);
    limits.frame_bytes_per_second_min = 1 << 20;
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let mut late = Wire::open(&mut world);
    world.until(|world| world.stats().connections == 2);
    let (mut halfway, _) = Wire::hello(&mut world, Order::Unordered);
    let call = request(1, 0, "bank.debit", &(5u64,));
    halfway.stream.write_all(&call[..20]).expect("the server reads");
    world.turn();
    // While the loop is held up, everybody does what is theirs to do.
    late.stream.write_all(&first_frame(Kind::Hello, &plain_hello())).expect("the server reads");
    halfway.stream.write_all(&call[20..]).expect("the server reads");
    hold_up(10 * SHORT);
    let mut frames = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < 6 * SHORT {
        world.turn();
        let asked = frames.len();
        assert!(wire.poll(&mut frames), "closed after {frames:?}");
        for _ in asked..frames.len() {
            wire.stream.write_all(&frame(Kind::Pong, 0, &[])).expect("the server reads");
        }
    }
    assert!(frames.len() >= 2, "{frames:?}");
    assert_eq!(late.wait(&mut world, 1)[0].header.kind, Kind::Welcome);
    assert_eq!(halfway.wait(&mut world, 1)[0].number(), 5);
}

#[test]
fn after_a_fin_an_answer_that_does_not_come_is_not_waited_for_for_ever() {
    let mut limits = Limits::default();
    limits.half_close_timeout = SHORT;
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.later", &(4u64,));
    wire.stream.shutdown(Shutdown::Write).expect("a FIN");
    let (time, frames) = wire.until_closed(&mut world);
    assert!(time >= SHORT - Duration::from_millis(5) && time < SLACK, "{time:?}");
    assert!(frames.is_empty());
    world.until(|world| world.stats().connections == 0);
    assert_eq!(world.stats().sessions, 1);
    world.answer_all();
    assert_eq!(world.stats().kept_replies, 1, "it is kept for a RESUME");
}

#[test]
fn a_peer_that_does_not_close_after_the_last_word_is_closed() {
    let mut limits = Limits::default();
    limits.half_close_timeout = SHORT;
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.stream.write_all(&frame(Kind::Welcome, 0, &[0xc0])).expect("the server reads");
    assert_eq!(wire.next(&mut world).code(), Some(Code::Protocol));
    let begin = Instant::now();
    world.until(|world| world.stats().connections == 0);
    assert!(begin.elapsed() < PATIENCE.min(SLACK));
}
