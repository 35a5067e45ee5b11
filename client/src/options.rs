//! What a caller picks for one call.

use std::time::{Duration, Instant};

use onceloop_protocol::limits::Limits;
use onceloop_protocol::method::Method;
use onceloop_protocol::session::{CallSpec, Semantics};

/// How long a call may take and how often it may be sent.
///
/// Without a choice: exactly once, within `Limits::call_timeout` (30 s).
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    semantics: Semantics,
    timeout: Timeout,
    /// 0: no bound.
    attempts: u32,
    hedge_after: Option<Duration>,
    tag: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum Timeout {
    After(Duration),
    #[default]
    Default,
    Never,
}

impl CallOptions {
    /// Returns the options of a call that chooses nothing.
    pub const fn new() -> CallOptions {
        CallOptions {
            semantics: Semantics::ExactlyOnce,
            timeout: Timeout::Default,
            attempts: 0,
            hedge_after: None,
            tag: 0,
        }
    }

    /// Ends the call after `timeout`: not executed if it never left, else indeterminate. The server
    /// is told how much time is left, and does not start what comes too late.
    #[must_use]
    pub const fn deadline(self, timeout: Duration) -> CallOptions {
        CallOptions { timeout: Timeout::After(timeout), ..self }
    }

    /// Lets the call take as long as it takes: until the session ends, if need be for ever.
    #[must_use]
    pub const fn no_deadline(self) -> CallOptions {
        CallOptions { timeout: Timeout::Never, ..self }
    }

    /// Sends the call once and never again. Its answer is still asked for after a reconnect.
    #[must_use]
    pub const fn at_most_once(self) -> CallOptions {
        CallOptions { semantics: Semantics::AtMostOnce, ..self }
    }

    /// Sends the call again after each timeout and on each connection until it is answered, outside the server's table of
    /// transaction ids: it may run more than once. Only for methods declared idempotent.
    #[must_use]
    pub const fn at_least_once(self) -> CallOptions {
        CallOptions { semantics: Semantics::AtLeastOnce, ..self }
    }

    /// Bounds how often the call is transmitted: the first time, hedges, and what follows a timeout, a
    /// refusal or a reconnect all count. Without this, only the deadline does; 0 is taken as 1.
    ///
    /// A call whose attempts are used up is still waited for on the connection that it was last sent
    /// on. It ends when that can bring no answer any more: not executed if every copy was refused, or
    /// the server is found not to have it; else indeterminate. At most once is one attempt anyway.
    #[must_use]
    pub const fn attempts(self, attempts: u32) -> CallOptions {
        CallOptions { attempts: if attempts == 0 { 1 } else { attempts }, ..self }
    }

    /// Sends the very same call over a second connection, if it is unanswered for so long: the first
    /// answer counts, and the call still runs once. For when a lost packet or a stalled path costs
    /// more than a copy.
    ///
    /// Only for exactly-once calls; others ignore it. One copy for each time the call is sent on the
    /// first connection, out of the retry budget, while that connection is up. The second connection
    /// closes when it has been idle for `Limits::spare_idle`. A server that attaches only one
    /// connection, or has no room for another, costs the hedge and nothing else.
    #[must_use]
    pub const fn hedge_after(self, delay: Duration) -> CallOptions {
        CallOptions { hedge_after: Some(delay), ..self }
    }

    /// Sets what the program knows the call by, if it is recovered from a journal
    /// ([`Builder::on_recovered`](crate::Builder::on_recovered)): an order's number, say.
    #[must_use]
    pub const fn tag(self, tag: u64) -> CallOptions {
        CallOptions { tag, ..self }
    }

    pub(crate) fn until(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        match self.timeout {
            Timeout::After(timeout) => now.checked_add(timeout),
            Timeout::Default => now.checked_add(limits.call_timeout),
            Timeout::Never => None,
        }
    }

    pub(crate) fn request<M: Method>(self, method: &M) -> Request {
        Request { options: self, method: method.id(), idempotent: method.is_idempotent() }
    }
}

/// All of a call but its arguments and its continuation: what does not depend on types.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    options: CallOptions,
    method: onceloop_protocol::frame::MethodId,
    idempotent: bool,
}

impl Request {
    pub(crate) fn spec(&self, limits: &Limits, now: Instant) -> CallSpec {
        CallSpec {
            semantics: self.options.semantics,
            idempotent: self.idempotent,
            deadline: self.options.until(limits, now),
            attempts: if self.options.attempts == 0 { u32::MAX } else { self.options.attempts },
            hedge_after: self.options.hedge_after,
            tag: self.options.tag,
            ..CallSpec::new(self.method)
        }
    }
}
