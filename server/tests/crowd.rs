//! Many connections at once: fairness, limits, descriptors.
#![allow(missing_docs)]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    PATIENCE, Wire, World, first_frame, flagged, plain_hello, raise_descriptor_limit, request,
};
use onceloop_protocol::frame::{Flags, Kind, MAGIC};
use onceloop_protocol::handshake::Order;
use onceloop_protocol::limits::Limits;

#[test]
fn a_greedy_connection_does_not_hold_up_polite_ones() {
    let mut world = World::new();
    let (mut greedy, _) = Wire::hello(&mut world, Order::Unordered);
    let mut polite: Vec<Wire> =
        (0..100).map(|_| Wire::hello(&mut world, Order::Unordered).0).collect();
    let asked = flagged(7, 0, "bank.balance", &(), Flags::UNPROTECTED);
    let burst = asked.repeat((64 << 10) / asked.len());
    let (mut offset, mut greedy_answers) = (0, Vec::new());
    for round in 1..=20 {
        let call = request(round, round - 1, "bank.debit", &(1u64,));
        for wire in &mut polite {
            wire.stream.write_all(&call).expect("the server reads");
        }
        let mut answered = 0;
        let mut turns = 0;
        while answered < polite.len() {
            // Always more than it may have in a turn.
            greedy.stream.set_nonblocking(true).expect("non-blocking");
            while let Ok(n) = greedy.stream.write(&burst[offset..]) {
                offset = (offset + n) % burst.len();
            }
            world.turn();
            turns += 1;
            assert!(greedy.poll(&mut greedy_answers));
            for wire in &mut polite {
                let mut frames = Vec::new();
                assert!(wire.poll(&mut frames));
                answered += frames.len();
            }
        }
        assert!(turns <= 4, "the polite ones waited for {turns} turns in round {round}");
    }
    let greedy = greedy_answers.len();
    assert!(greedy >= 10 * 64, "the greedy one is served as well: {greedy}");
    assert_eq!(world.app.spent, 2_000);
}

#[test]
fn a_thousand_stalled_connections_do_not_disturb_good_ones() {
    raise_descriptor_limit(2_200);
    let mut limits = Limits::default();
    let time = Duration::from_millis(700);
    (limits.handshake_timeout, limits.frame_timeout) = (time, time);
    limits.frame_bytes_per_second_min = 1 << 20;
    let mut world = World::with(limits);
    let mut good: Vec<Wire> =
        (0..20).map(|_| Wire::hello(&mut world, Order::Unordered).0).collect();
    let hello = first_frame(Kind::Hello, &plain_hello());
    let begun = [&hello[..], &request(1, 0, "bank.debit", &(1u64,))[..20]].concat();
    let stalls = [&[][..], &MAGIC[..4], &hello[..20], &begun];
    let stalled: Vec<TcpStream> = (0..1_000)
        .map(|i| {
            let mut stream = TcpStream::connect(world.address()).expect("a connection");
            stream.write_all(stalls[i % stalls.len()]).expect("the server reads");
            if i % 100 == 0 {
                world.turn();
            }
            stream
        })
        .collect();
    world.until(|world| world.stats().connections_accepted == 1_020);
    for round in 1..=20 {
        let call = request(round, round - 1, "bank.debit", &(1u64,));
        for wire in &mut good {
            wire.stream.write_all(&call).expect("the server reads");
        }
        for wire in &mut good {
            assert_eq!(wire.next(&mut world).header.seq, round);
        }
    }
    assert_eq!(world.app.spent, 400);
    world.until(|world| world.stats().connections == 20);
    drop(stalled);
}

#[test]
fn a_burst_of_clients_does_not_pass_the_limit_and_all_are_served() {
    let mut limits = Limits::default();
    limits.connections_max = 10;
    let mut world = World::with(limits);
    let hello = first_frame(Kind::Hello, &plain_hello());
    let mut waiting: Vec<Wire> = (0..100)
        .map(|_| {
            let mut wire = Wire::open(&mut world);
            wire.stream.write_all(&hello).expect("the system takes it");
            wire
        })
        .collect();
    let mut most = 0;
    world.until(|world| {
        most = most.max(world.stats().connections);
        // One that is served leaves, and makes room.
        waiting.retain_mut(|wire| {
            let mut frames = Vec::new();
            assert!(wire.poll(&mut frames), "nobody is turned away");
            frames.is_empty()
        });
        waiting.is_empty()
    });
    assert_eq!(most, 10);
    assert_eq!(world.stats().sessions_opened, 100);
}

#[test]
fn several_listeners_share_the_limit() {
    let mut limits = Limits::default();
    limits.connections_max = 3;
    let mut world = World::with(limits);
    let server = world.server;
    server.listen(world.reactor.registry(), "127.0.0.1:0").expect("another listener");
    let addresses = server.local_addresses(world.reactor.registry());
    let streams: Vec<TcpStream> = (0..10)
        .map(|i| TcpStream::connect(addresses[i % 2].to_string()).expect("a connection"))
        .collect();
    world.settle();
    assert_eq!(world.stats().connections, 3);
    drop(streams);
    world.until(|world| world.stats().connections_closed == 10);
}

/// Where the child is told how many clients to expect.
const CLIENTS_VARIABLE: &str = "ONCELOOP_TEST_CLIENTS";
const CLIENTS: usize = 300;

/// The other side of the test below: a server that may have 64 descriptors.
#[test]
fn starved_server() {
    let Some(clients) = std::env::var_os(CLIENTS_VARIABLE) else { return };
    let clients: u64 = clients.into_string().expect("a number").parse().expect("a number");
    let mut world = World::new();
    let address = world.address();
    eprintln!("address {address}");
    // At first there is no descriptor at all, and no connection whose end would free one.
    let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(held.len() < 64);
    let begin = Instant::now();
    let mut turns = 0u64;
    while world.stats().connections_closed < clients {
        assert!(begin.elapsed() < PATIENCE, "not served: {:?}", world.stats());
        let far = Some(Duration::from_secs(1));
        world.reactor.turn(&mut world.app, far).expect("a turn");
        turns += 1;
        if world.stats().accept_failures > 0 {
            held.clear();
        }
    }
    let stats = world.stats();
    eprintln!("turns {turns} failures {} opened {}", stats.accept_failures, stats.sessions_opened);
}

#[test]
fn a_server_without_descriptors_serves_everybody_once_they_are_free_and_does_not_spin() {
    raise_descriptor_limit(CLIENTS as u64 + 100);
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" --exact starved_server --nocapture"])
        .arg(std::env::current_exe().expect("this program"))
        .env(CLIENTS_VARIABLE, CLIENTS.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut next = |word: &str| loop {
        let line = lines.next().expect("the child goes on").expect("text");
        if let Some((_, rest)) = line.split_once(word) {
            break rest.trim().to_owned();
        }
    };
    let address = next("address ");
    let hello = first_frame(Kind::Hello, &plain_hello());
    let mut waiting: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).expect("a place in the backlog");
            stream.write_all(&hello).expect("the system takes it");
            stream.set_nonblocking(true).expect("non-blocking");
            stream
        })
        .collect();
    let begin = Instant::now();
    while !waiting.is_empty() {
        assert!(begin.elapsed() < PATIENCE, "{} clients are not served", waiting.len());
        waiting.retain_mut(|stream| match stream.read(&mut [0; 4096]) {
            Ok(n) => {
                assert!(n > 0, "nobody is turned away");
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                true
            }
        });
        std::thread::yield_now();
    }
    let figures = next("turns ");
    assert!(child.wait().expect("it ends").success());
    let figures: Vec<u64> =
        figures.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let &[turns, failures, opened] = &figures[..] else { panic!("three numbers: {figures:?}") };
    assert_eq!(opened, CLIENTS as u64);
    assert!(failures > 0, "it was never out of descriptors");
    let most = 20 * CLIENTS as u64;
    assert!(turns < most && failures < most, "it spins: {turns} turns, {failures} failures");
}
