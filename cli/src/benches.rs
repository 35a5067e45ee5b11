//! `onceloop c10k`, `cuts`, `guards` and `protection`: run a benchmark of the source tree.
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
    /// What to measure: `--help` behind the command tells.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Runs the program of the benchmarks; `command` is one of its own, empty for the one it is named
/// after.
pub(crate) fn run(command: &[&str], arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    if !Path::new(BENCHES).exists() {
        return Err("the benchmarks are part of the source tree: in a checkout of it, run \
                    `cargo run --release -- c10k`"
            .into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--bin", "c10k", "--manifest-path", BENCHES, "--"])
        .args(command)
        .args(&arguments.arguments)
        .status()
        .map_err(|error| format!("cannot run cargo, which builds the benchmarks: {error}"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}
