//! Many seeds, and what they come to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use onceloop::reactor::sim::Tally;
use serde::Serialize;

use crate::oracle::Kind;
use crate::{Sabotage, Verdict, Work, run};

/// Failures that are told in full; the others are only counted.
const FAILURES_MAX: usize = 20;
/// A seed that takes longer hangs: most take some hundredths of a second.
const SEED_TIME_MAX: Duration = Duration::from_secs(30);

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
            failures: self.failures.iter().filter_map(Failure::of).collect(),
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
    pub failures: Vec<Failure>,
    pub seconds: f64,
}

/// What was violated first in a seed.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "they are those of the verdict")]
#[non_exhaustive]
pub struct Failure {
    pub seed: u64,
    pub what: String,
}

impl Failure {
    fn of(verdict: &Verdict) -> Option<Failure> {
        let first = verdict.violations.first()?;
        Some(Failure { seed: verdict.seed, what: format!("{:?}: {}", first.kind, first.what) })
    }
}

/// Runs all of these seeds on so many threads. Each seed runs on one of them, and is the same
/// whichever that is.
pub fn run_all(seeds: Range<u64>, jobs: usize, sabotage: Sabotage) -> Report {
    run_while(seeds, jobs, sabotage, |_| true)
}

/// The same, but no further seed begins once something is violated in one.
pub fn run_until_failure(seeds: Range<u64>, jobs: usize, sabotage: Sabotage) -> Report {
    run_while(seeds, jobs, sabotage, |report| report.failed == 0)
}

fn run_while(
    seeds: Range<u64>,
    jobs: usize,
    sabotage: Sabotage,
    goes_on: impl Fn(&Report) -> bool,
) -> Report {
    let begun = Instant::now();
    let (first, end) = (seeds.start, seeds.end);
    let next = Arc::new(AtomicU64::new(first));
    let (sender, told) = mpsc::channel();
    for _ in 0..jobs.max(1) {
        let sender = sender.clone();
        let next = Arc::clone(&next);
        // Not a scope's: one that hangs is left behind.
        thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let is_over = !(first..end).contains(&seed);
                if is_over || sender.send(Told::Begun(seed)).is_err() {
                    return;
                }
                let verdict = run(seed, sabotage, None);
                if sender.send(Told::Ended(Box::new(verdict))).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut report = Report::default();
    let mut running = BTreeMap::new();
    loop {
        match told.recv_timeout(SEED_TIME_MAX / 10) {
            Ok(Told::Begun(seed)) => {
                running.insert(seed, Instant::now());
            }
            Ok(Told::Ended(verdict)) => {
                running.remove(&verdict.seed);
                report.add(*verdict);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if let Some((&seed, _)) = running.iter().find(|(_, at)| at.elapsed() > SEED_TIME_MAX) {
            report.add(Verdict::endless(seed));
            break;
        }
        if !goes_on(&report) {
            next.store(end, Ordering::Relaxed);
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    report
}

/// What a thread tells of its seeds.
enum Told {
    Begun(u64),
    Ended(Box<Verdict>),
}
