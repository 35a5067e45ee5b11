//! What a silent connection holds of a server's memory: the slope that the bench `c10k` tells.

use anyhow::{Context, Result, ensure};
use clap::Parser;

use super::bounds::MEMORY;
use super::{Count, Outcome};
use crate::options::{Cli, ServerKind};
use crate::run::Bench;

/// The shortest run there is: the samples are taken before anything is measured.
const FLAGS: [&str; 3] = ["c10k", "--seconds", "0.1"];

pub(super) fn count() -> Result<Outcome> {
    let options = Cli::try_parse_from(FLAGS).context("the bench's own flags")?.bench;
    let row = Bench::begin()?.measure(&options, ServerKind::Event, 1)?.row;
    ensure!(row.errors == 0, "{} connections or calls failed", row.errors);
    Ok(match row.rss_bytes_per_connection {
        Some(number) => Outcome::Counted(vec![Count { bound: &MEMORY, number }]),
        None => Outcome::Skipped("this machine holds too few connections".to_owned()),
    })
}
