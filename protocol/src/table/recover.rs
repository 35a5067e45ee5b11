//! A durable table comes back after a crash: row 23.

use std::time::Instant;

use super::cell::Cell;
use super::durable::DurableSession;
use super::replies::Answer;
use super::session::Session;
use super::store::{Entry, Record, RecoveredSession, Store, StoreFailed};
use super::{SessionKey, Table};
use crate::arena::Arena;
use crate::handshake::Order;
use crate::limits::Limits;

/// A call that has crashed the server so often is not run again.
const ATTEMPTS_MAX: u32 = 3;

impl<St: Store> Table<St> {
    /// Returns the table that `store` remembers; an empty one if it is new. `random` comes from the
    /// operating system and keys the digests of a new one.
    ///
    /// All clients are away, and their leases start in full. A call whose handler had started and
    /// not ended is in doubt; one that was so for the third time is not run again.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn recover(
        limits: Limits,
        random: [u8; 16],
        mut store: St,
        now: Instant,
    ) -> Result<Self, StoreFailed> {
        let recovered = store.recover()?;
        let is_new = recovered.key().is_none();
        let mut table = Table::with(limits, recovered.key().unwrap_or(random), store);
        if !table.store.is_durable() {
            return Ok(table);
        }
        table.durability.safe = table.store.poll_safe(now)?;
        table.durability.tail = table.durability.safe;
        if is_new {
            table.store.write(Record::Key(random));
            table.commit(now);
        }
        let mut sessions = Vec::new();
        for session in recovered.sessions() {
            sessions.push((SessionKey::from_bits(session.sid.place), table.restore(session)));
        }
        table.sessions = Arena::restore(sessions);
        for session in recovered.sessions() {
            table.begin_lease(SessionKey::from_bits(session.sid.place), now);
        }
        Ok(table)
    }

    /// Makes a session of what is known of it.
    fn restore(&mut self, recovered: &RecoveredSession) -> Session {
        let RecoveredSession { entries, .. } = recovered;
        let account = self.accounts.add_session(recovered.principal);
        // What was granted fits; a window that was not would be a damaged store's.
        let window = u16::try_from(recovered.window).unwrap_or(1).max(1);
        let mut session = Session::new(window, recovered.sid.secret, 0, account);
        session.incarnation = recovered.incarnation;
        // A call is admitted only within the window: one beyond the floor written down proves that the
        // client has acknowledged more since. START does not say so, and must not be lost for it.
        let last = entries.last_key_value().map_or(0, |(&seq, _)| seq);
        let floor = recovered.floor.max(last.saturating_sub(window.into()));
        session.floor = floor;
        if recovered.order == Order::InOrder {
            session.set_in_order();
        }
        session.set_durable(DurableSession {
            floor: recovered.floor,
            has_journal: recovered.has_journal,
            // Not more than a window: the next one dropped has them deleted.
            dropped: u32::try_from(entries.range(..=floor).count())
                .map_or(window.into(), |dropped| dropped.min(window.into())),
            ..Default::default()
        });
        for (&seq, entry) in entries.range(floor + 1..) {
            let cell = match *entry {
                Entry::Completed { digest, reply: None } => Cell::DoneNoReply { digest },
                Entry::Completed { digest, reply: Some(ref reply) } => {
                    let bytes = reply.len();
                    session.kept_bytes += u32::try_from(bytes).expect("it was counted before");
                    self.accounts.count(account, |account| account.kept_bytes += bytes);
                    Cell::Done { digest, reply: self.replies.keep(Answer::Copied(reply)) }
                }
                Entry::Started { digest, attempt } if attempt >= ATTEMPTS_MAX => {
                    Cell::Poisoned { digest }
                }
                Entry::Started { digest, attempt } => Cell::InDoubt { digest, attempt },
            };
            session.occupy(seq, cell);
        }
        session
    }

    /// The lease of a session starts, whose client is away.
    fn begin_lease(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.lease = session.lease();
        let expires = now + session.lease.time(&self.limits);
        session.detach(expires);
        self.leases.insert((expires, key.to_bits()));
        self.note_if_clean(key);
    }
}
