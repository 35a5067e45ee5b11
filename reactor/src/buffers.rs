//! Bounded pools of spare buffers, so that an idle connection holds none.

/// Bytes of the largest buffer that [`Registry::take_buffer`](crate::Registry::take_buffer) lends; a
/// larger one would stay with whoever writes a few bytes next, and is lent by
/// [`Registry::take_large_buffer`](crate::Registry::take_large_buffer).
pub const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Most bytes that all buffers of a pool hold, so that a few large messages do not hold memory for
/// ever.
const SPARE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The pools: of buffers that come out empty, and of large ones, which keep the bytes that are in them.
#[derive(Debug)]
pub(crate) struct Buffers {
    small: Pool,
    large: Pool,
}

impl Buffers {
    /// Makes the pools for a loop whose poll brings so many events.
    ///
    /// Between a turn's poll and its flush each of the sockets may hold an output and the beginning
    /// of a frame: with room for fewer, a turn full of small requests would allocate for the rest.
    pub(crate) fn new(events: usize) -> Self {
        Self { small: Pool::new(2 * events), large: Pool::new(2 * events) }
    }

    /// Takes the buffer given back last (its memory is likely still cached), or a new empty one.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.small.take()
    }

    /// Takes a large buffer, with what was written to it, or a new empty one.
    pub(crate) fn take_large(&mut self) -> Vec<u8> {
        self.large.take()
    }

    /// Keeps a buffer for the next taker, if it is worth it.
    pub(crate) fn give(&mut self, mut buffer: Vec<u8>) {
        match buffer.capacity() {
            0 => {}
            1..=SPARE_BUFFER_BYTES_MAX => {
                buffer.clear();
                self.small.give(buffer);
            }
            _ => self.large.give(buffer),
        }
    }
}

#[derive(Debug)]
struct Pool {
    spare: Vec<Vec<u8>>,
    spare_max: usize,
    /// The capacities of the spare ones, together.
    bytes: usize,
}

impl Pool {
    fn new(spare_max: usize) -> Self {
        Self { spare: Vec::new(), spare_max, bytes: 0 }
    }

    fn take(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    fn give(&mut self, buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if self.spare.len() < self.spare_max && self.bytes + capacity <= SPARE_BYTES_MAX {
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
        buffers.give(vec![0; SPARE_BYTES_MAX + 1]);
        assert_eq!(buffers.small.spare.len() + buffers.large.spare.len(), 1);
        for _ in 0..100 {
            buffers.give(vec![0; 10]);
        }
        assert_eq!(buffers.small.spare.len(), 32);
    }

    #[test]
    fn buffers_are_bounded_in_all() {
        let mut buffers = Buffers::new(1024);
        for _ in 0..100 {
            buffers.give(Vec::with_capacity(SPARE_BUFFER_BYTES_MAX));
        }
        assert_eq!(buffers.small.spare.len(), SPARE_BYTES_MAX / SPARE_BUFFER_BYTES_MAX);
        // What is taken makes room again.
        let taken = buffers.take();
        let kept = buffers.small.spare.len();
        buffers.give(taken);
        assert_eq!(buffers.small.spare.len(), kept + 1);
    }

    #[test]
    fn a_large_one_goes_to_who_asks_for_it_as_it_was() {
        let mut buffers = Buffers::new(16);
        let large = vec![7; SPARE_BUFFER_BYTES_MAX + 1];
        buffers.give(large.clone());
        assert_eq!(buffers.take().capacity(), 0);
        assert_eq!(buffers.take_large(), large);
        assert_eq!(buffers.take_large().capacity(), 0);
    }
}
