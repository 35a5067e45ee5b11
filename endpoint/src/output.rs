//! What waits to be written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use onceloop_reactor::{Io, Stream, WriteOutcome};

/// Pieces handed to the system by one write: enough for the answers of a turn's budget.
const PIECES_PER_WRITE_MAX: usize = 64;

/// Queued output: small frames one behind the other in one buffer, written at once; large ones
/// shared, not copied. Empty, it holds no buffer.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The last part.
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that are written already; none while there are chunks.
    written: usize,
    /// Bytes of the chunks.
    chunk_bytes: usize,
    /// What stands before the buffer: large frames, and what stood in the buffer before them.
    chunks: VecDeque<Bytes>,
    /// Since when the socket has taken nothing, in ticks; `None` if it was not full.
    waits_since: Option<u32>,
}

/// What became of an attempt to write.
///
/// Exhaustive: there is no fourth outcome.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything is written.
    All,
    /// The socket takes no more.
    Blocked,
    /// The share of this turn is written; the rest follows in the next.
    Share,
}

impl Output {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() + self.chunk_bytes - self.written
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes of memory the buffers take, those shared with others among them.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity() + self.chunk_bytes + self.chunks.capacity() * size_of::<Bytes>()
    }

    /// Returns since when the socket takes nothing; `None` if it is not full.
    pub(crate) fn waits_since(&self) -> Option<u32> {
        self.waits_since
    }

    /// Returns the buffer to append small frames to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Appends the frames in `more`, and returns a buffer that is no longer needed.
    pub(crate) fn append(&mut self, mut more: Vec<u8>) -> Vec<u8> {
        if self.buffer.is_empty() {
            std::mem::swap(&mut self.buffer, &mut more);
        } else {
            self.buffer.extend_from_slice(&more);
        }
        more
    }

    /// Appends a large frame without copying it.
    pub(crate) fn push_shared(&mut self, frame: Bytes) {
        let written = std::mem::take(&mut self.written);
        let before = Bytes::from(std::mem::take(&mut self.buffer)).slice(written..);
        for chunk in [before, frame].into_iter().filter(|chunk| !chunk.is_empty()) {
            self.chunk_bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Writes as much as the socket takes and a turn allows; `now` is the time in ticks.
    ///
    /// Handing a MiB to the system takes the time of hundreds of small calls, which all wait for it.
    pub(crate) fn flush(
        &mut self,
        stream: &mut Stream,
        io: &mut Io<'_>,
        now: u32,
    ) -> io::Result<Flushed> {
        let mut left = io.write_share();
        while !self.is_empty() {
            if left == 0 {
                self.keep_on();
                io.touch();
                return Ok(Flushed::Share);
            }
            // A write that was not taken whole has filled the socket: an event tells when to go on.
            let outcome = match stream.is_writable() {
                true => self.write(stream, left)?,
                false => WriteOutcome::WouldBlock,
            };
            match outcome {
                WriteOutcome::Bytes(n) => {
                    left -= n;
                    self.advance(n);
                }
                WriteOutcome::WouldBlock => {
                    self.wait(left < io.write_share(), now);
                    return Ok(Flushed::Blocked);
                }
            }
        }
        debug_assert!(self.buffer.is_empty());
        self.waits_since = None;
        io.give_buffer(std::mem::take(&mut self.buffer));
        Ok(Flushed::All)
    }

    /// Writes once, at most `bytes_max` bytes.
    fn write(&self, stream: &mut Stream, bytes_max: usize) -> io::Result<WriteOutcome> {
        let unwritten = &self.buffer[self.written..];
        let whole = match self.chunks.front() {
            None => Some(unwritten),
            Some(only) => (only.len() == self.len()).then_some(&only[..]),
        };
        if let Some(whole) = whole {
            return stream.write(&whole[..whole.len().min(bytes_max)]);
        }
        let mut pieces = [IoSlice::new(&[]); PIECES_PER_WRITE_MAX];
        let (mut count, mut left) = (0, bytes_max);
        let parts = self.chunks.iter().map(|chunk| &chunk[..]).chain([unwritten]);
        for (piece, part) in pieces.iter_mut().zip(parts) {
            let taken = part.len().min(left);
            *piece = IoSlice::new(&part[..taken]);
            left -= taken;
            count += 1;
            if left == 0 {
                break;
            }
        }
        stream.write_vectored(&pieces[..count])
    }

    /// Notes that the first `n` bytes are written.
    fn advance(&mut self, mut n: usize) {
        while let Some(first) = self.chunks.front_mut() {
            let taken = n.min(first.len());
            first.advance(taken);
            self.chunk_bytes -= taken;
            n -= taken;
            if !first.is_empty() {
                return;
            }
            self.chunks.pop_front();
        }
        self.written += n;
        if self.written == self.buffer.len() {
            self.buffer.clear();
            self.written = 0;
        }
    }

    /// The socket is full.
    fn wait(&mut self, has_progress: bool, now: u32) {
        if has_progress || self.waits_since.is_none() {
            self.waits_since = Some(now);
        }
        self.drop_written();
    }

    /// The turn's share is written, and the socket is not full.
    fn keep_on(&mut self) {
        self.waits_since = None;
        self.drop_written();
    }

    /// What is written goes from the buffer once it is the larger part: a peer that always leaves
    /// something unread must not make the buffer grow for ever.
    fn drop_written(&mut self) {
        if 2 * self.written >= self.buffer.len() {
            self.buffer.drain(..self.written);
            self.written = 0;
        }
    }
}
