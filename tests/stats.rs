//! What a server tells of itself, after a history that is known.
#![allow(missing_docs)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use onceloop::protocol::codec::{self, EncodeArgs};
use onceloop::protocol::frame::{Header, Kind, MAGIC, MethodId};
use onceloop::protocol::handshake::{Hello, Order};
use onceloop::server::Stats;
use onceloop::{CallOptions, MethodInfo, Server};
use support::app::{App, keep, note, shop};
use support::proxy::Proxy;
use support::{World, hasty_limits};

onceloop::service! {
    /// The service that every server has, as a client declares it.
    pub(crate) mod about {
        /// Lists the methods.
        #[idempotent]
        #[name = "onceloop.methods"]
        fn methods() -> Vec<MethodInfo>;
        /// Answers at once.
        #[idempotent]
        #[name = "onceloop.ping"]
        fn ping();
        /// Tells the numbers.
        #[idempotent]
        #[name = "onceloop.stats"]
        fn stats() -> Stats;
    }

    /// `shop.add`, as somebody declares it who is wrong.
    pub(crate) mod wrong {
        /// Takes a word where a number is wanted.
        #[name = "shop.add"]
        fn add(amount: &str) -> u64;
    }
}

/// Returns the server's numbers, without those of the call that would ask for them.
fn numbers(world: &mut World<App>, server: Server<App>) -> Stats {
    server.stats(world.registry())
}

#[test]
fn every_call_is_counted_by_what_became_of_it() {
    let mut world = World::<App>::new();
    let (server, address) = world.serve(shop());
    assert_eq!(numbers(&mut world, server), Stats::default());
    let client = world.connect(&address);
    for call in 0..5 {
        client.call(world.registry(), shop::add, (1,), note(call));
    }
    client.call(world.registry(), shop::buy, (1,), note(5));
    client.call(world.registry(), shop::panic, (1,), note(6));
    client.call(world.registry(), shop::panic_later, (1,), note(7));
    client.call(world.registry(), shop::give_up, (), note(8));
    world.told(9);
    let after = numbers(&mut world, server);
    assert_eq!((after.calls_started, after.calls_answered), (9, 9), "each is answered once");
    assert_eq!((after.in_flight, after.calls_refused, after.calls_replayed), (0, 0, 0));

    // None of these has a handler that starts.
    client.call(world.registry(), shop::missing, (), note(1));
    client.call(world.registry(), wrong::add, ("much",), note(2));
    let options = CallOptions::new().deadline(Duration::from_millis(10));
    let late = client.call_with(world.registry(), options, shop::later, (1,), note(3));
    world.until(|world| !world.app.waiting.is_empty());
    let running = numbers(&mut world, server);
    assert_eq!((running.in_flight, running.calls_refused), (1, 2));
    assert_eq!(running.calls_started, 10, "the late one only");
    world.told(3);
    world.until(|world| server.stats(world.reactor.registry()).calls_cancelled == 1);
    assert!(!client.cancel(world.registry(), late));
    world.answer_later();
    world.until(|world| server.stats(world.reactor.registry()).in_flight == 0);

    client.notify(world.registry(), shop::add, (1,)).unwrap();
    client.notify(world.registry(), shop::missing, ()).unwrap();
    world.until(|world| server.stats(world.reactor.registry()).notifications_dropped == 1);
    let end = numbers(&mut world, server);
    assert_eq!((end.notifications, end.connections, end.sessions), (1, 1, 1));
    assert_eq!((end.connections_accepted, end.sessions_opened), (1, 1));
    client.close(world.registry());
    world.until(|world| server.stats(world.reactor.registry()).connections == 0);
    let closed = numbers(&mut world, server);
    assert_eq!((closed.sessions, closed.kept_replies, closed.kept_reply_bytes), (0, 0, 0));
    assert_eq!((closed.connections_closed, closed.sessions_expired), (1, 0));
}

#[test]
fn a_lost_connection_is_counted_and_so_is_the_end_of_a_lease() {
    let mut world = World::<App>::new();
    let mut limits = hasty_limits();
    limits.lease = Duration::from_millis(30);
    let (server, address) = world.serve(shop().limits(limits));
    let proxy = Proxy::gentle(world.registry(), address.resolve().unwrap()[0]);
    let client = world.connect(&proxy.address);
    client.call(world.registry(), shop::later, (1,), note(1));
    world.until(|world| !world.app.waiting.is_empty());
    proxy.cut(world.registry());
    world.until(|world| server.stats(world.reactor.registry()).sessions_resumed == 1);
    world.answer_later();
    world.told(1);
    let stats = numbers(&mut world, server);
    assert_eq!((stats.sessions, stats.sessions_opened, stats.sessions_expired), (1, 1, 0));
    assert_eq!((stats.calls_started, stats.calls_answered), (1, 1));

    // A client that goes without a word leaves its session behind, until its lease is over.
    let stranger = Stranger::new(&address);
    world.until(|world| server.stats(world.reactor.registry()).sessions == 2);
    stranger.send(&request(1, 0, "shop.add", &(1u64,)));
    world.until(|world| server.stats(world.reactor.registry()).calls_answered == 2);
    drop(stranger);
    world.until(|world| server.stats(world.reactor.registry()).sessions_expired == 1);
    let stats = numbers(&mut world, server);
    assert_eq!((stats.sessions, stats.connections), (1, 1), "the other is attached");
}

#[test]
fn copies_of_a_call_are_counted_by_what_they_met() {
    let mut world = World::<App>::new();
    let (server, address) = world.serve(shop());
    let stranger = Stranger::new(&address);
    stranger.send(&request(1, 0, "shop.add", &(1u64,)));
    stranger.send(&request(1, 0, "shop.add", &(1u64,)));
    stranger.send(&request(2, 0, "shop.later", &(1u64,)));
    stranger.send(&request(2, 0, "shop.later", &(1u64,)));
    stranger.send(&request(2, 0, "shop.later", &(1u64,)));
    stranger.send(&request(3, 0, "shop.missing", &()));
    stranger.send(&request(500, 0, "shop.add", &(1u64,)));
    // The same seq with other arguments is a bug of the client.
    stranger.send(&request(1, 0, "shop.add", &(2u64,)));
    world.until(|world| server.stats(world.reactor.registry()).calls_rejected == 1);
    let stats = numbers(&mut world, server);
    assert_eq!((stats.calls_started, stats.calls_answered, stats.in_flight), (2, 1, 1));
    assert_eq!((stats.calls_replayed, stats.calls_joined, stats.calls_refused), (1, 2, 2));
    assert_eq!(stats.kept_replies, 1);
    assert_eq!(world.app.sum, 2, "each ran once");
    stranger.send(&request(4, 1, "shop.sum", &()));
    world.until(|world| server.stats(world.reactor.registry()).calls_answered == 2);
    assert_eq!(numbers(&mut world, server).kept_replies, 1, "the first is acknowledged");
}

#[test]
fn the_numbers_and_the_methods_can_be_asked_for_over_the_wire() {
    let mut world = World::<App>::new();
    let (server, address) = world.serve(shop());
    let client = world.connect(&address);
    for call in 0..3 {
        client.call(world.registry(), shop::add, (1,), note(call));
    }
    world.told(3);
    let expected = numbers(&mut world, server);
    client.call(world.registry(), about::stats, (), move |reply, cx| {
        let stats = reply.as_ref().expect("they are told");
        assert_eq!(stats.calls_started, expected.calls_started + 1, "its own call, too");
        assert_eq!(stats.calls_answered, expected.calls_answered);
        assert_eq!((stats.in_flight, stats.sessions), (1, 1));
        keep(1, reply.map(drop), cx);
    });
    client.call(world.registry(), about::methods, (), |reply, cx| {
        let methods = reply.as_ref().expect("they are listed");
        let names: Vec<&str> = methods.iter().map(|info| &*info.name).collect();
        assert!(names.is_sorted());
        for expected in ["onceloop.methods", "onceloop.ping", "onceloop.stats", "shop.add"] {
            assert!(names.contains(&expected), "{expected} in {names:?}");
        }
        assert!(!names.contains(&"shop.missing"), "it has no handler");
        let sum = methods.iter().find(|info| info.name == "shop.sum").expect("it is listed");
        assert!(sum.idempotent);
        assert_eq!(sum.signature, "sum() -> u64");
        assert_eq!(sum.docs.trim(), "Returns the sum.");
        keep(2, reply.map(drop), cx);
    });
    client.call(world.registry(), about::ping, (), note(3));
    assert!(world.told(3).iter().all(|(_, told)| told.is_ok()));
}

/// A peer that says what a client would not.
struct Stranger(TcpStream);

impl Stranger {
    fn new(address: &onceloop::Address) -> Stranger {
        let stranger = Stranger(TcpStream::connect(address.to_string()).expect("it listens"));
        let order = Order::Unordered;
        let hello = Hello { version: 1, features: 0, window: 8, order, token: None };
        let mut bytes = MAGIC.to_vec();
        Header::new(Kind::Hello, 0).append(&codec::encode(&hello).expect("it encodes"), &mut bytes);
        stranger.send(&bytes);
        stranger
    }

    fn send(&self, bytes: &[u8]) {
        (&self.0).write_all(bytes).expect("the kernel takes it");
    }
}

fn request(seq: u64, ack: u64, method: &str, args: &impl EncodeArgs) -> Vec<u8> {
    let mut header = Header::new(Kind::Request, seq);
    (header.ack, header.method) = (ack, MethodId::of(method));
    let mut body = Vec::new();
    args.encode_args(&mut body).expect("they encode");
    let mut bytes = Vec::new();
    header.append(&body, &mut bytes);
    bytes
}
