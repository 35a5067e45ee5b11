//! A hash of what a table knows, for model checkers: two tables with the same fingerprint do the
//! same from there on.

use std::hash::{Hash, Hasher};

use super::cell::Cell;
use super::session::Session;
use super::{Call, SessionKey, Table};

impl Table {
    /// Hashes all that tells this table from another: sessions by their secrets, calls by session and
    /// seq. Places in memory and their generations do not count, nor do counters and quotas, which
    /// follow from the rest, nor instants: a checker that lets time pass counts how often.
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
        self.is_draining.hash(state);
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
                (seq, held.connection()).hash(state);
            }
            u64::MAX.hash(state);
        }
    }

    fn hash_cell(&self, cell: Cell, state: &mut impl Hasher) {
        match cell {
            Cell::Vacant => {}
            Cell::Held { .. } => 1_u8.hash(state),
            Cell::Pending { .. } => 2_u8.hash(state),
            Cell::Done { reply, .. } => (3_u8, self.replies.get(reply)).hash(state),
            Cell::DoneNoReply { .. } => 4_u8.hash(state),
        }
    }

    /// Names a call by what it is of, and says what has become of its caller.
    fn describe(&self, call: &Call) -> (Option<u128>, u64, [bool; 3], Option<u64>) {
        let secret = |key: SessionKey| self.sessions.get(key).map(|session| session.sid(0).secret);
        let flags = [call.is_unprotected, call.is_abandoned, call.is_cancelled];
        let connection = call.is_unprotected.then_some(call.connection);
        (secret(call.session), call.seq, flags, connection)
    }
}
