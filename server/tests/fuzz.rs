//! Whole conversations, valid at first and then not: no panic, nothing left behind.
#![allow(missing_docs)]

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use common::{Got, Wire, World, first_frame, flagged, plain_hello, plain_resume};
use onceloop_protocol::codec;
use onceloop_protocol::frame::{Flags, Header, Kind, MethodId, SEQ_MAX};
use onceloop_protocol::handshake::{Hello, Order, Welcome};
use onceloop_protocol::limits::Limits;

const SEEDS: u64 = 4;
const CONVERSATIONS: u64 = 400;

/// xorshift64*: the same conversations in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll(end as u64)).expect("below a usize")
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A number of a seq or an ack: mostly a plausible one.
    fn number(&mut self) -> u64 {
        match self.roll(60) {
            0 => self.pick(&[0, SEQ_MAX - 1, SEQ_MAX, SEQ_MAX + 1, u64::MAX, 1 << 62, 129]),
            _ => 1 + self.roll(9),
        }
    }
}

fn body(dice: &mut Dice) -> Vec<u8> {
    match dice.roll(60) {
        0 => Vec::new(),
        1 => codec::encode(&(1u8, "two", [3u8; 3])).expect("it encodes"),
        2 => vec![0x91; dice.below(200)],
        3 => vec![0xdd, 0xff, 0xff, 0xff, 0xff],
        4 => (0..dice.roll(64)).map(|i| u8::try_from(4 * i).expect("below 256")).collect(),
        5 => codec::encode(&(vec![7u8; dice.below(3_000)],)).expect("it encodes"),
        _ => codec::encode(&(dice.pick(&[1u64, 1, 1, 1, 1_500]),)).expect("it encodes"),
    }
}

/// A frame as a client would send it, more or less.
fn random_frame(dice: &mut Dice) -> Vec<u8> {
    let kinds = [
        Kind::Request,
        Kind::Request,
        Kind::Request,
        Kind::Request,
        Kind::Request,
        Kind::Ack,
        Kind::Cancel,
        Kind::Notify,
        Kind::Ping,
        Kind::Pong,
        Kind::Bye,
        Kind::Hello,
        Kind::Resume,
        Kind::Welcome,
        Kind::Reply,
        Kind::Chunk,
        Kind::GoAway,
        Kind::Error,
    ];
    let methods = [
        "bank.debit",
        "bank.debit",
        "bank.debit",
        "bank.later",
        "bank.later",
        "bank.broken",
        "bank.big",
        "bank.balance",
        "onceloop.stats",
        "no.such",
    ];
    let is_broken = dice.roll(30) == 0;
    let last = if dice.roll(40) == 0 { kinds.len() } else { 10 };
    let mut header = Header::new(kinds[dice.below(last)], dice.number());
    header.ack = match dice.roll(30) {
        0 => dice.number(),
        1..=5 => dice.roll(header.seq.max(1)),
        _ => 0,
    };
    header.method = MethodId::of(dice.pick(&methods));
    header.flags = Flags(dice.pick(&[
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        0x8000,
        if is_broken { 0xffff } else { 0 },
    ]));
    if header.kind == Kind::Ack && header.seq < 10 {
        header.seq = dice.roll(3);
    }
    header.time_left_ms = dice.pick(&[u32::MAX, u32::MAX, u32::MAX, u32::MAX, 0, 1, 1_000]);
    let mut bytes = Vec::new();
    let is_call = matches!(header.kind, Kind::Request | Kind::Notify);
    let body = if is_call || dice.roll(20) == 0 { body(dice) } else { Vec::new() };
    header.append(&body, &mut bytes);
    if is_broken {
        // Broken on the way.
        for _ in 0..=dice.roll(3) {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.roll(8);
        }
    }
    bytes
}

fn converse(world: &mut World, dice: &mut Dice, known: &mut Option<Welcome>) {
    let mut wire = Wire::open(world);
    let order = dice.pick(&[Order::Unordered, Order::InOrder]);
    let mut script = match known {
        Some(welcome) if dice.roll(3) == 0 => {
            let attachment = u32::try_from(dice.roll(20)).expect("small");
            first_frame(Kind::Resume, &plain_resume(welcome, attachment, dice.number()))
        }
        _ => first_frame(Kind::Hello, &Hello { order, ..plain_hello() }),
    };
    for _ in 0..dice.roll(60) {
        script.extend(random_frame(dice));
    }
    let mut rest = &script[..];
    while !rest.is_empty() {
        let most = dice.pick(&[1, 7, 40, 300, 100_000]).min(rest.len());
        let (piece, after) = rest.split_at(1 + dice.below(most));
        rest = after;
        if wire.stream.write_all(piece).is_err() {
            break; // the server has closed
        }
        if dice.roll(2) == 0 {
            world.reactor.turn(&mut world.app, Some(Duration::ZERO)).expect("a turn");
        }
        if dice.roll(20) == 0 {
            answer_some(world, dice);
        }
    }
    let _ = match dice.roll(3) {
        0 => wire.stream.shutdown(Shutdown::Write),
        1 => wire.stream.shutdown(Shutdown::Both),
        _ => Ok(()),
    };
    for _ in 0..dice.roll(4) {
        world.reactor.turn(&mut world.app, Some(Duration::ZERO)).expect("a turn");
    }
    let mut frames: Vec<Got> = Vec::new();
    wire.poll(&mut frames);
    if let Some(first) = frames.first()
        && first.header.kind == Kind::Welcome
    {
        *known = Some(codec::decode_whole(&first.body).expect("a WELCOME"));
    }
}

fn answer_some(world: &mut World, dice: &mut Dice) {
    let from = dice.below(world.app.waiting.len() + 1);
    let answered = world.app.waiting.split_off(from);
    world.reactor.registry().defer(move |cx| {
        for (amount, responder) in answered {
            if amount % 3 > 0 {
                responder.respond(cx, Ok(amount));
            }
        }
    });
}

#[test]
fn broken_conversations_do_no_harm() {
    for seed in 1..=SEEDS {
        converse_often(seed);
    }
}

fn converse_often(seed: u64) {
    let mut limits = Limits::default();
    (limits.handshake_timeout, limits.frame_timeout) =
        (Duration::from_millis(300), Duration::from_millis(300));
    limits.half_close_timeout = Duration::from_millis(100);
    limits.body_bytes_max = 2_000;
    limits.hole_age_max = Duration::from_millis(20);
    (limits.lease, limits.unused_lease) = (Duration::from_millis(50), Duration::from_millis(50));
    (limits.output_bytes_mark, limits.output_bytes_max) = (4_000, 8_000);
    let mut world = World::with(limits);
    let mut dice = Dice(seed << 32 | 0x0ce1_0095);
    let (mut honest, _) = Wire::hello(&mut world, Order::Unordered);
    let mut known = None;
    for seq in 1..=CONVERSATIONS {
        converse(&mut world, &mut dice, &mut known);
        if seq % 20 == 0 {
            let call = flagged(seq, 0, "bank.balance", &(), Flags::UNPROTECTED);
            honest.stream.write_all(&call).expect("the server reads");
            assert_eq!(honest.next(&mut world).header.seq, seq, "an honest client is served");
        }
    }
    let stats = world.stats();
    assert!(stats.calls_started > CONVERSATIONS / 2, "they got past the handshake: {stats:?}");
    assert!(stats.sessions_resumed > 0 && stats.calls_replayed > 0, "{stats:?}");
    assert!(stats.calls_joined > 0 && stats.frames_refused > 0, "{stats:?}");
    if seed.is_multiple_of(2) {
        // With all that is going on; the table is checked then.
        world.server.close(world.reactor.registry());
        return world.settle();
    }
    drop(honest);
    world.answer_all();
    world.until(|world| world.stats().connections == 0);
    world.until(|world| world.stats().in_flight == 0);
    // Nothing is left behind: every session ends with its lease, and what it kept goes with it.
    world.until(|world| world.stats().sessions == 0);
    let stats = world.stats();
    assert_eq!((stats.kept_replies, stats.kept_reply_bytes), (0, 0));
    assert_eq!(stats.connections_accepted, stats.connections_closed);
    assert_eq!(stats.calls_answered, stats.calls_started, "each call is answered once");
}

#[test]
fn seqs_and_acks_at_their_ends_are_taken_or_refused() {
    let mut world = World::new();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, SEQ_MAX, SEQ_MAX - 1, "bank.debit", &(1u64,));
    assert_eq!(wire.one(&mut world).number(), 1, "the last seq there is");
    wire.send(&mut world, &common::frame(Kind::Cancel, u64::MAX, &[]));
    wire.send(&mut world, &common::frame(Kind::Ack, SEQ_MAX, &[]));
    wire.call(&mut world, 5, 0, "bank.debit", &(1u64,));
    assert_eq!(wire.one(&mut world).code(), Some(onceloop_protocol::error::Code::Stale));
    let wrong = [
        common::request(SEQ_MAX + 1, 0, "bank.debit", &(1u64,)),
        common::request(u64::MAX, SEQ_MAX, "bank.debit", &(1u64,)),
        common::request(4, 4, "bank.debit", &(1u64,)),
        common::request(4, u64::MAX, "bank.debit", &(1u64,)),
        common::frame(Kind::Ack, SEQ_MAX + 1, &[]),
    ];
    for bytes in wrong {
        let (mut wire, _) = Wire::hello(&mut world, Order::InOrder);
        wire.send(&mut world, &bytes);
        assert_eq!(wire.one(&mut world).code(), Some(onceloop_protocol::error::Code::Protocol));
        assert!(wire.is_closed(&mut world));
    }
    assert_eq!(world.app.spent, 1);
}
