//! When calls end, and when refused ones are due again: nothing is taken early.
//!
//! Deadlines mostly rise from call to call, and those that do stand in a queue; the rest, and what
//! is rare, is in a heap. An ended call leaves its entries behind; they are skipped when they come up,
//! and swept out when they are the most. So arming costs amortised O(1) where deadlines rise.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use super::calls::{COMPACT_ABOVE, CallKey, Calls};
use super::transmit::earlier;

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// The call's time is over.
    Deadline,
    /// The call, which has been sent so often, is unanswered for so long that another copy may leave.
    Overdue(u32),
    /// A call that has been refused so often is due again.
    Retry(u32),
}

#[derive(Debug)]
pub(super) struct Timers {
    /// Deadlines, each no sooner than the one before it.
    rising: VecDeque<(Instant, CallKey)>,
    heap: BinaryHeap<Reverse<(Instant, CallKey, Purpose)>>,
}

impl Timers {
    pub(super) fn new() -> Timers {
        Timers { rising: VecDeque::new(), heap: BinaryHeap::new() }
    }

    /// Arms the deadline of a call.
    #[inline]
    pub(super) fn push_deadline(&mut self, at: Instant, key: CallKey) {
        if self.rising.back().is_none_or(|&(last, _)| last <= at) {
            self.rising.push_back((at, key));
        } else {
            self.push(at, key, Purpose::Deadline);
        }
    }

    pub(super) fn push(&mut self, at: Instant, key: CallKey, purpose: Purpose) {
        self.heap.push(Reverse((at, key, purpose)));
    }

    /// Sweeps out the entries of ended calls if they are more than those of open ones.
    #[inline]
    pub(super) fn compact<T>(&mut self, calls: &Calls<T>) {
        // An open call has one entry, a second while it waits for a retry, and a third for its copy.
        if self.rising.len() + self.heap.len() >= COMPACT_ABOVE + 4 * calls.len() {
            self.sweep(calls);
        }
    }

    fn sweep<T>(&mut self, calls: &Calls<T>) {
        // Most end in their order.
        while self.rising.front().is_some_and(|&(_, key)| calls.get(key).is_none()) {
            self.rising.pop_front();
        }
        if self.rising.len() > COMPACT_ABOVE + calls.len() {
            self.rising.retain(|&(_, key)| calls.get(key).is_some());
        }
        self.heap.retain(|Reverse((_, key, _))| calls.get(*key).is_some());
    }

    /// Returns the next entry that is due at `now`; its call may have ended.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(CallKey, Purpose)> {
        let at = self.next_deadline()?;
        if at > now {
            return None;
        }
        match self.rising.front() {
            Some(&(first, key)) if first == at => {
                self.rising.pop_front();
                Some((key, Purpose::Deadline))
            }
            _ => self.heap.pop().map(|Reverse((_, key, purpose))| (key, purpose)),
        }
    }

    /// Returns when to look again; nothing may be due then, as its call may have ended.
    #[inline]
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let rising = self.rising.front().map(|&(at, _)| at);
        earlier(rising, self.heap.peek().map(|Reverse((at, ..))| *at))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rising.len() + self.heap.len()
    }
}
