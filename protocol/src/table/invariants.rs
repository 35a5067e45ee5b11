//! What must always hold, asserted.

use std::collections::{BTreeMap, BTreeSet};

use super::cell::Cell;
use super::session::Session;
use super::store::Store;
use super::{Call, SessionKey, Table};

impl<St: Store> Table<St> {
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
            held_bytes += session.in_order().map_or(0, |in_order| in_order.held_bytes);
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
        self.check_accounts();
        let ending = self.sessions.iter().filter(|(_, session)| session.is_ending()).count();
        assert_eq!(ending, self.durability.ending, "what has ended waits until that is safe");
        let queue = &self.durability.queue;
        assert!(queue.iter().map(|waiting| waiting.lsn).is_sorted(), "released in order");
        let bytes = queue.iter().map(|waiting| waiting.what.bytes());
        assert_eq!(bytes.sum::<usize>(), self.durability.queue_bytes);
        assert!(queue.back().is_none_or(|waiting| waiting.lsn <= self.durability.tail));
        assert!(self.durability.safe <= self.durability.tail);
    }

    /// What is written down of a session covers what is dropped, and nothing is told too soon.
    fn check_durable(&self, session: &Session) {
        let Some(durable) = session.durable() else { return };
        assert!(self.store.is_durable());
        assert!(durable.floor <= session.floor, "no floor is written down that was not reached");
        assert!(durable.recorded <= self.durability.tail);
        for &untold in &durable.untold {
            assert!(session.is_attached_to(untold), "who is gone is not told");
        }
        let is_committing =
            |cell: &&Cell| matches!(cell, Cell::Committing { .. } | Cell::CommittingNoReply { .. });
        let committing = session.cells().iter().filter(is_committing);
        assert!(committing.count() <= durable.committing.into());
    }

    /// What the principals have is what their sessions and calls have, and within the quotas.
    fn check_accounts(&self) {
        let mut sums: BTreeMap<u32, [usize; 5]> = BTreeMap::new();
        let mut clean = BTreeSet::new();
        for (key, session) in self.sessions.iter().filter(|(_, session)| !session.is_ending()) {
            let sum = sums.entry(session.account).or_default();
            sum[0] += 1;
            sum[1] += session.kept_bytes as usize;
            sum[2] += session.in_order().map_or(0, |in_order| in_order.held_bytes);
            if session.is_clean()
                && let Some(since) = session.detached_since(&self.limits)
            {
                clean.insert((session.account, (since, key.to_bits())));
            }
        }
        for (_, call) in self.calls.iter() {
            let sum = sums.entry(call.account).or_default();
            sum[3] += 1;
            sum[4] += call.argument_bytes as usize;
        }
        for (number, account) in self.accounts.iter() {
            let sum = sums.remove(&number).unwrap_or_default();
            let known = [
                account.sessions,
                account.kept_bytes,
                account.held_bytes,
                account.in_flight,
                account.argument_bytes,
            ];
            let counted = if self.accounts.is_counted(number) { 5 } else { 1 };
            assert_eq!(known[..counted], sum[..counted], "of {:?}", account.principal);
            let share = self.accounts.share(number);
            assert!(account.sessions <= share.sessions && account.in_flight <= share.in_flight);
            assert!(account.kept_bytes <= share.kept_bytes);
            assert!(account.argument_bytes.max(account.held_bytes) <= share.argument_bytes);
            for &at in &account.clean {
                assert!(clean.remove(&(number, at)), "what may be evicted is clean and detached");
            }
        }
        assert!(sums.is_empty(), "nothing belongs to nobody");
        assert!(clean.is_empty(), "what is clean and detached may be evicted");
        self.accounts.check_invariants();
    }

    fn check_session(&self, key: SessionKey, session: &Session) -> Found {
        let mut found = Found::default();
        let (mut occupied, mut held) = (0, 0);
        for &cell in session.cells() {
            occupied += u32::from(cell != Cell::Vacant);
            match cell {
                Cell::Vacant
                | Cell::CommittingNoReply { .. }
                | Cell::DoneNoReply { .. }
                | Cell::InDoubt { .. }
                | Cell::Poisoned { .. } => {}
                Cell::Held { .. } => held += 1,
                Cell::Pending { call, .. } => {
                    found.pending += 1;
                    let call = self.calls.at(call).expect("a pending cell has its call");
                    assert!(call.session == key && !call.is_abandoned && !call.is_unprotected);
                    assert!(call.seq > session.floor);
                    assert_eq!(session.cell(call.seq), cell, "the call is the one of this cell");
                }
                Cell::Committing { reply, .. } | Cell::Done { reply, .. } => {
                    found.replies += 1;
                    found.reply_bytes += self.replies.get(reply).len();
                }
            }
        }
        assert!(occupied <= u32::from(session.window()), "at most a window of cells is occupied");
        assert_eq!(occupied == 0, session.is_vacant(), "occupied cells are counted");
        assert_eq!(found.reply_bytes, session.kept_bytes as usize);
        let reserved = session.in_flight as usize * self.limits.reply_reservation_bytes;
        assert!(found.reply_bytes + reserved <= self.limits.kept_reply_bytes_per_session_max);
        let is_away = session.expires().is_some() || session.is_ending();
        assert_eq!(session.connection().is_none(), is_away);
        self.check_durable(session);
        let watched = session.in_order().and_then(|in_order| in_order.watched);
        let deadlines = BTreeSet::from_iter([session.expires(), watched].into_iter().flatten());
        for &due in &deadlines {
            assert!(self.leases.contains(&(due, key.to_bits())), "every deadline is looked at");
        }
        found.deadlines = deadlines.len();
        if let Some(in_order) = session.in_order() {
            let bytes = in_order.held.values().map(|held| held.bytes());
            assert_eq!(bytes.sum::<usize>(), in_order.held_bytes);
            let is_held = |seq| matches!(session.cell(seq), Cell::Held { .. });
            assert!(in_order.held.keys().all(|&seq| seq > session.floor && is_held(seq)));
        }
        assert_eq!(held, session.in_order().map_or(0, |in_order| in_order.held.len()));
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
