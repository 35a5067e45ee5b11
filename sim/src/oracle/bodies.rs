//! Bodies that are longer than one end takes.

use onceloop::Code;

use super::{Call, Oracle, Outcome};
use crate::Work;

/// What stands in a body around a parcel, at most.
const AROUND_BYTES_MAX: usize = 256;
/// Bodies beyond this do not come in one read beside others.
const LONG_BYTES_MIN: usize = 64 * 1_024;

/// The parcels of a call, and the largest bodies that its two ends take: the least and the most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bodies {
    sent: usize,
    asked: usize,
    client: (usize, usize),
    server: (usize, usize),
}

impl Bodies {
    /// Returns whether a call with these arguments may run.
    pub(super) fn may_be_sent(self) -> bool {
        self.sent <= self.client.1.min(self.server.1)
    }

    /// Returns whether it may be refused for them.
    pub(super) fn may_be_refused(self) -> bool {
        self.sent + AROUND_BYTES_MAX > self.client.0.min(self.server.0)
    }

    /// Returns whether its reply may come.
    pub(super) fn may_be_answered(self) -> bool {
        self.asked <= self.client.1.min(self.server.1)
    }

    /// Returns whether its reply may be too large: the server says that it has run, or the client
    /// looks at no more of the reply than its header.
    pub(super) fn explain_executed(self, code: Code) -> bool {
        match code {
            Code::ApplicationError => self.asked + AROUND_BYTES_MAX > self.server.0,
            Code::TooLarge => self.asked + AROUND_BYTES_MAX > self.client.0,
            _ => false,
        }
    }
}

impl Oracle {
    pub(super) fn bodies(&self, call: &Call) -> Bodies {
        let (sent, asked) = call.draft.operation.parcel_bytes();
        Bodies {
            sent: sent as usize,
            asked: asked as usize,
            client: self.body_bytes_max[call.client.host],
            server: self.body_bytes_max[call.server],
        }
    }

    pub(super) fn count_bodies(&self, call: &Call, work: &mut Work) {
        let Bodies { sent, asked, .. } = self.bodies(call);
        let is_long = sent.max(asked) > LONG_BYTES_MIN;
        match &call.outcome {
            Some(Outcome::Receipt(_)) => work.long += u64::from(is_long),
            Some(Outcome::NotExecuted(Some(Code::TooLarge))) => work.too_large += 1,
            Some(Outcome::Executed(Some(code))) => {
                work.too_large += u64::from(self.bodies(call).explain_executed(*code));
            }
            _ => {}
        }
    }
}
