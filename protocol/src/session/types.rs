//! What a session is asked, and what it says.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::error::Fault;
use crate::frame::MethodId;

/// How often a call may be transmitted, and what its caller may learn. Exhaustive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Semantics {
    /// Sent again after each timeout and on each connection until it is answered; the server may run
    /// it more than once. Only for methods declared idempotent.
    AtLeastOnce,
    /// Sent once. A lost answer is asked for, never the call itself.
    AtMostOnce,
    /// Sent again, under the same xid, until it is answered; runs once.
    #[default]
    ExactlyOnce,
}

/// What is known of a call before it is made.
#[derive(Clone, Copy, Debug)]
pub struct CallSpec {
    /// Which method.
    pub method: MethodId,
    /// How often it may be sent.
    pub semantics: Semantics,
    /// Whether the method is declared idempotent.
    pub idempotent: bool,
    /// When its caller no longer waits.
    pub deadline: Option<Instant>,
    /// How often it may be transmitted, hedges and what follows a RESUME included. At most once is
    /// once, whatever this says.
    pub attempts: u32,
    /// Exactly once only: after which time without an answer a copy goes over a second connection.
    pub hedge_after: Option<Duration>,
    /// What the caller knows the call by, for one that is recovered from a journal.
    pub tag: u64,
}

impl CallSpec {
    /// Returns the spec of an exactly-once call without a deadline, a bound of its transmissions or a
    /// hedge.
    pub fn new(method: MethodId) -> CallSpec {
        CallSpec {
            method,
            semantics: Semantics::default(),
            idempotent: false,
            deadline: None,
            attempts: u32::MAX,
            hedge_after: None,
            tag: 0,
        }
    }
}

/// How a call ended. Exhaustive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The handler ran; this is its reply, as MessagePack.
    Reply(&'a [u8]),
    /// The handler ran and failed; this is the method's own error, as MessagePack.
    Application(Cow<'a, [u8]>),
    /// The handler ran, but its result cannot be had.
    Executed(Fault),
    /// The handler did not run and never will.
    NotExecuted(Fault),
    /// Nobody knows whether the handler ran.
    Indeterminate(Fault),
}

/// Where a session stands with its server. Exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Over, by [`Session::close`](super::Session::close).
    Closed,
    /// There is no connection: one is wanted at [`Session::connect_at`](super::Session::connect_at).
    Disconnected,
    /// The server is about to close this connection; what is running is still answered.
    Draining,
    /// HELLO or RESUME has left; nothing else may.
    Handshaking,
    /// Calls go out.
    Ready,
}

/// Something a state callback may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server takes no new calls on this connection.
    Draining,
    /// The handshake is done.
    Ready {
        /// Whether the session is one the server knew.
        resumed: bool,
    },
    /// The server does not know the session any more: calls that may have run ended indeterminate,
    /// the others go on in a new session.
    SessionLost,
}

/// What a session has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Calls sent for the first time.
    pub calls: u64,
    /// Notifications sent.
    pub notifications: u64,
    /// Notifications whose time passed before they could be sent.
    pub notifications_dropped: u64,
    /// Calls sent again on the connection in use.
    pub resends: u64,
    /// Copies sent over a second connection.
    pub hedges: u64,
    /// Answers to calls that had ended.
    pub answers_ignored: u64,
}

impl Counters {
    /// Adds what another session has counted.
    pub fn add(&mut self, other: &Counters) {
        self.calls += other.calls;
        self.notifications += other.notifications;
        self.notifications_dropped += other.notifications_dropped;
        self.resends += other.resends;
        self.hedges += other.hedges;
        self.answers_ignored += other.answers_ignored;
    }
}
