//! The plots of a section.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use super::plan::{Group, Part, Section, Trial};
use super::spectrum::Spectrum;
use super::store::Stored;
use super::tables::{memory, switches};
use super::view::{View, views};
use crate::chart::{Axis, Bar, BarPanel, Head, Line, Look, Panel, draw_bars, draw_lines};
use crate::message::Row;
use crate::options::ServerKind;
use crate::show;
use crate::slo;
use crate::stats::count;

/// A plot, and the name of its file.
pub(super) struct Figure {
    pub(super) file: &'static str,
    pub(super) title: String,
    pub(super) svg: String,
}

/// Returns the plots of a section.
pub(super) fn figures(stored: &Stored, part: &Part, folder: &Path) -> Result<Vec<Figure>> {
    let plot = Plot { stored, part };
    match part.section {
        Section::Connections => plot.connections(),
        Section::Large => plot.large(folder),
        Section::Mix => plot.mix(folder),
        Section::Models => plot.models(),
        Section::OpenLoop => plot.open_loop(folder),
        Section::Payloads => plot.payloads(),
        Section::Slo => plot.slo(),
        Section::Client | Section::Workloads => Ok(Vec::new()),
    }
}

/// What the plots of one section are made of.
struct Plot<'a> {
    stored: &'a Stored,
    part: &'a Part,
}

/// Returns how a server is drawn, everywhere.
fn look(server: ServerKind) -> Look {
    let all = ServerKind::value_variants();
    Look::of(all.iter().position(|other| *other == server).unwrap_or(0))
}

/// Returns what a group's trials are called and how they are drawn, where a server has more than one.
fn ways(group: &Group) -> Vec<(String, Look)> {
    let way = |(place, trial): (usize, &Trial)| {
        let before = group.trials[..place].iter().filter(|other| other.server == trial.server);
        (trial.label.clone(), look(trial.server).variant(before.count()))
    };
    group.trials.iter().enumerate().map(way).collect()
}

impl<'a> Plot<'a> {
    fn views(&self, group: &'a Group) -> impl Iterator<Item = View<'a>> + use<'a> {
        views(self.stored, self.part.section, group)
    }

    /// Returns the servers, in order, and how they are drawn.
    fn legend(&self) -> Vec<(String, Look)> {
        self.part.servers().into_iter().map(|server| (server.to_string(), look(server))).collect()
    }

    fn head(&self, title: &str, note: &str) -> Head {
        Head { title: title.to_owned(), note: note.to_owned(), legend: self.legend() }
    }

    /// Returns a line for each server, with a point for each of its groups.
    fn lines(
        &self,
        groups: &[&'a Group],
        x: impl Fn(&Row) -> f64,
        y: impl Fn(&Row) -> Option<f64>,
    ) -> Vec<Line> {
        let line = |server: ServerKind| {
            let mut line = Line {
                look: look(server),
                points: Vec::new(),
                marks: Vec::new(),
                spreads: Vec::new(),
            };
            for view in groups.iter().flat_map(|group| self.views(group)) {
                if view.trial.server != server {
                    continue;
                }
                let spread = view.spread(|row| y(row).unwrap_or(f64::NAN));
                if let (Some(at), Some(spread)) = (view.median(&x), spread) {
                    line.points.push((at, spread.median));
                    line.spreads.push((at, spread.least, spread.greatest));
                }
            }
            line.marks.clone_from(&line.points);
            line
        };
        self.part.servers().into_iter().map(line).collect()
    }

    fn connections(&self) -> Result<Vec<Figure>> {
        let note = "Medians; strokes from the least to the greatest run. Server on one core, load on \
                    the other.";
        let two = |file, title: &str, unit: &str, number: fn(&Row) -> f64| {
            let panels = self.part.lines().into_iter().map(|name| {
                let lines = self.lines(
                    &self.part.on_line(name).collect::<Vec<_>>(),
                    |row| row.connections.into(),
                    |row| Some(number(row)),
                );
                by_connections(name, unit, lines)
            });
            let svg = draw_lines(&self.head(title, note), &panels.collect::<Vec<_>>(), 2)?;
            anyhow::Ok(Figure { file, title: title.to_owned(), svg })
        };
        let title = "Memory of the server for each connection";
        let first = self.part.lines().first().copied().unwrap_or_default();
        let alone: Vec<&Group> = self.part.on_line(first).collect();
        let lines =
            self.lines(&alone, |row| row.connections.into(), |row| row.rss_bytes_per_connection);
        let panel = by_connections("idle, after one call each", "bytes a connection", lines);
        let head = self.head(
            title,
            "RssAnon, as the slope from the first connections to all; without the kernel's sockets and \
             stacks.",
        );
        let memory = draw_lines(&head, &[panel], 1)?;
        Ok(vec![
            two("throughput.svg", "Throughput against connections", "requests/s", |row| {
                row.requests_per_second
            })?,
            two("cpu.svg", "Server CPU against connections", "CPU \u{b5}s a request", |row| {
                row.server_cpu_us_per_request
            })?,
            Figure { file: "memory.svg", title: title.to_owned(), svg: memory },
        ])
    }

    fn payloads(&self) -> Result<Vec<Figure>> {
        let groups: Vec<&Group> = self.part.groups.iter().collect();
        let lines = |number: fn(&Row) -> f64| {
            self.lines(&groups, |row| count(row.payload), |row| Some(number(row)))
        };
        let panel = |title: &str, unit: &str, lines: Vec<Line>| {
            let ticks =
                x_values(&lines).into_iter().map(|bytes| (bytes, whole(bytes, show::bytes)));
            Panel {
                title: title.to_owned(),
                x: Axis::log_at(
                    "payload of a call and of its reply",
                    ticks.collect(),
                    x_values(&lines).into_iter(),
                ),
                y: Axis::log(unit, y_values(&lines).into_iter()),
                lines,
            }
        };
        let panels = [
            panel("Calls", "requests/s", lines(|row| row.requests_per_second)),
            panel(
                "Bytes",
                "MB/s each way",
                lines(|row| row.requests_per_second * count(row.payload) / 1e6),
            ),
            panel("Server", "CPU \u{b5}s a request", lines(|row| row.server_cpu_us_per_request)),
            panel("Latency, p99", "ms", lines(|row| row.latency_us.p99 / 1e3)),
        ];
        let title = "Payloads of 16 bytes to 1 MiB";
        let note = "Each connection has one call in flight. Medians; strokes from the least to the \
                    greatest run.";
        let svg = draw_lines(&self.head(title, note), &panels, 2)?;
        Ok(vec![Figure { file: "payloads.svg", title: title.to_owned(), svg }])
    }

    /// Returns the spectra: a figure for each workload, a panel for each rate.
    fn open_loop(&self, folder: &Path) -> Result<Vec<Figure>> {
        let files = ["latency-w4.svg", "latency-w5b.svg"];
        let figure = |(name, file): (&str, &'static str)| {
            let panels = self.part.on_line(name).map(|group| self.spectrum(group, folder));
            let title = format!("Latency of {name} by how many calls were faster");
            let note = "Open loop: from when a call was due. Closed loop: from its write. Medians of the \
                        runs; the further right, the rarer.";
            let svg = draw_lines(&self.head(&title, note), &panels.collect::<Vec<_>>(), 2)?;
            anyhow::Ok(Figure { file, title, svg })
        };
        self.part.lines().into_iter().zip(files).map(figure).collect()
    }

    fn spectrum(&self, group: &'a Group, folder: &Path) -> Panel {
        spectrum_panel(&group.name, spectra(self.views(group), folder))
    }

    /// Returns the spectra of small calls, alone and beside large ones.
    fn large(&self, folder: &Path) -> Result<Vec<Figure>> {
        let Some(group) = self.part.groups.first() else { return Ok(Vec::new()) };
        let of = |is_beside| {
            let views = self.views(group).filter(move |v| v.trial.is_beside_large() == is_beside);
            spectra(views, folder)
        };
        let title = format!("Latency of small calls beside large ones: {}", group.name);
        let note = "From when a call was due. Medians of the runs; the further right, the rarer.";
        let panels = [
            spectrum_panel("small calls alone", of(false)),
            spectrum_panel("beside four connections with calls of 1 MiB", of(true)),
        ];
        let svg = draw_lines(&self.head(&title, note), &panels, 2)?;
        Ok(vec![Figure { file: "large.svg", title, svg }])
    }

    /// Returns how many of the fast calls were answered within which time.
    fn mix(&self, folder: &Path) -> Result<Vec<Figure>> {
        let figure = |(group, file): (&'a Group, &'static str)| {
            let title = format!("Latency of the fast calls: {}", group.name);
            let looks = ways(group);
            let line = |(view, (_, look)): (View<'_>, &(String, Look))| {
                let points = Spectrum::read(&view, folder).distribution();
                let marks = points.iter().copied().filter(|(_, share)| share % 20.0 == 10.0);
                Line {
                    look: *look,
                    marks: marks.collect(),
                    points: points.clone(),
                    spreads: Vec::new(),
                }
            };
            let lines: Vec<Line> = self.views(group).zip(&looks).map(line).collect();
            let panel = Panel {
                title: "1 % of the calls have a handler that blocks for 5 ms; these are the others"
                    .to_owned(),
                x: Axis::log("latency in ms", x_values(&lines).into_iter()),
                y: Axis::linear("% of the calls answered within it", [100.0].into_iter()),
                lines,
            };
            let note = "Medians of the runs. The further left, the better.".to_owned();
            let head = Head { title: title.clone(), note, legend: looks };
            anyhow::Ok(Figure { file, title, svg: draw_lines(&head, &[panel], 1)? })
        };
        let files = ["mix-closed.svg", "mix-rate.svg", "mix-window.svg"];
        self.part.groups.iter().zip(files).map(figure).collect()
    }

    /// Returns the servers side by side, in bars.
    fn models(&self) -> Result<Vec<Figure>> {
        let Some(group) = self.part.groups.first() else { return Ok(Vec::new()) };
        let panel = |title: &str, note: &str, number: fn(&View<'_>) -> Option<f64>| {
            let bar = |view: View<'_>| {
                let number = number(&view);
                let text = number.map_or_else(|| "not measured".to_owned(), show::digits);
                Bar { name: view.trial.label.clone(), look: look(view.trial.server), number, text }
            };
            let bars = self.views(group).map(bar).collect();
            BarPanel { title: title.to_owned(), note: note.to_owned(), bars }
        };
        let panels = [
            panel("CPU", "\u{b5}s of the server for each request", |view| {
                view.median(|row| row.server_cpu_us_per_request)
            }),
            panel(
                "Memory",
                "bytes of the server for each connection, without the kernel's",
                memory,
            ),
            panel(
                "Latency, p99",
                "ms from the write of a call to its reply, closed loop",
                |view| view.median(|row| row.latency_us.p99 / 1e3),
            ),
            panel("Context switches", "a second, of all threads of the server", |view| {
                view.median(switches)
            }),
        ];
        let title = format!("The servers side by side: {}", group.name);
        let note = "Medians. Less is better in every panel.".to_owned();
        let head = Head { title: title.clone(), note, legend: Vec::new() };
        Ok(vec![Figure { file: "models.svg", title, svg: draw_bars(&head, &panels)? }])
    }

    /// Returns the highest rates within the bound, beside what the closed loop reaches.
    fn slo(&self) -> Result<Vec<Figure>> {
        let panel = |title: &str, note: &str, number: fn(&slo::Answer) -> Option<f64>| {
            let bar = |answer: &slo::Answer| {
                let number = number(answer);
                let text = number.map_or_else(|| "none".to_owned(), show::digits);
                Bar { name: answer.server.to_string(), look: look(answer.server), number, text }
            };
            let bars = self.stored.slo.iter().map(bar).collect();
            BarPanel { title: title.to_owned(), note: note.to_owned(), bars }
        };
        let panels = [
            panel("Within the bound", "calls/s, open loop", |answer| answer.rate),
            panel("Without a bound", "requests/s, closed loop", |answer| Some(answer.ceiling)),
        ];
        let Some(slo::Question { p999_us, connections, .. }) =
            self.stored.slo.first().map(|answer| answer.question)
        else {
            return Ok(Vec::new());
        };
        let title = format!(
            "The highest rate with p99.9 of at most {} ms, {} connections",
            show::short(count(p999_us) / 1e3),
            show::grouped(connections.into())
        );
        let note = "More is better in both panels.".to_owned();
        let head = Head { title: title.clone(), note, legend: Vec::new() };
        Ok(vec![Figure { file: "slo.svg", title, svg: draw_bars(&head, &panels)? }])
    }
}

/// Returns a line for each trial: latency by the share of the calls that were faster.
fn spectra<'a>(views: impl Iterator<Item = View<'a>>, folder: &Path) -> Vec<Line> {
    let line = |view: View<'_>| {
        let spectrum = Spectrum::read(&view, folder);
        let (points, marks) = (spectrum.points(), spectrum.marks());
        Line { look: look(view.trial.server), points, marks, spreads: Vec::new() }
    };
    views.map(line).collect()
}

fn spectrum_panel(title: &str, lines: Vec<Line>) -> Panel {
    let greatest = x_values(&lines).into_iter().fold(0.9, f64::max);
    Panel {
        title: title.to_owned(),
        x: Axis::nines("share of the calls", greatest),
        y: Axis::log("latency in ms", y_values(&lines).into_iter()),
        lines,
    }
}

fn by_connections(title: &str, unit: &str, lines: Vec<Line>) -> Panel {
    let mut ticks: Vec<(f64, String)> = Vec::new();
    for connections in x_values(&lines) {
        // Two that stand close to each other, such as where a server's own limit cut it short, would
        // be written over each other: the greater one is.
        ticks.pop_if(|(last, _)| connections / *last < 1.35);
        ticks.push((connections, connections_text(connections)));
    }
    Panel {
        title: title.to_owned(),
        x: Axis::log_at("connections", ticks, x_values(&lines).into_iter()),
        y: Axis::log(unit, y_values(&lines).into_iter()),
        lines,
    }
}

/// Returns a number of connections in few letters: the table has it exactly.
fn connections_text(connections: f64) -> String {
    if connections < 10e3 {
        whole(connections, show::grouped)
    } else {
        show::short((connections / 1e2).round() * 1e2)
    }
}

/// Returns all values of x, rising, each once.
fn x_values(lines: &[Line]) -> Vec<f64> {
    let mut values: Vec<f64> =
        lines.iter().flat_map(|line| &line.points).map(|point| point.0).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

/// Returns all values of y, and the ends of their spreads.
fn y_values(lines: &[Line]) -> Vec<f64> {
    let points = lines.iter().flat_map(|line| &line.points).map(|point| point.1);
    let spreads = lines.iter().flat_map(|line| &line.spreads);
    points.chain(spreads.flat_map(|spread| [spread.1, spread.2])).collect()
}

/// Returns a whole number as text.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a count")]
fn whole(number: f64, text: fn(u64) -> String) -> String {
    text(number as u64)
}
