//! The tables: a row for each trial of a group, columns by section.

use super::plan::{Group, Section};
use super::store::Stored;
use super::view::{View, views};
use crate::message::{Latency, Row};
use crate::options::Rate;
use crate::show::{digits, grouped};
use crate::stats::{Spread, count, median};

/// What stands in one place of a table.
pub(super) struct Cell {
    pub(super) text: String,
    /// The least and the greatest of the runs.
    pub(super) range: Option<String>,
}

pub(super) struct Column {
    pub(super) head: &'static str,
    cell: fn(&View<'_>) -> Cell,
}

/// A group's table.
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// What stands where nothing was measured.
pub(super) const NOTHING: &str = "\u{2013}";

fn plain(text: Option<String>) -> Cell {
    Cell { text: text.unwrap_or_else(|| NOTHING.to_owned()), range: None }
}

fn spread(spread: Option<Spread>, text: fn(f64) -> String) -> Cell {
    let range = spread.map(|s| format!("{}\u{2026}{}", text(s.least), text(s.greatest)));
    Cell { range, ..plain(spread.map(|spread| text(spread.median))) }
}

pub(super) fn times(number: f64) -> String {
    format!("{number:.2}")
}

const SERVER: Column =
    Column { head: "server", cell: |view| plain(Some(view.trial.label.clone())) };
const CONNECTIONS: Column = Column {
    head: "connections",
    cell: |view| plain(view.any().map(|row| grouped(row.connections.into()))),
};
const RATE: Column = Column {
    head: "requests/s",
    cell: |view| spread(view.spread(|row| row.requests_per_second), digits),
};
const RATE_RATIO: Column = Column {
    head: "\u{d7} raw",
    cell: |view| spread(view.ratio(|row| row.requests_per_second), times),
};
const DUE: Column = Column {
    head: "calls due/s",
    cell: |view| {
        plain(
            view.median(|row| match row.rate {
                Rate::Max => f64::NAN,
                Rate::PerSecond(rate) => rate,
            })
            .map(digits),
        )
    },
};
const BYTES: Column = Column {
    head: "MB/s each way",
    cell: |view| {
        let megabytes = |row: &Row| row.requests_per_second * count(row.payload) / 1e6;
        spread(view.spread(megabytes), digits)
    },
};
const CPU: Column = Column {
    head: "server CPU \u{b5}s/request",
    cell: |view| spread(view.spread(|row| row.server_cpu_us_per_request), digits),
};
const CPU_RATIO: Column = Column {
    head: "\u{d7} raw",
    cell: |view| spread(view.ratio(|row| row.server_cpu_us_per_request), times),
};
const CLIENT: Column = Column {
    head: "client CPU \u{b5}s/call",
    cell: |view| spread(view.spread(|row| row.client_cpu_us_per_request), digits),
};
const CLIENT_RATIO: Column = Column {
    head: "\u{d7} bare load on raw",
    cell: |view| spread(view.ratio(|row| row.client_cpu_us_per_request), times),
};
const P50: Column = Column {
    head: "p50 \u{b5}s",
    cell: |view| spread(view.spread(|row| row.latency_us.p50), digits),
};
const P99: Column = Column {
    head: "p99 \u{b5}s",
    cell: |view| spread(view.spread(|row| row.latency_us.p99), digits),
};
const P999: Column = Column {
    head: "p99.9 \u{b5}s",
    cell: |view| spread(view.spread(|row| row.latency_us.p999), digits),
};
const SLOW_P50: Column = Column { head: "slow: p50 \u{b5}s", cell: |view| slow(view, |l| l.p50) };
const SLOW_P99: Column = Column { head: "slow: p99 \u{b5}s", cell: |view| slow(view, |l| l.p99) };
const LARGE_RATE: Column = Column {
    head: "large: calls/s",
    cell: |view| {
        let of = |row: &Row| row.large.map_or(f64::NAN, |large| large.requests_per_second);
        spread(view.spread(of), digits)
    },
};
const LARGE_P50: Column =
    Column { head: "large: p50 \u{b5}s", cell: |view| large(view, |l| l.p50) };
const LARGE_P99: Column =
    Column { head: "large: p99 \u{b5}s", cell: |view| large(view, |l| l.p99) };
const MEMORY: Column = Column {
    head: "memory B/connection",
    cell: |view| {
        let mut cell = plain(memory(view).map(digits));
        let stack = view.entries().filter_map(|entry| entry.kernel_stack_bytes_per_connection);
        cell.range = median(stack).map(|bytes| format!("+ {} kernel stack", digits(bytes)));
        cell
    },
};
const SWITCHES: Column =
    Column { head: "context switches/s", cell: |view| plain(view.median(switches).map(digits)) };
const WINDOW: Column =
    Column { head: "window", cell: |view| plain(view.any().map(|row| grouped(row.window.into()))) };
const IN_FLIGHT: Column = Column {
    head: "in flight",
    cell: |view| plain(view.any().map(|row| grouped(row.in_flight.into()))),
};
const RUNS: Column = Column {
    head: "runs",
    cell: |view| {
        let failed = view.entries().filter(|entry| entry.failure.is_some()).count();
        let range = (failed > 0).then(|| format!("{failed} failed"));
        Cell { range, ..plain(Some(view.rows().count().to_string())) }
    },
};
const ERRORS: Column = Column {
    head: "errors",
    cell: |view| plain(Some(grouped(view.rows().map(|row| row.errors).sum()))),
};

/// Returns a latency of the calls whose handler blocks.
fn slow(view: &View<'_>, number: fn(&Latency) -> f64) -> Cell {
    let of = |row: &Row| row.slow.map_or(f64::NAN, |slow| number(&slow.answers.latency_us));
    spread(view.spread(of), digits)
}

/// Returns a latency of the large calls.
fn large(view: &View<'_>, number: fn(&Latency) -> f64) -> Cell {
    let of = |row: &Row| row.large.map_or(f64::NAN, |large| number(&large.answers.latency_us));
    spread(view.spread(of), digits)
}

/// Returns a trial's bytes a connection.
pub(super) fn memory(view: &View<'_>) -> Option<f64> {
    median(view.rows().filter_map(|row| row.rss_bytes_per_connection))
}

pub(super) fn switches(row: &Row) -> f64 {
    count(row.context_switches) / row.seconds
}

fn columns(section: Section) -> Vec<Column> {
    let middle = match section {
        Section::Client => vec![RATE, CLIENT, CLIENT_RATIO, CPU, CPU_RATIO, P50, P99, P999],
        Section::OpenLoop => vec![DUE, RATE, CPU, CPU_RATIO, P50, P99, P999],
        Section::Large => vec![RATE, P50, P99, P999, LARGE_RATE, LARGE_P50, LARGE_P99],
        Section::Mix => vec![RATE, CPU, P50, P99, P999, SLOW_P50, SLOW_P99, SWITCHES],
        Section::Payloads => vec![RATE, RATE_RATIO, BYTES, CPU, CPU_RATIO, CLIENT, P50, P99],
        Section::Connections => {
            vec![CONNECTIONS, RATE, RATE_RATIO, CPU, CPU_RATIO, CLIENT, P50, P99, P999, MEMORY]
        }
        Section::Workloads | Section::Models | Section::Slo => {
            vec![RATE, RATE_RATIO, CPU, CPU_RATIO, CLIENT, P50, P99, P999, MEMORY, SWITCHES]
        }
    };
    [SERVER].into_iter().chain(middle).chain([WINDOW, IN_FLIGHT, RUNS, ERRORS]).collect()
}

/// Returns the table of a group.
pub(super) fn table(stored: &Stored, section: Section, group: &Group) -> Table {
    let columns = columns(section);
    let row = |view: View<'_>| columns.iter().map(|column| (column.cell)(&view)).collect();
    let rows = views(stored, section, group).map(row).collect();
    Table { columns, rows }
}
