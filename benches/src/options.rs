//! What the user may ask for, and what the parent tells the parts it starts.

mod mix;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::ArgPredicate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{cuts, guards, protection, report, slo};
pub(crate) use mix::{LargeCalls, MixOptions, SlowCalls, WINDOW_MAX};

/// Bytes of the largest payload: a body may be 1 MiB and a little more.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 1 << 20;
/// Bytes of the usual payload.
pub(crate) const PAYLOAD_BYTES: u64 = 16;

/// Measures what a connection and a call cost: Onceloop's event loop beside a bare echo and a
/// thread, a task or a fiber per connection, all on the same protocol.
#[derive(Parser)]
#[command(name = "c10k", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    #[command(flatten)]
    pub(crate) bench: Options,
    #[command(flatten)]
    pub(crate) report: report::Options,
}

/// Other benchmarks, and the parts that the program starts of itself.
#[derive(Subcommand)]
pub(crate) enum Role {
    Cuts(cuts::Options),
    Guards(guards::Options),
    Protection(protection::Options),
    Render(report::RenderOptions),
    Slo(slo::Options),
    #[command(hide = true)]
    Call {
        /// A [`guards::CallerOptions`], as JSON.
        #[arg(value_parser = from_json::<guards::CallerOptions>)]
        options: guards::CallerOptions,
    },
    #[command(hide = true)]
    Serve {
        /// A [`ServerOptions`], as JSON.
        #[arg(value_parser = from_json::<ServerOptions>)]
        options: ServerOptions,
    },
    #[command(hide = true)]
    Load {
        /// A [`LoadOptions`], as JSON.
        #[arg(value_parser = from_json::<LoadOptions>)]
        options: LoadOptions,
    },
}

fn from_json<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Connections that call, all open at once
    #[arg(long, short = 'c', default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Calls each of them keeps in flight
    #[arg(long, short = 'P', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    /// Bytes of the string that each call sends and gets back
    #[arg(long, short = 'd', value_name = "BYTES", default_value_t = PAYLOAD_BYTES, value_parser = clap::value_parser!(u64).range(..=PAYLOAD_BYTES_MAX))]
    pub(crate) payload: u64,
    #[command(flatten)]
    pub(crate) mix: MixOptions,
    /// Seconds to measure, after a warm-up of a fifth of it (at least half a second)
    #[arg(long, default_value = "5", default_value_if("report", ArgPredicate::IsPresent, "1.5"), value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Calls per second in all, latency counted from when each was due; or `max`: the next call
    /// when one is answered
    #[arg(long, default_value_t = Rate::Max)]
    pub(crate) rate: Rate,
    /// Which servers, in which order: some of raw,event,threads,tokio,fibers, or `all` of these;
    /// and the peers tarpc,tonic,capnp,redis,go [default of a report: all and the peers]
    #[arg(
        long,
        value_name = "LIST",
        default_value = "raw,event,threads",
        default_value_if("report", ArgPredicate::IsPresent, report::SERVERS),
        value_parser = servers
    )]
    // Spelt so that clap takes it for one value.
    pub(crate) servers: std::vec::Vec<ServerKind>,
    /// Who calls: ready-made frames, or our client library and its callbacks; a peer has a load of
    /// its own
    #[arg(long, default_value = "bare")]
    pub(crate) load: LoadKind,
    /// Further connections that call once and are silent then
    #[arg(long, short = 'I', default_value_t = 0)]
    pub(crate) idle: u32,
    /// Microseconds to ask for events before blocking, in the load, `raw` and `event`
    #[arg(long, default_value_t = 0)]
    pub(crate) spin_us: u64,
    /// How often to measure each server; the table shows medians
    #[arg(long, default_value = "1", default_value_if("report", ArgPredicate::IsPresent, "5"), value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Writes every run to FILE, as one JSON array
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes every run's latencies to DIR, in HdrHistogram's percentile format
    #[arg(long, value_name = "DIR")]
    pub(crate) hgrm: Option<PathBuf>,
}

impl Options {
    /// Returns what these flags say, with the defaults for all others.
    pub(crate) fn of(flags: impl Iterator<Item = String>) -> Result<Options, clap::Error> {
        let words = std::iter::once("c10k".to_owned()).chain(flags);
        Cli::try_parse_from(words).map(|cli| cli.bench)
    }
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.1 => Ok(seconds),
        _ => Err("a number of at least 0.1".to_owned()),
    }
}

pub(crate) fn servers(text: &str) -> Result<Vec<ServerKind>, String> {
    let all = || ServerKind::value_variants().iter().copied();
    match text {
        "all" => Ok(all().filter(|server| !server.is_peer()).collect()),
        _ => text.split(',').map(|name| ServerKind::from_str(name, false)).collect(),
    }
}

/// The servers that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerKind {
    /// A bare epoll echo of the same frames: the limit
    Raw,
    /// Onceloop's server on its event loop
    Event,
    /// A thread for each connection, on the same protocol and xid table
    Threads,
    /// A task for each connection, on tokio; the rest is that of `threads`
    Tokio,
    /// A fiber for each connection, on may; the rest is that of `threads`
    Fibers,
    /// A peer: tarpc, bincode, on one thread
    Tarpc,
    /// A peer: tonic, gRPC, on one thread
    Tonic,
    /// A peer: capnp-rpc, Cap'n Proto
    Capnp,
    /// A peer: redis, ECHO; needs `redis-server`
    Redis,
    /// A peer: Go's net/rpc, gob; needs `go`
    Go,
}

impl ServerKind {
    /// Returns whether it has a thread for each connection.
    pub(crate) fn has_thread_per_connection(self) -> bool {
        self == ServerKind::Threads
    }

    /// Returns whether it can ask for events instead of blocking.
    pub(crate) fn can_spin(self) -> bool {
        matches!(self, ServerKind::Raw | ServerKind::Event)
    }

    /// Returns whether it is another system, with a protocol and a client of its own.
    pub(crate) fn is_peer(self) -> bool {
        use ServerKind::{Capnp, Go, Redis, Tarpc, Tonic};
        matches!(self, Tarpc | Tonic | Capnp | Redis | Go)
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ServerKind::Raw => "raw",
            ServerKind::Event => "event",
            ServerKind::Threads => "threads",
            ServerKind::Tokio => "tokio",
            ServerKind::Fibers => "fibers",
            ServerKind::Tarpc => "tarpc",
            ServerKind::Tonic => "tonic",
            ServerKind::Capnp => "capnp",
            ServerKind::Redis => "redis",
            ServerKind::Go => "go",
        })
    }
}

/// The load generators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadKind {
    /// Ready-made frames, the same for every server
    Bare,
    /// Our client library and its callbacks
    Client,
    /// A peer's own client: nothing else speaks its protocol
    #[value(skip)]
    Own,
}

impl fmt::Display for LoadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LoadKind::Bare => "bare",
            LoadKind::Client => "client",
            LoadKind::Own => "own",
        })
    }
}

/// How fast the load calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "RateJson", try_from = "RateJson")]
pub enum Rate {
    /// The next call when one is answered (closed loop).
    Max,
    /// So many calls per second over all connections, answered or not (open loop).
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Rate::Max),
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Rate::PerSecond(rate)),
            _ => Err("a number of calls per second above 0, or `max`".to_owned()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Max => f.write_str("max"),
            Rate::PerSecond(rate) => rate.fmt(f),
        }
    }
}

/// A rate in JSON: a number or `"max"`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RateJson {
    Number(f64),
    Word(String),
}

impl From<Rate> for RateJson {
    fn from(rate: Rate) -> RateJson {
        match rate {
            Rate::Max => RateJson::Word("max".to_owned()),
            Rate::PerSecond(rate) => RateJson::Number(rate),
        }
    }
}

impl TryFrom<RateJson> for Rate {
    type Error = String;

    fn try_from(rate: RateJson) -> Result<Rate, String> {
        match rate {
            RateJson::Number(rate) => Ok(Rate::PerSecond(rate)),
            RateJson::Word(word) => word.parse(),
        }
    }
}

/// What a server's process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerOptions {
    /// Which server it is to be.
    pub kind: ServerKind,
    /// The core to stay on; `None` leaves the choice to the system.
    pub core: Option<usize>,
    /// Microseconds to ask for events before blocking.
    pub spin_us: u64,
    /// Connections to expect.
    pub connections: u32,
    /// Threads that wait for slow handlers; `None`: the handlers wait themselves.
    pub offload_threads: Option<u32>,
}

impl ServerOptions {
    /// A server on any core, that does not spin and whose handlers answer at once.
    pub(crate) fn quiet(kind: ServerKind, connections: u32) -> ServerOptions {
        ServerOptions { kind, core: None, spin_us: 0, connections, offload_threads: None }
    }
}

/// What the load's process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadOptions {
    /// Who calls.
    pub kind: LoadKind,
    /// The core to stay on; `None` leaves the choice to the system.
    pub core: Option<usize>,
    /// Where the server listens, on 127.0.0.1.
    pub port: u16,
    /// Connections that call.
    pub connections: u32,
    /// Connections beside them that are silent.
    pub idle: u32,
    /// Of all these, how many to open before the first sample of memory.
    pub first: u32,
    /// Calls that each connection keeps in flight.
    pub in_flight: u32,
    /// The window to ask for.
    pub window: u32,
    /// Bytes sent and returned by a call.
    pub payload: u64,
    /// Calls whose handler blocks.
    pub slow: Option<SlowCalls>,
    /// Large calls, on connections after the first `connections`.
    pub large: Option<LargeCalls>,
    /// How long to measure.
    pub seconds: f64,
    /// How fast to call.
    pub rate: Rate,
    /// Microseconds to ask for events before blocking.
    pub spin_us: u64,
    /// Where to write the percentiles.
    pub hgrm: Option<PathBuf>,
}

impl LoadOptions {
    /// Returns how many connections there are: those that call, those with large calls, silent ones.
    pub(crate) fn total(&self) -> u32 {
        self.connections + self.large.map_or(0, |large| large.connections) + self.idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_make_sense_to_clap() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn servers_are_a_list_or_all() {
        use ServerKind::{Event, Fibers, Raw, Threads, Tokio};
        assert_eq!(servers("tokio,raw"), Ok(vec![Tokio, Raw]));
        assert_eq!(servers("all"), Ok(vec![Raw, Event, Threads, Tokio, Fibers]));
        for wrong in ["", "raw,", "raw,all", "Raw", "raw event"] {
            assert!(servers(wrong).is_err(), "{wrong}");
        }
        for &server in ServerKind::value_variants() {
            assert_eq!(servers(&server.to_string()), Ok(vec![server]), "a name is what is shown");
        }
    }

    #[test]
    fn a_rate_is_a_number_or_max() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("2e3".parse(), Ok(Rate::PerSecond(2000.0)));
        for wrong in ["0", "-1", "inf", "NaN", "fast", ""] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        for rate in [Rate::Max, Rate::PerSecond(12.5)] {
            let json = serde_json::to_string(&rate).expect("plain data");
            assert_eq!(serde_json::from_str::<Rate>(&json).expect("just written"), rate);
        }
    }
}
