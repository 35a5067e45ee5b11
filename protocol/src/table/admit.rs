//! A request comes in: rows 2 to 13 of the transitions, in their order.

use std::time::Instant;

use super::cell::Cell;
use super::{Call, CallKey, Refusal, SessionKey, Table};
use crate::error::Code;
use crate::frame::{Flags, Frame, SEQ_MAX};

/// Handlers of one session that its count has room for.
const WIDEST: u32 = u16::MAX as u32;
/// Milliseconds after which a client that met a full server may try again.
const BUSY_RETRY_AFTER_MS: u32 = 100;

/// A request, and what the server knows of it beyond the frame.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The frame it came in, its body scanned.
    pub frame: &'a Frame<'a>,
    /// By which connection it came.
    pub connection: u64,
    /// [`Table::digest`] of its method and body.
    pub digest: u64,
    /// Whether the method is declared idempotent.
    pub is_idempotent: bool,
    /// Why the server would refuse it whatever the table says: no such method, not authorized.
    pub refusal: Option<Code>,
}

/// What to do with a request.
///
/// Exhaustive: a server that does not know what to do must not compile.
#[derive(Debug)]
pub enum Admission<'t> {
    /// Send the kept answer again.
    Again(&'t [u8]),
    /// Send the refusal, then close the connection.
    Close(Refusal),
    /// Send the refusal.
    Refuse(Refusal),
    /// Run the handler, then tell [`Table::complete`].
    Run(CallKey),
    /// Do nothing: the one reply will come when the first copy has ended, or when its turn has
    /// come.
    Wait,
}

impl Table {
    /// Decides what to do with a request.
    ///
    /// A refusal has changed nothing but the floor.
    #[inline]
    pub fn admit(&mut self, key: SessionKey, request: &Request<'_>, now: Instant) -> Admission<'_> {
        let header = &request.frame.header;
        // Row 2: an unknown session is refused, never created.
        let Some(session) = self.sessions.get(key) else {
            self.counters.rejected += 1;
            return Admission::Refuse(unknown_session());
        };
        // Row 3: a connection that was replaced may still have frames on their way.
        if !session.is_attached_to(request.connection) {
            self.counters.rejected += 1;
            return Admission::Close(fenced());
        }
        // Row 4.
        let (seq, ack) = (header.seq, header.ack);
        if seq > SEQ_MAX || ack > SEQ_MAX || (seq > 0 && ack >= seq) {
            self.counters.rejected += 1;
            return Admission::Close(bad_numbers(seq, ack));
        }
        // Row 5.
        if ack > session.floor {
            self.raise_floor(key, ack);
        }
        if header.flags.contains(Flags::UNPROTECTED) {
            return self.admit_unprotected(key, request);
        }
        let session = self.sessions.get_mut(key).expect("found above; raising the floor keeps it");
        let floor = session.floor;
        // Row 6.
        if seq <= floor {
            self.counters.rejected += 1;
            return Admission::Refuse(stale(seq, floor));
        }
        // Row 7.
        if seq - floor > u64::from(session.window) {
            self.counters.refused += 1;
            return Admission::Refuse(beyond_window(seq, floor, session.window.into()));
        }
        // Rows 8 to 11.
        let cell = session.ring.get(floor, seq);
        if let Some(digest) = cell.digest() {
            return self.meet(cell, digest == request.digest);
        }
        // Row 12.
        if let Some(refusal) = self.refuse_vacant(key, request) {
            self.counters.refused += 1;
            return Admission::Refuse(refusal);
        }
        // Row 12b.
        if self.must_wait(key, seq) {
            return match self.hold(key, request, now) {
                Ok(()) => Admission::Wait,
                Err(refusal) => {
                    self.counters.refused += 1;
                    Admission::Refuse(refusal.retry_after_ms(BUSY_RETRY_AFTER_MS))
                }
            };
        }
        // Row 13.
        Admission::Run(self.start(key, request))
    }

    /// Rows 8 to 11: another copy was here before.
    fn meet(&mut self, cell: Cell, is_same: bool) -> Admission<'_> {
        if !is_same {
            self.counters.rejected += 1;
            return Admission::Refuse(xid_reused());
        }
        match cell {
            Cell::Vacant | Cell::Held { .. } | Cell::Pending { .. } => {
                self.counters.joined += 1;
                Admission::Wait
            }
            Cell::Done { reply, .. } => {
                self.counters.replayed += 1;
                Admission::Again(self.replies.get(reply))
            }
            Cell::DoneNoReply { .. } => {
                self.counters.replayed += 1;
                Admission::Refuse(not_retained())
            }
        }
    }

    /// Row 4b: rows 5 and 12, then run, if running twice does no harm.
    fn admit_unprotected(&mut self, key: SessionKey, request: &Request<'_>) -> Admission<'_> {
        let refusal = self.refuse_vacant(key, request).or_else(|| {
            (!request.is_idempotent).then(|| {
                Refusal::new(
                    Code::NotProtected,
                    "the method is not declared idempotent: call it at most once or exactly once",
                )
            })
        });
        if let Some(refusal) = refusal {
            self.counters.refused += 1;
            return Admission::Refuse(refusal);
        }
        Admission::Run(self.start(key, request))
    }

    /// Row 12: reasons not to run a call that nobody has run.
    #[inline]
    fn refuse_vacant(&self, key: SessionKey, request: &Request<'_>) -> Option<Refusal> {
        let header = &request.frame.header;
        if let Some(code) = request.refusal {
            return Some(Refusal::new(code, refusal_message(code)));
        }
        if self.is_draining {
            return Some(Refusal::new(Code::Draining, "the server is shutting down"));
        }
        if header.time_left_ms == 0 {
            return Some(Refusal::new(
                Code::Deadline,
                "the deadline passed before the call started",
            ));
        }
        let is_oldest = !header.flags.contains(Flags::UNPROTECTED)
            && self.sessions.get(key).is_some_and(|session| header.seq == session.floor + 1);
        self.room(key, request.frame.body.len(), is_oldest)
    }

    /// Row 12, "over quota": room for one more handler, its arguments and its reply.
    ///
    /// The oldest call of a session that is not acknowledged holds up the acknowledgement of all that
    /// came after it, and so their replies. Refused for want of room for replies it would be refused
    /// for ever. So of a session's room the others leave it one reservation, and where all sessions'
    /// room is full it runs all the same: its reply is kept if there is room when it ends.
    #[inline]
    fn room(&self, key: SessionKey, argument_bytes: usize, is_oldest: bool) -> Option<Refusal> {
        let limits = &self.limits;
        let session = self.sessions.get(key)?;
        let reserved = limits.reply_reservation_bytes;
        let in_flight = session.in_flight as usize;
        let busy = |what| Some(Refusal::new(Code::Busy, what).retry_after_ms(BUSY_RETRY_AFTER_MS));
        // Counted in 16 bits.
        let in_flight_max = limits.in_flight_per_session_max.clamp(session.window.into(), WIDEST);
        if u32::from(session.in_flight) >= in_flight_max {
            return busy("too many calls of this session are running");
        }
        if self.calls.len() >= limits.in_flight_max {
            return busy("too many calls are running on this server");
        }
        if self.in_flight_bytes + argument_bytes > limits.in_flight_bytes_max {
            return busy("the running calls' arguments take all the memory set aside for them");
        }
        let reservations = if is_oldest { 1 } else { 2 };
        let kept = session.kept_bytes as usize + (in_flight + reservations) * reserved;
        if kept > limits.kept_reply_bytes_per_session_max {
            return busy("too many reply bytes of this session are unacknowledged");
        }
        let kept = self.replies.bytes() + (self.calls.len() + 1) * reserved;
        if kept > limits.kept_reply_bytes_max && !is_oldest {
            return busy("too many reply bytes are unacknowledged on this server");
        }
        None
    }

    /// Row 13.
    #[inline]
    fn start(&mut self, key: SessionKey, request: &Request<'_>) -> CallKey {
        let header = &request.frame.header;
        let is_unprotected = header.flags.contains(Flags::UNPROTECTED);
        let argument_bytes = request.frame.body.len();
        let call = self.calls.insert(Call {
            session: key,
            seq: header.seq,
            connection: request.connection,
            argument_bytes: u32::try_from(argument_bytes).expect("bodies are bounded below 4 GiB"),
            is_unprotected,
            is_abandoned: false,
            is_cancelled: false,
        });
        let session = self.sessions.get_mut(key).expect("admit has found it");
        session.in_flight += 1;
        if !is_unprotected {
            let digest = request.digest;
            session.ring.set(session.floor, header.seq, Cell::Pending { digest, call });
        }
        self.in_flight_bytes += argument_bytes;
        self.counters.started += 1;
        call
    }
}

pub(super) fn unknown_session() -> Refusal {
    Refusal::new(Code::SessionUnknown, "no such session here: open one with HELLO")
}

pub(super) fn fenced() -> Refusal {
    Refusal::new(Code::Fenced, "a newer connection of this session is attached")
}

pub(super) fn not_retained() -> Refusal {
    Refusal::new(Code::NotRetained, "the call ran, but its reply was too large to keep")
}

pub(super) fn bad_numbers(seq: u64, ack: u64) -> Refusal {
    Refusal::new(
        Code::Protocol,
        format!("seq {seq} with ack {ack}: an ack is below the seq it comes with, both <= 2^63"),
    )
}

fn stale(seq: u64, floor: u64) -> Refusal {
    Refusal::new(Code::Stale, format!("seq {seq} was acknowledged: the floor is {floor}"))
}

fn xid_reused() -> Refusal {
    Refusal::new(Code::XidReused, "this seq came before with another method or other arguments")
}

fn beyond_window(seq: u64, floor: u64, window: u32) -> Refusal {
    let message = format!("seq {seq} is beyond the window: {window} after the floor, {floor}");
    Refusal { floor: Some(floor), ..Refusal::new(Code::Window, message) }
}

fn refusal_message(code: Code) -> &'static str {
    match code {
        Code::NoMethod => "this server has no such method: its list is `onceloop.methods`",
        Code::NotAuthorized => "the caller may not call this method",
        _ => "refused",
    }
}
