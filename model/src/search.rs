//! Breadth-first search through all that a system can do.
//!
//! Every state that can be reached is visited once; states are told apart by a hash of 64 bits, so
//! that of 10⁷ states two are confused with a chance of 3 · 10⁻⁶. What is found first is found by the
//! fewest steps. Of the states only a level is held at a time; of the others their hash, and by which
//! step they were reached, from which the way to a violation is made again.
//!
//! Source of the method: Clarke, Grumberg, Peled, *Model Checking* (1999), as in Spin's and TLC's
//! breadth-first mode; the hash compaction is Wolper's and Leroy's (1993).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// Something that can be in one of many states and takes steps between them.
pub trait System: Clone + Send + Sync {
    /// One step: what happens next.
    type Action: Clone + Debug + Send;

    /// Lists the steps that may come next.
    fn actions(&self, out: &mut Vec<Self::Action>);

    /// Takes a step.
    ///
    /// # Errors
    /// What must never be, if this step brought it about.
    fn apply(&mut self, action: &Self::Action) -> Result<(), String>;

    /// Returns a hash of all that can tell this state from another.
    fn fingerprint(&self) -> u64;
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// The search ends when so many states were visited, at the end of a level.
    pub states_max: usize,
    /// Threads that work on a level.
    pub threads: usize,
}

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Different states that were visited.
    pub states: usize,
    /// Steps that were taken.
    pub transitions: usize,
    /// Steps from the beginning to the last level.
    pub depth: usize,
    /// Whether every reachable state was visited.
    pub is_complete: bool,
    /// The shortest way to something that must not be.
    pub violation: Option<Violation>,
}

/// What must not be, and how it comes about.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What was violated.
    pub what: String,
    /// The steps, the last of which brings it about.
    pub steps: Vec<String>,
}

/// A state's predecessor, and which of its steps led here.
#[derive(Clone, Copy)]
struct Origin {
    parent: u64,
    step: u32,
}

type Visited = HashMap<u64, Origin, BuildHasherDefault<Fingerprint>>;

/// Fingerprints are hashes already.
#[derive(Default)]
struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// States that one thread has found, with where they come from.
struct Found<S> {
    next: Vec<(u64, Origin, S)>,
    transitions: usize,
    violation: Option<(u64, u32, String)>,
}

/// Visits every state that can be reached from `start`, level by level, until one violates
/// something, none is left or `extent` is reached.
///
/// # Panics
/// If there are 2³² steps in one state.
pub fn search<S: System>(start: &S, extent: Extent) -> Findings {
    let first = start.fingerprint();
    let mut visited = Visited::default();
    visited.insert(first, Origin { parent: first, step: 0 });
    let mut level = vec![(first, start.clone())];
    let mut findings =
        Findings { states: 1, transitions: 0, depth: 0, is_complete: false, violation: None };
    loop {
        let found = expand_level(&level, &visited, extent.threads);
        let mut next = Vec::new();
        let mut broken = None;
        for part in found {
            findings.transitions += part.transitions;
            broken = broken.or(part.violation);
            for (fingerprint, origin, state) in part.next {
                if let Entry::Vacant(entry) = visited.entry(fingerprint) {
                    entry.insert(origin);
                    next.push((fingerprint, state));
                }
            }
        }
        findings.states = visited.len();
        if let Some((parent, step, what)) = broken {
            let mut origins = way_to(parent, &visited);
            origins.push(step);
            findings.depth += 1;
            findings.violation = Some(Violation { what, steps: walk(start, &origins) });
            return findings;
        }
        if next.is_empty() {
            findings.is_complete = true;
            return findings;
        }
        findings.depth += 1;
        if findings.states >= extent.states_max {
            return findings;
        }
        level = next;
    }
}

fn expand_level<S: System>(level: &[(u64, S)], visited: &Visited, threads: usize) -> Vec<Found<S>> {
    let share = level.len().div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> =
            level.chunks(share).map(|part| scope.spawn(move || expand(part, visited))).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Found<S>>| {
            worker.join().expect("what a step panics with is caught")
        };
        workers.into_iter().map(join).collect()
    })
}

fn expand<S: System>(part: &[(u64, S)], visited: &Visited) -> Found<S> {
    let mut found = Found { next: Vec::new(), transitions: 0, violation: None };
    let mut new = Visited::default();
    let mut actions = Vec::new();
    for (parent, state) in part {
        actions.clear();
        state.actions(&mut actions);
        for (step, action) in actions.iter().enumerate() {
            let step = u32::try_from(step).expect("a state has few steps");
            found.transitions += 1;
            match attempt(state, action) {
                Err(what) => {
                    found.violation = Some((*parent, step, what));
                    return found;
                }
                Ok(next) => {
                    let fingerprint = next.fingerprint();
                    if visited.contains_key(&fingerprint) {
                        continue;
                    }
                    if let Entry::Vacant(entry) = new.entry(fingerprint) {
                        let origin = Origin { parent: *parent, step };
                        entry.insert(origin);
                        found.next.push((fingerprint, origin, next));
                    }
                }
            }
        }
    }
    found
}

/// Takes a step on a copy. An assertion that fails in the code under test is a violation, too.
fn attempt<S: System>(state: &S, action: &S::Action) -> Result<S, String> {
    let mut next = state.clone();
    let result = catch_unwind(AssertUnwindSafe(|| next.apply(action)));
    match result {
        Ok(Ok(())) => Ok(next),
        Ok(Err(what)) => Err(what),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(format!("an assertion failed: {}", text.unwrap_or_default()))
        }
    }
}

/// Returns the steps that lead from the beginning to a state.
fn way_to(mut fingerprint: u64, visited: &Visited) -> Vec<u32> {
    let mut steps = Vec::new();
    loop {
        let origin = visited[&fingerprint];
        if origin.parent == fingerprint {
            steps.reverse();
            return steps;
        }
        steps.push(origin.step);
        fingerprint = origin.parent;
    }
}

/// Goes a way again, and tells each step.
fn walk<S: System>(start: &S, way: &[u32]) -> Vec<String> {
    let mut state = start.clone();
    let mut told = Vec::new();
    let mut actions = Vec::new();
    for &step in way {
        actions.clear();
        state.actions(&mut actions);
        let action = actions[step as usize].clone();
        told.push(format!("{action:?}"));
        if let Ok(next) = attempt(&state, &action) {
            state = next;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two jugs of three and five litres; four litres must not be.
    #[derive(Clone)]
    struct Jugs([u64; 2], u64);

    impl System for Jugs {
        type Action = &'static str;

        fn actions(&self, out: &mut Vec<&'static str>) {
            out.extend(["fill 3", "fill 5", "empty 3", "empty 5", "3 into 5", "5 into 3"]);
        }

        fn apply(&mut self, action: &&'static str) -> Result<(), String> {
            let [three, five] = &mut self.0;
            match *action {
                "fill 3" => *three = 3,
                "fill 5" => *five = 5,
                "empty 3" => *three = 0,
                "empty 5" => *five = 0,
                "3 into 5" => {
                    let poured = (*three).min(5 - *five);
                    (*three, *five) = (*three - poured, *five + poured);
                }
                _ => {
                    let poured = (*five).min(3 - *three);
                    (*three, *five) = (*three + poured, *five - poured);
                }
            }
            assert_ne!(*five, self.1, "so many litres");
            Ok(())
        }

        fn fingerprint(&self) -> u64 {
            self.0[0] << 32 | self.0[1]
        }
    }

    const EXTENT: Extent = Extent { states_max: 1_000, threads: 2 };

    #[test]
    fn the_shortest_way_is_found_and_can_be_gone() {
        let findings = search(&Jugs([0, 0], 4), EXTENT);
        let violation = findings.violation.expect("four litres can be had");
        assert!(violation.what.contains("so many litres"), "{}", violation.what);
        let way = ["fill 5", "5 into 3", "empty 3", "5 into 3", "fill 5", "5 into 3"];
        assert_eq!(violation.steps, way.map(|step| format!("{step:?}")));
    }

    #[test]
    fn every_state_is_visited_once() {
        let findings = search(&Jugs([0, 0], 6), EXTENT);
        assert!(findings.is_complete && findings.violation.is_none());
        // One jug is full or empty in each.
        assert_eq!((findings.states, findings.transitions), (16, 16 * 6));
    }
}
