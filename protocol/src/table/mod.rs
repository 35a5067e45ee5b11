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
mod durable;
mod fingerprint;
mod finish;
mod invariants;
mod later;
mod lifecycle;
mod order;
mod principal;
mod recover;
mod refusal;
mod replies;
mod room;
mod session;
pub mod store;
#[cfg(test)]
mod tests;
mod transaction;

use std::collections::BTreeSet;
use std::time::Instant;

pub use self::admit::{Admission, Request};
use self::durable::Durability;
pub use self::durable::Released;
pub use self::finish::{Cancelled, Delivery};
pub use self::lifecycle::Resumption;
pub use self::order::HeldRequest;
pub use self::principal::Principal;
use self::principal::{ANYONE, Accounts};
pub use self::refusal::{Refusal, append_error};
use self::replies::Replies;
pub use self::replies::{Answer, REPLY_COPY_BYTES_MAX};
use self::session::Session;
pub use self::store::{Store, StoreFailed, Volatile};
use crate::arena::{Arena, Key};
use crate::digest::DigestKey;
use crate::frame::MethodId;
use crate::handshake::CellReport;
use crate::limits::Limits;

/// Where a session is in its table.
pub type SessionKey = Key<Session>;
/// Where a call is that has started and not ended.
pub type CallKey = Key<Call>;

/// A call whose handler has started and not ended.
#[derive(Clone)]
pub struct Call {
    session: SessionKey,
    seq: u64,
    /// By which connection it came: where an unprotected call's reply goes.
    connection: u64,
    argument_bytes: u32,
    /// Whose it is, also once its session is gone.
    account: u32,
    is_unprotected: bool,
    /// Another copy came by the session's other connection.
    is_joined: bool,
    /// Its seq was acknowledged: nobody waits for the reply.
    is_abandoned: bool,
    /// Its caller said that it no longer waits.
    is_cancelled: bool,
    /// Durable: its START is written.
    has_start: bool,
    /// Durable: its handler asks to be called later, and that is not safe yet.
    has_ended: bool,
    /// Durable: how often it was started before, by servers that crashed.
    doubts: u8,
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
    /// Sessions that gave way to new ones.
    pub evicted: u64,
}

/// The sessions of one server and the xids of each. What it knows outlives the server where its
/// [`Store`] is durable.
#[derive(Clone)]
pub struct Table<St: Store = Volatile> {
    store: St,
    durability: Durability,
    limits: Limits,
    digest_key: DigestKey,
    sessions: Arena<Session>,
    calls: Arena<Call>,
    replies: Replies,
    accounts: Accounts,
    /// Detached sessions by the end of their lease; in-order sessions by when their held requests
    /// are looked at. At most two entries a session.
    leases: BTreeSet<(Instant, u64)>,
    in_flight_bytes: usize,
    /// Bytes of the requests that in-order sessions hold.
    held_bytes: usize,
    is_draining: bool,
    /// Row 9: what a copy of a running call is told.
    in_progress_ms: Option<u32>,
    counters: Counters,
}

impl Table {
    /// Returns an empty table that a crash forgets. `random` comes from the operating system and
    /// keys the digests.
    pub fn new(limits: Limits, random: [u8; 16]) -> Self {
        Table::with(limits, random, Volatile)
    }
}

impl<St: Store> Table<St> {
    fn with(limits: Limits, random: [u8; 16], store: St) -> Self {
        Table {
            store,
            durability: Durability::default(),
            accounts: Accounts::new(&limits),
            limits,
            digest_key: DigestKey::new(random),
            sessions: Arena::new(),
            calls: Arena::new(),
            replies: Replies::new(),
            leases: BTreeSet::new(),
            in_flight_bytes: 0,
            held_bytes: 0,
            is_draining: false,
            in_progress_ms: None,
            counters: Counters::default(),
        }
    }

    /// Returns the digest of a request: equal for every copy of a call, whatever its ack and its
    /// time left.
    #[inline]
    pub fn digest(&self, method: MethodId, arguments: &[u8]) -> u64 {
        self.digest_key.digest(method, arguments)
    }

    /// Tells the table that the server asks who its peers are: those that do not say
    /// ([`Principal::ANYONE`]) get together at most half of what there is.
    ///
    /// # Panics
    /// If a call is in flight: who peers are is asked from the beginning.
    pub fn authenticate(&mut self) {
        assert_eq!(self.calls.len(), 0, "who peers are is asked from the beginning");
        self.accounts.divide(&self.limits);
        // Those that a durable table came back with were not counted before.
        let anyone = self.sessions.iter().filter(|(_, session)| session.account == ANYONE);
        let kept: usize = anyone.map(|(_, session)| session.kept_bytes as usize).sum();
        self.accounts.count(ANYONE, |account| account.kept_bytes = kept);
    }

    /// Row 9: has a copy of a call that is running or waiting answered at once, by IN_PROGRESS. It
    /// says to ask again after so many milliseconds; the one reply comes all the same.
    pub fn answer_in_progress(&mut self, retry_after_ms: u32) {
        self.in_progress_ms = Some(retry_after_ms);
    }

    /// Refuses new calls and new sessions from now on; what runs may end, and what has ended is
    /// still answered.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Returns how many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len() - self.durability.ending
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
        self.sessions.get(key).is_some_and(|session| session.in_order().is_some())
    }

    /// Returns whether an answer of this session is still to come.
    pub fn is_owing(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            let is_held = session.in_order().is_some_and(|order| !order.held.is_empty());
            session.in_flight > session.abandoned || is_held || self.is_waiting()
        })
    }

    /// Returns what RESUMED would tell of a call, without resuming: for tests and simulations.
    /// `None` if there is no such session, or the seq is acknowledged.
    pub fn peek(&self, key: SessionKey, seq: u64) -> Option<CellReport> {
        let session = self.sessions.get(key).filter(|session| seq > session.floor)?;
        Some(session.cell(seq).report())
    }

    /// Gives up every call that has not ended, at the end of a shutdown. Their handlers may go on;
    /// what they answer is dropped.
    pub fn abandon(&mut self) {
        self.calls = Arena::new();
        self.sessions = Arena::new();
        self.replies = Replies::new();
        self.accounts = self.accounts.emptied();
        self.durability.abandon();
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
}
