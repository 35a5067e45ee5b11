//! Connections come and go: the handshake, what a RESUME tells of each call, and the loss of a
//! connection or of the session.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::acks::Occupant;
use super::answer::protocol_error;
use super::calls::{CallKey, Calls, Doubt, Stage};
use super::{Answer, Event, Opened, Semantics, Session};
use crate::codec::{Decode, Encode, decode_whole};
use crate::error::{Class, Code, ErrorBody, Fault};
use crate::frame::{Frame, Header, Kind, MAGIC, VERSION};
use crate::handshake::{CellReport, Hello, JOURNAL, Resume, Resumed, ServerLimits, Sid, Welcome};
use crate::limits::Limits;

/// A client counts its lease a tenth short, and by this much more: clocks drift, and what proves that
/// the server was there took a while to come.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// One part in so many.
const LEASE_MARGIN_PARTS: u32 = 10;

/// What stands between this end and the server.
#[derive(Debug)]
pub(super) enum Link {
    /// Over.
    Closed,
    /// No connection.
    Down { connect_at: Instant },
    /// HELLO or RESUME has been sent.
    Handshaking { since: Instant, resume: bool },
    /// The handshake is done.
    Up { draining: bool },
}

/// What the server knows the session by.
#[derive(Debug)]
pub(super) struct Identity {
    sid: Sid,
    /// Raised by a client that restarts from its journal; one without begins a new session.
    incarnation: u32,
    /// The last one used; HELLO's own connection is the first.
    attachment: u32,
}

impl Identity {
    /// Returns the identity of a session that an earlier incarnation had.
    pub(super) fn recovered(sid: Sid, incarnation: u32) -> Identity {
        Identity { sid, incarnation, attachment: 0 }
    }

    /// Returns what attaches the next connection.
    pub(super) fn resume(&mut self, ack: u64, join: bool, token: Option<Bytes>) -> Resume {
        self.attachment += 1;
        Resume {
            version: VERSION,
            features: 0,
            sid: self.sid,
            incarnation: self.incarnation,
            attachment: self.attachment,
            ack,
            join,
            token,
        }
    }
}

impl<T> Session<T> {
    /// Begins the handshake on a connection that has just opened.
    pub fn on_connected(&mut self, now: Instant, out: &mut Vec<u8>) {
        if !matches!(self.link, Link::Down { .. }) {
            return;
        }
        self.check_lease(now);
        self.drop_hedge();
        out.extend_from_slice(&MAGIC);
        match &mut self.identity {
            None => {
                let hello = Hello {
                    version: VERSION,
                    features: if self.journaling.is_some() { JOURNAL } else { 0 },
                    window: window(&self.limits),
                    order: self.order,
                    token: self.token.clone(),
                };
                append(Kind::Hello, &hello, out);
            }
            Some(identity) => {
                let resume = identity.resume(self.ring.floor(), false, self.token.clone());
                append(Kind::Resume, &resume, out);
            }
        }
        self.probe.heard(now);
        self.link = Link::Handshaking { since: now, resume: self.identity.is_some() };
    }

    /// Notes that the connection is lost, or could not be had; `why` goes into the messages of
    /// calls whose time passes before there is another.
    pub fn on_disconnected(&mut self, why: &str, now: Instant) {
        if matches!(self.link, Link::Closed) {
            return;
        }
        let is_lost_session =
            matches!(self.link, Link::Handshaking { resume: true, .. }) && self.identity.is_none();
        if matches!(self.link, Link::Up { .. }) {
            self.attached_at = self.attached_at.max(self.probe.heard_at());
        }
        let after_pause = self.backoff.failed(why, &self.limits, &mut self.jitter, now);
        // A server that forgot the session is there, and waits for a HELLO.
        let connect_at = if is_lost_session { now } else { after_pause };
        self.link = Link::Down { connect_at };
        self.forget_connection();
    }

    /// Drops all that belongs to a connection. What was sent on it may or may not have arrived.
    pub(super) fn forget_connection(&mut self) {
        for index in self.calls.indices() {
            if matches!(self.calls.at(index).stage, Stage::Due | Stage::Refused | Stage::Sent) {
                self.leave_stage(index);
                let call = self.calls.at_mut(index);
                call.stage = Stage::Lost;
                if !call.is_protected() && !call.has_attempts() {
                    self.end_used_up(index);
                }
            }
        }
        self.hedge.queue.clear();
        debug_assert_eq!(self.outstanding, 0);
        self.resends.clear();
        self.retries.clear();
        self.cancels.clear();
    }

    /// Takes the answer to HELLO or RESUME.
    pub(super) fn on_handshake_frame(
        &mut self,
        frame: &Frame<'_>,
        resume: bool,
        now: Instant,
    ) -> Result<(), Fault> {
        match (frame.header.kind, resume) {
            (Kind::Welcome, false) => self.on_welcome(&decode(frame)?)?,
            (Kind::Resumed, true) => self.on_resumed(&decode(frame)?, now)?,
            (Kind::Error, _) => {
                let body: ErrorBody<'_> = decode(frame)?;
                return Err(self.on_handshake_refused(Fault::from_body(&body)));
            }
            (kind, _) => {
                let message = format!("{kind:?} before the handshake was done");
                return Err(protocol_error(message));
            }
        }
        self.link = Link::Up { draining: false };
        self.attached_at = now;
        self.backoff.succeeded();
        self.resend_unprotected();
        self.events.push_back(Event::Ready { resumed: resume });
        Ok(())
    }

    fn on_welcome(&mut self, welcome: &Welcome) -> Result<(), Fault> {
        check_version(welcome.version)?;
        if welcome.window == 0 || welcome.window > self.limits.window_max {
            let max = self.limits.window_max;
            let message = format!("a window of {}; it is 1 to {max}", welcome.window);
            return Err(protocol_error(message));
        }
        self.identity = Some(Identity { sid: welcome.sid, incarnation: 0, attachment: 1 });
        self.take_limits(&welcome.limits);
        self.ring.reset(welcome.window);
        self.record_session(Opened {
            sid: welcome.sid,
            window: welcome.window,
            lease_ms: welcome.limits.lease_ms,
        });
        Ok(())
    }

    fn on_resumed(&mut self, resumed: &Resumed, now: Instant) -> Result<(), Fault> {
        check_version(resumed.version)?;
        if resumed.floor > self.ring.floor() || resumed.window == 0 {
            let message = format!(
                "RESUMED with floor {} and window {}; acknowledged was {}",
                resumed.floor,
                resumed.window,
                self.ring.floor()
            );
            return Err(protocol_error(message));
        }
        self.take_limits(&resumed.limits);
        self.ring.narrow(resumed.window);
        // Calls may have been given up since RESUME was sent: what counts is what the server has read.
        self.acks.sent(resumed.floor, now);
        if resumed.floor < self.ring.floor() {
            self.acks.hurry();
        }
        for seq in self.ring.floor() + 1..self.ring.next() {
            let report = resumed.report(seq);
            match self.ring.occupant(seq) {
                Occupant::Call(index) => self.settle(index, report, now),
                Occupant::Burnt if report == CellReport::Running => self.cancels.push_back(seq),
                Occupant::Burnt | Occupant::Ended | Occupant::Never => {}
            }
        }
        Ok(())
    }

    /// Decides how a call goes on after a RESUME, by what the server has of it.
    fn settle(&mut self, index: u32, report: CellReport, now: Instant) {
        let key = self.calls.key(index);
        let call = self.calls.at_mut(index);
        if call.stage != Stage::Lost && call.copies == 0 {
            return; // refused before, and waiting for its time, or never sent: no copy is out
        }
        debug_assert!(matches!(call.stage, Stage::Lost | Stage::Waiting));
        call.was_hedged = false;
        if call.doubt == Doubt::Asked {
            call.doubt = Doubt::Told; // what was asked may be lost
        }
        if report != CellReport::Vacant {
            call.copies = 1; // whatever else was sent, the cell stands for it
            call.stage = Stage::Sent;
            self.count_sent(now);
            return;
        }
        call.copies = 0;
        if call.stage != Stage::Lost {
            return; // its time has not come
        }
        if !call.has_attempts() {
            return self.end_used_up(index);
        }
        if call.semantics == Semantics::ExactlyOnce {
            call.stage = Stage::Due;
            self.resends.push_back(key);
            return;
        }
        let message = "lost with its connection; an at-most-once call is sent once";
        self.end(index, Answer::NotExecuted(Fault::new(Code::Cancelled, message)));
    }

    /// Lines up the unprotected calls that the last connection took with it.
    fn resend_unprotected(&mut self) {
        for index in self.calls.indices() {
            let call = self.calls.at_mut(index);
            if call.stage == Stage::Lost && !call.is_protected() {
                call.stage = Stage::Due;
                self.resends.push_back(self.calls.key(index));
            }
        }
    }

    fn take_limits(&mut self, limits: &ServerLimits) {
        self.server_body_bytes_max = usize::try_from(limits.body_bytes_max).unwrap_or(usize::MAX);
        self.take_lease(limits.lease_ms);
    }

    pub(super) fn take_lease(&mut self, lease_ms: u64) {
        self.lease = Duration::from_millis(lease_ms).min(super::TIME_MAX);
    }

    /// Returns when the session may be over at the server, if nothing is attached to it by then.
    ///
    /// Only whether the server is asked rests on this, never whether a call has run: the server's
    /// own clock decides what it forgets.
    pub(super) fn lease_end(&self) -> Option<Instant> {
        let is_detached = matches!(self.link, Link::Down { .. }) && !self.hedge.is_up();
        // A lease so short that the margin would eat it keeps half.
        let margin = (self.lease / LEASE_MARGIN_PARTS + LEASE_MARGIN).min(self.lease / 2);
        (is_detached && self.identity.is_some()).then(|| self.attached_at + (self.lease - margin))
    }

    /// Gives the session up if its lease is over by this end's count.
    pub(super) fn check_lease(&mut self, now: Instant) {
        if self.lease_end().is_some_and(|end| end <= now) {
            let message = "the session's lease was over before there was another connection";
            self.lose_session(&Fault::new(Code::SessionUnknown, message));
        }
    }

    fn on_handshake_refused(&mut self, fault: Fault) -> Fault {
        if let Some(millis) = fault.retry_after_ms {
            let pause = Duration::from_millis(millis.into());
            self.backoff.ask(pause.min(self.limits.lease));
        }
        if fault.code == Some(Code::SessionUnknown) || fault.code == Some(Code::Fenced) {
            self.lose_session(&fault);
        } else if fault.class == Class::NotExecuted
            && !matches!(fault.code, None | Some(Code::Busy | Code::Draining))
        {
            self.end_proved(&fault);
        }
        fault
    }

    /// Ends what certainly has not run: the server has refused this client for good.
    fn end_proved(&mut self, fault: &Fault) {
        for index in self.calls.indices() {
            if self.calls.at(index).is_proved() {
                self.end(index, Answer::NotExecuted(fault.clone()));
            }
        }
    }

    /// Gives the session up: the server does not know it, or has given it to another.
    ///
    /// Protected calls that may have run end indeterminate; those that certainly have not go on in
    /// a new session, in their order; unprotected ones do not belong to a session.
    pub(super) fn lose_session(&mut self, fault: &Fault) {
        if self.identity.take().is_none() {
            return;
        }
        self.drop_hedge();
        // Without its journal a call cannot be written down again, and so not be sent again.
        let can_move = self.journal_fault().is_none();
        let mut moved: Vec<CallKey> = Vec::new();
        for seq in self.ring.floor() + 1..self.ring.next() {
            let Occupant::Call(index) = self.ring.occupant(seq) else { continue };
            if can_move && self.calls.at(index).is_proved() {
                moved.push(self.calls.key(index));
                continue;
            }
            self.calls.at_mut(index).seq = 0; // which means nothing any more
            self.end(index, Answer::Indeterminate(fault.clone()));
        }
        for key in moved.into_iter().rev() {
            self.leave_stage(key.index);
            let call = self.calls.at_mut(key.index);
            call.seq = 0;
            call.stage = Stage::Queued;
            self.queued += 1;
            self.queued_bytes += call.request.len();
            self.queue.push_front(key);
        }
        self.ring = super::Ring::new();
        self.record_loss();
        self.acks.reset();
        self.server_body_bytes_max = self.limits.body_bytes_max;
        self.events.push_back(Event::SessionLost);
    }

    /// Gives a call the number it goes by, at its first transmission.
    pub(super) fn number(&mut self, key: CallKey) -> u64 {
        if self.calls.at(key.index).is_protected() {
            self.ring.assign(key.index)
        } else {
            Calls::<T>::label(key)
        }
    }
}

/// Returns the window to ask for: the power of two above the one chosen, or the largest.
fn window(limits: &Limits) -> u32 {
    limits.window.checked_next_power_of_two().unwrap_or(u32::MAX).min(limits.window_max)
}

pub(super) fn check_version(version: u16) -> Result<(), Fault> {
    if version == VERSION {
        return Ok(());
    }
    let message = format!("the server speaks version {version}, this client {VERSION}");
    Err(Fault::new(Code::Unsupported, message))
}

/// Appends a frame of the handshake.
pub(super) fn append(kind: Kind, body: &impl Encode, out: &mut Vec<u8>) {
    let start = Header::new(kind, 0).begin(out);
    body.encode(out).expect("numbers and bytes, written into memory");
    crate::frame::finish(out, start);
}

/// Reads the body of a frame whose form the protocol fixes.
pub(super) fn decode<'a, D: Decode<'a>>(frame: &Frame<'a>) -> Result<D, Fault> {
    decode_whole(frame.body)
        .map_err(|error| protocol_error(format!("{:?}: {error}", frame.header.kind)))
}
