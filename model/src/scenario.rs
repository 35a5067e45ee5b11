//! What is explored: a few small worlds, each of which makes other things possible.
//!
//! All at once would be too much for any machine; each alone is explored to its end.

use crate::Semantics;
use crate::world::Bounds;

/// A world to explore, by name.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What can happen in it, for a person.
    pub about: &'static str,
    /// How much of it.
    pub bounds: Bounds,
}

const AT_MOST: Semantics = Semantics::AtMostOnce;
const EXACTLY: Semantics = Semantics::ExactlyOnce;

/// Returns a world in which frames are lost, late and sent again, and nothing else happens.
fn calm(calls: &[Semantics]) -> Bounds {
    Bounds {
        calls: calls.to_vec(),
        connections: 3,
        server_crashes: 0,
        client_crashes: 0,
        expiries: 0,
        looks: 0,
        refusals: 0,
        given_up: 0,
        is_durable: false,
        is_transactional: false,
        is_idempotent: false,
        has_journal: false,
        joins: false,
        in_order: false,
        window: 2,
    }
}

/// Returns the worlds, the cheaper ones first.
pub fn scenarios() -> Vec<Scenario> {
    let one = &[EXACTLY];
    let two = &[EXACTLY, AT_MOST];
    let three = &[EXACTLY, AT_MOST, EXACTLY];
    vec![
        Scenario {
            name: "retry",
            about: "three calls by three connections, at least once refused",
            bounds: Bounds { refusals: 1, ..calm(three) },
        },
        Scenario {
            name: "order",
            about: "three calls that run in order",
            bounds: Bounds { in_order: true, window: 4, given_up: 1, ..calm(three) },
        },
        Scenario {
            name: "leases",
            about: "leases end, calls are given up",
            bounds: Bounds { expiries: 1, given_up: 1, ..calm(two) },
        },
        Scenario {
            name: "crashes",
            about: "both ends crash and forget",
            bounds: Bounds { server_crashes: 1, client_crashes: 1, ..calm(two) },
        },
        Scenario {
            name: "journal",
            about: "the client crashes, twice, and comes back from its journal",
            bounds: Bounds { client_crashes: 2, has_journal: true, given_up: 1, ..calm(two) },
        },
        Scenario {
            name: "join",
            about: "copies by a second connection, refused and given up",
            bounds: Bounds { joins: true, refusals: 1, given_up: 1, ..calm(two) },
        },
        Scenario {
            name: "second",
            about: "three calls, with copies by a second connection",
            bounds: Bounds { joins: true, ..calm(three) },
        },
        Scenario {
            name: "durable",
            about: "the server crashes and remembers; START is safe before a handler starts",
            bounds: Bounds { given_up: 1, refusals: 1, ..durable(two) },
        },
        Scenario {
            name: "recovery",
            about: "the server crashes twice, and late connections find it again",
            bounds: Bounds { connections: 4, server_crashes: 2, given_up: 1, ..durable(one) },
        },
        Scenario {
            name: "narrow",
            about: "a window of one, past which calls are given up before anything is recorded",
            bounds: Bounds { window: 1, given_up: 2, ..durable(three) },
        },
        Scenario {
            name: "doubt",
            about: "calls that the server is in doubt of are sent again, for they do no harm",
            bounds: Bounds { is_idempotent: true, server_crashes: 2, ..durable(two) },
        },
        Scenario {
            name: "reads",
            about: "others read what a call has done, while the server crashes",
            bounds: Bounds { is_transactional: true, looks: 1, ..durable(one) },
        },
        Scenario {
            name: "transaction",
            about: "effect and answer in one commit; both ends crash and remember",
            bounds: Bounds {
                is_transactional: true,
                client_crashes: 1,
                has_journal: true,
                given_up: 1,
                ..durable(two)
            },
        },
        Scenario {
            name: "durable-lease",
            about: "leases end while the server crashes",
            bounds: Bounds { expiries: 1, is_transactional: true, given_up: 1, ..durable(two) },
        },
        Scenario {
            name: "durable-journal",
            about: "both ends crash and remember; handlers take time",
            bounds: Bounds { client_crashes: 1, has_journal: true, given_up: 1, ..durable(two) },
        },
        Scenario {
            name: "durable-join",
            about: "copies by a second connection, while the server crashes",
            bounds: Bounds { joins: true, ..durable(two) },
        },
    ]
}

/// Returns a world in which the server crashes once and remembers.
fn durable(calls: &[Semantics]) -> Bounds {
    Bounds { is_durable: true, server_crashes: 1, ..calm(calls) }
}
