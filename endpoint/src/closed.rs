//! Why a connection ended.

use std::fmt;
use std::io;

/// Why a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Closed {
    /// It could not be opened.
    ConnectFailed(io::Error),
    /// The peer closed it.
    Eof,
    /// The socket failed.
    Io(io::Error),
    /// This end closed it: the reason, for the log.
    Local(&'static str),
    /// The peer broke the protocol: what it did.
    Protocol(String),
    /// A deadline of the connection passed: which.
    TimedOut(&'static str),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::ConnectFailed(error) => write!(f, "could not connect: {error}"),
            Closed::Eof => f.write_str("closed by the peer"),
            Closed::Io(error) => write!(f, "lost: {error}"),
            Closed::Local(why) => write!(f, "closed by this end: {why}"),
            Closed::Protocol(what) => write!(f, "the peer broke the protocol: {what}"),
            Closed::TimedOut(which) => write!(f, "timed out: {which}"),
        }
    }
}

impl std::error::Error for Closed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Closed::ConnectFailed(error) | Closed::Io(error) => Some(error),
            _ => None,
        }
    }
}
