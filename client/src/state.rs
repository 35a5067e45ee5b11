//! Where a client stands with its server.

use std::fmt;
use std::time::Duration;

/// Where a client stands with its server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It was closed: every call has been answered, and the client is gone.
    Closed,
    /// Calls go out.
    Connected {
        /// Whether the session is the one it had before: then nothing is lost.
        resumed: bool,
    },
    /// A name is looked up, or a connection is on its way.
    Connecting,
    /// There is no connection.
    Disconnected {
        /// What happened to the last one, for a person.
        why: String,
        /// How long until the next attempt.
        retry_in: Duration,
    },
    /// The server takes no new calls on this connection; what is running is still answered.
    Draining,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Closed => f.write_str("closed"),
            State::Connected { resumed: false } => f.write_str("connected, in a new session"),
            State::Connected { resumed: true } => f.write_str("connected, session resumed"),
            State::Connecting => f.write_str("connecting"),
            State::Disconnected { why, retry_in } => {
                write!(f, "disconnected ({why}); next attempt in {} ms", retry_in.as_millis())
            }
            State::Draining => f.write_str("the server is about to close the connection"),
        }
    }
}
