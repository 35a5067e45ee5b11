//! Durable tables: what waits until it is safe, and what leaves then. Rows 13, 15, 16, 18, 20, 24
//! and 25.
//!
//! One rule holds all of it: a frame that a handler made leaves no sooner than all that the handler
//! could have seen is safe. So there is one queue, in the order of the commits, for calls to start,
//! answers and handshakes alike.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::cell::Cell;
use super::finish::Keeping;
use super::order::HeldRequest;
use super::refusal::{Refusal, unknown_session};
use super::replies::Answer;
use super::store::{Lsn, Record, Store, StoreFailed};
use super::transaction::Transaction;
use super::{CallKey, Delivery, Request, SessionKey, Table};
use crate::handshake::{Order, Resume, Resumed, Welcome};

/// What may happen now that something is safe.
///
/// Exhaustive: a server that does not know what to do must not compile.
#[derive(Clone, Debug)]
pub enum Released {
    /// Send the refusal on this connection, then close it.
    Close {
        /// Which connection.
        connection: u64,
        /// What to say.
        refusal: Refusal,
    },
    /// Send RESUMED on this connection, then what [`Table::append_finished`] gives.
    Resumed {
        /// Which connection.
        connection: u64,
        /// Its session.
        session: SessionKey,
        /// The body of the frame.
        resumed: Resumed,
    },
    /// Start the handler of this call, then tell [`Table::complete`]. Its connection may be gone.
    Run {
        /// Which call.
        call: CallKey,
        /// Its session.
        session: SessionKey,
        /// What it asks.
        request: HeldRequest,
    },
    /// Send an answer.
    Send {
        /// Where to.
        delivery: Delivery,
        /// The whole frame.
        frame: Bytes,
    },
    /// Send WELCOME on this connection.
    Welcome {
        /// Which connection.
        connection: u64,
        /// Its session.
        session: SessionKey,
        /// The body of the frame.
        welcome: Welcome,
    },
}

/// The durable half of a table; of a volatile one it stays empty.
#[derive(Clone, Default)]
pub(super) struct Durability {
    /// Up to where all is safe, as far as the store has told.
    pub(super) safe: Lsn,
    /// The last commit.
    pub(super) tail: Lsn,
    /// What waits, in the order of the commits it waits for.
    pub(super) queue: VecDeque<Waiting>,
    /// Bytes of the answers in it that are not kept in their cells.
    pub(super) queue_bytes: usize,
    /// What a transactional handler has written so far.
    pub(super) transaction: Option<Transaction>,
    /// Sessions with more forgotten calls in the store than they may have in the table.
    to_compact: Vec<SessionKey>,
    /// Sessions that are over, and whose end is not safe.
    pub(super) ending: usize,
    pub(super) failure: Option<StoreFailed>,
}

/// Something that waits until a commit is safe.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) lsn: Lsn,
    pub(super) what: What,
}

#[derive(Clone)]
pub(super) enum What {
    /// A handler has ended and left; its answer is not to be kept.
    Answer {
        connection: u64,
        frame: Bytes,
    },
    /// A RESUME of a session whose end was not safe.
    Close {
        connection: u64,
    },
    /// A handler has ended; `frame` is its answer if that is too large to keep.
    Committed {
        session: SessionKey,
        seq: u64,
        frame: Option<Bytes>,
    },
    /// A session is over.
    Ended {
        session: SessionKey,
    },
    Resumed {
        connection: u64,
        session: SessionKey,
        version: u16,
        features: u64,
    },
    /// START is written.
    Started {
        call: CallKey,
        request: Box<HeldRequest>,
    },
    /// The call counts as never begun.
    Unstarted {
        call: CallKey,
        refusal: Refusal,
    },
    Welcome {
        connection: u64,
        session: SessionKey,
        welcome: Box<Welcome>,
    },
}

impl What {
    /// Returns what it takes beyond what cells, calls and connections bound.
    pub(super) fn bytes(&self) -> usize {
        match self {
            What::Answer { frame, .. } | What::Committed { frame: Some(frame), .. } => {
                size_of::<Waiting>() + frame.len()
            }
            _ => 0,
        }
    }
}

/// What a session of a durable table has beyond others.
#[derive(Clone, Default)]
pub(super) struct DurableSession {
    /// The highest floor written down.
    pub(super) floor: u64,
    /// Calls up to the floor whose entries may still be in the store.
    pub(super) dropped: u32,
    /// Where its last SESSION record is.
    pub(super) recorded: Lsn,
    /// Calls that have ended, and whose answers are not safe.
    pub(super) committing: u16,
    /// Connections that are attached, and have not been told so.
    pub(super) untold: Vec<u64>,
    pub(super) has_journal: bool,
    /// It is over; its END is written and not safe.
    pub(super) is_ending: bool,
}

impl Durability {
    /// Nobody waits for anything any more.
    pub(super) fn abandon(&mut self) {
        self.queue.clear();
        self.queue_bytes = 0;
        self.to_compact.clear();
        (self.transaction, self.ending) = (None, 0);
    }
}

impl<St: Store> Table<St> {
    /// Returns the store.
    pub fn store(&self) -> &St {
        &self.store
    }

    /// Returns the store: for tests and model checkers, which decide what is safe in it.
    pub fn store_mut(&mut self) -> &mut St {
        &mut self.store
    }

    /// Returns the store: what is left of a server that died.
    pub fn into_store(self) -> St {
        self.store
    }

    /// Returns whether what the table knows outlives the server.
    #[inline]
    pub fn is_durable(&self) -> bool {
        self.store.is_durable()
    }

    /// Returns why the store failed, if it did: nothing is answered any more (row 24).
    pub fn failure(&self) -> Option<&StoreFailed> {
        self.durability.failure.as_ref()
    }

    /// Returns what may happen next, now that it is safe, in the order of the commits. Ask until it
    /// gives nothing: at [`Table::next_deadline`], and after whatever else was asked of a durable
    /// table.
    ///
    /// # Errors
    /// Row 24: the store failed. Nothing that was not released may leave any more; every connection
    /// is to be closed.
    pub fn poll_released(&mut self, now: Instant) -> Result<Option<Released>, StoreFailed> {
        if !self.store.is_durable() {
            return Ok(None);
        }
        self.compact(now);
        if let Some(failure) = &self.durability.failure {
            return Err(failure.clone());
        }
        match self.store.poll_safe(now) {
            Ok(safe) => self.durability.safe = safe.max(self.durability.safe),
            Err(failure) => {
                self.durability.failure = Some(failure.clone());
                return Err(failure);
            }
        }
        while let Some(waiting) = self.durability.queue.front()
            && waiting.lsn <= self.durability.safe
        {
            let Waiting { what, .. } = self.durability.queue.pop_front().expect("it is there");
            self.durability.queue_bytes -= what.bytes();
            if let Some(released) = self.release(what, now) {
                return Ok(Some(released));
            }
        }
        Ok(None)
    }

    /// Returns whether something waits until it is safe.
    pub fn is_waiting(&self) -> bool {
        !self.durability.queue.is_empty()
    }

    /// Returns how many things wait until something is safe.
    pub fn waiting(&self) -> usize {
        self.durability.queue.len()
    }

    fn release(&mut self, what: What, now: Instant) -> Option<Released> {
        match what {
            What::Answer { connection, frame } => {
                let delivery = Delivery { connection: Some(connection), ..Delivery::NOBODY };
                Some(Released::Send { delivery, frame })
            }
            What::Close { connection } => {
                Some(Released::Close { connection, refusal: unknown_session() })
            }
            What::Committed { session, seq, frame } => self.release_committed(session, seq, frame),
            What::Ended { session } => {
                self.sessions.remove(session);
                self.durability.ending -= 1;
                None
            }
            What::Resumed { connection, session, version, features } => {
                self.tell(session, connection)?;
                let resumed = self.report(session, version, features);
                Some(Released::Resumed { connection, session, resumed })
            }
            What::Started { call, request } => {
                let session = self.calls.get(call)?.session;
                let request = request.at(now);
                Some(Released::Run { call, session, request })
            }
            What::Unstarted { call, refusal } => self.release_unstarted(call, refusal),
            What::Welcome { connection, session, welcome } => {
                self.tell(session, connection)?;
                Some(Released::Welcome { connection, session, welcome: *welcome })
            }
        }
    }

    /// Row 15: what a call has done is safe.
    fn release_committed(
        &mut self,
        key: SessionKey,
        seq: u64,
        frame: Option<Bytes>,
    ) -> Option<Released> {
        let session = self.sessions.get_mut(key)?;
        if let Some(durable) = session.durable_mut() {
            durable.committing -= 1;
        }
        if seq <= session.floor {
            // Acknowledged meanwhile.
            self.note_if_clean(key);
            return None;
        }
        let (kept, reply) = match session.cell(seq) {
            Cell::Committing { digest, reply } => (Cell::Done { digest, reply }, Some(reply)),
            Cell::CommittingNoReply { digest } => (Cell::DoneNoReply { digest }, None),
            _ => unreachable!("what is committed and not acknowledged has its cell"),
        };
        session.set_cell(seq, kept);
        let delivery = session.delivery(key);
        let frame = frame.or_else(|| reply.map(|reply| self.replies.shared(reply)))?;
        Some(Released::Send { delivery, frame })
    }

    /// A connection is told that it is attached, if it still is.
    fn tell(&mut self, session: SessionKey, connection: u64) -> Option<()> {
        let session = self.sessions.get_mut(session)?;
        if let Some(durable) = session.durable_mut() {
            durable.untold.retain(|&untold| untold != connection);
        }
        session.is_attached_to(connection).then_some(())
    }

    pub(super) fn secret_of(&self, key: SessionKey) -> u128 {
        self.sessions.get(key).expect("the caller has found it").sid(0).secret
    }

    pub(super) fn commit(&mut self, now: Instant) -> Lsn {
        let lsn = self.store.commit(now);
        debug_assert!(lsn >= self.durability.tail, "commits are in order");
        self.durability.tail = lsn;
        lsn
    }

    /// Has something wait until the last commit is safe.
    pub(super) fn wait(&mut self, what: What) {
        self.durability.queue_bytes += what.bytes();
        self.durability.queue.push_back(Waiting { lsn: self.durability.tail, what });
    }

    /// Row 13, durable and not transactional: the handler starts once that is written down.
    #[inline(never)] // A volatile table goes past it.
    pub(super) fn start_safely(
        &mut self,
        call: CallKey,
        session: SessionKey,
        request: &Request<'_>,
        attempt: u32,
        now: Instant,
    ) {
        let (seq, digest) = (request.frame.header.seq, request.digest);
        let session = self.secret_of(session);
        self.store.write(Record::Start { session, seq, digest, attempt });
        self.commit(now);
        self.calls.get_mut(call).expect("it has just been admitted").has_start = true;
        let request = Box::new(HeldRequest::of(request, now));
        self.wait(What::Started { call, request });
    }

    /// Rows 15 and 18: a handler of a durable table has ended.
    #[inline(never)] // A volatile table goes past it.
    pub(super) fn complete_durably(
        &mut self,
        key: CallKey,
        answer: Answer<'_>,
        now: Instant,
    ) -> Delivery {
        let transaction = self.durability.transaction.take_if(|open| open.call == Some(key));
        let Some(call) = self.calls.get(key).filter(|call| !call.has_ended) else {
            return Delivery::NOBODY;
        };
        if self.durability.failure.is_some() {
            return Delivery::NOBODY;
        }
        let call = call.clone();
        let effects = transaction.map(|open| open.effects).unwrap_or_default();
        self.put(&effects);
        let mut delivery = Delivery::NOBODY;
        if let Some(session) = self.sessions.get(call.session) {
            delivery.unblocks = session.in_order().is_some().then_some(call.session);
        }
        if call.is_unprotected {
            if !effects.is_empty() {
                self.commit(now);
            }
            self.forget(key);
            if self.durability.safe >= self.durability.tail {
                delivery.connection = Some(call.connection);
            } else {
                let frame = answer.into_bytes();
                self.wait(What::Answer { connection: call.connection, frame });
            }
        } else if call.is_abandoned {
            self.end_abandoned(&call, now);
            self.forget(key);
        } else {
            self.commit_answer(key, answer, now);
        }
        delivery
    }

    /// A call is over whose answer nobody is to get any more.
    pub(super) fn forget(&mut self, key: CallKey) {
        let Some(call) = self.calls.remove(key) else { return };
        self.give_back(&call);
        if let Some(session) = self.sessions.get_mut(call.session) {
            session.in_flight -= 1;
            session.abandoned -= u16::from(call.is_abandoned);
            self.note_if_clean(call.session);
        }
    }

    /// Row 18: the effects, the end of START and a floor that covers the call go in one commit, or a
    /// copy could run after a crash.
    pub(super) fn end_abandoned(&mut self, call: &super::Call, now: Instant) {
        self.write_floor(call.session);
        self.commit(now);
    }

    /// Writes down the floor of a session, which has the store drop all calls up to it. Returns
    /// whether there is such a session.
    fn write_floor(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let (secret, floor) = (session.sid(0).secret, session.floor);
        let Some(durable) = session.durable_mut().filter(|durable| !durable.is_ending) else {
            return false;
        };
        (durable.floor, durable.dropped) = (floor, 0);
        self.store.write(Record::Floor { session: secret, floor });
        true
    }

    /// Row 15.
    fn commit_answer(&mut self, key: CallKey, answer: Answer<'_>, now: Instant) {
        let call = self.calls.remove(key).expect("the caller has found it");
        self.give_back(&call);
        let (of, seq) = (call.session, call.seq);
        let session = self.sessions.get_mut(of).expect("what is not abandoned has its session");
        session.in_flight -= 1;
        let floor = session.floor;
        let Cell::Pending { digest, .. } = session.cell(seq) else {
            unreachable!("a call that runs and is not abandoned is pending in its cell")
        };
        if let Some(durable) = session.durable_mut() {
            durable.floor = floor;
            durable.committing += 1;
        }
        let frame = answer.clone();
        let keeping = Keeping {
            limits: &self.limits,
            replies: &mut self.replies,
            accounts: &mut self.accounts,
            in_flight: self.calls.len(),
        };
        let reply = keeping.keep(session, seq, answer);
        let kept = reply.map(|reply| self.replies.shared(reply));
        let session = self.secret_of(of);
        self.store.write(Record::Complete { session, seq, digest, floor, reply: kept });
        let frame = reply.is_none().then(|| frame.into_bytes());
        let session = self.sessions.get_mut(of).expect("found above");
        session.set_cell(
            seq,
            match reply {
                Some(reply) => Cell::Committing { digest, reply },
                None => Cell::CommittingNoReply { digest },
            },
        );
        self.commit(now);
        self.wait(What::Committed { session: of, seq, frame });
    }

    /// Writes down a session, as it is now; it waits for that before it tells anybody.
    pub(super) fn record(&mut self, key: SessionKey, now: Instant) {
        let session = self.sessions.get(key).expect("the caller has found it");
        let in_order = session.in_order().is_some();
        let record = Record::Session {
            sid: session.sid(key.to_bits()),
            principal: self.accounts.get(session.account).principal,
            order: if in_order { Order::InOrder } else { Order::Unordered },
            window: session.window().into(),
            incarnation: session.incarnation,
            has_journal: session.durable().is_some_and(|durable| durable.has_journal),
        };
        self.store.write(record);
        let lsn = self.commit(now);
        let session = self.sessions.get_mut(key).expect("found above");
        if let Some(durable) = session.durable_mut() {
            durable.recorded = lsn;
        }
    }

    /// Returns whether a handshake waits until the session's record is safe; then it is queued.
    pub(super) fn resumes_later(
        &mut self,
        key: SessionKey,
        connection: u64,
        resume: &Resume,
    ) -> bool {
        let safe = self.durability.safe;
        let session = self.sessions.get_mut(key).expect("the caller has found it");
        let Some(durable) = session.durable_mut().filter(|durable| durable.recorded > safe) else {
            return false;
        };
        durable.untold.push(connection);
        let (version, features) = (resume.version, resume.features);
        self.wait(What::Resumed { connection, session: key, version, features });
        true
    }

    /// Row 20: a session is over, durably first.
    pub(super) fn end(&mut self, key: SessionKey, now: Instant) {
        let session = self.secret_of(key);
        self.store.write(Record::End { session });
        self.commit(now);
        self.durability.ending += 1;
        self.wait(What::Ended { session: key });
    }

    /// Notes that the floor of a session passed calls that the store still knows.
    pub(super) fn note_dropped(&mut self, key: SessionKey, dropped: u32) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let window = u32::from(session.window());
        if let Some(durable) = session.durable_mut() {
            let before = durable.dropped;
            durable.dropped = before.saturating_add(dropped);
            if before <= window && durable.dropped > window {
                self.durability.to_compact.push(key);
            }
        }
    }

    /// Row 25: a session with more than a window of dropped calls has them deleted; the floor that
    /// stands for them goes in the same commit.
    fn compact(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.durability.to_compact) {
            if self.write_floor(key) {
                self.commit(now);
            }
        }
    }
}
