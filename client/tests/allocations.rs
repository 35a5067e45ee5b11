//! A steady stream of calls allocates nothing, at either end.
#![allow(missing_docs)]

#[path = "../../reactor/tests/support/counting.rs"]
mod counting;

use std::time::Duration;

use counting::allocations;
use onceloop_client::Client;
use onceloop_reactor::{Cx, Reactor};
use onceloop_server::Builder;

onceloop_protocol::service! {
    /// What is called.
    pub mod counter {
        /// Adds to the count and returns it.
        fn add(n: u64) -> u64;
    }
}

struct App {
    client: Option<Client<App>>,
    count: u64,
}

/// Calls again and again: a closure without captures, which takes no memory.
fn call_again(cx: &mut Cx<'_, App>) {
    let client = cx.state.client.expect("made before the first call");
    client.call(cx.registry, counter::add, (1,), |reply, cx| {
        assert!(reply.is_ok());
        call_again(cx);
    });
}

/// Returns how much a steady stream of calls, so many of them open at any time, allocates.
fn allocations_of_steady_calls(open: usize) -> usize {
    const WARM: u64 = 20_000;
    const MEASURED: u64 = 20_000;
    let mut reactor = Reactor::new().unwrap();
    let server = Builder::<App>::new()
        .method(counter::add, |(n,), cx| {
            cx.state.count += n;
            Ok(cx.state.count)
        })
        .listen(reactor.registry(), "127.0.0.1:0")
        .unwrap();
    let address = server.local_addresses(reactor.registry()).remove(0);
    let client = Client::connect(reactor.registry(), address).unwrap();
    let mut app = App { client: Some(client), count: 0 };
    for _ in 0..open {
        reactor.registry().defer(call_again);
    }
    while app.count < WARM {
        reactor.turn(&mut app, Some(Duration::from_secs(5))).unwrap();
    }
    let before = allocations();
    while app.count < WARM + MEASURED {
        reactor.turn(&mut app, Some(Duration::from_secs(5))).unwrap();
    }
    allocations() - before
}

#[test]
fn a_steady_stream_of_calls_allocates_nothing() {
    // Few, a window of them, and more than a window: the rest is queued.
    for open in [16, 128, 1024] {
        // None by a call. The first timer that fires may be in here, for which the loop makes its
        // queue.
        let allocations = allocations_of_steady_calls(open);
        assert!(allocations < 4, "{allocations} allocations in 20 000 calls, {open} open");
    }
}
