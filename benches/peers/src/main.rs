//! `onceloop-peers`: other RPC systems as parts of Onceloop's bench, `c10k`, which starts it.
//!
//! It has the same two roles as `c10k` itself, a server and a load, told their options as JSON; what
//! it does with them is the bench's own code (`onceloop_benches::harness`). Here is only what a peer
//! has of its own: how it serves, and how its client calls.
#![forbid(unsafe_code)]

mod calls;
#[rustfmt::skip]
#[allow(clippy::all, clippy::unimplemented, unreachable_pub, unused, reason = "the schema compiler wrote it: see the README")]
mod echo_capnp;
mod peer;
mod program;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use onceloop_benches::harness::{LoadOptions, ServerKind, ServerOptions};

/// A peer of Onceloop's, as a part of the bench `c10k`, which starts it
#[derive(Parser)]
#[command(name = "onceloop-peers", version)]
struct Cli {
    /// Which peer
    peer: ServerKind,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Builds what it needs beside this program, if anything
    Build,
    /// Its server
    Serve {
        /// What the bench tells a server, as JSON
        #[arg(value_parser = |text: &str| serde_json::from_str::<ServerOptions>(text))]
        options: ServerOptions,
    },
    /// Its load
    Load {
        /// What the bench tells a load, as JSON
        #[arg(value_parser = |text: &str| serde_json::from_str::<LoadOptions>(text))]
        options: LoadOptions,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome: Result<()> = match &cli.role {
        Role::Build => peer::build(cli.peer),
        Role::Serve { options } => peer::serve(cli.peer, options),
        Role::Load { options } => peer::load(cli.peer, options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("onceloop-peers: {}: {error:#}", cli.peer);
            ExitCode::FAILURE
        }
    }
}
