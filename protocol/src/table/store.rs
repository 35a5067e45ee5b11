//! What of a table outlives its process, and where that is kept.
//!
//! A [`Store`] is a log of transactions. The table writes facts ([`Record`]) into the open one, the
//! program's handlers their effects, and [`Store::commit`] closes it: after a crash all of it is
//! there or nothing. A commit is not safe when it is made but some time later, in order; what must
//! not be seen before an effect is safe waits for that [`Lsn`]. A store does no I/O of which the
//! table would have to know: its owner passes time in, as to every state machine here.
//!
//! Two are here: [`Volatile`], which keeps nothing and costs nothing, and [`Modelled`], which keeps
//! in memory what a disk would have kept, for simulations. [`Log`] is the latter without a clock, a
//! plain value, for model checkers.

mod chosen;
mod ledger;
mod log;
mod modelled;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::time::Instant;

use bytes::Bytes;

pub use self::ledger::{Entry, Ledger, RecoveredSession};
pub use self::log::Log;
pub use self::modelled::{Disk, Modelled};
use super::Principal;
use crate::handshake::{Order, Sid};

/// A place in a store's log: what was committed there or before becomes safe together. They grow by
/// each commit; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// A fact of the table that a durable store keeps. Sessions go by the secret half of their
/// [`Sid`], which no two have in common.
///
/// Exhaustive: a store that does not know a fact cannot keep it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Row 15: the call has ended; this is its answer, a whole frame, or `None` if that was too
    /// large to keep. The floor is the session's at that time.
    Complete {
        /// The session's secret.
        session: u128,
        /// The call.
        seq: u64,
        /// That of its request.
        digest: u64,
        /// The session's floor.
        floor: u64,
        /// The answer.
        reply: Option<Bytes>,
    },
    /// Row 20: the session is deleted, with all that was recorded of it.
    End {
        /// The session's secret.
        session: u128,
    },
    /// Rows 18 and 25: the floor is at least this, and what was recorded of calls up to it goes.
    Floor {
        /// The session's secret.
        session: u128,
        /// The floor.
        floor: u64,
    },
    /// The key of the digests; written once, when the store is new.
    Key([u8; 16]),
    /// A session is open, or its incarnation was raised.
    Session {
        /// Its identity.
        sid: Sid,
        /// Whose it is.
        principal: Principal,
        /// In which order its calls run.
        order: Order,
        /// How many calls may be unacknowledged.
        window: u32,
        /// Its client's incarnation.
        incarnation: u32,
        /// Whether its client keeps a journal, and comes back after longer.
        has_journal: bool,
    },
    /// Row 13: the call's handler is about to start, for the `attempt`th time, from 1.
    Start {
        /// The session's secret.
        session: u128,
        /// The call.
        seq: u64,
        /// That of its request.
        digest: u64,
        /// How often it has been started, this time included.
        attempt: u32,
    },
    /// Row 16: the call is as if it had never come.
    Withdraw {
        /// The session's secret.
        session: u128,
        /// The call.
        seq: u64,
    },
}

/// Where a table's facts and its handlers' effects are kept.
///
/// One transaction is open at any time. `get` and `put` are the program's: keys and values as it
/// likes, in a space of their own.
pub trait Store {
    /// Returns whether what is committed here outlives the process. If not, the table leaves out
    /// everything that is only there for the sake of that.
    fn is_durable(&self) -> bool;

    /// Returns the value that the program has put at `key`: as of the open transaction, safe or not.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// Puts a value at `key`, or (`None`) removes it, in the open transaction.
    fn put(&mut self, key: &[u8], value: Option<&[u8]>);

    /// Writes a fact into the open transaction.
    fn write(&mut self, record: Record);

    /// Closes the open transaction and opens the next. Returns from where on it is safe.
    fn commit(&mut self, now: Instant) -> Lsn;

    /// Drops what is in the open transaction: it never happened.
    fn rollback(&mut self);

    /// Returns up to where everything is safe.
    ///
    /// # Errors
    /// A write or a sync has failed: what of the commits that were not safe has survived, nobody can
    /// tell before a restart. Told again whenever it is asked.
    fn poll_safe(&mut self, now: Instant) -> Result<Lsn, StoreFailed>;

    /// Returns when [`Store::poll_safe`] may have something new to say by the time alone.
    fn next_deadline(&self) -> Option<Instant>;

    /// Returns the facts that have survived. Asked once, before anything else.
    ///
    /// # Errors
    /// They cannot be read.
    fn recover(&mut self) -> Result<Ledger, StoreFailed>;
}

/// The store could not write, sync or read: nothing it has not called safe may be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFailed {
    /// What happened, for a person.
    pub message: String,
}

impl fmt::Display for StoreFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store failed: {}", self.message)
    }
}

impl Error for StoreFailed {}

/// Keeps nothing: a server that crashes forgets its sessions, and tells its clients so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volatile;

impl Store for Volatile {
    #[inline]
    fn is_durable(&self) -> bool {
        false
    }

    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn put(&mut self, _: &[u8], _: Option<&[u8]>) {}

    fn write(&mut self, _: Record) {}

    fn commit(&mut self, _: Instant) -> Lsn {
        Lsn(0)
    }

    fn rollback(&mut self) {}

    fn poll_safe(&mut self, _: Instant) -> Result<Lsn, StoreFailed> {
        Ok(Lsn(0))
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn recover(&mut self) -> Result<Ledger, StoreFailed> {
        Ok(Ledger::default())
    }
}
