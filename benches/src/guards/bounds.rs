//! The bounds, all of them: the one place to change when the hot path has become cheaper.
//!
//! Counts of system calls are the same in every run, so their bounds are what there is to be. For
//! the rest a bound is what was counted and about 8 % more: compilers and the system's own library
//! differ by less from machine to machine, and what makes a request dearer by a tenth is noticed.

/// The most that something may be.
#[derive(Debug)]
pub(super) struct Bound {
    /// What is counted, for a person.
    pub(super) what: &'static str,
    pub(super) most: f64,
    /// Why that is the bound.
    pub(super) why: &'static str,
}

/// The system calls of a round: one request (or call) on each of `connections` times `in_flight`.
#[derive(Debug)]
pub(super) struct CallBounds {
    /// Whether the client's process is counted, instead of the server's.
    pub(super) is_client: bool,
    pub(super) connections: u32,
    pub(super) in_flight: u32,
    /// Reads, writes, waits for events, and all others.
    pub(super) bounds: [Bound; 4],
}

macro_rules! call_bounds {
    ($is_client:literal, $connections:literal x $in_flight:literal, $name:literal: $waits:literal) => {
        CallBounds {
            is_client: $is_client,
            connections: $connections,
            in_flight: $in_flight,
            bounds: [
                Bound {
                    what: concat!($name, ": reads of a round"),
                    most: $connections as f64,
                    why: "One for each ready socket: a short read means that it is empty.",
                },
                Bound {
                    what: concat!($name, ": writes of a round"),
                    most: $connections as f64,
                    why: "One for each touched connection, at the end of the turn.",
                },
                Bound {
                    what: concat!($name, ": waits of a round"),
                    most: $waits as f64,
                    why: "One for 128 events (`Config::events`).",
                },
                Bound {
                    what: concat!($name, ": other system calls of a round"),
                    most: 0.0,
                    why: "Memory is the loop's already, and the clock is read without the kernel.",
                },
            ],
        }
    };
}

/// Few waits show with many connections, one read and one write with many requests at once.
pub(super) static SYSTEM_CALLS: [CallBounds; 4] = [
    call_bounds!(false, 200 x 1, "server, 200 connections x 1 beside 300 idle": 2),
    call_bounds!(false, 1 x 128, "server, 1 connection x 128 beside 300 idle": 1),
    call_bounds!(true, 200 x 1, "client, 200 connections x 1": 2),
    call_bounds!(true, 1 x 128, "client, 1 connection x 128": 1),
];

/// What a process does for a request or a call, where there is one on each of `connections` times
/// `in_flight`.
#[derive(Debug)]
pub(super) struct ShapeBounds {
    pub(super) side: Side,
    pub(super) connections: u32,
    pub(super) in_flight: u32,
    pub(super) instructions: Bound,
    pub(super) allocations: Bound,
}

/// Whose process is counted, and for which calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    /// The server's, for calls in the table of xids.
    Protected,
    /// The server's, for calls outside it.
    Unprotected,
}

/// Whose, connections and calls in flight, a name, the most instructions, the most allocations, and
/// why so many of these.
macro_rules! shape_bounds {
    (
        $side:ident, $connections:literal x $in_flight:literal, $name:literal:
        $instructions:literal, $allocations:literal, $why:literal
    ) => {
        ShapeBounds {
            side: Side::$side,
            connections: $connections,
            in_flight: $in_flight,
            instructions: Bound {
                what: concat!($name, ": instructions"),
                most: $instructions,
                why: "What was counted, and 8 % more.",
            },
            allocations: Bound {
                what: concat!($name, ": allocations"),
                most: $allocations,
                why: $why,
            },
        }
    };
}

/// Each counted with 16 bytes each way; a client's calls with a callback that captures a number.
pub(super) static SHAPES: [ShapeBounds; 5] = [
    shape_bounds!(Protected, 1 x 1024, "server, 1 x 1024": 1_115.0, 0.001,
        "A small request takes no memory of ours."),
    shape_bounds!(Unprotected, 1 x 1024, "server, 1 x 1024 unprotected": 945.0, 0.001,
        "A small request takes no memory of ours."),
    shape_bounds!(Protected, 300 x 1, "server, 300 x 1": 3_200.0, 0.02,
        "None, but while the loop's spare buffers become as many as a turn takes."),
    shape_bounds!(Client, 1 x 1024, "client, 1 x 1024": 1_680.0, 1.05,
        "One for the callback."),
    shape_bounds!(Client, 300 x 1, "client, 300 x 1": 3_945.0, 1.05,
        "One for the callback."),
];

/// Of a server, for each connection that has made a call and is silent.
pub(super) static MEMORY: Bound = Bound {
    what: "server, idle connection: resident bytes",
    most: 300.0,
    why: "Connection and session, and what the allocator makes of them; memory comes in pages.",
};
