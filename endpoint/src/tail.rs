//! Input that waits for a later turn.

/// How far the memory of a long frame runs ahead of what has arrived: this many times as far, so
/// that it is moved once or twice. A peer that only announces much gets little.
const RESERVED_TIMES: usize = 4;
/// How far it is written ahead, as a read needs it to be: as far as what has arrived is long, within
/// these bounds.
const AHEAD_BYTES_MIN: usize = 4 * 1024;
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// How much larger than what is kept in it the buffer of an unfinished frame may be.
const SLACK_BYTES_MAX: usize = 4 * 1024;

/// An unfinished frame, or frames beyond the budget of a turn.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// Written as far as a read once needed it to be, which may be further than it was filled.
    buffer: Vec<u8>,
    /// What stands before has been run.
    start: usize,
    /// What stands from here on was not read.
    end: usize,
}

impl Tail {
    /// Copies the rest of a batch into a buffer: an unfinished frame of `needs` bytes, or frames (0).
    /// Returns the buffer instead if it is not used.
    ///
    /// A few bytes do not take a large spare buffer with them: peers that send half a frame each
    /// would hold them all.
    pub(crate) fn copy(rest: &[u8], needs: usize, spare: Vec<u8>) -> (Tail, Vec<u8>) {
        let len = rest.len();
        let capacity = reserved(needs, len).max(len);
        let (mut buffer, unused) = match spare.capacity() > capacity + SLACK_BYTES_MAX {
            true => (Vec::new(), spare),
            false => (spare, Vec::new()),
        };
        match buffer.get_mut(..len) {
            Some(front) => front.copy_from_slice(rest),
            None => {
                buffer.clear();
                buffer.reserve_exact(capacity);
                buffer.extend_from_slice(rest);
            }
        }
        (Tail { buffer, start: 0, end: len }, unused)
    }

    /// Returns an empty tail with room for a read of so many bytes.
    pub(crate) fn with_space(mut buffer: Vec<u8>, bytes: usize) -> Tail {
        if buffer.len() < bytes {
            buffer.reserve_exact(bytes - buffer.len());
            buffer.resize(bytes, 0);
        }
        Tail { buffer, start: 0, end: 0 }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes of memory this takes.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Returns whether what is left of it, an unfinished frame of `needs` bytes or frames (0), is so
    /// little that it is worth to be copied into a smaller buffer.
    pub(crate) fn is_too_large(&self, needs: usize) -> bool {
        let len = self.len();
        self.capacity() > reserved(needs, len).max(2 * len) + SLACK_BYTES_MAX
    }

    /// Drops all but the last `len` bytes. They stay where they are.
    pub(crate) fn keep_last(&mut self, len: usize) {
        debug_assert!(len <= self.len(), "there are not so many");
        self.start = self.end - len;
    }

    /// Returns room behind a frame that will have `needs` bytes, for more of it: not more than
    /// `bytes_max`.
    pub(crate) fn space(&mut self, needs: usize, bytes_max: usize) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
        let ahead = self.end.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
        // What is written already can be read into as far as it goes.
        let until = needs.min((self.end + ahead).max(self.buffer.len()).min(self.end + bytes_max));
        if until > self.buffer.capacity() {
            let reserved = reserved(needs, self.end).max(until);
            self.buffer.reserve_exact(reserved - self.buffer.len());
        }
        if until > self.buffer.len() {
            self.buffer.resize(until, 0);
        }
        &mut self.buffer[self.end..until]
    }

    /// Notes that the first `n` bytes of the room were read into.
    pub(crate) fn fill(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.buffer.len(), "more than there was room for");
    }

    /// Returns the buffer for another use.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

/// Bytes to reserve for a frame that will have `needs` bytes of which `have` are there.
fn reserved(needs: usize, have: usize) -> usize {
    needs.min(have.saturating_mul(RESERVED_TIMES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).expect("below 251")).collect()
    }

    #[test]
    fn a_long_frame_is_put_together_and_seldom_moved() {
        let frame = pattern(1_000_000);
        let (mut tail, _) = Tail::copy(&frame[..65_000], frame.len(), Vec::new());
        let mut capacities = vec![tail.capacity()];
        while tail.len() < frame.len() {
            let have = tail.len();
            let space = tail.space(frame.len(), 10_000);
            assert!((1..=10_000).contains(&space.len()));
            // Not all that there was room for.
            let n = space.len().div_ceil(2);
            space[..n].copy_from_slice(&frame[have..have + n]);
            tail.fill(n);
            capacities.push(tail.capacity());
        }
        assert_eq!(tail.bytes(), frame);
        capacities.dedup();
        assert_eq!(capacities.len(), 2, "{capacities:?}");
        assert_eq!(tail.capacity(), frame.len(), "no more than it needs");
    }

    #[test]
    fn what_is_announced_takes_no_memory_before_it_comes() {
        let (mut tail, _) = Tail::copy(&pattern(100), 1_000_000, Vec::new());
        assert!(tail.capacity() <= 100 * RESERVED_TIMES);
        assert_eq!(tail.space(1_000_000, 1 << 20).len(), AHEAD_BYTES_MIN);
        tail.fill(1);
        assert!(tail.capacity() <= 100 + AHEAD_BYTES_MIN);
    }

    #[test]
    fn frames_are_run_from_the_front_and_the_last_goes_on_at_the_front() {
        let bytes = pattern(300);
        let (mut tail, _) = Tail::copy(&bytes, 0, Vec::new());
        for left in [300, 200, 200, 50] {
            tail.keep_last(left);
            assert_eq!(tail.bytes(), &bytes[300 - left..]);
        }
        tail.space(60, 100).fill(7);
        tail.fill(10);
        assert_eq!(tail.bytes(), [&bytes[250..], &[7; 10]].concat());
        tail.keep_last(0);
        assert!(tail.is_empty());
    }

    #[test]
    fn a_few_bytes_leave_a_large_buffer_to_others() {
        let (tail, unused) = Tail::copy(&[1, 2, 3], 0, Vec::with_capacity(60_000));
        assert!(tail.capacity() < 100 && unused.capacity() >= 60_000);
        let (tail, unused) = Tail::copy(&pattern(59_000), 0, unused);
        assert!(tail.capacity() >= 60_000 && unused.capacity() == 0);
    }
}
