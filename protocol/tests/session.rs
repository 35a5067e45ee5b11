//! Client sessions against the real table, over connections that break anywhere, in virtual time.
//!
//! Each seed is a run: calls of all kinds are made, refused, delayed and cancelled; connections are
//! cut between any two bytes, while what was on its way may still arrive; now and then the server
//! forgets everything. When the faults stop, every call must have been answered exactly once, and
//! what the answers claim must be true.

mod world;

use world::{Faults, Tally, World};

/// Runs `seeds` worlds and returns how often something worth testing happened in them.
fn run(seeds: std::ops::Range<u64>, faults: &Faults) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let mut world = World::new(seed, faults.clone());
        world.run();
        world.check();
        tally.add(&world.tally);
    }
    tally
}

#[test]
fn every_call_is_answered_once_and_truly() {
    let tally = run(0..600, &Faults { cuts: true, ..Faults::default() });
    assert!(tally.replies > 7_000 && tally.cuts > 1_000 && tally.resends > 1_000, "{tally:?}");
    assert!(tally.not_executed > 100 && tally.indeterminate > 10, "{tally:?}");
    assert!(tally.stale_frames > 50, "frames of replaced connections still arrived: {tally:?}");
}

#[test]
fn a_server_that_forgets_is_never_told_to_run_a_call_twice() {
    let faults = Faults { cuts: true, restarts: true, ..Faults::default() };
    let tally = run(1_000..1_300, &faults);
    assert!(tally.restarts > 150 && tally.indeterminate > 200, "{tally:?}");
}

#[test]
fn calls_in_order_run_in_order() {
    let faults = Faults { cuts: true, in_order: true, ..Faults::default() };
    let tally = run(2_000..2_200, &faults);
    assert!(tally.replies > 2_000, "{tally:?}");
}

#[test]
fn without_faults_every_call_succeeds() {
    let tally = run(3_000..3_100, &Faults { quiet: true, ..Faults::default() });
    assert_eq!((tally.not_executed, tally.indeterminate, tally.resends), (0, 0, 0), "{tally:?}");
    assert!(tally.replies > 1_000, "{tally:?}");
}

#[test]
fn hedged_calls_are_answered_once_and_truly() {
    let tally = run(4_000..4_400, &Faults { cuts: true, hedges: true, ..Faults::default() });
    assert!(tally.replies > 5_000 && tally.cuts > 1_000 && tally.hedges > 1_000, "{tally:?}");
}

#[test]
fn a_client_that_crashes_comes_back_as_the_same_and_runs_nothing_twice() {
    let faults = Faults { cuts: true, crashes: true, hedges: true, ..Faults::default() };
    let tally = run(5_000..5_300, &faults);
    assert!(tally.crashes > 500 && tally.recovered > 500, "{tally:?}");
    assert!(tally.replies > 1_500 && tally.not_executed > 50, "{tally:?}");
}

#[test]
fn both_ends_may_crash() {
    let faults = Faults { cuts: true, crashes: true, restarts: true, ..Faults::default() };
    let tally = run(6_000..6_200, &faults);
    assert!(tally.crashes > 300 && tally.restarts > 50 && tally.recovered > 300, "{tally:?}");
}

#[test]
fn a_client_that_crashes_keeps_its_order() {
    let faults = Faults { cuts: true, crashes: true, in_order: true, ..Faults::default() };
    let tally = run(7_000..7_200, &faults);
    assert!(tally.replies > 1_000 && tally.recovered > 300, "{tally:?}");
}
