//! The second connection of a session: copies of exactly-once calls that the first does not answer.
//!
//! It joins the session and proves nothing. What RESUMED says on it is not read, and a refusal there
//! is one copy's and no more; an answer is an answer, whichever connection brings it. Refused or
//! lost, it costs the hedge.
//!
//! When the *first* connection is lost, this one only goes on listening. Sending stops until the
//! first is back by a RESUME without `join`: that drops, at the server, whatever came by this one,
//! and says of every call what became of all its copies. To go on with the survivor instead would
//! leave calls for ever of which nothing can be proved.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::answer::{check_flags, protocol_error};
use super::calls::{COMPACT_ABOVE, CallKey, Stage};
use super::link::{Link, append, check_version, decode};
use super::probe::Probe;
use super::retry::Backoff;
use super::transmit::append_copy;
use super::{Answer, Session};
use crate::error::{Code, ErrorBody, Fault};
use crate::frame::{Frame, Header, Kind, MAGIC};
use crate::handshake::Resumed;

/// Which connection something came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// The session's own.
    First,
    /// The one that joined.
    Second,
}

/// Where the second connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// There is none.
    Absent,
    /// RESUME has been sent.
    Handshaking { since: Instant },
    /// Copies go out; or, while the server drains it, are only answered.
    Up { draining: bool },
}

/// The second connection and what is out on it.
#[derive(Debug)]
pub(super) struct Hedge {
    second: Second,
    probe: Probe,
    backoff: Backoff,
    /// Calls of which a copy is to be sent, as the retry budget allows.
    pub(super) queue: VecDeque<CallKey>,
    /// Seqs whose callers no longer wait, to be told to the server here too.
    pub(super) cancels: VecDeque<u64>,
    /// Copies out here and not answered.
    pub(super) outstanding: usize,
    /// When something was last sent or heard here.
    active_at: Instant,
    /// Not before that another attempt is made.
    not_before: Instant,
    /// The server attaches one connection and says so.
    is_unsupported: bool,
}

impl Hedge {
    pub(super) fn new(now: Instant) -> Hedge {
        Hedge {
            second: Second::Absent,
            probe: Probe::new(now),
            backoff: Backoff::new(),
            queue: VecDeque::new(),
            cancels: VecDeque::new(),
            outstanding: 0,
            active_at: now,
            not_before: now,
            is_unsupported: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.second, Second::Up { .. })
    }

    fn may_send(&self) -> bool {
        self.second == (Second::Up { draining: false })
    }
}

impl<T> Session<T> {
    /// Returns whether a second connection is to be opened now, for hedges.
    pub fn wants_hedge(&self) -> bool {
        self.hedge.second == Second::Absent
            && !self.hedge.queue.is_empty()
            && matches!(self.link, Link::Up { .. })
    }

    /// Returns whether the second connection has a use. The driver closes one that has none, without
    /// a word to the session: it was replaced, is idle, silent, or drained.
    pub fn has_hedge(&self) -> bool {
        self.hedge.second != Second::Absent
    }

    /// Begins the handshake on a second connection that has just opened. If it is not wanted any
    /// more, nothing is written and [`Session::has_hedge`] says so.
    pub fn on_hedge_connected(&mut self, now: Instant, out: &mut Vec<u8>) {
        if !self.wants_hedge() {
            return;
        }
        let Some(identity) = &mut self.identity else { return };
        out.extend_from_slice(&MAGIC);
        let resume = identity.resume(self.ring.floor(), true, self.token.clone());
        append(Kind::Resume, &resume, out);
        self.hedge.probe = Probe::new(now);
        self.hedge.active_at = now;
        self.hedge.second = Second::Handshaking { since: now };
    }

    /// Notes that the second connection is lost, or could not be had. Nothing is known of the copies
    /// sent there; the calls go on by the first.
    pub fn on_hedge_disconnected(&mut self, why: &str, now: Instant) {
        let pause_until = self.hedge.backoff.failed(why, &self.limits, &mut self.jitter, now);
        self.hedge.not_before = pause_until;
        self.drop_hedge();
    }

    /// Takes a frame from the second connection; returns the call that it ended, if it did.
    ///
    /// # Errors
    /// That connection cannot go on: the driver closes it and calls
    /// [`Session::on_hedge_disconnected`]. The session is none the worse.
    pub fn on_hedge_frame<'a>(
        &mut self,
        frame: &Frame<'a>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Option<(T, Answer<'a>)>, Fault> {
        self.hedge.probe.heard(now);
        self.hedge.active_at = now;
        check_flags(&frame.header)?;
        match self.hedge.second {
            Second::Absent => return Ok(None),
            Second::Handshaking { .. } => {
                self.on_hedge_handshake(frame)?;
                self.hedge.probe = Probe::new(now);
                return Ok(None);
            }
            Second::Up { .. } => self.attached_at = now,
        }
        match frame.header.kind {
            Kind::Reply => self.on_reply(frame, now),
            Kind::Error => self.on_error(frame, Lane::Second, now),
            Kind::Ping => {
                Header::new(Kind::Pong, frame.header.seq).append(&[], out);
                Ok(None)
            }
            Kind::Pong => Ok(None),
            Kind::GoAway => {
                self.hedge.second = Second::Up { draining: true };
                self.hedge.queue.clear();
                Ok(None)
            }
            kind => Err(protocol_error(format!("{kind:?} is not a server's to send now"))),
        }
    }

    /// Notes that something came on the second connection at `at` which was not given to
    /// [`Session::on_hedge_frame`].
    pub fn on_hedge_bytes(&mut self, at: Instant) {
        self.hedge.probe.heard(at);
    }

    /// Appends to `out` what may be sent on the second connection now: copies, as far as the retry
    /// budget and the output mark allow, and only while the first connection is up.
    pub fn transmit_hedge(&mut self, now: Instant, out: &mut Vec<u8>) {
        if !self.hedge.is_up() {
            return;
        }
        while let Some(seq) = self.hedge.cancels.pop_front() {
            Header::new(Kind::Cancel, seq).append(&[], out);
        }
        while self.hedge.may_send() && out.len() < self.limits.output_bytes_mark {
            let Some(key) = self.first(|session| &mut session.hedge.queue, Stage::Sent) else {
                break;
            };
            let call = self.calls.at(key.index);
            let may_leave = call.has_attempts() && !call.is_hedged;
            if may_leave && !self.budget.take(now) {
                break;
            }
            self.hedge.queue.pop_front();
            if may_leave {
                self.send_hedge(key, now, out);
            }
        }
        if self.hedge.probe.take_ping() {
            Header::new(Kind::Ping, 0).append(&[], out);
        }
    }

    /// Returns whether [`Session::transmit_hedge`] has something to send now.
    #[inline]
    pub fn wants_transmit_hedge(&self, now: Instant) -> bool {
        self.hedge.is_up()
            && (!self.hedge.cancels.is_empty()
                || self.hedge.probe.wants_ping()
                || (self.hedge.may_send()
                    && !self.hedge.queue.is_empty()
                    && self.budget.next_at() <= now))
    }

    /// Lines a call up for a copy on the second connection, if there may be one.
    pub(super) fn hedge(&mut self, key: CallKey, now: Instant) {
        let call = self.calls.at(key.index);
        let may_be = call.has_attempts() && !call.is_hedged && !self.hedge.is_unsupported;
        // One that has to wait for another attempt would come too late to be worth a connection.
        let has_way = self.hedge.has_way(now);
        if may_be && has_way && matches!(self.link, Link::Up { .. }) {
            if self.hedge.queue.len() >= COMPACT_ABOVE + 2 * self.outstanding {
                self.hedge.queue.retain(|&key| self.calls.get(key).is_some());
            }
            self.hedge.queue.push_back(key);
        }
    }

    fn send_hedge(&mut self, key: CallKey, now: Instant, out: &mut Vec<u8>) {
        let ack = self.ring.floor();
        let call = self.calls.at_mut(key.index);
        append_copy(call, ack, now, out);
        call.is_hedged = true;
        call.was_hedged = true;
        // Its ack counts as sent on neither: the first connection has to carry it all the same.
        if self.hedge.outstanding == 0 {
            self.hedge.probe.expect(now);
        }
        self.hedge.outstanding += 1;
        self.hedge.active_at = now;
        self.counters.hedges += 1;
    }

    fn on_hedge_handshake(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        match frame.header.kind {
            Kind::Resumed => {
                let resumed: Resumed = decode(frame)?;
                check_version(resumed.version)?;
                // Its cells are not looked at: the first connection's copies may still be on their way.
                self.hedge.second = Second::Up { draining: false };
                self.hedge.backoff.succeeded();
                Ok(())
            }
            Kind::Error => {
                let body: ErrorBody<'_> = decode(frame)?;
                let fault = Fault::from_body(&body);
                self.hedge.is_unsupported = fault.code == Some(Code::Unsupported);
                if let Some(millis) = fault.retry_after_ms {
                    let pause = Duration::from_millis(millis.into());
                    self.hedge.backoff.ask(pause.min(self.limits.lease));
                }
                Err(fault)
            }
            kind => Err(protocol_error(format!("{kind:?} before the handshake was done"))),
        }
    }

    /// Takes the second connection out of use. What was sent on it may or may not have arrived.
    pub(super) fn drop_hedge(&mut self) {
        if self.hedge.outstanding > 0 {
            for index in self.calls.indices() {
                self.lose_hedge(index);
            }
        }
        debug_assert_eq!(self.hedge.outstanding, 0);
        self.hedge.queue.clear();
        self.hedge.cancels.clear();
        self.hedge.second = Second::Absent;
    }

    /// Notes that nobody knows what became of a call's copy on the second connection.
    fn lose_hedge(&mut self, index: u32) {
        let call = self.calls.at_mut(index);
        if !call.is_hedged {
            return;
        }
        call.is_hedged = false;
        self.hedge.outstanding -= 1;
        if call.stage == Stage::Refused {
            let message = "refused on one connection, its copy on another lost";
            self.abandon(index, Code::Cancelled, message);
        }
    }

    /// Looks after the second connection: one that is silent, idle or drained has no use.
    pub(super) fn on_hedge_deadline(&mut self, now: Instant) {
        let timeout = self.limits.retransmit_timeout;
        match self.hedge.second {
            Second::Absent => {}
            Second::Handshaking { since } => {
                if now >= since + self.limits.handshake_timeout {
                    self.on_hedge_disconnected("the server did not answer the handshake", now);
                }
            }
            Second::Up { draining } if self.hedge.outstanding == 0 => {
                let is_idle = now >= self.hedge.active_at + self.limits.spare_idle;
                if draining || (is_idle && self.hedge.queue.is_empty()) {
                    self.drop_hedge();
                }
            }
            Second::Up { .. } => {
                if self.hedge.probe.is_dead(timeout, now) {
                    self.on_hedge_disconnected("the server was silent", now);
                }
            }
        }
    }

    /// Returns when the second connection is to be looked after next.
    pub(super) fn next_hedge_deadline(&self) -> Option<Instant> {
        match self.hedge.second {
            Second::Absent => None,
            Second::Handshaking { since } => Some(since + self.limits.handshake_timeout),
            Second::Up { .. } => {
                let has_copies = self.hedge.outstanding > 0;
                let has_queue = self.hedge.may_send() && !self.hedge.queue.is_empty();
                let silence = self.hedge.probe.next_deadline(self.limits.retransmit_timeout);
                let idle = self.hedge.active_at + self.limits.spare_idle;
                let deadlines = [
                    has_copies.then_some(silence),
                    has_queue.then(|| self.budget.next_at()),
                    (!has_copies && !has_queue).then_some(idle),
                ];
                deadlines.into_iter().flatten().min()
            }
        }
    }
}

impl Hedge {
    /// Returns whether there is a second connection to send on, or may be one now.
    fn has_way(&self, now: Instant) -> bool {
        match self.second {
            Second::Absent => now >= self.not_before,
            Second::Handshaking { .. } => true,
            Second::Up { draining } => !draining,
        }
    }
}
