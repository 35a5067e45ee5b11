//! What the model knows, and the rows as a person would write them down.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use onceloop_protocol::error::Code;
use onceloop_protocol::handshake::{CellReport, Sid};
use onceloop_protocol::table::{CallKey, SessionKey};

use super::WINDOW;

/// What the model knows of one xid that has run.
#[derive(Debug)]
pub(crate) struct Xid {
    pub(crate) body: u8,
    pub(crate) call: CallKey,
    pub(crate) has_ended: bool,
    /// The answer that every later copy must get; `None` if it is too large to keep.
    pub(crate) answer: Option<Vec<u8>>,
}

/// What the model knows of one session.
pub(crate) struct Known {
    pub(crate) key: SessionKey,
    pub(crate) sid: Sid,
    pub(crate) is_in_order: bool,
    /// The connections that are attached, the older one first.
    pub(crate) connections: Vec<u64>,
    pub(crate) incarnation: u32,
    pub(crate) attachment: u32,
    pub(crate) floor: u64,
    /// Every xid that ran, also those acknowledged since.
    pub(crate) ran: BTreeMap<u64, Xid>,
    /// Requests that wait for their turn: their bytes, by which connection they came, and by which
    /// other one a copy.
    pub(crate) held: BTreeMap<u64, (u8, u64, Option<u64>)>,
}

impl Known {
    /// What RESUMED must say of `seq`.
    pub(crate) fn report(&self, seq: u64) -> CellReport {
        match self.ran.get(&seq) {
            Some(xid) if xid.has_ended => CellReport::Finished,
            Some(_) => CellReport::Running,
            None if self.held.contains_key(&seq) => CellReport::Running,
            None => CellReport::Vacant,
        }
    }

    /// In-order session: whether some lower seq above the floor has not ended, or one at or below
    /// it still runs.
    pub(crate) fn is_blocked(&self, seq: u64) -> bool {
        let has_ended = |seq| self.ran.get(&seq).is_some_and(|xid| xid.has_ended);
        let abandoned_runs = self.ran.range(..=self.floor).any(|(_, xid)| !xid.has_ended);
        abandoned_runs || (self.floor + 1..seq).any(|lower| !has_ended(lower))
    }

    pub(crate) fn raise_floor(&mut self, ack: u64, tally: &mut Tally) {
        if ack <= self.floor {
            return;
        }
        let running = self.ran.range((Excluded(self.floor), Unbounded));
        let running = running.take_while(|&(&seq, _)| seq <= ack);
        tally.abandoned +=
            u32::try_from(running.filter(|(_, xid)| !xid.has_ended).count()).unwrap();
        self.floor = ack;
        self.held.retain(|&seq, _| seq > ack);
    }

    /// The rows, as a person would write them down.
    pub(crate) fn expect(&mut self, copy: &Copy, tally: &mut Tally) -> Expected {
        if !self.connections.contains(&copy.connection) {
            return Expected::Refused(Code::Fenced);
        }
        if copy.seq > 0 && copy.ack >= copy.seq {
            return Expected::Refused(Code::Protocol);
        }
        self.raise_floor(copy.ack, tally);
        let refused = if copy.refusal.is_some() {
            copy.refusal
        } else if copy.time_left_ms == 0 {
            Some(Code::Deadline)
        } else {
            None
        };
        if copy.is_unprotected {
            return match refused {
                Some(code) => Expected::Refused(code),
                None if !copy.is_idempotent => Expected::OrBusy(Code::NotProtected),
                None => Expected::RunOrBusy,
            };
        }
        if copy.seq <= self.floor {
            return Expected::Refused(Code::Stale);
        }
        if copy.seq > self.floor + u64::from(WINDOW) {
            return Expected::Refused(Code::Window);
        }
        let held = self.held.get(&copy.seq).map(|&(body, ..)| body);
        let ran = self.ran.get(&copy.seq);
        if let Some(body) = held.or(ran.map(|xid| xid.body)) {
            return match ran {
                _ if body != copy.body => Expected::Refused(Code::XidReused),
                Some(Xid { has_ended: true, answer: Some(answer), .. }) => {
                    Expected::Again(answer.clone())
                }
                Some(Xid { has_ended: true, answer: None, .. }) => {
                    Expected::Refused(Code::NotRetained)
                }
                _ => Expected::Wait,
            };
        }
        match refused {
            Some(code) => Expected::Refused(code),
            None if self.is_in_order && self.is_blocked(copy.seq) => Expected::HoldOrBusy,
            None => Expected::RunOrBusy,
        }
    }
}

/// A copy of a request, as a client might send it.
#[derive(Clone, Copy)]
pub(crate) struct Copy {
    pub(crate) seq: u64,
    pub(crate) ack: u64,
    pub(crate) body: u8,
    pub(crate) connection: u64,
    pub(crate) time_left_ms: u32,
    pub(crate) is_unprotected: bool,
    pub(crate) is_idempotent: bool,
    pub(crate) refusal: Option<Code>,
}

#[derive(Debug)]
pub(crate) enum Expected {
    Again(Vec<u8>),
    HoldOrBusy,
    /// Refused with this code, unless there is no room anyway.
    OrBusy(Code),
    Refused(Code),
    RunOrBusy,
    Wait,
}

#[derive(Debug)]
pub(crate) enum Found {
    Again(Vec<u8>),
    Refused(Code),
    Run(CallKey),
    Wait,
}

/// How often what is to be tested has happened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) by_code: HashMap<&'static str, u32>,
    pub(crate) effects: u32,
    pub(crate) replays: u32,
    pub(crate) waits: u32,
    pub(crate) fenced: u32,
    /// Second connections, and answers that went out on two.
    pub(crate) joins: u32,
    pub(crate) answered_twice: u32,
    pub(crate) ran_in_turn: u32,
    pub(crate) abandoned: u32,
    pub(crate) reports: [u32; 3],
    pub(crate) sessions_ended: u32,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        for (name, count) in &other.by_code {
            *self.by_code.entry(name).or_default() += count;
        }
        self.effects += other.effects;
        self.replays += other.replays;
        self.waits += other.waits;
        self.fenced += other.fenced;
        self.joins += other.joins;
        self.answered_twice += other.answered_twice;
        self.ran_in_turn += other.ran_in_turn;
        self.abandoned += other.abandoned;
        for (sum, count) in self.reports.iter_mut().zip(other.reports) {
            *sum += count;
        }
        self.sessions_ended += other.sessions_ended;
    }

    /// Checks that the runs met everything they are meant to meet.
    pub(crate) fn check(&self) {
        let counts = [self.effects, self.replays, self.waits, self.ran_in_turn, self.abandoned];
        assert!(counts.iter().all(|&count| count > 500), "{self:?}");
        assert!(self.reports.iter().all(|&count| count > 200), "{self:?}");
        assert!(self.fenced > 200 && self.sessions_ended > 200, "{self:?}");
        assert!(self.joins > 500 && self.answered_twice > 500, "{self:?}");
        for code in [
            Code::Busy,
            Code::Window,
            Code::Deadline,
            Code::NotProtected,
            Code::NoMethod,
            Code::NotRetained,
            Code::SessionUnknown,
            Code::Stale,
            Code::XidReused,
            Code::Protocol,
            Code::Cancelled,
        ] {
            let count = self.by_code.get(code.name()).copied().unwrap_or(0);
            assert!(count > 50, "{code}: {count}");
        }
    }
}

/// Numbers that a seed determines: SplitMix64 (Steele, Lea, Flood, *Fast Splittable Pseudorandom
/// Number Generators*, OOPSLA '14).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).expect("below a usize")
    }
}
