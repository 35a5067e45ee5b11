//! `cuts`: connections are cut at random under load, and what became of each call is counted, for
//! four ways of dealing with that.
//!
//! Server, clients and a cutting network between them run in this process on one event loop, over
//! real sockets on 127.0.0.1. A call asks for an effect, which the server counts by call; the caller
//! notes what it was told. Afterwards the two are held against each other.

mod chart;
mod count;
mod network;
mod report;
mod world;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum, value_parser};
use serde::Serialize;

use self::count::Row;
use crate::options::seconds;
use crate::show::grouped;

/// Calls by which the bytes of one are measured.
const CALIBRATION_CALLS: u32 = 1_000;

/// Cuts connections at random under load and counts calls lost, run twice and run once
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Calls of each policy at each level
    #[arg(long, short = 'n', default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=10_000_000))]
    calls: u32,
    /// The levels: after how many calls a connection is cut, on average; or `none`
    #[arg(
        long,
        value_name = "CALLS",
        value_delimiter = ',',
        default_value = "none,1000,300,100,30,10"
    )]
    cut_every: Vec<Level>,
    /// What the callers do
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "exactly-once,at-most-once,blind-retry,no-retry"
    )]
    policies: Vec<Policy>,
    /// Clients that call, each over one connection at a time
    #[arg(long, short = 'c', default_value_t = 4, value_parser = value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// Calls that each of them keeps in flight
    #[arg(long, short = 'P', default_value_t = 8, value_parser = value_parser!(u32).range(1..=128))]
    in_flight: u32,
    /// Where the cuts fall; what is in flight then still differs from run to run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds after which a policy at a level is stopped, its open calls unanswered
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    seconds_max: f64,
    /// Writes the chart to DIR: cuts.svg, and index.html with the table
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Writes every count to FILE, as one JSON object
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How callers deal with a connection that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Policy {
    /// Onceloop's default: sent again under the same xid, in the same session
    ExactlyOnce,
    /// Onceloop: sent once; its answer is asked for in the same session
    AtMostOnce,
    /// Made again as a new call on a new connection until it succeeds
    BlindRetry,
    /// Given up with its connection
    NoRetry,
}

impl Policy {
    /// Returns whether the caller has a session that outlives its connections.
    fn has_session(self) -> bool {
        matches!(self, Policy::ExactlyOnce | Policy::AtMostOnce)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Policy::AtMostOnce => "at most once",
            Policy::BlindRetry => "blind retry",
            Policy::ExactlyOnce => "exactly once",
            Policy::NoRetry => "no retry",
        })
    }
}

/// How often connections are cut: after so many calls on average; `None` is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Level(Option<u32>);

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        match text.parse() {
            _ if text == "none" => Ok(Level(None)),
            Ok(calls @ 1..) => Ok(Level(Some(calls))),
            _ => Err("a number of calls of at least 1, or `none`".to_owned()),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.pad("none"),
            Some(calls) => f.pad(&grouped(calls.into())),
        }
    }
}

/// Runs every policy at every level and tells what was counted; returns whether all promises held.
pub(crate) fn bench(options: &Options) -> Result<bool> {
    let calibration = Options { calls: CALIBRATION_CALLS, ..options.clone() };
    let (_, network) =
        world::run(&calibration, Policy::ExactlyOnce, None).context("calibrating")?;
    let bytes_per_call = network.bytes.div_ceil(u64::from(CALIBRATION_CALLS));
    let mut rows = Vec::new();
    for &level in &options.cut_every {
        for &policy in &options.policies {
            eprintln!("cuts: {policy}, calls between cuts: {level}");
            let bytes = level.0.map(|calls| u64::from(calls) * bytes_per_call);
            let (tally, network) = world::run(options, policy, bytes)
                .with_context(|| format!("{policy} at level {level}"))?;
            rows.push(Row::new(policy, level, bytes, tally, network));
        }
    }
    let report = report::Report::new(options, bytes_per_call, rows);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).context("writing the counts as JSON")?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(folder) = &options.report {
        report.write(folder)?;
    }
    report.print()?;
    Ok(report.is_kept())
}
