//! Onceloop's own server: one thread, one event loop, one table.

use std::convert::Infallible;
use std::net::TcpListener;

use anyhow::{Context, Result, bail};
use onceloop::reactor::Listener;
use onceloop::{Builder, Config, Limits, Reactor};

use crate::service::bench;

/// Serves `listener` for ever.
pub(super) fn run(listener: TcpListener, limits: Limits, spin_us: u64) -> Result<Infallible> {
    let mut config = Config::default();
    config.spin_us = spin_us;
    let mut reactor = Reactor::with_config(config).context("making the loop")?;
    let listener = Listener::from_tcp(listener).context("taking over the listener")?;
    Builder::new()
        .method(bench::echo, |(payload,), _| Ok(payload))
        .service(bench::METHODS)
        .limits(limits)
        .start(reactor.registry())
        .context("starting the server")?
        .attach(reactor.registry(), listener)
        .context("taking connections")?;
    reactor.run(&mut ()).context("running the loop")?;
    bail!("the loop has ended")
}
