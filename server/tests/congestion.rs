//! Peers that do not read, read slowly, or ask for more than they will read.
#![allow(missing_docs)]

mod common;

use std::io::{ErrorKind, Write};
use std::time::Duration;

use common::{Wire, World, frame, plain_hello, request};
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::Kind;
use onceloop_protocol::handshake::{CellReport, Hello, Order, Resumed};
use onceloop_protocol::limits::Limits;

/// More than the sockets of both ends hold on a machine that gives them much.
const FLOOD_BYTES: usize = 64 << 20;
const STALL: Duration = Duration::from_millis(100);

/// Writes `bytes` again and again without ever reading, until the server has read nothing for many
/// turns; returns how many bytes it took.
fn flood(world: &mut World, wire: &mut Wire, bytes: &[u8]) -> usize {
    wire.stream.set_nonblocking(true).expect("non-blocking");
    let (mut sent, mut offset, mut refusals) = (0, 0, 0);
    while refusals < 20 && sent < FLOOD_BYTES {
        match wire.stream.write(&bytes[offset..]) {
            Ok(n) => {
                sent += n;
                offset = (offset + n) % bytes.len();
                refusals = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => refusals += 1,
            Err(_) => break, // closed
        }
        world.reactor.turn(&mut world.app, Some(Duration::from_millis(1))).expect("a turn");
    }
    wire.stream.set_nonblocking(false).expect("blocking");
    sent
}

/// Many copies of one frame.
fn repeated(frame: &[u8], bytes: usize) -> Vec<u8> {
    frame.repeat(bytes.div_ceil(frame.len()))
}

fn limits(stall: Duration) -> Limits {
    let mut limits = Limits::default();
    (limits.output_bytes_mark, limits.output_bytes_max) = (256 << 10, 1 << 20);
    limits.output_stall_max = stall;
    limits
}

#[test]
fn a_peer_that_never_reads_is_not_read_and_then_closed_and_its_session_resumes() {
    let mut world = World::with(limits(STALL));
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    // Copies of one call: each is answered with the 60 kB that are kept.
    let copies = repeated(&request(1, 0, "bank.big", &(60_000usize,)), 16 << 10);
    let sent = flood(&mut world, &mut wire, &copies);
    assert!(sent < FLOOD_BYTES, "it is read for ever");
    world.until(|world| world.stats().connections == 0);
    let stats = world.stats();
    assert_eq!((stats.sessions, stats.calls_started), (1, 1));
    let mut again = Wire::resume(&mut world, &welcome, 1, 0);
    let frames = again.wait(&mut world, 2);
    assert_eq!((frames[0].header.kind, frames[1].header.seq), (Kind::Resumed, 1));
    again.call(&mut world, 2, 1, "bank.debit", &(5u64,));
    assert_eq!(again.one(&mut world).number(), 5);
}

#[test]
fn error_replies_and_pongs_count_as_output_too() {
    let unknown = request(1, 0, "bank.nothing", &());
    let malformed = frame(Kind::Request, 1, &[0; 20].map(|_| 0xc1));
    let ping = frame(Kind::Ping, 1, &[]);
    for asked in [unknown, malformed, ping] {
        let mut world = World::with(limits(STALL));
        let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
        let sent = flood(&mut world, &mut wire, &repeated(&asked, 256 << 10));
        assert!(sent < FLOOD_BYTES, "it is read for ever");
        world.until(|world| world.stats().connections == 0);
    }
}

#[test]
fn above_the_cap_a_connection_is_closed_without_waiting_for_the_stall() {
    let mut limits = limits(Duration::from_secs(3600));
    limits.output_bytes_max = limits.output_bytes_mark;
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let copies = repeated(&request(1, 0, "bank.big", &(60_000usize,)), 16 << 10);
    flood(&mut world, &mut wire, &copies);
    world.until(|world| world.stats().connections == 0);
    assert_eq!(world.stats().sessions, 1);
}

#[test]
fn a_peer_that_reads_late_gets_everything_and_is_read_again() {
    let mut world = World::with(limits(Duration::from_secs(3600)));
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.send(&mut world, &request(1, 0, "bank.big", &(60_000usize,)).repeat(400));
    let made = world.stats().calls_replayed;
    assert!(made < 399, "{made} answers were made without being read");
    let frames = wire.wait(&mut world, 400);
    assert!(frames.iter().all(|frame| frame.header.kind == Kind::Reply));
    wire.call(&mut world, 2, 1, "bank.debit", &(5u64,));
    assert_eq!(wire.one(&mut world).number(), 5);
}

#[test]
fn a_long_frame_that_comes_while_nothing_is_read_is_run_when_there_is_room() {
    let mut world = World::with(limits(Duration::from_secs(3600)));
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let one = request(1, 0, "bank.big", &(60_000usize,));
    let long = request(2, 0, "bank.debit", &(bytes::Bytes::from(vec![7; 300_000]),));
    let mut script = one.repeat(400);
    script.extend_from_slice(&long);
    script.extend_from_slice(&request(3, 0, "bank.debit", &(5u64,)));
    wire.stream.set_nonblocking(true).expect("non-blocking");
    let mut unsent = &script[..];
    let mut frames = Vec::new();
    let mut turns = 0;
    world.until(|_| {
        wire.stream.set_nonblocking(true).expect("non-blocking");
        if let Ok(n) = wire.stream.write(unsent) {
            unsent = &unsent[n..];
        }
        turns += 1;
        if turns > 100 {
            wire.poll(&mut frames);
        }
        frames.iter().any(|frame| frame.header.seq == 3)
    });
    assert_eq!(frames.iter().filter(|frame| frame.header.seq == 1).count(), 400);
    let long = frames.iter().find(|frame| frame.header.seq == 2).expect("an answer");
    assert_eq!(long.code(), Some(Code::BadArguments));
    assert_eq!(world.app.spent, 5);
}

#[test]
fn requests_held_for_their_turn_do_not_run_past_the_room_for_their_answers() {
    const CALLS: u64 = 300;
    let mut limits = limits(Duration::from_secs(3600));
    limits.kept_reply_bytes_per_session_max = 64 << 20;
    let mut world = World::with(limits);
    let hello = Hello { order: Order::InOrder, window: 512, ..plain_hello() };
    let (mut wire, _) = Wire::hello_of(&mut world, &hello);
    for seq in 2..=CALLS {
        let call = request(seq, 0, "bank.big", &(60_000usize,));
        wire.stream.write_all(&call).expect("the server reads");
        world.turn();
    }
    world.settle();
    assert_eq!(world.stats().calls_started, 0, "all wait for the first");
    wire.call(&mut world, 1, 0, "bank.debit", &(5u64,));
    let started = world.stats().calls_started;
    assert!(started > 1 && started < CALLS, "{started} answers were made without being read");
    let frames = wire.wait(&mut world, usize::try_from(CALLS).expect("few"));
    let seqs: Vec<u64> = frames.iter().map(|frame| frame.header.seq).collect();
    assert_eq!(seqs, (1..=CALLS).collect::<Vec<_>>());
    assert!(frames.iter().all(|frame| frame.header.kind == Kind::Reply));
}

#[test]
fn a_resume_brings_all_that_was_kept_even_if_it_is_above_the_mark() {
    let mut limits = limits(Duration::from_secs(3600));
    (limits.output_bytes_mark, limits.output_bytes_max) = (64 << 10, 4 << 20);
    let mut world = World::with(limits);
    let (mut first, welcome) = Wire::hello(&mut world, Order::Unordered);
    for seq in 1..=8 {
        first.call(&mut world, seq, 0, "bank.big", &(400_000usize,));
        assert_eq!(first.all(&mut world).len(), 1);
    }
    drop(first);
    let mut second = Wire::resume(&mut world, &welcome, 1, 0);
    let frames = second.wait(&mut world, 9);
    let resumed: Resumed =
        onceloop_protocol::codec::decode_whole(&frames[0].body).expect("a RESUMED");
    assert!((1..=8).all(|seq| resumed.report(seq) == CellReport::Finished));
    assert!(frames[1..].iter().all(|frame| frame.header.kind == Kind::Reply));
    second.call(&mut world, 9, 8, "bank.debit", &(5u64,));
    assert_eq!(second.one(&mut world).number(), 5);
}
