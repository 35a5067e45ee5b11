//! What is to happen, in the order of its time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::connection::Key;

/// Something that is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// The first segment to this side arrives.
    Deliver { to: usize, key: Key },
    /// A partition may be over.
    PartitionEnds,
    /// A connection was refused, or nobody answers.
    Refused { key: Key, attempts: u32 },
    /// The fault.
    Reset { key: Key },
    /// A reset arrives at this side.
    ResetArrives { at: usize, key: Key },
    /// A host that is down is started anew.
    Restart { host: usize },
    /// There is room again for this side to write.
    Room { side: usize, key: Key },
    /// A fault of time strikes; of no account if the faults were set anew since.
    Strike { strike: Strike, epoch: u32 },
    /// A connection's beginning arrives where somebody may listen.
    Syn { key: Key, attempts: u32 },
    /// The answer to it arrives.
    SynAck { key: Key, attempts: u32 },
}

/// A fault that strikes by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Strike {
    Kill,
    Leap,
    Partition,
    Spurious,
    Stall,
}

impl Strike {
    pub(crate) const ALL: [Self; 5] =
        [Self::Kill, Self::Leap, Self::Partition, Self::Spurious, Self::Stall];
}

/// The queue. What happens at one time happens in the order in which it was brought about.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pushed: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.pushed += 1;
        self.heap.push(Reverse((at, self.pushed, event)));
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.heap.pop().map(|Reverse((_, _, event))| event)
    }
}
