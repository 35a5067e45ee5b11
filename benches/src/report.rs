//! `--report`: a whole plan of workloads, measured section by section, and a page of what came of it.
//!
//! What is measured is data ([`plan`]); how it is measured is `run`'s matter; what was measured is
//! written down as it comes ([`store`]), so that a report that is broken off can be rendered
//! ([`render`]) all the same.

mod figures;
mod machine;
mod markdown;
mod measure;
mod page;
mod plan;
mod spectrum;
mod store;
mod tables;
mod view;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum, value_parser};

use self::machine::Machine;
use self::measure::Measurement;
use self::plan::{Scope, Section};
use self::store::{Made, Stored};
use crate::capacity;
use crate::options::{Options as BenchOptions, ServerKind};
use crate::peers;
use crate::run::Bench;

/// The most connections of a report, whatever the machine holds: more take minutes to open.
const CONNECTIONS_MOST: u32 = 100_000;
/// The servers of a report, as they are typed.
pub(crate) const SERVERS: &str = "raw,event,threads,tokio,fibers,tarpc,tonic,capnp,redis,go";
/// The folder of the latencies in the report's.
const HGRM: &str = "hgrm";

/// What of a report is wanted.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Options {
    /// Measures a whole plan of workloads and writes DIR/index.html with plots, and all that was
    /// measured beside it; 5 runs of 1.5 s each, unless --runs and --seconds say otherwise
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = [
            "connections", "in_flight", "payload", "rate", "load", "idle", "spin_us", "json", "hgrm"
        ]
    )]
    report: Option<PathBuf>,
    /// Measures these sections of the report alone; what DIR holds of the others stays
    #[arg(long, value_name = "SECTION", value_delimiter = ',', requires = "report")]
    only: Vec<Section>,
    /// Cuts every workload of a report to so many connections: for tests
    #[arg(long, hide = true, requires = "report", value_parser = value_parser!(u32).range(1..))]
    connections_max: Option<u32>,
    /// The bound of the report's question for the highest rate, on the 99.9th percentile
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "report", value_parser = value_parser!(u64).range(1..))]
    p999_us: u64,
}

/// Renders a report again from the rows that it left, without measuring anything
#[derive(Args, Clone, Debug)]
pub(crate) struct RenderOptions {
    /// The folder of the report
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Options {
    /// Returns the folder of the report, if one is wanted.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.report.as_deref()
    }

    fn sections(&self) -> &[Section] {
        if self.only.is_empty() { Section::value_variants() } else { &self.only }
    }
}

/// Measures and writes a report to `folder`; returns whether there was no error.
pub(crate) fn bench(folder: &Path, options: &BenchOptions, report: &Options) -> Result<bool> {
    let bench = Bench::begin()?.quiet();
    fs::create_dir_all(folder.join(HGRM))
        .with_context(|| format!("making {}", folder.display()))?;
    let sections = report.sections();
    let mut stored = Stored::load(folder)?;
    if sections
        .iter()
        .any(|section| stored.sections.iter().any(|made| made.part.section == *section))
    {
        eprintln!("report: what {} holds of these sections is replaced", folder.display());
    }
    stored.forget(sections);
    let (servers, left_out) = servers(options);
    ensure!(!servers.is_empty(), "no server is left to be measured");
    let scope =
        Scope { servers, connections_max: report.connections_max, most: most(&bench, options) };
    let parts = plan::plan(sections, &scope);
    let machine = Machine::ask();
    let names: Vec<String> = options.servers.iter().map(ServerKind::to_string).collect();
    let made = parts.into_iter().map(|part| Made {
        part,
        machine: machine.clone(),
        servers: names.join(","),
        runs: options.runs,
        seconds: options.seconds,
        left_out: left_out.clone(),
        is_complete: false,
    });
    stored.sections.extend(made);
    stored.sections.sort_by_key(|made| made.part.section);
    let mut measurement = Measurement::new(&bench, folder, options, &scope, report.p999_us, stored);
    let is_clean = measurement.all(sections)?;
    eprintln!("report: {} is written", folder.join("index.html").display());
    Ok(is_clean)
}

/// Renders the report in the folder that `options` name.
pub(crate) fn render(options: &RenderOptions) -> Result<bool> {
    let stored = Stored::load(&options.folder)?;
    ensure!(
        !stored.sections.is_empty(),
        "there is no report in {}: `c10k --report` makes one",
        options.folder.display()
    );
    write(&stored, &options.folder)?;
    Ok(true)
}

/// Writes what is made of the rows.
fn write(stored: &Stored, folder: &Path) -> Result<()> {
    page::write(stored, folder)?;
    markdown::write(stored, folder)
}

/// Returns the servers that this machine can run, and why it cannot run the others.
fn servers(options: &BenchOptions) -> (Vec<ServerKind>, Vec<String>) {
    let mut left_out = Vec::new();
    let mut servers = options.servers.clone();
    servers.retain(|&server| {
        let missing = peers::missing(server).map(|why| format!("{server} is left out: {why}"));
        let is_there = missing.is_none();
        left_out.extend(missing.inspect(|why| eprintln!("report: {why}")));
        is_there
    });
    (servers, left_out)
}

/// Returns how many connections the machine holds, for the server that holds most.
fn most(bench: &Bench, options: &BenchOptions) -> u32 {
    let asked = BenchOptions { connections: CONNECTIONS_MOST, idle: 0, ..options.clone() };
    let room = |&server: &ServerKind| capacity::fit(server, &asked, bench.descriptors).connections;
    options.servers.iter().map(room).max().unwrap_or(1)
}
