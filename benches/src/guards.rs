//! `guards`: what the hot path costs in things that can be counted, held against bounds.
//!
//! System calls, instructions, allocations and memory, none of which a slow or a busy machine
//! changes. So a change that makes a request dearer is seen at once, and on any machine; how much
//! time that is, the other benchmarks tell.

mod answerer;
mod bounds;
mod caller;
mod memory;
mod syscalls;
mod tracer;
mod work;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

use self::bounds::Bound;
pub(crate) use self::caller::{CallerOptions, call};

/// Counts what a request costs in system calls, instructions, allocations and memory, and fails if
/// that is beyond a bound
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which guards, in which order
    #[arg(long, value_delimiter = ',', default_value = "system-calls,memory,work")]
    only: Vec<Guard>,
    /// Leaves valgrind's profiles in DIR, for callgrind_annotate
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Guard {
    /// Resident bytes of a connection that is silent
    Memory,
    /// System calls of the server and the client, with ptrace
    SystemCalls,
    /// Instructions and allocations of the server and the client, with valgrind
    Work,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Guard::Memory => "memory",
            Guard::SystemCalls => "system calls",
            Guard::Work => "work",
        })
    }
}

/// What was counted, beside what it may be.
#[derive(Clone, Copy, Debug)]
struct Count {
    bound: &'static Bound,
    number: f64,
}

impl Count {
    fn holds(&self) -> bool {
        self.number <= self.bound.most
    }
}

/// What became of a guard.
enum Outcome {
    Counted(Vec<Count>),
    /// This machine does not allow it, or lacks the tool: for this reason.
    Skipped(String),
}

/// Counts all that `options` ask for and prints it; returns whether every bound holds.
pub(crate) fn guard(options: &Options) -> Result<bool> {
    crate::machine::raise_descriptor_limit();
    let kept;
    let folder = match &options.profiles {
        Some(folder) => folder.as_path(),
        None => {
            kept = tempfile::tempdir().context("making a temporary folder")?;
            kept.path()
        }
    };
    let mut outcomes = Vec::new();
    for &guard in &options.only {
        eprintln!("guards: {guard}");
        let outcome = match guard {
            Guard::Memory => memory::count(),
            Guard::SystemCalls => syscalls::count(),
            Guard::Work => work::count(folder),
        };
        outcomes.push((guard, outcome.with_context(|| format!("counting {guard}"))?));
    }
    let text = render(&outcomes);
    io::stdout().lock().write_all(text.as_bytes()).context("printing the table")?;
    Ok(counts(&outcomes).all(|(_, count)| count.holds()))
}

fn counts(outcomes: &[(Guard, Outcome)]) -> impl Iterator<Item = (Guard, &Count)> {
    outcomes.iter().flat_map(|(guard, outcome)| {
        let counts = match outcome {
            Outcome::Counted(counts) => &counts[..],
            Outcome::Skipped(_) => &[],
        };
        counts.iter().map(|count| (*guard, count))
    })
}

fn render(outcomes: &[(Guard, Outcome)]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["guard", "what", "counted", "bound", ""]);
    for (guard, count) in counts(outcomes) {
        let Count { bound, number } = count;
        let verdict = if count.holds() { "" } else { "BEYOND" };
        let [number, most] = [*number, bound.most].map(shown);
        table.add_row([guard.to_string(), bound.what.to_owned(), number, most, verdict.to_owned()]);
    }
    for column in table.column_iter_mut().skip(2).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n");
    for (guard, outcome) in outcomes {
        if let Outcome::Skipped(why) = outcome {
            text += &format!("SKIPPED: {guard}: {why}\n");
        }
    }
    for (guard, count) in counts(outcomes).filter(|(_, count)| !count.holds()) {
        let Bound { what, most, why } = count.bound;
        text += &format!(
            "BEYOND ITS BOUND: {guard}, {what}: {} where {} is the most. {why}\n",
            shown(count.number),
            shown(*most)
        );
    }
    text
}

/// Whole numbers as such, and what is small with its places.
fn shown(number: f64) -> String {
    if number.fract() == 0.0 || number.abs() >= 1_000.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { what: "server, 1 x 1", most: 110.0, why: "One each." };

    #[test]
    fn what_is_beyond_its_bound_is_told_with_the_reason() {
        let at = |number| (Guard::Work, Outcome::Counted(vec![Count { bound: &BOUND, number }]));
        assert!(counts(&[at(110.0)]).all(|(_, count)| count.holds()));
        assert!(!render(&[at(110.0)]).contains("BEYOND"));
        assert!(!counts(&[at(110.5)]).all(|(_, count)| count.holds()));
        let text = render(&[at(110.5)]);
        let line =
            "BEYOND ITS BOUND: work, server, 1 x 1: 110.500 where 110 is the most. One each.";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_is_skipped_is_told() {
        let text = render(&[(Guard::SystemCalls, Outcome::Skipped("not permitted".to_owned()))]);
        assert!(text.contains("SKIPPED: system calls: not permitted\n"), "{text}");
    }
}
