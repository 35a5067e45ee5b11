//! Budgets: what the greedy may take, and that nobody is forgotten for it.

mod support;

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use onceloop_reactor::{Config, Cx, Id, Input, Io, Pollable, Reactor, ReadOutcome, Source, Stream};
use support::{Counter, PATIENCE, Socket, World, settle};

const BUDGET: usize = 68 * 1024;

/// Fills a socket; returns how many bytes it took.
fn fill(there: &mut UnixStream) -> usize {
    there.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while let Ok(n) = there.write(&[b'g'; 16 * 1024]) {
        filled += n;
    }
    filled
}

#[test]
fn a_greedy_socket_reads_its_budget_while_another_is_ready_and_more_alone() {
    let mut reactor = Reactor::<World>::new().unwrap();
    let mut world = World::default();
    let (greedy, mut greedy_end) = Socket::pair("greedy");
    let greedy = reactor.registry().insert(greedy).unwrap();
    let (modest, mut modest_end) = Socket::pair("modest");
    reactor.registry().insert(modest).unwrap();
    let filled = fill(&mut greedy_end);
    assert!(filled > BUDGET, "{filled}");
    modest_end.write_all(b"m").unwrap();

    reactor.turn(&mut world, Some(PATIENCE)).unwrap();
    assert_eq!(world.count("modest m"), 1, "served in the first turn");
    assert_eq!(reactor.registry().get(greedy).unwrap().reads, [BUDGET]);
    assert!(reactor.next_deadline().is_some(), "the rest makes the next turn runnable");
    // No event comes for what is left: `again` brings it.
    reactor.turn(&mut world, None).unwrap();
    let reads = reactor.registry().get(greedy).unwrap().reads.clone();
    assert_eq!(reads.iter().sum::<usize>(), filled, "alone, it reads the rest at once: {reads:?}");
    assert_eq!(reads.len(), 2);
}

#[test]
fn more_than_the_turn_buffer_holds_is_read_in_turns_and_nobody_is_left_out() {
    let mut config = Config::default();
    config.turn_buffer_bytes = 128 * 1024;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let mut world = World::default();
    let (mut ids, mut ends, mut filled) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        let (socket, mut there) = Socket::pair("s");
        ids.push(reactor.registry().insert(socket).unwrap());
        filled.push(fill(&mut there));
        ends.push(there);
    }
    reactor.turn(&mut world, Some(PATIENCE)).unwrap();
    assert_eq!(world.log.len(), 2, "two budgets fill the buffer");
    settle(&mut reactor, &mut world);
    for (id, filled) in ids.into_iter().zip(filled) {
        let reads = &reactor.registry().get(id).unwrap().reads;
        assert_eq!(reads.iter().sum::<usize>(), filled);
        // The last one is alone and may take what the buffer holds.
        assert!(reads.iter().all(|&bytes| bytes <= 2 * BUDGET), "{reads:?}");
    }
}

#[test]
fn a_source_that_would_find_little_room_waits_for_the_next_turn() {
    let mut config = Config::default();
    config.turn_buffer_bytes = 128 * 1024;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let mut world = World::default();
    let (greedy, mut greedy_end) = Socket::pair("greedy");
    reactor.registry().insert(greedy).unwrap();
    assert!(fill(&mut greedy_end) > BUDGET);
    let mut ends = Vec::new();
    for _ in 0..2 {
        let (socket, mut there) = Socket::pair("s");
        reactor.registry().insert(socket).unwrap();
        there.write_all(b"x").unwrap();
        ends.push(there);
    }
    // The greedy one leaves half of the buffer, the next one byte less: not enough for a third.
    reactor.turn(&mut world, Some(PATIENCE)).unwrap();
    assert_eq!(world.log.len(), 2, "{:?}", world.log);
    reactor.turn(&mut world, None).unwrap();
    assert_eq!(world.count("s x"), 2);
}

#[test]
fn a_source_that_always_wants_more_starves_neither_timers_nor_tasks() {
    let mut reactor = Reactor::<World>::new().unwrap();
    let mut world = World::default();
    let registry = reactor.registry();
    let insatiable = Counter { name: "greedy", is_insatiable: true, ..Counter::default() };
    let id = registry.insert(insatiable).unwrap();
    registry.wake(id);
    registry.again(id);
    let (socket, mut there) = Socket::pair("modest");
    registry.insert(socket).unwrap();
    there.write_all(b"m").unwrap();
    let remote = registry.remote();
    remote.post(|cx| cx.state.note("posted")).unwrap();
    registry.after(Duration::from_millis(3), |cx| {
        cx.state.note("timer");
        cx.registry.stop();
    });
    reactor.run(&mut world).unwrap();
    assert_eq!((world.count("modest m"), world.count("posted"), world.count("timer")), (1, 1, 1));
    let turns = world.count("greedy woken");
    let counter = reactor.registry().get(id).unwrap();
    // Once a turn, however often it asked.
    assert!(counter.io.abs_diff(turns) <= 1, "{} {turns}", counter.io);
    assert!(counter.flushes.abs_diff(turns) <= 1, "{} {turns}", counter.flushes);
}

#[test]
fn touched_and_woken_many_times_is_flushed_and_dispatched_once() {
    let mut reactor = Reactor::<World>::new().unwrap();
    let mut world = World::default();
    let registry = reactor.registry();
    let id = registry.insert(Counter { name: "c", ..Counter::default() }).unwrap();
    for _ in 0..5 {
        registry.touch(id);
        registry.wake(id);
        registry.again(id);
    }
    reactor.turn(&mut world, None).unwrap();
    settle(&mut reactor, &mut world);
    let counter = reactor.registry().get(id).unwrap();
    assert_eq!((counter.io, counter.flushes, world.count("c woken")), (1, 1, 1));
}

/// Reads into a buffer of its own.
struct Elsewhere {
    stream: Stream,
    reads: Vec<usize>,
}

impl Source<World> for Elsewhere {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Stream(&mut self.stream)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        let (share, space) = (io.own_space(), io.space().len());
        let mut own = vec![0; share];
        if let Ok(ReadOutcome::Bytes(n)) = self.stream.read_into(&mut own) {
            io.spend(n);
            self.reads.push(n);
            assert_eq!(io.own_space(), share - n);
            assert_eq!(io.space().len(), space.saturating_sub(n));
        }
        if self.stream.is_readable() {
            io.again();
        }
    }

    fn dispatch(_: &mut Cx<'_, World>, _: Id<Self>, _: &mut Input<'_>) {
        panic!("nothing was committed");
    }
}

#[test]
fn what_is_read_elsewhere_is_of_a_budget_of_its_own_and_the_same_turns() {
    const OWN_BUDGET: usize = 96 * 1024;
    let mut config = Config::default();
    config.turn_buffer_bytes = 2 * OWN_BUDGET;
    config.write_bytes_per_turn = OWN_BUDGET;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let mut world = World::default();
    let (mut ids, mut ends, mut filled) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let (socket, mut there) = Socket::pair("s");
        let source = Elsewhere { stream: socket.stream, reads: Vec::new() };
        ids.push(reactor.registry().insert(source).unwrap());
        filled.push(fill(&mut there));
        ends.push(there);
    }
    let reads = |reactor: &mut Reactor<World>, id: Id<Elsewhere>| {
        reactor.registry().get(id).unwrap().reads.clone()
    };
    reactor.turn(&mut world, Some(PATIENCE)).unwrap();
    let first: Vec<usize> = ids.iter().flat_map(|&id| reads(&mut reactor, id)).collect();
    assert_eq!(first, [OWN_BUDGET; 2], "two shares are what a turn reads");
    while reactor.next_deadline().is_some() {
        reactor.turn(&mut world, None).unwrap();
    }
    for (&id, filled) in ids.iter().zip(filled) {
        assert_eq!(reads(&mut reactor, id).iter().sum::<usize>(), filled);
    }
}

/// Has something to write in so many turns, and notes each of them.
struct Writer {
    name: &'static str,
    flushes: usize,
    log: Rc<RefCell<Vec<&'static str>>>,
}

impl Source<World> for Writer {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Nothing
    }

    fn handle_io(&mut self, _: &mut Io<'_>) {}

    fn dispatch(_: &mut Cx<'_, World>, _: Id<Self>, _: &mut Input<'_>) {}

    fn flush(&mut self, io: &mut Io<'_>) {
        assert_eq!(io.write_share(), 5_000);
        self.log.borrow_mut().push(self.name);
        self.flushes -= 1;
        if self.flushes > 0 {
            io.touch();
        }
    }
}

#[test]
fn who_writes_more_than_a_share_goes_on_after_those_that_have_just_begun() {
    let mut config = Config::default();
    config.write_bytes_per_turn = 5_000;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let mut world = World::default();
    let log = Rc::new(RefCell::new(Vec::new()));
    let mut add = |name, flushes| {
        let log = Rc::clone(&log);
        reactor.registry().insert(Writer { name, flushes, log }).unwrap()
    };
    let (bulk, other, small) = (add("bulk", 3), add("other", 2), add("small", 2));
    for id in [bulk, other] {
        reactor.registry().touch(id);
    }
    reactor.turn(&mut world, None).unwrap();
    assert_eq!(log.take(), ["bulk", "other"]);
    assert!(reactor.next_deadline().is_some(), "the rest makes the next turn runnable");
    reactor.registry().defer(move |cx| cx.registry.touch(small));
    reactor.turn(&mut world, None).unwrap();
    assert_eq!(log.take(), ["small", "bulk", "other"]);
    reactor.turn(&mut world, None).unwrap();
    assert_eq!(log.take(), ["small", "bulk"]);
    assert_eq!(reactor.next_deadline(), None);
}

/// Notes how many requests it may run.
struct Allowance(Socket);

impl Source<World> for Allowance {
    fn pollable(&mut self) -> Pollable<'_> {
        self.0.pollable()
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        self.0.handle_io(io);
    }

    fn dispatch(cx: &mut Cx<'_, World>, _: Id<Self>, input: &mut Input<'_>) {
        cx.state.note(input.requests_max().to_string());
    }
}

#[test]
fn requests_are_budgeted_in_company_and_alone() {
    let mut reactor = Reactor::<World>::new().unwrap();
    let mut world = World::default();
    let mut ends: Vec<_> = (0..2)
        .map(|_| {
            let (socket, there) = Socket::pair("a");
            reactor.registry().insert(Allowance(socket)).unwrap();
            there
        })
        .collect();
    ends[0].write_all(b"x").unwrap();
    reactor.turn(&mut world, Some(PATIENCE)).unwrap();
    assert_eq!(world.log, ["512"]);
    for there in &mut ends {
        there.write_all(b"x").unwrap();
    }
    reactor.turn(&mut world, Some(PATIENCE)).unwrap();
    assert_eq!(world.log, ["512", "128", "128"]);
}

#[test]
fn more_sockets_than_the_event_buffer_holds_are_all_served() {
    let mut config = Config::default();
    config.events = 16;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let mut world = World::default();
    let mut ends = Vec::new();
    for _ in 0..100 {
        let (socket, mut there) = Socket::pair("s");
        reactor.registry().insert(socket).unwrap();
        there.write_all(b"x").unwrap();
        ends.push(there);
    }
    let mut turns = Vec::new();
    while world.log.len() < 100 {
        turns.push(reactor.turn(&mut world, Some(PATIENCE)).unwrap().events);
    }
    assert_eq!(turns, [16, 16, 16, 16, 16, 16, 4]);
}
