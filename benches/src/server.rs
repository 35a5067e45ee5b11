//! A server's process: a listener on a port of its own, one of the servers on a thread that stays
//! on its core, and this thread, off that core, which answers the parent's questions.

mod event;
mod fibers;
mod input;
mod raw;
mod session;
mod spares;
mod threads;
mod tokio;

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use onceloop_protocol::limits::Limits;

pub(crate) use self::raw::reply;
use crate::control;
use crate::machine;
use crate::message::{Sample, ServerLine};
use crate::options::{ServerKind, ServerOptions};

/// Runs a server until the parent's line closes.
pub(crate) fn serve(options: &ServerOptions) -> Result<()> {
    let served = options.clone();
    serve_with(options, move |listener| run(&served, listener))
}

/// Runs `run`, which serves a listener for ever, on a thread on the server's core until the parent's
/// line closes, and answers the parent off that core.
///
/// # Errors
///
/// There is no port to listen on, or the thread cannot be started. If `run` returns, the process
/// ends.
pub fn serve_with(
    options: &ServerOptions,
    run: impl FnOnce(TcpListener) -> Result<Infallible> + Send + 'static,
) -> Result<()> {
    machine::raise_descriptor_limit();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
    let port = listener.local_addr().context("asking for the port")?.port();
    let (kind, core) = (options.kind, options.core);
    thread::Builder::new()
        .name("server".to_owned())
        .spawn(move || {
            let Err(error) = core.map_or(Ok(()), machine::pin).and_then(|()| run(listener));
            eprintln!("c10k: server {kind}: {error:#}");
            process::exit(1);
        })
        .context("starting the server's thread")?;
    if let Some(core) = options.core {
        machine::avoid(core)?;
    }
    answer_parent(port, machine::sample);
    Ok(())
}

/// Tells the parent where the server listens, and what it has used so far (which `sample` returns)
/// whenever it asks, until the parent's line closes.
pub fn answer_parent(port: u16, mut sample: impl FnMut() -> Result<Sample>) {
    control::say(&ServerLine::Listening { port });
    control::listen(|| match sample() {
        Ok(sample) => control::say(&ServerLine::Sample(sample)),
        Err(error) => eprintln!("c10k: server: {error:#}"),
    });
}

fn run(options: &ServerOptions, listener: TcpListener) -> Result<Infallible> {
    match options.kind {
        ServerKind::Raw => raw::run(listener, Duration::from_micros(options.spin_us)),
        ServerKind::Event => event::run(listener, limits(options.connections), options),
        ServerKind::Threads => threads::run(&listener, limits(options.connections)),
        ServerKind::Tokio => tokio::run(listener, limits(options.connections), options),
        ServerKind::Fibers => fibers::run(listener, limits(options.connections)),
        peer => bail!("the peers' program has the server {peer}"),
    }
}

/// Tells of an error that a connection ended with, unless its client broke off or never greeted:
/// that is its own affair, and it counts what it lost.
fn say_if_ours(server: ServerKind, ended: io::Result<()>) {
    let Err(error) = ended else { return };
    let is_theirs = matches!(
        error.kind(),
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::TimedOut
            | ErrorKind::UnexpectedEof
            | ErrorKind::WouldBlock
    );
    if !is_theirs {
        eprintln!("c10k: server {server}: {error}");
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
    // Who decides on all calls of a window at once reserves room for all their replies, beside those
    // that are not acknowledged yet.
    let reserved = limits.reply_reservation_bytes;
    limits.kept_reply_bytes_per_session_max =
        limits.kept_reply_bytes_per_session_max.max(2 * window * reserved);
    limits.kept_reply_bytes_max =
        limits.kept_reply_bytes_max.max(limits.in_flight_max.saturating_mul(reserved));
    limits
}
