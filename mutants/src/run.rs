//! Builds a mutant and lets the checks look for it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::list::{Check, Mutant};
use crate::tree::Tree;

/// How often a running check is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Time for one check. A mutant that hangs is not caught: nobody would know what is wrong.
const CHECK_TIME_MAX: Duration = Duration::from_secs(300);

/// States of a world that are explored, nearest first: mistakes show early, and the whole of it is for
/// the command `model`.
const STATES_MAX: &str = "100000";

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A check found a violation.
    Caught {
        /// By what, and after how much.
        by: String,
        /// What was violated.
        what: String,
    },
    /// Every check passed, or one did not end: for a person.
    Missed(String),
}

/// Looks for one mutant; the tree's copy has the originals again afterwards.
///
/// # Errors
/// If the patch does not apply, the mutant does not compile, or a check cannot be run.
pub fn look_for(mutant: &Mutant, tree: &Tree, root: &Path) -> Result<Verdict> {
    let files = mutant.apply(root)?;
    let _patched = tree.patch(&files)?;
    build(tree).with_context(|| mutant.name.clone())?;
    let mut passed = Vec::new();
    for check in &mutant.checks {
        match run(check, tree)? {
            Verdict::Missed(what) => passed.push(what),
            caught => return Ok(caught),
        }
    }
    Ok(Verdict::Missed(passed.join("; ")))
}

/// Returns the checks of these mutants, each once, and of simulations only the longest.
pub fn distinct(mutants: &[&Mutant]) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    let mut seeds_most = 0;
    for check in mutants.iter().flat_map(|mutant| &mutant.checks) {
        match check {
            Check::Sim(seeds) => seeds_most = seeds_most.max(*seeds),
            Check::Model(_) if checks.contains(check) => {}
            Check::Model(_) => checks.push(check.clone()),
        }
    }
    checks.extend((seeds_most > 0).then_some(Check::Sim(seeds_most)));
    checks
}

/// Lets every check run on the tree as it is: what is found without a mutant is no catch.
///
/// # Errors
/// If it does not build, or a check finds something.
pub fn baseline(checks: &[Check], tree: &Tree) -> Result<()> {
    build(tree)?;
    for check in checks {
        let verdict = run(check, tree)?;
        ensure!(matches!(verdict, Verdict::Missed(_)), "without a mutant: {verdict:?}");
    }
    Ok(())
}

fn build(tree: &Tree) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--profile", "mutants", "-p", "onceloop-cli"])
        // A mutant may leave something unused.
        .env_remove("RUSTFLAGS")
        .env("CARGO_TARGET_DIR", target(tree))
        .current_dir(tree.path())
        .output()
        .context("cargo build")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the mutant does not build:\n{complaint}");
    Ok(())
}

fn target(tree: &Tree) -> std::path::PathBuf {
    tree.path().join("target")
}

fn run(check: &Check, tree: &Tree) -> Result<Verdict> {
    let report = target(tree).join("report.json");
    let _ = fs::remove_file(&report);
    let mut command = Command::new(target(tree).join("mutants/onceloop"));
    match check {
        Check::Sim(seeds) => command.args(["sim", "--stop", "--seeds", &format!("0..{seeds}")]),
        Check::Model(worlds) => command.args(["model", "--states-max", STATES_MAX]).args(worlds),
    };
    let mut child = command
        .arg("--json")
        .arg(&report)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("the check does not start")?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > CHECK_TIME_MAX {
            child.kill()?;
            child.wait()?;
            return Ok(Verdict::Missed(format!("{check:?} does not end")));
        }
        thread::sleep(POLL);
    };
    let text = fs::read_to_string(&report);
    let report = text.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let found = report.as_ref().and_then(|report| found(check, report));
    match (status.success(), found) {
        (true, _) => Ok(Verdict::Missed(format!("{check:?} passes"))),
        (false, Some(verdict)) => Ok(verdict),
        (false, None) => anyhow::bail!("{check:?} fails without a report: {status}"),
    }
}

/// Reads what a check has found from its report.
fn found(check: &Check, report: &Value) -> Option<Verdict> {
    match check {
        Check::Sim(_) => {
            let failure = report.get("failures")?.as_array()?.first()?;
            let seed = failure.get("seed")?.as_u64()?;
            let what = in_one_line(failure.get("what")?.as_str()?);
            let seeds = report.get("seeds")?.as_u64()?;
            Some(Verdict::Caught { by: format!("sim, seed {seed} ({seeds} seeds)"), what })
        }
        Check::Model(_) => {
            let violation = report.get("violation")?;
            let steps = violation.get("steps")?.as_array()?.len();
            let what = in_one_line(violation.get("what")?.as_str()?);
            let states = report.get("states")?.as_u64()?;
            Some(Verdict::Caught { by: format!("model, {steps} steps ({states} states)"), what })
        }
    }
}

/// An assertion that fails tells what it compared on lines of their own.
fn in_one_line(what: &str) -> String {
    what.split_whitespace().collect::<Vec<_>>().join(" ")
}
