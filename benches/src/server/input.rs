//! A connection's input: bytes of which those that are done with leave at the front.

/// The room at first: dozens of small requests.
const BYTES_MIN: usize = 2 * 1024;
/// What the room grows to while reads fill it; a longer frame makes it longer.
const BYTES_MAX: usize = 64 * 1024;

/// Bytes that were read and are not done with, and room for more.
pub(super) struct Input {
    bytes: Vec<u8>,
    filled: usize,
}

impl Input {
    pub(super) fn new() -> Input {
        Input { bytes: vec![0; BYTES_MIN], filled: 0 }
    }

    /// Returns room for a read: as much as the last reads needed, and never none.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.filled == self.bytes.len() {
            self.bytes.resize(2 * self.bytes.len(), 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// Takes note that the first `count` bytes of the room were read into.
    pub(super) fn fill(&mut self, count: usize) {
        self.filled += count;
        // A full buffer: there was more, so the next read is given more room.
        let length = self.bytes.len();
        if self.filled == length && length < BYTES_MAX {
            self.bytes.resize(2 * length, 0);
        }
    }

    /// Returns what was read and is not done with.
    #[inline]
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Takes the first `count` bytes away.
    pub(super) fn consume(&mut self, count: usize) {
        self.bytes.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_room_and_nothing_is_lost() {
        let mut input = Input::new();
        let mut next = 0_u8;
        let mut expected = Vec::new();
        for count in [1, BYTES_MIN, 3 * BYTES_MIN, 100_000, 7] {
            let mut left = count;
            while left > 0 {
                let room = input.room();
                let read = room.len().min(left);
                assert!(read > 0);
                for byte in &mut room[..read] {
                    *byte = next;
                    expected.push(next);
                    next = next.wrapping_add(1);
                }
                input.fill(read);
                left -= read;
            }
            assert_eq!(input.filled(), expected);
            let done = expected.len() / 3;
            input.consume(done);
            expected.drain(..done);
            assert_eq!(input.filled(), expected);
        }
    }
}
