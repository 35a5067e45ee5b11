//! Sessions that ask for order: "servers block on holes". A request that comes before its turn is
//! held, and runs when every lower seq has ended.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::frame::{Frame, Header};

/// What an in-order session has beyond an unordered one.
#[derive(Default)]
pub(super) struct InOrder {
    /// Every seq below this one has ended or is acknowledged; at least floor + 1 once it is used.
    pub(super) next: u64,
    /// Requests that wait, by seq: at most a window of them.
    pub(super) held: BTreeMap<u64, Held>,
    /// Bytes of those requests.
    pub(super) held_bytes: usize,
}

/// A request that waits for its turn.
pub(super) struct Held {
    pub(super) header: Header,
    pub(super) body: Box<[u8]>,
    /// When it came.
    pub(super) since: Instant,
    /// Until when its caller waits.
    pub(super) deadline: Option<Instant>,
}

impl Held {
    /// Returns the request as if it came now: with what is left of its time.
    pub(super) fn into_request(self, now: Instant) -> HeldRequest {
        let mut header = self.header;
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(now).as_millis();
            header.time_left_ms = u32::try_from(left).unwrap_or(u32::MAX - 1);
        }
        HeldRequest { header, body: self.body }
    }
}

/// A held request whose turn has come; it goes through [`super::Table::admit`] again.
#[derive(Debug)]
pub struct HeldRequest {
    header: Header,
    body: Box<[u8]>,
}

impl HeldRequest {
    /// Returns the request as the frame it came in.
    pub fn frame(&self) -> Frame<'_> {
        Frame { header: self.header, body: &self.body }
    }
}
