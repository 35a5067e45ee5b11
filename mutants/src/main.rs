//! The command `mutants`: makes one mistake at a time and sees whether it is noticed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use comfy_table::Table;
use onceloop_mutants::run::{self, Verdict};
use onceloop_mutants::tree::{ROOT, Tree};
use onceloop_mutants::{List, Mutant};

/// Makes one mistake at a time in a copy of the sources, and sees whether the simulator or the model
/// check notices.
#[derive(Parser)]
struct Arguments {
    /// Which mutants; without any, all.
    names: Vec<String>,
    /// Only says which there are.
    #[arg(long)]
    list: bool,
    /// Writes what became of each as a table in Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// What a cell of the table holds.
const BRIEF_CHARS_MAX: usize = 100;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let root = Path::new(ROOT);
    let list = List::read(root)?;
    if arguments.list {
        for mutant in &list.mutants {
            println!("{:28} {}", mutant.name, mutant.mistake);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(&list, &arguments.names)?;
    let tree = Tree::copy(root)?;
    let began = Instant::now();
    let checks = run::distinct(&chosen);
    run::baseline(&checks, &tree)?;
    println!("without a mutant {} checks pass [{:.0?}]", checks.len(), began.elapsed());
    let mut rows = Vec::new();
    for mutant in &chosen {
        let began = Instant::now();
        let verdict = run::look_for(mutant, &tree, root)
            .unwrap_or_else(|error| Verdict::Missed(format!("{error:#}")));
        println!("{:28} {} [{:.0?}]", mutant.name, describe(&verdict), began.elapsed());
        rows.push((*mutant, verdict));
    }
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, markdown(&rows)).with_context(|| path.display().to_string())?;
    }
    let mut table = Table::new();
    table.set_header(["mutant", "caught by", "what was violated"]);
    for (mutant, verdict) in &rows {
        let (by, what) = columns(verdict);
        table.add_row([&*mutant.name, by, &what]);
    }
    let missed = rows.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Missed(_))).count();
    println!("{table}\n{} passed, {missed} failed", rows.len() - missed);
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn choose<'a>(list: &'a List, names: &[String]) -> Result<Vec<&'a Mutant>> {
    for name in names {
        let is_there = list.mutants.iter().any(|mutant| mutant.name == *name);
        ensure!(is_there, "no mutant is called {name}: `mutants --list` says which there are");
    }
    let is_chosen = |mutant: &&Mutant| names.is_empty() || names.contains(&mutant.name);
    Ok(list.mutants.iter().filter(is_chosen).collect())
}

fn describe(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Caught { by, what } => format!("caught by {by}: {what}"),
        Verdict::Missed(what) => format!("MISSED: {what}"),
    }
}

fn columns(verdict: &Verdict) -> (&str, String) {
    match verdict {
        Verdict::Caught { by, what } => (by, brief(what)),
        Verdict::Missed(what) => ("nobody", brief(what)),
    }
}

/// What was violated, without the story of the one call that it struck.
fn brief(what: &str) -> String {
    let what = match what.split_once(": call ") {
        Some((head, call)) if call.contains(" by client-") => head,
        _ => what,
    };
    match what.char_indices().nth(BRIEF_CHARS_MAX) {
        Some((end, _)) => format!("{} …", &what[..end]),
        None => what.to_owned(),
    }
}

fn markdown(rows: &[(&Mutant, Verdict)]) -> String {
    let mut page = "| mistake | caught by | what was violated |\n|---|---|---|\n".to_owned();
    for (mutant, verdict) in rows {
        let (by, what) = columns(verdict);
        page.push_str(&format!("| {} | {by} | {} |\n", mutant.mistake, what.replace('|', "/")));
    }
    page
}
