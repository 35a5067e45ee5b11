//! What the world knows of connections and listening sockets.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::pipe::{Doom, DoomKind, Pipe};
use super::{Faults, Random};
use crate::id::RawId;

/// Names a connection or a listening socket: a place, and a number that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) index: usize,
    pub(crate) number: u64,
}

/// The side that connected.
pub(crate) const CLIENT: usize = 0;
/// The side that was connected to.
pub(crate) const SERVER: usize = 1;

/// Both ends and what is between them.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) number: u64,
    /// Times of its segments, and its faults.
    pub(crate) random: Random,
    /// One way, at least.
    pub(crate) latency: u64,
    pub(crate) sides: [Side; 2],
    /// What side 0 writes is in pipe 0.
    pub(crate) pipes: [Pipe; 2],
    /// It comes late: its beginning and its bytes are on their way whatever the client does.
    pub(crate) is_late: bool,
    /// The world was healed since it was begun: what was to befall it does not.
    pub(crate) is_spared: bool,
}

impl Connection {
    /// When something sent now arrives.
    pub(crate) fn arrival(&mut self, now: u64) -> u64 {
        now + self.latency + self.random.below(self.latency / 4 + 1)
    }
}

/// Where an end is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody knows of it there yet.
    Unborn,
    /// Waits for the answer.
    Connecting,
    /// Established; perhaps it waits to be accepted.
    Open,
    /// Its socket is gone.
    Closed,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) host: usize,
    pub(crate) address: SocketAddr,
    pub(crate) stage: Stage,
    /// Why it failed; told once.
    pub(crate) error: Option<io::ErrorKind>,
    /// It has failed, whether that was told or not.
    pub(crate) is_broken: bool,
    pub(crate) watch: Watch,
}

impl Side {
    pub(crate) fn new(host: usize, address: SocketAddr, stage: Stage) -> Self {
        Self { host, address, stage, error: None, is_broken: false, watch: Watch::default() }
    }
}

/// Who is told of a socket's readiness, and what it was not told yet.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) seat: Option<(usize, RawId)>,
    pub(crate) readiness: u8,
    pub(crate) is_queued: bool,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) number: u64,
    pub(crate) host: usize,
    pub(crate) address: SocketAddr,
    /// Connections that wait to be accepted.
    pub(crate) backlog: VecDeque<Key>,
    pub(crate) watch: Watch,
}

/// What is to befall a connection, drawn when it begins.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    pub(crate) doom: [Option<Doom>; 2],
    pub(crate) drip_reads: [u32; 2],
    pub(crate) drip_writes: [u32; 2],
    /// Nanoseconds until it is reset.
    pub(crate) reset_after: Option<u64>,
    /// Nanoseconds that it comes late by.
    pub(crate) late_by: Option<u64>,
}

/// Bytes after which a connection is cut, at most: the handshake and the first calls are met often,
/// and what comes after thousands of calls at times.
const DOOM_BYTES_MAX: u64 = 100_000;
/// Bytes that come one by one, at most: each is a happening of its own.
const DRIP_BYTES_MAX: u64 = 1_500;
const MILLISECOND: u64 = 1_000_000;

impl Fate {
    /// Draws it: each fault from a fork of its own.
    pub(crate) fn draw(faults: &Faults, random: &Random) -> Self {
        let mut fate = Self::default();
        let strikes = |rate: u32, label: &str| {
            let mut random = random.fork(label);
            (rate > 0 && random.chance(rate)).then_some(random)
        };
        let dooms = [
            (DoomKind::BlackHole, faults.black_holes, "black hole"),
            (DoomKind::Cut, faults.cuts, "cut"),
            (DoomKind::HalfClose, faults.half_closes, "half close"),
        ];
        for (kind, rate, label) in dooms {
            let Some(mut random) = strikes(rate, label) else { continue };
            let doom = Doom { after: random.spread(1, DOOM_BYTES_MAX), kind };
            let place = &mut fate.doom[random.index(2)];
            if place.is_none_or(|other| doom.after < other.after) {
                *place = Some(doom);
            }
        }
        if let Some(mut random) = strikes(faults.one_byte_reads, "one-byte reads") {
            fate.drip_reads[random.index(2)] = drips(&mut random);
        }
        if let Some(mut random) = strikes(faults.one_byte_writes, "one-byte writes") {
            fate.drip_writes[random.index(2)] = drips(&mut random);
        }
        if let Some(mut random) = strikes(faults.resets, "reset") {
            fate.reset_after = Some(random.spread(MILLISECOND, 20_000 * MILLISECOND));
        }
        if let Some(mut random) = strikes(faults.late, "late") {
            let most = super::random::nanos(faults.late_max).max(MILLISECOND);
            fate.late_by = Some(random.spread(MILLISECOND, most));
        }
        fate
    }
}

fn drips(random: &mut Random) -> u32 {
    u32::try_from(random.spread(10, DRIP_BYTES_MAX)).expect("it is that small")
}
