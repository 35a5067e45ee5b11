//! The client's side of a session: which calls are out, under which xid, and what became of them.
//!
//! [`Session`] is driven by whoever owns the socket: frames and time go in, bytes, answers and the
//! next deadline come out. It outlives its connections: a call stays until it is answered, its
//! deadline passes, or the server says that it does not know the session any more.
//!
//! What is attached to a call (`T`, usually its continuation) is handed back exactly once, with an
//! [`Answer`]: from [`Session::on_frame`] if a frame ended the call, else from
//! [`Session::next_ended`]. A session that is dropped drops what is still attached.
//!
//! A driver does this:
//! 1. when [`Session::connect_at`] is due, it opens a connection and calls
//!    [`Session::on_connected`], or [`Session::on_disconnected`] if that failed;
//! 2. it feeds every frame to [`Session::on_frame`] and time to [`Session::on_deadline`], and closes
//!    the connection when one of them returns a fault or [`Session::is_drained`] says so;
//!    An idle connection is the driver's to keep alive; the session asks a silent server only while
//!    calls are out;
//! 3. once a turn, it calls [`Session::transmit`], and hands out what [`Session::next_ended`] and
//!    [`Session::next_event`] give. A call made by [`Session::call_now`] need not wait for that.
//!
//! Invariants: a seq is given out at a call's first transmission and never again; at most one copy
//! of a protected call is out at a time; `NotExecuted` is said only with proof: the call was never
//! transmitted, or every copy was answered so, or a RESUME found its cell vacant.
//!
//! Two choices where the rules leave room. Unprotected calls carry a label instead of a seq, counted
//! apart from the xids, so that they leave no hole which an in-order session would wait behind. And
//! nothing is sent twice on one connection without an answer in between: what a live connection
//! swallows, it delivers, and a dead one is found by its silence.

mod acks;
mod answer;
mod calls;
mod direct;
mod hedge;
mod journal;
mod journaling;
mod link;
mod modelled;
mod probe;
mod retry;
mod timers;
mod transmit;
mod types;

use std::collections::VecDeque;
use std::fmt::Display;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Code, Fault};
use crate::frame::{self, Flags, Header, Kind, MethodId};
use crate::handshake::Order;
use crate::limits::Limits;

use acks::{Acks, Occupant, Ring};
use calls::{Calls, Stage};
use direct::Left;
use hedge::Hedge;
use journaling::Journaling;
use link::{Identity, Link};
use probe::Probe;
use retry::{Backoff, Budget, Jitter};
use timers::Timers;

pub use calls::CallKey;
pub use direct::Taken;
pub use journal::{Journal, JournalError, Opened, Record, Recovered, RecoveredCall};
pub use modelled::{JournalDisk, ModelledJournal};
pub use types::{Answer, CallSpec, Counters, Event, Semantics, State};

/// The longest time that a session waits for anything: a year. What is meant to be for ever has to
/// fit the clock.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// One client session, over as many connections as it takes. See the [module](self).
#[derive(Debug)]
pub struct Session<T> {
    limits: Limits,
    order: Order,
    token: Option<Bytes>,
    link: Link,
    identity: Option<Identity>,
    /// Bytes of one body that the server takes; until it has said so, what this end takes.
    server_body_bytes_max: usize,

    calls: Calls<T>,
    ring: Ring,
    acks: Acks,
    timers: Timers,
    left: Left,

    /// Calls not yet transmitted, in order; those that have ended are skipped.
    queue: VecDeque<CallKey>,
    /// How many calls of `queue` have not ended.
    queued: usize,
    /// Bytes of those calls.
    queued_bytes: usize,
    /// Calls to be sent again on this connection, free of the retry budget.
    resends: VecDeque<CallKey>,
    /// Calls to be sent again as the retry budget allows.
    retries: VecDeque<CallKey>,
    /// Seqs whose callers no longer wait, to be told to the server.
    cancels: VecDeque<u64>,
    /// Calls out on this connection and not answered.
    outstanding: usize,
    /// Unprotected calls that were sent and have not ended: like protected ones they take room in
    /// the window, also while they wait to be sent again.
    unprotected: u32,

    hedge: Hedge,
    probe: Probe,
    /// How long the server keeps a session without a connection, as it said.
    lease: Duration,
    /// When this end last knew that the server had the session attached.
    attached_at: Instant,
    budget: Budget,
    backoff: Backoff,
    jitter: Jitter,

    journaling: Option<Box<Journaling<T>>>,
    ended: VecDeque<Ended<T>>,
    events: VecDeque<Event>,
    counters: Counters,
}

/// A call that ended without a frame of its own.
#[derive(Debug)]
struct Ended<T> {
    attached: T,
    answer: Answer<'static>,
    /// What the journal is still to be told of; 0 if nothing.
    seq: u64,
}

impl<T> Session<T> {
    /// Returns a session that wants its first connection at once.
    ///
    /// `token` proves to the server who this is, where it asks; `seed` spreads the back-off of many
    /// clients: no two should have the same.
    pub fn new(
        mut limits: Limits,
        order: Order,
        token: Option<Bytes>,
        seed: u64,
        now: Instant,
    ) -> Session<T> {
        for time in [
            &mut limits.handshake_timeout,
            &mut limits.retransmit_timeout,
            &mut limits.ack_delay,
            &mut limits.backoff_min,
            &mut limits.backoff_max,
            &mut limits.lease,
            &mut limits.spare_idle,
            &mut limits.window_stall_max,
        ] {
            *time = (*time).min(TIME_MAX);
        }
        Session {
            order,
            token,
            link: Link::Down { connect_at: now },
            identity: None,
            server_body_bytes_max: limits.body_bytes_max,
            calls: Calls::new(),
            ring: Ring::new(),
            acks: Acks::new(now),
            timers: Timers::new(),
            left: Left::new(now),
            queue: VecDeque::new(),
            queued: 0,
            queued_bytes: 0,
            resends: VecDeque::new(),
            retries: VecDeque::new(),
            cancels: VecDeque::new(),
            outstanding: 0,
            unprotected: 0,
            hedge: Hedge::new(now),
            probe: Probe::new(now),
            lease: limits.lease,
            attached_at: now,
            budget: Budget::new(&limits, now),
            backoff: Backoff::new(),
            jitter: Jitter::new(seed),
            journaling: None,
            ended: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            limits,
        }
    }

    /// Takes a call, to be sent by the next [`Session::transmit`] that may.
    ///
    /// `encode` appends the arguments' MessagePack; it runs once, here: every copy sent later is
    /// made of the same bytes.
    ///
    /// # Errors
    /// Gives `attached` back if the call cannot be taken; it was not executed and never will be.
    /// The fault's code is BUSY (too many calls wait), TOO_LARGE, NOT_PROTECTED (at-least-once, but
    /// not idempotent), BAD_ARGUMENTS (`encode` failed) or CANCELLED (the session is closed).
    pub fn call<E: Display>(
        &mut self,
        spec: CallSpec,
        attached: T,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<CallKey, (T, Fault)> {
        let request = self.header(&spec).and_then(|header| self.encode(&header, encode));
        match request {
            Ok(request) => Ok(self.enqueue(spec, Some(attached), request)),
            Err(fault) => Err((attached, fault)),
        }
    }

    /// Takes a notification: it is sent once, in its turn among the calls, and never answered.
    ///
    /// One that cannot be sent before its deadline is dropped, and so is one whose connection is
    /// lost: only [`Counters`] tells.
    ///
    /// # Errors
    /// As for [`Session::call`].
    pub fn notify<E: Display>(
        &mut self,
        method: MethodId,
        deadline: Option<Instant>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), Fault> {
        self.check_room()?;
        let mut header = Header::new(Kind::Notify, 0);
        header.method = method;
        let request = self.encode(&header, encode)?;
        let semantics = Semantics::AtMostOnce;
        let spec = CallSpec { semantics, deadline, ..CallSpec::new(method) };
        self.enqueue(spec, None, request);
        Ok(())
    }

    /// Ends a call because its caller no longer waits, and returns whether it was still open.
    ///
    /// What was attached comes from [`Session::next_ended`]: `NotExecuted` if the call never left,
    /// else `Indeterminate`, for the server may run it all the same. The server is told.
    pub fn cancel(&mut self, key: CallKey) -> bool {
        let is_open = self.calls.get(key).is_some();
        if is_open {
            self.abandon(key.index, Code::Cancelled, "cancelled by its caller");
        }
        is_open
    }

    /// Ends the session: says BYE if there is a connection, and ends every call.
    ///
    /// The driver flushes `out`, closes the connection and hands out what was attached.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        let link = std::mem::replace(&mut self.link, Link::Closed);
        for index in self.calls.indices() {
            self.abandon(index, Code::Cancelled, "the client was closed");
        }
        if matches!(link, Link::Up { .. }) {
            Header::new(Kind::Bye, self.ring.floor()).append(&[], out);
        }
        self.queue.clear();
        self.timers = Timers::new();
        self.forget_connection();
        self.drop_hedge();
        self.close_journal();
    }

    /// Returns a call that ended without a frame of its own, and how.
    pub fn next_ended(&mut self) -> Option<(T, Answer<'static>)> {
        let Ended { attached, answer, seq } = self.ended.pop_front()?;
        self.note_handed(seq, true);
        Some((attached, answer))
    }

    /// Returns what happened to the session since it was last asked, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns whether [`Session::next_ended`] or [`Session::next_event`] has something to give.
    pub fn has_news(&self) -> bool {
        !self.ended.is_empty() || !self.events.is_empty()
    }

    /// Returns where the session stands.
    pub fn state(&self) -> State {
        match self.link {
            Link::Closed => State::Closed,
            Link::Down { .. } => State::Disconnected,
            Link::Handshaking { .. } => State::Handshaking,
            Link::Up { draining: true } => State::Draining,
            Link::Up { draining: false } => State::Ready,
        }
    }

    /// Returns when a connection is to be opened; `None` if there is one or none is wanted.
    pub fn connect_at(&self) -> Option<Instant> {
        match self.link {
            Link::Down { connect_at } if self.may_connect() => Some(connect_at),
            _ => None,
        }
    }

    /// Returns whether another protected call may be sent now, as far as the window goes.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.ring.has_room()
    }

    /// Returns whether a slow call holds up all others (C7): the window is full, and its oldest call
    /// is older than `Limits::window_stall_max`, on a connection that is up.
    pub fn is_stalled(&self, now: Instant) -> bool {
        let Occupant::Call(oldest) = self.ring.occupant(self.ring.floor() + 1) else {
            return false;
        };
        let sent_at = self.calls.at(oldest).sent_at;
        matches!(self.link, Link::Up { .. })
            && !self.ring.has_room()
            && sent_at.is_some_and(|sent_at| now >= sent_at + self.limits.window_stall_max)
    }

    /// Returns whether the server may be told who this is: with a journal, not before it is safe there
    /// that this is a new incarnation.
    fn may_connect(&self) -> bool {
        self.journaling.as_ref().is_none_or(|journaling| journaling.may_connect())
    }

    /// Returns how many calls and notifications are open.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Returns whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.calls.len() == 0
    }

    /// Returns what the session has counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns the header of a call that waits for its number, if it may.
    fn header(&self, spec: &CallSpec) -> Result<Header, Fault> {
        self.check_room()?;
        let mut header = Header::new(Kind::Request, 0);
        header.method = spec.method;
        if spec.semantics == Semantics::AtLeastOnce {
            if !spec.idempotent {
                let message = "at-least-once is for methods declared idempotent";
                return Err(Fault::new(Code::NotProtected, message));
            }
            header.flags = Flags::UNPROTECTED;
        }
        Ok(header)
    }

    /// Says why another call is not taken, whatever it is.
    fn check_room(&self) -> Result<(), Fault> {
        if matches!(self.link, Link::Closed) {
            return Err(Fault::new(Code::Cancelled, "the client is closed"));
        }
        if let Some(fault) = self.journal_fault() {
            return Err(fault);
        }
        if self.queued >= self.limits.queued_calls_max {
            let message = format!("{} calls wait to be sent already", self.queued);
            return Err(Fault::new(Code::Busy, message));
        }
        Ok(())
    }

    /// Returns the frame of a call or a notification, in a buffer to keep it in.
    #[inline]
    fn encode<E: Display>(
        &mut self,
        header: &Header,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Vec<u8>, Fault> {
        let mut request = self.calls.take_buffer();
        let start = header.begin(&mut request);
        let fault = match encode(&mut request) {
            Err(error) => Some(Fault::new(Code::BadArguments, error.to_string())),
            Ok(()) => self.too_large(&request).or_else(|| self.too_many_bytes(&request)),
        };
        if let Some(fault) = fault {
            self.calls.give_buffer(request);
            return Err(fault);
        }
        frame::finish(&mut request, start);
        Ok(request)
    }

    /// Says why a request is not to be sent, if its body is larger than either end takes.
    fn too_large(&self, request: &[u8]) -> Option<Fault> {
        let body_bytes = request.len() - frame::CALL_HEADER_BYTES;
        let body_bytes_max = self.server_body_bytes_max.min(self.limits.body_bytes_max);
        (body_bytes > body_bytes_max).then(|| {
            let message =
                format!("the arguments take {body_bytes} bytes; at most {body_bytes_max} may be");
            Fault::new(Code::TooLarge, message)
        })
    }

    /// Says why a request is not taken, if the queue would hold too many bytes.
    fn too_many_bytes(&self, request: &[u8]) -> Option<Fault> {
        let bytes = self.queued_bytes.saturating_add(request.len());
        (self.queued > 0 && bytes > self.limits.queued_bytes_max).then(|| {
            let message = format!("calls of {} bytes wait to be sent already", self.queued_bytes);
            Fault::new(Code::Busy, message)
        })
    }

    fn enqueue(&mut self, spec: CallSpec, attached: Option<T>, request: Vec<u8>) -> CallKey {
        self.queued_bytes += request.len();
        let (key, call) = self.calls.insert(&spec, request);
        call.attached = attached;
        self.arm_deadline(key, spec.deadline);
        self.queued += 1;
        if self.queue.len() >= calls::COMPACT_ABOVE + 2 * self.queued {
            self.queue.retain(|&key| self.calls.get(key).is_some());
        }
        self.queue.push_back(key);
        key
    }

    #[inline]
    fn arm_deadline(&mut self, key: CallKey, deadline: Option<Instant>) {
        if let Some(deadline) = deadline {
            self.timers.push_deadline(deadline, key);
            self.timers.compact(&self.calls);
        }
    }

    /// Ends a call that the caller or the clock gave up, and tells the server.
    fn abandon(&mut self, index: u32, code: Code, message: &str) {
        let call = self.calls.at(index);
        if call.stage == Stage::Sent {
            self.cancels.push_back(call.seq);
        }
        if call.is_hedged {
            self.hedge.cancels.push_back(call.seq);
        }
        let proved = call.is_proved();
        let fault = if call.stage == Stage::Queued {
            let last = self.backoff.last_failure();
            Fault::new(code, format!("{message}, before it could be sent{last}"))
        } else {
            Fault::new(code, message)
        };
        let answer = if proved { Answer::NotExecuted(fault) } else { Answer::Indeterminate(fault) };
        self.end(index, answer);
    }

    /// Ends a call whose end [`Session::next_ended`] is to tell.
    fn end(&mut self, index: u32, answer: Answer<'static>) {
        if self.calls.at(index).has_record {
            return self.end_recorded(index, answer);
        }
        match self.finish(index, true) {
            Some(attached) => self.ended.push_back(Ended { attached, answer, seq: 0 }),
            None => self.counters.notifications_dropped += 1,
        }
    }

    /// Ends a call whose answer is handed out at once.
    #[inline]
    fn hand_out(&mut self, index: u32) -> Option<T> {
        let call = self.calls.at(index);
        if call.has_record {
            self.note_handed(call.seq, false);
        }
        self.finish(index, false)
    }

    /// Takes a call out of every account and returns what was attached to it.
    ///
    /// `burnt`: nothing was consumed for its seq, so that the server has to be told soon that it
    /// will never come.
    #[inline]
    fn finish(&mut self, index: u32, burnt: bool) -> Option<T> {
        self.leave_stage(index);
        let call = self.calls.at(index);
        self.hedge.outstanding -= usize::from(call.is_hedged);
        match (call.seq, call.is_protected()) {
            (0, _) => {}
            (_, false) => self.unprotected -= 1,
            // The floor passes it when the journal knows that it has ended.
            (seq, true) if call.has_record => self.ring.hold(seq),
            (seq, true) if self.ring.end(seq, burnt) => self.acks.hurry(),
            (_, true) => {}
        }
        self.calls.remove(index)
    }

    /// Takes a call out of the counts that its stage put it in.
    #[inline]
    fn leave_stage(&mut self, index: u32) {
        let call = self.calls.at(index);
        match call.stage {
            Stage::Queued => {
                self.queued -= 1;
                self.queued_bytes -= call.request.len();
            }
            Stage::Sent => self.outstanding -= 1,
            Stage::Due
            | Stage::Journaling
            | Stage::Lost
            | Stage::Refused
            | Stage::Vacant
            | Stage::Waiting => {}
        }
    }
}

#[cfg(test)]
mod tests;
