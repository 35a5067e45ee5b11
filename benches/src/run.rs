//! The bench as a whole: one server process and one load process for each run, the samples between
//! them, and what follows from the numbers.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::capacity::{self, Fit};
use crate::child::Part;
use crate::load;
use crate::machine;
use crate::message::{LargeRow, LoadLine, Report, Row, Sample, ServerLine, SlowRow};
use crate::options::{
    LoadKind, LoadOptions, Options, PAYLOAD_BYTES, Rate, ServerKind, ServerOptions, WINDOW_MAX,
};
use crate::peers;
use crate::progress::Progress;
use crate::table;
use crate::warnings;

/// Connections at the first sample of memory: by then a server has what it has once.
const FIRST_CONNECTIONS: u32 = 2_000;
/// Below that many connections between the samples, a slope would be noise: memory comes in pages.
const SLOPE_CONNECTIONS_MIN: u32 = 100;
/// How long a server may take to answer its parent.
const SERVER_WAIT_MAX: Duration = Duration::from_secs(30);

/// The cores that the two sides are kept on.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) server: Option<usize>,
    pub(crate) load: Option<usize>,
}

/// What one run gave.
pub(crate) struct Outcome {
    pub(crate) row: Row,
    /// Kernel stack of the server's threads, which is not in its `RssAnon`; only where there is
    /// one for each connection.
    pub(crate) kernel_stack_bytes_per_connection: Option<f64>,
    /// Which limit of the machine cut the connections that were asked for, if one did.
    pub(crate) cut: Option<String>,
    /// The file with the latencies, in the folder that was given for it.
    pub(crate) hgrm: Option<String>,
}

/// Measures all that `options` ask for and prints it; returns whether there was no error.
pub(crate) fn bench(options: &Options) -> Result<bool> {
    let bench = Bench::begin()?;
    if let Some(folder) = &options.hgrm {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let servers = servers(options)?;
    let mut outcomes = Vec::new();
    let mut is_clean = true;
    for run in 1..=options.runs {
        for &server in &servers {
            match bench.measure(options, server, run) {
                Ok(outcome) => {
                    is_clean &= outcome.row.errors == 0;
                    outcomes.push(outcome);
                }
                Err(error) => {
                    eprintln!("{server}: run {run} failed: {error:#}");
                    is_clean = false;
                }
            }
        }
    }
    if let Some(path) = &options.json {
        let rows: Vec<&Row> = outcomes.iter().map(|outcome| &outcome.row).collect();
        let text = serde_json::to_string_pretty(&rows).context("writing the rows as JSON")?;
        fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    table::print(&outcomes)?;
    Ok(is_clean)
}

/// What all runs have in common: the cores, and what this process may use.
pub(crate) struct Bench {
    cores: Cores,
    pub(crate) descriptors: u64,
    is_quiet: bool,
}

impl Bench {
    /// Makes ready to measure.
    pub(crate) fn begin() -> Result<Bench> {
        let descriptors = machine::raise_descriptor_limit();
        Ok(Bench { cores: share_cores()?, descriptors, is_quiet: false })
    }

    /// Returns the same, which does not tell how far each run is but on a terminal's own line.
    pub(crate) fn quiet(self) -> Bench {
        Bench { is_quiet: true, ..self }
    }

    /// Measures `server` once, as `options` say; their other servers and runs do not matter here.
    pub(crate) fn measure(
        &self,
        options: &Options,
        server: ServerKind,
        run: u32,
    ) -> Result<Outcome> {
        let fit = capacity::fit(server, options, self.descriptors);
        if run == 1 {
            say_cut(server, options, &fit);
        }
        let (cores, is_quiet) = (self.cores, self.is_quiet);
        Run { options, server, run, fit, cores, is_quiet }.measure()
    }
}

/// Returns the servers that can be loaded as `options` ask for, and tells of the others.
fn servers(options: &Options) -> Result<Vec<ServerKind>> {
    anyhow::ensure!(
        options.load == LoadKind::Bare || options.mix.is_uniform(),
        "only the bare load makes slow or large calls"
    );
    let mut servers = options.servers.clone();
    servers.retain(|&server| {
        let excluded = options.mix.excludes(server).map(str::to_owned);
        let excluded = excluded.or_else(|| peers::missing(server));
        excluded.inspect(|why| eprintln!("{server}: left out: {why}")).is_none()
    });
    anyhow::ensure!(!servers.is_empty(), "no server is left to be measured");
    Ok(servers)
}

/// Returns a core for each side, if there are two.
pub(crate) fn share_cores() -> Result<Cores> {
    match machine::cores()?[..] {
        [server, load, ..] => Ok(Cores { server: Some(server), load: Some(load) }),
        _ => {
            eprintln!("c10k: there is one core: server and load share it, and both pay for that");
            Ok(Cores { server: None, load: None })
        }
    }
}

fn say_cut(server: ServerKind, options: &Options, fit: &Fit) {
    let Some(bound) = &fit.cut else { return };
    eprintln!(
        "{server}: {} connections and {} idle ones do not fit. {bound}. Running {} and {} idle.",
        options.connections, options.idle, fit.connections, fit.idle
    );
}

/// One run of one server.
struct Run<'a> {
    options: &'a Options,
    server: ServerKind,
    run: u32,
    fit: Fit,
    cores: Cores,
    is_quiet: bool,
}

/// The server's samples of a run.
#[derive(Default)]
struct Samples {
    first: Sample,
    last: Sample,
    begin: Sample,
    end: Sample,
}

impl Run<'_> {
    fn measure(&self) -> Result<Outcome> {
        anyhow::ensure!(self.fit.connections > 0, "there is no room for a single connection");
        let total = self.total();
        let name = format!("{} {}/{}", self.server, self.run, self.options.runs);
        let mut progress = Progress::begin(name, u64::from(total), self.is_quiet);
        let (mut server, port) = listening(Part::start_as(
            peers::command(self.server)?,
            "serve",
            format!("the {} server", self.server),
            &ServerOptions {
                kind: self.server,
                core: self.cores.server,
                spin_us: self.options.spin_us,
                connections: total,
                offload_threads: self.options.mix.offload_threads(self.server),
            },
        ))?;
        let name = format!("the load for {}", self.server);
        let command = peers::command(self.server)?;
        let mut load: Part<LoadLine> =
            Part::start_as(command, "load", name, &self.load_options(port))?;
        let mut samples = Samples::default();
        let silence_max = load::silence_max(self.options.seconds);
        loop {
            match load.next(silence_max)? {
                LoadLine::Connected { connections } => {
                    progress.connected(u64::from(connections), u64::from(total));
                }
                LoadLine::Ready { connections } => {
                    progress.connected(u64::from(connections), u64::from(total));
                    // The stages are ready in order, so the last to come stays.
                    samples.last = take_sample(&mut server)?;
                    if samples.first.at_ns == 0 {
                        samples.first = samples.last;
                    } else {
                        progress.stage("warming up");
                    }
                    load.tell()?;
                }
                LoadLine::Begin => {
                    samples.begin = take_sample(&mut server)?;
                    progress.stage("measuring");
                }
                LoadLine::End => {
                    samples.end = take_sample(&mut server)?;
                    load.tell()?;
                    progress.stage("waiting for the last answers");
                }
                LoadLine::Report(report) => {
                    self.say_report(&progress, &report);
                    return Ok(self.outcome(&report, &samples));
                }
            }
        }
    }

    fn load(&self) -> LoadKind {
        if self.server.is_peer() { LoadKind::Own } else { self.options.load }
    }

    fn total(&self) -> u32 {
        self.fit.connections + self.options.mix.large_connections + self.fit.idle
    }

    /// Returns how many connections there are at the first sample of memory.
    fn first(&self) -> u32 {
        let total = self.total();
        if total > FIRST_CONNECTIONS { FIRST_CONNECTIONS } else { (total / 10).max(1) }
    }

    fn load_options(&self, port: u16) -> LoadOptions {
        let hgrm = self.options.hgrm.as_ref().map(|folder| folder.join(self.hgrm()));
        LoadOptions {
            kind: self.load(),
            core: self.cores.load,
            port,
            connections: self.fit.connections,
            idle: self.fit.idle,
            first: self.first(),
            in_flight: self.options.in_flight,
            window: self
                .options
                .mix
                .window
                .unwrap_or_else(|| self.options.in_flight.min(WINDOW_MAX).next_power_of_two()),
            payload: self.options.payload,
            slow: self.options.mix.slow(),
            large: self.options.mix.large(),
            seconds: self.options.seconds,
            rate: self.options.rate,
            spin_us: self.options.spin_us,
            hgrm,
        }
    }

    /// Returns the name of the file with the run's latencies: the server, the workload, what is
    /// unusual about it, and the run.
    fn hgrm(&self) -> String {
        let Options { payload, rate, spin_us, load, .. } = self.options;
        let mut name = format!("{}-{}", self.server, self.workload());
        if *payload != PAYLOAD_BYTES {
            name += &format!("-d{payload}");
        }
        if *load != LoadKind::Bare {
            name += &format!("-{load}");
        }
        if *spin_us > 0 {
            name += &format!("-spin{spin_us}");
        }
        if let Some(slow) = self.options.mix.slow() {
            name += &format!("-slow{}x{}", slow.percent, slow.us);
        }
        if let Some(large) = self.options.mix.large() {
            name += &format!("-large{}x{}", large.connections, large.bytes);
        }
        if let Some(threads) = self.options.mix.offload_threads(self.server) {
            name += &format!("-offload{threads}");
        }
        if let Some(window) = self.options.mix.window {
            name += &format!("-w{window}");
        }
        if let Rate::PerSecond(rate) = rate {
            name += &format!("-rate{rate:.0}");
        }
        name + &format!("-{}.hgrm", self.run)
    }

    fn say_report(&self, progress: &Progress, report: &Report) {
        if report.in_flight < self.options.in_flight {
            progress.note(&format!(
                "the window is {}: {} calls in flight on a connection, not {}",
                report.window, report.in_flight, self.options.in_flight
            ));
        }
        if let Some(error) = &report.first_error {
            progress.note(&format!("{} errors, the first: {error}", report.errors));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and times are far below 2^53")]
    fn outcome(&self, report: &Report, samples: &Samples) -> Outcome {
        let requests = report.requests as f64;
        // The samples are some milliseconds later than the load's own marks: taken to its time.
        let sampled = (samples.end.at_ns - samples.begin.at_ns) as f64 / 1e9;
        let share = report.seconds / sampled.max(f64::MIN_POSITIVE);
        let server_cpu_us = (samples.end.cpu_us - samples.begin.cpu_us) * share;
        let switches = samples.end.context_switches - samples.begin.context_switches;
        let per_request = |cpu_us: f64| if requests > 0.0 { cpu_us / requests } else { 0.0 };
        let stack = self.slope(samples.first.kernel_stack_bytes, samples.last.kernel_stack_bytes);
        let row = Row {
            server: self.server,
            workload: self.workload(),
            connections: self.fit.connections,
            in_flight: report.in_flight,
            payload: self.options.payload,
            requests: report.requests,
            seconds: report.seconds,
            requests_per_second: requests / report.seconds,
            server_cpu_us_per_request: per_request(server_cpu_us),
            client_cpu_us_per_request: per_request(report.cpu_us),
            latency_us: report.latency_us,
            slow: self.options.mix.slow().map(|calls| SlowRow {
                calls,
                offload_threads: self.options.mix.offload_threads(self.server),
                answers: report.slow,
            }),
            large: self.options.mix.large().map(|calls| LargeRow {
                calls,
                answers: report.large,
                requests_per_second: report.large.requests as f64 / report.seconds,
            }),
            send_lag_us: report.send_lag_us,
            warnings: warnings::of(self.options, report),
            rss_bytes_per_connection: self
                .slope(samples.first.rss_anon_bytes, samples.last.rss_anon_bytes),
            context_switches: rounded(switches as f64 * share),
            threads: samples.end.threads,
            connect_seconds: report.connect_seconds,
            // A run in which nothing was answered has failed, whatever else it says.
            errors: report.errors + u64::from(report.requests == 0),
            load: self.load(),
            rate: self.options.rate,
            spin_us: self.options.spin_us,
            window: report.window,
            run: self.run,
        };
        Outcome {
            row,
            kernel_stack_bytes_per_connection: stack
                .filter(|_| self.server.has_thread_per_connection()),
            cut: self.fit.cut.as_ref().map(ToString::to_string),
            hgrm: self.options.hgrm.as_ref().map(|_| self.hgrm()),
        }
    }

    /// Returns what each connection added between the two samples; `None` if there are too few.
    #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
    fn slope(&self, first: u64, last: u64) -> Option<f64> {
        let connections = self.total() - self.first();
        let bytes = last as f64 - first as f64;
        (connections >= SLOPE_CONNECTIONS_MIN).then(|| bytes / f64::from(connections))
    }

    /// Returns the name of what is really run.
    fn workload(&self) -> String {
        workload(self.fit.connections, self.options.in_flight, self.fit.idle)
    }
}

/// Waits until a server that was started listens, and returns it with its port.
pub(crate) fn listening(part: Result<Part<ServerLine>>) -> Result<(Part<ServerLine>, u16)> {
    let server = part?;
    match server.next(SERVER_WAIT_MAX)? {
        ServerLine::Listening { port } => Ok((server, port)),
        ServerLine::Sample(_) => anyhow::bail!("the server did not say where it listens"),
    }
}

/// Asks a server what it has used so far.
pub(crate) fn take_sample(server: &mut Part<ServerLine>) -> Result<Sample> {
    server.tell()?;
    match server.next(SERVER_WAIT_MAX)? {
        ServerLine::Sample(sample) => Ok(sample),
        ServerLine::Listening { .. } => anyhow::bail!("the server listens again"),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, scaled")]
fn rounded(count: f64) -> u64 {
    count.round() as u64
}

/// Returns the usual name of a workload; by its numbers if it has none.
fn workload(connections: u32, in_flight: u32, idle: u32) -> String {
    match (connections, in_flight, idle) {
        (1, 1, 0) => "W1".to_owned(),
        (1, 128, 0) => "W2".to_owned(),
        (1, 1024, 0) => "W2b".to_owned(),
        (100, 16, 0) => "W3".to_owned(),
        (10_000, 1, 0) => "W4".to_owned(),
        (100, 1, 10_000) => "W5".to_owned(),
        (100, 1, 0) => "W5b".to_owned(),
        (_, _, 0) => format!("{connections}x{in_flight}"),
        _ => format!("{connections}x{in_flight}+{idle}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_has_its_usual_name() {
        assert_eq!(workload(10_000, 1, 0), "W4");
        assert_eq!(workload(100, 1, 10_000), "W5");
        assert_eq!(workload(50, 2, 0), "50x2");
        assert_eq!(workload(50, 2, 7), "50x2+7");
    }
}
