//! Onceloop: an RPC runtime where a retry never runs twice. One thread, one event loop, one table of
//! transaction ids, no locks, no async runtime.
//!
//! A client gives every call a number, and the server remembers the answer until the client says
//! that it has it. So a call may be sent again, over as many connections as it takes, and its
//! handler runs once.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use onceloop::{Builder, Client, Reactor};
//!
//! onceloop::service! {
//!     /// Counts words.
//!     pub mod word_count {
//!         /// Returns how often each word occurs.
//!         fn compute(text: &str) -> BTreeMap<String, u64>;
//!     }
//! }
//!
//! #[derive(Default)]
//! struct App {
//!     answers: usize,
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut reactor = Reactor::<App>::new()?;
//!     let server = Builder::new()
//!         .method(word_count::compute, |(text,), _| {
//!             let mut counts = BTreeMap::new();
//!             for word in text.split_whitespace() {
//!                 *counts.entry(word.to_owned()).or_insert(0) += 1;
//!             }
//!             Ok(counts)
//!         })
//!         .listen(reactor.registry(), "127.0.0.1:0")?;
//!
//!     let address = server.local_addresses(reactor.registry()).remove(0);
//!     let client = Client::connect(reactor.registry(), address)?;
//!     client.call(reactor.registry(), word_count::compute, ("a rose is a rose",), |reply, cx| {
//!         assert_eq!(reply.expect("it is there")["rose"], 2);
//!         cx.state.answers += 1;
//!         cx.registry.stop();
//!     });
//!
//!     let mut app = App::default();
//!     reactor.run(&mut app)?;
//!     assert_eq!(app.answers, 1);
//!     Ok(())
//! }
//! ```
//!
//! * The loop: [`Reactor`], [`Registry`], [`Cx`], [`Remote`], and [`reactor`] for sources of your own.
//! * The server: [`Builder`], [`Server`], [`Context`], [`Responder`].
//! * The client: [`Client`], made by [`ClientBuilder`]; [`BlockingClient`], [`Handle`], and what a call may end in:
//!   [`CallError`].
//! * A simulated world to test services in: [`sim`].
//! * The wire: [`service!`], [`Limits`], [`Value`], and [`protocol`] for the rest.
#![forbid(unsafe_code)]

pub use onceloop_client as client;
pub use onceloop_protocol as protocol;
pub use onceloop_reactor as reactor;
pub use onceloop_server as server;

pub use onceloop_client::{
    BlockingClient, Builder as ClientBuilder, CallId, CallOptions, Client, Handle, State,
};
pub use onceloop_endpoint::Address;
pub use onceloop_protocol::codec::{Bin, Raw};
pub use onceloop_protocol::error::{ApplicationError, CallError, Code, Fault, Ran};
pub use onceloop_protocol::handshake::Order;
pub use onceloop_protocol::limits::Limits;
pub use onceloop_protocol::method::{Caller, DynamicMethod, Method, MethodInfo};
pub use onceloop_protocol::service;
pub use onceloop_protocol::value::Value;
pub use onceloop_reactor::sim;
pub use onceloop_reactor::{Config, Cx, Reactor, Registry, Remote};
pub use onceloop_server::{
    Builder, CallInfo, Context, Drained, ListenError, Principal, Responder, Server, Stats, Xid,
};

/// The programs in the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
