//! The reactor inside another program's loop: here calloop, as a Wayland compositor has it. The host
//! polls one descriptor of ours beside its own, asks when our next deadline is, and turns us by
//! hand; its own timer goes on ticking beside the calls.
//!
//! Run it: `cargo run --example embed`

use std::error::Error;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use calloop::generic::Generic;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventLoop, Interest, Mode, PostAction};
use onceloop::{Builder, Client, Cx, Reactor};

const CALLS: u64 = 20;
/// How often the host's own timer ticks.
const TICK: Duration = Duration::from_millis(2);

onceloop::service! {
    /// Counts.
    pub mod counter {
        /// Adds to the count and returns it.
        fn add(n: u64) -> u64;
    }
}

/// What Onceloop's callbacks see.
#[derive(Default)]
struct App {
    count: u64,
    replies: u64,
}

/// What the host's callbacks see: all of it.
struct Host {
    reactor: Reactor<App>,
    app: App,
    ticks: u64,
}

impl Host {
    /// Turns the reactor until it has nothing to do right now.
    fn turn(&mut self) -> std::io::Result<()> {
        loop {
            self.reactor.turn(&mut self.app, Some(Duration::ZERO))?;
            if self.reactor.next_deadline().is_none_or(|next| next > Instant::now()) {
                return Ok(());
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut host_loop = EventLoop::<Host>::try_new()?;
    let mut reactor = Reactor::new()?;
    let server = Builder::<App>::new()
        .method(counter::add, |(n,), cx| {
            cx.state.count += n;
            Ok(cx.state.count)
        })
        .listen(reactor.registry(), "127.0.0.1:0")?;
    let address = server.local_addresses(reactor.registry()).remove(0);
    let client = Client::connect(reactor.registry(), address)?;
    reactor.registry().defer(move |cx| call(client, cx));

    // The host's own event source.
    host_loop.handle().insert_source(Timer::from_duration(TICK), |_, (), host| {
        host.ticks += 1;
        TimeoutAction::ToDuration(TICK)
    })?;
    // Ours: one descriptor, readable when there is something to do.
    let descriptor = reactor.as_fd().try_clone_to_owned()?;
    let source = Generic::new(descriptor, Interest::READ, Mode::Level);
    host_loop.handle().insert_source(source, |_, _, host| {
        host.turn()?;
        Ok(PostAction::Continue)
    })?;

    let mut host = Host { reactor, app: App::default(), ticks: 0 };
    host.turn()?;
    while host.app.replies < CALLS {
        // Sleep no longer than until our next deadline.
        let next = host.reactor.next_deadline();
        let timeout = next.map(|next| next.saturating_duration_since(Instant::now()));
        host_loop.dispatch(timeout, &mut host)?;
        host.turn()?;
    }
    println!("{} calls in the host's loop, the count is {}", host.app.replies, host.app.count);
    println!("the host's timer ticked {}", if host.ticks > 0 { "meanwhile" } else { "never" });
    Ok(())
}

/// Makes one call; its reply makes the next, a little later.
fn call(client: Client<App>, cx: &mut Cx<'_, App>) {
    client.call(cx.registry, counter::add, (1,), move |reply, cx| {
        cx.state.replies += 1;
        assert_eq!(reply, Ok(cx.state.replies));
        if cx.state.replies < CALLS {
            cx.registry.after(Duration::from_millis(1), move |cx| call(client, cx));
        }
    });
}
