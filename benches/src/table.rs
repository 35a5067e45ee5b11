//! The result as a table: the median of each server's runs, errors added up.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};

use crate::message::{Answers, LargeRow, Latency, Row, SlowRow};
use crate::options::ServerKind;
use crate::run::Outcome;
use crate::stats::{count, median};

/// Latencies are shown in milliseconds if one of the medians is at least so many microseconds.
const MILLISECONDS_FROM_US: f64 = 1_000.0;

/// Prints the table of all runs, and what of it a person wants to know first.
pub(crate) fn print(outcomes: &[Outcome]) -> Result<()> {
    io::stdout().lock().write_all(render(outcomes).as_bytes()).context("printing the table")
}

fn render(outcomes: &[Outcome]) -> String {
    let Some(Outcome { row: any, .. }) = outcomes.first() else {
        return "Nothing was measured.\n".to_owned();
    };
    let runs = outcomes.iter().map(|outcome| outcome.row.run).max().unwrap_or(1);
    let runs = if runs == 1 { "one run".to_owned() } else { format!("medians of {runs} runs") };
    let mut lines = vec![
        format!(
            "{}: {} calls in flight on a connection, window {}, {} bytes each way, rate {}, {:.1} s, \
             spin {} us, load {}, {runs}",
            any.workload,
            any.in_flight,
            any.window,
            any.payload,
            any.rate,
            any.seconds,
            any.spin_us,
            any.load
        ),
        table(outcomes).to_string(),
    ];
    for server in servers(outcomes) {
        let stack = |outcome: &Outcome| outcome.kernel_stack_bytes_per_connection;
        if let Some(bytes) = median(of(outcomes, server).filter_map(stack)) {
            lines.push(format!(
                "{server}: beside its memory, {:.1} kB of kernel stack for each connection",
                bytes / 1e3
            ));
        }
    }
    lines.extend(servers(outcomes).into_iter().filter_map(|server| slow_line(outcomes, server)));
    lines.extend(servers(outcomes).into_iter().filter_map(|server| large_line(outcomes, server)));
    lines.extend(lag_line(outcomes));
    lines.extend(comparisons(outcomes));
    for Outcome { row, .. } in outcomes {
        let warning = |text| format!("WARNING: {}, run {}: {text}", row.server, row.run);
        lines.extend(row.warnings.iter().map(warning));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn table(outcomes: &[Outcome]) -> Table {
    let (unit, unit_us) = latency_unit(outcomes);
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header([
        "server".to_owned(),
        "conns".to_owned(),
        "requests/s".to_owned(),
        "x raw".to_owned(),
        "server\nCPU us/req".to_owned(),
        "x raw".to_owned(),
        "client\nCPU us/req".to_owned(),
        format!("p50\n{unit}"),
        format!("p99\n{unit}"),
        format!("p99.9\n{unit}"),
        format!("max\n{unit}"),
        "memory\nB/conn".to_owned(),
        "context\nswitches".to_owned(),
        "threads".to_owned(),
        "connect\ns".to_owned(),
        "errors".to_owned(),
    ]);
    for server in servers(outcomes) {
        let of_rows = |number: fn(&Row) -> f64| {
            median(of(outcomes, server).map(|outcome| number(&outcome.row)))
        };
        let to_raw = |number: fn(&Row) -> f64| ratio(outcomes, server, ServerKind::Raw, number);
        let latency = |number: fn(&Row) -> f64| {
            shown(of_rows(number).map(|latency_us| latency_us / unit_us), 2)
        };
        let memory = of(outcomes, server).filter_map(|o| o.row.rss_bytes_per_connection);
        let errors: u64 = of(outcomes, server).map(|outcome| outcome.row.errors).sum();
        table.add_row([
            server.to_string(),
            shown(of_rows(|row| f64::from(row.connections)), 0),
            shown(of_rows(|row| row.requests_per_second), 0),
            shown(to_raw(|row| row.requests_per_second), 2),
            shown(of_rows(|row| row.server_cpu_us_per_request), 3),
            shown(to_raw(|row| row.server_cpu_us_per_request), 2),
            shown(of_rows(|row| row.client_cpu_us_per_request), 3),
            latency(|row| row.latency_us.p50),
            latency(|row| row.latency_us.p99),
            latency(|row| row.latency_us.p999),
            latency(|row| row.latency_us.max),
            shown(median(memory), 0),
            shown(of_rows(|row| count(row.context_switches)), 0),
            shown(of_rows(|row| count(row.threads)), 0),
            shown(of_rows(|row| row.connect_seconds), 2),
            errors.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Returns what the table leaves out of a server's slow calls, if there were any.
fn slow_line(outcomes: &[Outcome], server: ServerKind) -> Option<String> {
    let SlowRow { calls, offload_threads, .. } = of(outcomes, server).next()?.row.slow?;
    let slow = |number: fn(&Answers) -> f64| {
        let slow = of(outcomes, server).filter_map(|outcome| outcome.row.slow);
        shown(median(slow.map(|slow| number(&slow.answers))), 2)
    };
    let by = match offload_threads {
        Some(threads) => format!("on a pool of {threads} threads"),
        None => "where they run".to_owned(),
    };
    Some(format!(
        "{server}: the latencies above are the fast calls'; {} % block for {} us, {by}: p50 {}, \
         p99 {}, p99.9 {}, max {} ms",
        calls.percent,
        calls.us,
        slow(|answers| answers.latency_us.p50 / 1e3),
        slow(|answers| answers.latency_us.p99 / 1e3),
        slow(|answers| answers.latency_us.p999 / 1e3),
        slow(|answers| answers.latency_us.max / 1e3),
    ))
}

/// Returns what the table leaves out of a server's large calls, if there were any.
fn large_line(outcomes: &[Outcome], server: ServerKind) -> Option<String> {
    let LargeRow { calls, .. } = of(outcomes, server).next()?.row.large?;
    let large = |number: fn(&LargeRow) -> f64, decimals| {
        let large = of(outcomes, server).filter_map(|outcome| outcome.row.large);
        shown(median(large.map(|large| number(&large))), decimals)
    };
    Some(format!(
        "{server}: beside them, on {} connections, calls of {} bytes each way: {} a second, p50 {}, p99 \
         {} ms",
        calls.connections,
        calls.bytes,
        large(|large| large.requests_per_second, 0),
        large(|large| large.answers.latency_us.p50 / 1e3, 2),
        large(|large| large.answers.latency_us.p99 / 1e3, 2),
    ))
}

/// Returns how late the load was, if it had a plan.
fn lag_line(outcomes: &[Outcome]) -> Option<String> {
    let lags = outcomes.iter().filter_map(|outcome| outcome.row.send_lag_us);
    let lag = |number: fn(&Latency) -> f64| median(lags.clone().map(|lag| number(&lag)));
    Some(format!(
        "sent after it was due, of which every latency has its part: p50 {:.1}, p99 {:.1}, p99.9 {:.1} us",
        lag(|lag| lag.p50)?,
        lag(|lag| lag.p99)?,
        lag(|lag| lag.p999)?,
    ))
}

/// Returns what a person wants to know first.
fn comparisons(outcomes: &[Outcome]) -> Vec<String> {
    let compare = |other| {
        let rate = ratio(outcomes, ServerKind::Event, other, |row| row.requests_per_second)?;
        let cpu = ratio(outcomes, ServerKind::Event, other, |row| row.server_cpu_us_per_request)?;
        let connections = |server| of(outcomes, server).next().map(|o| o.row.connections);
        let note = match (connections(ServerKind::Event), connections(other)) {
            (Some(event), Some(other)) if event != other => {
                format!(" (of {event} connections beside {other}: not the same work)")
            }
            _ => String::new(),
        };
        Some(format!(
            "event/{other}: {rate:.2} in requests/s, {cpu:.2} in server CPU per request{note}"
        ))
    };
    let others = ServerKind::value_variants().iter().filter(|&&kind| kind != ServerKind::Event);
    others.filter_map(|&other| compare(other)).collect()
}

/// Returns the servers in the order in which they were first run.
fn servers(outcomes: &[Outcome]) -> Vec<ServerKind> {
    let mut servers = Vec::new();
    for outcome in outcomes {
        if !servers.contains(&outcome.row.server) {
            servers.push(outcome.row.server);
        }
    }
    servers
}

fn of(outcomes: &[Outcome], server: ServerKind) -> impl Iterator<Item = &Outcome> {
    outcomes.iter().filter(move |outcome| outcome.row.server == server)
}

/// Returns the median of `one`'s number over `other`'s of the same run.
///
/// A machine that is shared is slower in one minute than in the next: two servers are compared
/// within a run, never across runs.
fn ratio(
    outcomes: &[Outcome],
    one: ServerKind,
    other: ServerKind,
    number: fn(&Row) -> f64,
) -> Option<f64> {
    median(of(outcomes, one).filter_map(|outcome| {
        let beside = of(outcomes, other).find(|beside| beside.row.run == outcome.row.run)?;
        Some(number(&outcome.row) / number(&beside.row)).filter(|ratio| ratio.is_finite())
    }))
}

/// Returns the unit that latencies are shown in, and its microseconds.
fn latency_unit(outcomes: &[Outcome]) -> (&'static str, f64) {
    let medians = outcomes.iter().map(|outcome| outcome.row.latency_us.p50);
    if medians.fold(0.0, f64::max) >= MILLISECONDS_FROM_US { ("ms", 1e3) } else { ("us", 1.0) }
}

fn shown(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{LoadKind, Rate};

    fn outcome(server: ServerKind, run: u32, requests_per_second: f64) -> Outcome {
        let row = Row {
            server,
            workload: "W4".to_owned(),
            connections: 10_000,
            in_flight: 1,
            payload: 16,
            requests: 500,
            seconds: 5.0,
            requests_per_second,
            server_cpu_us_per_request: 1e6 / requests_per_second,
            client_cpu_us_per_request: 6.0,
            latency_us: Latency { p50: 66e3, p99: 112e3, p999: 116e3, max: 117e3 },
            slow: None,
            large: None,
            send_lag_us: None,
            warnings: Vec::new(),
            rss_bytes_per_connection: None,
            context_switches: 7,
            threads: 1,
            connect_seconds: 0.5,
            errors: u64::from(run == 2),
            load: LoadKind::Bare,
            rate: Rate::Max,
            spin_us: 0,
            window: 1,
            run,
        };
        Outcome { row, kernel_stack_bytes_per_connection: None, cut: None, hgrm: None }
    }

    #[test]
    fn servers_are_compared_within_a_run() {
        use ServerKind::{Event, Raw, Threads};
        // The machine is ten times slower in the second run, for all of them.
        let outcomes = [
            outcome(Raw, 1, 100e3),
            outcome(Event, 1, 97e3),
            outcome(Threads, 1, 48.5e3),
            outcome(Raw, 2, 10e3),
            outcome(Event, 2, 9.9e3),
            outcome(Threads, 2, 4.95e3),
        ];
        let text = render(&outcomes);
        assert!(text.contains("event/raw: 0.98 in requests/s, 1.02 in"), "{text}");
        assert!(text.contains("event/threads: 2.00 in requests/s, 0.50 in"), "{text}");
        assert!(text.contains("66.00") && text.contains("ms"), "{text}");
        let event =
            text.lines().find(|line| line.trim_start().starts_with("event ")).expect("a row");
        assert!(event.trim_end().ends_with(" 1"), "errors are added up: {event}");
    }

    #[test]
    fn unequal_work_is_said() {
        let mut outcomes =
            [outcome(ServerKind::Event, 1, 9.0), outcome(ServerKind::Threads, 1, 9.0)];
        assert!(!render(&outcomes).contains("not the same work"));
        outcomes[1].row.connections = 9_000;
        let text = render(&outcomes);
        assert!(text.contains("of 10000 connections beside 9000: not the same work"), "{text}");
    }
}
