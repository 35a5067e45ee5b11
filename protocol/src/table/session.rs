//! One session: a client's identity on this server, outliving its connections.

use std::time::{Duration, Instant};

use super::cell::{Cell, Ring};
use super::durable::DurableSession;
use super::order::InOrder;
use super::{Delivery, SessionKey};
use crate::handshake::Sid;
use crate::limits::Limits;

/// Whether a client is there.
#[derive(Clone, Copy)]
enum Presence {
    /// By this connection; a second one is out of line.
    Attached(u64),
    /// No; the lease ends then.
    Detached(Instant),
    /// Never again: the session is over, and that is not safe yet.
    Ending,
}

/// How long a session outlives its last connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lease {
    /// It never had a call: a lease as long as a used session's would let a flood of mere
    /// handshakes fill the table.
    Unused,
    /// It had one.
    Used,
    /// The table is durable, and so is what the client knows.
    Journaled,
}

impl Lease {
    pub(super) fn time(self, limits: &Limits) -> Duration {
        match self {
            Lease::Unused => limits.unused_lease,
            Lease::Used => limits.lease,
            Lease::Journaled => limits.journal_lease,
        }
    }
}

/// What the table keeps of one client: one and a half cache lines.
#[derive(Clone)]
pub struct Session {
    /// The highest acknowledgement seen.
    pub(super) floor: u64,
    ring: Ring,
    presence: Presence,
    window_log2: u8,
    /// Handlers that have started and not ended, the abandoned among them.
    pub(super) in_flight: u16,
    /// Handlers whose seq was acknowledged while they ran.
    pub(super) abandoned: u16,
    /// Bytes of kept answers.
    pub(super) kept_bytes: u32,
    pub(super) incarnation: u32,
    pub(super) attachment: u32,
    /// Whose it is: a place among the table's accounts.
    pub(super) account: u32,
    /// How long it outlives its last connection, as decided when that was lost.
    pub(super) lease: Lease,
    /// Cells that are not vacant.
    occupied: u16,
    rare: Option<Box<Rare>>,
    secret: [u8; 16],
}

/// What few sessions have.
#[derive(Clone, Default)]
struct Rare {
    in_order: Option<InOrder>,
    /// The second connection; the first is in [`Presence::Attached`].
    joined: Option<u64>,
    durable: Option<DurableSession>,
}

impl Session {
    pub(super) fn new(window: u16, secret: u128, connection: u64, account: u32) -> Self {
        Session {
            floor: 0,
            ring: Ring::new(),
            presence: Presence::Attached(connection),
            window_log2: u8::try_from(window.ilog2()).expect("at most 15"),
            in_flight: 0,
            abandoned: 0,
            kept_bytes: 0,
            incarnation: 0,
            attachment: 0,
            account,
            lease: Lease::Used,
            occupied: 0,
            rare: None,
            secret: secret.to_le_bytes(),
        }
    }

    pub(super) fn sid(&self, place: u64) -> Sid {
        Sid { place, secret: u128::from_le_bytes(self.secret) }
    }

    /// Returns how many seqs above the floor may be occupied.
    #[inline]
    pub(super) fn window(&self) -> u16 {
        1 << self.window_log2
    }

    /// Returns the cell of a seq above the floor.
    #[inline]
    pub(super) fn cell(&self, seq: u64) -> Cell {
        self.ring.get(self.floor, seq)
    }

    /// Returns the digest in the cell of a seq above the floor; `None` if it is vacant. It costs less
    /// than the whole cell.
    #[inline]
    pub(super) fn digest(&self, seq: u64) -> Option<u64> {
        self.ring.digest(self.floor, seq)
    }

    /// Puts `cell` at a seq within the window whose cell is vacant.
    #[inline]
    pub(super) fn occupy(&mut self, seq: u64, cell: Cell) {
        debug_assert_eq!(self.cell(seq), Cell::Vacant);
        self.ring.set(self.floor, seq, cell);
        self.occupied += 1;
    }

    /// Puts `cell` at a seq whose cell is occupied, and stays so.
    #[inline]
    pub(super) fn set_cell(&mut self, seq: u64, cell: Cell) {
        debug_assert!(self.cell(seq) != Cell::Vacant && cell != Cell::Vacant);
        self.ring.set(self.floor, seq, cell);
    }

    /// Puts the reply of a call that has ended in its cell, or that none is kept. `call` is where the
    /// call was.
    #[inline]
    pub(super) fn finish(&mut self, seq: u64, call: u32, reply: Option<u32>) {
        let Some(cell) = self.ring.get_mut(self.floor, seq) else {
            unreachable!("a call that runs and is not abandoned has a cell")
        };
        let Cell::Pending { digest, call: pending } = *cell else {
            unreachable!("a call that runs and is not abandoned is pending in its cell: {cell:?}")
        };
        debug_assert_eq!(pending, call);
        *cell = match reply {
            Some(reply) => Cell::Done { digest, reply },
            None => Cell::DoneNoReply { digest },
        };
    }

    /// Empties the cell of a seq above the floor, and returns what was in it.
    #[inline]
    pub(super) fn take_cell(&mut self, seq: u64) -> Cell {
        let cell = self.ring.take(self.floor, seq);
        self.occupied -= u16::from(!matches!(cell, Cell::Vacant));
        cell
    }

    /// Raises the floor to `ack`, tells `each` what was in the cells up to there that were not vacant,
    /// and returns how many these were. The cost is that of the cells there are, not of the
    /// distance.
    #[inline]
    pub(super) fn raise_floor(&mut self, ack: u64, each: impl FnMut(Cell)) -> u16 {
        let last = ack.min(self.floor + self.ring.capacity() as u64);
        debug_assert!(last - self.floor <= self.window().into(), "a distance is not a cost");
        let taken = self.ring.take_all(self.floor, last, each);
        self.occupied -= taken;
        self.floor = ack;
        taken
    }

    /// Returns the seqs that have a cell: every other one above the floor is vacant.
    #[inline]
    pub(super) fn seqs(&self) -> std::ops::RangeInclusive<u64> {
        self.floor + 1..=self.floor + self.ring.capacity() as u64
    }

    /// Returns the cells, in the order of their places.
    pub(super) fn cells(&self) -> &[Cell] {
        self.ring.cells()
    }

    /// Gives back the memory of a ring whose cells are all vacant.
    #[inline]
    pub(super) fn shrink(&mut self) {
        if self.occupied == 0 && self.ring.capacity() > 1 {
            self.ring = Ring::new();
        }
    }

    /// Returns whether every cell is vacant.
    #[inline]
    pub(super) fn is_vacant(&self) -> bool {
        self.occupied == 0
    }

    /// Returns the connection that is attached, the older one of two.
    #[inline]
    pub(super) fn connection(&self) -> Option<u64> {
        match self.presence {
            Presence::Attached(connection) => Some(connection),
            Presence::Detached(_) | Presence::Ending => None,
        }
    }

    /// Returns the younger one of two connections.
    #[inline]
    pub(super) fn joined(&self) -> Option<u64> {
        self.rare.as_ref()?.joined
    }

    /// Returns the connections that are attached, the older one first.
    pub(super) fn connections(&self) -> Vec<u64> {
        self.connection().into_iter().chain(self.joined()).collect()
    }

    #[inline]
    pub(super) fn is_attached_to(&self, connection: u64) -> bool {
        self.connection() == Some(connection) || self.joined() == Some(connection)
    }

    /// Attaches `connection` and no other; returns those that were attached.
    pub(super) fn attach(&mut self, connection: u64) -> Vec<u64> {
        let replaced = self.connections();
        self.set_joined(None);
        self.presence = Presence::Attached(connection);
        replaced
    }

    /// Attaches `connection` beside the one that is there. Of two the one goes, and is returned, that
    /// joined: a client that joins again has lost it, while the first has served it all the time.
    pub(super) fn join(&mut self, connection: u64) -> Option<u64> {
        let Presence::Attached(_) = self.presence else {
            self.presence = Presence::Attached(connection);
            return None;
        };
        let replaced = self.joined();
        self.set_joined(Some(connection));
        replaced
    }

    /// Takes a connection from the session; returns whether that was its last one.
    pub(super) fn leave(&mut self, connection: u64, expires: Instant) -> bool {
        let second = self.joined();
        if second == Some(connection) {
            self.set_joined(None);
            return false;
        }
        if let Some(second) = second {
            self.set_joined(None);
            self.presence = Presence::Attached(second);
            return false;
        }
        self.detach(expires);
        true
    }

    pub(super) fn detach(&mut self, expires: Instant) {
        self.presence = Presence::Detached(expires);
    }

    /// Returns when the lease ends, if the client is away.
    pub(super) fn expires(&self) -> Option<Instant> {
        match self.presence {
            Presence::Attached(_) | Presence::Ending => None,
            Presence::Detached(expires) => Some(expires),
        }
    }

    fn set_joined(&mut self, joined: Option<u64>) {
        if joined.is_some() {
            self.rare.get_or_insert_default().joined = joined;
        } else if let Some(rare) = &mut self.rare {
            rare.joined = None;
            if rare.in_order.is_none() && rare.durable.is_none() {
                self.rare = None;
            }
        }
    }

    /// Returns which lease it gets when its client goes away.
    pub(super) fn lease(&self) -> Lease {
        match self.durable() {
            _ if !self.was_used() => Lease::Unused,
            Some(durable) if durable.has_journal => Lease::Journaled,
            _ => Lease::Used,
        }
    }

    /// Returns where an answer of the session goes: to every connection that knows it is attached.
    pub(super) fn delivery(&self, key: SessionKey) -> Delivery {
        let is_told = |connection: &u64| {
            self.durable().is_none_or(|durable| !durable.untold.contains(connection))
        };
        let unblocks = self.in_order().is_some().then_some(key);
        let (connection, joined) = (self.connection(), self.joined());
        Delivery {
            connection: connection.filter(is_told),
            joined: joined.filter(is_told),
            unblocks,
        }
    }

    /// The session is over; only its end is not safe yet.
    pub(super) fn end(&mut self) {
        self.set_joined(None);
        self.presence = Presence::Ending;
        if let Some(durable) = self.durable_mut() {
            durable.is_ending = true;
            durable.untold.clear();
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.presence, Presence::Ending)
    }

    pub(super) fn set_durable(&mut self, durable: DurableSession) {
        self.rare.get_or_insert_default().durable = Some(durable);
    }

    pub(super) fn durable(&self) -> Option<&DurableSession> {
        self.rare.as_ref()?.durable.as_ref()
    }

    pub(super) fn durable_mut(&mut self) -> Option<&mut DurableSession> {
        self.rare.as_mut()?.durable.as_mut()
    }

    /// Returns how many calls have ended whose answers are not safe.
    pub(super) fn committing(&self) -> u16 {
        self.durable().map_or(0, |durable| durable.committing)
    }

    pub(super) fn set_in_order(&mut self) {
        self.rare.get_or_insert_default().in_order = Some(InOrder::default());
    }

    #[inline]
    pub(super) fn in_order(&self) -> Option<&InOrder> {
        self.rare.as_ref()?.in_order.as_ref()
    }

    #[inline]
    pub(super) fn in_order_mut(&mut self) -> Option<&mut InOrder> {
        self.rare.as_mut()?.in_order.as_mut()
    }

    /// Returns since when the client is away.
    pub(super) fn detached_since(&self, limits: &Limits) -> Option<Instant> {
        let expires = self.expires()?;
        Some(expires.checked_sub(self.lease.time(limits)).unwrap_or(expires))
    }

    /// Returns whether the session ever had a call.
    pub(super) fn was_used(&self) -> bool {
        self.floor > 0 || self.in_flight > 0 || !self.is_vacant()
    }

    /// Returns whether nothing would be lost with the session: no occupied cell, and nothing runs.
    #[inline]
    pub(super) fn is_clean(&self) -> bool {
        self.in_flight == 0 && self.is_vacant() && self.committing() == 0
    }

    /// In-order session: returns the lowest seq that has neither ended nor been acknowledged.
    ///
    /// It only rises, so looking it up again costs what has ended since.
    ///
    /// # Panics
    /// If the session is unordered.
    pub(super) fn next_in_order(&mut self) -> u64 {
        let floor = self.floor;
        let rare = self.rare.as_mut().and_then(|rare| rare.in_order.as_mut());
        let in_order = rare.expect("the caller asks only in-order sessions");
        let mut next = in_order.next.max(floor + 1);
        while self.ring.get(floor, next).has_ended() {
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
