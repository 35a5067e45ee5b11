//! Whole servers and clients, unchanged, on a simulated network that fails in every way it can, and
//! an oracle that knows what was promised of each call.
//!
//! A **seed** is a world: one or two servers, two to four programs that call them, a network, a
//! clock for each, and the faults that strike. All of it is drawn from one number, and the same
//! number gives the same run, to the byte. [`run`] runs one seed, [`run_all`] many.
//!
//! Every call has a number of its own, which it carries in its arguments. So the [oracle](Kind) knows
//! of every execution which call it belongs to, whatever session, connection or process it came by.
#![forbid(unsafe_code)]

mod client;
mod data;
mod ledgers;
pub mod linearizability;
mod oracle;
mod panics;
mod parcel;
mod plan;
mod report;
mod run;
mod server;
mod service;
mod shared;
mod work;
mod workload;

pub use oracle::{Kind, Violation};
pub use report::{Failure, Report, Summary, run_all, run_until_failure};
pub use run::{OnLine, Verdict, run};
pub use work::Work;

/// A mistake that is made on purpose, so that the oracle is seen to find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sabotage {
    /// A client asks again when it does not know, as if it were another call.
    BlindRetry,
    /// Some handlers take effect twice.
    EffectTwice,
    /// A store forgets what it is told of calls, and nothing else.
    ForgottenTable,
    /// A store says that everything is safe at once.
    HastyStore,
    /// Some handlers never answer.
    NoAnswer,
    /// Some handlers answer without having done anything.
    NoEffect,
    /// None.
    #[default]
    None,
    /// Some handlers give the reply of another call.
    OtherReply,
}
