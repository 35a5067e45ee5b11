//! What a process does for each request, counted by valgrind's callgrind: no clock, so no neighbour
//! either.
//!
//! The process is run under callgrind twice, for few rounds of requests and for many: the difference
//! is that of the rounds alone, without start and handshake. Only what the process does itself is
//! counted, not the kernel's part.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::child::Part;
use crate::options::{ServerKind, ServerOptions};
use crate::run::listening;
use crate::stats::count;
use crate::traffic::{Kind, Traffic};

/// Rounds of the two processes; the first has allocated by then what it ever does.
const ROUNDS_FEW: u64 = 20;
const ROUNDS_MANY: u64 = 120;
/// The allocator's functions, as C's library and Rust's standard library call them.
const ALLOCATORS: [&str; 5] = ["aligned_alloc", "calloc", "malloc", "posix_memalign", "realloc"];

/// Who asks how much of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    pub(crate) connections: u32,
    pub(crate) in_flight: u32,
    pub(crate) payload: u64,
}

/// What a process does for a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

/// What a process did in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    instructions: u64,
    allocations: u64,
}

/// Whether there is a valgrind.
pub(crate) fn is_installed() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Returns the command that runs this program under callgrind, which writes to `file`.
pub(crate) fn command(file: &Path) -> Result<Command> {
    let mut command = Command::new("valgrind");
    let mut out = OsString::from("--callgrind-out-file=");
    out.push(file);
    command.args(["-q", "--tool=callgrind"]).arg(out);
    command.arg(std::env::current_exe().context("finding this program's own file")?);
    Ok(command)
}

/// Counts for each of the `requests` of a round, where `run` makes a process that goes through so
/// many rounds under [`command`] and ends. The profiles stay in `folder`.
pub(crate) fn per_request(
    requests: u64,
    folder: &Path,
    name: &str,
    run: impl Fn(u64, &Path) -> Result<()>,
) -> Result<Work> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let total = |rounds: u64, file: PathBuf| {
        run(rounds, &file)?;
        Total::read(&fs::read_to_string(file).context("reading what callgrind wrote")?)
    };
    let few = total(ROUNDS_FEW, folder.join(format!("{name}-few")))?;
    let many = total(ROUNDS_MANY, folder.join(name))?;
    let each = |few: u64, many: u64| {
        count(many.saturating_sub(few)) / count((ROUNDS_MANY - ROUNDS_FEW) * requests)
    };
    Ok(Work {
        instructions: each(few.instructions, many.instructions),
        allocations: each(few.allocations, many.allocations),
    })
}

/// Counts what our server does for each request, and leaves the profiles in `folder`.
pub(crate) fn of_server(shape: Shape, folder: &Path, name: &str) -> Result<Work> {
    let requests = u64::from(shape.connections) * u64::from(shape.in_flight);
    per_request(requests, folder, name, |rounds, file| {
        let options = ServerOptions::quiet(ServerKind::Event, shape.connections);
        let name = "the server under valgrind".to_owned();
        let part = Part::start_as(command(file)?, "serve", name, &options);
        let (server, port) = listening(part).context("is valgrind installed?")?;
        let open = |_| Traffic::open(shape.kind, port, shape.in_flight, shape.payload);
        let mut crowd = (0..shape.connections).map(open).collect::<Result<Vec<Traffic>>>()?;
        for _ in 0..rounds {
            crowd.iter_mut().try_for_each(Traffic::begin_round)?;
            crowd.iter_mut().try_for_each(Traffic::end_round)?;
        }
        drop(crowd);
        // Callgrind writes when the process ends.
        drop(server);
        Ok(())
    })
}

impl Total {
    /// Reads a profile: the sum of its costs, and how often functions of the allocator are called.
    fn read(profile: &str) -> Result<Total> {
        let mut total = Total::default();
        let mut allocators = Vec::new();
        let mut calls_allocator = false;
        for line in profile.lines() {
            if let Some(sum) = line.strip_prefix("totals: ") {
                total.instructions = sum.trim().parse().context("reading the total")?;
            } else if let Some((id, name)) = function(line) {
                if ALLOCATORS.contains(&name) {
                    allocators.push(id);
                }
                calls_allocator = line.starts_with("cfn=") && allocators.contains(&id);
            } else if let Some(calls) = line.strip_prefix("calls=").filter(|_| calls_allocator) {
                let number = calls.split(' ').next().unwrap_or_default();
                total.allocations += number.parse::<u64>().context("reading a number of calls")?;
            }
        }
        anyhow::ensure!(total.instructions > 0, "callgrind wrote no total");
        Ok(total)
    }
}

/// Returns the id of the function that a line names, and its name: that comes with the first such
/// line only.
fn function(line: &str) -> Option<(&str, &str)> {
    let name = line.strip_prefix("cfn=(").or_else(|| line.strip_prefix("fn=("))?;
    let (id, name) = name.split_once(')')?;
    Some((id, name.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_allocator_are_counted_wherever_they_are_made() {
        let profile = "events: Ir\n\
            fn=(1) handle\n10 5\ncfn=(2) malloc\ncob=(3)\ncalls=7 0\n10 70\n\
            cfn=(4) free\ncalls=6 0\n11 60\ncfn=(2)\ncalls=2 0\n12 20\n\
            fn=(2)\n0 90\ncfn=(5) _int_malloc\ncalls=9 0\n0 10\n\
            fn=(6) grow\n1 1\ncfn=(7) realloc\ncalls=4 0\n1 4\n\
            totals: 270\n";
        let total = Total::read(profile).expect("a profile");
        assert_eq!(total, Total { instructions: 270, allocations: 13 });
        assert!(Total::read("fn=(1) handle\n").is_err());
    }
}
