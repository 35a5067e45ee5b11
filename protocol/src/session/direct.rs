//! A call that leaves as soon as it is made: what nearly every call is, so written for few steps.
//!
//! It does what [`Session::call`] and [`Session::transmit`] do one after the other, but without the
//! queue between them: its frame is made with its number, and stands in the output at once. Where
//! anything has to leave before it, or is to be looked after besides, it goes the long way.

use std::fmt::Display;
use std::time::Instant;

use super::calls::{CallKey, Stage};
use super::link::Link;
use super::transmit::time_left_ms;
use super::{CallSpec, Semantics, Session};
use crate::error::Fault;
use crate::frame::{Header, Kind};

/// A call that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What names it.
    pub key: CallKey,
    /// Whether it has left; else [`Session::transmit`] sends it.
    pub has_left: bool,
}

/// How long the caller of the last call still waits: the same for all that a turn makes alike.
#[derive(Debug)]
pub(super) struct Left {
    deadline: Option<Instant>,
    now: Instant,
    ms: u32,
}

impl Left {
    pub(super) fn new(now: Instant) -> Left {
        Left { deadline: None, now, ms: time_left_ms(None, now) }
    }

    #[inline]
    fn ms(&mut self, deadline: Option<Instant>, now: Instant) -> u32 {
        if (self.deadline, self.now) != (deadline, now) {
            *self = Left { deadline, now, ms: time_left_ms(deadline, now) };
        }
        self.ms
    }
}

impl<T> Session<T> {
    /// Takes a call, as [`Session::call`] does, and appends it to `out` if it may be sent now and
    /// nothing has to be sent before it.
    ///
    /// `out` is what waits to be written, as for [`Session::transmit`]; `None` if there is nothing
    /// that a frame could be appended to.
    ///
    /// # Errors
    /// As for [`Session::call`].
    #[inline]
    pub fn call_now<E: Display>(
        &mut self,
        spec: CallSpec,
        attached: T,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        now: Instant,
        out: Option<&mut Vec<u8>>,
    ) -> Result<Taken, (T, Fault)> {
        let out = out.filter(|out| self.may_leave_now(&spec, now, out));
        let header = match &out {
            Some(_) => Ok(Header {
                seq: self.ring.next(),
                ack: self.ring.floor(),
                method: spec.method,
                time_left_ms: self.left.ms(spec.deadline, now),
                ..Header::new(Kind::Request, 0)
            }),
            None => self.header(&spec),
        };
        let request = match header.and_then(|header| self.encode(&header, encode)) {
            Ok(request) => request,
            Err(fault) => return Err((attached, fault)),
        };
        let Some(out) = out else {
            let key = self.enqueue(spec, Some(attached), request);
            return Ok(Taken { key, has_left: false });
        };
        out.extend_from_slice(&request);
        let key = self.note_sent(&spec, attached, request, now);
        Ok(Taken { key, has_left: true })
    }

    /// Takes the account of a call that has left.
    #[inline]
    fn note_sent(
        &mut self,
        spec: &CallSpec,
        attached: T,
        request: Vec<u8>,
        now: Instant,
    ) -> CallKey {
        let (key, call) = self.calls.insert(spec, request);
        call.attached = Some(attached);
        call.sent_at = Some(now);
        call.copies = 1;
        call.transmissions = 1;
        call.stage = Stage::Sent;
        call.seq = self.ring.assign(key.index);
        self.arm_deadline(key, spec.deadline);
        self.earn();
        self.acks.sent(self.ring.floor(), now);
        self.count_sent(now);
        key
    }

    /// Returns whether a call may be sent now, before anything else is.
    #[inline]
    fn may_leave_now(&self, spec: &CallSpec, now: Instant, out: &[u8]) -> bool {
        let is_plain = spec.semantics == Semantics::ExactlyOnce && spec.hedge_after.is_none();
        let is_first = self.queued == 0
            && self.resends.is_empty()
            && self.retries.is_empty()
            && self.cancels.is_empty()
            && !self.probe.wants_ping();
        is_plain
            && is_first
            && matches!(self.link, Link::Up { draining: false })
            && self.journaling.is_none()
            && self.may_send_first()
            && self.limits.queued_calls_max > 0
            && out.len() < self.limits.output_bytes_mark
            && spec.deadline.is_none_or(|deadline| deadline > now)
    }
}
