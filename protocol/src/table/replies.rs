//! The answers kept for calls that may be asked again.

use bytes::Bytes;

/// Answers up to this size are copied into a spare buffer; larger ones are shared with the
/// connection's output instead of being copied a second time.
pub const REPLY_COPY_BYTES_MAX: usize = 1024;

/// Free slots that keep a buffer for their next use: enough for every call of a busy turn.
const SPARES_MAX: usize = 4096;

/// A whole REPLY or ERROR frame on its way to be kept.
///
/// Exhaustive: bytes are copied or shared.
#[derive(Clone, Debug)]
pub enum Answer<'a> {
    /// Bytes to copy; at most [`REPLY_COPY_BYTES_MAX`] of them if that is to be cheap.
    Copied(&'a [u8]),
    /// Bytes that the connection's output holds as well.
    Shared(Bytes),
}

impl Answer<'_> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Answer::Copied(bytes) => bytes.len(),
            Answer::Shared(bytes) => bytes.len(),
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Answer::Copied(bytes) => Bytes::copy_from_slice(bytes),
            Answer::Shared(bytes) => bytes,
        }
    }
}

#[derive(Clone)]
enum Slot {
    /// A buffer, which stays for the next answer while the slot is free, but empty.
    Copied(Vec<u8>),
    Shared(Bytes),
}

/// The kept answers. The slot given back last is the first one used again, while it and its buffer
/// are still in the cache.
#[derive(Clone)]
pub(super) struct Replies {
    slots: Vec<Slot>,
    /// Free slots, the one used next on top; only the top [`SPARES_MAX`] have buffers.
    free: Vec<u32>,
    bytes: usize,
}

impl Replies {
    pub(super) fn new() -> Self {
        Replies { slots: Vec::new(), free: Vec::new(), bytes: 0 }
    }

    /// Returns how many bytes of answers are kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many answers are kept.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Keeps an answer, and returns where.
    #[inline]
    pub(super) fn keep(&mut self, answer: Answer<'_>) -> u32 {
        match answer {
            Answer::Copied(bytes) => self.copy(bytes),
            Answer::Shared(bytes) => self.share(bytes),
        }
    }

    #[inline]
    fn copy(&mut self, bytes: &[u8]) -> u32 {
        self.bytes += bytes.len();
        let place = self.free_place();
        match &mut self.slots[place as usize] {
            Slot::Copied(buffer) => buffer.extend_from_slice(bytes),
            slot => *slot = Slot::Copied(bytes.to_vec()),
        }
        place
    }

    fn share(&mut self, bytes: Bytes) -> u32 {
        self.bytes += bytes.len();
        let place = self.free_place();
        self.slots[place as usize] = Slot::Shared(bytes);
        place
    }

    /// Takes the place of the slot that is used next.
    #[inline]
    fn free_place(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Copied(Vec::new()));
            u32::try_from(self.slots.len() - 1).expect("kept replies are bounded far below 2^32")
        })
    }

    pub(super) fn get(&self, place: u32) -> &[u8] {
        match &self.slots[place as usize] {
            Slot::Copied(bytes) => bytes,
            Slot::Shared(bytes) => bytes,
        }
    }

    /// Returns a kept answer, to be sent by who has not the table at hand.
    pub(super) fn shared(&self, place: u32) -> Bytes {
        match &self.slots[place as usize] {
            Slot::Copied(bytes) => Bytes::copy_from_slice(bytes),
            Slot::Shared(bytes) => bytes.clone(),
        }
    }

    /// Drops a kept answer and returns how many bytes it had.
    #[inline]
    pub(super) fn drop_answer(&mut self, place: u32) -> usize {
        let len = match &mut self.slots[place as usize] {
            Slot::Copied(buffer) if buffer.capacity() <= REPLY_COPY_BYTES_MAX => {
                let len = buffer.len();
                buffer.clear();
                len
            }
            _ => self.release(place),
        };
        self.free.push(place);
        if self.free.len() > SPARES_MAX {
            // After a burst: the slots used next are those on top, the others need no buffer.
            self.release(self.free[self.free.len() - 1 - SPARES_MAX]);
        }
        self.bytes -= len;
        len
    }

    /// Gives back the memory of a slot, and returns how many bytes of an answer it held.
    #[cold]
    fn release(&mut self, place: u32) -> usize {
        match std::mem::replace(&mut self.slots[place as usize], Slot::Copied(Vec::new())) {
            Slot::Copied(buffer) => buffer.len(),
            Slot::Shared(bytes) => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many free slots have a buffer.
    fn spares(replies: &Replies) -> usize {
        let has_buffer = |place: &&u32| match &replies.slots[**place as usize] {
            Slot::Copied(buffer) => buffer.capacity() > 0,
            Slot::Shared(_) => false,
        };
        replies.free.iter().filter(has_buffer).count()
    }

    #[test]
    fn a_slot_is_used_again() {
        let mut replies = Replies::new();
        let first = replies.keep(Answer::Copied(b"one"));
        assert_eq!((replies.get(first), replies.bytes(), replies.len()), (&b"one"[..], 3, 1));
        assert_eq!(replies.drop_answer(first), 3);
        let second = replies.keep(Answer::Shared(Bytes::from_static(b"shared")));
        assert_eq!((second, replies.get(second)), (first, &b"shared"[..]));
        assert_eq!(replies.drop_answer(second), 6);
        let third = replies.keep(Answer::Copied(b"3"));
        assert_eq!((third, replies.get(third), replies.bytes()), (first, &b"3"[..], 1));
    }
    #[test]
    fn after_a_burst_few_buffers_stay_and_they_are_the_ones_used() {
        let mut replies = Replies::new();
        let burst: Vec<u32> =
            (0..2 * SPARES_MAX).map(|_| replies.keep(Answer::Copied(b"answer"))).collect();
        for place in burst {
            replies.drop_answer(place);
        }
        assert_eq!(spares(&replies), SPARES_MAX);
        let place = replies.keep(Answer::Copied(b"answer"));
        assert_eq!(spares(&replies), SPARES_MAX - 1, "no new buffer");
        replies.drop_answer(place);
        assert_eq!(spares(&replies), SPARES_MAX);
    }

    #[test]
    fn a_large_buffer_does_not_stay() {
        let mut replies = Replies::new();
        let place = replies.keep(Answer::Copied(&[7; REPLY_COPY_BYTES_MAX + 1]));
        assert_eq!(replies.drop_answer(place), REPLY_COPY_BYTES_MAX + 1);
        assert_eq!((spares(&replies), replies.bytes(), replies.len()), (0, 0, 0));
    }
}
