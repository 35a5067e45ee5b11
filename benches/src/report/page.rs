//! The page: what was measured, section by section, with its plots, tables and commands.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use maud::{Markup, PreEscaped, html};

use super::figures::{Figure, figures};
use super::machine::Machine;
use super::markdown;
use super::plan::{Group, Section};
use super::store::{Entry, Made, Stored};
use super::tables::{Table, table};
use super::view::{View, views};
use crate::document::document;
use crate::show::digits;
use crate::slo;

const TITLE: &str = "What a call costs: Onceloop and others";

/// What this page does not tell.
const NOT_MEASURED: [&str; 7] = [
    "Networks: all goes over loopback on one machine, so no wire, no card, no loss and no distance.",
    "Many cores: the server has one and the load another. Where the load's core is full (see client \
     CPU), requests/s is a floor of what the server can do; trust its CPU time.",
    "Absolute speed: machines that are shared are slower in one minute than in the next. What is \
     compared was measured in turns, and ratios are taken within a run.",
    "The kernel's memory: sockets, and the stacks of threads where they are not named.",
    "TLS, authentication, large numbers of methods, and handlers that do more than return what they \
     are given.",
    "Latency of spinning servers on cores that others need, and what the spinning takes from them.",
    "Hours: a run takes seconds, after a warm-up of half a second.",
];

const STYLE: &str = "figure{margin:1em 0;overflow-x:auto}figcaption,.facts{color:#666;font-size:13px}\
    .range{display:block;white-space:nowrap;color:#666;font-size:12px}.scroll{overflow-x:auto}\
    td:first-child,th:first-child{text-align:left}.failed{color:#a30000}\
    h2{margin-top:2em;border-top:2px solid #222;padding-top:.4em}h3{margin-bottom:.2em}\
    nav a{margin-right:1.2em;white-space:nowrap}";

/// Writes the page and its plots to `folder`.
pub(super) fn write(stored: &Stored, folder: &Path) -> Result<()> {
    let save = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    let mut sections = Vec::new();
    for made in &stored.sections {
        let figures = figures(stored, &made.part, folder)
            .with_context(|| format!("plotting {}", made.part.section.name()))?;
        for figure in &figures {
            save(figure.file, &figure.svg)?;
        }
        sections.push((made, figures));
    }
    save("index.html", &document(TITLE, STYLE, &page(stored, &sections)))
}

fn page(stored: &Stored, sections: &[(&Made, Vec<Figure>)]) -> Markup {
    let machine = stored.sections.first().map(|made| &made.machine);
    html! {
        h1 { (TITLE) }
        @if let Some(machine) = machine { p { (facts(machine)) } }
        p {
            "Every figure is the median of its runs; below it, small, the least and the greatest "
            "of them. "
            i { "\u{d7} raw" }
            " is the median of the runs' ratios to the bare echo of the same run: the "
            "limit of the kernel's interface. All rows: "
            a href="rows.json" { "rows.json" } ", " a href="rows.csv" { "rows.csv" }
            "; latencies of every run in HdrHistogram's percentile format: "
            a href="hgrm/" { "hgrm" }
            "; the most of it in a few tables: "
            a href=(markdown::FILE) { (markdown::FILE) } "."
        }
        nav {
            @for (made, _) in sections {
                a href={ "#" (made.part.section.name()) } { (heading(made.part.section).0) }
            }
            a href="#not-measured" { "What is not measured" }
        }
        @for (made, figures) in sections { (section(stored, made, figures, machine)) }
        h2 id="not-measured" { "What is not measured" }
        ul { @for text in NOT_MEASURED { li { (text) } } }
    }
}

fn facts(machine: &Machine) -> String {
    format!(
        "{}, {} cores, Linux {}; {}; commit {}; {}.",
        machine.cpu, machine.cores, machine.kernel, machine.rustc, machine.commit, machine.date
    )
}

/// Returns what a section is called and what it is about.
fn heading(section: Section) -> (&'static str, &'static str) {
    match section {
        Section::Workloads => (
            "Workloads",
            "Connections times calls that each keeps in flight, payload 16 bytes, closed loop: the next \
             call when one is answered.",
        ),
        Section::Client => (
            "The client library",
            "The same load through the client library, a client for each connection and a callback for \
             each call, beside the bare load's ready-made frames: CPU time of the load's process for \
             each call.",
        ),
        Section::Connections => (
            "Connections",
            "From one connection to the most that the machine holds: with one call in flight on each, and \
             with 10 000 in flight over all (at most 1 024 on one connection, the largest window).",
        ),
        Section::Payloads => (
            "Payloads",
            "100 connections with one call in flight each; as many bytes back as forth.",
        ),
        Section::OpenLoop => (
            "Open loop",
            "Calls are due at a fixed rate, whether earlier ones are answered or not: at a share of the \
             rate that the same server reached in the closed loop. Latency is counted from when a call \
             was due, so that a stall is charged to every call that it delays.",
        ),
        Section::Large => (
            "Large messages beside small ones",
            "Small calls at a fixed rate, alone and beside four further connections, each of which has a \
             call of 1 MiB in flight all the time. Latencies are those of the small calls, but where the \
             table says large.",
        ),
        Section::Mix => (
            "Slow handlers among fast ones",
            "One call of a hundred has a handler that blocks for 5 ms, as on a disk or another server; the \
             latencies are those of the other calls, but where the table says slow. Offloaded: the \
             handler waits on a pool of threads, not on the loop. W: how far the calls of a connection may \
             be ahead of its oldest unanswered one. The bare echo has no handlers.",
        ),
        Section::Models => (
            "Side by side",
            "The same frames, session code and table, served in different ways, with 10 000 connections.",
        ),
        Section::Slo => (
            "The highest rate within a bound",
            "The highest rate of the open loop at which 99.9 % of the calls are answered within the \
             bound, found by halving, each rate tried for a short while; the result held twice.",
        ),
    }
}

fn section(stored: &Stored, made: &Made, figures: &[Figure], first: Option<&Machine>) -> Markup {
    let section = made.part.section;
    let (title, about) = heading(section);
    let is_elsewhere = first.is_some_and(|first| !first.is_same(&made.machine));
    html! {
        h2 id=(section.name()) { (title) }
        p { (about) }
        @if !made.is_complete {
            p.failed { "This section was broken off: what is missing was not measured." }
        }
        @for why in &made.left_out { p.failed { (why) } }
        @if is_elsewhere { p.facts { "Measured elsewhere: " (facts(&made.machine)) } }
        p.facts {
            (made.runs) (if made.runs == 1 { " run" } else { " runs" }) " of " (made.seconds) " s, "
            (made.machine.date) ". All of it again: "
            code {
                "cargo run --release -- c10k --report DIR --only " (section.name())
                " --servers " (made.servers) " --runs " (made.runs) " --seconds " (made.seconds)
            }
        }
        @for figure in figures {
            figure {
                div role="img" aria-label=(figure.title) { (PreEscaped(&figure.svg)) }
                figcaption { a href=(figure.file) { (figure.file) } }
            }
        }
        @for group in &made.part.groups { (group_table(stored, made, group)) }
        @if section == Section::Slo { (slo_table(&stored.slo)) }
    }
}

fn group_table(stored: &Stored, made: &Made, group: &Group) -> Markup {
    let Table { columns, rows } = table(stored, made.part.section, group);
    let entries = group.trials.iter().flat_map(|trial| stored.of(made.part.section, trial));
    let entries: Vec<&Entry> = entries.collect();
    html! {
        h3 { (group.name) }
        div.scroll {
            table {
                tr { @for column in &columns { th { (column.head) } } }
                @for row in &rows {
                    tr {
                        @for cell in row {
                            td {
                                (cell.text)
                                @if let Some(range) = &cell.range { span.range { (range) } }
                            }
                        }
                    }
                }
            }
        }
        @for command in commands(made, group) { p.facts { code { (command) } } }
        @for remark in remarks(&entries) { p.failed { (remark) } }
        @for warning in warnings(stored, made, group) { p.facts { (warning) } }
    }
}

/// Returns what makes a group's rows again.
fn commands(made: &Made, group: &Group) -> Vec<String> {
    let mut loads: Vec<(&str, Option<u32>, Vec<String>)> = Vec::new();
    for trial in &group.trials {
        let server = trial.server.to_string();
        let load = (trial.flags.as_str(), trial.rate_percent);
        match loads.iter_mut().find(|known| (known.0, known.1) == load) {
            Some((_, _, servers)) => servers.push(server),
            None => loads.push((load.0, load.1, vec![server])),
        }
    }
    let command = |(flags, percent, servers): (&str, Option<u32>, Vec<String>)| {
        let rate = percent.map(|percent| format!(" --rate <{percent} % of the server's own rate>"));
        format!(
            "cargo run --release -- c10k {flags}{} --servers {} --runs {} --seconds {}",
            rate.unwrap_or_default(),
            servers.join(","),
            made.runs,
            made.seconds
        )
    };
    loads.into_iter().map(command).collect()
}

/// Returns what went wrong and what was cut.
fn remarks(entries: &[&Entry]) -> Vec<String> {
    let mut remarks = Vec::new();
    for entry in entries {
        let name = &entry.asked.label;
        if let Some(why) = &entry.failure {
            remarks.push(format!("{name}, run {}, failed: {why}", entry.run));
        }
        let errors = entry.row.as_ref().map_or(0, |row| row.errors);
        if errors > 0 {
            remarks.push(format!("{name}, run {}: {errors} errors", entry.run));
        }
        if let (Some(cut), 1) = (&entry.cut, entry.run) {
            remarks.push(format!("{name}: fewer connections than asked for: {cut}"));
        }
    }
    remarks
}

/// Returns what speaks against rows: of each trial in how many runs, and the first of it.
fn warnings(stored: &Stored, made: &Made, group: &Group) -> Vec<String> {
    let of_trial = |view: View<'_>| {
        let warned: Vec<_> = view.rows().filter(|row| !row.warnings.is_empty()).collect();
        let first = warned.first()?.warnings.first()?;
        let (some, all) = (warned.len(), view.rows().count());
        Some(format!(
            "{}, in {some} of {all} runs, as in run {}: {first}.",
            view.trial.label, warned[0].run
        ))
    };
    views(stored, made.part.section, group).filter_map(of_trial).collect()
}

fn slo_table(answers: &[slo::Answer]) -> Markup {
    html! {
        div.scroll {
            table {
                tr {
                    th { "server" } th { "connections" } th { "bound on p99.9 \u{b5}s" }
                    th { "highest rate, calls/s" } th { "closed loop, requests/s" } th { "share" }
                    th { "rates tried" }
                }
                @for answer in answers {
                    tr {
                        td { (answer.server) }
                        td { (digits(answer.question.connections.into())) " x " (answer.question.in_flight) }
                        td { (crate::show::grouped(answer.question.p999_us)) }
                        td { (answer.rate.map_or_else(|| "none held".to_owned(), digits)) }
                        td { (digits(answer.ceiling)) }
                        td {
                            @if let Some(rate) = answer.rate {
                                (format!("{:.0} %", rate * 100.0 / answer.ceiling))
                            }
                        }
                        td { (answer.tried.len()) }
                    }
                }
            }
        }
        @for answer in answers {
            @if answer.failure.is_some() { p.failed { (answer.sentence()) } }
            details {
                summary { (answer.server) ": what was tried" }
                ol { @for tried in &answer.tried { li { (tried.sentence()) } } }
            }
        }
        @if let Some(slo::Question { p999_us, connections, in_flight, seconds }) =
            answers.first().map(|answer| &answer.question)
        {
            p.facts {
                code {
                    "cargo run --release -- c10k slo --p999-us " (p999_us) " --connections " (connections)
                    " --in-flight " (in_flight) " --seconds " (seconds) " --servers "
                    (answers.iter().map(|answer| answer.server.to_string()).collect::<Vec<_>>().join(","))
                }
            }
        }
    }
}
