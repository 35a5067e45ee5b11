//! A handler ends, an acknowledgement comes, a caller gives up: rows 4c, 5, 14 and 18.

use std::time::Instant;

use super::cell::Cell;
use super::principal::Accounts;
use super::refusal::bad_numbers;
use super::replies::{Answer, Replies};
use super::session::Session;
use super::store::Store;
use super::{Call, CallKey, Refusal, SessionKey, Table};
use crate::error::Code;
use crate::frame::SEQ_MAX;
use crate::limits::Limits;

/// Where the answer of a call that has ended goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The connection to send it on; `None` if nobody is attached or nobody waits. An answer that
    /// is kept goes out when the client resumes.
    pub connection: Option<u64>,
    /// The session's second connection, which gets the answer, too.
    pub joined: Option<u64>,
    /// The session, if it is in order: [`Table::next_held`] may now have a request to run.
    pub unblocks: Option<SessionKey>,
}

impl Delivery {
    /// Nobody gets the answer.
    pub const NOBODY: Delivery = Delivery { connection: None, joined: None, unblocks: None };

    /// Returns the connections to send it on: none, one or two.
    pub fn connections(&self) -> impl Iterator<Item = u64> + use<> {
        self.connection.into_iter().chain(self.joined)
    }
}

/// What a CANCEL found.
///
/// Exhaustive: a server that does not know what to do must not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The call waited for its turn, and does not any more: send the refusal, on the connection by
    /// which the call came. On another one it would be taken for the answer to another copy.
    Held {
        /// By which connection the call came; it may be gone.
        connection: u64,
        /// What to send on it.
        refusal: Refusal,
    },
    /// No such call is running or waiting: do nothing.
    Nothing,
    /// The call runs; tell its handler. Its state is unchanged.
    Running(CallKey),
}

impl<St: Store> Table<St> {
    /// Rows 14 and 15: records the answer of a call whose handler has ended, and tells where to send
    /// it. In a durable table it is committed together with what the handler has
    /// [written](Table::write), and leaves later ([`Table::poll_released`]).
    ///
    /// `answer` is a whole REPLY or ERROR frame. One that does not fit what may be kept is still to
    /// be sent; of it only the fact is kept. Of a key that is not in the table (its session ended
    /// while the handler ran) nothing is kept.
    // The hot path calls it in one place: as a function of its own it costs 20 instructions more.
    #[inline(always)]
    pub fn complete(&mut self, key: CallKey, answer: Answer<'_>, now: Instant) -> Delivery {
        if self.store.is_durable() {
            return self.complete_durably(key, answer, now);
        }
        let mut delivery = Delivery::NOBODY;
        let Some(call) = self.calls.remove(key) else { return delivery };
        self.give_back(&call);
        let Some(session) = self.sessions.get_mut(call.session) else { return delivery };
        session.in_flight -= 1;
        delivery.unblocks = session.in_order().is_some().then_some(call.session);
        if call.is_unprotected || call.is_abandoned {
            // Row 18: the effects stand, the reply is dropped.
            session.abandoned -= u16::from(call.is_abandoned);
            delivery.connection = call.is_unprotected.then_some(call.connection);
            if session.expires().is_some() {
                self.note_if_clean(call.session);
            }
            return delivery;
        }
        (delivery.connection, delivery.joined) = (session.connection(), session.joined());
        let keeping = Keeping {
            limits: &self.limits,
            replies: &mut self.replies,
            accounts: &mut self.accounts,
            in_flight: self.calls.len(),
        };
        let reply = keeping.keep(session, call.seq, answer);
        session.finish(call.seq, key.index(), reply);
        delivery
    }

    /// Takes back a call that [`Table::admit`] let run and whose handler was never started, because
    /// its arguments did not fit: as if it had been refused by row 12. Returns where to send the
    /// refusal; in a durable table it leaves later.
    pub fn withdraw(&mut self, key: CallKey, refusal: &Refusal, now: Instant) -> Delivery {
        if self.calls.get(key).is_some() {
            self.counters.started -= 1;
        }
        self.retry_later(key, refusal, now)
    }

    /// Row 16: the handler of a call has done nothing and asks to be called again later
    /// ([`Refusal::retry_later`]). What it has [written](Table::write) is forgotten, the xid is not
    /// consumed. Returns where to send the refusal; in a durable table it leaves later.
    pub fn retry_later(&mut self, key: CallKey, refusal: &Refusal, now: Instant) -> Delivery {
        if self.calls.get(key).is_none() {
            return Delivery::NOBODY;
        }
        self.counters.refused += 1;
        if self.store.is_durable() {
            self.unstart(key, refusal, now);
            return Delivery::NOBODY;
        }
        let Some(call) = self.calls.remove(key) else { return Delivery::NOBODY };
        self.give_back(&call);
        self.vacate(&call)
    }

    /// A call does not count as in flight any more.
    #[inline]
    pub(super) fn give_back(&mut self, call: &Call) {
        let bytes = call.argument_bytes as usize;
        self.in_flight_bytes -= bytes;
        self.accounts.count(call.account, |account| {
            account.in_flight -= 1;
            account.argument_bytes -= bytes;
        });
        self.accounts.tidy(call.account);
    }

    /// Row 5 for an ACK frame: every seq up to `ack` is consumed or burnt.
    ///
    /// # Errors
    /// A refusal to send before the connection is closed, if no client may send this number.
    pub fn acknowledge(&mut self, key: SessionKey, ack: u64) -> Result<(), Refusal> {
        if ack > SEQ_MAX {
            return Err(bad_numbers(0, ack));
        }
        if self.sessions.get(key).is_some_and(|session| ack > session.floor) {
            self.raise_floor(key, ack);
            let session = self.sessions.get_mut(key).expect("found above");
            // An acknowledgement on its own comes from a client at rest.
            session.shrink();
            self.note_if_clean(key);
        }
        Ok(())
    }

    /// Row 4c: the caller of `seq` no longer waits.
    pub fn cancel(&mut self, key: SessionKey, seq: u64) -> Cancelled {
        let Some(session) = self.sessions.get_mut(key) else { return Cancelled::Nothing };
        if seq <= session.floor || seq - session.floor > u64::from(session.window()) {
            return Cancelled::Nothing;
        }
        match session.cell(seq) {
            Cell::Held { .. } => {
                let connection = self.remove_held(key, seq);
                self.note_if_clean(key);
                let message = "the call was cancelled before its turn came";
                Cancelled::Held { connection, refusal: Refusal::new(Code::Cancelled, message) }
            }
            Cell::Pending { call, .. } => {
                let (key, call) = self.calls.at_mut(call).expect("a pending cell has its call");
                call.is_cancelled = true;
                Cancelled::Running(key)
            }
            _ => Cancelled::Nothing,
        }
    }

    /// Row 5.
    #[inline]
    pub(super) fn raise_floor(&mut self, key: SessionKey, ack: u64) {
        let session = self.sessions.get_mut(key).expect("the caller has found it");
        let (mut abandoned, mut has_held, mut kept_bytes) = (0, false, 0);
        let dropped = session.raise_floor(ack, |cell| match cell {
            Cell::Done { reply, .. } | Cell::Committing { reply, .. } => {
                kept_bytes += self.replies.drop_answer(reply);
            }
            Cell::Held { .. } => has_held = true,
            Cell::Pending { call, .. } => {
                let (_, call) = self.calls.at_mut(call).expect("a pending cell has its call");
                call.is_abandoned = true;
                abandoned += 1;
            }
            Cell::Vacant
            | Cell::CommittingNoReply { .. }
            | Cell::DoneNoReply { .. }
            | Cell::InDoubt { .. }
            | Cell::Poisoned { .. } => {}
        });
        session.abandoned += abandoned;
        session.kept_bytes -= u32::try_from(kept_bytes).expect("counted as u32 when kept");
        self.accounts.count(session.account, |account| account.kept_bytes -= kept_bytes);
        if has_held {
            self.drop_acknowledged(key);
        }
        if self.store.is_durable() && dropped > 0 {
            self.note_dropped(key, dropped.into());
        }
    }
}

/// What decides whether an answer is kept, beside its session.
pub(super) struct Keeping<'t> {
    pub(super) limits: &'t Limits,
    pub(super) replies: &'t mut Replies,
    pub(super) accounts: &'t mut Accounts,
    /// Calls of all sessions.
    pub(super) in_flight: usize,
}

impl Keeping<'_> {
    /// Keeps an answer, if it fits, and returns where.
    ///
    /// What the other calls have reserved is theirs: an answer within its own reservation always
    /// fits its session, and a large one never costs another call its small one, nor the oldest
    /// call its turn.
    #[inline(always)]
    pub(super) fn keep(self, session: &mut Session, seq: u64, answer: Answer<'_>) -> Option<u32> {
        let limits = self.limits;
        let reserved = limits.reply_reservation_bytes;
        let bytes = answer.len();
        let kept = session.kept_bytes as usize + bytes;
        let fits_session = bytes <= reserved || {
            let leaves_room = seq > session.floor + 1;
            let reservations = session.in_flight as usize + usize::from(leaves_room);
            kept + reservations * reserved <= limits.kept_reply_bytes_per_session_max
        };
        let fits = fits_session
            && self.replies.bytes() + bytes + self.in_flight * reserved
                <= limits.kept_reply_bytes_max
            && self.accounts.can_keep(session.account, bytes, reserved);
        let kept = u32::try_from(kept).ok().filter(|_| fits)?;
        session.kept_bytes = kept;
        self.accounts.count(session.account, |account| account.kept_bytes += bytes);
        Some(self.replies.keep(answer))
    }
}
