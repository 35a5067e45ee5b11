//! What handlers tell.

use onceloop::{Order, Xid};

use super::{Kind, Oracle, Outcome, Process, Semantics};
use crate::service::{Operation, Receipt};

/// An xid, as far as it is one: a volatile server that begins anew may give it out again.
pub(super) type XidKey = (Process, u64, u64);

/// The calls of one session on one server's process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lane {
    /// The seq that began last.
    last: u64,
    running: u32,
}

impl Oracle {
    /// A handler begins.
    pub(crate) fn begun(&mut self, server: Process, id: u32, xid: Option<Xid>) {
        self.note(server.host, format_args!("runs call {id} as {}", Name(xid)));
        let Some(call) = self.calls.get_mut(id as usize) else {
            return self.fail(Kind::WrongReply, format!("a call {id} that nobody made runs"));
        };
        call.runs += 1;
        let is_protected = call.is_protected() && call.draft.semantics != Semantics::Notify;
        let is_in_order = call.draft.order == Order::InOrder;
        if let Some(Outcome::NotExecuted(_)) = call.outcome {
            self.fail(
                Kind::WrongReply,
                format!("I9: not executed, and now it runs: {}", self.tell(id)),
            );
        }
        match xid {
            Some(xid) => self.begun_as(server, id, xid, is_in_order),
            None if is_protected => {
                self.fail(Kind::Broken, format!("runs without an xid: {}", self.tell(id)));
            }
            None => {}
        }
    }

    /// A handler has these arguments.
    pub(crate) fn received(&mut self, id: u32, operation: &Operation) {
        let Some(call) = self.calls.get(id as usize) else { return };
        if call.draft.operation != *operation {
            let what = format!("runs with other arguments, {operation:?}: {}", self.tell(id));
            self.fail(Kind::WrongReply, what);
        } else if !self.bodies(call).may_be_sent() {
            let what = format!("runs, and is larger than it may be: {}", self.tell(id));
            self.fail(Kind::WrongReply, what);
        }
    }

    fn begun_as(&mut self, server: Process, id: u32, xid: Xid, is_in_order: bool) {
        let other = self.xids.insert((server, xid.session, xid.seq), id);
        if let Some(other) = other {
            let what = format!("I1: {xid} runs again; it was call {other}: {}", self.tell(id));
            self.fail(Kind::DoubleExecution, what);
        }
        let lane = self.lanes.entry((server, xid.session)).or_default();
        let before = *lane;
        *lane = Lane { last: xid.seq, running: before.running + 1 };
        if is_in_order && (before.running > 0 || before.last >= xid.seq) {
            let what = format!("out of order, after {before:?}: {}", self.tell(id));
            self.fail(Kind::WrongReply, what);
        }
    }

    /// A handler's operation took effect, after it had so many times before.
    pub(crate) fn took_effect(&mut self, id: u32, receipt: Receipt, before: u64) {
        let Some(call) = self.calls.get_mut(id as usize) else { return };
        call.receipts.push(receipt);
        if before > 0 && call.runs_once() {
            self.fail(Kind::DoubleExecution, format!("I1: took effect again: {}", self.tell(id)));
        }
    }

    /// A handler ends: its answer is given.
    pub(crate) fn ended(&mut self, server: Process, id: u32, xid: Option<Xid>) {
        self.note(server.host, format_args!("call {id} is answered"));
        let now = self.world.now();
        if let Some(call) = self.calls.get_mut(id as usize) {
            call.ended_at = Some(now);
        }
        self.leave_lane(server, xid);
    }

    /// A handler wants the call to come again later: it has done nothing.
    pub(crate) fn put_off(&mut self, server: Process, id: u32, xid: Option<Xid>) {
        self.note(server.host, format_args!("call {id} is put off"));
        if let Some(call) = self.calls.get_mut(id as usize) {
            call.runs -= 1;
            call.refusals += 1;
        }
        self.leave_lane(server, xid);
        let Some(xid) = xid else { return };
        self.xids.remove(&(server, xid.session, xid.seq));
        if let Some(lane) = self.lanes.get_mut(&(server, xid.session)) {
            lane.last = lane.last.min(xid.seq - 1);
        }
    }

    /// Returns how often a call was put off.
    pub(crate) fn refusals(&self, id: u32) -> u32 {
        self.calls.get(id as usize).map_or(u32::MAX, |call| call.refusals)
    }

    fn leave_lane(&mut self, server: Process, xid: Option<Xid>) {
        if let Some(lane) = xid.and_then(|xid| self.lanes.get_mut(&(server, xid.session))) {
            lane.running -= 1;
        }
    }
}

struct Name(Option<Xid>);

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(xid) => write!(f, "{xid}"),
            None => f.write_str("nothing to remember"),
        }
    }
}
