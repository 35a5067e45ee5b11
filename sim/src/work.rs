//! What was done in a seed: a promise that was never put to the test is worth nothing.

use std::ops::AddAssign;

use onceloop::Stats;

/// Counts of what callers were told, and of what servers did to keep their promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Work {
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that ran and gave no result.
    pub failed: u64,
    /// Calls proved not to have run.
    pub not_executed: u64,
    /// Calls of which nobody knows.
    pub indeterminate: u64,
    /// Calls whose caller was killed.
    pub orphaned: u64,
    /// Calls that clients found in their journals when they came back.
    pub recovered: u64,
    /// Stores that failed.
    pub stores_failed: u64,
    /// Calls that were answered, and had long arguments or a long reply.
    pub long: u64,
    /// Calls whose arguments or replies were larger than they may be.
    pub too_large: u64,
    /// Frames that servers did not look at, for what stands at their beginning.
    pub skipped: u64,
    /// Answers that servers gave again.
    pub replayed: u64,
    /// Copies that met their first copy running.
    pub joined: u64,
    /// Copies refused, to come again or not.
    pub refused: u64,
    /// Sessions that came back on another connection.
    pub resumed: u64,
    /// Sessions whose lease ended.
    pub expired: u64,
    /// Calls without protection that ran more than once.
    pub blind_doubles: u64,
    /// Histories of which nobody knows whether they are linearizable: there are too many orders.
    pub undecided: u64,
}

impl Work {
    /// Returns each count and its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("calls answered", self.answered),
            ("calls that failed in their handlers", self.failed),
            ("calls proved not to have run", self.not_executed),
            ("calls of which nobody knows", self.indeterminate),
            ("calls whose caller was killed", self.orphaned),
            ("calls found in a journal after a crash", self.recovered),
            ("stores that failed", self.stores_failed),
            ("calls answered that had long bodies", self.long),
            ("calls whose bodies were too large", self.too_large),
            ("frames skipped by servers", self.skipped),
            ("copies answered from the table", self.replayed),
            ("copies that met their first copy running", self.joined),
            ("copies refused", self.refused),
            ("sessions resumed", self.resumed),
            ("sessions whose lease ended", self.expired),
            ("unprotected calls that ran twice or more", self.blind_doubles),
            ("histories too long to be decided", self.undecided),
        ]
        .into_iter()
    }

    /// Adds what a server has counted since it said `before`.
    pub(crate) fn add_server(&mut self, now: &Stats, before: &Stats) {
        self.skipped += now.frames_refused - before.frames_refused;
        self.replayed += now.calls_replayed - before.calls_replayed;
        self.joined += now.calls_joined - before.calls_joined;
        self.refused += now.calls_refused - before.calls_refused;
        self.resumed += now.sessions_resumed - before.sessions_resumed;
        self.expired += now.sessions_expired - before.sessions_expired;
    }
}

impl AddAssign<&Work> for Work {
    fn add_assign(&mut self, other: &Work) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.not_executed += other.not_executed;
        self.indeterminate += other.indeterminate;
        self.orphaned += other.orphaned;
        self.recovered += other.recovered;
        self.stores_failed += other.stores_failed;
        self.long += other.long;
        self.too_large += other.too_large;
        self.skipped += other.skipped;
        self.replayed += other.replayed;
        self.joined += other.joined;
        self.refused += other.refused;
        self.resumed += other.resumed;
        self.expired += other.expired;
        self.blind_doubles += other.blind_doubles;
        self.undecided += other.undecided;
    }
}
