//! `protection`: what it costs a server that a call runs once, and that a finished call is answered
//! again.
//!
//! One server, one connection for each kind of traffic, and this process as the load. The kinds take
//! turns in slices of a fifth of a second, and a slice begins and ends with nothing in flight: so what
//! the server's CPU clock shows between is that kind's alone, and what is compared was measured
//! within the same second. A machine that is shared disturbs a slice; the median of the slices'
//! differences leaves that out. A run is a new server, since where the memory of a process lies
//! makes a difference of its own.

mod report;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, value_parser};
use onceloop::BlockingClient;
use serde::Serialize;

use crate::child::Part;
use crate::machine;
use crate::options::{PAYLOAD_BYTES_MAX, ServerKind, ServerOptions, seconds};
use crate::run::{self, Cores, share_cores, take_sample};
use crate::service::server;
use crate::stats::count;
use crate::traffic::{Kind, Traffic};
use crate::valgrind::{self, Shape};

/// How long each kind of traffic runs before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);
/// Connections of a run: one for each kind of traffic, and one that asks the server what it counted.
const CONNECTIONS: u32 = 4;

/// Measures what it costs a server to run a call once, and to answer a finished call again
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Calls in flight on the connection; the window is the next power of two
    #[arg(long, short = 'P', default_value_t = 1024, value_parser = value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Bytes of the string that each call sends and gets back
    #[arg(long, short = 'd', value_name = "BYTES", default_value_t = 16, value_parser = value_parser!(u64).range(..=PAYLOAD_BYTES_MAX))]
    payload: u64,
    /// How often to start a server anew and measure
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    runs: u32,
    /// How often the kinds of traffic take turns in a run
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..))]
    slices: u32,
    /// Seconds of a slice
    #[arg(long, default_value_t = 0.2, value_parser = seconds)]
    seconds: f64,
    /// Counts instructions too, with valgrind's callgrind, and leaves its profiles in DIR
    #[arg(long, value_name = "DIR")]
    callgrind: Option<PathBuf>,
    /// Writes every slice and what follows from them to FILE, as one JSON object
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One turn of the three kinds of traffic: the server's CPU time for each request, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Slice {
    run: u32,
    protected_ns: f64,
    unprotected_ns: f64,
    duplicate_ns: f64,
}

/// Measures all that `options` ask for and prints it. Anything that is not as it must be is an error.
pub(crate) fn bench(options: &Options) -> Result<bool> {
    machine::raise_descriptor_limit();
    let cores = share_cores()?;
    if let Some(core) = cores.load {
        machine::pin(core)?;
    }
    let mut slices = Vec::new();
    for run in 1..=options.runs {
        eprintln!("protection: run {run} of {}", options.runs);
        slices.extend(measure(options, cores, run).with_context(|| format!("run {run}"))?);
    }
    let instructions = match &options.callgrind {
        None => None,
        Some(folder) => Some(count_instructions(options, folder).context("callgrind")?),
    };
    let report = report::Report::new(options, slices, instructions);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).context("writing the slices as JSON")?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    report.print()?;
    Ok(true)
}

/// Instructions of the server for each request.
#[derive(Clone, Copy, Debug, Serialize)]
struct Instructions {
    protected: f64,
    unprotected: f64,
    duplicate: f64,
}

/// Counts for each kind of traffic, and leaves the profiles in `folder`.
fn count_instructions(options: &Options, folder: &Path) -> Result<Instructions> {
    let of = |kind, name| {
        eprintln!("protection: counting instructions, {name}");
        let Options { in_flight, payload, .. } = *options;
        let shape = Shape { kind, connections: 1, in_flight, payload };
        anyhow::Ok(valgrind::of_server(shape, folder, name)?.instructions)
    };
    Ok(Instructions {
        protected: of(Kind::Protected, "protected")?,
        unprotected: of(Kind::Unprotected, "unprotected")?,
        duplicate: of(Kind::Duplicate, "duplicate")?,
    })
}

fn measure(options: &Options, cores: Cores, number: u32) -> Result<Vec<Slice>> {
    let server_options = ServerOptions {
        core: cores.server,
        ..ServerOptions::quiet(ServerKind::Event, CONNECTIONS)
    };
    let name = "the server".to_owned();
    let (mut server, port) = run::listening(Part::start("serve", name, &server_options))?;
    let open = |kind| {
        let mut traffic = Traffic::open(kind, port, options.in_flight, options.payload)?;
        traffic.flow(WARM_UP)?;
        anyhow::Ok(traffic)
    };
    let mut protected = open(Kind::Protected)?;
    let mut unprotected = open(Kind::Unprotected)?;
    let mut duplicates = open(Kind::Duplicate)?;
    let mut slices = Vec::new();
    let length = Duration::from_secs_f64(options.seconds);
    let mut cost = |traffic: &mut Traffic| {
        let before = take_sample(&mut server)?;
        let requests = traffic.flow(length)?;
        let after = take_sample(&mut server)?;
        anyhow::Ok((after.cpu_us - before.cpu_us) * 1e3 / count(requests))
    };
    for turn in 0..options.slices {
        // Who comes first in one turn comes last in the next: a machine that slows down meanwhile
        // is not held against either.
        let (protected_ns, unprotected_ns, duplicate_ns);
        if turn % 2 == 0 {
            protected_ns = cost(&mut protected)?;
            unprotected_ns = cost(&mut unprotected)?;
            duplicate_ns = cost(&mut duplicates)?;
        } else {
            duplicate_ns = cost(&mut duplicates)?;
            unprotected_ns = cost(&mut unprotected)?;
            protected_ns = cost(&mut protected)?;
        }
        slices.push(Slice { run: number, protected_ns, unprotected_ns, duplicate_ns });
    }
    check(port, &protected, &unprotected, &duplicates)?;
    Ok(slices)
}

/// Holds what the server has counted against what was sent.
fn check(
    port: u16,
    protected: &Traffic,
    unprotected: &Traffic,
    duplicates: &Traffic,
) -> Result<()> {
    let mut client = BlockingClient::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .context("asking the server")?;
    let stats = client.call(server::stats, ()).context("asking the server what it counted")?;
    let first = protected.answered() + unprotected.answered() + duplicates.first();
    // The question is a call, too.
    ensure!(
        stats.calls_started == first + 1,
        "the server started {} calls, not {}",
        stats.calls_started,
        first + 1
    );
    let again = duplicates.answered() - duplicates.first();
    ensure!(
        stats.calls_replayed == again,
        "the server answered {} calls again, not {again}",
        stats.calls_replayed
    );
    Ok(())
}
