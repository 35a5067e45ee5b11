//! Long frames between short ones: all of them run once and in order, however they come.
#![allow(missing_docs)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use onceloop_protocol::frame::{Header, Kind};
use onceloop_protocol::limits::Limits;
use onceloop_reactor::Config;
use support::{LARGE, PANIC, World, answer_bytes, read, request};

const KIB: usize = 1024;

/// Seeded numbers: xorshift64*.
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).expect("31 bits") % end
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Payloads are parts of it, so that none is mistaken for another.
fn noise() -> Vec<u8> {
    let mut rng = Rng::new(1);
    let mut bytes = Vec::new();
    while bytes.len() < 2 * KIB * KIB {
        let word: Vec<u8> = (0..8).map(|_| rng.below(256).to_le_bytes()[0]).collect();
        bytes.extend_from_slice(&word.repeat(1 + rng.below(64)));
    }
    bytes
}

/// A length that has its own way through the connection, or is near one that has.
fn length(rng: &mut Rng) -> usize {
    let near = [0, 16 * KIB, 64 * KIB, 68 * KIB, 260 * KIB];
    match rng.below(16) {
        0..6 => rng.below(100),
        6..9 => rng.below(20 * KIB),
        9..15 => (rng.one_of(&near) + 40).saturating_sub(rng.below(80)),
        _ => rng.below(KIB * KIB),
    }
}

/// Frames of all lengths, of which some are PINGs, some are too large, some have a shared answer and
/// some panic.
fn script(rng: &mut Rng, noise: &[u8], bytes_max: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut bytes = 0;
    while bytes < bytes_max {
        let seq = 1 + frames.len() as u64;
        let frame = match rng.below(40) {
            0 => request(PANIC, rng.below(300)),
            1 => request(LARGE, length(rng).min(20 * KIB)),
            2..4 => {
                let mut ping = Vec::new();
                Header::new(Kind::Ping, seq).append(&[], &mut ping);
                ping
            }
            _ => {
                let length = length(rng);
                let mut frame = request(seq, length);
                let (begin, from) = (frame.len() - length, rng.below(KIB * KIB));
                frame[begin..].copy_from_slice(&noise[from..from + length]);
                frame
            }
        };
        bytes += frame.len();
        frames.push(frame);
    }
    frames
}

/// What is answered to each frame when it comes alone.
fn answers_one_by_one(limits: &Limits, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut world = World::with(limits.clone(), Config::default());
    let (_, mut peer) = world.connect();
    let mut all = Vec::new();
    for frame in frames {
        let before = all.len();
        let mut rest = &frame[..];
        let has_answer = !frame_is(frame, PANIC);
        while !rest.is_empty() || all.len() == before && has_answer {
            rest = &rest[peer.write(rest).unwrap_or(0)..];
            turn(&mut world);
            all.extend(read(&mut peer).expect("open"));
        }
        turn(&mut world);
    }
    for _ in 0..10 {
        turn(&mut world);
        all.extend(read(&mut peer).expect("open"));
    }
    all
}

fn frame_is(frame: &[u8], seq: u64) -> bool {
    Header::read(frame).is_some_and(|header| header.kind == Kind::Request && header.seq == seq)
}

/// A turn that does not wait, and whose panics are those of the frames that are to panic.
fn turn(world: &mut World) {
    let World { reactor, app, .. } = world;
    let turn = AssertUnwindSafe(|| reactor.turn(app, Some(Duration::ZERO)).expect("a turn"));
    let _ = catch_unwind(turn);
}

/// Makes turns until there is nothing left to do.
fn settle(world: &mut World, seed: u64) {
    for _ in 0..1_000 {
        turn(world);
        let soon = Instant::now() + Duration::from_millis(1);
        if world.reactor.next_deadline().is_none_or(|next| next > soon) {
            // What the other ends have done is an event of the next turn.
            return turn(world);
        }
    }
    panic!("seed {seed}: it is busy");
}

/// The other end of a connection: it writes a script piece by piece and reads as it likes.
struct Peer<'a> {
    stream: UnixStream,
    rest: &'a [u8],
    got: Vec<u8>,
    expected: &'a [u8],
    /// It says that it will send no more as soon as it has sent all.
    says_fin: bool,
    is_at_end: bool,
}

impl Peer<'_> {
    fn write(&mut self, rng: &mut Rng) {
        let piece = rng.one_of(&[1, 30, 5_000, 16 * KIB, 65 * KIB, 300 * KIB, usize::MAX]);
        let piece = piece.min(self.rest.len());
        let n = self.stream.write(&self.rest[..piece]).unwrap_or(0);
        self.rest = &self.rest[n..];
        if self.rest.is_empty() && self.says_fin {
            self.stream.shutdown(Shutdown::Write).expect("a FIN");
            self.says_fin = false;
        }
    }

    fn read(&mut self, chunk: &mut [u8]) {
        match self.stream.read(chunk) {
            Ok(0) => self.is_at_end = true,
            Ok(n) => self.got.extend_from_slice(&chunk[..n]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }

    fn is_done(&self) -> bool {
        self.rest.is_empty() && self.got.len() >= self.expected.len()
    }
}

/// Budgets and bounds from the smallest to the largest.
fn draw_world(rng: &mut Rng, limits: Limits) -> World {
    let mut config = rng.one_of(&[Config::default as fn() -> Config, Config::simulated])();
    config.read_bytes_per_turn = rng.one_of(&[0, 20 * KIB, 68 * KIB, 68 * KIB, usize::MAX]);
    config.write_bytes_per_turn = rng.one_of(&[0, 66 * KIB, 260 * KIB, 260 * KIB, usize::MAX]);
    config.requests_per_turn = rng.one_of(&[1, 3, 128]);
    config.requests_per_turn_alone = rng.one_of(&[1, 3, 512]);
    World::with(limits, config)
}

fn check(seed: u64, noise: &[u8]) {
    let mut rng = Rng::new(seed);
    let mut limits = Limits::default();
    limits.body_bytes_max = rng.one_of(&[KIB * KIB + 5, 100 * KIB, 10_000]);
    limits.output_bytes_mark = rng.one_of(&[1, 100 * KIB, KIB * KIB]);
    let connections = 1 + rng.below(3);
    let scripts: Vec<(Vec<u8>, Vec<u8>)> = (0..connections)
        .map(|_| {
            let frames = script(&mut rng, noise, 600 * KIB);
            (frames.concat(), answers_one_by_one(&limits, &frames))
        })
        .collect();
    let mut world = draw_world(&mut rng, limits);
    let (mut ids, mut peers) = (Vec::new(), Vec::new());
    for (script, expected) in &scripts {
        let (id, stream) = world.connect();
        let says_fin = rng.below(2) == 0;
        ids.push((id, says_fin));
        peers.push(Peer {
            stream,
            rest: script,
            got: vec![],
            expected,
            says_fin,
            is_at_end: false,
        });
    }
    let (writes, reads) = (1 + rng.below(3), rng.below(4));
    let mut chunk = vec![0; rng.one_of(&[1_000, 100 * KIB])];
    let begin = Instant::now();
    while !peers.iter().all(Peer::is_done) {
        for peer in &mut peers {
            for _ in 0..rng.below(1 + writes) {
                peer.write(&mut rng);
            }
            for _ in 0..rng.below(2 + reads) {
                peer.read(&mut chunk);
            }
        }
        turn(&mut world);
        let is_late = begin.elapsed() > Duration::from_secs(20);
        assert!(!is_late, "seed {seed}: it never happens");
    }
    settle(&mut world, seed);
    for (peer, (id, ends)) in peers.iter_mut().zip(ids) {
        peer.read(&mut chunk);
        assert!(peer.got == peer.expected, "seed {seed}: other answers");
        assert_eq!(peer.is_at_end, ends, "seed {seed}");
        if !ends {
            assert_eq!(world.buffer_bytes(id), 0, "seed {seed}");
        }
    }
}

#[test]
fn what_is_answered_does_not_depend_on_how_it_comes() {
    let noise = noise();

    for seed in 0..40 {
        check(seed, &noise);
    }
}

/// Between a turn's reads and what they lead to there may be many of them.
#[test]
fn who_expects_a_long_frame_and_gets_a_few_bytes_does_not_hold_a_long_buffer() {
    const CONNECTIONS: usize = 50;
    let mut world = World::new();
    let long = request(1, 100_000);
    let mut peers: Vec<UnixStream> = (0..CONNECTIONS).map(|_| world.connect().1).collect();
    for peer in &mut peers {
        // In two pieces: only what does not come in one read is long.
        peer.write_all(&long[..70_000]).expect("there is room");
        world.turn();
        peer.write_all(&long[70_000..]).expect("there is room");
        let mut answer = 0;
        world.until(|_| {
            answer += read(peer).expect("open").len();
            answer == answer_bytes(100_000)
        });
    }
    large_spares(&mut world);
    for peer in &mut peers {
        peer.write_all(&long[..10]).expect("there is room");
    }
    world.turn();
    let spares = large_spares(&mut world);
    assert!(spares <= 1, "{spares} for {CONNECTIONS} connections");
}

/// Takes all large spare buffers, and returns how many there were.
fn large_spares(world: &mut World) -> usize {
    let registry = world.reactor.registry();
    std::iter::from_fn(|| Some(registry.take_large_buffer()))
        .take_while(|buffer| buffer.capacity() > 0)
        .count()
}

#[test]
fn a_long_frame_that_has_all_come_takes_no_turn_for_nothing() {
    let mut world = World::new();
    let (_, mut peer) = world.connect();
    let long = request(1, 100_000);
    peer.write_all(&long[..70_000]).expect("there is room");
    world.turn();
    peer.write_all(&long[70_000..]).expect("there is room");
    world.turns(5);
    for count in 2..5 {
        read(&mut peer).expect("open");
        // It comes into a buffer of its own, which it does not fill.
        peer.write_all(&long).expect("there is room");
        world.turn();
        assert_eq!(world.app.frames.len(), count);
        let next = world.reactor.next_deadline().expect("a connection has one");
        assert!(next > Instant::now() + Duration::from_millis(100), "another turn is asked for");
    }
}

#[test]
fn with_the_largest_budgets_a_long_buffer_is_used_again() {
    let mut config = Config::default();
    config.turn_buffer_bytes = 8 * KIB * KIB;
    (config.read_bytes_per_turn, config.write_bytes_per_turn) = (usize::MAX, usize::MAX);
    let mut world = World::with(Limits::default(), config);
    let (_, mut peer) = world.connect();
    let long = request(1, 100_000);
    for piece in [&long[..70_000], &long[70_000..]] {
        peer.write_all(piece).expect("there is room");
        world.turns(3);
    }
    large_spares(&mut world);
    peer.write_all(&request(2, 10)).expect("there is room");
    world.turns(3);
    assert_eq!(world.app.frames, [1, 2]);
    assert_eq!(large_spares(&mut world), 1);
}

#[test]
fn what_is_skipped_takes_no_buffer() {
    let mut limits = Limits::default();
    limits.body_bytes_max = 1_000;
    let mut world = World::with(limits, Config::default());
    let (id, mut peer) = world.connect();
    for piece in request(1, 1_000_000).chunks(70_000) {
        peer.write_all(piece).expect("there is room");
        world.turn();
        read(&mut peer).expect("open");
        assert_eq!((world.buffer_bytes(id), large_spares(&mut world)), (0, 0));
    }
}

/// Limits with which each deadline is known by how far it is.
fn far_apart() -> Limits {
    let mut limits = Limits::default();
    (limits.body_bytes_max, limits.frame_timeout) = (1_000, Duration::from_secs(10));
    limits.handshake_timeout = Duration::from_secs(100);
    limits
}

#[test]
fn the_time_of_a_frame_behind_a_refused_one_counts_from_its_own_first_byte() {
    let limits = far_apart();
    let timeout = limits.frame_timeout;
    let mut world = World::with(limits, Config::default());
    let (_, mut peer) = world.connect();
    let (refused, next) = (request(1, 2_000), request(2, 10));
    peer.write_all(&refused[..1_500]).expect("there is room");
    world.turn();
    let begin = Instant::now();
    world.until(|_| begin.elapsed() > Duration::from_millis(10));
    let before = Instant::now();
    peer.write_all(&[&refused[1_500..], &next[..25]].concat()).expect("there is room");
    world.turn();
    // To the tick.
    let earliest = before + timeout - Duration::from_millis(2);
    assert!(world.reactor.next_deadline().expect("a frame has begun") >= earliest);
}

#[test]
fn a_refused_frame_that_has_all_come_has_no_deadline_left() {
    let mut config = Config::default();
    (config.requests_per_turn, config.requests_per_turn_alone) = (1, 1);
    let mut world = World::with(far_apart(), config);
    let (_, mut peer) = world.connect();
    peer.write_all(&request(1, 2_000)).expect("there is room");
    world.turns(3);
    let left = world.reactor.next_deadline().expect("some") - Instant::now();
    assert!(left > Duration::from_secs(50), "{left:?}");
}

#[test]
fn a_refused_frame_has_a_deadline_also_where_there_is_no_room_for_answers() {
    let mut limits = far_apart();
    limits.output_bytes_mark = 1;
    let mut world = World::with(limits, Config::default());
    let (_, mut peer) = world.connect();
    peer.write_all(&request(1, 2_000)[..1_500]).expect("there is room");
    world.turns(3);
    let left = world.reactor.next_deadline().expect("some") - Instant::now();
    assert!(left < Duration::from_secs(20), "{left:?}");
}

#[test]
fn a_long_frame_runs_although_its_sender_has_gone() {
    for long in [70_000, 150_000] {
        let mut world = World::new();
        let (_, mut peer) = world.connect();
        // The second comes into a buffer of its own, and an answer is never read.
        for seq in [1, 2] {
            peer.write_all(&request(seq, long)).expect("there is room");
            if seq == 1 {
                world.until(|world| world.app.frames.len() == 1);
            }
        }
        drop(peer);
        world.until(|world| !world.app.closed.is_empty());
        assert_eq!(world.app.frames, [1, 2]);
    }
}
