//! Many seeds, and what they come to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use onceloop::reactor::sim::Tally;
use serde::Serialize;

use crate::oracle::Kind;
use crate::{Sabotage, Verdict, Work, run};

/// Failures that are told in full; the others are only counted.
const FAILURES_MAX: usize = 20;

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Seeds that ran.
    pub seeds: u64,
    /// Calls of all of them.
    pub calls: u64,
    /// The fewest calls of a seed.
    pub calls_min: u64,
    /// How often each kind of fault struck.
    pub faults: Tally,
    /// Protected calls that took effect twice.
    pub double_executions: u64,
    /// Effects and continuations that were lost.
    pub lost: u64,
    /// Callers that were told what is not so.
    pub wrong_replies: u64,
    /// Callers that were not told in time.
    pub unresolved: u64,
    /// Panics and other failures that no caller saw.
    pub broken: u64,
    /// Seeds in which something was violated.
    pub failed: u64,
    /// What was done in all of them.
    pub work: Work,
    /// Steps of the simulation.
    pub steps: u64,
    /// Seconds that the seeds took in the time of this machine, and in theirs.
    pub seconds: f64,
    /// See `seconds`.
    pub simulated_seconds: f64,
    /// The hash of each seed's trace.
    pub trace_hashes: BTreeMap<u64, u64>,
    /// The first failures, by seed.
    pub failures: Vec<Verdict>,
}

impl Report {
    fn add(&mut self, verdict: Verdict) {
        self.calls_min =
            if self.seeds == 0 { verdict.calls } else { self.calls_min.min(verdict.calls) };
        self.seeds += 1;
        self.calls += verdict.calls;
        self.trace_hashes.insert(verdict.seed, verdict.trace_hash);
        self.faults += &verdict.faults;
        self.work += &verdict.work;
        self.steps += verdict.steps;
        self.simulated_seconds += verdict.time.as_secs_f64();
        for violation in &verdict.violations {
            *match violation.kind {
                Kind::Broken => &mut self.broken,
                Kind::DoubleExecution => &mut self.double_executions,
                Kind::Lost => &mut self.lost,
                Kind::Unresolved => &mut self.unresolved,
                Kind::WrongReply => &mut self.wrong_replies,
            } += 1;
        }
        if !verdict.violations.is_empty() {
            self.failed += 1;
            self.failures.push(verdict);
            self.failures.sort_by_key(|failure| failure.seed);
            self.failures.truncate(FAILURES_MAX);
        }
    }

    /// Returns the report in the form in which other programs read it.
    pub fn summary(&self) -> Summary {
        Summary {
            seeds: self.seeds,
            calls: self.calls,
            faults: self.faults.iter().map(|(fault, count)| (fault.name(), count)).collect(),
            double_executions: self.double_executions,
            lost: self.lost,
            wrong_replies: self.wrong_replies,
            unresolved: self.unresolved,
            broken: self.broken,
            failed: self.failed,
            seconds: self.seconds,
        }
    }
}

/// A [`Report`] as JSON has it.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "they are those of the report")]
#[non_exhaustive]
pub struct Summary {
    pub seeds: u64,
    pub calls: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub double_executions: u64,
    pub lost: u64,
    pub wrong_replies: u64,
    pub unresolved: u64,
    pub broken: u64,
    pub failed: u64,
    pub seconds: f64,
}

/// Runs all of these seeds on so many threads. Each seed runs on one of them, and is the same
/// whichever that is.
pub fn run_all(seeds: Range<u64>, jobs: usize, sabotage: Sabotage) -> Report {
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let (sender, verdicts) = mpsc::channel();
    let mut report = Report::default();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let sender = sender.clone();
            let (next, seeds) = (&next, &seeds);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) || sender.send(run(seed, sabotage, None)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for verdict in verdicts {
            report.add(verdict);
        }
    });
    report.seconds = begun.elapsed().as_secs_f64();
    report
}
