//! C7: a slow call that holds up a full window does not hold up what is called after it.
#![allow(missing_docs)]

mod support;

use std::time::{Duration, Instant};

use onceloop_client::Client;
use onceloop_protocol::error::{Code, Ran};
use onceloop_protocol::handshake::Order;
use onceloop_protocol::limits::Limits;
use onceloop_server::Server;
use support::{App, World, bank, err, hasty_limits, ok, server};

fn limits() -> Limits {
    let mut limits = hasty_limits();
    limits.window = 2;
    limits.window_stall_max = Duration::from_millis(20);
    limits.spare_idle = Duration::from_millis(30);
    limits
}

/// Returns a client whose window of two is full of calls that are never answered.
fn stalled(world: &mut World, limits: Limits, order: Order) -> (Server<App>, Client<App>) {
    let longer_than_the_stall = Duration::from_millis(25);
    let mut server_limits = Limits::default();
    server_limits.window_max = 2;
    let builder = server().limits(server_limits);
    let server = builder.listen(world.registry(), "127.0.0.1:0").unwrap();
    let address = server.local_addresses(world.registry()).remove(0);
    let builder = Client::builder().limits(limits).order(order);
    let client = builder.connect(world.registry(), address).unwrap();
    for call in 1..=2 {
        client.call(world.registry(), bank::later, (call.into(),), note!(call));
    }
    world.until(|world| client.counters(world.registry()).calls == 2);
    let stalled_at = Instant::now() + longer_than_the_stall;
    world.until(|_| Instant::now() > stalled_at);
    (server, client)
}

#[test]
fn c7_new_calls_go_round_a_stalled_window() {
    let mut world = World::new();
    let (server, client) = stalled(&mut world, limits(), Order::Unordered);
    for call in 3..=5 {
        client.call(world.registry(), bank::debit, (1,), note!(call));
    }
    let answers = world.answers(3);
    assert_eq!(answers.iter().filter(|answer| answer.reply.is_ok()).count(), 3);
    assert_eq!(client.pending(world.registry()), 2);
    assert_eq!(client.counters(world.registry()).calls, 5);
    assert!(server.stats(world.registry()).sessions >= 2);

    // When nobody needs them the further sessions are gone, and the slow calls still open.
    world.until(|world| server.stats(world.registry()).sessions == 1);
    assert_eq!(client.counters(world.registry()).calls, 5, "what they counted stays");
    world.answer_later();
    assert_eq!(world.answers(2), [ok(1, "1"), ok(2, "2")]);
}

#[test]
fn c7_a_young_window_is_waited_for() {
    let mut world = World::new();
    let mut patient = limits();
    patient.window_stall_max = Duration::from_secs(3_600);
    let (server, client) = stalled(&mut world, patient, Order::Unordered);
    client.call(world.registry(), bank::debit, (1,), note!(3));
    world.quiet();
    assert_eq!(server.stats(world.registry()).sessions_opened, 1);
}

#[test]
fn c7_an_ordered_client_keeps_its_order() {
    let mut world = World::new();
    let (server, client) = stalled(&mut world, limits(), Order::InOrder);
    client.call(world.registry(), bank::debit, (1,), note!(3));
    world.quiet();
    assert_eq!(server.stats(world.registry()).sessions_opened, 1);
}

#[test]
fn c7_further_sessions_are_bounded() {
    let mut world = World::new();
    let mut one = limits();
    one.further_sessions_max = 1;
    let (server, client) = stalled(&mut world, one, Order::Unordered);
    for call in 3..=8 {
        client.call(world.registry(), bank::later, (call.into(),), note!(call));
    }
    world.until(|world| world.app.waiting.len() == 4);
    world.quiet();
    assert_eq!(server.stats(world.registry()).sessions_opened, 2);
    let mut none = limits();
    none.further_sessions_max = 0;
    let (server, client) = stalled(&mut world, none, Order::Unordered);
    client.call(world.registry(), bank::debit, (1,), note!(9));
    world.quiet();
    assert_eq!(server.stats(world.registry()).sessions_opened, 1);
}

#[test]
fn c7_a_call_of_a_further_session_is_cancelled_by_its_own_id() {
    let mut world = World::new();
    let (_, client) = stalled(&mut world, limits(), Order::Unordered);
    let third = client.call(world.registry(), bank::later, (3,), note!(3));
    let fourth = client.call(world.registry(), bank::later, (4,), note!(4));
    world.until(|world| world.app.waiting.len() == 4);
    assert!(client.cancel(world.registry(), fourth));
    assert_eq!(world.answers(1), [err(4, Ran::Unknown, Code::Cancelled)]);
    assert!(!client.cancel(world.registry(), fourth));
    assert!(client.cancel(world.registry(), third));
    assert_eq!(world.answers(1), [err(3, Ran::Unknown, Code::Cancelled)]);
    assert_eq!(client.pending(world.registry()), 2);
}

#[test]
fn c7_closing_a_client_ends_the_calls_of_all_its_sessions() {
    let mut world = World::new();
    let (server, client) = stalled(&mut world, limits(), Order::Unordered);
    client.call(world.registry(), bank::later, (3,), note!(3));
    world.until(|world| world.app.waiting.len() == 3);
    client.close(world.registry());
    let mut answers = world.answers(3);
    answers.sort_by_key(|answer| answer.call);
    assert_eq!(answers, [1, 2, 3].map(|call| err(call, Ran::Unknown, Code::Cancelled)));
    world.until(|world| server.stats(world.registry()).connections == 0);
    client.call(world.registry(), bank::balance, (), note!(4));
    assert_eq!(world.answers(1), [err(4, Ran::No, Code::Cancelled)]);
}
