//! What happened, in order: a hash of it always, its lines on demand.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Fault, KillMode};

/// Something that happened, as the trace notes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What<'a> {
    /// A connection was accepted.
    Accepted {
        /// Its number, the same at both ends.
        connection: u64,
    },
    /// Bytes came to where a socket can read them.
    Arrived {
        /// Of this connection.
        connection: u64,
        /// So many.
        bytes: usize,
    },
    /// A process was started.
    Booted,
    /// A socket was closed.
    Closed {
        /// Of this connection.
        connection: u64,
    },
    /// A connection was begun.
    Connecting {
        /// Its number.
        connection: u64,
        /// Where to.
        to: SocketAddr,
    },
    /// The end of input came.
    End {
        /// Of this connection.
        connection: u64,
    },
    /// A connection was established, for the one that connects.
    Established {
        /// Its number.
        connection: u64,
    },
    /// A process ended by itself.
    Exited,
    /// A connection failed: refused, or reset.
    Failed {
        /// Its number.
        connection: u64,
    },
    /// A fault struck.
    Fault {
        /// Its kind.
        fault: Fault,
        /// Of this connection, if it is of one.
        connection: u64,
    },
    /// Ongoing faults were ended.
    Healed,
    /// A process or its machine died.
    Killed {
        /// Which of the two.
        mode: KillMode,
    },
    /// A socket began to listen.
    Listening {
        /// Where.
        at: SocketAddr,
    },
    /// What the user noted.
    Note {
        /// The text.
        text: &'a str,
    },
    /// Bytes were written.
    Wrote {
        /// To this connection.
        connection: u64,
        /// So many were taken.
        bytes: usize,
    },
}

/// A line of the trace. Its `Display` is the line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Line<'a> {
    /// The true time since the world began.
    pub at: Duration,
    /// The host it concerns; empty if none in particular.
    pub host: &'a str,
    /// What happened.
    pub what: What<'a>,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at;
        write!(f, "{:5}.{:06} {:10} ", at.as_secs(), at.subsec_micros(), self.host)?;
        match &self.what {
            What::Accepted { connection } => write!(f, "accepts connection {connection}"),
            What::Arrived { connection, bytes } => {
                write!(f, "{bytes} bytes arrive on connection {connection}")
            }
            What::Booted => f.write_str("is started"),
            What::Closed { connection } => write!(f, "closes connection {connection}"),
            What::Connecting { connection, to } => {
                write!(f, "connects to {to}: connection {connection}")
            }
            What::End { connection } => write!(f, "the end arrives on connection {connection}"),
            What::Established { connection } => write!(f, "connection {connection} is established"),
            What::Exited => f.write_str("ends by itself"),
            What::Failed { connection } => write!(f, "connection {connection} fails"),
            What::Fault { fault, connection: 0 } => write!(f, "FAULT {fault}"),
            What::Fault { fault, connection } => {
                write!(f, "FAULT {fault}, connection {connection}")
            }
            What::Healed => f.write_str("all faults end"),
            What::Killed { mode: KillMode::Machine } => f.write_str("its machine dies"),
            What::Killed { mode: KillMode::Process } => f.write_str("its process dies"),
            What::Listening { at } => write!(f, "listens at {at}"),
            What::Note { text } => f.write_str(text),
            What::Wrote { connection, bytes } => {
                write!(f, "writes {bytes} bytes to connection {connection}")
            }
        }
    }
}

/// What is given each line.
pub(crate) type OnLine = Box<dyn FnMut(&Line<'_>)>;

/// The running hash, and who is told.
pub(crate) struct Trace {
    hash: u64,
    lines: u64,
    on_line: Option<OnLine>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { hash: 0x6f6e_6365_6c6f_6f70, lines: 0, on_line: None }
    }

    pub(crate) fn set(&mut self, on_line: Option<OnLine>) {
        self.on_line = on_line;
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    pub(crate) fn line(&mut self, now: u64, host: &str, what: What<'_>) {
        self.lines += 1;
        self.mix(now);
        self.bytes(host.as_bytes());
        let (kind, a, b) = match what {
            What::Accepted { connection } => (1, connection, 0),
            What::Arrived { connection, bytes } => (2, connection, bytes as u64),
            What::Booted => (3, 0, 0),
            What::Closed { connection } => (4, connection, 0),
            What::Connecting { connection, to } => (5, connection, u64::from(to.port())),
            What::End { connection } => (6, connection, 0),
            What::Established { connection } => (7, connection, 0),
            What::Exited => (8, 0, 0),
            What::Failed { connection } => (9, connection, 0),
            What::Fault { fault, connection } => (10, connection, fault as u64),
            What::Healed => (11, 0, 0),
            What::Killed { mode } => (12, mode as u64, 0),
            What::Listening { at } => (13, u64::from(at.port()), 0),
            What::Note { text } => {
                self.bytes(text.as_bytes());
                (14, 0, 0)
            }
            What::Wrote { connection, bytes } => (15, connection, bytes as u64),
        };
        self.mix(kind);
        self.mix(a);
        self.mix(b);
        if let Some(on_line) = &mut self.on_line {
            on_line(&Line { at: Duration::from_nanos(now), host, what });
        }
    }

    /// Takes bytes into the hash: those written, and those of names and notes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.mix(u64::from_le_bytes(chunk.try_into().expect("chunks of eight")));
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.mix(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    /// One round of a multiplicative hash (the multiplier is that of SplitMix64); it is to tell
    /// runs apart, not to withstand an adversary.
    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.hash ^= self.hash >> 29;
    }
}
