//! Where events, time and chance come from: the operating system, or a simulated world.
//!
//! Chosen once per reactor, at run time. Everything above asks here, so that nothing above knows
//! which of the two it runs in.

use std::io;
use std::time::Instant;

use crate::sim::Seat;

/// The back end of a reactor.
pub(crate) enum Poll {
    Mio(mio::Poll),
    Sim(Seat),
}

impl Poll {
    /// Reads the clock.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::Mio(_) => Instant::now(),
            Self::Sim(seat) => seat.now(),
        }
    }

    /// Whether events wait of which only the simulated world knows.
    #[inline]
    pub(crate) fn has_events(&self) -> bool {
        match self {
            Self::Mio(_) => false,
            Self::Sim(seat) => seat.has_events(),
        }
    }
}

/// The error of a socket of one back end in a reactor of the other.
pub(crate) fn mixed() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "real sockets do not belong in a simulated reactor, nor simulated ones in a real one: \
         make them by Registry::connect and Registry::listen",
    )
}

/// The error of what the simulated world does not have.
pub(crate) fn not_simulated(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the simulated world has no {what}"))
}
