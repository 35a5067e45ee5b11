//! Every mutant's patch applies to the sources as they are, and no mistake is missing.

use std::path::Path;

use onceloop_mutants::tree::ROOT;
use onceloop_mutants::{Check, List, run};

/// The mistakes that the project's own tests must catch, each on its own.
const MISTAKES: [&str; 28] = [
    "floor not persisted at compaction",
    "unknown session re-created",
    "reply before commit",
    "effect not atomic with COMPLETE",
    "unacked reply evicted",
    "ack before the client's journal",
    "seq reused after a client crash, digest compared",
    "seq reused after a client crash, digest not compared",
    "BUSY consuming the cell",
    "duplicate of a Pending call run again",
    "digest not compared",
    "incarnation not fenced",
    "incarnation not persisted",
    "ack looping by distance",
    "lease counted while attached",
    "STALE executed",
    "decoded batch run after RESUME",
    "REQUEST sent before RESUMED",
    "reply of a Pending call lost after a reconnect",
    "N taken as NotExecuted with two copies out",
    "join taken as proof",
    "START after the handler",
    "row 18 without F",
    "burn acked but not journaled",
    "InDoubt reported vacant",
    "completion found by index",
    "a read of an uncommitted effect answered",
    "a long frame not moved to the front before the rest is read",
];

fn list() -> List {
    List::read(Path::new(ROOT)).expect("the list reads")
}

#[test]
fn every_patch_applies() {
    let root = Path::new(ROOT);
    for mutant in &list().mutants {
        let files = mutant.apply(root).unwrap_or_else(|error| panic!("{error:#}"));
        for (name, content) in files {
            let original = std::fs::read_to_string(root.join(&name)).expect("it was read before");
            assert_ne!(original, content, "{}: nothing is changed", mutant.name);
        }
        assert!(!mutant.checks.is_empty(), "{}: nobody looks for it", mutant.name);
    }
}

#[test]
fn every_mistake_is_made() {
    let list = list();
    let made: Vec<_> = list.mutants.iter().map(|mutant| &*mutant.mistake).collect();
    assert_eq!(made, MISTAKES);
}

#[test]
fn each_check_runs_once_without_a_mutant() {
    let list = list();
    let checks = run::distinct(&list.mutants.iter().collect::<Vec<_>>());
    for (i, check) in checks.iter().enumerate() {
        assert!(!checks[..i].contains(check), "{check:?} twice");
    }
    for check in list.mutants.iter().flat_map(|mutant| &mutant.checks) {
        let covers = |other: &Check| match (check, other) {
            (Check::Sim(seeds), Check::Sim(most)) => seeds <= most,
            _ => check == other,
        };
        assert!(checks.iter().any(covers), "{check:?} is not run");
    }
}
