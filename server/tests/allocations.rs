//! A steady stream of small requests allocates nothing on the server's loop.
#![allow(missing_docs)]

mod common;
#[path = "../../reactor/tests/support/counting.rs"]
mod counting;

use std::io::{Read, Write};

use common::{Wire, World, request};
use counting::allocations;
use onceloop_protocol::frame::restamp;
use onceloop_protocol::handshake::{Hello, Order};

const IN_FLIGHT: u64 = 16;
const CONNECTIONS: usize = 4;

/// One client: a socket, a batch of requests whose numbers are written into it, and room for the
/// answers.
struct Client {
    wire: Wire,
    batch: Vec<u8>,
    answers: [u8; 4096],
    done: u64,
}

impl Client {
    fn send(&mut self, request_bytes: usize) {
        for (i, request) in self.batch.chunks_mut(request_bytes).enumerate() {
            let seq = self.done + 1 + i as u64;
            request[8..16].copy_from_slice(&seq.to_le_bytes());
            restamp(request, self.done, u32::MAX);
        }
        self.wire.stream.write_all(&self.batch).expect("the server reads");
        self.done += IN_FLIGHT;
    }

    fn receive(&mut self, world: &mut World) {
        let mut bytes = 0;
        while bytes < self.expected(bytes) {
            match self.wire.stream.read(&mut self.answers[bytes..]) {
                Ok(n) => bytes += n,
                Err(_) => {
                    world.turn();
                }
            }
        }
    }

    /// Walks over the frames in what came; returns how many bytes all answers take, as far as known.
    fn expected(&self, bytes: usize) -> usize {
        let mut at = 0;
        for _ in 0..IN_FLIGHT {
            let Some(length) = self.answers[..bytes].get(at..at + 4) else { return usize::MAX };
            at += 4 + u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        }
        at
    }
}

#[test]
fn a_steady_stream_of_requests_allocates_nothing() {
    let mut world = World::new();
    let one = request(1, 0, "bank.debit", &(1u64,));
    let mut clients: Vec<Client> = (0..CONNECTIONS)
        .map(|_| {
            let hello = Hello { window: 64, order: Order::Unordered, ..common::plain_hello() };
            let (wire, _) = Wire::hello_of(&mut world, &hello);
            wire.stream.set_nonblocking(true).expect("non-blocking");
            let batch = one.repeat(usize::try_from(IN_FLIGHT).expect("few"));
            Client { wire, batch, answers: [0; 4096], done: 0 }
        })
        .collect();
    let mut rounds = |count: usize| {
        for _ in 0..count {
            for client in &mut clients {
                client.send(one.len());
            }
            for client in &mut clients {
                client.receive(&mut world);
            }
        }
    };
    rounds(100);
    let before = allocations();
    rounds(500);
    let allocations = allocations() - before;
    let requests = 500 * IN_FLIGHT * CONNECTIONS as u64;
    assert_eq!(allocations, 0, "for {requests} requests");
    assert_eq!(world.app.spent, 600 * IN_FLIGHT * CONNECTIONS as u64);
}
