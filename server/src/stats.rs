//! What a server tells of itself.

use serde::{Deserialize, Serialize};

use crate::core::Core;

/// Counts that the table does not keep. They only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections_accepted: u64,
    pub(crate) connections_closed: u64,
    pub(crate) accept_failures: u64,
    pub(crate) answered: u64,
    pub(crate) cancelled: u64,
    pub(crate) put_off: u64,
    pub(crate) frames_refused: u64,
    pub(crate) notifications: u64,
    pub(crate) notifications_dropped: u64,
}

impl Counts {
    /// Returns how many connections there are.
    pub(crate) fn connections(&self) -> u64 {
        self.connections_accepted - self.connections_closed
    }
}

/// A server's numbers, as `onceloop.stats` answers them. Those in the first half are of now, the
/// others count since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Connections open.
    pub connections: u64,
    /// Sessions, attached or not.
    pub sessions: u64,
    /// Handlers that have started and not ended.
    pub in_flight: u64,
    /// Answers kept for clients that may ask again.
    pub kept_replies: u64,
    /// Bytes of those answers.
    pub kept_reply_bytes: u64,
    /// Answers, handshakes and calls to start that wait until something is safe in the store.
    pub waiting: u64,
    /// Whether what the server knows of its calls outlives it.
    pub is_durable: bool,
    /// Whether the server is shutting down.
    pub is_draining: bool,

    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections that ended.
    pub connections_closed: u64,
    /// Attempts to accept that failed, mostly for want of descriptors.
    pub accept_failures: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions that came back on another connection.
    pub sessions_resumed: u64,
    /// Sessions whose lease ended.
    pub sessions_expired: u64,
    /// Sessions that gave way to new ones, idle and long detached.
    pub sessions_evicted: u64,
    /// Handlers started for calls.
    pub calls_started: u64,
    /// Calls answered.
    pub calls_answered: u64,
    /// Calls cancelled while they ran.
    pub calls_cancelled: u64,
    /// Calls whose handlers asked to be called again later.
    pub calls_put_off: u64,
    /// Answers given again from what was kept, to a copy of the call or to a client that came back:
    /// retries that did not run twice.
    pub calls_replayed: u64,
    /// Copies that met their own first copy still running.
    pub calls_joined: u64,
    /// Calls refused; none of them ran.
    pub calls_refused: u64,
    /// Calls that broke the protocol.
    pub calls_rejected: u64,
    /// Frames refused before anybody looked at what they ask.
    pub frames_refused: u64,
    /// Notifications run.
    pub notifications: u64,
    /// Notifications that were not.
    pub notifications_dropped: u64,
}

impl Stats {
    pub(crate) fn of<S>(core: &Core<S>) -> Stats {
        let (table, counts) = (core.table.counters(), core.counts);
        let (kept_replies, kept_reply_bytes) = core.table.kept();
        Stats {
            connections: counts.connections(),
            sessions: core.table.sessions() as u64,
            in_flight: core.table.in_flight() as u64,
            kept_replies: kept_replies as u64,
            kept_reply_bytes: kept_reply_bytes as u64,
            waiting: core.table.waiting() as u64,
            is_durable: core.table.is_durable(),
            is_draining: core.drain.is_some(),
            connections_accepted: counts.connections_accepted,
            connections_closed: counts.connections_closed,
            accept_failures: counts.accept_failures,
            sessions_opened: table.opened,
            sessions_resumed: table.resumed,
            sessions_expired: table.expired,
            sessions_evicted: table.evicted,
            calls_started: table.started,
            calls_answered: counts.answered,
            calls_cancelled: counts.cancelled,
            calls_put_off: counts.put_off,
            calls_replayed: table.replayed,
            calls_joined: table.joined,
            calls_refused: table.refused,
            calls_rejected: table.rejected,
            frames_refused: counts.frames_refused,
            notifications: counts.notifications,
            notifications_dropped: counts.notifications_dropped,
        }
    }
}
