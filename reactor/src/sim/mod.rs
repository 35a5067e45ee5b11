//! A world in a process: simulated hosts, network, clocks, entropy and failures, all from one
//! seed.
//!
//! A reactor has two back ends, chosen when it is made. [`Reactor::new`](crate::Reactor::new)
//! polls the operating system; [`Reactor::simulated`](crate::Reactor::simulated) makes one that
//! sits on a [`Host`] of a [`World`]. Whatever runs on the first runs on the second unchanged, as
//! long as it asks its [`Registry`](crate::Registry) for the time
//! ([`now`](crate::Registry::now)), for chance ([`random_bytes`](crate::Registry::random_bytes)),
//! for sockets ([`connect`](crate::Registry::connect), [`listen`](crate::Registry::listen)), for
//! addresses ([`resolve`](crate::Registry::resolve)) and for threads
//! ([`offload`](crate::Registry::offload)), and goes through no map in an order that changes from
//! run to run. Then the same seed gives the same run, to the byte: a failure that one seed in a
//! hundred thousand brings about can be run again, with its trace and in a debugger.
//!
//! # Driving it
//!
//! A [`Simulation`] owns the world and, for each host, a function that makes its process whenever
//! it is started. Time passes in [`Simulation::step`] only, and costs nothing.
//!
//! ```
//! use std::time::Duration;
//!
//! use onceloop_reactor::sim::{Faults, Program, Simulation};
//! use onceloop_reactor::{Config, Reactor};
//!
//! let mut simulation = Simulation::new(7, Faults::none());
//! let host = simulation.world().host("clock");
//! simulation.add(host.clone(), |host| {
//!     let mut reactor = Reactor::<u32>::simulated(host, Config::simulated());
//!     reactor.registry().after(Duration::from_secs(3600), |cx| *cx.state += 1);
//!     Ok(Box::new(Program::new(reactor, 0)))
//! });
//! simulation.run_for(Duration::from_secs(2 * 3600));
//! assert_eq!(simulation.program::<u32>(&host).map(|program| program.state), Some(1));
//! ```
//!
//! # Faults
//!
//! [`Faults`] says what may go wrong and how often; [`Faults::drawn`] draws that from a seed, too.
//! After a time of faults, `set_faults(Faults::none())` and [`World::heal`] begin a time in which
//! all must come to an end that can: whatever hangs then would hang for ever.
//!
//! # The model
//!
//! * A connection has two directions, each first in, first out: what is written at once arrives at
//!   once, 30 µs to 1.3 ms later. Its buffers are bounded (16 to 256 KiB a direction, what is under
//!   way and what is unread together), so writes are taken in part.
//! * Connecting takes a round trip. Where nobody listens it is refused; where nobody answers it is
//!   tried 7 times in about two minutes, and times out.
//! * Readiness is edge-triggered, as with epoll: bytes, the end, an error, and room after there was
//!   none are told once.
//! * A socket that is dropped is closed: what was written arrives, then the end; a reset, if
//!   something was left unread. What is sent to a closed socket brings a reset back.
//! * A turn takes its host 0.5 to 20 µs. An offloaded job runs at once, and its continuation 20 µs
//!   to 50 ms later; a name is known after 50 µs to 20 ms.
//! * Each host has a clock of its own. It shows anything at the beginning, drifts and leaps forward
//!   as the faults say, and never goes back.
//!
//! # What there is not
//!
//! Unix sockets, datagrams, files, other threads. [`Remote`](crate::Remote) works within its host.
//! `AsFd` of a simulated reactor or socket panics: there is no descriptor.

mod clock;
mod connection;
mod delivery;
mod faults;
mod host;
mod network;
mod pipe;
mod queue;
mod random;
mod simulation;
mod socket;
mod strikes;
mod system;
mod tally;
mod trace;
mod world;

pub use faults::Faults;
pub use host::Host;
pub use random::Random;
pub use simulation::{KillMode, Process, Program, Simulation, Step};
pub(crate) use socket::{Acceptor, Seat, Socket};
pub use tally::{Fault, Tally};
pub use trace::{Line, What};
pub use world::World;
