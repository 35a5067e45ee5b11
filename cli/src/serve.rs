//! `onceloop serve`: a server to try things on.

use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use onceloop::reactor::os;
use onceloop::{Reactor, Remote, Server};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::services;

/// How long calls may go on after the first signal; a second signal ends the process at once.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen: `host:port`, `[::]:port` or `unix:/path`; may be given several times.
    #[arg(long = "listen", default_value = "127.0.0.1:7411")]
    addresses: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    if let Err(error) = os::raise_descriptor_limit() {
        log::warn!("the limit of open files stays as it is: {error}");
    }
    let mut reactor = Reactor::<()>::new()?;
    let server = services::builder().start(reactor.registry())?;
    for address in &arguments.addresses {
        server.listen(reactor.registry(), address)?;
    }
    for address in server.local_addresses(reactor.registry()) {
        println!("listening on {address}");
    }
    drain_on_signal(server, reactor.registry().remote())?;
    reactor.run(&mut ())?;
    Ok(ExitCode::SUCCESS)
}

/// Shuts the server down at SIGINT or SIGTERM.
fn drain_on_signal(server: Server<()>, remote: Remote<()>) -> Result<(), Box<dyn Error>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 {
                // The person is in a hurry: end as the signal would have ended the process.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            let _ = remote.post(move |cx| {
                log::info!("shutting down");
                server.drain(cx.registry, DRAIN, |drained, cx| {
                    if drained.unfinished > 0 {
                        eprintln!("onceloop: {} calls had not ended", drained.unfinished);
                    }
                    cx.registry.stop();
                });
            });
        }
    })?;
    Ok(())
}
