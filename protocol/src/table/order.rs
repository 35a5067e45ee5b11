//! Sessions that ask for order: "servers block on holes". A request that comes before its turn is
//! held, and runs when every lower seq has ended (row 12b).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::admit::Request;
use super::cell::Cell;
use super::session::Session;
use super::store::Store;
use super::{Refusal, SessionKey, Table};
use crate::error::Code;
use crate::frame::{Frame, Header, NO_DEADLINE_MS};

/// How long after a look that found no hole the next one is, at least: what blocks may be a handler
/// that runs for long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A request that waits, in a copy of its own: for its turn (then it goes through
/// [`super::Table::admit`] again), or until its START is safe.
#[derive(Clone, Debug)]
pub struct HeldRequest {
    header: Header,
    body: Box<[u8]>,
    /// By which it came: a refusal goes back by no other, where it would be taken for the answer to
    /// another copy.
    connection: u64,
    /// By which another copy of it came, which waits for the same answer.
    joined: Option<u64>,
    /// Until when its caller waits.
    deadline: Option<Instant>,
}

impl HeldRequest {
    pub(super) fn of(request: &Request<'_>, now: Instant) -> Self {
        let Frame { header, body } = *request.frame;
        let time_left = Duration::from_millis(header.time_left_ms.into());
        let deadline = (header.time_left_ms != NO_DEADLINE_MS).then(|| now + time_left);
        let connection = request.connection;
        HeldRequest { header, body: body.into(), connection, joined: None, deadline }
    }

    /// Returns the request as if it came now: with what is left of its time.
    pub(super) fn at(mut self, now: Instant) -> Self {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(now).as_millis();
            self.header.time_left_ms = u32::try_from(left).unwrap_or(u32::MAX - 1);
        }
        self
    }

    /// Returns the request as the frame it came in, with what is left of its time.
    pub fn frame(&self) -> Frame<'_> {
        Frame { header: self.header, body: &self.body }
    }

    /// Returns by which connection it came; if that is lost, the one that is attached.
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// Returns by which connection another copy came while it was held. A reply goes there by itself;
    /// if the request is refused when its turn comes, so is that copy.
    pub fn joined(&self) -> Option<u64> {
        self.joined
    }

    /// Another copy came.
    pub(super) fn join(&mut self, connection: u64) {
        if connection != self.connection {
            self.joined = Some(connection);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }
}

impl<St: Store> Table<St> {
    /// In-order session: returns a held request whose turn has come. It goes through
    /// [`Table::admit`] again. Ask until it gives nothing: after a completion, an acknowledgement
    /// and a refusal. While nobody is attached it gives nothing: the client's RESUME drops what is
    /// held.
    pub fn next_held(&mut self, key: SessionKey, now: Instant) -> Option<HeldRequest> {
        let session = self.sessions.get_mut(key)?;
        if session.in_order().is_none() || session.abandoned > 0 {
            return None;
        }
        let attached = session.connection()?;
        let next = session.next_in_order();
        let held = session.in_order_mut()?.held.remove(&next);
        if let Some(held) = &held {
            session.release(next, held);
            self.held_bytes -= held.bytes();
            self.accounts.count(session.account, |account| account.held_bytes -= held.bytes());
        }
        session.look_for_hole(now);
        let mut held = held?;
        held.joined = held.joined.filter(|&joined| session.is_attached_to(joined));
        if !session.is_attached_to(held.connection) {
            held.connection = held.joined.take().unwrap_or(attached);
        }
        if let Some(in_order) = session.in_order_mut() {
            in_order.joined = held.joined.map(|_| next);
        }
        Some(held.at(now))
    }

    /// In-order session: returns the seq whose turn came last, if there was another copy of it; once.
    pub(super) fn take_joined(&mut self, key: SessionKey) -> Option<u64> {
        self.sessions.get_mut(key)?.in_order_mut()?.joined.take()
    }

    /// Row 12b, in-order session: has something lower not ended?
    pub(super) fn must_wait(&mut self, key: SessionKey, seq: u64) -> bool {
        let session = self.sessions.get_mut(key).expect("admit has found it");
        session.abandoned > 0 || session.next_in_order() < seq
    }

    /// Row 12b: holds a request, unless there is no room.
    pub(super) fn hold(
        &mut self,
        key: SessionKey,
        request: &Request<'_>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Frame { header, body } = *request.frame;
        let session = self.sessions.get_mut(key).expect("admit has found it");
        let owner = session.account;
        let held = self.accounts.get(owner).held_bytes + body.len();
        let is_over_share = held > self.accounts.share(owner).argument_bytes;
        let in_order = session.in_order_mut().expect("only in-order sessions hold requests");
        if in_order.held_bytes + body.len() > self.limits.held_bytes_per_session_max {
            return Err(Refusal::new(Code::Busy, "too many bytes wait for an earlier call"));
        }
        if self.held_bytes + body.len() > self.limits.in_flight_bytes_max || is_over_share {
            let message = "the calls that wait for their turn take all the memory set aside";
            return Err(Refusal::new(Code::Busy, message));
        }
        in_order.held_bytes += body.len();
        self.held_bytes += body.len();
        self.accounts.count(owner, |account| account.held_bytes += body.len());
        in_order.held.insert(header.seq, HeldRequest::of(request, now));
        session.occupy(header.seq, Cell::Held { digest: request.digest });
        session.look_for_hole(now);
        let is_watched = session.in_order().is_some_and(|order| order.watched.is_some());
        if !is_watched {
            self.watch_held(key, now + self.limits.hole_age_max);
        }
        Ok(())
    }

    /// Refuses all that the session holds if what it waits for has not come within its bound.
    pub(super) fn expire_held(
        &mut self,
        key: SessionKey,
        due: Instant,
        now: Instant,
        refuse: &mut impl FnMut(Option<u64>, u64, &Refusal),
    ) {
        let age_max = self.limits.hole_age_max;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let Some(in_order) = session.in_order_mut() else { return };
        if in_order.watched != Some(due) {
            return;
        }
        in_order.watched = None;
        if in_order.held.is_empty() {
            return;
        }
        match session.look_for_hole(now) {
            Some(since) if since + age_max <= now => {
                let message = "an earlier call of the session never came";
                let refusal = Refusal::new(Code::Deadline, message);
                let attached = session.connections();
                for (seq, held) in self.drop_held(key) {
                    let came_by = attached.contains(&held.connection).then_some(held.connection);
                    refuse(came_by, seq, &refusal);
                    if let Some(joined) = held.joined.filter(|joined| attached.contains(joined)) {
                        refuse(Some(joined), seq, &refusal);
                    }
                }
                self.note_if_clean(key);
            }
            Some(since) => self.watch_held(key, since + age_max),
            // A handler runs that the held ones wait for: that is no hole, however long it takes.
            None => self.watch_held(key, now + age_max.max(LOOK_AGAIN)),
        }
    }

    /// Drops one held request, and returns by which connection it came.
    pub(super) fn remove_held(&mut self, key: SessionKey, seq: u64) -> u64 {
        let session = self.sessions.get_mut(key).expect("the caller has found it");
        let held = session.remove_held(seq);
        session.take_cell(seq);
        self.held_bytes -= held.bytes();
        self.accounts.count(session.account, |account| account.held_bytes -= held.bytes());
        held.connection
    }

    /// Drops what the session holds of seqs up to its floor; their cells are empty.
    #[cold]
    pub(super) fn drop_acknowledged(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key).expect("the caller has found it");
        let floor = session.floor;
        let in_order = session.in_order_mut().expect("only in-order sessions hold requests");
        let rest = in_order.held.split_off(&(floor + 1));
        let dropped = std::mem::replace(&mut in_order.held, rest);
        let bytes = dropped.values().map(HeldRequest::bytes).sum::<usize>();
        in_order.held_bytes -= bytes;
        self.held_bytes -= bytes;
        self.accounts.count(session.account, |account| account.held_bytes -= bytes);
    }

    /// Drops all that the session holds, and returns it. A RESUME does so (row 19b): what is held
    /// has not passed row 13.
    pub(super) fn drop_held(&mut self, key: SessionKey) -> BTreeMap<u64, HeldRequest> {
        let Some(session) = self.sessions.get_mut(key) else { return BTreeMap::new() };
        let Some(in_order) = session.in_order_mut() else { return BTreeMap::new() };
        if let Some(due) = in_order.watched.take() {
            self.leases.remove(&(due, key.to_bits()));
        }
        in_order.hole = None;
        let held = std::mem::take(&mut in_order.held);
        for (&seq, request) in &held {
            session.release(seq, request);
            self.held_bytes -= request.bytes();
            self.accounts.count(session.account, |account| account.held_bytes -= request.bytes());
        }
        held
    }

    /// Makes [`Table::expire`] look at what the session holds, at `due`.
    fn watch_held(&mut self, key: SessionKey, due: Instant) {
        if let Some(session) = self.sessions.get_mut(key)
            && let Some(in_order) = session.in_order_mut()
        {
            in_order.watched = Some(due);
            self.leases.insert((due, key.to_bits()));
        }
    }
}

/// What an in-order session has beyond an unordered one.
#[derive(Clone, Default)]
pub(super) struct InOrder {
    /// Every seq below this one has ended or is acknowledged; at least floor + 1 once it is used.
    pub(super) next: u64,
    /// Requests that wait, by seq: at most a window of them.
    pub(super) held: BTreeMap<u64, HeldRequest>,
    /// Bytes of those requests.
    pub(super) held_bytes: usize,
    /// The seq that the held ones wait for and that has not come, and since when it is missed.
    hole: Option<(u64, Instant)>,
    /// The last one whose turn came, if there was another copy of it.
    pub(super) joined: Option<u64>,
    /// When the table looks at the held ones next: one entry among its deadlines, not one a
    /// request.
    pub(super) watched: Option<Instant>,
}

impl Session {
    /// Takes a held request out; its cell is the caller's.
    pub(super) fn remove_held(&mut self, seq: u64) -> HeldRequest {
        let in_order = self.in_order_mut().expect("only in-order sessions hold requests");
        let held = in_order.held.remove(&seq).expect("a held cell has its request");
        in_order.held_bytes -= held.bytes();
        held
    }

    /// Empties the cell of a request that is not held any more.
    fn release(&mut self, seq: u64, held: &HeldRequest) {
        self.take_cell(seq);
        let in_order = self.in_order_mut().expect("only in-order sessions hold requests");
        in_order.held_bytes -= held.bytes();
    }

    /// In-order session: returns since when the held ones wait for a seq that has not come; `None`
    /// if what they wait for runs, or nothing is held.
    fn look_for_hole(&mut self, now: Instant) -> Option<Instant> {
        let next = self.next_in_order();
        let is_vacant = self.cell(next) == Cell::Vacant;
        let abandoned = self.abandoned;
        let in_order = self.in_order_mut().expect("the caller asks only in-order sessions");
        let is_hole = is_vacant && abandoned == 0 && !in_order.held.is_empty();
        in_order.hole = match in_order.hole {
            _ if !is_hole => None,
            Some((seq, since)) if seq == next => Some((seq, since)),
            _ => Some((next, now)),
        };
        in_order.hole.map(|(_, since)| since)
    }
}
