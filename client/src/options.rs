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
        CallOptions { semantics: Semantics::ExactlyOnce, timeout: Timeout::Default }
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

    /// Sends the call on each connection until it is answered, outside the server's table of
    /// transaction ids: it may run more than once. Only for methods declared idempotent.
    #[must_use]
    pub const fn at_least_once(self) -> CallOptions {
        CallOptions { semantics: Semantics::AtLeastOnce, ..self }
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
            method: self.method,
            semantics: self.options.semantics,
            idempotent: self.idempotent,
            deadline: self.options.until(limits, now),
        }
    }
}
