//! The simulated network without faults: connections, buffers, ends.

mod simulated;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use onceloop_reactor::sim::{Faults, KillMode};
use simulated::{MINUTE, Pair, Record, SECOND, dial, pattern};

fn pair(seed: u64) -> Pair {
    Pair::new(seed, Faults::none(), false)
}

#[test]
fn bytes_go_there_and_back_in_their_order() {
    for seed in 0..50 {
        let mut pair = Pair::new(seed, Faults::none(), true);
        let client = pair.send(300_000);
        pair.simulation.run_for(10 * SECOND);
        assert!(client.borrow().received == pattern(300_000), "seed {seed}");
        assert!(pair.at_server().borrow().received == pattern(300_000), "seed {seed}");
        assert_eq!(client.borrow().ended, None);
    }
}

#[test]
fn connecting_takes_a_round_trip() {
    let mut pair = pair(1);
    let client = pair.send(1);
    let world = pair.simulation.world().clone();
    let begun = world.now();
    assert!(pair.simulation.run_until(SECOND, |_| client.borrow().is_connected));
    let round_trip = world.now() - begun;
    assert!((60..3_000).contains(&round_trip.as_micros()), "{round_trip:?}");
}

#[test]
fn nobody_listens_and_the_connection_is_refused() {
    let mut pair = pair(1);
    let closed_port = SocketAddr::new(pair.server.address(), 81);
    let client = dial(pair.registry(), closed_port, Record::default());
    pair.simulation.run_for(SECOND);
    assert_eq!(client.borrow().ended.as_deref(), Some("connection refused"));
    assert!(!client.borrow().is_connected);
}

#[test]
fn nobody_answers_and_the_connection_times_out() {
    for parts_way_there in [true, false] {
        let mut pair = pair(1);
        let (server, client) = (pair.server.clone(), pair.client.clone());
        match parts_way_there {
            true => pair.simulation.world().part(&client, &server),
            false => pair.simulation.world().part(&server, &client),
        }
        let client = pair.send(1);
        pair.simulation.run_for(MINUTE);
        assert_eq!(client.borrow().ended, None, "it is still tried");
        pair.simulation.run_for(2 * MINUTE);
        assert_eq!(client.borrow().ended.as_deref(), Some("timed out"));
    }
    // An address that no host has.
    let mut pair = pair(1);
    let client = dial(pair.registry(), ([10, 9, 9, 9], 80).into(), Record::default());
    pair.simulation.run_for(3 * MINUTE);
    assert_eq!(client.borrow().ended.as_deref(), Some("timed out"));
}

#[test]
fn a_partition_holds_bytes_up_and_lets_them_in_when_it_ends() {
    let mut pair = pair(1);
    let client = pair.send(1_000);
    pair.simulation.run_for(SECOND);
    let (server, host) = (pair.server.clone(), pair.client.clone());
    pair.simulation.world().part(&host, &server);
    client.borrow_mut().output = pattern(500);
    pair.wake();
    pair.simulation.run_for(MINUTE);
    assert_eq!(client.borrow().writes, [1_000, 500], "buffers take it");
    assert_eq!(pair.at_server().borrow().received.len(), 1_000);
    pair.simulation.world().rejoin();
    pair.simulation.run_for(2 * SECOND);
    assert_eq!(pair.at_server().borrow().received.len(), 1_500);
}

#[test]
fn a_writer_is_held_back_by_a_reader_that_does_not_read() {
    for seed in 0..20 {
        let mut pair = pair(seed);
        let client = pair.send(600_000);
        pair.simulation.run_until(SECOND, |_| client.borrow().is_connected);
        pair.simulation.run_until(SECOND, {
            let accepted = Rc::clone(&pair.accepted);
            move |_| accepted.borrow().len() == 1
        });
        let server = pair.at_server();
        server.borrow_mut().is_paused = true;
        pair.simulation.run_for(MINUTE);
        let unwritten = client.borrow().unwritten;
        assert!(unwritten >= 600_000 - 2 * 256 * 1024, "seed {seed}: {unwritten} are left");
        assert!(client.borrow().writes[0] < 600_000, "a write is taken in part");

        server.borrow_mut().is_paused = false;
        pair.wake_server();
        pair.simulation.run_for(10 * SECOND);
        assert_eq!(client.borrow().unwritten, 0, "seed {seed}");
        assert!(server.borrow().received == pattern(600_000), "seed {seed}");
    }
}

#[test]
fn the_end_is_read_after_the_bytes_and_the_other_way_stays_open() {
    let mut pair = Pair::new(3, Faults::none(), true);
    let record = Record { output: pattern(100_000), shuts: true, ..Record::default() };
    let client = pair.dial(record);
    pair.simulation.run_for(10 * SECOND);
    let server = pair.at_server();
    assert_eq!(server.borrow().ended.as_deref(), Some("eof"));
    assert_eq!(server.borrow().received.len(), 100_000);
    assert_eq!(client.borrow().received.len(), 100_000, "echoed after the end, too");
    assert_eq!(client.borrow().ended, None, "the server has not ended its own");
}

#[test]
fn a_dropped_socket_brings_the_end_and_what_is_sent_to_it_a_reset() {
    let mut pair = pair(4);
    let record = Record { output: pattern(10), leaves: true, ..Record::default() };
    pair.dial(record);
    pair.simulation.run_for(SECOND);
    let server = pair.at_server();
    assert_eq!(
        (server.borrow().received.len(), server.borrow().ended.clone()),
        (10, Some("eof".into()))
    );
    server.borrow_mut().output = pattern(5);
    pair.wake_server();
    pair.simulation.run_for(SECOND);
    assert_eq!(server.borrow().ended.as_deref(), Some("connection reset"));
}

#[test]
fn a_port_is_listened_at_once_and_port_0_is_any() {
    let mut pair = pair(1);
    let registry = pair.registry();
    let listener = registry.listen(([0, 0, 0, 0], 7).into()).unwrap();
    let taken = registry.listen(([127, 0, 0, 1], 7).into()).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let foreign = registry.listen(([10, 0, 0, 1], 7).into()).unwrap_err();
    assert_eq!(foreign.kind(), std::io::ErrorKind::AddrNotAvailable);
    let any = registry.listen(([127, 0, 0, 1], 0).into()).unwrap();
    assert_ne!(any.local_addr().tcp().unwrap().port(), 0);
    drop(listener);
    assert!(registry.listen(([127, 0, 0, 1], 7).into()).is_ok(), "free again");
    let unix = registry.listen_unix("/nowhere".as_ref()).unwrap_err();
    assert_eq!(unix.kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn sockets_of_the_two_back_ends_do_not_mix() {
    let mut pair = pair(1);
    let real = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let real = onceloop_reactor::Stream::connect(&real.local_addr().unwrap()).unwrap();
    let error = pair.insert(real).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn names_are_looked_up_in_the_world() {
    let mut pair = pair(1);
    let found = Rc::new(RefCell::new(Vec::new()));
    for name in ["server:80", "10.0.0.9:1", "localhost:5", "nobody:80", "server"] {
        let found = Rc::clone(&found);
        let note = move |result: std::io::Result<Vec<SocketAddr>>| {
            found.borrow_mut().push((name, result.map(|all| all[0].to_string()).ok()));
        };
        pair.registry().resolve(name, move |result, _| note(result)).unwrap();
    }
    assert!(found.borrow().is_empty(), "not at once");
    pair.simulation.run_for(SECOND);
    found.borrow_mut().sort_unstable();
    let expected = [
        ("10.0.0.9:1", Some("10.0.0.9:1".to_owned())),
        ("localhost:5", Some("127.0.0.1:5".to_owned())),
        ("nobody:80", None),
        ("server", None),
        ("server:80", Some("10.0.0.1:80".to_owned())),
    ];
    assert_eq!(*found.borrow(), expected);
    assert_eq!(pair.registry().resolve_blocking("server:9").unwrap()[0].port(), 9);
}

#[test]
fn a_process_that_dies_ends_its_connections_and_a_machine_leaves_them() {
    for (mode, ended) in [(KillMode::Process, Some("eof")), (KillMode::Machine, None)] {
        let mut pair = pair(5);
        let client = pair.send(10);
        pair.simulation.run_for(SECOND);
        let server = pair.server.clone();
        pair.simulation.kill(&server, mode);
        assert!(!server.is_up());
        pair.simulation.run_for(MINUTE);
        assert_eq!(client.borrow().ended.as_deref(), ended, "{mode:?}");

        // What is written to a dead machine is sent again and again, until a new one resets it.
        client.borrow_mut().output = pattern(10);
        pair.wake();
        pair.simulation.run_for(MINUTE);
        let reset = (mode == KillMode::Process).then_some("connection reset");
        assert_eq!(client.borrow().ended.as_deref(), reset, "{mode:?}");
        let late = pair.send(10);
        pair.simulation.run_for(SECOND);
        let refused = (mode == KillMode::Process).then_some("connection refused");
        assert_eq!(late.borrow().ended.as_deref(), refused, "{mode:?}");

        pair.simulation.restart(&server);
        pair.simulation.run_for(MINUTE);
        assert_eq!(client.borrow().ended.as_deref(), Some("connection reset"), "{mode:?}");
        assert_eq!(late.borrow().is_connected, mode == KillMode::Machine, "its attempts go on");
        pair.send(10);
        pair.simulation.run_for(SECOND);
        let accepted = pair.accepted.borrow();
        assert_eq!(accepted.last().unwrap().borrow().received.len(), 10, "{mode:?}");
    }
}
