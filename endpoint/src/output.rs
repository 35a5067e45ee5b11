//! What waits to be written.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};
use onceloop_reactor::{Io, Stream, WriteOutcome};

/// Queued output: small frames one behind the other in one buffer, written at once; large ones
/// shared, not copied. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Before the buffer: large frames, and what stood in the buffer before them.
    #[expect(clippy::box_collection, reason = "eight bytes in every connection instead of 32")]
    chunks: Option<Box<VecDeque<Bytes>>>,
    /// The last part; its first `written` bytes are on their way.
    buffer: Vec<u8>,
    written: u32,
}

/// What became of an attempt to write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything is written.
    All,
    /// The socket takes no more; `progress` tells whether it took anything.
    Blocked { progress: bool },
}

impl Output {
    pub(crate) fn len(&self) -> usize {
        let chunks = self.chunks.as_ref().map_or(0, |chunks| chunks.iter().map(Bytes::len).sum());
        chunks + self.buffer.len() - self.written as usize
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_none() && self.buffer.is_empty()
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
        let before = Bytes::from(std::mem::take(&mut self.buffer))
            .slice(std::mem::take(&mut self.written) as usize..);
        let chunks = self.chunks.get_or_insert_default();
        chunks.extend([before, frame].into_iter().filter(|bytes| !bytes.is_empty()));
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&mut self, stream: &mut Stream, io: &mut Io<'_>) -> io::Result<Flushed> {
        let mut progress = false;
        while let Some(chunks) = &mut self.chunks {
            let Some(first) = chunks.front_mut() else {
                self.chunks = None;
                break;
            };
            match stream.write(first)? {
                WriteOutcome::Bytes(n) => {
                    progress = true;
                    first.advance(n);
                    if first.is_empty() {
                        chunks.pop_front();
                    }
                }
                WriteOutcome::WouldBlock => return Ok(Flushed::Blocked { progress }),
            }
        }
        while (self.written as usize) < self.buffer.len() {
            match stream.write(&self.buffer[self.written as usize..])? {
                WriteOutcome::Bytes(n) => {
                    progress = true;
                    self.written += u32::try_from(n).expect("output is bounded below 4 GiB");
                }
                WriteOutcome::WouldBlock => return Ok(Flushed::Blocked { progress }),
            }
        }
        self.written = 0;
        io.give_buffer(std::mem::take(&mut self.buffer));
        Ok(Flushed::All)
    }
}
