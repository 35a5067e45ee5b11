//! When calls end, and when refused ones are due again: a heap from which nothing is taken early.
//!
//! An ended call leaves its entries behind; they are skipped when they come up, and swept out when
//! they are the most of the heap. So arming costs amortised O(1) where deadlines rise, as they do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::calls::{COMPACT_ABOVE, CallKey, Calls};

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// The call's time is over.
    Deadline,
    /// The call, which has been sent so often, is unanswered for so long that another copy may leave.
    Overdue(u32),
    /// A refused call is due again.
    Retry,
}

#[derive(Debug)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, CallKey, Purpose)>>,
}

impl Timers {
    pub(super) fn new() -> Timers {
        Timers { heap: BinaryHeap::new() }
    }

    pub(super) fn push(&mut self, at: Instant, key: CallKey, purpose: Purpose) {
        self.heap.push(Reverse((at, key, purpose)));
    }

    /// Sweeps out the entries of ended calls if they are more than those of open ones.
    pub(super) fn compact<T>(&mut self, calls: &Calls<T>) {
        // An open call has one entry, a second while it waits for a retry, and a third for its copy.
        if self.heap.len() >= COMPACT_ABOVE + 4 * calls.len() {
            self.heap.retain(|Reverse((_, key, _))| calls.get(*key).is_some());
        }
    }

    /// Returns the next entry that is due at `now`; its call may have ended.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, CallKey, Purpose)> {
        let &Reverse(entry) = self.heap.peek()?;
        if entry.0 > now {
            return None;
        }
        self.heap.pop();
        Some(entry)
    }

    /// Returns when to look again; nothing may be due then, as its call may have ended.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}
