//! A hash of what a table knows, for model checkers: two tables with the same fingerprint do the
//! same from there on.

use std::hash::{Hash, Hasher};

use super::cell::Cell;
use super::durable::{Waiting, What};
use super::session::Session;
use super::store::Store;
use super::{Call, CallKey, SessionKey, Table};

/// A call by what it is: its session's secret, its seq, how it stands, and by which connection it
/// came.
type Name = (Option<u128>, u64, [bool; 6], u64, u8);

impl<St: Store> Table<St> {
    /// Hashes all that tells this table from another: sessions by their secrets, calls by session and
    /// seq. Places in memory and their generations do not count, nor do counters and quotas, which
    /// follow from the rest, nor instants: a checker that lets time pass counts how often. Of what
    /// waits the order counts, and how many commits are missing, not their numbers. The store is not
    /// hashed.
    ///
    /// It costs as much as there are sessions and calls.
    pub fn fingerprint(&self, state: &mut impl Hasher) {
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_by_key(|(_, session)| session.sid(0).secret);
        sessions.len().hash(state);
        for (_, session) in &sessions {
            self.hash_session(session, state);
        }
        let mut calls: Vec<_> = self.calls.iter().map(|(_, call)| self.describe(call)).collect();
        calls.sort_unstable();
        calls.hash(state);
        let safe = self.durability.safe.0;
        for Waiting { lsn, what } in &self.durability.queue {
            lsn.0.saturating_sub(safe).hash(state);
            self.hash_waiting(what, state);
        }
        (self.is_draining, self.failure().is_some()).hash(state);
    }

    fn hash_session(&self, session: &Session, state: &mut impl Hasher) {
        session.sid(0).secret.hash(state);
        (session.floor, session.window(), session.connection(), session.joined()).hash(state);
        (session.incarnation, session.attachment, session.lease, session.account).hash(state);
        for seq in session.seqs() {
            let cell = session.cell(seq);
            if let Some(digest) = cell.digest() {
                (seq, digest).hash(state);
                self.hash_cell(cell, state);
            }
        }
        u64::MAX.hash(state);
        if let Some(in_order) = session.in_order() {
            for (seq, held) in &in_order.held {
                (seq, held.connection(), held.joined()).hash(state);
            }
            in_order.joined.hash(state);
            u64::MAX.hash(state);
        }
        if let Some(durable) = session.durable() {
            (durable.floor, durable.dropped, durable.committing, &durable.untold).hash(state);
            (durable.recorded <= self.durability.safe, session.is_ending()).hash(state);
        }
    }

    fn hash_cell(&self, cell: Cell, state: &mut impl Hasher) {
        let kept = |reply| self.replies.get(reply);
        match cell {
            Cell::Vacant => {}
            Cell::Held { .. } => 1_u8.hash(state),
            Cell::Pending { .. } => 2_u8.hash(state),
            Cell::Done { reply, .. } => (3_u8, kept(reply)).hash(state),
            Cell::DoneNoReply { .. } => 4_u8.hash(state),
            Cell::Committing { reply, .. } => (5_u8, kept(reply)).hash(state),
            Cell::CommittingNoReply { .. } => 8_u8.hash(state),
            Cell::InDoubt { attempt, .. } => (6_u8, attempt).hash(state),
            Cell::Poisoned { .. } => 7_u8.hash(state),
        }
    }

    fn hash_waiting(&self, what: &What, state: &mut impl Hasher) {
        std::mem::discriminant(what).hash(state);
        match what {
            What::Answer { connection, frame } => (connection, frame).hash(state),
            What::Close { connection } => connection.hash(state),
            What::Committed { session, seq, frame } => {
                (self.secret(*session), seq, frame).hash(state);
            }
            What::Ended { session } => self.secret(*session).hash(state),
            What::Resumed { connection, session, .. }
            | What::Welcome { connection, session, .. } => {
                (connection, self.secret(*session)).hash(state);
            }
            What::Started { call, .. } | What::Unstarted { call, .. } => {
                self.name(*call).hash(state);
            }
        }
    }

    fn name(&self, key: CallKey) -> Option<Name> {
        self.calls.get(key).map(|call| self.describe(call))
    }

    /// Names a call by what it is of, and says what has become of its caller.
    fn describe(&self, call: &Call) -> Name {
        let flags = [
            call.is_unprotected,
            call.is_joined,
            call.is_abandoned,
            call.is_cancelled,
            call.has_start,
            call.has_ended,
        ];
        (self.secret(call.session), call.seq, flags, call.connection, call.doubts)
    }

    fn secret(&self, key: SessionKey) -> Option<u128> {
        self.sessions.get(key).map(|session| session.sid(0).secret)
    }
}
