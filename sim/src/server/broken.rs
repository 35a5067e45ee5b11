//! Stores that do not keep what they promise: mistakes made on purpose.

use std::time::Instant;

use onceloop::protocol::table::store::{Ledger, Lsn, Modelled, Record, Store, StoreFailed};

use crate::Sabotage;

/// A store as the sabotage has it; without one it is what it is.
pub(super) struct Broken {
    store: Modelled,
    sabotage: Sabotage,
    last: Lsn,
}

impl Broken {
    pub(super) fn new(store: Modelled, sabotage: Sabotage) -> Broken {
        Broken { store, sabotage, last: Lsn(0) }
    }
}

impl Store for Broken {
    fn is_durable(&self) -> bool {
        self.store.is_durable()
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.store.get(key)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.store.put(key, value);
    }

    fn write(&mut self, record: Record) {
        let is_of_a_call = matches!(record, Record::Start { .. } | Record::Complete { .. });
        if self.sabotage != Sabotage::ForgottenTable || !is_of_a_call {
            self.store.write(record);
        }
    }

    fn commit(&mut self, now: Instant) -> Lsn {
        self.last = self.store.commit(now);
        self.last
    }

    fn rollback(&mut self) {
        self.store.rollback();
    }

    fn poll_safe(&mut self, now: Instant) -> Result<Lsn, StoreFailed> {
        let safe = self.store.poll_safe(now)?;
        Ok(if self.sabotage == Sabotage::HastyStore { safe.max(self.last) } else { safe })
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.store.next_deadline()
    }

    fn recover(&mut self) -> Result<Ledger, StoreFailed> {
        self.store.recover()
    }
}
