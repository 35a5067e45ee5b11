//! The server of Onceloop: typed handlers on one event loop, and a table of transaction ids that
//! lets a client retry a call without running it twice.
//!
//! ```
//! use onceloop_reactor::Reactor;
//! use onceloop_server::Builder;
//!
//! onceloop_protocol::service! {
//!     /// Counts.
//!     pub mod counter {
//!         /// Adds to the count and returns it.
//!         fn add(n: u64) -> u64;
//!     }
//! }
//!
//! struct App {
//!     count: u64,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut reactor = Reactor::new()?;
//! let server = Builder::<App>::new()
//!     .method(counter::add, |(n,), cx| {
//!         cx.state.count += n; // one thread: no lock
//!         Ok(cx.state.count)
//!     })
//!     .listen(reactor.registry(), "127.0.0.1:0")?;
//! println!("listening on {}", server.local_addresses(reactor.registry())[0]);
//! # reactor.turn(&mut App { count: 0 }, Some(std::time::Duration::ZERO))?;
//! # Ok(()) }
//! ```
//!
//! # What a handler may do
//!
//! It runs in the task phase of a turn, with nothing borrowed: it may use all of its
//! [`Context`], call other servers, close its own connection, stop the loop. It must not block: for
//! work that takes long there are deferred methods ([`Builder::deferred`]) and the reactor's
//! `offload`.
//!
//! # A server that outlives its crash
//!
//! With a store ([`Builder::store`]) what the server knows of its calls survives it: a client that
//! comes back after the crash gets the answer it missed, and no call runs twice. Methods whose
//! effects are in the store, too ([`Builder::transactional`]), happen once or not at all. Of any
//! other method it is written down that it starts, before it does; if the server crashes in it,
//! nobody can know how far it came, and the caller is told so (`IN_DOUBT`), unless the method is
//! idempotent.
//!
//! No answer leaves before all is safe that its handler could have seen in the store. What a handler
//! sends by itself, on connections or as a client of its own, is not held back.
#![forbid(unsafe_code)]

mod acceptor;
mod builder;
pub mod builtin;
mod context;
mod core;
mod delivery;
mod drain;
mod durable;
mod handler;
mod held;
mod peer;
mod request;
mod responder;
mod server;
mod stats;

pub use self::builder::{Builder, ListenError};
pub use self::context::{CallInfo, Context, Xid};
pub use self::drain::Drained;
pub use self::responder::Responder;
pub use self::server::Server;
pub use self::stats::Stats;
pub use onceloop_protocol::table::Principal;
