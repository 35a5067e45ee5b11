//! A call that was begun counts as never begun: row 16, and row 12 for arguments that do not fit. One
//! that was in doubt before (row 23) is so again: nothing that comes later can say that it never ran.

use std::time::Instant;

use super::cell::Cell;
use super::durable::{Released, What};
use super::refusal::{Refusal, still_in_doubt};
use super::store::{Record, Store};
use super::{Call, CallKey, Delivery, SessionKey, Table};

impl<St: Store> Table<St> {
    /// A call that was taken from the table counts as never begun. Returns where to tell so: where its
    /// copies came from, or if its client came back meanwhile, and was told that it runs, to that
    /// connection; and not if nobody waits.
    pub(super) fn vacate(&mut self, call: &Call) -> Delivery {
        let Some(session) = self.sessions.get_mut(call.session) else { return Delivery::NOBODY };
        session.in_flight -= 1;
        let told = session.delivery(call.session);
        let mut delivery = Delivery { unblocks: told.unblocks, ..Delivery::NOBODY };
        let came_by = told.connections().find(|&connection| connection == call.connection);
        if call.is_abandoned {
            session.abandoned -= 1;
        } else if call.is_unprotected {
            delivery.connection = came_by;
        } else {
            let cell = session.cell(call.seq);
            session.take_cell(call.seq);
            if let (Cell::Pending { digest, .. }, true) = (cell, call.doubts > 0) {
                let in_doubt = Cell::InDoubt { digest, attempt: call.doubts.into() };
                session.occupy(call.seq, in_doubt);
            }
            delivery.connection = came_by.or(told.connection);
            let mut others = told.connections().filter(|&other| Some(other) != delivery.connection);
            delivery.joined = others.next().filter(|_| call.is_joined);
        }
        self.note_if_clean(call.session);
        delivery
    }

    /// Row 16, durable: the call counts as never begun once that is safe.
    pub(super) fn unstart(&mut self, key: CallKey, refusal: &Refusal, now: Instant) {
        self.durability.transaction.take_if(|open| open.call == Some(key));
        let Some(call) = self.calls.get_mut(key).filter(|call| !call.has_ended) else { return };
        call.has_ended = true;
        let call = call.clone();
        if call.is_abandoned {
            self.end_abandoned(&call, now);
            return self.forget(key);
        }
        if call.has_start {
            let (session, seq) = (self.secret_of(call.session), call.seq);
            let before = self.doubt_before(&call);
            self.store.write(before.unwrap_or(Record::Withdraw { session, seq }));
            self.commit(now);
        }
        self.wait(What::Unstarted { call: key, refusal: refusal.clone() });
    }

    /// Returns what was written down of a call before it was started again, if it was in doubt.
    fn doubt_before(&self, call: &Call) -> Option<Record> {
        let (seq, attempt) = (call.seq, u32::from(call.doubts));
        let digest = self.sessions.get(call.session)?.cell(seq).digest()?;
        let session = self.secret_of(call.session);
        (attempt > 0).then_some(Record::Start { session, seq, digest, attempt })
    }

    /// Row 16: that a call was never begun is safe.
    pub(super) fn release_unstarted(
        &mut self,
        key: CallKey,
        mut refusal: Refusal,
    ) -> Option<Released> {
        let call = self.calls.remove(key)?;
        self.give_back(&call);
        let delivery = self.vacate(&call);
        if call.doubts > 0 {
            refusal = still_in_doubt(&refusal);
        }
        let mut frame = Vec::new();
        refusal.append(call.seq, &mut frame);
        Some(Released::Send { delivery, frame: frame.into() })
    }

    /// Row 23: a call that the server crashed in is run again, since that does no harm.
    #[cold]
    pub(super) fn leave_doubt(&mut self, key: SessionKey, seq: u64) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.take_cell(seq);
        if let Some(in_order) = session.in_order_mut() {
            in_order.next = in_order.next.min(seq);
        }
    }

    /// Row 23: notes how often a call was started before.
    #[cold]
    pub(super) fn note_doubt(&mut self, call: CallKey, attempts: u32) {
        if let Some(call) = self.calls.get_mut(call) {
            call.doubts = u8::try_from(attempts).expect("after three attempts it is poisoned");
        }
    }
}
