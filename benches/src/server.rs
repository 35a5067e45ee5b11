//! A server's process: a listener on a port of its own, one of the servers on a thread that stays
//! on its core, and this thread, off that core, which answers the parent's questions.

mod raw;

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

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
        ServerKind::Event | ServerKind::Threads => anyhow::bail!("not here yet"),
    }
}
