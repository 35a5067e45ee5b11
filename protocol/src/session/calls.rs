//! The open calls of a session, and the buffers their requests are kept in.

use std::fmt;
use std::time::Instant;

use super::{CallSpec, Semantics};

/// Queues and heaps that hold ended calls are cleaned when they are twice as long as they need to
/// be, and longer than this: below it, cleaning costs more than it frees.
pub(super) const COMPACT_ABOVE: usize = 64;

/// Capacity, in bytes, of all spare request buffers that are kept: small ones for the widest window
/// many times over.
const SPARE_BYTES_MAX: usize = 512 * 1024;
/// Capacity, in bytes, above which a request buffer is freed instead of kept.
const SPARE_BUFFER_BYTES_MAX: usize = 4 * 1024;

/// The bit that tells a label of an unprotected call from a seq: the largest that is not refused.
const LABEL: u64 = 1 << 62;
/// How many bits of a generation a label has room for.
const LABEL_GENERATION: u64 = (1 << 30) - 1;

/// Names a call of one session, for as long as the call is open; a stale key names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl CallKey {
    /// Returns the key as a number, for a host that can keep only numbers.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// Returns the key that [`CallKey::to_bits`] made this number of. Any other number makes a key
    /// that names nothing, or some other call.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
    pub const fn from_bits(bits: u64) -> CallKey {
        CallKey { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl fmt::Debug for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallKey({}.{})", self.index, self.generation)
    }
}

/// Where a call is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// To be sent again on this connection.
    Due,
    /// Numbered, and to be sent when that is safe in the journal.
    Journaling,
    /// Sent on a connection that is gone, or due when it went.
    Lost,
    /// Never sent.
    Queued,
    /// Sent on this connection and not answered.
    Sent,
    /// Refused for good on the first connection, while a copy is out on the second.
    Refused,
    /// There is no call here.
    Vacant,
    /// Refused; due again when its timer says so.
    Waiting,
}

/// Whether the server has crashed while it ran the call, and what was asked of it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Not that anybody knows.
    None,
    /// It has said so.
    Told,
    /// It has said so, and the call was sent again on this connection.
    Asked,
}

/// One call, or one notification.
#[derive(Debug)]
pub(super) struct Call<T> {
    /// What comes back with the answer; `None` for a notification.
    pub(super) attached: Option<T>,
    /// The whole frame. Empty once it will not be sent again.
    pub(super) request: Vec<u8>,
    pub(super) deadline: Option<Instant>,
    /// The xid's number or the label; 0 until the first transmission.
    pub(super) seq: u64,
    pub(super) generation: u32,
    /// Copies sent and neither refused nor dropped by a RESUME that found the cell vacant.
    pub(super) copies: u32,
    /// How often it was sent, on whatever connection.
    pub(super) transmissions: u32,
    /// How often it may be.
    pub(super) attempts: u32,
    /// How often it was refused.
    pub(super) refusals: u32,
    /// After how many microseconds without an answer a copy goes to the second connection; all ones:
    /// never.
    pub(super) hedge_after_us: u32,
    /// When it was first sent.
    pub(super) sent_at: Option<Instant>,
    /// Whether a copy is out on the second connection.
    pub(super) is_hedged: bool,
    /// Whether one ever was since a RESUME last told what became of all copies.
    pub(super) was_hedged: bool,
    /// What its caller knows it by, in the journal.
    pub(super) tag: u64,
    /// Whether it was written into the journal.
    pub(super) has_record: bool,
    pub(super) semantics: Semantics,
    /// Whether its method is declared idempotent.
    pub(super) is_idempotent: bool,
    pub(super) doubt: Doubt,
    pub(super) stage: Stage,
}

impl<T> Call<T> {
    /// Returns a place for a call.
    fn vacant() -> Call<T> {
        Call {
            attached: None,
            request: Vec::new(),
            deadline: None,
            seq: 0,
            generation: 0,
            copies: 0,
            transmissions: 0,
            attempts: u32::MAX,
            refusals: 0,
            hedge_after_us: u32::MAX,
            sent_at: None,
            is_hedged: false,
            was_hedged: false,
            tag: 0,
            has_record: false,
            semantics: Semantics::ExactlyOnce,
            is_idempotent: false,
            doubt: Doubt::None,
            stage: Stage::Vacant,
        }
    }

    /// Makes this place a call that was never sent, with nothing attached: written where it stays,
    /// not moved there.
    #[inline]
    fn begin(&mut self, spec: &CallSpec, request: Vec<u8>) {
        self.request = request;
        self.deadline = spec.deadline;
        self.copies = 0;
        self.transmissions = 0;
        self.attempts = spec.attempts.max(1);
        self.refusals = 0;
        self.hedge_after_us = spec
            .hedge_after
            .map_or(u32::MAX, |after| u32::try_from(after.as_micros()).unwrap_or(u32::MAX));
        self.sent_at = None;
        self.is_hedged = false;
        self.was_hedged = false;
        self.tag = spec.tag;
        self.has_record = false;
        self.semantics = spec.semantics;
        self.is_idempotent = spec.idempotent;
        self.doubt = Doubt::None;
        self.stage = Stage::Queued;
    }

    /// Returns whether the call has an xid in the server's table.
    pub(super) fn is_protected(&self) -> bool {
        self.semantics != Semantics::AtLeastOnce
    }

    /// Returns whether it has certainly not run, and will not unless it is sent again. What was once in
    /// doubt stays so, whatever becomes of later copies.
    pub(super) fn is_proved(&self) -> bool {
        self.copies == 0 && self.doubt == Doubt::None
    }

    /// Returns whether it may be sent once more.
    pub(super) fn has_attempts(&self) -> bool {
        self.transmissions < self.attempts
    }
}

/// The calls, by index and generation.
#[derive(Debug)]
pub(super) struct Calls<T> {
    /// The places, some of them vacant. They stay, and are written anew in place.
    places: Vec<Call<T>>,
    /// Which are vacant; the last to become so is taken first.
    vacant: Vec<u32>,
    spare: Vec<Vec<u8>>,
    /// Capacity of the spare buffers.
    spare_bytes: usize,
}

impl<T> Calls<T> {
    pub(super) fn new() -> Calls<T> {
        Calls { places: Vec::new(), vacant: Vec::new(), spare: Vec::new(), spare_bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// Adds a call that was never sent, with nothing attached.
    #[inline]
    pub(super) fn insert(&mut self, spec: &CallSpec, request: Vec<u8>) -> (CallKey, &mut Call<T>) {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(Call::vacant());
            u32::try_from(self.places.len() - 1).expect("the queue's bound is far below 2^32")
        });
        let call = &mut self.places[index as usize];
        call.begin(spec, request);
        (CallKey { index, generation: call.generation }, call)
    }

    /// Takes a call out and returns what was attached to it.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let call = self.at_mut(index);
        debug_assert!(call.stage != Stage::Vacant);
        call.stage = Stage::Vacant;
        call.seq = 0;
        call.generation = call.generation.wrapping_add(1);
        let attached = call.attached.take();
        let request = std::mem::take(&mut call.request);
        self.give_buffer(request);
        self.vacant.push(index);
        attached
    }

    #[inline]
    pub(super) fn get(&self, key: CallKey) -> Option<&Call<T>> {
        self.places
            .get(key.index as usize)
            .filter(|call| call.generation == key.generation && call.stage != Stage::Vacant)
    }

    /// Returns the call at an index that a live structure holds.
    #[inline]
    pub(super) fn at(&self, index: u32) -> &Call<T> {
        &self.places[index as usize]
    }

    /// Returns the call at an index that a live structure holds.
    #[inline]
    pub(super) fn at_mut(&mut self, index: u32) -> &mut Call<T> {
        &mut self.places[index as usize]
    }

    pub(super) fn key(&self, index: u32) -> CallKey {
        CallKey { index, generation: self.at(index).generation }
    }

    /// Returns the indices of all calls, so that they can be walked while some of them end.
    pub(super) fn indices(&self) -> Vec<u32> {
        let places = (0..).zip(&self.places);
        places.filter(|(_, call)| call.stage != Stage::Vacant).map(|(index, _)| index).collect()
    }

    /// Returns the label an unprotected call goes by on the wire.
    pub(super) fn label(key: CallKey) -> u64 {
        LABEL | (u64::from(key.generation) & LABEL_GENERATION) << 32 | u64::from(key.index)
    }

    pub(super) fn is_label(seq: u64) -> bool {
        seq & LABEL != 0
    }

    /// Returns the index of the unprotected call with this label, if it is still open.
    pub(super) fn by_label(&self, label: u64) -> Option<u32> {
        let index = u32::try_from(label & u64::from(u32::MAX)).ok()?;
        let call = self.places.get(index as usize)?;
        (!call.is_protected() && call.seq == label).then_some(index)
    }

    #[inline]
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= buffer.capacity();
        buffer
    }

    #[inline]
    pub(super) fn give_buffer(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity > 0
            && capacity <= SPARE_BUFFER_BYTES_MAX
            && self.spare_bytes + capacity <= SPARE_BYTES_MAX
        {
            self.spare_bytes += capacity;
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::MethodId;

    fn insert(calls: &mut Calls<u32>, attached: u32) -> CallKey {
        let spec = CallSpec { semantics: Semantics::AtLeastOnce, ..CallSpec::new(MethodId(0)) };
        let (key, call) = calls.insert(&spec, Vec::new());
        call.attached = Some(attached);
        key
    }

    #[test]
    fn a_stale_key_names_nothing() {
        let mut calls = Calls::new();
        let first = insert(&mut calls, 1);
        assert_eq!(calls.remove(first.index), Some(1));
        let vacant = CallKey { generation: first.generation + 1, ..first };
        assert!(calls.get(first).is_none() && calls.get(vacant).is_none());
        assert_eq!((calls.len(), calls.indices()), (0, vec![]));
        let second = insert(&mut calls, 2);
        assert_eq!(first.index, second.index);
        assert!(calls.get(first).is_none());
        assert_eq!(calls.get(second).and_then(|call| call.attached), Some(2));
        assert_eq!(CallKey::from_bits(second.to_bits()), second);
    }

    #[test]
    fn a_stale_label_names_nothing() {
        let mut calls = Calls::new();
        let first = insert(&mut calls, 1);
        let old = Calls::<u32>::label(first);
        calls.remove(first.index);
        let second = insert(&mut calls, 2);
        let new = Calls::<u32>::label(second);
        calls.at_mut(second.index).seq = new;
        assert_ne!(old, new);
        assert_eq!(calls.by_label(old), None);
        assert_eq!(calls.by_label(new), Some(second.index));
        assert!(new < crate::frame::SEQ_MAX);
    }

    #[test]
    fn large_buffers_are_not_kept() {
        let mut calls: Calls<u32> = Calls::new();
        calls.give_buffer(Vec::with_capacity(SPARE_BUFFER_BYTES_MAX + 1));
        assert_eq!(calls.take_buffer().capacity(), 0);
        calls.give_buffer(vec![1; 10]);
        let buffer = calls.take_buffer();
        assert!(buffer.is_empty() && buffer.capacity() >= 10);
    }
}
