//! An exhaustive check of the table of xids within small bounds.
//!
//! The table is the real one; around it stand a client that keeps the rules, connections on which
//! frames wait, and handlers. [`search`] takes every step that any of them may take next, in every
//! state, and looks in each whether a call has run twice, a reply went to the wrong call, or one that
//! was said not to run has run.
#![forbid(unsafe_code)]

mod client;
mod network;
pub mod scenario;
pub mod search;
mod server;
pub mod world;

pub use client::Semantics;
