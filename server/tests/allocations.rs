//! A steady stream of small requests allocates nothing on the server's loop, whatever its shape.
#![allow(missing_docs)]

mod common;
#[path = "../../reactor/tests/support/counting.rs"]
mod counting;

use std::io::{ErrorKind, Read, Write};

use common::{Wire, World, flagged};
use counting::allocations;
use onceloop_protocol::codec::EncodeArgs;
use onceloop_protocol::frame::{Flags, restamp};
use onceloop_protocol::handshake::Hello;
use onceloop_protocol::limits::Limits;
use onceloop_protocol::table::REPLY_COPY_BYTES_MAX;
use onceloop_reactor::Config;

/// One client: a socket and room for the answers.
struct Client {
    wire: Wire,
    answers: Vec<u8>,
    /// Calls that were made and answered.
    done: u64,
}

/// As many requests as a client makes at once, whose numbers are written into them.
struct Batch {
    bytes: Vec<u8>,
    request_bytes: usize,
    in_flight: u32,
    flags: Flags,
}

impl Batch {
    fn new(in_flight: u32, method: &str, args: &impl EncodeArgs, flags: Flags) -> Batch {
        let one = flagged(1, 0, method, args, flags);
        let count = usize::try_from(in_flight).expect("few");
        Batch { bytes: one.repeat(count), request_bytes: one.len(), in_flight, flags }
    }
}

impl Client {
    fn new(world: &mut World, window: u32) -> Client {
        let (wire, _) = Wire::hello_of(world, &Hello { window, ..common::plain_hello() });
        wire.stream.set_nonblocking(true).expect("non-blocking");
        Client { wire, answers: vec![0; 256 * 1024], done: 0 }
    }

    fn send(&mut self, batch: &mut Batch) {
        let ack = if batch.flags == Flags::NONE { self.done } else { 0 };
        for request in batch.bytes.chunks_mut(batch.request_bytes) {
            self.done += 1;
            request[8..16].copy_from_slice(&self.done.to_le_bytes());
            restamp(request, ack, u32::MAX);
        }
        self.wire.stream.write_all(&batch.bytes).expect("the server reads");
    }

    fn receive(&mut self, world: &mut World, batch: &Batch) {
        let mut bytes = 0;
        while bytes < self.expected(bytes, batch) {
            match self.wire.stream.read(&mut self.answers[bytes..]) {
                Ok(n @ 1..) => bytes += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    world.turn();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Walks over the frames in what came; returns how many bytes all answers take, as far as known.
    fn expected(&self, bytes: usize, batch: &Batch) -> usize {
        let mut at = 0;
        for _ in 0..batch.in_flight {
            let Some(length) = self.answers[..bytes].get(at..at + 4) else { return usize::MAX };
            at += 4 + u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        }
        at
    }
}

/// Has each client make a batch of calls and waits for the answers, so many times. Returns how
/// often the server allocated meanwhile.
fn rounds(world: &mut World, clients: &mut [Client], batch: &mut Batch, count: usize) -> usize {
    let before = allocations();
    for _ in 0..count {
        for client in &mut *clients {
            client.send(batch);
        }
        for client in &mut *clients {
            client.receive(world, batch);
        }
    }
    allocations() - before
}

fn check_steady(connections: usize, batch: Batch) {
    check_steady_on(Config::default(), connections, batch);
}

fn check_steady_on(config: Config, connections: usize, mut batch: Batch) {
    let mut world = World::over(config, Limits::default(), |builder| builder);
    let window = batch.in_flight.next_power_of_two();
    let mut clients: Vec<Client> =
        (0..connections).map(|_| Client::new(&mut world, window)).collect();
    rounds(&mut world, &mut clients, &mut batch, 50);
    let allocations = rounds(&mut world, &mut clients, &mut batch, 200);
    let requests = connections as u64 * u64::from(batch.in_flight);
    assert_eq!(allocations, 0, "for {} requests", 200 * requests);
    let stats = world.stats();
    assert_eq!((stats.calls_started, stats.calls_replayed), (250 * requests, 0));
}

/// Nothing is debited, so that the answers do not grow.
fn protected(in_flight: u32) -> Batch {
    Batch::new(in_flight, "bank.debit", &(0u64,), Flags::NONE)
}

fn unprotected(in_flight: u32) -> Batch {
    Batch::new(in_flight, "bank.balance", &(), Flags::UNPROTECTED)
}

#[test]
fn a_steady_stream_of_requests_allocates_nothing() {
    check_steady(4, protected(16));
}

#[test]
fn unprotected_requests_allocate_nothing() {
    check_steady(4, unprotected(16));
}

#[test]
fn a_window_of_requests_at_once_allocates_nothing() {
    check_steady(1, protected(1024));
    check_steady(1, unprotected(1024));
}

/// More of them than a turn takes events from the kernel.
#[test]
fn many_connections_with_a_request_each_allocate_nothing() {
    check_steady(200, protected(1));
    check_steady(200, unprotected(1));
}

/// All of them have something to do at once: what each needs for it was kept.
#[test]
fn a_long_turn_of_many_connections_allocates_nothing() {
    common::raise_descriptor_limit(2_000);
    let mut config = Config::default();
    config.events = 1024;
    check_steady_on(config, 300, protected(1));
}

/// A slot that held an answer too large to be copied has to find room for a small one, once.
#[test]
fn small_answers_after_large_ones_allocate_once_for_each_slot() {
    const WINDOW: u32 = 16;
    let mut world = World::new();
    let mut clients = [Client::new(&mut world, WINDOW)];
    let mut small = protected(WINDOW);
    let mut large = Batch::new(WINDOW, "bank.big", &(4 * REPLY_COPY_BYTES_MAX,), Flags::NONE);
    rounds(&mut world, &mut clients, &mut small, 50);
    rounds(&mut world, &mut clients, &mut large, 10);
    let first = rounds(&mut world, &mut clients, &mut small, 1);
    assert!(first <= WINDOW as usize, "{first} allocations for {WINDOW} requests");
    assert_eq!(rounds(&mut world, &mut clients, &mut small, 100), 0);
}

/// What is kept is allocated, but the output keeps its buffer for the small ones behind it.
#[test]
fn a_large_answer_costs_the_small_ones_behind_it_nothing() {
    const ROUNDS: usize = 100;
    let mut world = World::new();
    let mut clients = [Client::new(&mut world, 16)];
    let mut small = protected(16);
    let mut large = Batch::new(1, "bank.big", &(2 * REPLY_COPY_BYTES_MAX,), Flags::NONE);
    let mut both = |count| -> usize {
        (0..count)
            .map(|_| {
                rounds(&mut world, &mut clients, &mut large, 1)
                    + rounds(&mut world, &mut clients, &mut small, 1)
            })
            .sum()
    };
    both(50);
    let allocations = both(ROUNDS);
    // The handler's own, and two for the answer that is kept.
    assert!(allocations <= 3 * ROUNDS, "{allocations} in {ROUNDS} rounds");
}
