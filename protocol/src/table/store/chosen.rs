//! A store that is chosen when the program runs: behind a pointer, and perhaps none at all.

use std::time::Instant;

use super::{Ledger, Lsn, Record, Store, StoreFailed};

/// `None` keeps nothing, as [`Volatile`](super::Volatile) does.
impl<St: Store> Store for Option<St> {
    #[inline]
    fn is_durable(&self) -> bool {
        self.as_ref().is_some_and(Store::is_durable)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.as_ref()?.get(key)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(store) = self {
            store.put(key, value);
        }
    }

    fn write(&mut self, record: Record) {
        if let Some(store) = self {
            store.write(record);
        }
    }

    fn commit(&mut self, now: Instant) -> Lsn {
        self.as_mut().map_or(Lsn(0), |store| store.commit(now))
    }

    fn rollback(&mut self) {
        if let Some(store) = self {
            store.rollback();
        }
    }

    fn poll_safe(&mut self, now: Instant) -> Result<Lsn, StoreFailed> {
        self.as_mut().map_or(Ok(Lsn(0)), |store| store.poll_safe(now))
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.as_ref()?.next_deadline()
    }

    fn recover(&mut self) -> Result<Ledger, StoreFailed> {
        self.as_mut().map_or_else(|| Ok(Ledger::default()), Store::recover)
    }
}

impl<St: Store + ?Sized> Store for Box<St> {
    fn is_durable(&self) -> bool {
        (**self).is_durable()
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        (**self).get(key)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        (**self).put(key, value);
    }

    fn write(&mut self, record: Record) {
        (**self).write(record);
    }

    fn commit(&mut self, now: Instant) -> Lsn {
        (**self).commit(now)
    }

    fn rollback(&mut self) {
        (**self).rollback();
    }

    fn poll_safe(&mut self, now: Instant) -> Result<Lsn, StoreFailed> {
        (**self).poll_safe(now)
    }

    fn next_deadline(&self) -> Option<Instant> {
        (**self).next_deadline()
    }

    fn recover(&mut self) -> Result<Ledger, StoreFailed> {
        (**self).recover()
    }
}
