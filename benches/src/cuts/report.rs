//! What was counted, as a table, as JSON and as a page with the chart.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use maud::{PreEscaped, html};
use serde::Serialize;

use super::count::Row;
use super::{Options, chart};
use crate::document::document;
use crate::show::grouped;

/// What the columns mean, exactly.
const DEFINITIONS: [(&str, &str); 6] = [
    (
        "calls between cuts",
        "every connection is cut after a number of bytes drawn from an exponential distribution; its \
         mean is the bytes of that many calls, both directions and handshakes together",
    ),
    ("run once", "the call's handler took effect once"),
    ("run twice", "it took effect twice or more"),
    (
        "lost",
        "it took no effect, though its caller wanted it to and got no success: either the caller was \
         told that it did not run, or it cannot know",
    ),
    (
        "untold",
        "of those run once: the caller got no success, so it knows neither that nor the reply",
    ),
    (
        "wrong",
        "the caller was told what is not so: success without an effect, \"did not run\" with one, the \
         reply of another call, or two ends of one call",
    ),
];
const HEADER: [&str; 11] = [
    "calls\nbetween cuts",
    "policy",
    "cuts",
    "calls",
    "run once",
    "run twice",
    "lost,\nnot run",
    "lost,\nunknown",
    "untold",
    "wrong",
    "s",
];

/// All that was counted.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) calls: u32,
    pub(super) clients: u32,
    pub(super) in_flight: u32,
    pub(super) seed: u64,
    /// Bytes on the wire of a call and its reply, measured without cuts.
    pub(super) bytes_per_call: u64,
    pub(super) rows: Vec<Row>,
    #[serde(skip)]
    command: String,
}

impl Report {
    pub(super) fn new(options: &Options, bytes_per_call: u64, rows: Vec<Row>) -> Report {
        let levels: Vec<String> = options
            .cut_every
            .iter()
            .map(|level| level.0.map_or_else(|| "none".to_owned(), |calls| calls.to_string()))
            .collect();
        let command = format!(
            "cargo run --release -- cuts --calls {} --cut-every {} --clients {} --in-flight {} --seed {}",
            options.calls,
            levels.join(","),
            options.clients,
            options.in_flight,
            options.seed
        );
        let Options { calls, clients, in_flight, seed, .. } = *options;
        Report { calls, clients, in_flight, seed, bytes_per_call, rows, command }
    }

    /// Returns whether every policy did what it promises.
    pub(super) fn is_kept(&self) -> bool {
        self.rows.iter().all(Row::is_kept)
    }

    /// Returns under what load the calls were made, in one sentence.
    pub(super) fn load(&self) -> String {
        format!(
            "{} calls for each policy and level: {} clients with {} in flight each, {} bytes a call \
             and its reply, over loopback",
            grouped(self.calls.into()),
            self.clients,
            self.in_flight,
            self.bytes_per_call
        )
    }

    /// Prints the table and what it means.
    pub(super) fn print(&self) -> Result<()> {
        let mut table = Table::new();
        let line = LineStyle::none().fill('─').junction('─');
        table.load_style(presets::NOTHING.header_separator(line)).set_header(HEADER);
        for row in &self.rows {
            table.add_row(cells(row));
        }
        for column in [0].into_iter().chain(2..HEADER.len()) {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = format!("{}\n{table}\n", self.load());
        for (name, meaning) in DEFINITIONS {
            text.push_str(&format!("{name}: {meaning}.\n"));
        }
        for row in self.rows.iter().filter(|row| !row.is_kept()) {
            let (policy, level, tally) = (row.policy, row.calls_per_cut, row.tally);
            text.push_str(&format!("NOT AS PROMISED: {policy}, {level}: {tally:?}\n"));
        }
        io::stdout().lock().write_all(text.as_bytes()).context("printing the table")
    }

    /// Writes the chart, alone and in a page with the table, to `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let chart = chart::draw(self)?;
        for (name, text) in [("index.html", self.page(&chart)), ("cuts.svg", chart)] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn page(&self, chart: &str) -> String {
        let body = html! {
            (PreEscaped(chart))
            p { (self.load()) ". Made by " code { (self.command) } "." }
            table {
                tr { @for head in HEADER { th { (head) } } }
                @for row in &self.rows { tr { @for text in cells(row) { td { (text) } } } }
            }
            dl { @for (name, meaning) in DEFINITIONS { dt { (name) } dd { (meaning) "." } } }
        };
        document(chart::TITLE, STYLE, &body)
    }
}

const STYLE: &str = "th{white-space:pre-line}td:nth-child(2),th:nth-child(2){text-align:left}\
    dt{font-weight:bold}";

fn cells(row: &Row) -> [String; 11] {
    let tally = &row.tally;
    [
        row.calls_per_cut.to_string(),
        row.policy.to_string(),
        grouped(row.cuts),
        grouped(tally.calls),
        grouped(tally.run_once),
        grouped(tally.run_twice),
        grouped(tally.lost_not_run),
        grouped(tally.lost_unknown),
        grouped(tally.run_untold),
        grouped(tally.wrong),
        format!("{:.1}", row.seconds),
    ]
}
