//! Onceloop's own server: one thread, one event loop, one table.

use std::convert::Infallible;
use std::net::TcpListener;

use anyhow::{Context, Result, bail};
use onceloop::reactor::Listener;
use onceloop::{Bin, Builder, Config, Limits, Reactor};

use crate::options::ServerOptions;
use crate::service::{self, bench};

/// Serves `listener` for ever.
pub(super) fn run(
    listener: TcpListener,
    limits: Limits,
    options: &ServerOptions,
) -> Result<Infallible> {
    let mut config = Config::default();
    config.spin_us = options.spin_us;
    if let Some(threads) = options.offload_threads {
        config.offload_threads = usize::try_from(threads).context("threads of the pool")?;
        // What is measured is how long calls wait, so none is refused.
        config.offload_queue = limits.in_flight_max;
    }
    let mut reactor = Reactor::with_config(config).context("making the loop")?;
    let listener = Listener::from_tcp(listener).context("taking over the listener")?;
    builder(options.offload_threads.is_some())
        .limits(limits)
        .start(reactor.registry())
        .context("starting the server")?
        .attach(reactor.registry(), listener)
        .context("taking connections")?;
    reactor.run(&mut ()).context("running the loop")?;
    bail!("the loop has ended")
}

fn builder(is_offloading: bool) -> Builder<()> {
    let builder =
        Builder::new().method(bench::echo, |(payload,), _| Ok(payload)).service(bench::METHODS);
    if !is_offloading {
        return builder.method(bench::slow, |(time_us, payload), _| {
            service::wait(time_us);
            Ok(payload)
        });
    }
    builder.deferred(bench::slow, |(time_us, payload), responder, cx| {
        let payload = payload.to_vec();
        let job = move || {
            service::wait(time_us);
            payload
        };
        let offloaded = cx.registry.offload(job, |payload, cx| {
            // Dropped without an answer, the responder answers with an error.
            if let Ok(payload) = payload {
                responder.respond(cx, Ok(Bin(&payload)));
            }
        });
        debug_assert!(offloaded.is_ok(), "the queue has room for every call in flight");
    })
}
