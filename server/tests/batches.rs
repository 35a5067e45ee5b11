//! Requests that come in one piece run one after the other: that they came together is not to be seen.
#![allow(missing_docs)]

mod common;

use std::cell::Cell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use common::{App, Got, Wire, World, flagged, frame, request};
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{Flags, Header, Kind};
use onceloop_protocol::handshake::Order;
use onceloop_protocol::limits::Limits;
use onceloop_server::{Builder, Server};

onceloop_protocol::service! {
    mod own {
        /// Ends the server it runs on.
        fn close();
        /// Begins to shut it down.
        fn drain();
        /// Asks to be called again later.
        fn put_off();
        /// Answers all that `bank.later` holds back.
        fn answer();
    }
}

/// A world with the methods of `own`.
fn world_with(limits: Limits) -> World {
    let server: Rc<Cell<Option<Server<App>>>> = Rc::default();
    let (closing, draining) = (Rc::clone(&server), Rc::clone(&server));
    let world = World::built(limits, |builder: Builder<App>| {
        builder
            .method(own::close, move |(), cx| {
                closing.get().expect("it runs").close(cx.registry);
                Ok(())
            })
            .method(own::drain, move |(), cx| {
                let server = draining.get().expect("it runs");
                server.drain(cx.registry, Duration::from_secs(3600), |_, _| {});
                Ok(())
            })
            .method(own::put_off, |(), cx| {
                cx.retry_later(Duration::from_millis(7));
                Ok(())
            })
            .method(own::answer, |(), cx| {
                for (amount, responder) in std::mem::take(&mut cx.state.waiting) {
                    responder.respond(&mut cx.as_cx(), Ok(amount));
                }
                Ok(())
            })
    });
    server.set(Some(world.server));
    world
}

fn debit(seq: u64, ack: u64) -> Vec<u8> {
    request(seq, ack, "bank.debit", &(1u64,))
}

fn plain_world() -> (World, Wire) {
    let mut world = world_with(Limits::default());
    let (wire, _) = Wire::hello(&mut world, Order::Unordered);
    (world, wire)
}

/// Writes at once and takes what is answered.
fn answers(world: &mut World, wire: &mut Wire, script: &[Vec<u8>]) -> Vec<Got> {
    wire.send(world, &script.concat());
    wire.all(world)
}

fn seqs(frames: &[Got]) -> Vec<u64> {
    frames.iter().map(|frame| frame.header.seq).collect()
}

#[test]
fn behind_a_handler_that_closes_the_connection_nothing_runs() {
    let (mut world, mut wire) = plain_world();
    let script = [debit(1, 0), request(2, 0, "own.close", &()), debit(3, 0), debit(4, 0)];
    wire.stream.write_all(&script.concat()).expect("the server reads");
    let (_, frames) = wire.until_closed(&mut world);
    assert_eq!((world.app.spent, frames.len()), (1, 0), "{frames:?}");
}

#[test]
fn behind_a_handler_that_begins_a_drain_calls_are_refused() {
    let (mut world, mut wire) = plain_world();
    let script = [debit(1, 0), request(2, 0, "own.drain", &()), debit(3, 0), debit(4, 0)];
    let frames = answers(&mut world, &mut wire, &script);
    let of = |seq| frames.iter().find(|frame| frame.header.seq == seq).expect("it is answered");
    assert_eq!(of(1).number(), 1);
    assert_eq!(of(2).header.kind, Kind::Reply);
    assert_eq!([of(3).code(), of(4).code()], [Some(Code::Draining); 2]);
    assert_eq!(world.app.spent, 1);
}

#[test]
fn a_panic_is_the_answer_of_its_call_alone() {
    let (mut world, mut wire) = plain_world();
    let script = [debit(1, 0), request(2, 0, "bank.broken", &()), debit(3, 0)];
    let frames = answers(&mut world, &mut wire, &script);
    assert_eq!(seqs(&frames), [1, 2, 3]);
    assert_eq!(frames[1].code(), Some(Code::ApplicationError));
    assert_eq!([frames[0].number(), frames[2].number()], [1, 2]);
}

#[test]
fn a_panic_that_passes_through_costs_no_other_call() {
    let mut world = World::built(Limits::default(), Builder::stop_on_panic);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let script = [debit(1, 0), debit(2, 0), request(3, 0, "bank.broken", &()), debit(4, 0)];
    wire.stream.write_all(&script.concat()).expect("the server reads");
    let mut panics = 0;
    for _ in 0..50 {
        panics += usize::from(catch_unwind(AssertUnwindSafe(|| world.turn())).is_err());
    }
    let frames = wire.all(&mut world);
    assert_eq!((panics, seqs(&frames)), (1, vec![1, 2, 4]));
    assert_eq!((world.app.spent, world.stats().in_flight), (3, 1));
}

#[test]
fn a_copy_of_a_call_in_the_same_batch_does_not_run() {
    let (mut world, mut wire) = plain_world();
    let script = [debit(1, 0), debit(1, 0), debit(2, 0), debit(1, 0), debit(2, 0)];
    let frames = answers(&mut world, &mut wire, &script);
    let numbers: Vec<u64> = frames.iter().map(Got::number).collect();
    assert_eq!((seqs(&frames), numbers), (vec![1, 1, 2, 1, 2], vec![1, 1, 2, 1, 2]));
    assert_eq!((world.app.spent, world.stats().calls_replayed), (2, 3));
}

#[test]
fn an_answer_counts_as_output_before_the_next_call_runs() {
    let mut limits = Limits::default();
    limits.output_bytes_mark = 2_000;
    let mut world = World::with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let script: Vec<_> = (1..=8).map(|seq| request(seq, 0, "bank.big", &(700usize,))).collect();
    wire.stream.write_all(&script.concat()).expect("the server reads");
    // In one turn as many as there is room for, and one beyond.
    world.until(|world| world.stats().calls_started > 0);
    assert_eq!(world.stats().calls_started, 3);
    assert_eq!(seqs(&wire.wait(&mut world, 8)), (1..=8).collect::<Vec<_>>());
}

#[test]
fn what_a_handler_sends_by_its_connection_counts_as_output_too() {
    let mut limits = Limits::default();
    limits.output_bytes_mark = 60;
    let mut world = world_with(limits);
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let mut script: Vec<_> = (1..=4).map(|seq| request(seq, 0, "bank.later", &(seq,))).collect();
    script.push(request(5, 0, "own.answer", &()));
    script.extend([debit(6, 0), debit(7, 0)]);
    wire.stream.write_all(&script.concat()).expect("the server reads");
    world.until(|world| world.stats().calls_started > 0);
    assert_eq!((world.stats().calls_started, world.app.spent), (5, 0));
    assert_eq!(seqs(&wire.wait(&mut world, 7)), (1..=7).collect::<Vec<_>>());
}

#[test]
fn a_turns_budget_bounds_a_batch() {
    let (mut world, mut wire) = plain_world();
    let one = flagged(1, 0, "bank.balance", &(), Flags::UNPROTECTED);
    wire.stream.write_all(&one.repeat(1_500)).expect("there is room");
    let mut before = 0;
    world.until(|world| {
        let started = world.stats().calls_started;
        assert!(started - before <= 512, "{} in one turn", started - before);
        before = started;
        started == 1_500
    });
    assert_eq!(wire.wait(&mut world, 1_500).len(), 1_500);
}

/// Chance, the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        // Knuth's MMIX generator; the high bits are the better ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Frames as no client would send them: copies, acknowledgements of what is in the same batch, calls
/// of all kinds, refusals of all kinds, frames of other kinds in between.
fn script(chance: &mut Chance) -> Vec<Vec<u8>> {
    let (mut highest, mut ack) = (0, 0);
    let mut frames = Vec::new();
    for _ in 0..60 {
        let seq = match chance.below(4) {
            0 if highest > 0 => 1 + chance.below(highest + 2),
            _ => highest + 1,
        };
        highest = highest.max(seq);
        // Mostly within the window of eight.
        if chance.below(3) == 0 {
            ack = (ack + chance.below(4)).max(seq.saturating_sub(7)).min(seq - 1);
        }
        let ack = ack.min(seq - 1);
        frames.push(match chance.below(16) {
            0 => request(seq, ack, "bank.big", &(700usize,)),
            1 if chance.below(4) == 0 => request(seq, ack, "bank.big", &(70_000usize,)),
            1 => request(seq, ack, "bank.big", &(5_000usize,)),
            2 => request(seq, ack, "bank.later", &(seq,)),
            3 => request(seq, ack, "bank.broken", &()),
            4 => request(seq, ack, "own.put_off", &()),
            5 => request(seq, ack, "bank.nothing", &()),
            6 => request(seq, ack, "bank.debit", &("ten",)),
            7 => flagged(seq, ack, "bank.balance", &(), Flags::UNPROTECTED),
            8 => frame(Kind::Cancel, seq, &[]),
            9 => frame(Kind::Ack, ack, &[]),
            10 => malformed(seq, ack),
            11 => flagged(seq, ack, "bank.debit", &(1u64,), Flags::METADATA),
            _ => debit(seq, ack),
        });
    }
    frames
}

fn malformed(seq: u64, ack: u64) -> Vec<u8> {
    let mut header = Header::new(Kind::Request, seq);
    header.ack = ack;
    let mut out = Vec::new();
    header.append(&[0x91, 0xc1], &mut out);
    out
}

/// What a server said and did.
type Told = (Vec<(Kind, u64, Vec<u8>)>, u64, u64);

/// Sends the frames in pieces of so many, each answered before the next is sent.
fn told(limits: &Limits, script: &[Vec<u8>], piece: usize) -> Told {
    const FENCE: u64 = u64::MAX;
    let mut world = world_with(limits.clone());
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let mut got = Vec::new();
    let mut pass = |world: &mut World, bytes: &mut Vec<u8>| {
        bytes.extend(frame(Kind::Ping, FENCE, &[]));
        wire.stream.write_all(bytes).expect("the server reads");
        let mut frames = Vec::new();
        world.until(|_| {
            assert!(wire.poll(&mut frames), "closed after {frames:?}");
            frames.last().is_some_and(|frame: &Got| frame.header.kind == Kind::Pong)
        });
        frames.pop();
        got.extend(
            frames.into_iter().map(|frame| (frame.header.kind, frame.header.seq, frame.body)),
        );
    };
    for frames in script.chunks(piece) {
        pass(&mut world, &mut frames.concat());
    }
    world.answer_all();
    pass(&mut world, &mut Vec::new());
    world.server.check_invariants(world.reactor.registry());
    let stats = world.stats();
    (got, world.app.spent, stats.calls_started)
}

/// Limits that a batch meets.
fn tight_limits() -> Limits {
    let mut limits = Limits::default();
    limits.in_flight_max = 3;
    limits.reply_reservation_bytes = 256;
    limits.kept_reply_bytes_per_session_max = 8_000;
    limits.output_bytes_mark = 6_000;
    limits
}

/// Of a session in order this cannot be said: what was held runs behind the batch, and an
/// acknowledgement that comes before gives it up.
#[test]
fn a_batch_is_answered_as_its_frames_are_one_by_one() {
    for limits in [Limits::default(), tight_limits()] {
        for seed in 0..40 {
            let script = script(&mut Chance(seed));
            let one_by_one = told(&limits, &script, 1);
            let at_once = told(&limits, &script, script.len());
            assert_eq!(at_once, one_by_one, "seed {seed}");
        }
    }
}
