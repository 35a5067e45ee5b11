//! A durable store as a plain value: what is safe, what is committed, what is open.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::{Ledger, Lsn, Record, Store, StoreFailed};

/// A durable store without a clock: a commit becomes safe when [`Log::make_safe`] says so. A plain
/// value, so that a model checker can copy it and hash it.
#[derive(Clone, Debug, Default, Hash)]
pub struct Log {
    /// What is safe.
    ledger: Ledger,
    data: BTreeMap<Vec<u8>, Vec<u8>>,
    safe: Lsn,
    /// What is committed and not safe, oldest first.
    commits: VecDeque<Transaction>,
    open: Transaction,
    failure: Option<String>,
}

/// What survives as a whole or not at all.
#[derive(Clone, Debug, Default, Hash)]
struct Transaction {
    records: Vec<Record>,
    effects: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Log {
    /// Returns an empty log.
    pub fn new() -> Log {
        Log::default()
    }

    /// Returns how many commits are not safe.
    pub fn unsafe_commits(&self) -> usize {
        self.commits.len()
    }

    /// Returns up to where everything is safe.
    pub fn safe(&self) -> Lsn {
        self.safe
    }

    /// Makes the oldest `count` of the commits safe that are not.
    pub fn make_safe(&mut self, count: usize) {
        for commit in self.commits.drain(..count.min(self.commits.len())) {
            self.safe.0 += 1;
            for record in &commit.records {
                self.ledger.apply(record);
            }
            for (key, value) in commit.effects {
                match value {
                    Some(value) => self.data.insert(key, value),
                    None => self.data.remove(&key),
                };
            }
        }
    }

    /// The process dies: of the commits that are not safe the oldest `kept` have reached the disk all
    /// the same, the others are lost, and so is the open transaction.
    pub fn crash(&mut self, kept: usize) {
        self.make_safe(kept);
        self.commits.clear();
        self.rollback();
        self.failure = None;
    }

    /// Has the store fail from now on, until it is opened again after a [`Log::crash`].
    pub fn fail(&mut self, message: impl Into<String>) {
        self.failure.get_or_insert(message.into());
    }

    /// Returns the facts that are safe.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Returns what the program has put at `key`, as far as it is safe.
    pub fn get_safe(&self, key: &[u8]) -> Option<&[u8]> {
        self.data.get(key).map(Vec::as_slice)
    }

    /// Returns all that the program has put, as far as it is safe.
    pub fn data(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.data.iter().map(|(key, value)| (&key[..], &value[..]))
    }
}

impl Store for Log {
    fn is_durable(&self) -> bool {
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let newest_first = [&self.open].into_iter().chain(self.commits.iter().rev());
        let written = newest_first.filter_map(|part| part.effects.get(key)).next();
        written.map_or_else(|| self.data.get(key).cloned(), Clone::clone)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.open.effects.insert(key.to_vec(), value.map(<[u8]>::to_vec));
    }

    fn write(&mut self, record: Record) {
        self.open.records.push(record);
    }

    fn commit(&mut self, _: Instant) -> Lsn {
        self.commits.push_back(std::mem::take(&mut self.open));
        Lsn(self.safe.0 + self.commits.len() as u64)
    }

    fn rollback(&mut self) {
        self.open = Transaction::default();
    }

    fn poll_safe(&mut self, _: Instant) -> Result<Lsn, StoreFailed> {
        match &self.failure {
            Some(message) => Err(StoreFailed { message: message.clone() }),
            None => Ok(self.safe),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    fn recover(&mut self) -> Result<Ledger, StoreFailed> {
        Ok(self.ledger.clone())
    }
}
