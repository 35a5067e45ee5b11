//! What both ends of an Onceloop connection share: the driver that stands between a socket of the
//! reactor and the state machines of the protocol.
//!
//! A [`Connection`] reads, cuts frames, checks them, queues output and keeps the deadlines of a
//! connection's life. What the frames mean is the business of its [`Role`]: the server's or the
//! client's.
#![forbid(unsafe_code)]

mod address;
mod closed;
mod connection;
mod deadlines;
mod dispatch;
mod frames;
mod output;
mod role;
mod settings;
mod tail;
mod work;

pub use self::address::{Address, BadAddress, ToAddress};
pub use self::closed::Closed;
pub use self::connection::{Connection, close, finish};
pub use self::frames::Frames;
pub use self::role::Role;
pub use self::settings::Settings;
