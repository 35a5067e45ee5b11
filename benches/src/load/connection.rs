//! One connection of the bare load: its socket, its bytes and its xids.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::TcpStream;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The socket is not connected yet.
    Connecting,
    /// What a client says first is sent.
    Greeting,
    /// The server has answered that.
    Open,
    /// Gone; its socket is closed.
    Lost,
}

/// A connection and what it has asked.
pub(super) struct Connection {
    stream: Option<TcpStream>,
    /// Where it is in its life.
    pub(super) state: State,
    /// Whether the stage of the load waits for it.
    pub(super) is_awaited: bool,
    /// The seq of its next call.
    pub(super) next_seq: u64,
    /// Every seq up to this one is answered.
    pub(super) answered: u64,
    /// Answers to later seqs: the server may answer in any order.
    pub(super) early: u64,
    /// Calls it is to make and has not.
    pub(super) due: u64,
    /// Calls it has made by plan.
    pub(super) paced: u64,
    /// The seq of a long answer that has begun, and how many of its bytes are to come.
    pub(super) skips: Option<(u64, usize)>,
    /// The beginning of a frame whose end has not come.
    rest: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
}

impl Connection {
    /// Returns one that connects; without a socket, one that never came to be.
    pub(super) fn new(stream: Option<TcpStream>) -> Connection {
        Connection {
            state: if stream.is_some() { State::Connecting } else { State::Lost },
            stream,
            is_awaited: false,
            next_seq: 1,
            answered: 0,
            early: 0,
            due: 0,
            paced: 0,
            skips: None,
            rest: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// Closes the socket.
    pub(super) fn close(&mut self) {
        self.stream = None;
        self.state = State::Lost;
        self.due = 0;
    }

    /// Returns how many calls wait for their answer.
    #[inline]
    pub(super) fn in_flight(&self) -> u64 {
        self.next_seq - 1 - self.answered - self.early
    }

    /// Returns how many seqs lie between the first unanswered one and the last made.
    #[inline]
    pub(super) fn span(&self) -> u64 {
        self.next_seq - 1 - self.answered
    }

    /// Returns why the socket did not connect, if it did not.
    pub(super) fn connect_error(&self) -> io::Result<()> {
        match self.stream.as_ref().map(TcpStream::take_error) {
            Some(Ok(None)) | None => Ok(()),
            Some(Ok(Some(error)) | Err(error)) => Err(error),
        }
    }

    /// Reads once, behind the beginning of a frame that came before. Returns how many bytes of
    /// `input` are filled, 0 when the socket is empty, and whether it may have more.
    #[inline]
    pub(super) fn read(&mut self, input: &mut [u8]) -> io::Result<(usize, bool)> {
        let Some(stream) = &mut self.stream else { return Ok((0, false)) };
        let kept = self.rest.len();
        input[..kept].copy_from_slice(&self.rest);
        match stream.read(&mut input[kept..]) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed it")),
            Ok(read) => {
                self.rest = Vec::new();
                Ok((kept + read, kept + read == input.len()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok((0, false)),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok((0, true)),
            Err(error) => Err(error),
        }
    }

    /// Keeps the beginning of a frame for the next read.
    #[inline]
    pub(super) fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.rest = rest.to_vec();
        }
    }

    /// Writes `bytes`, or keeps what the socket does not take for [`Connection::flush`].
    #[inline]
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = match stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if sent < bytes.len() {
            self.unsent = bytes[sent..].to_vec();
        }
        Ok(())
    }

    /// Writes what the socket did not take before.
    #[inline]
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let unsent = mem::take(&mut self.unsent);
        self.write(&unsent)
    }
}
