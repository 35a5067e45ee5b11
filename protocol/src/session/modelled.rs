//! A journal in memory that crashes as a disk does: for simulations and tests.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::journal::{Journal, JournalError, Record, Recovered};
use super::retry::Jitter;
use crate::table::store::Lsn;

/// What survives a client's crash, less what was not safe. Clones are one disk.
#[derive(Clone)]
pub struct JournalDisk(Rc<RefCell<Inner>>);

struct Inner {
    /// The sum of what is safe.
    safe: Recovered,
    safe_lsn: Lsn,
    last_lsn: Lsn,
    /// Commits that are not safe yet, oldest first.
    pending: VecDeque<Commit>,
    delays: Range<Duration>,
    random: Jitter,
    failure: Option<String>,
    is_locked: bool,
    /// How often it crashed: what an earlier incarnation writes after that comes to nothing.
    crashes: u64,
}

struct Commit {
    lsn: Lsn,
    safe_at: Instant,
    records: Vec<Record<'static>>,
}

impl JournalDisk {
    /// Returns an empty disk; what it does by chance comes from `seed`. Commits are safe at once.
    pub fn new(seed: u64) -> JournalDisk {
        JournalDisk(Rc::new(RefCell::new(Inner {
            safe: Recovered::default(),
            safe_lsn: Lsn(0),
            last_lsn: Lsn(0),
            pending: VecDeque::new(),
            delays: Duration::ZERO..Duration::ZERO,
            random: Jitter::new(seed),
            failure: None,
            is_locked: false,
            crashes: 0,
        })))
    }

    /// Sets how long a commit takes to be safe; each draws its time. None overtakes another.
    pub fn set_delays(&self, delays: Range<Duration>) {
        self.0.borrow_mut().delays = delays;
    }

    /// Loses what is not safe, but for the first so many commits, a number by chance; and the lock.
    /// The incarnation that had it can write nothing any more.
    pub fn crash(&self) {
        let mut inner = self.0.borrow_mut();
        let pending = inner.pending.len() as u64;
        let survivors = inner.random.below(pending + 1);
        for _ in 0..survivors {
            inner.settle_first();
        }
        inner.pending.clear();
        inner.is_locked = false;
        inner.crashes += 1;
    }

    /// Lets everything fail from here on that is not safe yet.
    pub fn fail(&self, why: &str) {
        self.0.borrow_mut().failure = Some(why.to_owned());
    }

    /// Returns what would be recovered if it crashed now and nothing unsafe survived.
    pub fn safe(&self) -> Recovered {
        self.0.borrow().safe.clone()
    }
}

impl fmt::Debug for JournalDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalDisk").finish_non_exhaustive()
    }
}

impl Inner {
    /// Makes the oldest pending commit safe.
    fn settle_first(&mut self) {
        let Some(commit) = self.pending.pop_front() else { return };
        for record in &commit.records {
            self.safe.replay(record);
        }
        self.safe_lsn = commit.lsn;
    }

    fn delay(&mut self) -> Duration {
        let span = self.delays.end.saturating_sub(self.delays.start).as_micros();
        let span = u64::try_from(span).unwrap_or(u64::MAX).max(1);
        self.delays.start + Duration::from_micros(self.random.below(span))
    }
}

/// A journal on a [`JournalDisk`].
#[derive(Debug)]
pub struct ModelledJournal {
    disk: JournalDisk,
    open: Vec<Record<'static>>,
    /// How often the disk had crashed when this took it; `None` before.
    taken: Option<u64>,
}

impl ModelledJournal {
    /// Returns a journal on `disk`, not yet taken.
    pub fn new(disk: &JournalDisk) -> ModelledJournal {
        ModelledJournal { disk: disk.clone(), open: Vec::new(), taken: None }
    }

    fn has_disk(&self, inner: &Inner) -> bool {
        self.taken == Some(inner.crashes)
    }
}

impl Journal for ModelledJournal {
    fn recover(&mut self) -> Result<Recovered, JournalError> {
        let mut inner = self.disk.0.borrow_mut();
        if let Some(why) = &inner.failure {
            return Err(JournalError::Failed(why.clone()));
        }
        if inner.is_locked {
            return Err(JournalError::InUse);
        }
        // Without a crash nothing is lost, only late.
        while !inner.pending.is_empty() {
            inner.settle_first();
        }
        inner.is_locked = true;
        self.taken = Some(inner.crashes);
        Ok(inner.safe.clone())
    }

    fn append(&mut self, record: &Record<'_>) {
        self.open.push(record.clone().into_owned());
    }

    fn commit(&mut self, now: Instant) -> Lsn {
        let records = std::mem::take(&mut self.open);
        let mut inner = self.disk.0.borrow_mut();
        if !self.has_disk(&inner) {
            return Lsn(u64::MAX);
        }
        let lsn = Lsn(inner.last_lsn.0 + 1);
        inner.last_lsn = lsn;
        let earliest = inner.pending.back().map_or(now, |last| last.safe_at);
        let safe_at = (now + inner.delay()).max(earliest);
        inner.pending.push_back(Commit { lsn, safe_at, records });
        lsn
    }

    fn poll_safe(&mut self, now: Instant) -> Result<Lsn, JournalError> {
        let mut inner = self.disk.0.borrow_mut();
        if let Some(why) = &inner.failure {
            return Err(JournalError::Failed(why.clone()));
        }
        if !self.has_disk(&inner) {
            return Err(JournalError::Failed("it crashed".to_owned()));
        }
        while inner.pending.front().is_some_and(|commit| commit.safe_at <= now) {
            inner.settle_first();
        }
        Ok(inner.safe_lsn)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let inner = self.disk.0.borrow();
        inner.pending.front().filter(|_| self.has_disk(&inner)).map(|commit| commit.safe_at)
    }
}

impl Drop for ModelledJournal {
    fn drop(&mut self) {
        let mut inner = self.disk.0.borrow_mut();
        if self.has_disk(&inner) {
            inner.is_locked = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::Sid;
    use crate::session::journal::Opened;

    fn session(place: u64) -> Record<'static> {
        let sid = Sid { place, secret: 0 };
        Record::Session(Opened { sid, window: 4, lease_ms: 0 })
    }

    fn place(recovered: &Recovered) -> Option<u64> {
        recovered.session().map(|opened| opened.sid.place)
    }

    #[test]
    fn one_incarnation_at_a_time_has_it() {
        let disk = JournalDisk::new(1);
        let mut first = ModelledJournal::new(&disk);
        first.recover().unwrap();
        let mut second = ModelledJournal::new(&disk);
        assert_eq!(second.recover(), Err(JournalError::InUse));
        drop(first);
        assert!(second.recover().is_ok());
        disk.crash();
        let mut third = ModelledJournal::new(&disk);
        assert!(third.recover().is_ok());
        drop(second);
        assert_eq!(ModelledJournal::new(&disk).recover(), Err(JournalError::InUse));
    }

    #[test]
    fn a_crash_leaves_what_is_safe_and_a_prefix_of_the_rest() {
        let now = Instant::now();
        let mut kept = [0; 4];
        for seed in 0..100 {
            let disk = JournalDisk::new(seed);
            disk.set_delays(Duration::from_millis(1)..Duration::from_millis(5));
            let mut journal = ModelledJournal::new(&disk);
            journal.recover().unwrap();
            for number in 1..=3 {
                journal.append(&session(number));
                let lsn = journal.commit(now);
                assert_eq!(journal.poll_safe(now), Ok(Lsn(0)), "{lsn:?} is not safe yet");
            }
            disk.crash();
            journal.append(&session(9));
            journal.commit(now);
            assert!(journal.poll_safe(now).is_err());
            let recovered = ModelledJournal::new(&disk).recover().unwrap();
            kept[usize::try_from(place(&recovered).unwrap_or(0)).unwrap()] += 1;
        }
        assert!(kept.iter().all(|&times| times > 10), "{kept:?}");
    }

    #[test]
    fn commits_are_safe_in_their_order() {
        let now = Instant::now();
        let disk = JournalDisk::new(5);
        disk.set_delays(Duration::from_millis(1)..Duration::from_millis(100));
        let mut journal = ModelledJournal::new(&disk);
        journal.recover().unwrap();
        let lsns: Vec<_> = (0..20).map(|_| journal.commit(now)).collect();
        let mut safe = Vec::new();
        while let Some(at) = journal.next_deadline() {
            safe.push(journal.poll_safe(at).unwrap());
        }
        assert!(safe.is_sorted() && safe.last() == lsns.last());
        disk.fail("full");
        assert_eq!(journal.poll_safe(now), Err(JournalError::Failed("full".to_owned())));
    }
}
