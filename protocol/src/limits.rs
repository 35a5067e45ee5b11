//! Every bound in one place, each with its reason. All of them can be set; none can be switched off.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The bounds of one end. `Limits::default()` suits a server of small calls with 10 000 clients.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one body. 1 MiB, and 4 KiB for what stands around a payload of 1 MiB.
    pub body_bytes_max: usize,
    /// Bytes of one body before the handshake is done: a stranger gets little.
    pub handshake_body_bytes_max: usize,
    /// Nesting of one body: deeper values have overrun stacks.
    pub depth_max: usize,
    /// Elements of one body, counted through all levels: an empty element costs the sender a byte
    /// and the receiver up to 383.
    pub elements_max: usize,

    /// Calls of one session that may be unacknowledged; a power of two.
    pub window: u32,
    /// The largest window a client may ask for; a power of two.
    pub window_max: u32,
    /// Sessions of one server.
    pub sessions_max: usize,
    /// Sessions of one authenticated principal. Where the server asks who its peers are, those that
    /// do not say get together at most half of this and of the other bounds in all.
    pub sessions_per_principal_max: usize,
    /// How long a session must have been detached before it may give way to a new one, when there
    /// are as many as allowed; only one with nothing unacknowledged and nothing running ever does.
    /// A minute is longer than a client takes to come back.
    pub evictable_after: Duration,
    /// Handlers of one session that have started and not ended; a larger window counts instead.
    pub in_flight_per_session_max: u32,
    /// Handlers of one authenticated principal that have started and not ended.
    pub in_flight_per_principal_max: usize,
    /// Handlers of the server that have started and not ended; and as many of notifications.
    pub in_flight_max: usize,
    /// Argument bytes of those handlers.
    pub in_flight_bytes_max: usize,
    /// Bytes a call reserves for its reply when it is admitted.
    pub reply_reservation_bytes: usize,
    /// Reply bytes kept for one session; a reply beyond is sent, and only the fact is kept.
    pub kept_reply_bytes_per_session_max: usize,
    /// Reply bytes kept for one authenticated principal.
    pub kept_reply_bytes_per_principal_max: usize,
    /// Reply bytes kept in all.
    pub kept_reply_bytes_max: usize,
    /// Bytes of requests that one in-order session may hold back behind a hole.
    pub held_bytes_per_session_max: usize,
    /// How long a request is held back behind a hole.
    pub hole_age_max: Duration,
    /// How long a session outlives its last connection.
    pub lease: Duration,
    /// How long a session outlives its last connection where both ends outlive a crash: the client
    /// keeps a journal, and the table is durable.
    pub journal_lease: Duration,
    /// How long a session that never had a call outlives its connection.
    pub unused_lease: Duration,

    /// Connections of one server; keep it below the descriptor limit.
    pub connections_max: usize,
    /// Time for the handshake.
    pub handshake_timeout: Duration,
    /// Time for a frame that has begun; longer ones get more by `frame_bytes_per_second_min`.
    pub frame_timeout: Duration,
    /// The least rate at which a large frame must arrive.
    pub frame_bytes_per_second_min: u32,
    /// Silence after which a connection is pinged.
    pub idle_ping: Duration,
    /// Pings that may go unanswered before the connection is closed.
    pub pings_missed_max: u32,
    /// Queued output bytes above which a connection is neither read nor run.
    pub output_bytes_mark: usize,
    /// Queued output bytes above which it is closed; its session stays.
    pub output_bytes_max: usize,
    /// Time without progress of queued output after which it is closed.
    pub output_stall_max: Duration,
    /// Time after the peer's FIN in which what is owed is still written.
    pub half_close_timeout: Duration,

    /// A call's deadline where the caller sets none.
    pub call_timeout: Duration,
    /// Calls of one client that wait for the window; more are refused.
    pub queued_calls_max: usize,
    /// Bytes of those calls; a call that would be alone in the queue is taken whatever its size.
    /// 64 MiB: 65 536 calls of a MiB each would otherwise be 64 GiB of a client's memory.
    pub queued_bytes_max: usize,
    /// Silence with calls outstanding after which a client asks, and as long again after which it
    /// reconnects.
    pub retransmit_timeout: Duration,
    /// How long a second connection of a session (for hedges), or a further session, is kept that
    /// nobody needs: as long as a burst lasts, and not much longer than its handshakes cost.
    pub spare_idle: Duration,
    /// How old the oldest call of a full window may be before new calls go to a further session: a
    /// call that slow holds up all others.
    pub window_stall_max: Duration,
    /// Further sessions of one client, each with a connection of its own. Three, as each takes a
    /// session and kept replies on the server; 0 switches them off.
    pub further_sessions_max: usize,
    /// Time for one attempt to connect.
    pub connect_timeout: Duration,
    /// The first pause between attempts to connect; it doubles up to `backoff_max`.
    pub backoff_min: Duration,
    /// The longest pause between attempts to connect.
    pub backoff_max: Duration,
    /// Retries per second that are allowed however few calls there are.
    pub retries_per_second: u32,
    /// Retries that each hundred calls allow on top.
    pub retries_per_hundred_calls: u32,
    /// Idle time after which what was consumed is acknowledged on its own.
    pub ack_delay: Duration,
    /// Unacknowledged reply bytes after which an acknowledgement is sent on its own.
    pub ack_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes_max: MIB + 4 * KIB,
            handshake_body_bytes_max: 16 * KIB,
            depth_max: 32,
            elements_max: 65_536,
            window: 128,
            window_max: 1_024,
            sessions_max: 65_536,
            sessions_per_principal_max: 256,
            evictable_after: Duration::from_secs(60),
            in_flight_per_session_max: 64,
            in_flight_per_principal_max: 1_024,
            in_flight_max: 16_384,
            in_flight_bytes_max: 64 * MIB,
            reply_reservation_bytes: 4 * KIB,
            kept_reply_bytes_per_session_max: 4 * MIB,
            kept_reply_bytes_per_principal_max: 16 * MIB,
            kept_reply_bytes_max: 256 * MIB,
            held_bytes_per_session_max: MIB,
            hole_age_max: Duration::from_secs(10),
            lease: Duration::from_secs(600),
            journal_lease: Duration::from_secs(24 * 3_600),
            unused_lease: Duration::from_secs(10),
            connections_max: 65_536,
            handshake_timeout: Duration::from_secs(5),
            frame_timeout: Duration::from_secs(10),
            frame_bytes_per_second_min: 500,
            idle_ping: Duration::from_secs(60),
            pings_missed_max: 2,
            output_bytes_mark: MIB,
            output_bytes_max: 4 * MIB,
            output_stall_max: Duration::from_secs(30),
            half_close_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            queued_calls_max: 65_536,
            queued_bytes_max: 64 * MIB,
            retransmit_timeout: Duration::from_secs(2),
            spare_idle: Duration::from_secs(10),
            window_stall_max: Duration::from_secs(1),
            further_sessions_max: 3,
            connect_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            retries_per_second: 10,
            retries_per_hundred_calls: 20,
            ack_delay: Duration::from_secs(1),
            ack_bytes: 64 * KIB,
        }
    }
}
