//! A small dose of what `onceloop sim` does, and that its oracle finds what is wrong.

use std::cell::RefCell;
use std::rc::Rc;

use onceloop_sim::{Report, Sabotage, run, run_all, run_until_failure};

/// The least number of calls of a seed.
const CALLS_MIN: u64 = 100;

#[track_caller]
fn assert_well(report: &Report) {
    let told: Vec<_> = report.failures.iter().map(|seed| (seed.seed, &seed.violations)).collect();
    assert_eq!(report.failed, 0, "{told:#?}");
}

#[test]
fn promises_hold_in_200_seeds_and_each_runs_alike_twice() {
    let first = run_all(0..200, 2, Sabotage::None);
    assert_well(&first);
    assert_eq!(first.seeds, 200);
    assert!(first.calls_min >= CALLS_MIN, "{}", first.calls_min);
    for (fault, count) in first.faults.iter() {
        assert!(count > 0, "no {fault} in 200 seeds");
    }
    let work = &first.work;
    assert!(work.blind_doubles > 0, "calls without protection run twice, or nothing is tested");
    assert!(
        work.recovered > 30
            && work.stores_failed > 30
            && work.replayed > 100
            && work.resumed > 100
            && work.refused > 100
            && work.long > 100
            && work.too_large > 100,
        "{work:?}"
    );
    assert!(work.answered > 5 * work.indeterminate, "most calls end well: {work:?}");
    // On one thread, in another order: where and when a seed runs is no part of it.
    let second = run_all(0..200, 1, Sabotage::None);
    assert_eq!(first.trace_hashes, second.trace_hashes);
}

#[test]
fn seeds_differ() {
    let report = run_all(0..20, 2, Sabotage::None);
    let hashes: std::collections::BTreeSet<_> = report.trace_hashes.values().collect();
    assert_eq!(hashes.len(), 20);
}

#[test]
fn a_trace_shows_network_calls_and_verdict() {
    let lines = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&lines);
    let verdict = run(
        3,
        Sabotage::None,
        Some(Box::new(move |line| {
            sink.borrow_mut().push(line.to_string());
        })),
    );
    let lines = lines.borrow();
    for part in ["connects to", "client-1", "server-1", "runs call 0", "call 0 ended"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} is missing");
    }
    assert_eq!(verdict.trace_hash, run(3, Sabotage::None, None).trace_hash, "seen or not");
}

/// Each mistake, and where it is counted.
#[test]
fn the_oracle_finds_mistakes_and_counts_each_as_what_it_is() {
    let doubles: fn(&Report) -> u64 = |report| report.double_executions;
    let lost: fn(&Report) -> u64 = |report| report.lost;
    let unresolved: fn(&Report) -> u64 = |report| report.unresolved;
    let wrong: fn(&Report) -> u64 = |report| report.wrong_replies;
    for (sabotage, count) in [
        (Sabotage::BlindRetry, doubles),
        (Sabotage::EffectTwice, doubles),
        (Sabotage::ForgottenTable, doubles),
        (Sabotage::HastyStore, lost),
        (Sabotage::NoAnswer, unresolved),
        (Sabotage::NoEffect, lost),
        (Sabotage::OtherReply, wrong),
    ] {
        let report = run_all(0..40, 2, sabotage);
        let found = count(&report);
        assert!(found > 0, "{sabotage:?} was not found in {} seeds", report.seeds);
        let first = report.failures.first().expect("a seed that failed");
        let again = run(first.seed, sabotage, None);
        assert_eq!(again.violations, first.violations, "a failure is seen again by its seed");
    }
}

#[test]
fn no_seed_begins_after_a_failure_where_one_is_enough() {
    let report = run_until_failure(0..100_000, 2, Sabotage::EffectTwice);
    assert!(report.failed > 0 && report.seeds < 1_000, "{} seeds", report.seeds);
    let summary = report.summary();
    assert_eq!(summary.failures.len() as u64, report.failed);
    assert_eq!(summary.failures[0].seed, report.failures[0].seed);
    assert!(summary.failures[0].what.starts_with("DoubleExecution: "), "{:?}", summary.failures);
}
