//! A server's process: a listener on a port of its own, one of the servers on a thread that stays
//! on its core, and this thread, off that core, which answers the parent's questions.

mod event;
mod raw;
mod threads;

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use onceloop_protocol::limits::Limits;

use crate::control;
use crate::machine;
use crate::message::ServerLine;
use crate::options::{ServerKind, ServerOptions};

/// Runs a server until the parent's line closes.
pub(crate) fn serve(options: &ServerOptions) -> Result<()> {
    machine::raise_descriptor_limit();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
    let port = listener.local_addr().context("asking for the port")?.port();
    let served = options.clone();
    thread::Builder::new()
        .name("server".to_owned())
        .spawn(move || {
            let Err(error) = run(&served, listener);
            eprintln!("c10k: server {}: {error:#}", served.kind);
            process::exit(1);
        })
        .context("starting the server's thread")?;
    if let Some(core) = options.core {
        machine::avoid(core)?;
    }
    control::say(&ServerLine::Listening { port });
    control::listen(|| match machine::sample() {
        Ok(sample) => control::say(&ServerLine::Sample(sample)),
        Err(error) => eprintln!("c10k: server: {error:#}"),
    });
    Ok(())
}

fn run(options: &ServerOptions, listener: TcpListener) -> Result<std::convert::Infallible> {
    if let Some(core) = options.core {
        machine::pin(core)?;
    }
    match options.kind {
        ServerKind::Raw => raw::run(listener, Duration::from_micros(options.spin_us)),
        ServerKind::Event => event::run(listener, limits(options.connections), options),
        ServerKind::Threads => threads::run(&listener, limits(options.connections)),
    }
}

/// Returns the limits of a server that is to take `connections`, all of them busy: the default ones,
/// unless they would be in the way.
fn limits(connections: u32) -> Limits {
    let mut limits = Limits::default();
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    limits.connections_max = limits.connections_max.max(connections);
    limits.sessions_max = limits.sessions_max.max(connections);
    // The load never has more than a window in flight on a connection, and is to wait for slow
    // handlers, not to be refused.
    let window = usize::try_from(limits.window_max).unwrap_or(usize::MAX);
    limits.in_flight_max = limits.in_flight_max.max(connections.saturating_mul(window));
    limits
}
