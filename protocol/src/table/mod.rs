//! The server's sessions and their xids: what makes a retry run once.
//!
//! [`Table::admit`] is asked before a handler starts, [`Table::complete`] told when it has ended;
//! between the two stands a [`CallKey`]. The rules are a table of transitions; comments here name
//! its rows, and `docs/SEMANTICS.md` explains them. One thread owns a `Table`; it does no I/O, reads
//! no clock and calls no user code, so a server with threads may as well keep it behind a mutex.
//!
//! Invariants, asserted in debug builds by [`Table::check_invariants`]: a cell runs at most one
//! handler; the floor never falls; at most `window` cells are occupied; a refusal changes nothing
//! but the floor; the counts of calls and bytes are those of the cells.
//!
//! Prior art: RIFL (SOSP '15), NFSv4.1 sessions (RFC 8881 §2.10.6), Raft client sessions (Ongaro's
//! dissertation §6.3).

mod admit;
mod cell;
mod finish;
mod lifecycle;
mod order;
mod replies;
mod session;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Instant;

pub use self::admit::{Admission, Request};
use self::cell::Cell;
pub use self::finish::{Cancelled, Delivery};
pub use self::lifecycle::Resumption;
pub use self::order::HeldRequest;
use self::replies::Replies;
pub use self::replies::{Answer, REPLY_COPY_BYTES_MAX};
use self::session::Session;
use crate::arena::{Arena, Key};
use crate::digest::DigestKey;
use crate::error::{Code, ErrorBody};
use crate::frame::{self, Header, Kind, MethodId};
use crate::limits::Limits;

/// Where a session is in its table.
pub type SessionKey = Key<Session>;
/// Where a call is that has started and not ended.
pub type CallKey = Key<Call>;

/// A call whose handler has started and not ended.
pub struct Call {
    session: SessionKey,
    seq: u64,
    /// By which connection it came: where an unprotected call's reply goes.
    connection: u64,
    argument_bytes: u32,
    is_unprotected: bool,
    /// Its seq was acknowledged: nobody waits for the reply.
    is_abandoned: bool,
    /// Its caller said that it no longer waits.
    is_cancelled: bool,
}

/// Counters since the table was made. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Handlers started.
    pub started: u64,
    /// Answers given again from what was kept, to a copy of the request or at a RESUME: retries that
    /// did not run twice.
    pub replayed: u64,
    /// Requests that met their own first copy still running or held.
    pub joined: u64,
    /// Requests refused (class N).
    pub refused: u64,
    /// Requests that broke the protocol (class X) or named no live session.
    pub rejected: u64,
    /// Sessions opened.
    pub opened: u64,
    /// Sessions resumed.
    pub resumed: u64,
    /// Sessions whose lease ended.
    pub expired: u64,
}

/// The sessions of one server and the xids of each.
pub struct Table {
    limits: Limits,
    digest_key: DigestKey,
    sessions: Arena<Session>,
    calls: Arena<Call>,
    replies: Replies,
    /// Detached sessions by the end of their lease; in-order sessions by when their held requests
    /// are looked at. At most two entries a session.
    leases: BTreeSet<(Instant, u64)>,
    in_flight_bytes: usize,
    /// Bytes of the requests that in-order sessions hold.
    held_bytes: usize,
    is_draining: bool,
    counters: Counters,
}

impl Table {
    /// Returns an empty table. `random` comes from the operating system and keys the digests.
    pub fn new(limits: Limits, random: [u8; 16]) -> Self {
        Table {
            limits,
            digest_key: DigestKey::new(random),
            sessions: Arena::new(),
            calls: Arena::new(),
            replies: Replies::new(),
            leases: BTreeSet::new(),
            in_flight_bytes: 0,
            held_bytes: 0,
            is_draining: false,
            counters: Counters::default(),
        }
    }

    /// Returns the digest of a request: equal for every copy of a call, whatever its ack and its
    /// time left.
    #[inline]
    pub fn digest(&self, method: MethodId, arguments: &[u8]) -> u64 {
        self.digest_key.digest(method, arguments)
    }

    /// Refuses new calls and new sessions from now on; what runs may end, and what has ended is
    /// still answered.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Returns how many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns how many handlers have started and not ended.
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Returns how many answers are kept, and their bytes.
    pub fn kept(&self) -> (usize, usize) {
        (self.replies.len(), self.replies.bytes())
    }

    /// Returns what has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns the limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns whether the session's calls run in order.
    pub fn is_in_order(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| session.in_order.is_some())
    }

    /// Returns whether an answer of this session is still to come.
    pub fn is_owing(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            let is_held = session.in_order.as_ref().is_some_and(|order| !order.held.is_empty());
            session.in_flight > session.abandoned || is_held
        })
    }

    /// Gives up every call that has not ended, at the end of a shutdown. Their handlers may go on;
    /// what they answer is dropped.
    pub fn abandon(&mut self) {
        self.calls = Arena::new();
        self.sessions = Arena::new();
        self.replies = Replies::new();
        self.leases.clear();
        self.in_flight_bytes = 0;
        self.held_bytes = 0;
    }

    /// Returns whether anybody still waits for this call: `false` once its caller has cancelled it
    /// or acknowledged its seq, its session has ended, or it has itself.
    pub fn is_awaited(&self, call: CallKey) -> bool {
        let Some(call) = self.calls.get(call) else { return false };
        !call.is_cancelled && !call.is_abandoned && self.sessions.get(call.session).is_some()
    }

    /// Asserts what must always hold. It costs as much as there are sessions: for tests and
    /// simulations.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn check_invariants(&self) {
        let (mut replies, mut reply_bytes, mut held_bytes, mut deadlines) = (0, 0, 0, 0);
        let (mut in_flight, mut abandoned, mut pending) = (0, 0, 0);
        for (key, session) in self.sessions.iter() {
            let found = self.check_session(key, session);
            replies += found.replies;
            reply_bytes += found.reply_bytes;
            pending += found.pending;
            in_flight += session.in_flight as usize;
            abandoned += session.abandoned as usize;
            held_bytes += session.in_order.as_ref().map_or(0, |in_order| in_order.held_bytes);
            deadlines += found.deadlines;
        }
        assert_eq!((replies, reply_bytes), self.kept(), "every kept answer has its cell");
        assert_eq!(held_bytes, self.held_bytes);
        assert_eq!(deadlines, self.leases.len(), "no deadline outlives its reason");
        let calls = || self.calls.iter().map(|(_, call)| call);
        let of_session = |call: &&Call| self.sessions.get(call.session).is_some();
        assert_eq!(in_flight, calls().filter(of_session).count());
        let is_abandoned = |call: &&Call| call.is_abandoned && of_session(call);
        assert_eq!(abandoned, calls().filter(is_abandoned).count());
        let is_pending = |call: &&Call| !call.is_abandoned && !call.is_unprotected;
        assert_eq!(pending, calls().filter(of_session).filter(is_pending).count());
        let bytes = calls().map(|call| call.argument_bytes as usize);
        assert_eq!(bytes.sum::<usize>(), self.in_flight_bytes);
    }

    fn check_session(&self, key: SessionKey, session: &Session) -> Found {
        let mut found = Found::default();
        let (mut occupied, mut held) = (0, 0);
        for &cell in session.ring.cells() {
            occupied += u32::from(cell != Cell::Vacant);
            match cell {
                Cell::Vacant | Cell::DoneNoReply { .. } => {}
                Cell::Held { .. } => held += 1,
                Cell::Pending { call, .. } => {
                    found.pending += 1;
                    let call = self.calls.get(call).expect("a pending cell has its call");
                    assert!(call.session == key && !call.is_abandoned && !call.is_unprotected);
                    assert!(call.seq > session.floor);
                }
                Cell::Done { reply, .. } => {
                    found.replies += 1;
                    found.reply_bytes += self.replies.get(reply).len();
                }
            }
        }
        assert!(occupied <= u32::from(session.window), "at most a window of cells is occupied");
        assert_eq!(found.reply_bytes, session.kept_bytes as usize);
        let reserved = session.in_flight as usize * self.limits.reply_reservation_bytes;
        assert!(found.reply_bytes + reserved <= self.limits.kept_reply_bytes_per_session_max);
        assert_eq!(session.connection().is_none(), session.expires().is_some());
        let watched = session.in_order.as_ref().and_then(|in_order| in_order.watched);
        let deadlines = BTreeSet::from_iter([session.expires(), watched].into_iter().flatten());
        for &due in &deadlines {
            assert!(self.leases.contains(&(due, key.to_bits())), "every deadline is looked at");
        }
        found.deadlines = deadlines.len();
        if let Some(in_order) = &session.in_order {
            let bytes = in_order.held.values().map(|held| held.body.len());
            assert_eq!(bytes.sum::<usize>(), in_order.held_bytes);
            let is_held = |seq| matches!(session.ring.get(session.floor, seq), Cell::Held { .. });
            assert!(in_order.held.keys().all(|&seq| seq > session.floor && is_held(seq)));
        }
        assert_eq!(held, session.in_order.as_ref().map_or(0, |in_order| in_order.held.len()));
        found
    }
}

/// What [`Table::check_invariants`] has counted in one session.
#[derive(Default)]
struct Found {
    replies: usize,
    reply_bytes: usize,
    pending: usize,
    deadlines: usize,
}

/// An answer that is not a result: which code, and a sentence for the person who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What was wrong and what to do.
    pub message: Cow<'static, str>,
    /// With WINDOW: the highest acknowledgement seen.
    pub floor: Option<u64>,
    /// After how many milliseconds another try may fare better.
    pub retry_after_ms: Option<u32>,
}

impl Refusal {
    /// Returns a refusal with a code and a message.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code, message: message.into(), floor: None, retry_after_ms: None }
    }

    /// Adds the time after which another try may fare better.
    #[must_use]
    pub fn retry_after_ms(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// Appends the ERROR frame for `seq` to `out`; seq 0 speaks of the connection.
    pub fn append(&self, seq: u64, out: &mut Vec<u8>) {
        let mut body = ErrorBody::new(self.code, &*self.message);
        body.floor = self.floor;
        body.retry_after_ms = self.retry_after_ms;
        append_error(&body, seq, out);
    }
}

/// Appends an ERROR frame for `seq` to `out`.
pub fn append_error(body: &ErrorBody<'_>, seq: u64, out: &mut Vec<u8>) {
    let start = Header::new(Kind::Error, seq).begin(out);
    rmp_serde::encode::write_named(out, body).expect("strings and numbers encode into a Vec");
    frame::finish(out, start);
}
