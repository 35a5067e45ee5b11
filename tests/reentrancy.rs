//! What callbacks may do to their own client and server, from within.
#![allow(missing_docs)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use onceloop::{CallOptions, Client, Code, Cx, Ran, Server, State};
use support::app::{App, err, keep, note, ok, shop};
use support::{World, hasty};

#[test]
fn a_callback_calls_again_until_it_has_enough() {
    fn again(cx: &mut Cx<'_, App>, client: Client<App>, left: u32) {
        client.call(cx.registry, shop::add, (1,), move |reply, cx| {
            keep(left, reply, cx);
            if left > 0 {
                again(cx, client, left - 1);
            }
        });
    }
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    world.registry().defer(move |cx| again(cx, client, 999));
    assert!(world.told(1_000).iter().all(|(_, told)| told.is_ok()));
    assert_eq!(world.app.sum, 1_000);
}

#[test]
fn a_callback_cancels_its_own_call_and_others() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    let later = client.call(world.registry(), shop::later, (1,), note(1));
    let own = Rc::new(Cell::new(None));
    let id = Rc::clone(&own);
    let call = client.call(world.registry(), shop::add, (10,), move |reply, cx| {
        assert!(!client.cancel(cx.registry, id.get().unwrap()), "it has ended");
        assert!(client.cancel(cx.registry, later));
        let unsent = client.call(cx.registry, shop::add, (100,), note(3));
        client.cancel(cx.registry, unsent);
        keep(2, reply, cx);
    });
    own.set(Some(call));
    let told = world.told(3);
    assert_eq!(told[0], err(1, Ran::Unknown, Code::Cancelled));
    assert_eq!(told[1], ok(2, "11"));
    assert!(matches!(told[2].1, Err((_, Some(Code::Cancelled)))), "{told:?}");
}

#[test]
fn a_callback_closes_its_own_client() {
    let mut world = World::<App>::new();
    let (_, address) = world.serve(shop());
    let builder =
        hasty().on_state(|state, cx: &mut Cx<'_, App>| cx.state.states.push(state.clone()));
    let client = builder.connect(world.registry(), address).unwrap();
    for call in 2..10 {
        client.call(world.registry(), shop::later, (1,), note(call));
    }
    client.call(world.registry(), shop::add, (10,), move |reply, cx| {
        client.close(cx.registry);
        client.close(cx.registry);
        assert!(client.notify(cx.registry, shop::add, (1,)).is_err());
        client.call(cx.registry, shop::add, (1,), note(10));
        keep(1, reply, cx);
    });
    let told = world.told(10);
    assert_eq!(told[0], ok(1, "18"));
    for (call, told) in &told[1..9] {
        assert_eq!(*told, Err((Ran::Unknown, Some(Code::Cancelled))), "call {call}");
    }
    assert_eq!(told[9], err(10, Ran::No, Code::Cancelled));
    assert_eq!(world.app.states.last(), Some(&State::Closed));
    assert_eq!(world.app.states.iter().filter(|state| **state == State::Closed).count(), 1);
}

#[test]
fn a_callback_closes_the_server_that_answers_it_and_starts_another() {
    let mut world = World::<App>::new();
    let (server, address) = world.serve(shop());
    let client = world.connect(&address);
    client.call(world.registry(), shop::later, (1,), note(2));
    client.call(world.registry(), shop::add, (10,), move |reply, cx| {
        keep(1, reply, cx);
        server.close(cx.registry);
        shop().listen(cx.registry, address.to_string()).unwrap();
    });
    client.call(world.registry(), shop::sum, (), note(3));
    let told = world.told(3);
    assert_eq!(told[0], ok(1, "11"));
    assert_eq!(told[1], err(2, Ran::Unknown, Code::SessionUnknown));
    assert_eq!(told[2].0, 3);
}

onceloop::service! {
    /// Ends.
    pub(crate) mod doom {
        /// Closes the server.
        fn close();
        /// Drains it.
        fn drain();
    }
}

#[test]
fn a_handler_closes_its_own_server() {
    let mut world = World::<App>::new();
    let own = Rc::new(Cell::new(None::<Server<App>>));
    let id = Rc::clone(&own);
    let (server, address) = world.serve(shop().method(doom::close, move |(), cx| {
        id.get().unwrap().close(cx.registry);
        Ok(())
    }));
    own.set(Some(server));
    let client = world.connect(&address);
    let options = CallOptions::new().deadline(Duration::from_millis(50));
    client.call_with(world.registry(), options, doom::close, (), note(1));
    client.call_with(world.registry(), options, shop::add, (1,), note(2));
    let told = world.told(2);
    assert!(matches!(told[0].1, Err((Ran::Unknown, _))), "its answer went with it: {told:?}");
    assert!(told[1].1.is_err(), "{told:?}");
    assert_eq!(world.app.sum, 0);
}

#[test]
fn a_handler_drains_its_own_server_and_is_answered() {
    let mut world = World::<App>::new();
    let own = Rc::new(Cell::new(None::<Server<App>>));
    let id = Rc::clone(&own);
    let (server, address) = world.serve(shop().method(doom::drain, move |(), cx| {
        let within = Duration::from_secs(5);
        id.get().unwrap().drain(cx.registry, within, |_, cx| cx.state.drained += 1);
        Ok(())
    }));
    own.set(Some(server));
    let client = world.connect(&address);
    client.call(world.registry(), doom::drain, (), note(1));
    assert_eq!(world.told(1), [ok(1, "()")]);
    world.until(|world| world.app.drained == 1);
}

#[test]
fn a_handler_calls_another_service_and_answers_with_its_reply() {
    onceloop::service! {
        /// Asks others.
        pub(crate) mod front {
            /// Adds to the sum behind.
            fn add(amount: u64) -> u64;
        }
    }
    let mut world = World::<App>::new();
    let (_, behind) = world.pair();
    // Both servers, both clients and every call are on one loop.
    let builder =
        onceloop::Builder::<App>::new().deferred(front::add, move |(amount,), responder, cx| {
            behind.call(cx.registry, shop::add, (amount,), move |reply, cx| {
                responder.respond(cx, reply.map_err(|error| error.to_string().into()));
            });
        });
    let (_, address) = world.serve(builder);
    let first = world.connect(&address);
    let second = world.connect(&address);
    for call in 0..200 {
        let client = if call % 2 == 0 { first } else { second };
        client.call(world.registry(), front::add, (1,), note(call));
    }
    assert!(world.told(200).iter().all(|(_, told)| told.is_ok()));
    assert_eq!(world.app.sum, 200);
}

#[test]
fn a_state_callback_calls_and_closes() {
    let mut world = World::<App>::new();
    let (_, address) = world.serve(shop());
    let own = Rc::new(Cell::new(None));
    let id = Rc::clone(&own);
    let builder = hasty().on_state(move |state, cx: &mut Cx<'_, App>| {
        let client: Client<App> = id.get().unwrap();
        cx.state.states.push(state.clone());
        if matches!(state, State::Connected { .. }) {
            client.call(cx.registry, shop::add, (1,), move |reply, cx| {
                keep(1, reply, cx);
                client.close(cx.registry);
            });
        }
    });
    let client = builder.connect(world.registry(), address).unwrap();
    own.set(Some(client));
    assert_eq!(world.told(1), [ok(1, "1")]);
    world.until(|world| world.app.states.last() == Some(&State::Closed));
}

#[test]
fn a_loop_that_stops_in_a_callback_goes_on_when_it_is_turned_again() {
    let mut world = World::<App>::new();
    let (_, client) = world.pair();
    for call in 0..10 {
        client.call(world.registry(), shop::add, (1,), move |reply, cx| {
            keep(call, reply, cx);
            cx.registry.stop();
        });
    }
    while world.app.told.len() < 10 {
        let before = world.app.told.len();
        world.reactor.run(&mut world.app).unwrap();
        assert!(world.app.told.len() > before, "it stops after a callback said so");
    }
    assert_eq!(world.app.sum, 10);
}
