//! Answers that are not a result, and what they say.

use std::borrow::Cow;

use crate::error::{Code, ErrorBody};
use crate::frame::{self, Header, Kind};

/// Milliseconds after which a call in doubt may be sent again that met a server which shuts down.
const DRAINING_RETRY_AFTER_MS: u32 = 100;

/// An answer that is not a result: which code, and a sentence for the person who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What was wrong and what to do.
    pub message: Cow<'static, str>,
    /// With WINDOW: the highest acknowledgement seen.
    pub floor: Option<u64>,
    /// After how many milliseconds another try may fare better.
    pub retry_after_ms: Option<u32>,
}

impl Refusal {
    /// Returns a refusal with a code and a message.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Refusal { code, message: message.into(), floor: None, retry_after_ms: None }
    }

    /// Returns the answer of row 16: the handler asks to be called again later.
    pub fn retry_later(retry_after_ms: u32) -> Self {
        let message = "the handler asks to be called again later";
        Refusal::new(Code::Busy, message).retry_after_ms(retry_after_ms)
    }

    /// Adds the time after which another try may fare better.
    #[must_use]
    pub fn retry_after_ms(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// Appends the ERROR frame for `seq` to `out`; seq 0 speaks of the connection.
    pub fn append(&self, seq: u64, out: &mut Vec<u8>) {
        let mut body = ErrorBody::new(self.code, &*self.message);
        body.floor = self.floor;
        body.retry_after_ms = self.retry_after_ms;
        append_error(&body, seq, out);
    }
}

/// Appends an ERROR frame for `seq` to `out`.
pub fn append_error(body: &ErrorBody<'_>, seq: u64, out: &mut Vec<u8>) {
    let start = Header::new(Kind::Error, seq).begin(out);
    rmp_serde::encode::write_named(out, body).expect("strings and numbers encode into a Vec");
    frame::finish(out, start);
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

pub(super) fn in_doubt() -> Refusal {
    Refusal::new(Code::InDoubt, "the server crashed while the call ran: it may have had its effect")
}

/// Of a call in doubt no refusal says that it was not executed.
#[cold]
pub(super) fn still_in_doubt(refusal: &Refusal) -> Refusal {
    // A server that shuts down names no time: another one will be there.
    let draining = (refusal.code == Code::Draining).then_some(DRAINING_RETRY_AFTER_MS);
    Refusal { retry_after_ms: refusal.retry_after_ms.or(draining), ..in_doubt() }
}

pub(super) fn poisoned() -> Refusal {
    Refusal::new(Code::Poisoned, "the call crashed the server too often: it is not run again")
}

pub(super) fn bad_numbers(seq: u64, ack: u64) -> Refusal {
    Refusal::new(
        Code::Protocol,
        format!("seq {seq} with ack {ack}: an ack is below the seq it comes with, both <= 2^63"),
    )
}

pub(super) fn stale(seq: u64, floor: u64) -> Refusal {
    Refusal::new(Code::Stale, format!("seq {seq} was acknowledged: the floor is {floor}"))
}

pub(super) fn xid_reused() -> Refusal {
    Refusal::new(Code::XidReused, "this seq came before with another method or other arguments")
}

pub(super) fn not_protected() -> Refusal {
    let message = "the method is not declared idempotent: call it at most once or exactly once";
    Refusal::new(Code::NotProtected, message)
}

pub(super) fn in_progress(retry_after_ms: u32) -> Refusal {
    let message = "a copy of this call is running: its reply will come";
    Refusal::new(Code::InProgress, message).retry_after_ms(retry_after_ms)
}

pub(super) fn beyond_window(seq: u64, floor: u64, window: u64) -> Refusal {
    let message = format!("seq {seq} is beyond the window: {window} after the floor, {floor}");
    Refusal { floor: Some(floor), ..Refusal::new(Code::Window, message) }
}

/// Why a server refuses a call of itself.
pub(super) fn refused_by_server(code: Code) -> Refusal {
    let message = match code {
        Code::NoMethod => "this server has no such method: its list is `onceloop.methods`",
        Code::NotAuthorized => "the caller may not call this method",
        _ => "refused",
    };
    Refusal::new(code, message)
}
