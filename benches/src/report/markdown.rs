//! `tables.md`: the tables of `docs/BENCHMARKS.md`, each under its heading there, so that what stands in
//! that document is what a report has measured.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::plan::{Group, Part, Section, Trial};
use super::store::Stored;
use super::tables::{NOTHING, memory, times};
use super::view::{View, views};
use crate::message::{Latency, Row};
use crate::options::{LoadKind, Options, ServerKind};
use crate::show::{self, digits, grouped, rounded};
use crate::slo;
use crate::stats::count;

/// The name of the file.
pub(super) const FILE: &str = "tables.md";

/// Makes tables of a section.
type Make = fn(&Sheet<'_>) -> Vec<Grid>;

/// The headings, in the document's order, and what stands below them.
const CHAPTERS: [(&str, &[(Section, Make)]); 8] = [
    ("C10k", &[(Section::Workloads, |sheet| sheet.c10k())]),
    ("Shapes", &[(Section::Workloads, |sheet| sheet.shapes())]),
    ("The client", &[(Section::Client, |sheet| sheet.client())]),
    (
        "From one connection to the most that the machine holds",
        &[(Section::Connections, |sheet| sheet.connections())],
    ),
    ("Payloads", &[(Section::Payloads, |sheet| sheet.payloads())]),
    (
        "At a fixed rate",
        &[(Section::OpenLoop, |sheet| sheet.open_loop()), (Section::Slo, |sheet| sheet.slo())],
    ),
    ("Slow handlers among fast ones", &[(Section::Mix, |sheet| sheet.mix())]),
    ("Large messages beside small ones", &[(Section::Large, |sheet| sheet.large())]),
];

/// The peers from the least to the most that a request costs, by and large.
const PEERS: [ServerKind; 5] =
    [ServerKind::Redis, ServerKind::Tarpc, ServerKind::Capnp, ServerKind::Go, ServerKind::Tonic];

/// Writes the tables to `folder`.
pub(super) fn write(stored: &Stored, folder: &Path) -> Result<()> {
    let path = folder.join(FILE);
    fs::write(&path, text(stored)).with_context(|| format!("writing {}", path.display()))
}

/// Returns the tables of all sections that there are.
fn text(stored: &Stored) -> String {
    let mut blocks = Vec::new();
    for (heading, parts) in CHAPTERS {
        let grids = parts.iter().flat_map(|(section, make)| {
            let made = stored.sections.iter().find(|made| made.part.section == *section);
            made.map_or_else(Vec::new, |made| make(&Sheet { stored, part: &made.part }))
        });
        let grids: Vec<String> = grids.map(|grid| grid.to_string()).collect();
        if !grids.is_empty() {
            blocks.push(format!("## {heading}\n"));
            blocks.extend(grids);
        }
    }
    blocks.join("\n")
}

/// A table of text.
struct Grid {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    fn new(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Grid {
        Grid { head: head.iter().map(|&name| name.to_owned()).collect(), rows: rows.collect() }
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.head.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.head.len()))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// What the tables of one section are made of.
struct Sheet<'a> {
    stored: &'a Stored,
    part: &'a Part,
}

impl<'a> Sheet<'a> {
    fn views(&self, group: &'a Group) -> impl Iterator<Item = View<'a>> + Clone + use<'a> {
        views(self.stored, self.part.section, group)
    }

    /// Returns a table with a row for each group, which `name` names, and a column for each server.
    fn by_server(
        &self,
        head: &str,
        servers: &[ServerKind],
        groups: &[&'a Group],
        name: impl Fn(&'a Group) -> String,
        cell: impl Fn(&View<'a>) -> Option<String>,
    ) -> Grid {
        let row = |&group: &&'a Group| {
            let of = |&server: &ServerKind| {
                let view = self.views(group).find(|view| view.trial.server == server);
                or_nothing(view.and_then(|view| cell(&view)))
            };
            [name(group)].into_iter().chain(servers.iter().map(of)).collect()
        };
        let names = servers.iter().map(ServerKind::to_string);
        let head = [head.to_owned()].into_iter().chain(names).collect();
        Grid { head, rows: groups.iter().map(row).collect() }
    }

    fn c10k(&self) -> Vec<Grid> {
        let head = [
            "server",
            "requests/s",
            "\u{d7} raw",
            "server \u{b5}s/request",
            "\u{d7} raw",
            "p50 / p99 / p99.9",
            "bytes a connection",
            "errors",
        ];
        let row = |view: View<'_>| {
            let server = view.trial.server;
            let ratio = |number: fn(&Row) -> f64| match server {
                ServerKind::Raw => Some(times(1.0)),
                _ => view.ratio(number).map(|ratio| times(ratio.median)),
            };
            let cpu_ratio = or_nothing(ratio(|row| row.server_cpu_us_per_request));
            vec![
                bold_if_ours(server, server.to_string()),
                or_nothing(view.median(|row| row.requests_per_second).map(rounded)),
                or_nothing(ratio(|row| row.requests_per_second)),
                or_nothing(view.median(|row| row.server_cpu_us_per_request).map(times)),
                bold_if_ours(server, cpu_ratio),
                or_nothing(latencies(&view)),
                or_nothing(memory(&view).map(rounded)),
                grouped(view.rows().map(|row| row.errors).sum()),
            ]
        };
        let groups = self.part.groups.iter().filter(|group| is_c10k(group));
        groups.map(|group| Grid::new(&head, self.views(group).map(row))).collect()
    }

    fn shapes(&self) -> Vec<Grid> {
        let groups = self.part.groups.iter().filter(|group| !is_c10k(group));
        let groups: Vec<&Group> = groups.collect();
        let mut servers = self.part.servers();
        servers.sort_by_key(|server| PEERS.iter().position(|peer| peer == server));
        let name = |group: &Group| {
            let flags = group.trials.first().map_or("", |trial| &trial.flags);
            format!("{}: `{flags}`", short_name(group))
        };
        let cpu = |view: &View<'_>| {
            let cpu = micros(view.median(|row| row.server_cpu_us_per_request)?);
            let ratio = cpu_ratio(view).map(|ratio| bold_if_ours(view.trial.server, ratio));
            Some(with_note(cpu, ratio))
        };
        let rate = |view: &View<'_>| {
            let rate = show::rate(view.median(|row| row.requests_per_second)?);
            Some(format!("{rate}, {}", show::latency(view.median(|row| row.latency_us.p50)?)))
        };
        let short = |group: &Group| short_name(group).to_owned();
        let head = "server CPU, \u{b5}s/request (\u{d7} raw)";
        vec![
            self.by_server(head, &servers, &groups, name, cpu),
            self.by_server("requests/s, p50", &servers, &groups, short, rate),
        ]
    }

    fn client(&self) -> Vec<Grid> {
        let head = [
            "shape",
            "server",
            "requests/s",
            "client \u{b5}s/call",
            "bare load's \u{b5}s/call: ready-made frames",
        ];
        let row = |group: &'a Group, view: View<'_>| {
            let is_beside = |other: &View<'_>| {
                other.trial.server == view.trial.server && load(other.trial) == Some(LoadKind::Bare)
            };
            let client =
                |view: &View<'_>| view.median(|row| row.client_cpu_us_per_request).map(micros);
            vec![
                group.name.clone(),
                view.trial.server.to_string(),
                or_nothing(view.median(|row| row.requests_per_second).map(rounded)),
                or_nothing(client(&view)),
                or_nothing(self.views(group).find(is_beside).and_then(|bare| client(&bare))),
            ]
        };
        let rows = self.part.groups.iter().flat_map(|group| {
            let views = self.views(group);
            let ours = views.filter(|view| load(view.trial) == Some(LoadKind::Client));
            ours.map(move |view| row(group, view))
        });
        vec![Grid::new(&head, rows)]
    }

    /// Returns a table for each number of calls in flight, in all or on each connection.
    fn connections(&self) -> Vec<Grid> {
        let servers = self.part.servers();
        let name = |group: &Group| {
            let asked = options(group);
            or_nothing(asked.map(|asked| {
                let (connections, in_flight) = (asked.connections, asked.in_flight);
                format!("{} \u{d7} {}", grouped(connections.into()), grouped(in_flight.into()))
            }))
        };
        let cell = |view: &View<'_>| {
            let rate = show::rate(view.median(|row| row.requests_per_second)?);
            let there = view.any()?.connections;
            let is_cut = view.trial.options(&[]).is_ok_and(|asked| there < asked.connections);
            let cut = is_cut.then(|| format!("of {}", grouped(there.into())));
            Some(with_note(with_note(rate, cpu_ratio(view)), cut))
        };
        let table = |line: &'a str| {
            let groups: Vec<&Group> = self.part.on_line(line).collect();
            self.by_server(&format!("connections, {line}"), &servers, &groups, name, cell)
        };
        self.part.lines().into_iter().map(table).collect()
    }

    fn payloads(&self) -> Vec<Grid> {
        let groups: Vec<&Group> = self.part.groups.iter().collect();
        let name =
            |group: &Group| or_nothing(options(group).map(|options| grouped(options.payload)));
        let cell = |view: &View<'_>| {
            let rate = view.median(|row| row.requests_per_second)?;
            // As many bytes back as forth.
            let megabytes = rate * 2.0 * count(view.any()?.payload) / 1e6;
            let text = format!("{:.1} k, {} MB/s", rate / 1e3, rounded(megabytes));
            Some(with_note(text, cpu_ratio(view)))
        };
        vec![self.by_server("bytes each way", &self.part.servers(), &groups, name, cell)]
    }

    fn open_loop(&self) -> Vec<Grid> {
        let percent =
            |group: &Group| group.trials.first().and_then(|trial: &Trial| trial.rate_percent);
        let groups = self.part.groups.iter().filter(|group| percent(group).is_some());
        let groups: Vec<&Group> = groups.collect();
        let name =
            |group: &Group| format!("{}, {} %", group.line, percent(group).unwrap_or_default());
        let cell = |view: &View<'_>| {
            let rate = show::rate(view.median(|row| row.requests_per_second)?);
            Some(format!("{rate}/s: {}", latencies(view)?))
        };
        let head = "shape, share of its own rate";
        vec![self.by_server(head, &self.part.servers(), &groups, name, cell)]
    }

    fn slo(&self) -> Vec<Grid> {
        let answers = &self.stored.slo;
        if answers.is_empty() {
            return Vec::new();
        }
        let cell = |answer: &slo::Answer| {
            or_nothing(answer.rate.map(|rate| format!("{} calls/s", rounded(rate))))
        };
        let head = answers.iter().map(|answer| answer.server.to_string()).collect();
        vec![Grid { head, rows: vec![answers.iter().map(cell).collect()] }]
    }

    fn mix(&self) -> Vec<Grid> {
        let head = ["load", "server", "calls/s", "fast p50 / p99 / p99.9", "slow p50"];
        let row = |view: View<'_>| {
            let flags = &view.trial.flags;
            let load = flags.split_once(" --slow-percent").map_or(flags.as_str(), |(load, _)| load);
            let slow = |row: &Row| row.slow.map_or(f64::NAN, |slow| slow.answers.latency_us.p50);
            vec![
                format!("`{load}`"),
                view.trial.label.clone(),
                or_nothing(view.median(|row| row.requests_per_second).map(rounded)),
                or_nothing(latencies(&view)),
                or_nothing(view.median(slow).map(show::latency)),
            ]
        };
        let views = self.part.groups.iter().flat_map(|group| self.views(group));
        vec![Grid::new(&head, views.map(row))]
    }

    fn large(&self) -> Vec<Grid> {
        let head = ["server", "small calls/s", "p50 / p99 / p99.9 of small calls", "large calls/s"];
        let row = |view: View<'_>| {
            let large = |row: &Row| row.large.map_or(f64::NAN, |large| large.requests_per_second);
            vec![
                view.trial.label.clone(),
                or_nothing(view.median(|row| row.requests_per_second).map(rounded)),
                or_nothing(latencies(&view)),
                or_nothing(view.median(large).map(rounded)),
            ]
        };
        let views = self.part.groups.iter().flat_map(|group| self.views(group));
        vec![Grid::new(&head, views.map(row))]
    }
}

fn or_nothing(text: Option<String>) -> String {
    text.unwrap_or_else(|| NOTHING.to_owned())
}

fn with_note(text: String, note: Option<String>) -> String {
    match note {
        Some(note) => format!("{text} ({note})"),
        None => text,
    }
}

/// Returns the text in bold letters where it is of the server that all is about.
fn bold_if_ours(server: ServerKind, text: String) -> String {
    if server == ServerKind::Event { format!("**{text}**") } else { text }
}

/// Returns a workload's name without what it stands for: `W1` of `W1: 1 connection x 1`.
fn short_name(group: &Group) -> &str {
    group.name.split_once(':').map_or(&group.name, |(name, _)| name)
}

fn is_c10k(group: &Group) -> bool {
    short_name(group) == "W4"
}

/// Returns what is asked of a group's servers, of the first for all.
fn options(group: &Group) -> Option<Options> {
    group.trials.first()?.options(&[]).ok()
}

fn load(trial: &Trial) -> Option<LoadKind> {
    Some(trial.options(&[]).ok()?.load)
}

/// Returns a trial's CPU time beside the bare server's; nothing for that one.
fn cpu_ratio(view: &View<'_>) -> Option<String> {
    view.ratio(|row| row.server_cpu_us_per_request).map(|ratio| factor(ratio.median))
}

/// Returns a ratio without decimals that tell nothing: `1.04`, `38`.
fn factor(ratio: f64) -> String {
    if ratio < 9.995 { times(ratio) } else { rounded(ratio) }
}

/// Returns microseconds of CPU time, which is not known better than to a nanosecond.
fn micros(us: f64) -> String {
    if us < 1.0 { format!("{us:.3}") } else { digits(us) }
}

/// Returns the medians of the three percentiles.
fn latencies(view: &View<'_>) -> Option<String> {
    let of = |number: fn(&Latency) -> f64| view.median(|row| number(&row.latency_us));
    let percentiles = [of(|l| l.p50)?, of(|l| l.p99)?, of(|l| l.p999)?];
    Some(percentiles.map(show::latency).join(" / "))
}

#[cfg(test)]
mod tests;
