//! What a connection that is silent holds of the server's memory, to the byte.
#![allow(missing_docs)]

mod common;
#[path = "../../reactor/tests/support/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{World, first_frame, frame, plain_hello, raise_descriptor_limit, request};
use counting::live_bytes;
use onceloop_protocol::frame::Kind;

/// So many that what the loop has once is there (it keeps as many spare buffers), and as many as a
/// list that doubles has room for.
const CONNECTIONS: usize = 256;

/// Makes a server with so many idle connections and adds as many; returns how much its memory grew
/// by for each.
fn growth(world: &mut World, is_acknowledged: bool) -> usize {
    // Both ends of each connection are in this process, and two of these tests.
    raise_descriptor_limit(2_200);
    let (_first, _) = idle(world, is_acknowledged);
    let (_second, bytes) = idle(world, is_acknowledged);
    assert_eq!(world.stats().connections, 2 * CONNECTIONS as u64);
    bytes
}

/// Opens connections that make one call each and, if asked to, acknowledge its answer. Returns their
/// sockets and what the server's memory grew by for each.
fn idle(world: &mut World, is_acknowledged: bool) -> (Vec<TcpStream>, usize) {
    let address = world.address();
    let mut hello = first_frame(Kind::Hello, &plain_hello());
    hello.extend(request(1, 0, "bank.debit", &(1u64,)));
    let ack = frame(Kind::Ack, 1, &[]);
    let mut sockets = Vec::with_capacity(CONNECTIONS);
    world.settle();
    let before = live_bytes();
    for number in 1..=CONNECTIONS {
        let mut socket = TcpStream::connect(&address).expect("a connection");
        socket.write_all(&hello).expect("the server reads");
        let done = world.app.spent + 1;
        while world.app.spent < done {
            world.turn();
        }
        // WELCOME and the answer, which left together.
        let read = socket.read(&mut [0; 4096]).expect("the answer");
        assert!(read > 0, "connection {number} is closed");
        if is_acknowledged {
            socket.write_all(&ack).expect("the server reads");
        }
        sockets.push(socket);
    }
    world.settle();
    (sockets, (live_bytes() - before) / CONNECTIONS)
}

/// The connection, the session, their places in the lists and the timers of both: 304.
const ACKNOWLEDGED_BYTES_MAX: usize = 310;
/// The answer in its cell beside that: 368.
const KEPT_BYTES_MAX: usize = 375;

#[test]
fn an_idle_connection_holds_little_and_no_buffer() {
    let mut world = World::new();
    let bytes = growth(&mut world, true);
    println!("{bytes} bytes of heap for an idle connection whose calls are acknowledged");
    assert_eq!(world.stats().kept_replies, 0);
    assert!(bytes <= ACKNOWLEDGED_BYTES_MAX, "{bytes} bytes");
}

#[test]
fn an_answer_that_is_not_acknowledged_is_kept_in_little() {
    let mut world = World::new();
    let bytes = growth(&mut world, false);
    println!("{bytes} bytes of heap for an idle connection with an answer that is kept");
    assert_eq!(world.stats().kept_replies, 2 * CONNECTIONS as u64);
    assert!(bytes <= KEPT_BYTES_MAX, "{bytes} bytes");
}
