//! The faces for programs without a loop, and for other threads of one that has it.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use onceloop::client::Builder;
use onceloop::{
    Address, BlockingClient, CallError, CallOptions, Client, Code, Handle, Ran, Remote, Server,
};
use support::app::{App, TooPoor, shop};
use support::{World, hasty, hasty_limits};

/// A server on a thread of its own.
struct Served {
    server: Server<App>,
    address: Address,
    remote: Remote<App>,
    thread: Option<JoinHandle<u64>>,
}

impl Served {
    fn new() -> Served {
        Served::at("127.0.0.1:0")
    }

    fn at(address: &str) -> Served {
        let (tell, told) = mpsc::channel();
        let address = address.to_owned();
        let thread = thread::spawn(move || {
            let mut world = World::<App>::new();
            let server = shop().listen(world.registry(), address.as_str()).expect("a server");
            let address = server.local_addresses(world.registry()).remove(0);
            tell.send((server, address, world.registry().remote())).expect("the test waits");
            world.reactor.run(&mut world.app).expect("a loop");
            world.app.sum
        });
        let (server, address, remote) = told.recv().expect("it listens");
        Served { server, address, remote, thread: Some(thread) }
    }

    /// Ends the loop and returns the sum.
    fn stop(mut self) -> u64 {
        self.remote.post(|cx| cx.registry.stop()).expect("it runs");
        self.thread.take().expect("once").join().expect("it does not panic")
    }
}

fn blocking(address: &Address) -> BlockingClient {
    let builder: Builder<()> = hasty();
    BlockingClient::connect_with(builder, address.clone()).expect("a client")
}

#[test]
fn a_handle_is_used_by_eight_threads_at_once() {
    const THREADS: u64 = 8;
    const CALLS: u64 = 500;
    let served = Served::new();
    let mut world = World::<App>::new();
    let client = world.connect(&served.address);
    let handle: Handle<App> = client.handle(world.registry());
    let remote = world.registry().remote();
    let by_callback = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let handle = handle.clone();
            let by_callback = Arc::clone(&by_callback);
            thread::spawn(move || {
                let mut sums = Vec::new();
                for call in 0..CALLS {
                    // Each of the three ways in turn.
                    match call % 3 {
                        0 => {
                            let options = CallOptions::new();
                            sums.push(handle.wait(options, shop::add, (1,)).expect("a reply"));
                        }
                        1 => {
                            let reply = handle.call_channel(shop::add, (1,));
                            sums.push(reply.recv().expect("one comes").expect("a reply"));
                        }
                        _ => {
                            let count = Arc::clone(&by_callback);
                            handle.call(shop::add, (1,), move |reply| {
                                count.fetch_add(reply.expect("a reply").min(1), Ordering::Relaxed);
                            });
                        }
                    }
                }
                sums
            })
        })
        .collect();
    let ender = thread::spawn(move || {
        let sums: Vec<u64> =
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
        // Answered after all callbacks, which were posted before it.
        handle.wait(CallOptions::new(), shop::sum, ()).expect("a reply");
        remote.post(|cx| cx.registry.stop()).expect("the loop runs");
        sums
    });
    world.reactor.run(&mut world.app).unwrap();
    let sums = ender.join().unwrap();
    world.until(|world| client.pending(world.reactor.registry()) == 0);
    let by_callback = by_callback.load(Ordering::Relaxed);
    assert_eq!(sums.len() as u64 + by_callback, THREADS * CALLS);
    let distinct: BTreeSet<u64> = sums.iter().copied().collect();
    assert_eq!(distinct.len(), sums.len(), "every call had an effect of its own");
    assert_eq!(served.stop(), THREADS * CALLS);
}

#[test]
fn a_blocking_client_tells_each_error() {
    let served = Served::new();
    let mut client = shop::Stub(blocking(&served.address));
    assert_eq!(client.add(5), Ok(5));
    assert_eq!(client.buy(3), Err(CallError::Application(TooPoor { missing: 7 })));
    assert_eq!(client.fail("no luck").unwrap_err().to_string(), "the call failed: no luck");
    let error = client.panic(1).unwrap_err();
    assert_eq!((error.ran(), error.code()), (Ran::Yes, Some(Code::ApplicationError)));
    let error = client.missing().unwrap_err();
    assert_eq!((error.ran(), error.code()), (Ran::No, Some(Code::NoMethod)));
    let error = client.echo(&"x".repeat(2_000_000)).unwrap_err();
    assert_eq!((error.ran(), error.code()), (Ran::No, Some(Code::TooLarge)));
    let error = client.long(2_000_000).unwrap_err();
    assert_eq!(error.ran(), Ran::Yes);
    // An error ends a call, not the client.
    assert_eq!(client.sum(), Ok(6));
    assert_eq!(served.stop(), 6);
}

#[test]
fn a_blocking_client_of_a_server_that_is_not_there_waits_and_then_says_so() {
    let path = support::socket_path();
    let mut client = blocking(&Address::Unix(path));
    let begin = Instant::now();
    let options = CallOptions::new().deadline(Duration::from_millis(30));
    let error = client.call_with(options, shop::add, (1,)).unwrap_err();
    assert_eq!((error.ran(), error.code()), (Ran::No, Some(Code::Deadline)));
    assert!(begin.elapsed() >= Duration::from_millis(30));
    assert!(error.to_string().contains("could not connect"), "{error}");
    assert!(BlockingClient::connect("nowhere").is_err());
}

#[test]
fn a_blocking_client_finds_its_server_again() {
    let path = support::socket_path();
    let address = format!("unix:{}", path.display());
    let first = Served::at(&address);
    let mut client = shop::Stub(blocking(&first.address));
    assert_eq!(client.add(1), Ok(1));
    // While no call is made nothing is read: the loss is found by the next one, which has not left.
    let server = first.server;
    first.remote.post(move |cx| server.close(cx.registry)).unwrap();
    assert_eq!(first.stop(), 1);
    let second = Served::at(&address);
    match client.add(1) {
        Ok(sum) => assert_eq!(sum, 1, "the second server begins anew"),
        // It was written before the loss was seen.
        Err(error) => assert_eq!(error.ran(), Ran::Unknown),
    }
    assert!(client.sum().is_ok());
    assert!(second.stop() <= 1);
}

#[test]
fn a_handle_outlives_its_client_and_its_loop() {
    let served = Served::new();
    let mut world = World::<App>::new();
    let client = world.connect(&served.address);
    let handle = client.handle(world.registry());
    client.close(world.registry());
    let reply = handle.call_channel(shop::add, (1,));
    world.pass(Duration::from_millis(2));
    let error = reply.try_recv().expect("it is answered").unwrap_err();
    assert_eq!((error.ran(), error.code()), (Ran::No, Some(Code::Cancelled)));
    let pending: Client<App> = world.connect(&served.address);
    let other = pending.handle(world.registry());
    let waiting = other.call_channel(shop::later, (1,));
    world.until(|world| pending.counters(world.reactor.registry()).calls == 1);
    drop(world);
    let error = waiting.recv().expect("it is answered").unwrap_err();
    assert_eq!(error.ran(), Ran::Unknown, "it had left");
    let error = handle.call_channel(shop::add, (1,)).recv().expect("at once").unwrap_err();
    assert_eq!(error.ran(), Ran::No);
    served.stop();
}

#[test]
fn many_blocking_clients_share_a_server() {
    const CLIENTS: u64 = 8;
    const CALLS: u64 = 100;
    let served = Served::new();
    let threads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let address = served.address.clone();
            thread::spawn(move || {
                let builder = Client::builder().limits(hasty_limits());
                let client = BlockingClient::connect_with(builder, address).expect("a client");
                let mut shop = shop::Stub(client);
                (0..CALLS).map(|_| shop.add(1).expect("a reply")).max()
            })
        })
        .collect();
    let most = threads.into_iter().map(|thread| thread.join().expect("no panic")).max().flatten();
    assert_eq!(most, Some(CLIENTS * CALLS));
    assert_eq!(served.stop(), CLIENTS * CALLS);
}
