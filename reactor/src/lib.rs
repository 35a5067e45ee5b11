//! An event loop on one thread in which a callback may do anything, because nothing is borrowed
//! while it runs.
//!
//! A [`Reactor`] polls descriptors and runs callbacks. It knows nothing of RPC: it has sources
//! (sockets and what belongs to them), timers, deferred tasks, tasks posted from other threads
//! and slow jobs sent to a small pool of threads.
//!
//! # One turn
//!
//! ```text
//!           ┌─────────────────────────────────────────────────────────────────────┐
//!           │ 1 what is runnable already?   yes: do not block                     │
//!           │                               no:  until the next deadline          │
//!           │ 2 poll                        one system call                       │
//!           │ 3 read the clock              once                                  │
//!  no user  │ 4 I/O phase    each ready source: handle_io(io)                     │
//!  code     │                reads land one behind the other in the turn buffer   │
//!           │                ┌────────┬──────────────┬────┬─────────────────┐     │
//!           │                │ batch A│   batch B    │ C  │      free       │     │
//!           │                └────────┴──────────────┴────┴─────────────────┘     │
//!           │ 5 collect the timers that are due                                   │
//!           ├─────────────────────────────────────────────────────────────────────┤
//!  user     │ 6 task phase   timers, posted tasks, deferred tasks, finished jobs, │
//!  code     │                then each source's batch: dispatch(cx, id, input)    │
//!           ├─────────────────────────────────────────────────────────────────────┤
//!  no user  │ 7 flush each touched source once, those that go on after the others │
//!  code     └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! User code runs in step 6 only. What it is given is a [`Cx`]: the program's own state and the
//! [`Registry`], two disjoint borrows. The turn buffer belongs to the reactor and not to the
//! registry, so a batch may be read in place while the callback closes the very connection that
//! the batch came from. A source is looked up again, by an [`Id`] with a generation, each time it
//! is needed; an id whose source is gone resolves to nothing.
//!
//! # Invariants
//!
//! * No user code runs between the poll and the task phase.
//! * No id resolves after [`Registry::remove`].
//! * Each continuation (of a timer, `defer`, `post` or `offload`) runs exactly once, never inside
//!   the call that created it, unless it is cancelled or the reactor is dropped: then never.
//! * A source is in a queue at most once, and its work in a turn is bounded.
//! * A descriptor is registered once, for both directions, edge-triggered; its readiness is
//!   remembered by [`Stream`] and [`Listener`].
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use onceloop_reactor::Reactor;
//!
//! # fn main() -> std::io::Result<()> {
//! let mut reactor = Reactor::<Vec<&str>>::new()?;
//! let registry = reactor.registry();
//! registry.defer(|cx| {
//!     cx.state.push("deferred");
//!     cx.registry.after(Duration::from_millis(2), |cx| {
//!         cx.state.push("timer");
//!         cx.registry.stop();
//!     });
//! });
//!
//! let remote = registry.remote();
//! std::thread::spawn(move || remote.post(|cx| cx.state.push("posted"))).join().unwrap().unwrap();
//!
//! let mut state = Vec::new();
//! reactor.run(&mut state)?;
//! assert_eq!(state, ["posted", "deferred", "timer"]);
//! # Ok(())
//! # }
//! ```
//!
//! # Two back ends
//!
//! [`Reactor::new`] polls the operating system. [`Reactor::simulated`] makes a reactor that sits in
//! a world whose network, clocks, names, entropy and failures come from one seed: whole programs
//! are tested there, see [`sim`]. A source that is to run in both makes its sockets by
//! [`Registry::connect`] and [`Registry::listen`], and asks the registry for the time.
//!
//! # Platforms
//!
//! Unix, over mio (epoll or kqueue). The feature `os` (on by default) adds what std lacks:
//! descriptor limits, the listen backlog, dual-stack sockets, keepalive and peer credentials.

#![forbid(unsafe_code)]

#[cfg(panic = "abort")]
compile_error!(
    "onceloop needs panic = \"unwind\": a callback that panics must leave the reactor to go on with \
     the rest of the turn, and a job that panics must be reported to its continuation"
);
#[cfg(not(unix))]
compile_error!(
    "onceloop-reactor supports Unix only: AsFd and Unix sockets are part of its interface"
);

mod buffers;
mod config;
mod id;
mod listener;
mod offload;
pub mod os;
mod poll;
mod reactor;
mod registry;
mod remote;
pub mod sim;
mod source;
mod spin;
mod stream;
mod timers;
mod world;

pub use buffers::SPARE_BUFFER_BYTES_MAX;
pub use config::Config;
pub use id::Id;
pub use listener::{Address, Listener};
pub use offload::{JobPanicked, OffloadFull};
pub use reactor::{Reactor, Turn};
pub use registry::{Cx, Registry};
pub use remote::{Closed, Remote};
pub use source::{Input, Io, Pollable, Source};
pub use stream::{Peer, ReadOutcome, Stream, WriteOutcome};
pub use timers::TimerId;
