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

#[test]
fn a_steady_stream_of_calls_allocates_nothing() {
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
    for _ in 0..16 {
        reactor.registry().defer(call_again);
    }
    while app.count < WARM {
        reactor.turn(&mut app, Some(Duration::from_secs(5))).unwrap();
    }
    let before = allocations();
    while app.count < WARM + MEASURED {
        reactor.turn(&mut app, Some(Duration::from_secs(5))).unwrap();
    }
    // None by a call. The first timer that fires may be in here, for which the loop makes its queue.
    let allocations = allocations() - before;
    assert!(allocations < 4, "{allocations} allocations in {MEASURED} calls");
}
