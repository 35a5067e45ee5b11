//! What leaves, and what the clock does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::calls::{Call, CallKey, Doubt, Stage};
use super::link::Link;
use super::retry::retransmit_pause;
use super::timers::Purpose;
use super::{Answer, Semantics, Session};
use crate::error::{Code, Fault};
use crate::frame::{self, Header, Kind, NO_DEADLINE_MS};

const NANOS_PER_MILLI: u32 = 1_000_000;

impl<T> Session<T> {
    /// Appends to `out` what may be sent now, as far as the window, the retry budget and the output
    /// mark allow; nothing before the handshake is done.
    ///
    /// `out` is what waits to be written: above `Limits::output_bytes_mark` no further call is
    /// added to it, and [`Session::wants_transmit`] says so.
    pub fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.journaling.is_some() {
            self.drive_journal(now);
        }
        let Link::Up { draining } = self.link else { return };
        while let Some(seq) = self.cancels.pop_front() {
            Header::new(Kind::Cancel, seq).append(&[], out);
        }
        if !draining {
            self.send_again(now, out);
            if self.journaling.is_some() {
                self.send_journaled(now, out);
            }
            self.send_queue(now, out);
            if self.journaling.is_some() {
                // What takes no time to be safe leaves now.
                self.drive_journal(now);
                self.send_journaled(now, out);
            }
        }
        if self.acks.is_due(&self.ring, &self.limits, now) {
            Header::new(Kind::Ack, self.ring.floor()).append(&[], out);
            self.acks.sent(self.ring.floor(), now);
        }
        if self.probe.take_ping() {
            Header::new(Kind::Ping, 0).append(&[], out);
        }
    }

    /// Returns whether [`Session::transmit`] has something to send now. Just after it, only the
    /// output mark can have held that up.
    #[inline]
    pub fn wants_transmit(&self, now: Instant) -> bool {
        if let Some(journaling) = &self.journaling
            && (journaling.wants_commit() || (self.is_ready() && journaling.has_calls()))
        {
            return true;
        }
        let Link::Up { draining } = self.link else { return false };
        let has_calls = (self.queued > 0 && self.may_send_first())
            || !self.resends.is_empty()
            || (!self.retries.is_empty() && self.budget.next_at() <= now);
        (has_calls && !draining)
            || !self.cancels.is_empty()
            || self.probe.wants_ping()
            || self.acks.is_due(&self.ring, &self.limits, now)
    }

    fn is_ready(&self) -> bool {
        matches!(self.link, Link::Up { draining: false })
    }

    /// Returns whether the server closes this connection soon and nothing is out on it: the driver
    /// may close it.
    pub fn is_drained(&self) -> bool {
        matches!(self.link, Link::Up { draining: true }) && self.outstanding == 0
    }

    /// Does what is due at `now`: calls end whose deadline has passed, refused ones become ready to
    /// be sent, a silent server is asked. [`Session::transmit`] then sends what there is to say.
    ///
    /// # Errors
    /// The server has been silent for too long: as for [`Session::on_frame`].
    pub fn on_deadline(&mut self, now: Instant) -> Result<(), Fault> {
        while let Some((key, purpose)) = self.timers.pop_due(now) {
            let Some(call) = self.calls.get(key) else { continue };
            match purpose {
                Purpose::Deadline => {
                    self.abandon(key.index, Code::Deadline, "its deadline passed");
                }
                Purpose::Overdue(times) if call.transmissions == times => {
                    self.on_overdue(key, now);
                }
                Purpose::Retry(times) if call.stage == Stage::Waiting && call.refusals == times => {
                    self.due(key);
                }
                Purpose::Overdue(_) | Purpose::Retry(_) => {}
            }
        }
        self.drive_journal(now);
        self.check_lease(now);
        self.on_hedge_deadline(now);
        match self.link {
            Link::Handshaking { since, .. } if now >= since + self.limits.handshake_timeout => {
                Err(Fault::new(Code::Deadline, "the server did not answer the handshake"))
            }
            Link::Up { .. }
                if self.outstanding > 0
                    && self.probe.is_dead(self.limits.retransmit_timeout, now) =>
            {
                Err(Fault::new(Code::Deadline, "the server was silent and did not answer a PING"))
            }
            _ => Ok(()),
        }
    }

    /// Returns when [`Session::on_deadline`] and [`Session::transmit`] are to be called next, if
    /// nothing comes before. It may be early, never late, and is cheap.
    pub fn next_deadline(&self) -> Option<Instant> {
        let mut next = self.timers.next_deadline();
        match self.link {
            Link::Closed => {}
            Link::Down { .. } => next = earlier(next, self.lease_end()),
            Link::Handshaking { since, .. } => {
                next = earlier(next, Some(since + self.limits.handshake_timeout));
            }
            Link::Up { draining } => {
                if self.outstanding > 0 {
                    let silence = self.probe.next_deadline(self.limits.retransmit_timeout);
                    next = earlier(next, Some(silence));
                }
                next = earlier(next, self.acks.next_deadline(&self.ring, self.limits.ack_delay));
                if !draining && !self.retries.is_empty() {
                    next = earlier(next, Some(self.budget.next_at()));
                }
            }
        }
        if self.has_hedge() {
            next = earlier(next, self.next_hedge_deadline());
        }
        if let Some(journaling) = &self.journaling {
            next = earlier(next, journaling.next_deadline());
        }
        next
    }

    /// Does what an unanswered call asks for: another copy.
    fn on_overdue(&mut self, key: CallKey, now: Instant) {
        let call = self.calls.at(key.index);
        if call.stage != Stage::Sent {
            return;
        }
        if call.is_protected() {
            self.hedge(key, now);
        } else if call.has_attempts() {
            self.leave_stage(key.index);
            self.due(key);
        } else {
            self.end_used_up(key.index);
        }
    }

    /// Ends a call that may not be sent again, and of which nothing more can be heard.
    pub(super) fn end_used_up(&mut self, index: u32) {
        let times = self.calls.at(index).transmissions;
        self.abandon(index, Code::Deadline, &format!("sent {times} times, as often as it may be"));
    }

    /// Arms the alarm that asks for another copy of a call just sent.
    fn arm_overdue(&mut self, key: CallKey, now: Instant) {
        let call = self.calls.at(key.index);
        let times = call.transmissions;
        let after = match call.semantics {
            Semantics::AtLeastOnce => {
                let pause = retransmit_pause(call.transmissions, &self.limits);
                Some(self.jitter.spread(pause))
            }
            Semantics::AtMostOnce => None,
            Semantics::ExactlyOnce => (call.hedge_after_us != u32::MAX && call.has_attempts())
                .then(|| Duration::from_micros(call.hedge_after_us.into())),
        };
        if let Some(at) = after.and_then(|after| now.checked_add(after)) {
            self.timers.push(at, key, Purpose::Overdue(times));
            self.timers.compact(&self.calls);
        }
    }

    /// Makes a call ready to be sent again, as the budget allows.
    fn due(&mut self, key: CallKey) {
        let is_up = matches!(self.link, Link::Up { .. });
        // Without a connection the next handshake finds it and lines it up.
        let stage = if is_up { Stage::Due } else { Stage::Lost };
        self.calls.at_mut(key.index).stage = stage;
        if is_up {
            self.retries.push_back(key);
        }
    }

    /// Sends what was sent before: after a RESUME freely, else as the budget allows.
    fn send_again(&mut self, now: Instant, out: &mut Vec<u8>) {
        while out.len() < self.limits.output_bytes_mark {
            let Some(key) = self.first(|session| &mut session.resends, Stage::Due) else { break };
            self.resends.pop_front();
            self.counters.resends += 1;
            self.send(key, now, out);
        }
        while out.len() < self.limits.output_bytes_mark {
            let Some(key) = self.first(|session| &mut session.retries, Stage::Due) else { break };
            if !self.budget.take(now) {
                break;
            }
            self.retries.pop_front();
            self.counters.resends += 1;
            self.send(key, now, out);
        }
    }

    /// Sends calls for the first time, while the window has room.
    fn send_queue(&mut self, now: Instant, out: &mut Vec<u8>) {
        while self.queued > 0 && self.may_send_first() && out.len() < self.limits.output_bytes_mark
        {
            let Some(key) = self.first(|session| &mut session.queue, Stage::Queued) else { break };
            self.queue.pop_front();
            if self.calls.at(key.index).deadline.is_some_and(|deadline| deadline <= now) {
                // Sent, it would only turn what is certain into a guess.
                self.abandon(key.index, Code::Deadline, "its deadline passed");
            } else if let Some(fault) = self.too_large(&self.calls.at(key.index).request) {
                // Taken before the server had said how much it takes.
                self.end(key.index, Answer::NotExecuted(fault));
            } else if self.calls.at(key.index).attached.is_none() {
                self.send_notification(key.index, now, out);
            } else {
                self.send_first(key, now, out);
            }
        }
    }

    #[inline]
    pub(super) fn may_send_first(&self) -> bool {
        self.ring.has_room() && self.unprotected < self.ring.window()
    }

    fn send_first(&mut self, key: CallKey, now: Instant, out: &mut Vec<u8>) {
        self.leave_stage(key.index);
        let seq = self.number(key);
        let call = self.calls.at_mut(key.index);
        call.seq = seq;
        call.sent_at = Some(now);
        self.unprotected += u32::from(!call.is_protected());
        frame::number(&mut call.request, seq);
        if self.journaling.is_some() && self.calls.at(key.index).is_protected() {
            self.record_call(key);
        } else {
            self.count_first(key, now, out);
        }
    }

    /// Sends the calls for the first time that are safe in the journal.
    fn send_journaled(&mut self, now: Instant, out: &mut Vec<u8>) {
        while out.len() < self.limits.output_bytes_mark
            && let Some(key) = self.next_safe_call()
        {
            self.calls.at_mut(key.index).sent_at = Some(now);
            self.count_first(key, now, out);
        }
    }

    fn count_first(&mut self, key: CallKey, now: Instant, out: &mut Vec<u8>) {
        self.earn();
        self.send(key, now, out);
    }

    /// Counts a call that is sent for the first time.
    pub(super) fn earn(&mut self) {
        self.budget.earn();
        self.counters.calls += 1;
    }

    /// Sends a copy of a call that has its number.
    fn send(&mut self, key: CallKey, now: Instant, out: &mut Vec<u8>) {
        let ack = self.ring.floor();
        let call = self.calls.at_mut(key.index);
        append_copy(call, ack, now, out);
        call.stage = Stage::Sent;
        if call.doubt == Doubt::Told {
            call.doubt = Doubt::Asked;
        }
        let may_be_overdue = call.hedge_after_us != u32::MAX || !call.is_protected();
        if call.semantics == Semantics::AtMostOnce {
            let request = std::mem::take(&mut call.request);
            self.calls.give_buffer(request);
        }
        self.acks.sent(ack, now);
        self.count_sent(now);
        if may_be_overdue {
            self.arm_overdue(key, now);
        }
    }

    fn send_notification(&mut self, index: u32, now: Instant, out: &mut Vec<u8>) {
        let ack = self.ring.floor();
        let call = self.calls.at_mut(index);
        frame::restamp(&mut call.request, ack, time_left_ms(call.deadline, now));
        out.extend_from_slice(&call.request);
        // No account of its ack is kept: the server runs a notification outside the session.
        self.counters.notifications += 1;
        self.finish(index, false);
    }

    /// Counts a call that is out on this connection.
    #[inline]
    pub(super) fn count_sent(&mut self, now: Instant) {
        if self.outstanding == 0 {
            self.probe.expect(now);
        }
        self.outstanding += 1;
    }

    /// Returns the first entry of a queue whose call is still in `stage`, dropping those before it.
    pub(super) fn first(
        &mut self,
        queue: impl Fn(&mut Self) -> &mut VecDeque<CallKey>,
        stage: Stage,
    ) -> Option<CallKey> {
        while let Some(&key) = queue(self).front() {
            if self.calls.get(key).is_some_and(|call| call.stage == stage) {
                return Some(key);
            }
            queue(self).pop_front();
        }
        None
    }
}

/// Returns the earlier of two instants, either of which may not come. It is asked for with each call:
/// iterators over options are too slow for that.
#[inline]
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Appends one more copy of a call that has its number: the same bytes, with the ack and the time left
/// of now.
pub(super) fn append_copy<T>(call: &mut Call<T>, ack: u64, now: Instant, out: &mut Vec<u8>) {
    frame::restamp(&mut call.request, ack, time_left_ms(call.deadline, now));
    out.extend_from_slice(&call.request);
    call.copies += 1;
    call.transmissions += 1;
}

/// Returns how many milliseconds a caller will still wait, as a frame says it: rounded up, so that
/// only a deadline that has passed is 0.
#[inline]
pub(super) fn time_left_ms(deadline: Option<Instant>, now: Instant) -> u32 {
    let Some(deadline) = deadline else { return NO_DEADLINE_MS };
    let left = deadline.saturating_duration_since(now);
    let millis = u64::from(left.subsec_nanos().div_ceil(NANOS_PER_MILLI));
    let millis = left.as_secs().saturating_mul(1_000).saturating_add(millis);
    u32::try_from(millis).unwrap_or(NO_DEADLINE_MS - 1).min(NO_DEADLINE_MS - 1)
}
