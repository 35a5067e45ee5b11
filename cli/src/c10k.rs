//! `onceloop c10k`: runs the benchmark of the source tree.
//!
//! The comparison servers are not part of this program, so that nobody who installs it compiles
//! them; in a checkout Cargo builds and runs them.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The folder of the benchmarks beside this crate's, in a checkout.
const BENCHES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/Cargo.toml");

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure: `c10k --help` tells.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    if !Path::new(BENCHES).exists() {
        return Err("the benchmark is part of the source tree: in a checkout of it, run \
                    `cargo run --release -- c10k`"
            .into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--bin", "c10k", "--manifest-path", BENCHES, "--"])
        .args(&arguments.arguments)
        .status()
        .map_err(|error| format!("cannot run cargo, which builds the benchmark: {error}"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}
