//! Instructions for each request, counted by valgrind's callgrind: no clock, so no neighbour either.
//!
//! A server is run under callgrind twice for each kind of traffic, for few rounds and for many: the
//! difference is that of the rounds alone, without start and handshake. Only what the process does
//! itself is counted, not the kernel's part.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use super::traffic::{Kind, Traffic};
use super::{Options, server_options, start};
use crate::child::Part;
use crate::stats::count;

/// Rounds of the two servers; the first has allocated by then what it ever does.
const ROUNDS_FEW: u64 = 20;
const ROUNDS_MANY: u64 = 120;

/// Instructions of the server for each request.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Instructions {
    pub(super) protected: f64,
    pub(super) unprotected: f64,
    pub(super) duplicate: f64,
}

/// Counts for each kind of traffic, and leaves the profiles in `folder`.
pub(super) fn count_all(options: &Options, folder: &Path) -> Result<Instructions> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let of = |kind, name| {
        eprintln!("protection: counting instructions, {name}");
        let few = total(options, kind, ROUNDS_FEW, &folder.join(format!("{name}-few")))?;
        let many = total(options, kind, ROUNDS_MANY, &folder.join(name))?;
        let requests = (ROUNDS_MANY - ROUNDS_FEW) * u64::from(options.in_flight);
        anyhow::Ok(count(many.saturating_sub(few)) / count(requests))
    };
    Ok(Instructions {
        protected: of(Kind::Protected, "protected")?,
        unprotected: of(Kind::Unprotected, "unprotected")?,
        duplicate: of(Kind::Duplicate, "duplicate")?,
    })
}

/// Returns the instructions of a server that is born, answers `rounds` rounds, and ends.
fn total(options: &Options, kind: Kind, rounds: u64, profile: &Path) -> Result<u64> {
    let mut command = Command::new("valgrind");
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(profile);
    command.args(["-q", "--tool=callgrind"]).arg(out);
    command.arg(std::env::current_exe().context("finding this program's own file")?);
    let name = "the server under valgrind".to_owned();
    let part = Part::start_as(command, "serve", name, &server_options(None));
    let (server, port) = start(part).context("is valgrind installed?")?;
    let mut traffic = Traffic::open(kind, port, options.in_flight, options.payload)?;
    traffic.rounds(rounds)?;
    drop(traffic);
    // Callgrind writes when the process ends.
    drop(server);
    let text = fs::read_to_string(profile).context("reading what callgrind wrote")?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"));
    let number = line.context("callgrind wrote no totals")?.trim();
    number.parse().with_context(|| format!("reading {number:?}"))
}
