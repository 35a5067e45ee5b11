//! The turn itself: timers, the registry, and a reactor inside another loop.

mod support;

use std::cell::Cell;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use onceloop_reactor::{Config, Id, Reactor};
use support::{Counter, PATIENCE, Socket, World, settle, turn_until};

fn reactor() -> (Reactor<World>, World) {
    (Reactor::new().unwrap(), World::default())
}

#[test]
fn a_timer_is_never_early_and_its_wait_is_not_busy() {
    let (mut reactor, mut world) = reactor();
    let registry = reactor.registry();
    let deadline = registry.now() + Duration::from_micros(4_500);
    registry.at(deadline, move |cx| {
        assert!(Instant::now() >= deadline && cx.registry.now() >= deadline);
        cx.state.note("timer");
    });
    let mut turns = 0;
    while world.log.is_empty() {
        turns += reactor.turn(&mut world, Some(PATIENCE)).map(|_| 1).unwrap();
    }
    assert!(turns <= 2, "{turns} turns for one timer");
}

#[test]
fn ten_thousand_timers_are_armed_cancelled_and_run_in_order() {
    const TIMERS: u64 = 10_000;
    let (mut reactor, mut world) = reactor();
    let last = Rc::new(Cell::new(None));
    let ran = Rc::new(Cell::new(0));
    let registry = reactor.registry();
    let now = registry.now();
    let mut timers = Vec::new();
    // Knuth's multiplicative hash scatters the deadlines over 10 ms.
    for n in 0..TIMERS {
        let at = now + Duration::from_nanos(n.wrapping_mul(2_654_435_761) % 10_000_000);
        let (last, ran) = (Rc::clone(&last), Rc::clone(&ran));
        timers.push(registry.at(at, move |cx| {
            assert!(cx.registry.now() >= at);
            assert!(last.replace(Some(at)) <= Some(at), "in the order of deadlines");
            ran.set(ran.get() + 1);
        }));
    }
    for timer in timers.iter().step_by(2) {
        assert!(registry.cancel(*timer));
        assert!(!registry.cancel(*timer));
    }
    registry.after(Duration::from_millis(10), |cx| cx.registry.stop());
    reactor.run(&mut world).unwrap();
    assert_eq!(ran.get(), TIMERS / 2);
    assert!(timers.iter().all(|timer| !reactor.registry().cancel(*timer)));
    assert_eq!(reactor.next_deadline(), None);
}

#[test]
fn a_deadline_is_moved_and_disarmed() {
    let (mut reactor, mut world) = reactor();
    let registry = reactor.registry();
    let id = registry.insert(Counter { name: "c", ..Counter::default() }).unwrap();
    let now = registry.now();
    registry.set_deadline(id, Some(now + Duration::from_secs(3600)));
    assert_eq!(reactor.next_deadline(), Some(now + Duration::from_secs(3600)));
    reactor.registry().set_deadline(id, Some(now));
    settle(&mut reactor, &mut world);
    assert_eq!(world.log, ["c deadline"]);
    assert_eq!(reactor.next_deadline(), None, "fired once");
    reactor.registry().set_deadline(id, Some(now));
    settle(&mut reactor, &mut world);
    assert_eq!(world.log.len(), 2, "armed again after it fired");
    let registry = reactor.registry();
    registry.set_deadline(id, Some(now));
    registry.set_deadline(id, None);
    settle(&mut reactor, &mut world);
    assert_eq!(world.log.len(), 2);
    reactor.registry().set_deadline(id, Some(now + Duration::from_secs(3600)));
    reactor.registry().remove(id).unwrap();
    assert_eq!(reactor.next_deadline(), None, "it went with its source");
}

#[test]
fn a_delay_beyond_the_clock_is_taken() {
    let (mut reactor, mut world) = reactor();
    reactor.registry().after(Duration::MAX, |_| unreachable!());
    settle(&mut reactor, &mut world);
    assert!(reactor.next_deadline().is_some());
}

#[test]
fn the_registry_lends_what_an_id_of_its_type_names() {
    let (mut reactor, _) = reactor();
    let registry = reactor.registry();
    let a = registry.insert(Counter { name: "a", ..Counter::default() }).unwrap();
    let b = registry.insert(Counter { name: "b", ..Counter::default() }).unwrap();
    let (socket, _there) = Socket::pair("s");
    let s = registry.insert(socket).unwrap();
    assert_eq!(registry.get(a).unwrap().name, "a");
    registry.get_mut(a).unwrap().io = 3;
    let (first, second) = registry.get2_mut(a, s).unwrap();
    assert_eq!((first.io, second.name), (3, "s"));
    let (first, second) = registry.get2_mut(b, a).unwrap();
    assert_eq!((first.name, second.name), ("b", "a"));
    assert!(registry.get2_mut(a, a).is_none());

    // The type is checked, and so is the generation.
    let wrong = Id::<Socket>::from_bits(a.to_bits());
    assert!(!registry.contains(wrong) && registry.remove(wrong).is_none());
    assert!(registry.contains(a));
    assert!(!registry.contains(Id::<Counter>::from_bits(u64::MAX)));
    assert_eq!(registry.remove(a).unwrap().name, "a");
    assert!(!registry.contains(a) && registry.get2_mut(a, b).is_none());
    let again = registry.insert(Counter::default()).unwrap();
    assert!(!registry.contains(a) && registry.contains(again));
}

#[test]
fn a_removed_socket_can_be_inserted_again() {
    let (mut reactor, mut world) = reactor();
    let (socket, mut there) = Socket::pair("s");
    let id = reactor.registry().insert(socket).unwrap();
    settle(&mut reactor, &mut world);
    let socket = reactor.registry().remove(id).unwrap();
    there.write_all(b"x").unwrap();
    settle(&mut reactor, &mut world);
    assert!(world.log.is_empty(), "no longer polled");
    reactor.registry().insert(socket).unwrap();
    turn_until(&mut reactor, &mut world, |world| world.log == ["s x"]);
}

#[test]
fn spare_buffers_go_round() {
    let (mut reactor, _) = reactor();
    let registry = reactor.registry();
    let mut buffer = registry.take_buffer();
    buffer.extend_from_slice(&[1; 1000]);
    let memory = buffer.as_ptr();
    registry.give_buffer(buffer);
    let buffer = registry.take_buffer();
    assert!(buffer.is_empty());
    assert_eq!(buffer.as_ptr(), memory);
}

#[test]
fn next_deadline_is_now_while_anything_is_runnable() {
    let (mut reactor, mut world) = reactor();
    assert_eq!(reactor.next_deadline(), None);
    let id = reactor.registry().insert(Counter::default()).unwrap();
    type Step<'a> = &'a dyn Fn(&mut Reactor<World>);
    let make_runnable: [Step<'_>; 6] = [
        &|reactor| reactor.registry().wake(id),
        &|reactor| reactor.registry().again(id),
        &|reactor| reactor.registry().touch(id),
        &|reactor| reactor.registry().defer(|_| ()),
        &|reactor| reactor.registry().remote().post(|_| ()).unwrap(),
        &|reactor| reactor.registry().stop(),
    ];
    for make_runnable in make_runnable {
        make_runnable(&mut reactor);
        assert!(reactor.next_deadline().unwrap() <= Instant::now());
        // And so the poll does not block.
        reactor.turn(&mut world, None).unwrap();
        settle(&mut reactor, &mut world);
        assert_eq!(reactor.next_deadline(), None);
    }
}

#[test]
fn a_turn_ends_with_its_timeout() {
    let (mut reactor, mut world) = reactor();
    let start = Instant::now();
    let turn = reactor.turn(&mut world, Some(Duration::from_millis(2))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(2));
    assert_eq!((turn.events, turn.tasks, turn.stopped), (0, 0, false));
}

/// A reactor that would spin for an hour: what is only seen by one that blocks is not seen here.
fn spinning() -> (Reactor<World>, World) {
    let mut config = Config::default();
    config.spin_us = 3_600_000_000;
    (Reactor::with_config(config).unwrap(), World::default())
}

#[test]
fn a_spinning_reactor_sees_everything_while_it_spins() {
    let (mut reactor, mut world) = spinning();
    let (socket, mut there) = Socket::pair("s");
    let registry = reactor.registry();
    registry.insert(socket).unwrap();
    let remote = registry.remote();
    registry.after(Duration::from_millis(2), |cx| cx.state.note("timer"));
    there.write_all(b"x").unwrap();
    registry.offload(|| (), |_, cx| cx.state.note("job")).unwrap();
    let mut turn_until = |what: &str| {
        while world.count(what) == 0 {
            reactor.turn(&mut world, None).unwrap();
        }
    };
    ["s x", "timer", "job"].into_iter().for_each(&mut turn_until);
    let thread = std::thread::spawn(move || remote.post(|cx| cx.state.note("posted")));
    turn_until("posted");
    thread.join().unwrap().unwrap();
}

#[test]
fn a_turn_does_not_spin_for_longer_than_it_may_take() {
    let (mut reactor, mut world) = spinning();
    reactor.turn(&mut world, Some(Duration::ZERO)).unwrap();
    reactor.turn(&mut world, Some(Duration::from_millis(2))).unwrap();
    reactor.registry().defer(|cx| cx.state.note("deferred"));
    reactor.turn(&mut world, None).unwrap();
    assert_eq!(world.log, ["deferred"]);
}

#[test]
fn a_host_polls_the_reactor_inside_its_own_loop() {
    const REACTOR: mio::Token = mio::Token(0);
    let (mut reactor, mut world) = reactor();
    let mut host = mio::Poll::new().unwrap();
    let descriptor = reactor.as_fd().as_raw_fd();
    let readable = mio::Interest::READABLE;
    host.registry().register(&mut SourceFd(&descriptor), REACTOR, readable).unwrap();

    let (socket, mut there) = Socket::pair("s");
    let registry = reactor.registry();
    registry.insert(socket).unwrap();
    registry.after(Duration::from_millis(2), move |cx| {
        cx.state.note("timer");
        // Seen by the host through the descriptor.
        there.write_all(b"x").unwrap();
        std::mem::forget(there);
    });
    registry.defer(|cx| cx.state.note("deferred"));
    let remote = registry.remote();
    let thread = std::thread::spawn(move || remote.post(|cx| cx.state.note("posted")));

    let mut events = mio::Events::with_capacity(8);
    let end = Instant::now() + PATIENCE;
    while world.log.len() < 4 {
        assert!(Instant::now() < end, "{:?}", world.log);
        let deadline = reactor.next_deadline().unwrap_or(end).min(end);
        let wait = deadline.saturating_duration_since(Instant::now());
        host.poll(&mut events, Some(wait)).unwrap();
        reactor.turn(&mut world, Some(Duration::ZERO)).unwrap();
    }
    thread.join().unwrap().unwrap();
    for what in ["deferred", "posted", "timer", "s x"] {
        assert_eq!(world.count(what), 1, "{what}");
    }
}
