//! One session: a client's identity on this server, outliving its connections.

use std::time::Instant;

use super::cell::{Cell, Ring};
use super::order::InOrder;
use crate::handshake::Sid;

/// The token of "no connection".
const DETACHED: u64 = u64::MAX;

/// What the table keeps of one client. The fields that every request touches come first; the whole
/// is one and a half cache lines.
pub struct Session {
    /// The highest acknowledgement seen.
    pub(super) floor: u64,
    pub(super) ring: Ring,
    /// The attached connection, or [`DETACHED`].
    connection: u64,
    pub(super) window: u32,
    /// Handlers that have started and not ended, the abandoned among them.
    pub(super) in_flight: u32,
    /// Handlers whose seq was acknowledged while they ran.
    pub(super) abandoned: u32,
    /// Bytes of kept answers.
    pub(super) kept_bytes: u32,
    pub(super) incarnation: u32,
    pub(super) attachment: u32,
    pub(super) in_order: Option<Box<InOrder>>,
    secret: [u8; 16],
    /// When the lease ends; only while detached.
    pub(super) expires: Option<Instant>,
}

impl Session {
    pub(super) fn new(window: u32, secret: u128, connection: u64, in_order: bool) -> Self {
        Session {
            floor: 0,
            ring: Ring::new(),
            connection,
            window,
            in_flight: 0,
            abandoned: 0,
            kept_bytes: 0,
            incarnation: 0,
            attachment: 0,
            in_order: in_order.then(Box::default),
            secret: secret.to_le_bytes(),
            expires: None,
        }
    }

    pub(super) fn sid(&self, place: u64) -> Sid {
        Sid { place, secret: u128::from_le_bytes(self.secret) }
    }

    pub(super) fn connection(&self) -> Option<u64> {
        (self.connection != DETACHED).then_some(self.connection)
    }

    pub(super) fn is_attached_to(&self, connection: u64) -> bool {
        self.connection == connection
    }

    pub(super) fn attach(&mut self, connection: u64) {
        debug_assert_ne!(connection, DETACHED);
        self.connection = connection;
        self.expires = None;
    }

    pub(super) fn detach(&mut self, expires: Instant) {
        self.connection = DETACHED;
        self.expires = Some(expires);
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
        assert!(size_of::<Session>() <= 112, "{}", size_of::<Session>());
    }
}
