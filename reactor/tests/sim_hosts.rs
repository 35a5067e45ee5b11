//! Simulated hosts: clocks, timers, entropy, jobs, stalls, lives; and that a seed is a run.

mod simulated;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use onceloop_reactor::sim::{Fault, Faults, KillMode, Simulation, Step};
use onceloop_reactor::{Cx, JobPanicked};
use simulated::{MINUTE, Pair, Record, SECOND, boxed, pattern, reactor};

/// A run of the echo with everything that can go wrong: its trace's hash, and its lines.
fn run(seed: u64) -> (u64, Vec<String>) {
    let mut pair = Pair::new(seed, Faults::drawn(seed), true);
    let lines = Rc::new(RefCell::new(Vec::new()));
    let shared = Rc::clone(&lines);
    pair.simulation.world().trace(move |line| shared.borrow_mut().push(line.to_string()));
    for _ in 0..20 {
        pair.send(5_000);
        pair.simulation.run_for(SECOND);
    }
    let hash = pair.simulation.world().trace_hash();
    let lines = lines.borrow().clone();
    (hash, lines)
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    for seed in 0..20 {
        let (first, again) = (run(seed), run(seed));
        assert!(first == again, "seed {seed}");
        assert!(first.1.len() > 50);
        assert_ne!(first.0, run(seed + 1_000).0);
    }
}

#[test]
fn the_trace_reads_well_and_its_hash_is_kept_without_a_reader() {
    let mut pair = Pair::new(1, Faults::none(), true);
    let lines = Rc::new(RefCell::new(Vec::new()));
    let shared = Rc::clone(&lines);
    let world = pair.simulation.world().clone();
    world.trace(move |line| shared.borrow_mut().push(line.to_string()));
    pair.client.note("says hello");
    pair.send(3);
    pair.simulation.run_for(SECOND);
    let lines = lines.borrow();
    let has = |text: &str| lines.iter().any(|line| line.ends_with(text));
    for text in [
        "client     says hello",
        "connects to 10.0.0.1:80: connection 2",
        "accepts connection 2",
        "connection 2 is established",
        "writes 3 bytes to connection 2",
        "3 bytes arrive on connection 2",
    ] {
        assert!(has(text), "no line ends with {text:?}: {lines:#?}");
    }
    // Without a reader the hash is the same, and what is noted is part of it.
    let run = |note: &str| {
        let mut pair = Pair::new(1, Faults::none(), true);
        pair.client.note(note);
        pair.send(3);
        pair.simulation.run_for(SECOND);
        pair.simulation.world().trace_hash()
    };
    assert_eq!(run("says hello"), world.trace_hash());
    assert_ne!(run("says goodbye"), world.trace_hash());
}

/// Runs a timer of an hour on a host and returns the true time it took.
fn timer(set: impl FnOnce(&mut Simulation)) -> Duration {
    let mut simulation = Simulation::new(9, Faults::none());
    let host = simulation.world().host("a");
    let fired = Rc::new(Cell::new(None::<(Instant, Instant)>));
    let shared = Rc::clone(&fired);
    simulation.add(host.clone(), move |host| {
        let (mut reactor, shared) = (reactor(host), Rc::clone(&shared));
        let armed_at = reactor.registry().now();
        reactor.registry().after(3_600 * SECOND, move |cx| {
            shared.set(Some((armed_at, cx.registry.now())));
        });
        boxed(reactor)
    });
    set(&mut simulation);
    assert!(simulation.run_until(3 * 3_600 * SECOND, |_| fired.get().is_some()));
    let (armed_at, fired_at) = fired.get().expect("it has fired");
    let shown = fired_at - armed_at;
    assert!(shown >= 3_600 * SECOND, "never early by its own clock: {shown:?}");
    simulation.world().now()
}

#[test]
fn timers_keep_to_the_clock_of_their_host() {
    let exact = timer(|_| {});
    assert!((0..100).contains(&(exact - 3_600 * SECOND).as_micros()), "{exact:?}");
    let fast = timer(|simulation| simulation.world().host("a").drift(20_000));
    assert_eq!(fast.as_secs(), 3_529, "3600 / 1.02");
    let slow = timer(|simulation| simulation.world().host("a").drift(-20_000));
    assert_eq!(slow.as_secs(), 3_673, "3600 / 0.98");
    let leapt = timer(|simulation| simulation.world().host("a").leap(1_000 * SECOND));
    assert_eq!(leapt.as_secs(), 2_600);
    let stalled = timer(|simulation| simulation.world().host("a").stall(4_000 * SECOND));
    assert_eq!(stalled.as_secs(), 4_000);
}

#[test]
fn clocks_of_hosts_differ_and_faults_make_them_drift_and_leap() {
    let mut faults = Faults::none();
    faults.drift_ppm_max = 50_000;
    faults.leaps_every = 10 * SECOND;
    let mut pair = Pair::new(3, faults, false);
    let (server, client) = (pair.server.clone(), pair.client.clone());
    assert_ne!(server.now(), client.now());
    let (at_server, at_client) = (server.now(), client.now());
    let mut last = at_server;
    for _ in 0..100 {
        pair.simulation.run_for(SECOND);
        let now = server.now();
        assert!(now > last, "monotonic");
        last = now;
    }
    let passed = (server.now() - at_server, client.now() - at_client);
    assert_ne!(passed.0, passed.1);
    let tally = pair.simulation.world().tally();
    assert_eq!(tally.of(Fault::ClockDrift), 2);
    assert!(tally.of(Fault::ClockLeap) > 3);
}

#[test]
fn a_job_runs_at_once_and_its_end_comes_later() {
    let mut pair = Pair::new(1, Faults::none(), false);
    let log = Rc::new(RefCell::new(Vec::new()));
    let here = std::thread::current().id();
    let shared = Rc::clone(&log);
    let job = move || std::thread::current().id() == here;
    let done = move |result: Result<bool, _>, _: &mut Cx<'_, ()>| {
        shared.borrow_mut().push(result.unwrap());
    };
    pair.registry().offload(job, done).unwrap();
    assert!(log.borrow().is_empty());
    pair.simulation.run_for(SECOND);
    assert_eq!(*log.borrow(), [true], "on this thread");

    let shared = Rc::new(Cell::new(false));
    let told = Rc::clone(&shared);
    let panics = || -> u8 { std::panic::resume_unwind(Box::new("a job's own")) };
    let done = move |result: Result<u8, JobPanicked>, _: &mut Cx<'_, ()>| {
        told.set(result.unwrap_err().message() == "a job's own");
    };
    pair.registry().offload(panics, done).unwrap();
    pair.simulation.run_for(SECOND);
    assert!(shared.get());
}

#[test]
fn jobs_are_bounded_as_on_a_real_loop() {
    let mut pair = Pair::new(1, Faults::none(), false);
    let registry = pair.registry();
    let taken = (0..2_000).take_while(|_| registry.offload(|| (), |_, _| {}).is_ok()).count();
    assert_eq!(taken, 4 + 1_024, "threads and queue of Config::simulated");
    pair.simulation.run_for(SECOND);
    assert!(pair.registry().offload(|| (), |_, _| {}).is_ok(), "there is room again");
}

#[test]
fn posted_tasks_run_in_the_world() {
    let mut pair = Pair::new(1, Faults::none(), false);
    let remote = pair.registry().remote();
    remote.post(|cx| cx.registry.stop()).unwrap();
    let mut exited = false;
    for _ in 0..100 {
        exited |= pair.simulation.step() == Step::Exited(pair.client.clone());
    }
    assert!(exited && !pair.client.is_up());
    assert!(remote.post(|_| {}).is_err(), "its reactor is gone");
}

#[test]
fn entropy_is_of_the_seed_and_of_the_host() {
    let bytes = |seed: u64, name: &str| {
        let simulation = Simulation::new(seed, Faults::none());
        let mut reactor = reactor(&simulation.world().host(name));
        let mut bytes = [0; 20];
        reactor.registry().random_bytes(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(bytes(1, "a"), bytes(1, "a"));
    assert_ne!(bytes(1, "a"), bytes(1, "b"));
    assert_ne!(bytes(1, "a"), bytes(2, "a"));
}

#[test]
fn killed_hosts_are_started_anew_and_the_exempt_are_spared() {
    let mut faults = Faults::none();
    faults.kills_every = 2 * SECOND;
    let mut pair = Pair::new(1, faults, true);
    let (server, client) = (pair.server.clone(), pair.client.clone());
    let (mut killed, mut booted) = (0, 0);
    while pair.simulation.world().now() < 5 * MINUTE {
        match pair.simulation.step() {
            Step::Killed(host, _) => {
                assert_eq!(host, server, "the client is exempt");
                assert!(!server.is_up());
                killed += 1;
            }
            Step::Booted(host) => {
                assert_eq!(host, server);
                assert!(server.is_up());
                booted += 1;
            }
            _ => {}
        }
        assert!(client.is_up());
    }
    assert!(killed > 20 && (killed == booted || killed == booted + 1), "{killed} {booted}");
    let tally = pair.simulation.world().tally();
    let by_mode = [tally.of(Fault::KillMachine), tally.of(Fault::KillProcess)];
    assert_eq!(by_mode.iter().sum::<u64>(), killed);
    assert!(by_mode.iter().all(|&count| count > 5), "{by_mode:?}");
    // Healed, it is up at once and serves.
    pair.simulation.kill(&server, KillMode::Machine);
    pair.simulation.world().set_faults(Faults::none());
    pair.simulation.world().heal();
    let again = pair.send(1_000);
    pair.simulation.run_for(5 * SECOND);
    assert_eq!(again.borrow().received.len(), 1_000);
}

#[test]
fn a_stalled_host_catches_up() {
    let mut faults = Faults::none();
    faults.stalls_every = SECOND;
    let mut pair = Pair::new(1, faults, true);
    let client = pair.send(1_000);
    pair.simulation.run_for(MINUTE);
    assert!(pair.simulation.world().tally().of(Fault::Stall) > 20);
    assert!(client.borrow().received == pattern(1_000));

    let mut pair = Pair::new(1, Faults::none(), true);
    let server = pair.server.clone();
    server.stall(MINUTE);
    let client = pair.send(1_000);
    pair.simulation.run_for(59 * SECOND);
    assert_eq!((client.borrow().is_connected, client.borrow().unwritten), (true, 0));
    assert!(pair.accepted.borrow().is_empty(), "its system answers, its process does not");
    pair.simulation.run_for(2 * SECOND);
    assert!(client.borrow().received == pattern(1_000));
}

#[test]
fn nothing_left_to_do_is_idle() {
    let mut pair = Pair::new(1, Faults::none(), true);
    pair.dial(Record { leaves: true, ..Record::default() });
    let mut steps = 0;
    while pair.simulation.step() != Step::Idle {
        steps += 1;
        assert!(steps < 100);
    }
    assert!(steps > 5);
    assert!(!pair.simulation.run_for(SECOND), "nothing is to happen");
}

#[test]
#[should_panic = "a simulated reactor is run by its Simulation"]
fn a_simulated_reactor_does_not_run_by_itself() {
    let simulation = Simulation::new(1, Faults::none());
    let _ = reactor(&simulation.world().host("a")).run(&mut ());
}

#[test]
#[should_panic = "a simulated reactor has no descriptor"]
fn a_simulated_reactor_has_no_descriptor() {
    use std::os::fd::AsFd;
    let simulation = Simulation::new(1, Faults::none());
    let _ = reactor(&simulation.world().host("a")).as_fd();
}
