//! The peers: how each serves and how its client calls.

mod capnp;
mod go;
mod redis;
mod tarpc;
mod tonic;

use std::net::TcpListener;

use anyhow::{Context, Result, bail};
use onceloop_benches::harness::{self, LoadOptions, ServerKind, ServerOptions};
use tokio::runtime::{Builder, Runtime};

use crate::calls;

/// Builds what `peer` needs beside this program, if anything.
pub(crate) fn build(peer: ServerKind) -> Result<()> {
    if peer == ServerKind::Go { go::build() } else { Ok(()) }
}

/// Serves until the parent's line closes.
pub(crate) fn serve(peer: ServerKind, options: &ServerOptions) -> Result<()> {
    match peer {
        ServerKind::Tarpc => harness::serve_with(options, tarpc::serve),
        ServerKind::Tonic => harness::serve_with(options, tonic::serve),
        ServerKind::Capnp => harness::serve_with(options, capnp::serve),
        ServerKind::Redis => redis::serve(options),
        ServerKind::Go => go::serve(options),
        _ => bail!("it is a server of `c10k`'s own"),
    }
}

/// Loads the peer's server, reporting to the parent.
pub(crate) fn load(peer: ServerKind, options: &LoadOptions) -> Result<()> {
    match peer {
        ServerKind::Tarpc => {
            harness::drive_with(options, || calls::Load::new(options, tarpc::Client::new(options)))
        }
        ServerKind::Tonic => {
            harness::drive_with(options, || calls::Load::new(options, tonic::Client::new(options)))
        }
        ServerKind::Capnp => {
            harness::drive_with(options, || calls::Load::new(options, capnp::Client::new(options)))
        }
        ServerKind::Redis => redis::load(options),
        ServerKind::Go => harness::drive_with(options, || go::Load::new(options)),
        _ => bail!("it is a server of `c10k`'s own"),
    }
}

/// Returns a runtime that is one thread, the one that calls.
pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("making a runtime")
}

/// Returns `listener` as the current runtime's own.
fn adopt(listener: TcpListener) -> Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true).context("making the listener non-blocking")?;
    tokio::net::TcpListener::from_std(listener).context("taking over the listener")
}

/// Returns what a call sends.
fn payload(options: &LoadOptions) -> Vec<u8> {
    vec![0xa5; harness::index(options.payload)]
}
