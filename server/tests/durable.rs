//! A server with a store that outlives it, over real sockets.
#![allow(missing_docs)]

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use common::{App, Wire, World, first_frame, flagged, frame, plain_hello, plain_resume};
use onceloop_protocol::codec;
use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::{Flags, Header, Kind, MethodId};
use onceloop_protocol::handshake::{CellReport, Order, Resume, Resumed, Welcome};
use onceloop_protocol::limits::Limits;
use onceloop_protocol::table::store::{Disk, Volatile};
use onceloop_reactor::Reactor;
use onceloop_server::{Builder, Context, ListenError};

onceloop_protocol::service! {
    pub mod kv {
        /// Adds to the sum in the store.
        fn add(n: u64) -> u64;
        /// Adds 100 and then fails: 1 by an error, 2 by a panic, 3 asks to come later.
        fn fail(how: u64) -> u64;
        #[idempotent]
        fn sum() -> u64;
        /// Writes, and is not served as a method that may.
        fn smuggle() -> u64;
    }
}

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(1_000);

/// A disk, how long a commit takes to be safe on it, and what the server said when it failed.
struct Rig {
    disk: Disk,
    delay: Rc<Cell<Duration>>,
    failures: Rc<RefCell<Vec<String>>>,
}

fn number(bytes: Option<Vec<u8>>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

fn add(n: u64, cx: &mut Context<'_, App>) -> u64 {
    let sum = number(cx.read(b"sum")) + n;
    cx.write(b"sum", Some(&sum.to_le_bytes()));
    sum
}

fn methods(builder: Builder<App>) -> Builder<App> {
    builder
        .transactional(kv::add, |(n,), cx| Ok(add(n, cx)))
        .transactional(kv::fail, |(how,), cx| {
            let sum = add(100, cx);
            match how {
                1 => return Err("on purpose".into()),
                2 => panic!("on purpose"),
                3 if cx.state.cancelled == 0 => cx.retry_later(Duration::from_millis(30)),
                _ => {}
            }
            Ok(sum)
        })
        .transactional(kv::sum, |(), cx| Ok(number(cx.read(b"sum"))))
        .method(kv::smuggle, |(), cx| {
            cx.write(b"sum", None);
            Ok(0)
        })
}

impl Rig {
    fn new() -> Rig {
        let delay = Rc::new(Cell::new(Duration::ZERO));
        let of_disk = Rc::clone(&delay);
        Rig { disk: Disk::new(move || of_disk.get()), delay, failures: Rc::default() }
    }

    /// A server on the disk.
    fn serve(&self) -> World {
        let failures = Rc::clone(&self.failures);
        World::built(Limits::default(), |builder| {
            methods(builder)
                .store(self.disk.open())
                .on_fatal(move |failure, _| failures.borrow_mut().push(failure.message))
        })
    }

    /// The server dies; of what was not safe the first `kept` commits are there. Another one starts.
    fn crash(&self, world: World, kept: usize) -> World {
        drop(world);
        self.disk.crash(kept);
        self.delay.set(Duration::ZERO);
        self.serve()
    }

    fn sum(&self) -> u64 {
        number(self.disk.log().get_safe(b"sum").map(<[u8]>::to_vec))
    }
}

/// Comes back to a session, and returns what RESUMED says.
fn resume(
    world: &mut World,
    welcome: &Welcome,
    attachment: u32,
) -> (Wire, Resumed, Vec<common::Got>) {
    let mut wire = Wire::resume(world, welcome, attachment, 0);
    let mut frames = wire.wait(world, 1);
    frames.extend(wire.all(world));
    let first = frames.remove(0);
    assert_eq!(first.header.kind, Kind::Resumed, "{first:?}");
    let resumed = codec::decode_whole(&first.body).expect("a RESUMED");
    (wire, resumed, frames)
}

fn check(world: &mut World) {
    world.settle();
    world.server.check_invariants(world.reactor.registry());
}

#[test]
fn calls_are_answered_by_a_durable_server_as_by_any_other() {
    let rig = Rig::new();
    let mut world = rig.serve();
    for order in [Order::Unordered, Order::InOrder] {
        let (mut wire, _) = Wire::hello(&mut world, order);
        wire.call(&mut world, 2, 0, "kv.add", &(10u64,));
        wire.call(&mut world, 1, 0, "bank.debit", &(1u64,));
        let mut numbers: Vec<_> = wire.wait(&mut world, 2).iter().map(|got| got.number()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [world.app.spent, rig.sum()]);
        wire.call(&mut world, 3, 2, "onceloop.ping", &());
        assert_eq!(wire.next(&mut world).header.kind, Kind::Reply);
        check(&mut world);
    }
    let stats = world.stats();
    assert!(stats.is_durable && stats.waiting == 0);
    assert_eq!((rig.sum(), world.app.spent), (20, 2));
}

#[test]
fn a_large_reply_is_sent_when_it_is_safe() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.big", &(100_000usize,));
    assert_eq!(wire.next(&mut world).body.len(), 100_005);
}

#[test]
fn row_15_nothing_leaves_before_it_is_safe() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    rig.delay.set(NEVER);
    wire.call(&mut world, 1, 0, "kv.add", &(10u64,));
    // Nor what was read of it, by a call outside the table.
    wire.send(&mut world, &flagged(2, 0, "kv.sum", &(), Flags::UNPROTECTED));
    assert!(wire.all(&mut world).is_empty());
    assert_eq!((rig.sum(), world.stats().waiting), (0, 2));
    check(&mut world);
}

#[test]
fn row_15_an_answer_waits_as_long_as_its_commit_takes() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    rig.delay.set(Duration::from_millis(30));
    let begin = std::time::Instant::now();
    wire.call(&mut world, 1, 0, "kv.add", &(10u64,));
    assert_eq!(wire.next(&mut world).number(), 10);
    assert!(begin.elapsed() >= Duration::from_millis(30));
}

#[test]
fn row_13_a_handler_does_not_start_before_its_start_is_safe() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    rig.delay.set(NEVER);
    wire.call(&mut world, 1, 0, "bank.debit", &(10u64,));
    check(&mut world);
    assert_eq!(world.app.spent, 0);
    let mut world = rig.crash(world, 1);
    let (mut wire, resumed, frames) = resume(&mut world, &welcome, 1);
    assert_eq!(resumed.report(1), CellReport::Finished, "it may have run");
    assert_eq!(frames[0].code(), Some(Code::InDoubt));
    wire.call(&mut world, 1, 0, "bank.debit", &(10u64,));
    assert_eq!(wire.next(&mut world).code(), Some(Code::InDoubt));
    assert_eq!(world.app.spent, 0, "it does not run again");
}

#[test]
fn row_13_a_call_starts_although_its_connection_is_lost() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    rig.delay.set(Duration::from_millis(30));
    wire.call(&mut world, 1, 0, "bank.debit", &(10u64,));
    drop(wire);
    world.until(|world| world.app.spent == 10);
    let (_, _, frames) = resume(&mut world, &welcome, 1);
    if frames.is_empty() {
        return world.until(|world| world.stats().kept_replies == 1);
    }
    assert_eq!(frames[0].number(), 10);
}

#[test]
fn row_23_a_crash_between_an_effect_and_its_answer_is_not_noticed() {
    let rig = Rig::new();
    for kept in [0, 1] {
        let mut world = rig.serve();
        let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
        let before = rig.sum();
        rig.delay.set(NEVER);
        wire.call(&mut world, 1, 0, "kv.add", &(10u64,));
        let mut world = rig.crash(world, kept);
        let (mut wire, resumed, frames) = resume(&mut world, &welcome, 1);
        let is_kept = resumed.report(1) == CellReport::Finished;
        assert_eq!(is_kept, kept == 1);
        assert_eq!(frames.len(), kept);
        wire.call(&mut world, 1, 0, "kv.add", &(10u64,));
        assert_eq!(wire.next(&mut world).number(), before + 10);
        assert_eq!(rig.sum(), before + 10, "once");
        check(&mut world);
        rig.disk.crash(0);
    }
}

#[test]
fn row_23_an_idempotent_call_in_doubt_runs_again() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    rig.delay.set(NEVER);
    wire.call(&mut world, 1, 0, "bank.balance", &());
    let mut world = rig.crash(world, 1);
    let (mut wire, _, frames) = resume(&mut world, &welcome, 1);
    assert_eq!(frames[0].code(), Some(Code::InDoubt));
    wire.call(&mut world, 1, 0, "bank.balance", &());
    assert_eq!(wire.next(&mut world).number(), 0);
}

#[test]
fn row_17_effects_of_a_handler_that_fails_are_undone_and_its_error_is_the_answer() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    for how in [1u64, 2] {
        wire.call(&mut world, how, 0, "kv.fail", &(how,));
        assert_eq!(wire.next(&mut world).code(), Some(Code::ApplicationError));
        assert_eq!(rig.sum(), 0);
    }
    let mut world = rig.crash(world, 0);
    let (_, resumed, frames) = resume(&mut world, &welcome, 1);
    for seq in [1, 2] {
        assert_eq!(resumed.report(seq), CellReport::Finished, "it has run");
    }
    assert_eq!(frames.len(), 2);
}

#[test]
fn row_16_a_handler_that_asks_for_later_has_not_run() {
    let rig = Rig::new();
    for mut world in [rig.serve(), World::built(Limits::default(), |builder| builder)] {
        let is_durable = world.stats().is_durable;
        let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
        if is_durable {
            wire.call(&mut world, 1, 0, "kv.fail", &(3u64,));
            let got = wire.next(&mut world);
            let body: ErrorBody<'_> = codec::decode_whole(&got.body).expect("an error's body");
            assert_eq!((got.code(), body.retry_after_ms), (Some(Code::Busy), Some(30)));
            assert_eq!(rig.sum(), 0, "undone");
            world.app.cancelled = 1;
            wire.call(&mut world, 1, 0, "kv.fail", &(3u64,));
            assert_eq!(wire.next(&mut world).number(), 100);
        }
        wire.call(&mut world, 2, 0, "bank.later", &(7u64,));
        world.until(|world| world.app.waiting.len() == 1);
        let (_, responder) = world.app.waiting.remove(0);
        let put_off = world.stats().calls_put_off;
        world.reactor.registry().defer(|cx| responder.retry_later(cx, Duration::from_millis(5)));
        assert_eq!(wire.next(&mut world).code(), Some(Code::Busy));
        assert_eq!(world.stats().calls_put_off, put_off + 1);
        wire.call(&mut world, 2, 0, "bank.later", &(7u64,));
        world.until(|world| world.app.waiting.len() == 1);
        world.answer_all();
        assert_eq!(wire.next(&mut world).number(), 7);
        check(&mut world);
    }
}

#[test]
fn row_12_arguments_that_do_not_fit_are_refused_when_their_start_is_withdrawn() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "bank.debit", &("no number",));
    assert_eq!(wire.next(&mut world).code(), Some(Code::BadArguments));
    let mut world = rig.crash(world, 0);
    let (_, resumed, _) = resume(&mut world, &welcome, 1);
    assert_eq!(resumed.report(1), CellReport::Vacant);
}

#[test]
fn only_a_transactional_method_writes() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "kv.add", &(5u64,));
    wire.next(&mut world);
    wire.call(&mut world, 2, 0, "kv.smuggle", &());
    assert_eq!(wire.next(&mut world).code(), Some(Code::ApplicationError));
    assert_eq!(rig.sum(), 5);
}

#[test]
fn a_notification_of_a_transactional_method_commits_what_it_writes() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    let notify = |method: &str, n: u64| {
        let mut header = Header::new(Kind::Notify, 0);
        header.method = MethodId::of(method);
        let mut out = Vec::new();
        header.append(&codec::encode(&(n,)).expect("it encodes"), &mut out);
        out
    };
    wire.send(&mut world, &notify("kv.add", 5));
    world.until(|_| rig.sum() == 5);
    wire.send(&mut world, &notify("kv.fail", 1));
    wire.send(&mut world, &notify("kv.add", 2));
    world.until(|_| rig.sum() == 7);
}

#[test]
fn row_2_nothing_is_said_of_a_session_before_it_is_safe() {
    let rig = Rig::new();
    rig.delay.set(NEVER);
    let mut world = rig.serve();
    let mut wire = Wire::open(&mut world);
    wire.begin(&mut world, Kind::Hello, &plain_hello());
    assert!(wire.all(&mut world).is_empty());
    assert_eq!(world.stats().sessions, 1);
    // A second frame before the answer is against the rules, and opens no second session.
    wire.send(&mut world, &first_frame(Kind::Hello, &plain_hello())[8..]);
    let (_, frames) = wire.until_closed(&mut world);
    assert_eq!(frames[0].code(), Some(Code::Protocol));
    assert_eq!(world.stats().sessions, 1);
    check(&mut world);
}

#[test]
fn row_19b_a_raised_incarnation_is_safe_before_the_client_is_told() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    wire.call(&mut world, 1, 0, "kv.add", &(5u64,));
    wire.next(&mut world);
    rig.delay.set(Duration::from_millis(30));
    let raised = Resume { incarnation: 1, ..plain_resume(&welcome, 0, 0) };
    let mut back = Wire::open(&mut world);
    back.begin(&mut world, Kind::Resume, &raised);
    assert!(wire.is_closed(&mut world), "the old incarnation goes at once");
    let frames = back.wait(&mut world, 2);
    assert_eq!((frames[0].header.kind, frames[1].number()), (Kind::Resumed, 5));
    let mut world = rig.crash(world, 0);
    let mut old = Wire::resume(&mut world, &welcome, 9, 0);
    assert_eq!(old.next(&mut world).code(), Some(Code::Fenced));
}

#[test]
fn row_20_that_a_session_is_over_is_told_when_it_is_safe() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    rig.delay.set(Duration::from_millis(30));
    wire.send(&mut world, &frame(Kind::Bye, 0, &[]));
    let mut back = Wire::resume(&mut world, &welcome, 1, 0);
    let (_, frames) = back.until_closed(&mut world);
    assert_eq!(frames[0].code(), Some(Code::SessionUnknown));
    assert_eq!(rig.disk.log().ledger().sessions().count(), 0);
    check(&mut world);
}

#[test]
fn row_24_when_the_store_fails_every_connection_closes_and_the_program_is_told() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, welcome) = Wire::hello(&mut world, Order::Unordered);
    let (mut other, _) = Wire::hello(&mut world, Order::Unordered);
    rig.delay.set(NEVER);
    wire.call(&mut world, 1, 0, "kv.add", &(5u64,));
    rig.disk.fail("no space left");
    wire.call(&mut world, 2, 0, "kv.add", &(5u64,));
    for wire in [&mut wire, &mut other] {
        let (_, frames) = wire.until_closed(&mut world);
        assert!(frames.is_empty(), "{frames:?}");
    }
    assert_eq!(*rig.failures.borrow(), ["no space left"]);
    world.settle();
    assert_eq!((rig.failures.borrow().len(), world.stats().connections), (1, 0));
    let mut world = rig.crash(world, 1);
    let (_, resumed, _) = resume(&mut world, &welcome, 1);
    assert_eq!([1, 2].map(|seq| resumed.report(seq)), [CellReport::Finished, CellReport::Vacant]);
}

#[test]
fn a_drain_waits_until_what_has_run_is_safe() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (mut wire, _) = Wire::hello(&mut world, Order::Unordered);
    rig.delay.set(Duration::from_millis(100));
    wire.call(&mut world, 1, 0, "kv.add", &(5u64,));
    let unfinished = Rc::new(Cell::new(None));
    let told = Rc::clone(&unfinished);
    let server = world.server;
    server.drain(world.reactor.registry(), Duration::from_secs(10), move |drained, _| {
        told.set(Some(drained.unfinished));
    });
    let frames = wire.wait(&mut world, 2);
    assert_eq!((frames[0].header.kind, frames[1].number()), (Kind::GoAway, 5));
    drop(wire);
    world.until(|_| unfinished.get().is_some());
    assert_eq!(unfinished.get(), Some(0));
}

#[test]
fn a_transactional_method_needs_a_store() {
    let mut reactor = Reactor::<App>::new().expect("a reactor");
    for builder in [methods(Builder::new()), methods(Builder::new()).store(Volatile)] {
        let error = builder.start(reactor.registry()).expect_err("there is no store");
        assert!(matches!(&error, ListenError::NoStore(name) if name == "kv.add"), "{error}");
        assert!(error.to_string().contains("Builder::store"), "{error}");
    }
}

#[test]
fn a_lease_that_a_crash_left_ends_in_time() {
    let rig = Rig::new();
    let mut world = rig.serve();
    let (wire, _) = Wire::hello(&mut world, Order::Unordered);
    drop((wire, world));
    rig.disk.crash(0);
    let mut limits = Limits::default();
    limits.unused_lease = Duration::from_millis(20);
    let mut world = World::built(limits, |builder| methods(builder).store(rig.disk.open()));
    assert_eq!(world.stats().sessions, 1);
    world.until(|world| world.stats().sessions == 0);
    world.until(|_| rig.disk.log().ledger().sessions().count() == 0);
}
