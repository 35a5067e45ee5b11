//! What the server says, and what follows from it for a call.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::acks::Occupant;
use super::calls::{Calls, Doubt, Stage};
use super::hedge::Lane;
use super::link::{Link, decode};
use super::retry::pause;
use super::timers::Purpose;
use super::{Answer, Event, Semantics, Session};
use crate::error::{Class, Code, ErrorBody, Fault};
use crate::frame::{Frame, Header, Kind};
use crate::handshake::Order;

/// Returns the fault of a server that breaks the protocol.
pub(super) fn protocol_error(message: impl Into<String>) -> Fault {
    Fault::new(Code::Protocol, message)
}

impl<T> Session<T> {
    /// Takes a frame; returns the call that it ended, if it did.
    ///
    /// The frame must have come on the connection last given to [`Session::on_connected`], and its
    /// body must have passed the scan.
    ///
    /// # Errors
    /// The connection cannot go on: the driver closes it, calls [`Session::on_disconnected`], and
    /// looks at [`Session::next_ended`].
    #[inline]
    pub fn on_frame<'a>(
        &mut self,
        frame: &Frame<'a>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Option<(T, Answer<'a>)>, Fault> {
        if frame.header.kind == Kind::Reply
            && frame.header.flags.not_understood() == 0
            && matches!(self.link, Link::Up { .. })
        {
            self.probe.heard(now);
            return self.on_reply(frame, now);
        }
        self.on_other_frame(frame, now, out)
    }

    /// Takes a frame that is not the one which comes all the time.
    fn on_other_frame<'a>(
        &mut self,
        frame: &Frame<'a>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Option<(T, Answer<'a>)>, Fault> {
        self.probe.heard(now);
        let header = &frame.header;
        check_flags(header)?;
        match self.link {
            Link::Up { .. } => {}
            Link::Handshaking { resume, .. } => {
                self.on_handshake_frame(frame, resume, now)?;
                return Ok(None);
            }
            Link::Closed | Link::Down { .. } => return Ok(None),
        }
        match header.kind {
            Kind::Error => self.on_error(frame, Lane::First, now),
            Kind::Ping => {
                Header::new(Kind::Pong, header.seq).append(&[], out);
                Ok(None)
            }
            Kind::Pong => Ok(None),
            Kind::GoAway => {
                self.link = Link::Up { draining: true };
                self.events.push_back(Event::Draining);
                Ok(None)
            }
            kind => Err(protocol_error(format!("{kind:?} is not a server's to send now"))),
        }
    }

    /// Takes the header of a frame whose body was refused at this end, and `fault`, which says why:
    /// it was too large and skipped, or the scan did not let it through.
    ///
    /// # Errors
    /// As for [`Session::on_frame`].
    pub fn on_refused(
        &mut self,
        header: &Header,
        mut fault: Fault,
        now: Instant,
    ) -> Result<Option<(T, Answer<'static>)>, Fault> {
        self.probe.heard(now);
        let is_answer = matches!(header.kind, Kind::Reply | Kind::Error);
        if !is_answer || !matches!(self.link, Link::Up { .. }) || header.seq == 0 {
            return Err(protocol_error(format!("a {:?} that is refused: {fault}", header.kind)));
        }
        let Some(index) = self.find(header.seq)? else { return Ok(None) };
        self.acks.consumed(0, now);
        let answer = if header.kind == Kind::Reply {
            fault.class = Class::Executed;
            Answer::Executed(fault)
        } else {
            fault.class = Class::Unknown;
            Answer::Indeterminate(fault)
        };
        Ok(self.hand_out(index).map(|attached| (attached, answer)))
    }

    /// Notes that something came at `at` which was not given to [`Session::on_frame`]: part of a
    /// large frame, or a PONG that the driver has kept to itself. The server is alive.
    pub fn on_bytes(&mut self, at: Instant) {
        self.probe.heard(at);
    }

    #[inline]
    pub(super) fn on_reply<'a>(
        &mut self,
        frame: &Frame<'a>,
        now: Instant,
    ) -> Result<Option<(T, Answer<'a>)>, Fault> {
        let Some(index) = self.find(frame.header.seq)? else { return Ok(None) };
        self.acks.consumed(frame.body.len(), now);
        Ok(self.hand_out(index).map(|attached| (attached, Answer::Reply(frame.body))))
    }

    pub(super) fn on_error<'a>(
        &mut self,
        frame: &Frame<'a>,
        lane: Lane,
        now: Instant,
    ) -> Result<Option<(T, Answer<'a>)>, Fault> {
        let body: ErrorBody<'a> = decode(frame)?;
        let fault = Fault::from_body(&body);
        if frame.header.seq == 0 || is_of_the_session(&fault) {
            // What is said on a second connection costs the hedge and no more: the first will tell.
            if is_of_the_session(&fault) && lane == Lane::First {
                self.lose_session(&fault);
            }
            return Err(fault);
        }
        let Some(index) = self.find(frame.header.seq)? else { return Ok(None) };
        let answer = match fault.class {
            Class::InProgress => return Ok(None),
            Class::NotExecuted => return Ok(self.on_not_executed(index, fault, lane, now)),
            Class::Executed => executed(fault, body.details),
            Class::Unknown if fault.code == Some(Code::InDoubt) && self.may_ask_again(index) => {
                return Ok(self.on_in_doubt(index, fault, lane, now));
            }
            Class::Unknown | Class::ClientBug => Answer::Indeterminate(fault),
        };
        self.acks.consumed(frame.body.len(), now);
        Ok(self.hand_out(index).map(|attached| (attached, answer)))
    }

    /// Returns whether a call whose server crashed in it does no harm if it runs again. In an in-order
    /// session later calls may have run by now: it would run out of its turn.
    fn may_ask_again(&self, index: u32) -> bool {
        let call = self.calls.at(index);
        self.order == Order::Unordered
            && call.is_idempotent
            && call.semantics == Semantics::ExactlyOnce
    }

    /// Takes the news that the server crashed while it ran the call: it is asked to run it again. Only
    /// a server that was asked, and names no time for another try, has said its last word.
    fn on_in_doubt<'a>(
        &mut self,
        index: u32,
        fault: Fault,
        lane: Lane,
        now: Instant,
    ) -> Option<(T, Answer<'a>)> {
        let call = self.calls.at_mut(index);
        let is_final = call.doubt == Doubt::Asked && fault.retry_after_ms.is_none();
        if call.doubt == Doubt::None {
            call.doubt = Doubt::Told;
        }
        if !self.is_awaited(index, lane) {
            return None; // said by the way when a connection came, of what is known
        }
        let call = self.calls.at_mut(index);
        call.copies -= 1;
        if lane == Lane::Second {
            return self.on_refused_second(index, fault);
        }
        if call.has_attempts() && !is_final {
            call.doubt = Doubt::Told;
            self.wait(index, &fault, now);
            return None;
        }
        self.end_refused_first(index, fault)
    }

    /// Takes the news that the copy on one connection was not executed.
    fn on_not_executed<'a>(
        &mut self,
        index: u32,
        fault: Fault,
        lane: Lane,
        now: Instant,
    ) -> Option<(T, Answer<'a>)> {
        if !self.is_awaited(index, lane) {
            return None;
        }
        let call = self.calls.at_mut(index);
        // Of two copies a refusal answers the one that came that way, if it is not said of both at once.
        call.copies -= u32::from(!call.was_hedged || is_of_one_copy(&fault));
        match lane {
            Lane::First => self.on_refused_first(index, fault, now),
            Lane::Second => self.on_refused_second(index, fault),
        }
    }

    /// Returns whether a copy of the call is out on this connection, whose answer is awaited; if not, the
    /// answer that came is ignored, and counted.
    fn is_awaited(&mut self, index: u32, lane: Lane) -> bool {
        let call = self.calls.at(index);
        let is_awaited = match lane {
            Lane::First => call.stage == Stage::Sent,
            Lane::Second => call.is_hedged,
        };
        self.counters.answers_ignored += u64::from(!is_awaited);
        is_awaited
    }

    fn on_refused_first<'a>(
        &mut self,
        index: u32,
        fault: Fault,
        now: Instant,
    ) -> Option<(T, Answer<'a>)> {
        if fault.code == Some(Code::Window) {
            self.acks.hurry();
        }
        let call = self.calls.at(index);
        if call.semantics != Semantics::AtMostOnce && may_pass(&fault) {
            if call.has_attempts() {
                self.wait(index, &fault, now);
                return None;
            }
            if !call.is_protected() && call.copies > 0 {
                return None; // another copy may still be answered; if not, its alarm ends it
            }
        }
        self.end_refused_first(index, fault)
    }

    /// Ends a call that was refused for good on the first connection, unless a copy is out on the
    /// second.
    fn end_refused_first<'a>(&mut self, index: u32, fault: Fault) -> Option<(T, Answer<'a>)> {
        if self.calls.at(index).is_hedged {
            self.leave_stage(index);
            self.calls.at_mut(index).stage = Stage::Refused;
            return None;
        }
        self.end_refused(index, fault)
    }

    fn on_refused_second<'a>(&mut self, index: u32, fault: Fault) -> Option<(T, Answer<'a>)> {
        let call = self.calls.at_mut(index);
        call.is_hedged = false;
        self.hedge.outstanding -= 1;
        // Else the first connection goes on with it.
        if call.stage == Stage::Refused { self.end_refused(index, fault) } else { None }
    }

    /// Ends a call that was refused for good where it was asked last.
    fn end_refused<'a>(&mut self, index: u32, fault: Fault) -> Option<(T, Answer<'a>)> {
        let answer = match self.calls.at(index).is_proved() {
            true => Answer::NotExecuted(fault),
            false => Answer::Indeterminate(fault),
        };
        if self.calls.at(index).has_record {
            self.end_recorded(index, answer);
            return None;
        }
        self.finish(index, true).map(|attached| (attached, answer))
    }

    /// Puts a refused call aside until it may be sent again.
    fn wait(&mut self, index: u32, fault: &Fault, now: Instant) {
        self.leave_stage(index);
        let key = self.calls.key(index);
        let call = self.calls.at_mut(index);
        call.refusals += 1;
        let asked = fault.retry_after_ms.map(|millis| Duration::from_millis(millis.into()));
        let pause = asked.unwrap_or_else(|| pause(call.refusals, &self.limits));
        // Longer, never shorter, than what the server asked for.
        let spread = self.jitter.spread(pause).max(asked.unwrap_or_default());
        let until = now + spread;
        call.stage = Stage::Waiting;
        self.timers.push(until, key, Purpose::Retry(call.refusals));
        self.timers.compact(&self.calls);
    }

    /// Returns the open call with this seq; `None` if it has ended.
    #[inline]
    fn find(&mut self, seq: u64) -> Result<Option<u32>, Fault> {
        let index = if Calls::<T>::is_label(seq) {
            self.calls.by_label(seq)
        } else {
            match self.ring.occupant(seq) {
                Occupant::Call(index) => Some(index),
                Occupant::Burnt | Occupant::Ended => None,
                Occupant::Never => return Err(never_asked(seq)),
            }
        };
        self.counters.answers_ignored += u64::from(index.is_none());
        Ok(index)
    }
}

#[cold]
fn never_asked(seq: u64) -> Fault {
    protocol_error(format!("an answer to {seq}, which was never asked"))
}

/// Refuses a frame with a flag that this version must understand and does not.
pub(super) fn check_flags(header: &Header) -> Result<(), Fault> {
    if header.flags.not_understood() == 0 {
        return Ok(());
    }
    let message = format!("{:?} with flags {:#06x}", header.kind, header.flags.0);
    Err(Fault::new(Code::Unsupported, message))
}

/// Returns whether a fault speaks of the whole session, on whatever frame it came.
fn is_of_the_session(fault: &Fault) -> bool {
    matches!(fault.code, Some(Code::SessionUnknown | Code::Fenced))
}

/// Returns whether the reason of a refusal may pass by itself.
fn may_pass(fault: &Fault) -> bool {
    match fault.code {
        Some(code) => matches!(code, Code::Busy | Code::Window | Code::Draining),
        None => fault.retry_after_ms.is_some(),
    }
}

/// Returns whether a refusal certainly speaks of the copy that came by the connection it is heard on.
///
/// A handler that asks to be tried later (row 16) refuses the call once for all copies, and may be
/// heard on either connection while the copy sent there is on its way. It says BUSY; so may a newer
/// server whose code is not known here.
fn is_of_one_copy(fault: &Fault) -> bool {
    !matches!(fault.code, None | Some(Code::Busy))
}

fn executed<'a>(fault: Fault, details: Option<Cow<'a, [u8]>>) -> Answer<'a> {
    match details {
        Some(details) if fault.code == Some(Code::ApplicationError) => Answer::Application(details),
        _ => Answer::Executed(fault),
    }
}
