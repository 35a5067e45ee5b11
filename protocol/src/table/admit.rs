//! A request comes in: rows 2 to 13 of the transitions, in their order.

use std::time::Instant;

use super::cell::Cell;
use super::refusal::{
    bad_numbers, beyond_window, fenced, in_doubt, in_progress, not_protected, not_retained,
    poisoned, refused_by_server, stale, still_in_doubt, unknown_session, xid_reused,
};
use super::session::Session;
use super::store::Store;
use super::{Call, CallKey, Refusal, SessionKey, Table};
use crate::error::{Class, Code};
use crate::frame::{Flags, Frame, SEQ_MAX};

/// Handlers of one session that its count has room for.
const WIDEST: u32 = u16::MAX as u32;
/// Milliseconds after which a client that met a full server may try again.
const BUSY_RETRY_AFTER_MS: u32 = 100;

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
    #[inline]
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
        if seq > SEQ_MAX || ack > SEQ_MAX || (seq > 0 && ack >= seq) {
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
            return self.refuse(key, stale(seq, floor));
        }
        // Row 7.
        if seq - floor > window {
            return self.refuse(key, beyond_window(seq, floor, window));
        }
        // Rows 8 to 11.
        let mut attempts = 0;
        if let Some(digest) = session.digest(seq) {
            let (cell, is_same) = (session.cell(seq), digest == request.digest);
            match cell {
                Cell::InDoubt { attempt, .. } if is_same && request.is_idempotent => {
                    attempts = attempt;
                }
                _ => return self.meet(key, request, cell, is_same),
            }
        }
        // Row 12.
        let is_in_order = session.in_order().is_some();
        let refusal = self.refuse_vacant(session, request);
        let is_joined = is_in_order && self.take_joined(key) == Some(seq);
        if let Some(refusal) = refusal {
            let refusal = if attempts > 0 { still_in_doubt(&refusal) } else { refusal };
            return self.refuse(key, refusal);
        }
        // Row 12b.
        if is_in_order && self.must_wait(key, seq) {
            if attempts > 0 {
                // Held, it would be vacant after the next RESUME.
                return self.refuse(key, in_doubt().retry_after_ms(BUSY_RETRY_AFTER_MS));
            }
            return match self.hold(key, request, now) {
                Ok(()) => Admission::Wait,
                Err(refusal) => self.refuse(key, refusal.retry_after_ms(BUSY_RETRY_AFTER_MS)),
            };
        }
        // Row 13.
        if attempts > 0 {
            self.leave_doubt(key, seq);
        }
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
        let refusal = self
            .refuse_vacant(session, request)
            .or_else(|| (!request.is_idempotent).then(not_protected));
        if let Some(refusal) = refusal {
            return self.refuse(key, refusal);
        }
        Admission::Run(self.start(key, request))
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

    /// Row 12: reasons not to run a call that nobody has run.
    #[inline]
    fn refuse_vacant(&self, session: &Session, request: &Request<'_>) -> Option<Refusal> {
        let header = &request.frame.header;
        if let Some(code) = request.refusal {
            return Some(refused_by_server(code));
        }
        if self.is_draining {
            return Some(Refusal::new(Code::Draining, "the server is shutting down"));
        }
        if header.time_left_ms == 0 {
            return Some(Refusal::new(
                Code::Deadline,
                "the deadline passed before the call started",
            ));
        }
        let is_oldest =
            header.seq == session.floor + 1 && !header.flags.contains(Flags::UNPROTECTED);
        self.room(session, request.frame.body.len(), is_oldest)
    }

    /// Row 12, "over quota": room for one more handler, its arguments and its reply.
    ///
    /// The oldest call of a session that is not acknowledged holds up the acknowledgement of all that
    /// came after it, and so their replies. Refused for want of room for replies it would be refused
    /// for ever. So of a session's room the others leave it one reservation, and where all sessions'
    /// room is full it runs all the same: its reply is kept if there is room when it ends.
    #[inline]
    fn room(&self, session: &Session, argument_bytes: usize, is_oldest: bool) -> Option<Refusal> {
        let limits = &self.limits;
        let reserved = limits.reply_reservation_bytes;
        let in_flight = session.in_flight as usize;
        let busy = |what| Some(Refusal::new(Code::Busy, what).retry_after_ms(BUSY_RETRY_AFTER_MS));
        // Counted in 16 bits.
        let in_flight_max = limits.in_flight_per_session_max.clamp(session.window().into(), WIDEST);
        if u32::from(session.in_flight) >= in_flight_max {
            return busy("too many calls of this session are running");
        }
        if self.calls.len() >= limits.in_flight_max {
            return busy("too many calls are running on this server");
        }
        if self.in_flight_bytes + argument_bytes > limits.in_flight_bytes_max {
            return busy("the running calls' arguments take all the memory set aside for them");
        }
        let reservations = if is_oldest { 1 } else { 2 };
        let kept = session.kept_bytes as usize + (in_flight + reservations) * reserved;
        if kept > limits.kept_reply_bytes_per_session_max {
            return busy("too many reply bytes of this session are unacknowledged");
        }
        let kept = self.replies.bytes() + (self.calls.len() + 1) * reserved;
        if kept > limits.kept_reply_bytes_max && !is_oldest {
            return busy("too many reply bytes are unacknowledged on this server");
        }
        // Nobody has a cell that bounds these. What waits for a slow store leaves when it goes on.
        if self.durability.queue_bytes > limits.kept_reply_bytes_max {
            return busy("too many reply bytes wait until what they tell is safe");
        }
        if self.accounts.is_counted(session.account) {
            let told = self.room_of_principal(session.account, argument_bytes, is_oldest);
            return told.and_then(busy);
        }
        None
    }

    /// Row 12, "over quota", for one principal.
    #[cold]
    fn room_of_principal(
        &self,
        account: u32,
        argument_bytes: usize,
        is_oldest: bool,
    ) -> Option<&'static str> {
        let (account, share) = (self.accounts.get(account), self.accounts.share(account));
        let reserved = (account.in_flight + 1) * self.limits.reply_reservation_bytes;
        if account.in_flight >= share.in_flight {
            Some("too many calls of this principal are running")
        } else if account.argument_bytes + argument_bytes > share.argument_bytes {
            Some("the running calls of this principal take all the memory it may have")
        } else if account.kept_bytes + reserved > share.kept_bytes && !is_oldest {
            Some("too many reply bytes of this principal are unacknowledged")
        } else {
            None
        }
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
