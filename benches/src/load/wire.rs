//! What the bare load leaves to a protocol: how requests are written, and what answers are.

use std::io;
use std::ops::Range;

use super::tally::Class;

/// A protocol as a client speaks it.
///
/// The calls of a connection have seqs, counted from 1. Whether these are on the wire is the
/// protocol's matter: one that answers in the order of the requests does without.
pub trait Wire {
    /// Returns what a client says first.
    fn hello(&self) -> Vec<u8>;

    /// Reads what a server answers to [`Wire::hello`]; returns how many bytes of `bytes` that is and
    /// the window that it grants, `None` if it has not all come.
    ///
    /// # Errors
    ///
    /// It is something else.
    fn welcome(&self, bytes: &[u8]) -> io::Result<Option<(usize, u32)>>;

    /// Returns requests with these seqs, at most a window of them, all with the acknowledgement `ack`,
    /// and tells of each what it is like.
    fn requests(&mut self, seqs: Range<u64>, ack: u64, tell: impl FnMut(u64, Class)) -> &[u8];

    /// Returns a large request. Only asked for if the load's options have large calls.
    fn large_request(&mut self, seq: u64, ack: u64) -> &[u8];

    /// Returns what stands at the front of `bytes`.
    fn front(&self, bytes: &[u8]) -> Front;

    /// Reads a frame that [`Wire::front`] has called another.
    ///
    /// # Errors
    ///
    /// The connection is of no more use.
    fn notice(&self, frame: &[u8]) -> io::Result<Notice>;

    /// Returns what tells the server that every seq up to `ack` is answered, and has it say that it
    /// knows ([`Notice::Acknowledged`]).
    fn acknowledge(&self, ack: u64) -> Vec<u8>;

    /// Returns what a client says last, when every seq up to `ack` is answered; nothing is sent if the
    /// protocol has no such thing.
    fn bye(&self, _ack: u64) -> Vec<u8> {
        Vec::new()
    }
}

/// What stands at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// The answer to the call with this seq, or to the first without an answer, of so many bytes.
    Answer(Option<u64>, usize),
    /// The beginning of one that is long: what is to come is skipped, not kept until it is whole.
    Begun(Option<u64>, usize),
    /// Another frame, of so many bytes, all of them there, or what is none at all.
    Other(usize),
    /// The beginning of either, or nothing.
    Part,
}

/// What a frame says that is no answer.
#[derive(Debug)]
pub enum Notice {
    /// What was asked by [`Wire::acknowledge`].
    Acknowledged,
    /// The server wants to hear this.
    Asks(Vec<u8>),
    /// The call with this seq has failed; why, for a person.
    Failed(u64, String),
    /// Nothing that is to be expected; what it is, for a person.
    Unknown(String),
}
