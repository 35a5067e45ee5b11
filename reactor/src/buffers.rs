//! A bounded pool of spare buffers, so that an idle connection holds none.

/// Largest buffer worth keeping, in bytes; a larger one goes back to the allocator, so that one
/// large message does not hold memory for ever.
const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Most bytes that all spare buffers hold.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The pool. Buffers come out empty; what they held is gone.
#[derive(Debug)]
pub(crate) struct Buffers {
    spare: Vec<Vec<u8>>,
    spare_max: usize,
    /// The capacities of the spare ones, together.
    bytes: usize,
}

impl Buffers {
    /// Makes a pool for a loop whose poll brings so many events.
    ///
    /// Between a turn's poll and its flush each of the sockets may hold an output and the beginning
    /// of a frame: with room for fewer, a turn full of small requests would allocate for the rest.
    pub(crate) fn new(events: usize) -> Self {
        Self { spare: Vec::new(), spare_max: 2 * events, bytes: 0 }
    }

    /// Takes the buffer given back last (its memory is likely still cached), or a new empty one.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps a buffer for the next taker, if it is worth it.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let is_worth_keeping = (1..=SPARE_BUFFER_BYTES_MAX).contains(&capacity);
        let has_room =
            self.spare.len() < self.spare_max && self.bytes + capacity <= SPARE_BYTES_MAX;
        if is_worth_keeping && has_room {
            buffer.clear();
            self.bytes += capacity;
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_with_their_capacity() {
        let mut buffers = Buffers::new(16);
        assert_eq!(buffers.take().capacity(), 0);
        buffers.give(vec![1; 100]);
        let buffer = buffers.take();
        assert!(buffer.is_empty());
        assert!(buffer.capacity() >= 100);
    }

    #[test]
    fn buffers_are_bounded_in_number_and_size() {
        let mut buffers = Buffers::new(16);
        buffers.give(Vec::new());
        buffers.give(vec![0; SPARE_BUFFER_BYTES_MAX + 1]);
        assert!(buffers.spare.is_empty());
        for _ in 0..100 {
            buffers.give(vec![0; 10]);
        }
        assert_eq!(buffers.spare.len(), 32);
    }

    #[test]
    fn buffers_are_bounded_in_all() {
        let mut buffers = Buffers::new(1024);
        for _ in 0..100 {
            buffers.give(Vec::with_capacity(SPARE_BUFFER_BYTES_MAX));
        }
        assert_eq!(buffers.spare.len(), SPARE_BYTES_MAX / SPARE_BUFFER_BYTES_MAX);
        // What is taken makes room again.
        let taken = buffers.take();
        let kept = buffers.spare.len();
        buffers.give(taken);
        assert_eq!(buffers.spare.len(), kept + 1);
    }
}
