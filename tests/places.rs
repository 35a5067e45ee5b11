//! Where servers listen and who serves what: Unix sockets, IPv6, several addresses, several
//! services, several servers and clients on one loop.
#![allow(missing_docs)]

mod support;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use onceloop::reactor::{Listener, Peer};
use onceloop::{Address, Builder, Server};
use support::app::{App, note, ok, shop};
use support::{World, hasty};

onceloop::service! {
    /// Tells who asks.
    pub(crate) mod who {
        /// Returns the caller's address, or its process.
        fn am_i() -> String;
    }

    /// Another with a method of the same name as one of `shop`.
    pub(crate) mod books {
        /// Counts a book.
        fn add(title: &str) -> u64;
    }
}

fn with_who() -> Builder<App> {
    shop().method(who::am_i, |(), cx| {
        Ok(match cx.peer() {
            Some(Peer::Tcp(address)) => format!("tcp {}", address.ip()),
            Some(Peer::Unix { pid, .. }) => format!("process {pid:?}"),
            other => format!("{other:?}"),
        })
    })
}

/// Some machines have none.
fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[track_caller]
fn adds(world: &mut World<App>, address: impl Into<Address>) -> (u32, support::app::Told) {
    let client = hasty().connect(world.registry(), address.into()).unwrap();
    client.call(world.registry(), shop::add, (1,), note(1));
    let told = world.told(1).remove(0);
    client.close(world.registry());
    told
}

#[test]
fn one_server_listens_at_tcp_ipv6_and_a_unix_socket() {
    let mut world = World::<App>::new();
    let path = support::socket_path();
    let server = with_who().start(world.registry()).unwrap();
    let unix = format!("unix:{}", path.display());
    let mut places = vec![("127.0.0.1:0", "tcp 127.0.0.1".to_owned())];
    places.push((&unix, format!("process Some({})", std::process::id())));
    if has_ipv6() {
        places.push(("[::1]:0", "tcp ::1".to_owned()));
    }
    for (place, _) in &places {
        server.listen(world.registry(), *place).unwrap();
    }
    let addresses = server.local_addresses(world.registry());
    assert_eq!(addresses.len(), places.len());
    for (n, (address, (_, expected))) in (1..).zip(addresses.into_iter().zip(places)) {
        assert_eq!(adds(&mut world, address.clone()), ok(1, &n.to_string()));
        let client = hasty().connect(world.registry(), address).unwrap();
        client.call(world.registry(), who::am_i, (), note(2));
        assert_eq!(world.told(1), [ok(2, &format!("{expected:?}"))]);
    }
    server.close(world.registry());
    assert!(!path.exists(), "the socket file goes with the server");
}

#[test]
fn all_of_ipv6_is_all_of_ipv4_too() {
    if !has_ipv6() {
        return;
    }
    let mut world = World::<App>::new();
    let server = shop().listen(world.registry(), "[::]:0").unwrap();
    let Address::Tcp(address) = server.local_addresses(world.registry()).remove(0) else {
        panic!()
    };
    for text in [format!("127.0.0.1:{}", address.port()), format!("[::1]:{}", address.port())] {
        let address: Address = text.parse().unwrap();
        assert!(adds(&mut world, address).1.is_ok(), "{text}");
    }
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let mut world = World::<App>::new();
    let path = support::socket_path();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind, as by a crash");
    let address = format!("unix:{}", path.display());
    let server = shop().listen(world.registry(), address.as_str()).unwrap();
    let error = shop().listen(world.registry(), address.as_str()).unwrap_err();
    assert!(error.to_string().contains("another process listens"), "{error}");
    assert_eq!(adds(&mut world, Address::Unix(path.clone())), ok(1, "1"), "it still serves");
    server.close(world.registry());
    std::fs::write(&path, "not a socket").unwrap();
    assert!(shop().listen(world.registry(), address.as_str()).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a socket", "and is not touched");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_port_that_is_taken_is_said_to_be() {
    let mut world = World::<App>::new();
    let (_, address) = world.serve(shop());
    let error = shop().listen(world.registry(), address.to_string()).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(shop().listen(world.registry(), "nowhere").is_err());
}

#[test]
fn a_listener_made_elsewhere_is_taken_over() {
    let mut world = World::<App>::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = shop().start(world.registry()).unwrap();
    let listener = Listener::from_tcp(listener).unwrap();
    server.attach(world.registry(), listener).unwrap();
    assert_eq!(adds(&mut world, address), ok(1, "1"));
}

#[test]
fn methods_of_one_name_in_two_services_are_two_methods() {
    let mut world = World::<App>::new();
    let builder = shop().service(books::METHODS).method(books::add, |(title,), cx| {
        cx.state.messages.push(title.to_owned());
        Ok(cx.state.messages.len() as u64)
    });
    let (_, address) = world.serve(builder);
    let client = world.connect(&address);
    client.call(world.registry(), books::add, ("Emma",), note(1));
    client.call(world.registry(), shop::add, (5,), note(2));
    client.call(world.registry(), books::add, ("Ulysses",), note(3));
    assert_eq!(world.told(3), [ok(1, "1"), ok(2, "5"), ok(3, "2")]);
}

#[test]
fn servers_and_clients_of_one_loop_are_strangers_to_each_other() {
    onceloop::service! {
        /// Says its name.
        pub(crate) mod name {
            /// Returns it.
            fn get() -> String;
        }
    }
    let mut world = World::<App>::new();
    let serve = |world: &mut World<App>, own: &'static str| -> (Server<App>, Address) {
        world.serve(Builder::new().method(name::get, move |(), _| Ok(own.to_owned())))
    };
    let (one, at_one) = serve(&mut world, "one");
    let (two, at_two) = serve(&mut world, "two");
    let clients = [&at_one, &at_two, &at_one, &at_two].map(|address| world.connect(address));
    for call in 0..400 {
        clients[call as usize % 4].call(world.registry(), name::get, (), note(call));
    }
    for (call, told) in world.told(400) {
        let expected = if call % 2 == 0 { "one" } else { "two" };
        assert_eq!(told, Ok(format!("{expected:?}")), "call {call}");
    }
    for server in [one, two] {
        let stats = server.stats(world.registry());
        assert_eq!((stats.sessions, stats.calls_started), (2, 200));
    }
    // One of them ends; the other does not mind.
    one.close(world.registry());
    clients[1].call(world.registry(), name::get, (), note(1));
    assert_eq!(world.told(1), [ok(1, "\"two\"")]);
}
