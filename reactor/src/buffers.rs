//! A bounded pool of spare buffers, so that an idle connection holds none.

/// Most spare buffers kept: what a turn with many half-read sockets takes and gives back.
pub(crate) const SPARE_BUFFERS_MAX: usize = 64;

/// Largest buffer worth keeping, in bytes; a larger one goes back to the allocator, so that one
/// large message does not hold memory for ever. With the count: at most 4 MiB are held.
pub(crate) const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// The pool. Buffers come out empty; what they held is gone.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    spare: Vec<Vec<u8>>,
}

impl Buffers {
    /// Takes the buffer given back last (its memory is likely still cached), or a new empty one.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps a buffer for the next taker, if it is worth it.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        let is_worth_keeping = (1..=SPARE_BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if is_worth_keeping && self.spare.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_with_their_capacity() {
        let mut buffers = Buffers::default();
        assert_eq!(buffers.take().capacity(), 0);
        buffers.give(vec![1; 100]);
        let buffer = buffers.take();
        assert!(buffer.is_empty());
        assert!(buffer.capacity() >= 100);
    }

    #[test]
    fn buffers_are_bounded_in_number_and_size() {
        let mut buffers = Buffers::default();
        buffers.give(Vec::new());
        buffers.give(vec![0; SPARE_BUFFER_BYTES_MAX + 1]);
        assert!(buffers.spare.is_empty());
        for _ in 0..2 * SPARE_BUFFERS_MAX {
            buffers.give(vec![0; 10]);
        }
        assert_eq!(buffers.spare.len(), SPARE_BUFFERS_MAX);
    }
}
