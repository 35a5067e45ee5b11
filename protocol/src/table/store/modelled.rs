//! A disk in memory, and a store on it: what a crash leaves of it is for the simulation to say.

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Ledger, Log, Lsn, Record, Store, StoreFailed};

/// How long the next commit takes to become safe.
type Delay = Box<dyn FnMut() -> Duration>;

/// A disk that outlives the processes which write to it. A handle: copies name the same disk.
#[derive(Clone)]
pub struct Disk {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    log: Log,
    /// When each commit that is not safe becomes so; they rise.
    due: VecDeque<Instant>,
    delay: Delay,
}

impl Disk {
    /// Returns an empty disk. `delay` says of each commit how long it takes to become safe; one never
    /// overtakes another.
    pub fn new(delay: impl FnMut() -> Duration + 'static) -> Disk {
        let inner = Inner { log: Log::new(), due: VecDeque::new(), delay: Box::new(delay) };
        Disk { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Opens the store on this disk, for a process that has just been started. No other may have it
    /// open: [`Disk::crash`] comes between two processes.
    pub fn open(&self) -> Modelled {
        Modelled { disk: self.clone() }
    }

    /// The process that had the disk open is dead. Of its commits that were not safe the oldest
    /// `kept` have reached the disk all the same; the others are lost.
    pub fn crash(&self, kept: usize) {
        let mut inner = self.inner.borrow_mut();
        inner.log.crash(kept);
        inner.due.clear();
    }

    /// Returns how many commits are not safe.
    pub fn unsafe_commits(&self) -> usize {
        self.inner.borrow().log.unsafe_commits()
    }

    /// Has every write fail from now on, until the next [`Disk::crash`].
    pub fn fail(&self, message: impl Into<String>) {
        self.inner.borrow_mut().log.fail(message);
    }

    /// Lends what is on the disk: for the judge of a simulation, who sees what is safe.
    pub fn log(&self) -> Ref<'_, Log> {
        Ref::map(self.inner.borrow(), |inner| &inner.log)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("unsafe_commits", &self.unsafe_commits()).finish()
    }
}

/// A store on a [`Disk`], as one process has it open.
#[derive(Debug)]
pub struct Modelled {
    disk: Disk,
}

impl Store for Modelled {
    fn is_durable(&self) -> bool {
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.disk.inner.borrow().log.get(key)
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.disk.inner.borrow_mut().log.put(key, value);
    }

    fn write(&mut self, record: Record) {
        self.disk.inner.borrow_mut().log.write(record);
    }

    fn commit(&mut self, now: Instant) -> Lsn {
        let mut inner = self.disk.inner.borrow_mut();
        let inner = &mut *inner;
        let due = now + (inner.delay)();
        let due = inner.due.back().map_or(due, |&last| due.max(last));
        inner.due.push_back(due);
        inner.log.commit(now)
    }

    fn rollback(&mut self) {
        self.disk.inner.borrow_mut().log.rollback();
    }

    fn poll_safe(&mut self, now: Instant) -> Result<Lsn, StoreFailed> {
        let mut inner = self.disk.inner.borrow_mut();
        // What a failed disk has not called safe it never will.
        inner.log.poll_safe(now)?;
        let count = inner.due.iter().take_while(|&&due| due <= now).count();
        inner.due.drain(..count);
        inner.log.make_safe(count);
        inner.log.poll_safe(now)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.disk.inner.borrow().due.front().copied()
    }

    fn recover(&mut self) -> Result<Ledger, StoreFailed> {
        self.disk.inner.borrow_mut().log.recover()
    }
}
