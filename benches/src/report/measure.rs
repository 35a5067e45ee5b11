//! Measures what a report plans: run 1 of all that is compared, then run 2, and so on.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::HGRM;
use super::plan::{Group, Scope, Section, Trial};
use super::store::{Entry, Stored};
use crate::load;
use crate::options::{LoadKind, Options, ServerKind};
use crate::run::{Bench, Outcome};
use crate::slo::{self, Question};
use crate::stats::median;

/// What a run takes beside warm-up and measured time: processes are started, samples taken.
const RUN_OVERHEAD: Duration = Duration::from_millis(150);
/// What each connection adds: it is opened, calls once and is closed.
const CONNECTION_OVERHEAD: Duration = Duration::from_micros(90);
/// What the client library's load adds: it waits for its acknowledgements to be processed, twice.
const CLIENT_OVERHEAD: Duration = Duration::from_millis(600);
/// Connections of the question for the highest rate.
const SLO_CONNECTIONS: u32 = 10_000;
/// Rates that a search tries, as a rule.
const SLO_TRIES: u32 = 9;

/// A report on its way.
pub(crate) struct Measurement<'a> {
    bench: &'a Bench,
    folder: &'a Path,
    options: &'a Options,
    scope: &'a Scope,
    p999_us: u64,
    stored: Stored,
    /// How many of its rows are another report's. The others may be shown by every section that asks
    /// for the same work.
    old: usize,
    is_clean: bool,
    began: Instant,
    /// What is done and what there is in all, as estimated before it began.
    done: Duration,
    all: Duration,
}

impl<'a> Measurement<'a> {
    pub(crate) fn new(
        bench: &'a Bench,
        folder: &'a Path,
        options: &'a Options,
        scope: &'a Scope,
        p999_us: u64,
        stored: Stored,
    ) -> Measurement<'a> {
        Measurement {
            bench,
            folder,
            options,
            scope,
            p999_us,
            old: stored.rows.len(),
            stored,
            is_clean: true,
            began: Instant::now(),
            done: Duration::ZERO,
            all: Duration::ZERO,
        }
    }

    /// Measures the sections; writes rows after each group and the pages after each section.
    /// Returns whether there was no error.
    pub(crate) fn all(&mut self, sections: &[Section]) -> Result<bool> {
        self.estimate(sections);
        for place in 0..self.stored.sections.len() {
            let part = self.stored.sections[place].part.clone();
            if !sections.contains(&part.section) {
                continue;
            }
            for group in &part.groups {
                self.group(part.section, group);
                self.stored.save(self.folder)?;
            }
            if part.section == Section::Slo {
                self.slo();
            }
            self.stored.sections[place].is_complete = true;
            self.stored.save(self.folder)?;
            super::write(&self.stored, self.folder)?;
        }
        Ok(self.is_clean)
    }

    /// Says how long all will take.
    fn estimate(&mut self, sections: &[Section]) {
        let mut counted: Vec<&Trial> = Vec::new();
        let mut runs = 0;
        for made in self.stored.sections.iter().filter(|m| sections.contains(&m.part.section)) {
            for trial in made.part.groups.iter().flat_map(|group| &group.trials) {
                if !counted.iter().any(|other| other.is_same(trial)) {
                    self.all += self.takes(trial) * self.options.runs;
                    runs += self.options.runs;
                    counted.push(trial);
                }
            }
        }
        if sections.contains(&Section::Slo) {
            self.all += self.slo_takes() * u32::try_from(self.own().count()).unwrap_or(1);
        }
        eprintln!(
            "report: {} of {} s each, about {} in all",
            if runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") },
            self.options.seconds,
            minutes(self.all)
        );
    }

    /// Returns about how long one run of a trial takes.
    fn takes(&self, trial: &Trial) -> Duration {
        let Ok(options) = trial.options(&[]) else { return Duration::ZERO };
        let connections = (options.connections + options.idle).min(self.scope.most);
        let client =
            if options.load == LoadKind::Client { CLIENT_OVERHEAD } else { Duration::ZERO };
        load::takes(self.options.seconds)
            + RUN_OVERHEAD
            + CONNECTION_OVERHEAD * connections
            + client
    }

    fn group(&mut self, section: Section, group: &Group) {
        let is_known =
            |trial: &&Trial| self.stored.rows[self.old..].iter().any(|e| e.asked.is_same(trial));
        let (known, new): (Vec<&Trial>, Vec<&Trial>) = group.trials.iter().partition(is_known);
        for entry in &mut self.stored.rows[self.old..] {
            let is_shared = known.iter().any(|trial| trial.is_same(&entry.asked));
            if is_shared && !entry.sections.contains(&section) {
                entry.sections.push(section);
            }
        }
        for run in 1..=self.options.runs {
            for trial in &new {
                self.say(section, group, trial, run);
                let entry = self.run(section, trial, run);
                self.done += self.takes(trial);
                self.stored.rows.push(entry);
            }
        }
    }

    fn run(&mut self, section: Section, trial: &Trial, run: u32) -> Entry {
        let mut entry = Entry {
            sections: vec![section],
            asked: trial.clone(),
            run,
            failure: None,
            cut: None,
            kernel_stack_bytes_per_connection: None,
            hgrm: None,
            row: None,
        };
        match self.measure(trial, run) {
            Ok(outcome) => {
                if outcome.row.errors > 0 {
                    eprintln!("report: {}: {} errors", trial.label, outcome.row.errors);
                    self.is_clean = false;
                }
                entry.cut = outcome.cut;
                entry.kernel_stack_bytes_per_connection = outcome.kernel_stack_bytes_per_connection;
                entry.hgrm = outcome.hgrm;
                entry.row = Some(outcome.row);
            }
            Err(error) => {
                eprintln!("report: {} ({}) run {run} failed: {error:#}", trial.label, trial.flags);
                entry.failure = Some(format!("{error:#}"));
                self.is_clean = false;
            }
        }
        entry
    }

    fn measure(&self, trial: &Trial, run: u32) -> Result<Outcome> {
        let (runs, seconds) = (self.options.runs.to_string(), self.options.seconds.to_string());
        let mut flags = vec!["--runs".to_owned(), runs, "--seconds".to_owned(), seconds];
        if let Some(percent) = trial.rate_percent {
            let rate = self.closed_rate(trial)? * f64::from(percent) / 100.0;
            flags.extend(["--rate".to_owned(), format!("{rate:.0}")]);
        }
        let mut options = trial.options(&flags).context("reading the trial's own flags")?;
        options.hgrm = Some(self.folder.join(HGRM));
        self.bench.measure(&options, trial.server, run)
    }

    /// Returns the rate that the same server reached in the closed loop, in this report.
    fn closed_rate(&self, trial: &Trial) -> Result<f64> {
        let closed = trial.closed_loop();
        let rows = self.stored.rows[self.old..].iter().filter(|entry| entry.asked.is_same(&closed));
        median(rows.filter_map(|entry| Some(entry.row.as_ref()?.requests_per_second)))
            .filter(|rate| *rate >= 1.0)
            .context("the closed loop, of whose rate this is a share, was not measured")
    }

    fn slo(&mut self) {
        let question = Question {
            p999_us: self.p999_us,
            connections: self.slo_connections(),
            in_flight: 1,
            seconds: self.options.seconds,
        };
        for server in self.own() {
            eprintln!("report: slo: {server}, {}", self.left());
            let answer = slo::ask(self.bench, server, &question);
            self.is_clean &= answer.failure.is_none();
            self.done += self.slo_takes();
            self.stored.slo.push(answer);
        }
    }

    /// Returns the servers of ours.
    fn own(&self) -> impl Iterator<Item = ServerKind> + use<'a> {
        self.scope.servers.iter().copied().filter(|server| !server.is_peer())
    }

    fn slo_connections(&self) -> u32 {
        SLO_CONNECTIONS.min(self.scope.connections_max.unwrap_or(u32::MAX))
    }

    fn slo_takes(&self) -> Duration {
        let opening = CONNECTION_OVERHEAD * self.slo_connections();
        (load::takes(self.options.seconds) + RUN_OVERHEAD + opening) * SLO_TRIES
    }

    fn say(&self, section: Section, group: &Group, trial: &Trial, run: u32) {
        let (runs, label) = (self.options.runs, &trial.label);
        eprintln!(
            "report: {}: {}: run {run} of {runs}, {label}, {}",
            section.name(),
            group.name,
            self.left()
        );
    }

    /// Says how much time is left, by what was done so far.
    fn left(&self) -> String {
        let left = self.all.saturating_sub(self.done);
        let pace = if self.done.is_zero() {
            1.0
        } else {
            self.began.elapsed().as_secs_f64() / self.done.as_secs_f64()
        };
        format!("about {} left", minutes(left.mul_f64(pace)))
    }
}

fn minutes(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds @ ..90.0 => format!("{seconds:.0} s"),
        seconds => format!("{:.0} minutes", seconds / 60.0),
    }
}
