//! The answers kept for calls that may be asked again.

use bytes::Bytes;

/// Answers up to this size are copied into a spare buffer; larger ones are shared with the
/// connection's output instead of being copied a second time.
pub const REPLY_COPY_BYTES_MAX: usize = 1024;

/// Answers up to this size are copied into a slot itself: with their length they fill a cache line.
const LINE_BYTES_MAX: usize = 63;

/// Bytes of one of the two moves that an answer of at least so many is copied by.
const HALF: usize = 32;

/// Free slots that stay for their next use, with their buffers: enough for every call of a busy turn.
const SPARES_MAX: usize = 4096;

/// In the place of an answer: it is not in a line.
const IS_LARGE: u32 = 1 << 31;

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

/// The kept answers. The slot given back last is the first one used again, while it is still in the
/// cache. Small answers lie in the slots themselves, the others in buffers.
#[derive(Clone)]
pub(super) struct Replies {
    small: Lines,
    large: Buffers,
    bytes: usize,
}

impl Replies {
    pub(super) fn new() -> Self {
        Replies { small: Lines::new(), large: Buffers::new(), bytes: 0 }
    }

    /// Returns how many bytes of answers are kept.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many answers are kept.
    pub(super) fn len(&self) -> usize {
        self.small.used as usize + self.large.len()
    }

    /// Keeps an answer, and returns where.
    #[inline(always)]
    pub(super) fn keep(&mut self, answer: Answer<'_>) -> u32 {
        match answer {
            Answer::Copied(bytes) if bytes.len() <= LINE_BYTES_MAX => {
                self.bytes += bytes.len();
                self.small.keep(bytes)
            }
            answer => self.keep_large(answer),
        }
    }

    #[inline(never)]
    fn keep_large(&mut self, answer: Answer<'_>) -> u32 {
        self.bytes += answer.len();
        self.large.keep(answer) | IS_LARGE
    }

    pub(super) fn get(&self, place: u32) -> &[u8] {
        match place & IS_LARGE {
            0 => self.small.get(place),
            _ => self.large.get(place & !IS_LARGE),
        }
    }

    /// Returns a kept answer, to be sent by who has not the table at hand.
    pub(super) fn shared(&self, place: u32) -> Bytes {
        match place & IS_LARGE {
            0 => Bytes::copy_from_slice(self.small.get(place)),
            _ => self.large.shared(place & !IS_LARGE),
        }
    }

    /// Drops a kept answer and returns how many bytes it had.
    #[inline]
    pub(super) fn drop_answer(&mut self, place: u32) -> usize {
        let len = match place & IS_LARGE {
            0 => self.small.drop_answer(place),
            _ => self.large.drop_answer(place & !IS_LARGE),
        };
        self.bytes -= len;
        len
    }
}

/// A small answer: its bytes, and how many they are. A free line holds the place of the next one
/// instead.
#[derive(Clone)]
#[repr(align(64))]
struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    len: u8,
}

impl Line {
    /// No line: places are below [`IS_LARGE`].
    const NONE: u32 = u32::MAX;

    #[inline]
    fn next(&self) -> u32 {
        let [a, b, c, d, ..] = self.bytes;
        u32::from_ne_bytes([a, b, c, d])
    }

    #[inline]
    fn set_next(&mut self, next: u32) {
        self.bytes[..4].copy_from_slice(&next.to_ne_bytes());
    }

    #[inline]
    fn fill(&mut self, answer: &[u8]) {
        // Most have between one half of that and all: two moves that overlap cost less than a call that
        // looks how long it is.
        if let (Some(first), Some(last)) = (answer.first_chunk(), answer.last_chunk::<HALF>())
            && let Some(end) = self.bytes[answer.len() - HALF..].first_chunk_mut()
        {
            *end = *last;
            self.bytes[..HALF].copy_from_slice(first as &[u8; HALF]);
        } else {
            self.copy(answer);
        }
        #[expect(clippy::cast_possible_truncation, reason = "it fits the line")]
        let len = answer.len() as u8;
        self.len = len;
    }

    // Inlined, it would be made one with the moves, and so the call that these are to spare.
    #[inline(never)]
    fn copy(&mut self, answer: &[u8]) {
        self.bytes[..answer.len()].copy_from_slice(answer);
    }
}

/// The small answers.
#[derive(Clone)]
struct Lines {
    lines: Vec<Line>,
    /// The line that is used next, the head of a list through all that are free.
    free: u32,
    used: u32,
}

impl Lines {
    fn new() -> Self {
        Lines { lines: Vec::new(), free: Line::NONE, used: 0 }
    }

    #[inline(always)]
    fn keep(&mut self, answer: &[u8]) -> u32 {
        self.used += 1;
        let place = self.free;
        let Some(line) = self.lines.get_mut(place as usize) else {
            return self.add(answer);
        };
        self.free = line.next();
        line.fill(answer);
        place
    }

    /// All lines are used: adds one.
    #[cold]
    fn add(&mut self, answer: &[u8]) -> u32 {
        let mut line = Line { bytes: [0; LINE_BYTES_MAX], len: 0 };
        line.fill(answer);
        self.lines.push(line);
        let place = u32::try_from(self.lines.len() - 1).ok().filter(|place| place & IS_LARGE == 0);
        place.expect("kept replies are bounded far below 2^31")
    }

    fn get(&self, place: u32) -> &[u8] {
        let line = &self.lines[place as usize];
        &line.bytes[..usize::from(line.len)]
    }

    #[inline]
    fn drop_answer(&mut self, place: u32) -> usize {
        let line = &mut self.lines[place as usize];
        let len = usize::from(line.len);
        line.set_next(self.free);
        self.free = place;
        self.used -= 1;
        if self.used == 0 && self.lines.len() > SPARES_MAX {
            // After a burst, at rest.
            *self = Lines::new();
        }
        len
    }
}

#[derive(Clone)]
enum Slot {
    /// A buffer, which stays for the next answer while the slot is free, but empty.
    Copied(Vec<u8>),
    Shared(Bytes),
}

/// The other answers.
#[derive(Clone)]
struct Buffers {
    slots: Vec<Slot>,
    /// Free slots, the one used next on top; only the top [`SPARES_MAX`] have buffers.
    free: Vec<u32>,
}

impl Buffers {
    fn new() -> Self {
        Buffers { slots: Vec::new(), free: Vec::new() }
    }

    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn keep(&mut self, answer: Answer<'_>) -> u32 {
        let place = self.free_place();
        match (&mut self.slots[place as usize], answer) {
            (Slot::Copied(buffer), Answer::Copied(bytes)) => buffer.extend_from_slice(bytes),
            (slot, Answer::Copied(bytes)) => *slot = Slot::Copied(bytes.to_vec()),
            (slot, Answer::Shared(bytes)) => *slot = Slot::Shared(bytes),
        }
        place
    }

    /// Takes the place of the slot that is used next.
    fn free_place(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Copied(Vec::new()));
            let place = u32::try_from(self.slots.len() - 1).ok();
            place.filter(|place| place & IS_LARGE == 0).expect("bounded far below 2^31")
        })
    }

    fn get(&self, place: u32) -> &[u8] {
        match &self.slots[place as usize] {
            Slot::Copied(bytes) => bytes,
            Slot::Shared(bytes) => bytes,
        }
    }

    fn shared(&self, place: u32) -> Bytes {
        match &self.slots[place as usize] {
            Slot::Copied(bytes) => Bytes::copy_from_slice(bytes),
            Slot::Shared(bytes) => bytes.clone(),
        }
    }

    fn drop_answer(&mut self, place: u32) -> usize {
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
            if self.len() == 0 {
                *self = Buffers::new();
            }
        }
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

    const MEDIUM: &[u8] = &[5; LINE_BYTES_MAX + 1];

    /// Returns how many free slots have a buffer.
    fn spares(replies: &Replies) -> usize {
        let has_buffer = |place: &&u32| match &replies.large.slots[**place as usize] {
            Slot::Copied(buffer) => buffer.capacity() > 0,
            Slot::Shared(_) => false,
        };
        replies.large.free.iter().filter(has_buffer).count()
    }

    #[test]
    fn a_small_answer_takes_one_cache_line() {
        assert_eq!((size_of::<Line>(), align_of::<Line>()), (64, 64));
    }

    #[test]
    fn a_slot_is_used_again() {
        for one in [b"one", MEDIUM] {
            let mut replies = Replies::new();
            let first = replies.keep(Answer::Copied(one));
            assert_eq!((replies.get(first), replies.bytes(), replies.len()), (one, one.len(), 1));
            assert_eq!(replies.drop_answer(first), one.len());
            let second = replies.keep(Answer::Copied(one));
            assert_eq!((second, replies.get(second)), (first, one));
            assert_eq!(replies.drop_answer(second), one.len());
            assert_eq!((replies.bytes(), replies.len()), (0, 0));
        }
        let mut replies = Replies::new();
        let first = replies.keep(Answer::Copied(MEDIUM));
        replies.drop_answer(first);
        let second = replies.keep(Answer::Shared(Bytes::from_static(b"shared")));
        assert_eq!((second, replies.get(second)), (first, &b"shared"[..]));
        assert_eq!(replies.drop_answer(second), 6);
        assert_eq!(replies.keep(Answer::Copied(MEDIUM)), first);
    }

    #[test]
    fn every_length_comes_back_whatever_is_kept_beside_it() {
        let mut replies = Replies::new();
        let text: Vec<u8> = (0..2 * LINE_BYTES_MAX).map(|i| i.to_le_bytes()[0]).collect();
        for round in 0..3 {
            let kept: Vec<_> = (0..text.len())
                .map(|len| {
                    (len, replies.keep(Answer::Copied(&text[round..][..len - len.min(round)])))
                })
                .collect();
            assert_eq!(replies.len(), text.len());
            for &(len, place) in &kept {
                let answer = &text[round..][..len - len.min(round)];
                assert_eq!(replies.get(place), answer);
                assert_eq!(replies.shared(place), answer);
            }
            for (len, place) in kept {
                assert_eq!(replies.drop_answer(place), len - len.min(round));
            }
            assert_eq!((replies.bytes(), replies.len()), (0, 0));
        }
    }

    #[test]
    fn after_a_burst_no_line_stays() {
        let mut replies = Replies::new();
        let mut burst: Vec<u32> =
            (0..SPARES_MAX + 1).map(|_| replies.keep(Answer::Copied(b"answer"))).collect();
        let last = burst.pop().unwrap();
        for place in burst {
            replies.drop_answer(place);
        }
        assert_eq!(replies.get(last), b"answer");
        replies.drop_answer(last);
        assert_eq!(replies.small.lines.capacity(), 0);
        let place = replies.keep(Answer::Copied(b"another"));
        assert_eq!((replies.get(place), replies.len()), (&b"another"[..], 1));
    }

    #[test]
    fn after_a_burst_few_buffers_stay_and_they_are_the_ones_used() {
        let mut replies = Replies::new();
        let mut burst: Vec<u32> =
            (0..2 * SPARES_MAX).map(|_| replies.keep(Answer::Copied(MEDIUM))).collect();
        let last = burst.pop().unwrap();
        for place in burst {
            replies.drop_answer(place);
        }
        assert_eq!(spares(&replies), SPARES_MAX);
        let place = replies.keep(Answer::Copied(MEDIUM));
        assert_eq!(spares(&replies), SPARES_MAX - 1, "no new buffer");
        replies.drop_answer(place);
        assert_eq!(spares(&replies), SPARES_MAX);
        replies.drop_answer(last);
        assert_eq!(replies.large.slots.capacity(), 0, "at rest nothing stays");
    }

    #[test]
    fn a_large_buffer_does_not_stay() {
        let mut replies = Replies::new();
        let place = replies.keep(Answer::Copied(&[7; REPLY_COPY_BYTES_MAX + 1]));
        assert_eq!(replies.drop_answer(place), REPLY_COPY_BYTES_MAX + 1);
        assert_eq!((spares(&replies), replies.bytes(), replies.len()), (0, 0, 0));
    }
}
