//! redis: `redis-server` as a process of its own, and the bench's bare load with ECHO commands.

mod commands;

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use anyhow::{Context, Result, bail};
use onceloop_benches::harness::{self, Load, LoadOptions, ServerKind, ServerOptions};

use self::commands::Commands;
use crate::program::{self, Program};

/// What redis says when it listens.
const READY: &str = "Ready to accept connections";
/// Clients beyond those to expect: nobody but the load calls.
const CLIENTS_SPARE: u32 = 32;

/// Serves until the parent's line closes.
pub(super) fn serve(options: &ServerOptions) -> Result<()> {
    program::ensure_there(ServerKind::Redis)?;
    // What it may open follows from what this process may.
    harness::raise_descriptor_limit();
    let port = free_port()?;
    let mut redis = Program::start(&mut command(port, options.connections), options.core)?;
    let mut said = String::new();
    while !said.contains(READY) {
        match redis.next_line() {
            Ok(line) => said += &line,
            Err(error) => bail!("{error:#}; it said:\n{said}"),
        }
    }
    redis.answer_parent(port, options.core)
}

/// Loads redis, reporting to the parent.
pub(super) fn load(options: &LoadOptions) -> Result<()> {
    // There is no window but what the load itself keeps to.
    harness::drive_with(options, || Load::new(options, options.in_flight, Commands::new(options)))
}

/// Returns a port that nobody listens on. redis itself does not choose one.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a port")?;
    Ok(listener.local_addr().context("asking for the port")?.port())
}

/// Nothing is kept on disk, one thread reads and writes; the rest is as redis has it.
fn command(port: u16, connections: u32) -> Command {
    let mut command = Command::new("redis-server");
    let clients = connections.saturating_add(CLIENTS_SPARE).to_string();
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--maxclients", &clients]);
    command.args(["--save", "", "--appendonly", "no", "--io-threads", "1", "--daemonize", "no"]);
    command
}
