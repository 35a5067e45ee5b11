//! The client of Onceloop: callback-style calls that may be retried without running twice.
//!
//! A [`Client`] is a small id that may be kept in the program's own state. Calls take the reactor's
//! registry, return at once, and run their continuation exactly once, in a later task phase:
//!
//! ```no_run
//! use onceloop_client::Client;
//! use onceloop_reactor::Reactor;
//!
//! onceloop_protocol::service! {
//!     /// Sums.
//!     pub mod calc {
//!         /// Adds.
//!         fn add(a: i32, b: i32) -> i32;
//!     }
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let mut reactor = Reactor::new()?;
//! let client = Client::connect(reactor.registry(), "localhost:7000")?;
//! client.call(reactor.registry(), calc::add, (3, 4), |reply, cx| {
//!     match reply {
//!         Ok(sum) => *cx.state = sum,
//!         Err(error) => eprintln!("{error}"), // and `error.ran()` tells whether it ran
//!     }
//!     cx.registry.stop();
//! });
//! let mut sum = 0;
//! reactor.run(&mut sum)
//! # }
//! ```
//!
//! The client may start before its server. It connects, says who it is, sends what waits, and does
//! so again whenever a connection is lost; calls outlive connections. By default a call runs exactly
//! once: it is sent again, under the same number, until it is answered or its deadline passes.
//! [`CallOptions`] chooses otherwise.
//!
//! Two faces more, thin over the same core: [`BlockingClient`] for a program without a loop, and
//! [`Handle`] for other threads of one that has it.
//!
//! # What is promised
//!
//! * Each continuation runs exactly once, never inside the call that created it, also when the
//!   client is closed. A reactor that is dropped drops the continuations it has not run.
//! * [`CallError::NotExecuted`](onceloop_protocol::error::CallError::NotExecuted) is proof, not a
//!   guess: the call did not run and never will.
//! * A continuation may do anything: call again, close its client, remove sources, stop the loop.
#![forbid(unsafe_code)]

mod blocking;
mod builder;
mod client;
mod connecting;
mod core;
mod further;
mod handle;
mod hedge;
mod options;
mod outcome;
mod role;
mod state;

pub use self::blocking::BlockingClient;
pub use self::builder::Builder;
pub use self::client::{CallId, Client};
pub use self::handle::Handle;
pub use self::options::CallOptions;
pub use self::outcome::outcome;
pub use self::state::State;
