//! What a log of records amounts to: the facts as they stand at its end.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Record;
use crate::handshake::{Order, Sid};
use crate::table::Principal;

/// The facts of a table as a store has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    key: Option<[u8; 16]>,
    sessions: BTreeMap<u128, RecoveredSession>,
}

/// What a store has of one session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecoveredSession {
    /// Its identity.
    pub sid: Sid,
    /// Whose it is.
    pub principal: Principal,
    /// In which order its calls run.
    pub order: Order,
    /// How many calls may be unacknowledged.
    pub window: u32,
    /// Its client's incarnation.
    pub incarnation: u32,
    /// Whether its client keeps a journal.
    pub has_journal: bool,
    /// The highest floor recorded.
    pub floor: u64,
    /// What was recorded of its calls. Those up to the floor say nothing any more; they are still
    /// here until a [`Record::Floor`] drops them.
    pub entries: BTreeMap<u64, Entry>,
}

/// What a store has of one call.
///
/// Exhaustive: there is no third state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// It has ended.
    Completed {
        /// The digest of its request.
        digest: u64,
        /// Its answer; `None` if that was too large to keep.
        reply: Option<Bytes>,
    },
    /// Its handler was about to start, and nobody knows how far it came.
    Started {
        /// The digest of its request.
        digest: u64,
        /// How often it was started.
        attempt: u32,
    },
}

impl Ledger {
    /// Takes one more record in. What is said of a session that is not there is void: its end came
    /// first.
    pub fn apply(&mut self, record: &Record) {
        match *record {
            Record::Complete { session, seq, digest, floor, ref reply } => {
                self.change(session, |session| {
                    session.floor = session.floor.max(floor);
                    session.entries.insert(seq, Entry::Completed { digest, reply: reply.clone() });
                });
            }
            Record::End { session } => {
                self.sessions.remove(&session);
            }
            Record::Floor { session, floor } => self.change(session, |session| {
                session.floor = session.floor.max(floor);
                session.entries.retain(|&seq, _| seq > floor);
            }),
            Record::Key(key) => self.key = Some(key),
            Record::Session { sid, principal, order, window, incarnation, has_journal } => {
                let session = self.sessions.entry(sid.secret).or_insert_with(|| RecoveredSession {
                    sid,
                    principal,
                    order,
                    window,
                    incarnation,
                    has_journal,
                    floor: 0,
                    entries: BTreeMap::new(),
                });
                session.incarnation = incarnation;
            }
            Record::Start { session, seq, digest, attempt } => self.change(session, |session| {
                session.entries.insert(seq, Entry::Started { digest, attempt });
            }),
            Record::Withdraw { session, seq } => self.change(session, |session| {
                session.entries.remove(&seq);
            }),
        }
    }

    /// Returns the key of the digests; `None` if the store is new.
    pub fn key(&self) -> Option<[u8; 16]> {
        self.key
    }

    /// Returns the sessions, in the order of their secrets.
    pub fn sessions(&self) -> impl Iterator<Item = &RecoveredSession> {
        self.sessions.values()
    }

    /// Returns the session with this secret.
    pub fn session(&self, secret: u128) -> Option<&RecoveredSession> {
        self.sessions.get(&secret)
    }

    fn change(&mut self, session: u128, change: impl FnOnce(&mut RecoveredSession)) {
        if let Some(session) = self.sessions.get_mut(&session) {
            change(session);
        }
    }
}
