//! What can go wrong with a call, and what its caller is told of it.
#![allow(missing_docs)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use onceloop::protocol::handshake::Order;
use onceloop::{CallError, CallOptions, Client, Code, Limits, Ran};
use support::app::{App, TooPoor, err, keep, note, ok, shop};
use support::proxy::Proxy;
use support::{World, hasty, hasty_limits};

fn within(millis: u64) -> CallOptions {
    CallOptions::new().deadline(Duration::from_millis(millis))
}

#[test]
fn a_server_that_is_slower_than_the_deadline_leaves_its_caller_in_doubt() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    client.call_with(world.registry(), within(20), shop::later, (5,), note(1));
    assert_eq!(world.told(1), [err(1, Ran::Unknown, Code::Deadline)]);
    assert_eq!(world.app.sum, 5, "it did run");
    world.answer_later();
    // The late answer goes nowhere, and the next call is not taken for it.
    client.call(world.registry(), shop::add, (1,), note(2));
    assert_eq!(world.told(1), [ok(2, "6")]);
}

#[test]
fn a_call_that_never_left_did_not_run() {
    let mut world = World::<App>::new();
    let path = support::socket_path();
    let address = format!("unix:{}", path.display());
    let client = hasty().connect(world.registry(), address.as_str()).unwrap();
    client.call_with(world.registry(), within(20), shop::add, (5,), note(1));
    assert_eq!(world.told(1), [err(1, Ran::No, Code::Deadline)]);
    let message = &world.app.messages[0];
    assert!(message.contains("could not connect"), "it says why: {message}");
    let server = shop().listen(world.registry(), address.as_str()).unwrap();
    client.call(world.registry(), shop::sum, (), note(2));
    assert_eq!(world.told(1), [ok(2, "0")]);
    server.close(world.registry());
    assert!(!path.exists(), "the socket file is removed");
}

#[test]
fn a_handler_sees_how_much_time_is_left() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    client.call_with(world.registry(), within(60_000), shop::time_left, (), |reply, cx| {
        let left = reply.unwrap().expect("there is a deadline");
        assert!((50_000..=60_000).contains(&left), "{left} ms");
        cx.state.sum += 1;
    });
    let options = CallOptions::new().no_deadline();
    client.call_with(world.registry(), options, shop::time_left, (), |reply, cx| {
        assert_eq!(reply.unwrap(), None);
        cx.state.sum += 1;
    });
    client.call(world.registry(), shop::time_left, (), |reply, cx| {
        let left = reply.unwrap().expect("by default, too");
        assert!((20_000..=30_000).contains(&left), "{left} ms");
        cx.state.sum += 1;
    });
    world.until(|world| world.app.sum == 3);
}

#[test]
fn each_error_says_what_happened_and_whether_it_ran() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    let registry = world.reactor.registry();
    client.call(registry, shop::buy, (12,), note(1));
    client.call(registry, shop::buy, (3,), |reply, cx| {
        assert_eq!(reply, Err(CallError::Application(TooPoor { missing: 7 })));
        keep(2, reply, cx);
    });
    client.call(registry, shop::fail, ("no luck",), note(3));
    client.call(registry, shop::panic, (100,), note(4));
    client.call(registry, shop::panic_later, (1_000,), note(5));
    client.call(registry, shop::give_up, (), note(6));
    client.call(registry, shop::missing, (), note(7));
    client.call(registry, shop::sum, (), note(8));
    assert_eq!(
        world.told(8),
        [
            ok(1, "2"),
            err(2, Ran::Yes, Code::ApplicationError),
            err(3, Ran::Yes, Code::ApplicationError),
            err(4, Ran::Yes, Code::ApplicationError),
            err(5, Ran::Yes, Code::ApplicationError),
            err(6, Ran::Yes, Code::ApplicationError),
            err(7, Ran::No, Code::NoMethod),
            ok(8, "1100"),
        ]
    );
    let messages = world.app.messages.join("\n");
    for expected in ["7 are missing", "no luck", "shop.panic panicked", "gave up the call"] {
        assert!(messages.contains(expected), "{expected:?} in {messages}");
    }
    assert!(messages.contains("onceloop.methods"), "where to look: {messages}");
}

#[test]
fn a_reply_too_large_has_run_and_says_what_to_do() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    let max = Limits::default().body_bytes_max as u64;
    client.call(world.registry(), shop::long, (2 * max,), note(1));
    client.call(world.registry(), shop::long, (max - 100,), |reply, cx| {
        keep(2, reply.map(|text| text.len()), cx);
    });
    client.call(world.registry(), shop::add, (1,), note(3));
    let large = (max - 100).to_string();
    assert_eq!(
        world.told(3),
        [err(1, Ran::Yes, Code::ApplicationError), ok(2, &large), ok(3, "1")]
    );
    assert!(world.app.messages[0].contains("in pages"), "{:?}", world.app.messages);
}

#[test]
fn an_argument_too_large_is_refused_before_it_leaves() {
    let mut world = World::<App>::new();
    // The server takes less than the client would send.
    let mut limits = Limits::default();
    limits.body_bytes_max = 10_000;
    let (_, address) = world.serve(shop().limits(limits));
    let client = world.connect(&address);
    // This one is taken before the server has told its limit.
    client.call(world.registry(), shop::echo, (&"x".repeat(20_000),), note(1));
    client.call(world.registry(), shop::add, (1,), note(2));
    assert_eq!(world.told(2), [err(1, Ran::No, Code::TooLarge), ok(2, "1")]);
    client.call(world.registry(), shop::echo, (&"x".repeat(20_000),), note(3));
    client.call(world.registry(), shop::echo, (&"x".repeat(2_000_000),), note(4));
    client.call(world.registry(), shop::add, (1,), note(5));
    assert_eq!(
        world.told(3),
        [err(3, Ran::No, Code::TooLarge), err(4, Ran::No, Code::TooLarge), ok(5, "2")]
    );
    assert!(world.app.messages[0].contains("at most 10000"), "{:?}", world.app.messages);
}

#[test]
fn a_cancelled_call_ends_at_once_and_its_handler_can_see_it() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    let call = client.call(world.registry(), shop::later, (5,), note(1));
    world.until(|world| !world.app.waiting.is_empty());
    let server_call = *world.app.waiting[0].1.call();
    assert!(!server_call.is_cancelled(world.registry()));
    assert!(client.cancel(world.registry(), call));
    assert!(!client.cancel(world.registry(), call), "it is not open any more");
    assert_eq!(world.told(1), [err(1, Ran::Unknown, Code::Cancelled)]);
    world.until(|world| server_call.is_cancelled(world.registry()));
    let unsent = client.call(world.registry(), shop::add, (5,), note(2));
    client.close(world.registry());
    assert!(!client.cancel(world.registry(), unsent), "close has ended it");
    assert_eq!(world.told(1).len(), 1);
}

#[test]
fn a_client_that_is_closed_answers_every_call() {
    let mut world = World::<App>::new();
    let (server, address) = world.serve(shop());
    let client = hasty().window(4).connect(world.registry(), address).unwrap();
    for call in 0..10 {
        client.call(world.registry(), shop::later, (1,), note(call));
    }
    world.until(|world| world.app.waiting.len() == 4);
    client.close(world.registry());
    client.call(world.registry(), shop::add, (1,), note(10));
    let told = world.told(11);
    assert!(told[..4].iter().all(|(_, told)| *told == Err((Ran::Unknown, Some(Code::Cancelled)))));
    assert!(told[4..].iter().all(|(_, told)| *told == Err((Ran::No, Some(Code::Cancelled)))));
    world.until(|world| server.stats(world.reactor.registry()).sessions == 0);
    assert_eq!(world.app.sum, 4, "those in doubt ran, the others did not");
    // Their handlers answer a caller that is gone.
    world.answer_later();
    world.pass(Duration::from_millis(2));
    assert_eq!(server.stats(world.registry()).in_flight, 0);
}

#[test]
fn notifications_run_once_and_in_order() {
    let mut world = World::<App>::new();
    let (server, client) = world.pair();
    for amount in 1..=500 {
        client.notify(world.registry(), shop::add, (amount,)).unwrap();
    }
    // A failure of one is told to nobody, and harms nobody.
    client.notify(world.registry(), shop::panic, (0,)).unwrap();
    client.notify(world.registry(), shop::missing, ()).unwrap();
    client.notify(world.registry(), shop::later, (0,)).unwrap();
    client.call(world.registry(), shop::sum, (), note(1));
    assert_eq!(world.told(1), [ok(1, "125250")]);
    let stats = server.stats(world.registry());
    assert_eq!((stats.notifications, stats.notifications_dropped), (502, 1));
    world.answer_later();
    let error = client.notify(world.registry(), shop::echo, (&"x".repeat(2_000_000),)).unwrap_err();
    assert_eq!(error.code, Some(Code::TooLarge));
    client.close(world.registry());
    assert!(client.notify(world.registry(), shop::add, (1,)).is_err());
    world.pass(Duration::from_millis(2));
    assert_eq!(world.app.told, []);
}

#[test]
fn a_callback_that_panics_costs_nobody_else_an_answer() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    for call in 0..100 {
        client.call(world.registry(), shop::add, (1,), move |reply, cx| {
            keep(call, reply, cx);
            assert_ne!(call % 10, 3, "on purpose");
        });
    }
    // Calls that end without a frame are told by another way.
    for call in 100..120 {
        client.call(world.registry(), shop::echo, (&"x".repeat(2_000_000),), move |reply, cx| {
            keep(call, reply.map(|text| text.len()), cx);
            assert_ne!(call % 10, 3, "on purpose");
        });
    }
    let mut panics = 0;
    while world.app.told.len() < 120 {
        let turn = || world.reactor.turn(&mut world.app, Some(Duration::from_millis(20)));
        panics += usize::from(catch_unwind(AssertUnwindSafe(turn)).is_err());
        assert!(panics <= 12);
    }
    assert_eq!(panics, 12);
    assert_eq!(world.told(120).len(), 120);
    client.call(world.registry(), shop::sum, (), note(1));
    assert_eq!(world.told(1), [ok(1, "100")]);
}

#[test]
fn a_callback_that_panics_as_its_client_closes_costs_nobody_else_an_answer() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    for call in 0..50 {
        client.call(world.registry(), shop::later, (1,), move |reply, cx| {
            keep(call, reply, cx);
            assert_ne!(call % 10, 3, "on purpose");
        });
    }
    world.until(|world| world.app.waiting.len() == 50);
    client.close(world.registry());
    let mut panics = 0;
    while world.app.told.len() < 50 {
        let turn = || world.reactor.turn(&mut world.app, Some(Duration::from_millis(20)));
        panics += usize::from(catch_unwind(AssertUnwindSafe(turn)).is_err());
        assert!(panics <= 5);
    }
    assert_eq!(panics, 5);
    assert_eq!(world.told(50).len(), 50);
}

#[test]
fn ten_thousand_calls_at_once_are_all_answered() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    for call in 0..10_000 {
        client.call(world.registry(), shop::add, (1,), note(call));
    }
    assert_eq!(client.pending(world.registry()), 10_000);
    let told = world.told(10_000);
    assert!(told.iter().all(|(_, told)| told.is_ok()));
    assert_eq!(world.app.sum, 10_000);
    assert_eq!(client.pending(world.registry()), 0);
}

#[test]
fn a_deferred_answer_after_a_reconnect_lets_the_next_call_in_order_run() {
    let mut world = World::<App>::new();
    let (server, address) = world.serve(shop());
    let mut limits = hasty_limits();
    // Nothing but the answer itself may bring the server to look.
    limits.ack_delay = Duration::from_secs(60);
    limits.retransmit_timeout = Duration::from_secs(60);
    let target = address.resolve().unwrap()[0];
    let proxy = Proxy::gentle(world.registry(), target);
    let builder = Client::builder().limits(limits).order(Order::InOrder);
    let client = builder.connect(world.registry(), proxy.address.clone()).unwrap();
    let options = CallOptions::new().no_deadline();
    client.call_with(world.registry(), options, shop::later, (1,), note(1));
    client.call_with(world.registry(), options, shop::add, (10,), note(2));
    world.until(|world| !world.app.waiting.is_empty());
    proxy.cut(world.registry());
    world.until(|world| server.stats(world.reactor.registry()).sessions_resumed == 1);
    world.pass(Duration::from_millis(5));
    assert_eq!(world.app.told, []);
    world.answer_later();
    assert_eq!(world.told(2), [ok(1, "1"), ok(2, "11")]);
}
