//! What the peers' program (`benches/peers`) is made of: the part of the bench that does not care
//! whose protocol is spoken.
//!
//! A part of the bench is a process that is told its options as JSON, talks with its parent in JSON
//! lines and ends with it. [`serve_with`] and [`drive_with`] are such parts for a server that runs
//! in this process and for a load; [`answer_parent`] is one for a server that is another program.

pub use crate::load::bare::Load;
pub use crate::load::pace::Pace;
pub use crate::load::sequence::{Generator, Watch};
pub use crate::load::sources::Sources;
pub use crate::load::tally::{Class, Tally};
pub use crate::load::wire::{Front, Notice, Wire};
pub use crate::load::{DRAIN_MAX, STALL_MAX, drive_with, index, nanoseconds};
pub use crate::machine::{avoid, pin, raise_descriptor_limit, sample_of};
pub use crate::message::Sample;
pub use crate::options::{LoadKind, LoadOptions, Rate, ServerKind, ServerOptions};
pub use crate::peers::missing;
pub use crate::server::{answer_parent, serve_with};
