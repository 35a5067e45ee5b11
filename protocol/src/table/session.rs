//! One session: a client's identity on this server, outliving its connections.

use std::time::Instant;

use super::cell::{Cell, Ring};
use super::order::InOrder;
use crate::handshake::Sid;

/// Whether a client is there.
enum Presence {
    /// By this connection.
    Attached(u64),
    /// No; the lease ends then.
    Detached(Instant),
}

/// What the table keeps of one client: one and a half cache lines.
pub struct Session {
    /// The highest acknowledgement seen.
    pub(super) floor: u64,
    pub(super) ring: Ring,
    presence: Presence,
    pub(super) window: u16,
    /// Handlers that have started and not ended, the abandoned among them.
    pub(super) in_flight: u16,
    /// Handlers whose seq was acknowledged while they ran.
    pub(super) abandoned: u16,
    /// Bytes of kept answers.
    pub(super) kept_bytes: u32,
    pub(super) incarnation: u32,
    pub(super) attachment: u32,
    pub(super) in_order: Option<Box<InOrder>>,
    secret: [u8; 16],
}

impl Session {
    pub(super) fn new(window: u16, secret: u128, connection: u64, in_order: bool) -> Self {
        Session {
            floor: 0,
            ring: Ring::new(),
            presence: Presence::Attached(connection),
            window,
            in_flight: 0,
            abandoned: 0,
            kept_bytes: 0,
            incarnation: 0,
            attachment: 0,
            in_order: in_order.then(Box::default),
            secret: secret.to_le_bytes(),
        }
    }

    pub(super) fn sid(&self, place: u64) -> Sid {
        Sid { place, secret: u128::from_le_bytes(self.secret) }
    }

    pub(super) fn connection(&self) -> Option<u64> {
        match self.presence {
            Presence::Attached(connection) => Some(connection),
            Presence::Detached(_) => None,
        }
    }

    pub(super) fn is_attached_to(&self, connection: u64) -> bool {
        self.connection() == Some(connection)
    }

    pub(super) fn attach(&mut self, connection: u64) {
        self.presence = Presence::Attached(connection);
    }

    pub(super) fn detach(&mut self, expires: Instant) {
        self.presence = Presence::Detached(expires);
    }

    /// Returns when the lease ends, if the client is away.
    pub(super) fn expires(&self) -> Option<Instant> {
        match self.presence {
            Presence::Attached(_) => None,
            Presence::Detached(expires) => Some(expires),
        }
    }

    /// Returns whether the session ever had a call: a lease as long as a used session's would let a
    /// flood of mere handshakes fill the table.
    pub(super) fn was_used(&self) -> bool {
        self.floor > 0 || self.in_flight > 0 || !self.ring.is_vacant()
    }

    /// In-order session: returns the lowest seq that has neither ended nor been acknowledged.
    ///
    /// It only rises, so looking it up again costs what has ended since.
    ///
    /// # Panics
    /// If the session is unordered.
    pub(super) fn next_in_order(&mut self) -> u64 {
        let in_order = self.in_order.as_mut().expect("the caller asks only in-order sessions");
        let mut next = in_order.next.max(self.floor + 1);
        while matches!(
            self.ring.get(self.floor, next),
            Cell::Done { .. } | Cell::DoneNoReply { .. }
        ) {
            next += 1;
        }
        in_order.next = next;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_no_larger_than_it_was_designed() {
        assert!(size_of::<Session>() <= 96, "{}", size_of::<Session>());
    }
}
