//! `c10k`: drives ten thousand connections against a server on an event loop, against well-made ones
//! with a thread, a task or a fiber for each connection, and against a bare echo, all on the same
//! protocol, and prints what each of them costs.
//!
//! The program starts itself again for every part: one process for each server, one for the load,
//! each on a core of its own. The parent talks to them in JSON lines over their standard input and
//! output; a part ends when its standard input closes, so that none outlives the parent.
#![forbid(unsafe_code)]
#![cfg(target_os = "linux")]

mod capacity;
mod chart;
mod child;
mod control;
mod cuts;
mod document;
mod frames;
mod guards;
pub mod harness;
mod hgrm;
mod load;
mod machine;
mod message;
mod options;
mod peers;
mod poller;
mod progress;
mod protection;
mod report;
mod run;
mod server;
mod service;
mod show;
mod slo;
mod stats;
mod table;
mod traffic;
mod valgrind;
mod warnings;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Cli, Role};

/// Runs the program with the process's arguments. Fails if there was any error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.role {
        None => match cli.report.folder() {
            Some(folder) => report::bench(folder, &cli.bench, &cli.report),
            None => run::bench(&cli.bench),
        },
        Some(Role::Cuts(options)) => cuts::bench(&options),
        Some(Role::Guards(options)) => guards::guard(&options),
        Some(Role::Protection(options)) => protection::bench(&options),
        Some(Role::Render(options)) => report::render(&options),
        Some(Role::Slo(options)) => slo::bench(&options),
        Some(Role::Call { options }) => guards::call(&options).map(|()| true),
        Some(Role::Serve { options }) => server::serve(&options).map(|()| true),
        Some(Role::Load { options }) => load::drive(&options).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("c10k: {error:#}");
            ExitCode::FAILURE
        }
    }
}
