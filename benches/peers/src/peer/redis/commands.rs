//! Ready-made ECHO commands. Replies come in the order of the commands and are all the same.

use std::io;
use std::ops::Range;

use onceloop_benches::harness::{Class, Front, LoadOptions, Notice, Wire, index};

use crate::peer::payload;

/// A command that is answered by [`PONG`].
const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// Commands to be sent.
pub(super) struct Commands {
    /// As many as may be in flight, one behind the other.
    commands: Vec<u8>,
    command_bytes: usize,
    reply: Vec<u8>,
}

impl Commands {
    /// Returns those that `options` ask for.
    pub(super) fn new(options: &LoadOptions) -> Commands {
        let mut reply = format!("${}\r\n", options.payload).into_bytes();
        reply.extend(payload(options));
        reply.extend(b"\r\n");
        let command = [&b"*2\r\n$4\r\nECHO\r\n"[..], &reply].concat();
        Commands {
            commands: command.repeat(index(options.in_flight.into())),
            command_bytes: command.len(),
            reply,
        }
    }
}

impl Wire for Commands {
    fn hello(&self) -> Vec<u8> {
        PING.to_vec()
    }

    fn welcome(&self, bytes: &[u8]) -> io::Result<Option<(usize, u32)>> {
        if bytes.starts_with(PONG) {
            Ok(Some((PONG.len(), u32::MAX)))
        } else if PONG.starts_with(bytes) {
            Ok(None)
        } else {
            Err(said(bytes))
        }
    }

    #[inline]
    fn requests(&mut self, seqs: Range<u64>, _ack: u64, mut tell: impl FnMut(u64, Class)) -> &[u8] {
        let count = index(seqs.end - seqs.start);
        seqs.for_each(|seq| tell(seq, Class::Fast));
        &self.commands[..count * self.command_bytes]
    }

    fn large_request(&mut self, _seq: u64, _ack: u64) -> &[u8] {
        unreachable!("only the bench's own servers are given large calls")
    }

    #[inline]
    fn front(&self, bytes: &[u8]) -> Front {
        if bytes.starts_with(&self.reply) {
            Front::Answer(None, self.reply.len())
        } else if bytes.starts_with(PONG) {
            Front::Other(PONG.len())
        } else if self.reply.starts_with(bytes) || PONG.starts_with(bytes) {
            Front::Part
        } else {
            Front::Other(bytes.len())
        }
    }

    fn notice(&self, frame: &[u8]) -> io::Result<Notice> {
        if frame == PONG { Ok(Notice::Acknowledged) } else { Err(said(frame)) }
    }

    /// Nothing is to be acknowledged; that there is an answer is all.
    fn acknowledge(&self, _ack: u64) -> Vec<u8> {
        PING.to_vec()
    }
}

/// Returns what redis says instead of what was to be said.
fn said(bytes: &[u8]) -> io::Error {
    io::Error::other(String::from_utf8_lossy(bytes).trim().to_owned())
}
