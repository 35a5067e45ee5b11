//! Go's net/rpc with gob: a Go program of both roles (`go/main.go`), since nothing else speaks its
//! encoding. It has one processor (`GOMAXPROCS=1`) on its core.
//!
//! As a server it says where it listens. As a load it does one thing after the other as it is told,
//! and hands over every latency at the end.

use std::env;
use std::io::Write;
use std::ops::DerefMut;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use onceloop_benches::harness::{
    self, Generator, LoadOptions, Rate, ServerKind, ServerOptions, Tally, Watch, nanoseconds,
};
use serde::{Deserialize, Serialize};

use crate::program::{self, Program};

/// Where the Go program is, in a checkout.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go");
/// Connections that are made before the parent hears of them.
const CONNECTIONS_PER_STEP: u32 = 256;

/// Serves until the parent's line closes.
pub(super) fn serve(options: &ServerOptions) -> Result<()> {
    build()?;
    harness::raise_descriptor_limit();
    let mut server = Program::start(&mut command("serve")?, options.core)?;
    let port = server.next_line()?.trim().parse().context("reading its port")?;
    server.answer_parent(port, options.core)
}

/// Builds the Go program, which needs the standard library alone.
pub(super) fn build() -> Result<()> {
    program::ensure_there(ServerKind::Go)?;
    let status = Command::new("go")
        .args(["build", "-o"])
        .arg(program()?)
        .arg(".")
        .current_dir(SOURCE)
        .envs([("GOFLAGS", "-mod=mod"), ("GOPROXY", "off"), ("GOTOOLCHAIN", "local")])
        .status()
        .context("running go")?;
    ensure!(status.success(), "go could not build {SOURCE}");
    Ok(())
}

/// Returns the Go program's file, beside this one.
fn program() -> Result<PathBuf> {
    let program = env::current_exe().context("finding this program's own file")?;
    Ok(program.with_file_name("onceloop-peers-go"))
}

fn command(role: &str) -> Result<Command> {
    let mut command = Command::new(program()?);
    command.arg(role).env("GOMAXPROCS", "1");
    Ok(command)
}

/// What the Go load is told.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// Open connections until there are so many.
    Open(u32),
    /// Make one call on each of these.
    Settle(u32, u32),
    /// Begin to call on so many connections.
    Begin(u32),
    /// Keep the latencies of so many nanoseconds from now on.
    Record(u64),
    /// Make no more calls and wait for the missing answers, at most so many nanoseconds.
    Drain(u64),
}

/// What it answers when it has done so.
#[derive(Default, Deserialize)]
struct Done {
    #[serde(default)]
    errors: Vec<String>,
    #[serde(default)]
    latencies_ns: Vec<u64>,
}

/// The load, as this process sees it.
pub(super) struct Load<'a> {
    options: &'a LoadOptions,
    started: Instant,
    program: Program,
    opened: u32,
    tally: Tally,
}

impl<'a> Load<'a> {
    pub(super) fn new(options: &'a LoadOptions) -> Result<Load<'a>> {
        ensure!(options.rate == Rate::Max, "its load keeps no rate: it calls as fast as it can");
        let mut command = command("load")?;
        for number in [u64::from(options.port), u64::from(options.in_flight), options.payload] {
            command.arg(number.to_string());
        }
        let program = Program::start(&mut command, options.core)?;
        Ok(Load { options, started: Instant::now(), program, opened: 0, tally: Tally::new()? })
    }

    /// Tells the Go program what to do and waits until it has done so.
    fn tell(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order).context("writing an order")?;
        line.push(b'\n');
        self.program.input().write_all(&line).context("telling the Go program what to do")?;
        let line = self.program.next_line()?;
        let done: Done = serde_json::from_str(&line).context("reading what it did")?;
        for error in done.errors {
            self.tally.fail(|| error);
        }
        for latency_ns in done.latencies_ns {
            self.tally.record(latency_ns, 1);
        }
        Ok(())
    }

    fn tell_or_fail(&mut self, order: &Order) {
        if let Err(error) = self.tell(order) {
            self.tally.fail(|| format!("{error:#}"));
        }
    }
}

impl Generator for Load<'_> {
    fn open(&mut self, until: u32) -> Result<()> {
        let mut watch = Watch::begin();
        while self.opened < until {
            self.opened = until.min(self.opened + CONNECTIONS_PER_STEP);
            self.tell(&Order::Open(self.opened))?;
            watch.tell(harness::index(u64::from(self.opened)));
        }
        Ok(())
    }

    fn settle(&mut self, from: u32, until: u32) -> Result<()> {
        self.tell(&Order::Settle(from, until))
    }

    fn begin_calls(&mut self) {
        self.tell_or_fail(&Order::Begin(self.options.connections));
    }

    fn call_until(&mut self, end_ns: u64) -> Result<()> {
        // It calls by itself.
        thread::sleep(Duration::from_nanos(end_ns.saturating_sub(self.now())));
        Ok(())
    }

    fn set_recording(&mut self, is_recording: bool) {
        if is_recording {
            let measured = Duration::from_secs_f64(self.options.seconds);
            self.tell_or_fail(&Order::Record(nanoseconds(measured)));
        }
    }

    fn drain(&mut self) -> Result<()> {
        // The Go program has kept those of the measured time, and no others.
        self.tally.set_recording(true);
        self.tell(&Order::Drain(nanoseconds(harness::DRAIN_MAX)))
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }

    fn now(&self) -> u64 {
        nanoseconds(self.started.elapsed()) + 1
    }

    fn granted(&self) -> (u32, u32) {
        (self.options.in_flight, self.options.in_flight)
    }

    fn tally(&mut self) -> impl DerefMut<Target = Tally> {
        &mut self.tally
    }

    fn cpu_us(&self) -> Result<f64> {
        Ok(self.program.sample()?.cpu_us)
    }
}
