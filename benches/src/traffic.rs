//! One connection that keeps requests of one kind on their way, over a blocking socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use onceloop_protocol::frame::{Flags, HEADER_BYTES, Kind as FrameKind, MAGIC};
use onceloop_protocol::handshake::Welcome;
use serde::Serialize;

use crate::frames::{self, Front};

/// How long the server may say nothing while calls are in flight.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A window of calls that have ended and are not acknowledged, asked for again and again.
    Duplicate,
    /// Calls that run once, acknowledged with the calls that follow.
    Protected,
    /// Calls outside the table of xids.
    Unprotected,
}

/// A connection and its calls. A server answers those of one connection in their order where, as
/// here, their handlers answer at once; an answer that is not the next one is an error.
pub(crate) struct Traffic {
    kind: Kind,
    stream: TcpStream,
    in_flight: u64,
    /// As many requests as may be in flight, one behind the other, to be stamped and sent.
    requests: Vec<u8>,
    request_bytes: usize,
    sent: u64,
    answered: u64,
    input: Vec<u8>,
    /// Bytes at the front of `input` that are the beginning of a frame.
    filled: usize,
}

impl Traffic {
    /// Connects to the server at `port`. A window of duplicates makes its first calls here.
    pub(crate) fn open(kind: Kind, port: u16, in_flight: u32, payload: u64) -> Result<Traffic> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting")?;
        stream.set_nodelay(true).context("asking for no delay")?;
        stream.set_read_timeout(Some(SILENCE_MAX)).context("setting a timeout")?;
        let flags = if kind == Kind::Unprotected { Flags::UNPROTECTED } else { Flags::NONE };
        let request = frames::request(usize::try_from(payload).context("a payload")?, flags);
        let mut traffic = Traffic {
            kind,
            stream,
            in_flight: in_flight.into(),
            requests: request.repeat(usize::try_from(in_flight).context("a window")?),
            request_bytes: request.len(),
            sent: 0,
            answered: 0,
            input: vec![0; 2 * frames::FRAME_BYTES_MAX],
            filled: 0,
        };
        traffic.shake_hands(in_flight.next_power_of_two())?;
        if kind == Kind::Duplicate {
            traffic.rounds(1)?;
        }
        Ok(traffic)
    }

    /// Returns how many answers have come.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    /// Returns how many of the requests were no duplicates.
    pub(crate) fn first(&self) -> u64 {
        if self.kind == Kind::Duplicate { self.in_flight.min(self.sent) } else { self.sent }
    }

    /// Keeps as many requests on their way as may be, the next with each answer, for `length`; waits
    /// for the answers of all, and returns how many there were.
    pub(crate) fn flow(&mut self, length: Duration) -> Result<u64> {
        let (begin, before) = (Instant::now(), self.answered);
        self.send(self.in_flight)?;
        while self.answered < self.sent {
            let answers = self.receive()?;
            if begin.elapsed() < length {
                self.send(answers)?;
            }
        }
        Ok(self.answered - before)
    }

    /// Sends as many requests as may be in flight and waits for all their answers, `count` times: the
    /// same work each time, whatever the clock does.
    pub(crate) fn rounds(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            self.begin_round()?;
            self.end_round()?;
        }
        Ok(())
    }

    /// Sends as many requests as may be in flight, without waiting for any answer.
    pub(crate) fn begin_round(&mut self) -> Result<()> {
        self.send(self.in_flight)
    }

    /// Waits for the answers of all requests.
    pub(crate) fn end_round(&mut self) -> Result<()> {
        while self.answered < self.sent {
            self.receive()?;
        }
        Ok(())
    }

    /// Takes the answers that are there, without waiting for more, and returns whether all are.
    pub(crate) fn is_round_over(&mut self) -> Result<bool> {
        self.stream.set_nonblocking(true).context("asking not to block")?;
        while self.answered < self.sent {
            match self.receive() {
                Ok(_) => {}
                Err(error) if is_empty(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.stream.set_nonblocking(false).context("asking to block again")?;
        Ok(self.answered == self.sent)
    }

    /// Returns the seq of request `number`, counted from 0.
    fn seq(&self, number: u64) -> u64 {
        1 + if self.kind == Kind::Duplicate { number % self.in_flight } else { number }
    }

    fn send(&mut self, count: u64) -> Result<()> {
        let ack = if self.kind == Kind::Protected { self.answered } else { 0 };
        let mut bytes = 0;
        for number in self.sent..self.sent + count {
            let seq = self.seq(number);
            let request = &mut self.requests[bytes..][..self.request_bytes];
            frames::stamp(request, seq, ack);
            bytes += self.request_bytes;
        }
        self.sent += count;
        self.stream.write_all(&self.requests[..bytes]).context("sending")
    }

    /// Reads once and returns how many answers came.
    fn receive(&mut self) -> Result<u64> {
        let before = self.answered;
        self.read()?;
        let mut used = 0;
        loop {
            match frames::front(&self.input[used..self.filled]) {
                Front::Part => break,
                Front::Broken => bail!("the server sent a broken frame"),
                Front::Frame(header, length) => {
                    let seq = frames::seq(header);
                    ensure!(
                        header[4] == FrameKind::Reply as u8 && seq == self.seq(self.answered),
                        "a frame of kind {} for seq {seq} where the reply to {} was due",
                        header[4],
                        self.seq(self.answered)
                    );
                    self.answered += 1;
                    used += length;
                }
            }
        }
        self.input.copy_within(used..self.filled, 0);
        self.filled -= used;
        Ok(self.answered - before)
    }

    fn read(&mut self) -> Result<()> {
        let read = self.stream.read(&mut self.input[self.filled..]).context("reading")?;
        ensure!(read > 0, "the server closed the connection");
        self.filled += read;
        Ok(())
    }

    fn shake_hands(&mut self, window: u32) -> Result<()> {
        self.stream.write_all(&frames::hello(window)).context("sending HELLO")?;
        let length = loop {
            self.read()?;
            let Some(rest) = self.input[..self.filled].get(MAGIC.len()..) else { continue };
            match frames::front(rest) {
                Front::Part => {}
                Front::Frame(header, length) if header[4] == FrameKind::Welcome as u8 => {
                    break length;
                }
                _ => bail!("the server answered HELLO with something else"),
            }
        };
        let body = &self.input[MAGIC.len()..][HEADER_BYTES..length];
        let welcome: Welcome = rmp_serde::from_slice(body).context("reading WELCOME")?;
        ensure!(welcome.window >= window, "a window of {} was granted", welcome.window);
        // The server says nothing more before it is asked.
        ensure!(self.filled == MAGIC.len() + length, "bytes behind the WELCOME");
        self.filled = 0;
        Ok(())
    }
}

/// Whether a read failed because nothing had come.
fn is_empty(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::WouldBlock)
}
