//! The wire of Onceloop and the state machines at its two ends.
//!
//! Everything here takes bytes and time and gives bytes, events and a deadline: there is no socket,
//! no clock and no user closure in this crate. So the same code runs under the event loop, behind a
//! mutex in a threaded server, and in a test that moves time by hand.
//!
//! * [`frame`]: the layout of a frame; [`cutter`]: frames out of a stream of bytes.
//! * [`scan`]: is this body well-formed MessagePack within the limits?
//! * [`codec`]: arguments and replies, between Rust values and bytes; [`value`]: values without a
//!   Rust type.
//! * [`method`](mod@method): typed descriptors of methods, made by [`service!`](crate::service).
//! * [`error`]: codes, their classes, and the answer to *did it run?*
//! * [`handshake`]: the bodies of HELLO, WELCOME, RESUME and RESUMED.
//! * [`table`]: the server's sessions and their xids; [`session`]: the client's side of one.
//! * [`limits`]: every bound in one place, each with its reason.
#![forbid(unsafe_code)]

pub mod arena;
pub mod codec;
pub mod cutter;
pub mod digest;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod method;
pub mod scan;
pub mod session;
pub mod table;
pub mod value;
