//! Mutants: the mistakes that a table of xids, a client or a durable store may be made with, each on
//! its own, and whether the simulator or the model check notices.
//!
//! A mutant is a patch: a text that stands once in a source file, and what stands there instead. So
//! the sources carry no switch for their own faults. A list ([`List`]) names them; a run copies the
//! tree, applies one patch at a time, builds and lets the checks look for it. A test of this crate
//! holds that every patch still applies.

pub mod list;
pub mod run;
pub mod tree;

pub use list::{Check, List, Mutant};
