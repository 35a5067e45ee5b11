//! A steady stream of calls allocates nothing, at either end.
#![allow(missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

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

/// Counts the allocations of each thread; the test harness has threads of its own.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no cell any more; it is not the one that is measured.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counter is a cell
// without a destructor, so counting allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
    let before = ALLOCATIONS.get();
    while app.count < WARM + MEASURED {
        reactor.turn(&mut app, Some(Duration::from_secs(5))).unwrap();
    }
    // Deadlines come up once in a while, and a queue that is full grows once more.
    let allocations = ALLOCATIONS.get() - before;
    assert!(allocations < 20, "{allocations} allocations in {MEASURED} calls");
}
