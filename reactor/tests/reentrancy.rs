//! Callbacks that do what callbacks usually must not: close themselves and each other, insert,
//! stop, panic, and disappear with work pending. In each case: every continuation exactly once.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use onceloop_reactor::{Closed, Config, Cx, Id, Input, Io, Pollable, Reactor, Source, TimerId};
use support::{Counter, PATIENCE, Socket, World, settle, turn_until};

fn reactor() -> (Reactor<World>, World) {
    (Reactor::new().unwrap(), World::default())
}

fn index_of<T>(id: Id<T>) -> u32 {
    u32::try_from(id.to_bits() & u64::from(u32::MAX)).unwrap()
}

#[test]
fn a_source_closes_itself_in_its_own_callback_and_reads_on() {
    let (mut reactor, mut world) = reactor();
    let (socket, mut there) = Socket::pair("a");
    let socket = socket.on_input(|cx, id, bytes| {
        assert!(cx.registry.remove(id).is_some());
        assert!(cx.registry.get(id).is_none());
        assert!(cx.registry.remove(id).is_none());
        // All of these are for a source that is gone.
        cx.registry.wake(id);
        cx.registry.touch(id);
        cx.registry.again(id);
        cx.registry.set_deadline(id, Some(cx.registry.now()));
        cx.state.note(format!("still there: {}", bytes.len()));
    });
    reactor.registry().insert(socket).unwrap();
    there.write_all(b"hello").unwrap();
    turn_until(&mut reactor, &mut world, |world| !world.log.is_empty());
    settle(&mut reactor, &mut world);
    assert_eq!(world.log, ["a hello", "still there: 5"]);
    assert_eq!(there.read(&mut [0; 1]).unwrap(), 0, "the socket is closed");
    assert_eq!(reactor.next_deadline(), None);
}

#[test]
fn a_stale_event_does_not_reach_the_newcomer_in_the_same_slot() {
    let (mut reactor, mut world) = reactor();
    let ids: Rc<RefCell<Vec<Id<Socket>>>> = Rc::default();
    let newcomer_end = Rc::new(RefCell::new(None));
    let mut ends = Vec::new();
    for name in ["a", "b"] {
        let (socket, there) = Socket::pair(name);
        let (ids_there, newcomer_end) = (Rc::clone(&ids), Rc::clone(&newcomer_end));
        // Whichever runs first closes the other and has its slot taken at once.
        let socket = socket.on_input(move |cx, id, _| {
            let other = *ids_there.borrow().iter().find(|other| **other != id).unwrap();
            cx.registry.remove(other).expect("the other did not run before");
            let (newcomer, there) = Socket::pair("newcomer");
            let newcomer = cx.registry.insert(newcomer).unwrap();
            assert_eq!(index_of(newcomer), index_of(other), "the slot is used again");
            assert_ne!(newcomer, other);
            assert!(cx.registry.get(other).is_none());
            *newcomer_end.borrow_mut() = Some(there);
        });
        ids.borrow_mut().push(reactor.registry().insert(socket).unwrap());
        ends.push(there);
    }
    for there in &mut ends {
        there.write_all(b"x").unwrap();
    }
    let turn = reactor.turn(&mut world, Some(PATIENCE)).unwrap();
    assert_eq!(turn.events, 2, "both events came in one batch");
    settle(&mut reactor, &mut world);
    assert_eq!(world.log, ["a x"]);

    newcomer_end.borrow_mut().as_mut().unwrap().write_all(b"mine").unwrap();
    turn_until(&mut reactor, &mut world, |world| world.log.len() == 2);
    assert_eq!(world.log[1], "newcomer mine");
}

#[test]
fn pending_wakes_touches_and_deadlines_die_with_their_source() {
    let (mut reactor, mut world) = reactor();
    let registry = reactor.registry();
    let old = registry.insert(Counter { name: "old", ..Counter::default() }).unwrap();
    registry.wake(old);
    registry.touch(old);
    registry.again(old);
    registry.set_deadline(old, Some(registry.now()));
    registry.remove(old).unwrap();
    let new = registry.insert(Counter { name: "new", ..Counter::default() }).unwrap();
    assert_eq!(index_of(new), index_of(old));
    settle(&mut reactor, &mut world);
    assert!(world.log.is_empty(), "{:?}", world.log);
    let counter = reactor.registry().get(new).unwrap();
    assert_eq!((counter.io, counter.flushes), (0, 0));
}

#[test]
fn a_deadline_collected_in_this_turn_can_still_be_disarmed_moved_or_lose_its_source() {
    let (mut reactor, mut world) = reactor();
    let registry = reactor.registry();
    let mut add = |name| registry.insert(Counter { name, ..Counter::default() }).unwrap();
    let (kept, disarmed, moved, removed) =
        (add("kept"), add("disarmed"), add("moved"), add("removed"));
    let now = registry.now();
    registry.at(now, move |cx| {
        cx.registry.set_deadline(disarmed, None);
        cx.registry.set_deadline(moved, Some(now + Duration::from_secs(3600)));
        cx.registry.remove(removed).unwrap();
        let new = Counter { name: "newcomer", ..Counter::default() };
        assert_eq!(index_of(cx.registry.insert(new).unwrap()), index_of(removed));
    });
    for id in [kept, disarmed, moved, removed] {
        registry.set_deadline(id, Some(now));
    }
    settle(&mut reactor, &mut world);
    assert_eq!(world.log, ["kept deadline"]);
    assert!(reactor.next_deadline().unwrap() > now + Duration::from_secs(3000));
}

#[test]
fn a_callback_inserts_and_removes_sources_and_stops_the_loop() {
    let (mut reactor, mut world) = reactor();
    let (socket, mut there) = Socket::pair("first");
    let ends = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&ends);
    let socket = socket.on_input(move |cx, _, _| {
        for _ in 0..100 {
            let (socket, mut there) = Socket::pair("inserted");
            there.write_all(b"y").unwrap();
            let socket = socket.on_input(|cx, id, _| {
                cx.registry.remove(id).unwrap();
                if cx.state.count("inserted y") == 100 {
                    cx.registry.stop();
                    cx.state.note("stop");
                }
            });
            cx.registry.insert(socket).unwrap();
            kept.borrow_mut().push(there);
        }
    });
    reactor.registry().insert(socket).unwrap();
    there.write_all(b"x").unwrap();
    reactor.run(&mut world).unwrap();
    assert_eq!(world.log.last().unwrap(), "stop");
    assert_eq!(world.count("inserted y"), 100);

    // The stop was reported; the loop can be run again.
    reactor.registry().defer(|cx| cx.registry.stop());
    reactor.run(&mut world).unwrap();
    reactor.registry().stop();
    assert!(reactor.turn(&mut world, None).unwrap().stopped);
    assert!(!reactor.turn(&mut world, Some(Duration::ZERO)).unwrap().stopped);
}

#[test]
fn a_timer_cancels_itself_and_others_due_at_the_same_instant() {
    let (mut reactor, mut world) = reactor();
    let timers: Rc<RefCell<Vec<TimerId>>> = Rc::default();
    let registry = reactor.registry();
    let at = registry.now();
    for n in 0..10 {
        let all = Rc::clone(&timers);
        let timer = registry.at(at, move |cx| {
            cx.state.note(format!("{n}"));
            assert!(!cx.registry.cancel(all.borrow()[n]), "it runs already");
            if n % 3 == 0 {
                // The next one is due at the same instant and has been collected.
                let next = all.borrow().get(n + 1).copied();
                assert_eq!(next.is_some_and(|next| cx.registry.cancel(next)), n < 9);
            }
            if n == 8 {
                assert!(!cx.registry.cancel(all.borrow()[0]), "it has run");
                cx.registry.at(at, |cx| cx.state.note("late"));
            }
        });
        timers.borrow_mut().push(timer);
    }
    let turn = reactor.turn(&mut world, Some(PATIENCE)).unwrap();
    assert_eq!(world.log, ["0", "2", "3", "5", "6", "8", "9"]);
    assert_eq!(turn.tasks, 7);
    settle(&mut reactor, &mut world);
    assert_eq!(world.log.last().unwrap(), "late", "armed in a callback: due in the next turn");
}

#[test]
fn continuations_never_run_inside_the_call_that_created_them() {
    let (mut reactor, mut world) = reactor();
    reactor.registry().defer(|cx| {
        cx.registry.defer(|cx| cx.state.note("deferred"));
        cx.registry.after(Duration::ZERO, |cx| cx.state.note("timer"));
        cx.registry.remote().post(|cx| cx.state.note("posted")).unwrap();
        let counter = Counter { name: "source", ..Counter::default() };
        let id = cx.registry.insert(counter).unwrap();
        cx.registry.wake(id);
        cx.registry.wake(id);
        cx.state.note("outer");
    });
    reactor.turn(&mut world, Some(Duration::ZERO)).unwrap();
    assert_eq!(world.log, ["outer"]);
    reactor.turn(&mut world, None).unwrap();
    assert_eq!(world.log, ["outer", "timer", "posted", "deferred", "source woken"]);
}

#[test]
fn nothing_posted_from_threads_under_load_is_lost_or_reordered() {
    const THREADS: usize = 4;
    const POSTS: usize = 10_000;
    struct Seen(HashMap<usize, usize>);

    let mut reactor = Reactor::<Seen>::new().unwrap();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let remote = reactor.registry().remote();
            thread::spawn(move || {
                for n in 0..POSTS {
                    let task = move |cx: &mut Cx<'_, Seen>| {
                        let seen = cx.state.0.entry(thread).or_insert(0);
                        assert_eq!(*seen, n);
                        *seen += 1;
                        if cx.state.0.values().sum::<usize>() == THREADS * POSTS {
                            cx.registry.stop();
                        }
                    };
                    remote.post(task).unwrap();
                }
            })
        })
        .collect();
    let mut seen = Seen(HashMap::new());
    reactor.run(&mut seen).unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(seen.0.values().all(|&count| count == POSTS));
    let turn = reactor.turn(&mut seen, Some(Duration::ZERO)).unwrap();
    assert_eq!(turn.tasks, 0);
}

/// Tells when the thread that it belongs to ends.
struct Obituary(mpsc::Sender<()>);

impl Drop for Obituary {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

thread_local! {
    static OBITUARY: RefCell<Option<Obituary>> = const { RefCell::new(None) };
}

#[test]
fn a_reactor_dropped_with_everything_pending_drops_it_and_runs_nothing() {
    let (mut reactor, mut world) = reactor();
    let token = Rc::new(());
    let (ended, has_ended) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let remote = reactor.registry().remote();

    let registry = reactor.registry();
    let (socket, mut there) = Socket::pair("a");
    there.write_all(b"unread").unwrap();
    let kept = Rc::clone(&token);
    let id = registry.insert(socket.on_input(move |_, _, _| drop(Rc::clone(&kept)))).unwrap();
    let kept = Rc::clone(&token);
    registry.defer(move |_| unreachable!("{kept:?}"));
    let kept = Rc::clone(&token);
    registry.after(Duration::ZERO, move |_| unreachable!("{kept:?}"));
    registry.wake(id);
    registry.touch(id);
    registry.set_deadline(id, Some(registry.now()));
    let kept = Rc::clone(&token);
    let job = move || {
        OBITUARY.set(Some(Obituary(ended)));
        started.send(()).unwrap();
        released.recv().unwrap();
    };
    registry.offload(job, move |_, _| unreachable!("{kept:?}")).unwrap();
    let (posted, is_dropped) = mpsc::channel::<()>();
    remote.post(move |_| posted.send(()).unwrap()).unwrap();
    has_started.recv_timeout(PATIENCE).unwrap();

    drop(reactor);
    assert_eq!(Rc::strong_count(&token), 1, "all continuations are dropped");
    assert!(is_dropped.recv_timeout(PATIENCE).is_err(), "dropped, not run");
    assert_eq!(remote.post(|_| ()), Err(Closed));
    assert_eq!(there.read(&mut [0; 1]).unwrap_or(0), 0, "the socket is closed");
    release.send(()).unwrap();
    has_ended.recv_timeout(PATIENCE).expect("the thread ends after its job");
    world.note("done");
    assert_eq!(world.log, ["done"]);
}

#[test]
fn an_idle_thread_of_the_pool_ends_with_the_reactor() {
    let (mut reactor, mut world) = reactor();
    let (ended, has_ended) = mpsc::channel();
    let job = move || OBITUARY.set(Some(Obituary(ended)));
    reactor.registry().offload(job, |_, cx| cx.state.note("done")).unwrap();
    turn_until(&mut reactor, &mut world, |world| !world.log.is_empty());
    assert!(has_ended.try_recv().is_err(), "it waits for another job");
    drop(reactor);
    has_ended.recv_timeout(PATIENCE).expect("it ends");
}

#[test]
fn a_continuation_dropped_with_the_reactor_may_post() {
    struct Poster(onceloop_reactor::Remote<World>);
    impl Drop for Poster {
        fn drop(&mut self) {
            // Either answer is right, depending on what is dropped first; neither runs anything.
            let _ = self.0.post(|_| unreachable!());
        }
    }
    let (mut reactor, _) = reactor();
    let poster = Poster(reactor.registry().remote());
    reactor.registry().defer(move |_| drop(poster));
    let poster = Poster(reactor.registry().remote());
    reactor.registry().remote().post(move |_| drop(poster)).unwrap();
    drop(reactor);
}

#[test]
fn continuations_that_panic_lose_nothing_but_themselves() {
    const EACH: usize = 40;
    let (mut reactor, mut world) = reactor();
    let runs: Rc<Vec<Cell<usize>>> = Rc::new((0..5 * EACH).map(|_| Cell::new(0)).collect());
    let task = |n: usize| {
        let runs = Rc::clone(&runs);
        move |_: &mut Cx<'_, World>| {
            runs[n].set(runs[n].get() + 1);
            assert!(!n.is_multiple_of(3), "as planned");
        }
    };
    let (post, posted) = mpsc::channel();
    let registry = reactor.registry();
    let now = registry.now();
    for n in 0..EACH {
        registry.at(now, task(n));
        registry.defer(task(EACH + n));
        let done = task(2 * EACH + n);
        registry
            .offload(
                || (),
                move |result, cx| {
                    result.unwrap();
                    done(cx);
                },
            )
            .unwrap();
        // What is posted has to be Send, the counters are not: it tells by a channel.
        let post = post.clone();
        let posting = move |_: &mut Cx<'_, World>| {
            post.send(n).unwrap();
            assert!(!n.is_multiple_of(3), "as planned");
        };
        registry.remote().post(posting).unwrap();
        let run = task(3 * EACH + n);
        let (socket, mut there) = Socket::pair("s");
        there.write_all(b"z").unwrap();
        // The other end stays open, or the end of input would be another dispatch.
        registry
            .insert(socket.on_input(move |cx, _, _| {
                let _ = &there;
                run(cx);
            }))
            .unwrap();
    }
    let mut panics = 0;
    let all_ran = |runs: &[Cell<usize>]| runs[..4 * EACH].iter().all(|count| count.get() > 0);
    while !all_ran(&runs) {
        let turn = || reactor.turn(&mut world, Some(PATIENCE)).unwrap();
        panics += usize::from(catch_unwind(AssertUnwindSafe(turn)).is_err());
    }
    while catch_unwind(AssertUnwindSafe(|| settle(&mut reactor, &mut world))).is_err() {
        panics += 1;
    }
    assert!(runs[..4 * EACH].iter().all(|count| count.get() == 1));
    let mut seen: Vec<usize> = posted.try_iter().collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..EACH).collect::<Vec<_>>());
    let planned = (0..4 * EACH).chain(0..EACH).filter(|n| n.is_multiple_of(3)).count();
    assert_eq!(panics, planned);
}

/// Runs a message per byte, advancing first; an `!` panics.
struct ByteByByte {
    socket: Socket,
    flushes: usize,
}

impl Source<World> for ByteByByte {
    fn pollable(&mut self) -> Pollable<'_> {
        self.socket.pollable()
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        self.socket.handle_io(io);
    }

    fn dispatch(cx: &mut Cx<'_, World>, id: Id<Self>, input: &mut Input<'_>) {
        cx.registry.touch(id);
        while let [byte, ..] = input.unread() {
            input.advance(1);
            cx.state.note(char::from(*byte));
            assert_ne!(*byte, b'!', "as planned");
        }
        cx.state.note("end");
    }

    fn flush(&mut self, _: &mut Io<'_>) {
        self.flushes += 1;
    }
}

#[test]
fn the_rest_of_a_batch_is_dispatched_after_a_panic_and_others_are_not_lost() {
    let (mut reactor, mut world) = reactor();
    let (socket, mut there) = Socket::pair("a");
    let id = reactor.registry().insert(ByteByByte { socket, flushes: 0 }).unwrap();
    let (other, mut other_end) = Socket::pair("other");
    reactor.registry().insert(other).unwrap();
    there.write_all(b"ab!c!").unwrap();
    other_end.write_all(b"ok").unwrap();
    let mut turn = || {
        let turn = catch_unwind(AssertUnwindSafe(|| reactor.turn(&mut world, Some(PATIENCE))));
        (turn.is_err(), std::mem::take(&mut world.log))
    };
    assert_eq!(turn(), (true, ["a", "b", "!"].map(String::from).to_vec()));
    // New bytes wait until the old ones are done.
    there.write_all(b"d").unwrap();
    assert_eq!(turn(), (true, ["c", "!"].map(String::from).to_vec()));
    assert_eq!(turn(), (false, ["end", "other ok"].map(String::from).to_vec()));
    assert_eq!(turn(), (false, ["d", "end"].map(String::from).to_vec()));
    assert!(reactor.registry().get(id).unwrap().flushes >= 2);
}

#[test]
fn a_budget_of_posted_tasks_leaves_the_rest_for_the_next_turn() {
    let mut config = Config::default();
    config.posted_per_turn = 10;
    config.completions_per_turn = 10;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let mut world = World::default();
    let remote = reactor.registry().remote();
    for _ in 0..25 {
        remote.post(|cx| cx.state.note("posted")).unwrap();
    }
    for expected in [10, 20, 25, 25] {
        reactor.turn(&mut world, Some(Duration::ZERO)).unwrap();
        assert_eq!(world.count("posted"), expected);
    }
}
