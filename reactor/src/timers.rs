//! Timers: a 4-ary heap that knows where each of its entries is.
//!
//! The heap orders (deadline, order of arming), so timers of one instant run first in, first out.
//! A slab holds what a timer does and its position in the heap; arming, re-arming and cancelling
//! are O(log n), and the heap moves 16 bytes per step without touching the actions' boxes.
//! (Four children instead of two: half the depth, and siblings share cache lines; see LaMarca and
//! Ladner, "The influence of caches on the performance of heaps", 1996.)
//!
//! Due timers are collected first and run one by one later. Until its turn comes a collected
//! timer can still be cancelled.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use slab::Slab;

#[cfg(test)]
mod tests;

/// Names a timer of [`Registry::after`](crate::Registry::after) or
/// [`Registry::at`](crate::Registry::at).
///
/// Stale once the timer has run or was cancelled: cancelling it then does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

/// Children of a node of the heap.
const ARITY: usize = 4;

/// The position of a timer that has left the heap because it is due.
const POSITION_DUE: u32 = u32::MAX;

/// What the heap moves about.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Nanoseconds since `Timers::epoch` (584 years fit).
    deadline_ns: u64,
    /// Counts the armings, so that those of one instant stay in order. It wraps: two timers of one
    /// nanosecond are not 2³¹ armings apart.
    order: u32,
    /// The timer's place in the slab.
    index: u32,
}

impl Entry {
    /// Orders by deadline, then by arming.
    fn cmp(&self, other: &Entry) -> Ordering {
        let armed_later = self.order.wrapping_sub(other.order).cast_signed();
        self.deadline_ns.cmp(&other.deadline_ns).then(armed_later.cmp(&0))
    }
}

#[derive(Debug)]
struct Slot<A> {
    /// Where the entry is in the heap, or [`POSITION_DUE`].
    position: u32,
    generation: NonZeroU32,
    action: A,
}

/// All timers of a reactor, each with an action of type `A` to hand back when it is due.
#[derive(Debug)]
pub(crate) struct Timers<A> {
    epoch: Instant,
    heap: Vec<Entry>,
    slots: Slab<Slot<A>>,
    due: VecDeque<TimerId>,
    armed: u32,
    generation: NonZeroU32,
}

impl<A> Timers<A> {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            heap: Vec::new(),
            slots: Slab::new(),
            due: VecDeque::new(),
            armed: 0,
            generation: NonZeroU32::MIN,
        }
    }

    /// Arms a timer.
    pub(crate) fn insert(&mut self, deadline: Instant, action: A) -> TimerId {
        let position = to_u32(self.heap.len());
        self.generation = self.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let generation = self.generation;
        let index = to_u32(self.slots.insert(Slot { position, generation, action }));
        let entry = self.entry(deadline, index);
        self.heap.push(entry);
        self.sift_up(self.heap.len() - 1);
        TimerId { index, generation }
    }

    /// Disarms a timer that has not run, even if it has been collected already.
    pub(crate) fn remove(&mut self, id: TimerId) -> Option<A> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        if slot.position != POSITION_DUE {
            self.remove_entry(slot.position as usize);
        }
        Some(self.slots.remove(id.index as usize).action)
    }

    /// Moves a timer to another deadline, as if it had been armed now. Returns its id, which is
    /// another one if it had been collected.
    pub(crate) fn rearm(&mut self, id: TimerId, deadline: Instant) -> Option<TimerId> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        if slot.position == POSITION_DUE {
            let action = self.remove(id)?;
            return Some(self.insert(deadline, action));
        }
        let position = slot.position as usize;
        self.heap[position] = self.entry(deadline, id.index);
        self.sift(position);
        Some(id)
    }

    /// Moves what is due from the heap to the queue that [`Timers::pop_due`] serves.
    pub(crate) fn collect_due(&mut self, now: Instant) {
        let now_ns = self.since_epoch(now);
        while let Some(entry) = self.heap.first() {
            if entry.deadline_ns > now_ns {
                break;
            }
            let index = entry.index;
            self.remove_entry(0);
            let slot = &mut self.slots[index as usize];
            slot.position = POSITION_DUE;
            self.due.push_back(TimerId { index, generation: slot.generation });
        }
    }

    /// Takes the next collected timer that has not been cancelled since.
    pub(crate) fn pop_due(&mut self) -> Option<A> {
        while let Some(id) = self.due.pop_front() {
            if let Some(action) = self.remove(id) {
                return Some(action);
            }
        }
        None
    }

    /// Whether collected timers wait to be run (or to be found cancelled).
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The deadline of the timer that is due next, of those not collected.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|entry| self.epoch + Duration::from_nanos(entry.deadline_ns))
    }

    fn entry(&mut self, deadline: Instant, index: u32) -> Entry {
        self.armed = self.armed.wrapping_add(1);
        Entry { deadline_ns: self.since_epoch(deadline), order: self.armed, index }
    }

    fn since_epoch(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn remove_entry(&mut self, position: usize) {
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.sift(position);
        }
    }

    /// Brings the entry at `position`, which may be out of order either way, to its place.
    fn sift(&mut self, position: usize) {
        if self.sift_up(position) == position {
            self.sift_down(position);
        }
    }

    fn sift_up(&mut self, mut position: usize) -> usize {
        let entry = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / ARITY;
            if self.heap[parent].cmp(&entry).is_le() {
                break;
            }
            self.place(position, self.heap[parent]);
            position = parent;
        }
        self.place(position, entry);
        position
    }

    fn sift_down(&mut self, mut position: usize) {
        let entry = self.heap[position];
        loop {
            let first = ARITY * position + 1;
            let end = (first + ARITY).min(self.heap.len());
            let children = first..end;
            let Some(least) = children.min_by(|&a, &b| self.heap[a].cmp(&self.heap[b])) else {
                break;
            };
            if entry.cmp(&self.heap[least]).is_le() {
                break;
            }
            self.place(position, self.heap[least]);
            position = least;
        }
        self.place(position, entry);
    }

    fn place(&mut self, position: usize, entry: Entry) {
        self.heap[position] = entry;
        self.slots[entry.index as usize].position = to_u32(position);
    }
}

fn to_u32(n: usize) -> u32 {
    // A timer takes more than 40 bytes: 2^32 of them do not fit a machine that this runs on.
    u32::try_from(n).expect("fewer than 2^32 timers")
}
