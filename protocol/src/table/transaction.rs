//! What a transactional handler of a durable table reads and writes: its effects go into one commit
//! with its answer.

use std::collections::BTreeMap;
use std::time::Instant;

use super::store::Store;
use super::{CallKey, Table};

/// The effects of a handler that has not ended.
#[derive(Clone)]
pub(super) struct Transaction {
    /// Whose; `None` for one that nobody waits for.
    pub(super) call: Option<CallKey>,
    pub(super) effects: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<St: Store> Table<St> {
    /// Begins the transaction of a call whose handler is about to run: what it writes is
    /// [committed](Table::complete) together with its answer, or not at all. One handler runs at a
    /// time; what was begun before and not completed is forgotten.
    pub fn begin(&mut self, call: CallKey) {
        self.durability.transaction =
            Some(Transaction { call: Some(call), effects: BTreeMap::new() });
    }

    /// As [`Table::begin`], for a notification: nobody waits for an answer, and
    /// [`Table::commit_unanswered`] ends it.
    pub fn begin_unanswered(&mut self) {
        self.durability.transaction = Some(Transaction { call: None, effects: BTreeMap::new() });
    }

    /// Commits what the handler of a notification has written.
    pub fn commit_unanswered(&mut self, now: Instant) {
        let Some(open) = self.durability.transaction.take_if(|open| open.call.is_none()) else {
            return;
        };
        if !open.effects.is_empty() {
            self.put(&open.effects);
            self.commit(now);
        }
    }

    pub(super) fn put(&mut self, effects: &BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
        for (key, value) in effects {
            self.store.put(key, value.as_deref());
        }
    }

    /// Forgets what the open transaction has written: the handler failed. It stays open.
    pub fn rollback(&mut self) {
        if let Some(transaction) = &mut self.durability.transaction {
            transaction.effects.clear();
        }
    }

    /// Ends the open transaction without effects: its call will be completed later or by others.
    pub fn abort(&mut self) {
        self.durability.transaction = None;
    }

    /// Returns whether a transaction is open: whether [`Table::write`] may be called.
    pub fn is_in_transaction(&self) -> bool {
        self.durability.transaction.is_some()
    }

    /// Returns a value of the application: as the open transaction has left it, or as the last
    /// commit did, which need not be safe yet.
    pub fn read(&self, key: &[u8]) -> Option<Vec<u8>> {
        let transaction = self.durability.transaction.as_ref();
        match transaction.and_then(|transaction| transaction.effects.get(key)) {
            Some(value) => value.clone(),
            None => self.store.get(key),
        }
    }

    /// Sets a value of the application, or removes it, in the open transaction.
    ///
    /// # Panics
    /// If none is open.
    pub fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        let transaction = self.durability.transaction.as_mut();
        let transaction = transaction.expect("only a transactional handler writes");
        transaction.effects.insert(key.to_vec(), value.map(<[u8]>::to_vec));
    }
}
