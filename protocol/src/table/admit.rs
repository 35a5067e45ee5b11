//! A request comes in: rows 2 to 13 of the transitions, in their order.

use std::time::Instant;

use super::cell::Cell;
use super::refusal::{
    bad_numbers, beyond_window, fenced, in_doubt, in_progress, not_protected, not_retained,
    poisoned, stale, still_in_doubt, unknown_session, xid_reused,
};
use super::room::Obstacle;
use super::session::Session;
use super::store::Store;
use super::{Call, CallKey, Refusal, SessionKey, Table};
use crate::error::{Class, Code};
use crate::frame::{Flags, Frame, SEQ_MAX};

/// Milliseconds after which a client that met a full server may try again.
pub(super) const BUSY_RETRY_AFTER_MS: u32 = 100;

/// A request, and what the server knows of it beyond the frame.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The frame it came in, its body scanned.
    pub frame: &'a Frame<'a>,
    /// By which connection it came.
    pub connection: u64,
    /// [`Table::digest`] of its method and body. Nobody looks at that of an unprotected one.
    pub digest: u64,
    /// Whether the method is declared idempotent.
    pub is_idempotent: bool,
    /// Whether all that its handler does that is to last goes through [`Table::write`], into one
    /// commit with the answer. The handler of any other method of a durable table starts only once
    /// that is written down.
    pub is_transactional: bool,
    /// Why the server would refuse it whatever the table says: no such method, not authorized.
    pub refusal: Option<Code>,
}

/// What to do with a request.
///
/// Exhaustive: a server that does not know what to do must not compile.
#[derive(Debug)]
pub enum Admission<'t> {
    /// Send the kept answer again.
    Again(&'t [u8]),
    /// Send the refusal, then close the connection.
    Close(Refusal),
    /// Send the refusal.
    Refuse(Refusal),
    /// Run the handler, then tell [`Table::complete`].
    Run(CallKey),
    /// Do nothing: the one reply will come when the first copy has ended, or when its turn has
    /// come. In a durable table the call may start later ([`Released::Run`](super::Released::Run)).
    Wait,
}

impl<St: Store> Table<St> {
    /// Decides what to do with a request.
    ///
    /// A refusal has changed nothing but the floor.
    // The hot path calls it in one place: as a function of its own it costs 20 instructions more.
    #[inline(always)]
    pub fn admit(&mut self, key: SessionKey, request: &Request<'_>, now: Instant) -> Admission<'_> {
        let header = &request.frame.header;
        // Row 2: an unknown session is refused, never created.
        let Some(session) = self.sessions.get(key) else {
            return self.refuse(key, unknown_session());
        };
        // Row 3: a connection that was replaced may still have frames on their way.
        if !session.is_attached_to(request.connection) {
            return match session.is_ending() {
                true => self.refuse(key, unknown_session()),
                false => self.close_with(fenced()),
            };
        }
        if self.store.is_durable() && self.durability.failure.is_some() {
            return Admission::Wait;
        }
        // Row 4.
        let (seq, ack) = (header.seq, header.ack);
        if (ack >= seq || seq > SEQ_MAX) && (seq > 0 || ack > SEQ_MAX) {
            return self.close_with(bad_numbers(seq, ack));
        }
        // Row 5.
        let session = if ack > session.floor {
            self.raise_floor(key, ack);
            self.sessions.get(key).expect("found above; raising the floor keeps it")
        } else {
            session
        };
        if header.flags.contains(Flags::UNPROTECTED) {
            return self.admit_unprotected(key, request);
        }
        let (floor, window) = (session.floor, u64::from(session.window()));
        // Row 6.
        if seq <= floor {
            return self.refuse_stale(key, seq, floor);
        }
        // Row 7.
        if seq - floor > window {
            return self.refuse_beyond(key, seq, floor, window);
        }
        // Rows 8 to 11.
        if let Some(digest) = session.digest(seq) {
            let (cell, is_same) = (session.cell(seq), digest == request.digest);
            return match cell {
                Cell::InDoubt { attempt, .. } if is_same && request.is_idempotent => {
                    self.admit_in_doubt(key, request, attempt, now)
                }
                _ => self.meet(key, request, cell, is_same),
            };
        }
        if session.in_order().is_some() {
            return self.admit_in_order(key, request, now);
        }
        // Row 12.
        if let Some(obstacle) = self.obstacle(session, request) {
            return self.refuse_for(key, obstacle);
        }
        // Row 13.
        self.run(key, request, 0, false, now)
    }

    /// Rows 12 to 13 of an in-order session.
    #[inline(never)]
    fn admit_in_order(
        &mut self,
        key: SessionKey,
        request: &Request<'_>,
        now: Instant,
    ) -> Admission<'_> {
        let seq = request.frame.header.seq;
        let session = self.sessions.get(key).expect("admit has found it");
        let obstacle = self.obstacle(session, request);
        let is_joined = self.take_joined(key) == Some(seq);
        if let Some(obstacle) = obstacle {
            return self.refuse_for(key, obstacle);
        }
        // Row 12b.
        if self.must_wait(key, seq) {
            return match self.hold(key, request, now) {
                Ok(()) => Admission::Wait,
                Err(refusal) => self.refuse(key, refusal.retry_after_ms(BUSY_RETRY_AFTER_MS)),
            };
        }
        self.run(key, request, 0, is_joined, now)
    }

    /// Rows 12 to 13 of a call that has crashed the server `attempts` times, and may be run again.
    #[cold]
    fn admit_in_doubt(
        &mut self,
        key: SessionKey,
        request: &Request<'_>,
        attempts: u32,
        now: Instant,
    ) -> Admission<'_> {
        let seq = request.frame.header.seq;
        let session = self.sessions.get(key).expect("admit has found it");
        let is_in_order = session.in_order().is_some();
        let obstacle = self.obstacle(session, request);
        let is_joined = is_in_order && self.take_joined(key) == Some(seq);
        if let Some(obstacle) = obstacle {
            return self.refuse(key, still_in_doubt(&obstacle.refusal()));
        }
        if is_in_order && self.must_wait(key, seq) {
            // Held, it would be vacant after the next RESUME.
            return self.refuse(key, in_doubt().retry_after_ms(BUSY_RETRY_AFTER_MS));
        }
        self.leave_doubt(key, seq);
        self.run(key, request, attempts, is_joined, now)
    }

    /// Row 13: starts a call that has crashed the server `attempts` times, or has that written down
    /// first.
    #[inline(always)]
    fn run(
        &mut self,
        key: SessionKey,
        request: &Request<'_>,
        attempts: u32,
        is_joined: bool,
        now: Instant,
    ) -> Admission<'_> {
        let call = self.start(key, request);
        if attempts > 0 {
            self.note_doubt(call, attempts);
        }
        if is_joined && let Some(call) = self.calls.get_mut(call) {
            call.is_joined = true;
        }
        if self.store.is_durable() && !request.is_transactional {
            self.start_safely(call, key, request, attempts + 1, now);
            return Admission::Wait;
        }
        Admission::Run(call)
    }

    /// Rows 8 to 11: another copy was here before.
    fn meet(
        &mut self,
        key: SessionKey,
        request: &Request<'_>,
        cell: Cell,
        is_same: bool,
    ) -> Admission<'_> {
        if !is_same {
            return self.refuse(key, xid_reused());
        }
        self.note_copy(key, request, cell);
        match cell {
            Cell::Vacant
            | Cell::Held { .. }
            | Cell::Pending { .. }
            | Cell::Committing { .. }
            | Cell::CommittingNoReply { .. } => {
                self.counters.joined += 1;
                match self.in_progress_ms {
                    None => Admission::Wait,
                    Some(after_ms) => Admission::Refuse(in_progress(after_ms)),
                }
            }
            Cell::Done { reply, .. } => {
                self.counters.replayed += 1;
                Admission::Again(self.replies.get(reply))
            }
            Cell::DoneNoReply { .. } => {
                self.counters.replayed += 1;
                Admission::Refuse(not_retained())
            }
            Cell::InDoubt { .. } => Admission::Refuse(in_doubt()),
            Cell::Poisoned { .. } => Admission::Refuse(poisoned()),
        }
    }

    /// A copy waits for the answer of one that came before. If that one is refused after all, so is
    /// the copy: its sender waits for both.
    fn note_copy(&mut self, key: SessionKey, request: &Request<'_>, cell: Cell) {
        let (seq, connection) = (request.frame.header.seq, request.connection);
        match cell {
            Cell::Held { .. } => {
                let in_order = self.sessions.get_mut(key).and_then(Session::in_order_mut);
                if let Some(held) = in_order.and_then(|in_order| in_order.held.get_mut(&seq)) {
                    held.join(connection);
                }
            }
            Cell::Pending { call, .. } => {
                if let Some((_, call)) = self.calls.at_mut(call) {
                    call.is_joined |= call.connection != connection;
                }
            }
            _ => {}
        }
    }

    /// Row 4b: rows 5 and 12, then run, if running twice does no harm.
    fn admit_unprotected(&mut self, key: SessionKey, request: &Request<'_>) -> Admission<'_> {
        let session = self.sessions.get_mut(key).expect("admit has found it");
        // It may have been the last acknowledgement of a client that goes on without a table.
        session.shrink();
        let session = self.sessions.get(key).expect("admit has found it");
        if let Some(obstacle) = self.obstacle(session, request) {
            return self.refuse_for(key, obstacle);
        }
        if !request.is_idempotent {
            return self.refuse(key, not_protected());
        }
        Admission::Run(self.start(key, request))
    }

    #[cold]
    fn refuse_stale(&mut self, key: SessionKey, seq: u64, floor: u64) -> Admission<'_> {
        self.refuse(key, stale(seq, floor))
    }

    #[cold]
    fn refuse_beyond(
        &mut self,
        key: SessionKey,
        seq: u64,
        floor: u64,
        window: u64,
    ) -> Admission<'_> {
        self.refuse(key, beyond_window(seq, floor, window))
    }

    #[cold]
    fn refuse_for(&mut self, key: SessionKey, obstacle: Obstacle) -> Admission<'_> {
        self.refuse(key, obstacle.refusal())
    }

    /// Counts a refusal, of class N or of a broken rule.
    #[cold]
    fn refuse(&mut self, key: SessionKey, refusal: Refusal) -> Admission<'_> {
        if refusal.code.class() == Class::NotExecuted {
            self.counters.refused += 1;
        } else {
            self.counters.rejected += 1;
        }
        if let Some(session) = self.sessions.get_mut(key) {
            // Its acknowledgement may have emptied the ring, and nothing came into it.
            session.shrink();
        }
        Admission::Refuse(refusal)
    }

    #[cold]
    fn close_with(&mut self, refusal: Refusal) -> Admission<'_> {
        self.counters.rejected += 1;
        Admission::Close(refusal)
    }

    /// Row 13.
    #[inline(always)]
    fn start(&mut self, key: SessionKey, request: &Request<'_>) -> CallKey {
        let header = &request.frame.header;
        let is_unprotected = header.flags.contains(Flags::UNPROTECTED);
        let argument_bytes = request.frame.body.len();
        let session = self.sessions.get_mut(key).expect("admit has found it");
        let account = session.account;
        let call = self.calls.insert(Call {
            session: key,
            seq: header.seq,
            connection: request.connection,
            argument_bytes: u32::try_from(argument_bytes).expect("bodies are bounded below 4 GiB"),
            account,
            is_unprotected,
            is_joined: false,
            is_abandoned: false,
            is_cancelled: false,
            has_start: false,
            has_ended: false,
            doubts: 0,
        });
        session.in_flight += 1;
        if !is_unprotected {
            let digest = request.digest;
            session.occupy(header.seq, Cell::Pending { digest, call: call.index() });
        }
        self.accounts.count(account, |account| {
            account.in_flight += 1;
            account.argument_bytes += argument_bytes;
        });
        self.in_flight_bytes += argument_bytes;
        self.counters.started += 1;
        call
    }
}
