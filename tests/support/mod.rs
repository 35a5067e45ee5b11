//! What the tests of the whole share: a loop that is turned until something is so, seeded numbers,
//! and a proxy that does to connections what networks do.
#![allow(dead_code, reason = "no test uses all of it")]

pub(crate) mod app;
pub(crate) mod process;
pub(crate) mod proxy;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use onceloop::client::Builder;
use onceloop::{Address, Client, Limits, Reactor, Registry, Server};

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A reactor and the state of its callbacks.
pub(crate) struct World<S: 'static> {
    pub(crate) reactor: Reactor<S>,
    pub(crate) app: S,
}

impl<S: Default + 'static> World<S> {
    pub(crate) fn new() -> World<S> {
        World::with(S::default())
    }
}

impl<S: 'static> World<S> {
    pub(crate) fn with(app: S) -> World<S> {
        World { reactor: Reactor::new().expect("a reactor"), app }
    }

    pub(crate) fn registry(&mut self) -> &mut Registry<S> {
        self.reactor.registry()
    }

    /// Starts the server on a port of the system's choice and returns where it listens.
    pub(crate) fn serve(&mut self, builder: onceloop::Builder<S>) -> (Server<S>, Address) {
        let server = builder.listen(self.registry(), "127.0.0.1:0").expect("a server");
        let address = server.local_addresses(self.registry()).remove(0);
        (server, address)
    }

    pub(crate) fn connect(&mut self, address: &Address) -> Client<S> {
        hasty().connect(self.registry(), address.clone()).expect("a client")
    }

    pub(crate) fn turn(&mut self) {
        self.reactor.turn(&mut self.app, Some(Duration::from_millis(20))).expect("a turn");
    }

    /// Turns until `done`.
    #[track_caller]
    pub(crate) fn until(&mut self, mut done: impl FnMut(&mut World<S>) -> bool) {
        let give_up_at = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < give_up_at, "it did not happen within {PATIENCE:?}");
            self.turn();
        }
    }

    /// Turns for a while in which something must not happen; the caller looks whether it did.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            self.reactor.turn(&mut self.app, Some(left)).expect("a turn");
        }
    }
}

/// Returns a client's builder with little patience, so that what takes seconds by default takes
/// milliseconds.
pub(crate) fn hasty<S: 'static>() -> Builder<S> {
    Client::builder().limits(hasty_limits())
}

pub(crate) fn hasty_limits() -> Limits {
    let mut limits = Limits::default();
    limits.backoff_min = Duration::from_millis(1);
    limits.backoff_max = Duration::from_millis(5);
    limits.retransmit_timeout = Duration::from_millis(50);
    limits
}

/// Seeded numbers: splitmix64, from Steele, Lea, Flood, *Fast Splittable Pseudorandom Number
/// Generators*.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Returns a number of the range.
    pub(crate) fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// Returns `true` in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(crate) fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }
}

/// A path for a Unix socket that nobody else uses; whoever listens there removes the file.
pub(crate) fn socket_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("onceloop-test-{}-{count}.sock", std::process::id()))
}
