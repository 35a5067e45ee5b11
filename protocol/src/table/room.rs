//! Row 12: is there a reason not to run a call that nobody has run?
//!
//! Asked for every call, so that the answer is a number; the sentence is made of it where there is a
//! reason.

use super::admit::BUSY_RETRY_AFTER_MS;
use super::refusal::refused_by_server;
use super::session::Session;
use super::store::Store;
use super::{Refusal, Request, Table};
use crate::error::Code;
use crate::frame::Flags;

/// Handlers of one session that its count has room for.
const WIDEST: u32 = u16::MAX as u32;

/// A reason not to run a call. Those of a quota say whose it is, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Deadline,
    Draining,
    PrincipalArguments,
    PrincipalCalls,
    PrincipalReplies,
    Server(Code),
    ServerArguments,
    ServerCalls,
    ServerReplies,
    SessionCalls,
    SessionReplies,
    Store,
}

impl Obstacle {
    /// Returns what to tell the caller.
    #[cold]
    pub(super) fn refusal(self) -> Refusal {
        let busy = |what| Refusal::new(Code::Busy, what).retry_after_ms(BUSY_RETRY_AFTER_MS);
        match self {
            Obstacle::Deadline => {
                Refusal::new(Code::Deadline, "the deadline passed before the call started")
            }
            Obstacle::Draining => Refusal::new(Code::Draining, "the server is shutting down"),
            Obstacle::Server(code) => refused_by_server(code),
            Obstacle::PrincipalArguments => {
                busy("the running calls of this principal take all the memory it may have")
            }
            Obstacle::PrincipalCalls => busy("too many calls of this principal are running"),
            Obstacle::PrincipalReplies => {
                busy("too many reply bytes of this principal are unacknowledged")
            }
            Obstacle::ServerArguments => {
                busy("the running calls' arguments take all the memory set aside for them")
            }
            Obstacle::ServerCalls => busy("too many calls are running on this server"),
            Obstacle::ServerReplies => {
                busy("too many reply bytes are unacknowledged on this server")
            }
            Obstacle::SessionCalls => busy("too many calls of this session are running"),
            Obstacle::SessionReplies => {
                busy("too many reply bytes of this session are unacknowledged")
            }
            Obstacle::Store => busy("too many reply bytes wait until what they tell is safe"),
        }
    }
}

impl<St: Store> Table<St> {
    /// Returns the first reason not to run a call that nobody has run.
    #[inline(always)]
    pub(super) fn obstacle(&self, session: &Session, request: &Request<'_>) -> Option<Obstacle> {
        let header = &request.frame.header;
        if let Some(code) = request.refusal {
            return Some(Obstacle::Server(code));
        }
        if self.is_draining {
            return Some(Obstacle::Draining);
        }
        if header.time_left_ms == 0 {
            return Some(Obstacle::Deadline);
        }
        let is_oldest =
            header.seq == session.floor + 1 && !header.flags.contains(Flags::UNPROTECTED);
        self.over_quota(session, request.frame.body.len(), is_oldest)
    }

    /// Row 12, "over quota": room for one more handler, its arguments and its reply.
    ///
    /// The oldest call of a session that is not acknowledged holds up the acknowledgement of all that
    /// came after it, and so their replies. Refused for want of room for replies it would be refused
    /// for ever. So of a session's room the others leave it one reservation, and where all sessions'
    /// room is full it runs all the same: its reply is kept if there is room when it ends.
    #[inline(always)]
    fn over_quota(
        &self,
        session: &Session,
        argument_bytes: usize,
        is_oldest: bool,
    ) -> Option<Obstacle> {
        let limits = &self.limits;
        let reserved = limits.reply_reservation_bytes;
        let in_flight = session.in_flight as usize;
        // Counted in 16 bits.
        let in_flight_max = limits.in_flight_per_session_max.clamp(session.window().into(), WIDEST);
        if u32::from(session.in_flight) >= in_flight_max {
            return Some(Obstacle::SessionCalls);
        }
        if self.calls.len() >= limits.in_flight_max {
            return Some(Obstacle::ServerCalls);
        }
        if self.in_flight_bytes + argument_bytes > limits.in_flight_bytes_max {
            return Some(Obstacle::ServerArguments);
        }
        let reservations = if is_oldest { 1 } else { 2 };
        let kept = session.kept_bytes as usize + (in_flight + reservations) * reserved;
        if kept > limits.kept_reply_bytes_per_session_max {
            return Some(Obstacle::SessionReplies);
        }
        let kept = self.replies.bytes() + (self.calls.len() + 1) * reserved;
        if kept > limits.kept_reply_bytes_max && !is_oldest {
            return Some(Obstacle::ServerReplies);
        }
        // Nobody has a cell that bounds these. What waits for a slow store leaves when it goes on.
        if self.durability.queue_bytes > limits.kept_reply_bytes_max {
            return Some(Obstacle::Store);
        }
        if self.accounts.is_counted(session.account) {
            return self.over_share(session.account, argument_bytes, is_oldest);
        }
        None
    }

    /// Row 12, "over quota", for one principal.
    #[inline(never)]
    fn over_share(&self, account: u32, argument_bytes: usize, is_oldest: bool) -> Option<Obstacle> {
        let (account, share) = (self.accounts.get(account), self.accounts.share(account));
        let reserved = (account.in_flight + 1) * self.limits.reply_reservation_bytes;
        if account.in_flight >= share.in_flight {
            Some(Obstacle::PrincipalCalls)
        } else if account.argument_bytes + argument_bytes > share.argument_bytes {
            Some(Obstacle::PrincipalArguments)
        } else if account.kept_bytes + reserved > share.kept_bytes && !is_oldest {
            Some(Obstacle::PrincipalReplies)
        } else {
            None
        }
    }
}
