//! `onceloop sim`: whole servers and clients on a simulated network, and what was promised of each
//! call.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use onceloop_sim::{Report, Sabotage, Verdict};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which seeds to run: `A..B`, without B.
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = range)]
    seeds: Range<u64>,
    /// Runs this seed alone.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Prints all that happens in the seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Runs each seed twice and compares the traces.
    #[arg(long)]
    twice: bool,
    /// Begins no further seed once something is violated in one.
    #[arg(long)]
    stop: bool,
    /// Writes the totals to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many threads run seeds; by default as many as there are processors.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text}: two numbers, as in 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(wrong)?;
    let seeds = first.parse().map_err(|_| wrong())?..end.parse().map_err(|_| wrong())?;
    if seeds.is_empty() { Err(format!("{text}: no seed is in it")) } else { Ok(seeds) }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    if let (Some(seed), true) = (arguments.seed, arguments.trace) {
        return trace(seed);
    }
    let seeds = arguments.seed.map_or(arguments.seeds.clone(), |seed| seed..seed + 1);
    let processors = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let jobs = arguments.jobs.unwrap_or(processors).get();
    let run_all =
        if arguments.stop { onceloop_sim::run_until_failure } else { onceloop_sim::run_all };
    let report = run_all(seeds.clone(), jobs, Sabotage::None);
    show(&report);
    if let Some(file) = &arguments.json {
        let mut json = serde_json::to_string(&report.summary())?;
        json.push('\n');
        fs::write(file, json).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let mut is_well = report.failed == 0;
    if arguments.twice {
        let again = run_all(seeds, jobs, Sabotage::None);
        is_well &= is_same(&report, &again);
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints all that happens in a seed, and the verdict.
fn trace(seed: u64) -> Result<ExitCode, Box<dyn Error>> {
    let mut out = io::BufWriter::new(io::stdout());
    let on_line = Box::new(move |line: &onceloop::reactor::sim::Line<'_>| {
        // Who reads it may have seen enough.
        let _ = writeln!(out, "{line}");
    });
    let verdict = onceloop_sim::run(seed, Sabotage::None, Some(on_line));
    println!("{} calls, {} steps; faults: {}", verdict.calls, verdict.steps, verdict.faults);
    for violation in &verdict.violations {
        println!("VIOLATED {:?}: {}", violation.kind, violation.what);
    }
    let is_well = verdict.violations.is_empty();
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(report: &Report) {
    println!(
        "{} seeds, {} calls (at least {} a seed), {:.0} simulated hours, in {:.1} s",
        report.seeds,
        report.calls,
        report.calls_min,
        report.simulated_seconds / 3_600.0,
        report.seconds
    );
    println!("faults:");
    for (fault, count) in report.faults.iter() {
        println!("  {count:>9}  {fault}");
    }
    println!("work:");
    for (what, count) in report.work.iter() {
        println!("  {count:>9}  {what}");
    }
    println!("promises broken:");
    let counts = [
        (report.double_executions, "double executions"),
        (report.lost, "lost"),
        (report.wrong_replies, "wrong replies"),
        (report.unresolved, "unresolved"),
        (report.broken, "panics and failures"),
    ];
    for (count, name) in counts {
        println!("  {count:>9}  {name}");
    }
    for failure in &report.failures {
        tell(failure);
    }
    if report.failed > report.failures.len() as u64 {
        println!("\n{} seeds failed in all", report.failed);
    }
}

fn tell(failure: &Verdict) {
    println!("\nseed {}:", failure.seed);
    for violation in &failure.violations {
        println!("  {:?}: {}", violation.kind, violation.what);
    }
    println!("  its trace: cargo run --release -- sim --seed {} --trace", failure.seed);
}

fn is_same(first: &Report, second: &Report) -> bool {
    let is_same = first.trace_hashes == second.trace_hashes;
    let differing = first
        .trace_hashes
        .iter()
        .filter(|(seed, hash)| second.trace_hashes.get(seed) != Some(hash));
    for (seed, _) in differing.take(20) {
        println!("seed {seed}: two runs, two traces");
    }
    if is_same {
        println!("each seed run twice: the traces are the same");
    }
    is_same
}
