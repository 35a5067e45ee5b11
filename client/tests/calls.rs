//! Calls of a client on one loop with its server.
#![allow(missing_docs)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use onceloop_client::{CallOptions, Client, State};
use onceloop_protocol::error::{CallError, Code, Ran};
use onceloop_protocol::handshake::Order;
use onceloop_protocol::method::DynamicMethod;
use onceloop_protocol::value::Value;
use support::{App, World, bank, err, hasty_limits, ok};

#[test]
fn a_reply_comes_back_in_a_later_turn() {
    let mut world = World::new();
    let (_, client) = world.pair();
    client.call(world.registry(), bank::debit, (3,), note!(1));
    client.call(world.registry(), bank::echo, ("twice",), note!(2));
    assert_eq!(world.app.answers, [], "never inside the call");
    assert_eq!(client.pending(world.registry()), 2);
    assert_eq!(world.answers(2), [ok(1, "3"), ok(2, "\"twice\"")]);
    assert_eq!(client.pending(world.registry()), 0);
    assert_eq!(client.state(world.registry()), State::Connected { resumed: false });
    assert_eq!(client.counters(world.registry()).calls, 2);
}

#[test]
fn each_error_tells_whether_it_ran() {
    let mut world = World::new();
    let (_, client) = world.pair();
    let registry = world.registry();
    client.call(registry, bank::fail, ("no such account",), |reply, cx| {
        let Err(CallError::Application(error)) = reply else { panic!("{reply:?}") };
        assert_eq!(error.message, "no such account");
        cx.state.balance = 77;
    });
    client.call(registry, bank::panic, (), note!(1));
    client.call(registry, bank::missing, (), note!(2));
    let arguments = vec![Value::from("not a number")];
    client.call(registry, DynamicMethod::new("bank.debit"), arguments, |reply, cx| {
        note!(3)(reply.map(drop), cx);
    });
    assert_eq!(
        world.answers(3),
        [
            err(1, Ran::Yes, Code::ApplicationError),
            err(2, Ran::No, Code::NoMethod),
            err(3, Ran::No, Code::BadArguments),
        ]
    );
    assert_eq!(world.app.balance, 77);
}

#[test]
fn a_reply_of_another_type_has_run_all_the_same() {
    onceloop_protocol::service! { /// The same names with other types.
        mod wrong { /// Returns a text, it thinks.
            #[name = "bank.balance"] fn balance() -> String; }
    }
    let mut world = World::new();
    let (_, client) = world.pair();
    client.call(world.registry(), wrong::balance, (), note!(1));
    assert_eq!(world.answers(1), [err(1, Ran::Yes, Code::Malformed)]);
}

#[test]
fn large_bodies_go_both_ways() {
    let mut world = World::new();
    let (_, client) = world.pair();
    let text = "x".repeat(1 << 20);
    for _ in 0..8 {
        client.call(world.registry(), bank::echo, (&text,), |reply, cx| {
            note!(1)(reply.map(str::len), cx);
        });
    }
    assert_eq!(world.answers(8), vec![ok(1, "1048576"); 8]);
}

#[test]
fn what_cannot_be_taken_is_answered_in_a_later_turn() {
    let mut world = World::new();
    let (_, client) = world.pair();
    let text = "x".repeat(2 << 20);
    let id = client.call(world.registry(), bank::echo, (&text,), note!(1));
    assert!(!client.cancel(world.registry(), id), "it is no call any more");
    assert_eq!(world.app.answers, []);
    let at_least_once = CallOptions::new().at_least_once();
    client.call_with(world.registry(), at_least_once, bank::debit, (1,), note!(2));
    client.call_with(world.registry(), at_least_once, bank::balance, (), note!(3));
    assert_eq!(
        world.answers(3),
        [err(1, Ran::No, Code::TooLarge), err(2, Ran::No, Code::NotProtected), ok(3, "0")]
    );
}

#[test]
fn a_full_queue_refuses() {
    let mut world = World::new();
    let mut limits = hasty_limits();
    limits.queued_calls_max = 2;
    let path = support::SocketPath::new();
    let client = Client::builder().limits(limits);
    let client = client.connect(world.registry(), path.address()).unwrap();
    for call in 1..=3 {
        client.call(world.registry(), bank::debit, (1,), note!(call));
    }
    assert_eq!(world.answers(1), [err(3, Ran::No, Code::Busy)]);
    world.serve(&path.address());
    assert_eq!(world.answers(2), [ok(1, "1"), ok(2, "2")]);
}

#[test]
fn a_window_of_one_is_enough() {
    let mut world = World::new();
    let server = world.serve("127.0.0.1:0");
    let address = server.local_addresses(world.registry()).remove(0);
    let builder = Client::builder().window(1).order(Order::InOrder);
    let client = builder.connect(world.registry(), address).unwrap();
    for call in 1..=50 {
        client.call(world.registry(), bank::debit, (1,), note!(call));
    }
    let answers = world.answers(50);
    let expected: Vec<_> = (1..=50).map(|call| ok(call, &call.to_string())).collect();
    assert_eq!(answers, expected);
}

#[test]
fn a_continuation_may_call_and_cancel_and_close() {
    let mut world = World::new();
    let (_, client) = world.pair();
    client.call(world.registry(), bank::debit, (1,), move |reply, cx| {
        assert_eq!(reply.unwrap(), 1);
        client.call(cx.registry, bank::debit, (1,), move |reply, cx| {
            assert_eq!(reply.unwrap(), 2);
            let id = client.call(cx.registry, bank::later, (5,), note!(1));
            assert!(client.cancel(cx.registry, id));
            assert!(!client.cancel(cx.registry, id));
            client.call(cx.registry, bank::later, (6,), note!(2));
            client.close(cx.registry);
            client.call(cx.registry, bank::debit, (1,), note!(3));
            assert_eq!(cx.state.answers, [], "none of them inside its call");
        });
    });
    let mut answers = world.answers(3);
    answers.sort_unstable_by_key(|answer| answer.call);
    let code = Code::Cancelled;
    assert_eq!(answers[0], err(1, Ran::Unknown, code));
    assert_eq!(answers[1], err(2, Ran::Unknown, code));
    assert_eq!(answers[2], err(3, Ran::No, code));
    assert_eq!(client.state(world.registry()), State::Closed);
    assert!(client.notify(world.registry(), bank::debit, (1,)).is_err());
}

#[test]
fn a_cancel_reaches_the_server() {
    let mut world = World::new();
    let (_, client) = world.pair();
    let id = client.call(world.registry(), bank::later, (5,), note!(1));
    world.until(|world| !world.app.waiting.is_empty());
    assert!(client.cancel(world.registry(), id));
    assert_eq!(world.answers(1), [err(1, Ran::Unknown, Code::Cancelled)]);
    world.until(|world| {
        let registry = world.reactor.registry();
        world.app.waiting[0].1.call().is_cancelled(registry)
    });
    world.answer_later();
    world.quiet();
    client.call(world.registry(), bank::debit, (1,), note!(2));
    assert_eq!(world.answers(1), [ok(2, "1")]);
}

#[test]
fn a_deadline_ends_a_call_and_reaches_the_server() {
    let mut world = World::new();
    let (_, client) = world.pair();
    client.call(world.registry(), bank::debit, (1,), note!(0));
    assert_eq!(world.answers(1), [ok(0, "1")]);
    // Long enough to reach the server on a machine that is busy with something else.
    let options = CallOptions::new().deadline(Duration::from_millis(300));
    client.call_with(world.registry(), options, bank::later, (5,), note!(1));
    world.until(|world| !world.app.waiting.is_empty());
    assert!(world.app.waiting[0].1.call().deadline().is_some());
    assert_eq!(world.answers(1), [err(1, Ran::Unknown, Code::Deadline)]);
    world.until(|world| {
        let registry = world.reactor.registry();
        world.app.waiting[0].1.call().is_cancelled(registry)
    });
    let options = CallOptions::new().no_deadline();
    client.call_with(world.registry(), options, bank::later, (6,), note!(2));
    world.until(|world| world.app.waiting.len() == 2);
    assert!(world.app.waiting[1].1.call().deadline().is_none());
    world.answer_later();
    assert_eq!(world.answers(1), [ok(2, "6")]);
}

#[test]
fn a_notification_is_run_and_not_answered() {
    let mut world = World::new();
    let (_, client) = world.pair();
    client.notify(world.registry(), bank::debit, (5,)).unwrap();
    client.notify(world.registry(), bank::debit, (6,)).unwrap();
    world.until(|world| world.app.balance == 11);
    assert_eq!(client.pending(world.registry()), 0);
}

#[test]
fn a_continuation_that_panics_has_run() {
    let mut world = World::new();
    let (_, client) = world.pair();
    client.call(world.registry(), bank::debit, (1,), |_, _| panic!("on purpose"));
    client.call(world.registry(), bank::debit, (1,), note!(2));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.answers(1)));
    assert!(panic.is_err());
    assert_eq!(world.answers(1), [ok(2, "2")]);
}

#[test]
fn a_loop_that_is_dropped_drops_its_continuations() {
    let mut world = World::new();
    let (_, client) = world.pair();
    let has_run = Rc::new(Cell::new(false));
    let kept = Rc::clone(&has_run);
    client.call(world.registry(), bank::later, (1,), move |_, _| kept.set(true));
    world.until(|world| !world.app.waiting.is_empty());
    assert_eq!(Rc::strong_count(&has_run), 2);
    drop(world);
    assert_eq!((Rc::strong_count(&has_run), has_run.get()), (1, false));
}

#[test]
fn a_client_is_a_small_id_that_may_cross_threads() {
    fn is_send<T: Copy + Send>() {}
    is_send::<Client<Rc<u8>>>();
    assert_eq!(size_of::<Client<u8>>(), 8);
}

#[test]
fn a_client_that_closes_with_many_calls_answers_all_and_then_says_so() {
    let mut world = World::new();
    let path = support::SocketPath::new();
    let builder = Client::<App>::builder().on_state(|state, cx| {
        if *state == State::Closed {
            assert_eq!(cx.state.answers.len(), 5_000, "told last");
            cx.state.balance = 1;
        }
    });
    let client = builder.connect(world.registry(), path.address()).unwrap();
    for call in 0..5_000 {
        client.call(world.registry(), bank::debit, (1,), note!(call));
    }
    client.close(world.registry());
    world.until(|world| world.app.balance == 1);
    assert!(world.app.answers.iter().all(|answer| matches!(answer.reply, Err((Ran::No, _)))));
}
