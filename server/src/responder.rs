//! An answer that is given later than its handler returns.

use std::time::Duration;

use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::{Header, Kind};
use onceloop_protocol::method::Method;
use onceloop_protocol::table::append_error;
use onceloop_reactor::{Cx, Registry, Remote};

use crate::context::CallInfo;
use crate::handler::{Ended, encode_result};
use crate::{delivery, held, request};

/// The right, and the duty, to answer one call. It may be kept as long as it takes: in the state, in
/// a timer, in the continuation of a call to another server.
///
/// Dropped without an answer, it answers with an error: its call did run. The call counts as in
/// flight until then, also if its caller has cancelled it.
pub struct Responder<S: 'static, M: Method> {
    call: CallInfo<S>,
    /// How a responder that is dropped reaches the loop.
    remote: Option<Remote<S>>,
    of: std::marker::PhantomData<fn() -> M>,
}

impl<S: 'static, M: Method> Responder<S, M> {
    pub(crate) fn new(call: CallInfo<S>, registry: &mut Registry<S>) -> Self {
        if call.key.is_none()
            && let Some(core) = registry.get_mut(call.core)
        {
            core.notifications_open += 1;
        }
        Responder { call, remote: Some(registry.remote()), of: std::marker::PhantomData }
    }

    /// Returns what is known of the call.
    pub fn call(&self) -> &CallInfo<S> {
        &self.call
    }

    /// Answers the call.
    ///
    /// The answer goes out at the end of this turn; if the caller is away, when it comes back.
    pub fn respond(mut self, cx: &mut Cx<'_, S>, result: Result<M::Reply<'_>, M::Error>) {
        let mut out = cx.registry.take_buffer();
        Header::new(Kind::Reply, self.call.seq).begin(&mut out);
        if let Ended::Failed(error) = encode_result::<M>(result, &mut out) {
            out.clear();
            append_error(&error, self.call.seq, &mut out);
        }
        // Only now: a type's own code that panics while it is encoded leaves the call to `drop`.
        self.remote = None;
        answer(cx, &self.call, out);
    }

    /// Asks the caller to call again after this time: the handler has done nothing, and the call
    /// counts as not executed. Of what was done all the same nothing is undone.
    pub fn retry_later(mut self, cx: &mut Cx<'_, S>, after: Duration) {
        self.remote = None;
        if self.call.key.is_none() {
            return answer(cx, &self.call, Vec::new());
        }
        let mut out = cx.registry.take_buffer();
        request::retry_later(cx, self.call.connection, &self.call, after, &mut out);
        delivery::send(cx, self.call.connection, out);
        unblock_later(cx, &self.call);
    }

    /// Runs `on_cancel` once if the caller cancels the call before it is answered. It may stop work
    /// whose result nobody wants; the call is still to be answered.
    pub fn on_cancel(
        &self,
        registry: &mut Registry<S>,
        on_cancel: impl FnOnce(&mut Cx<'_, S>) + 'static,
    ) {
        let Some(key) = self.call.key else { return };
        if let Some(core) = registry.get_mut(self.call.core)
            && core.table.is_awaited(key)
        {
            core.on_cancel.insert(key.to_bits(), Box::new(on_cancel));
        }
    }
}

impl<S: 'static, M: Method> Drop for Responder<S, M> {
    fn drop(&mut self) {
        let Some(remote) = self.remote.take() else { return };
        let call = self.call;
        // If the loop is gone, so is everybody who could be answered.
        let _ = remote.post(move |cx| {
            let message = "the handler gave up the call without an answer";
            let mut out = cx.registry.take_buffer();
            append_error(&ErrorBody::new(Code::ApplicationError, message), call.seq, &mut out);
            answer(cx, &call, out);
        });
    }
}

/// Delivers the frame in `out`, and runs what waited for its call.
fn answer<S: 'static>(cx: &mut Cx<'_, S>, call: &CallInfo<S>, mut out: Vec<u8>) {
    if call.key.is_none() {
        if let Some(core) = cx.registry.get_mut(call.core) {
            core.notifications_open -= 1;
        }
        return cx.registry.give_buffer(out);
    }
    delivery::deliver(cx, call.connection, call, 0, &mut out);
    delivery::send(cx, call.connection, out);
    unblock_later(cx, call);
}

/// In-order session: a call ended, so another one may have its turn.
fn unblock_later<S: 'static>(cx: &mut Cx<'_, S>, call: &CallInfo<S>) {
    if let Some(session) = call.session
        && cx.registry.get(call.core).is_some_and(|core| core.table.is_in_order(session))
    {
        let core = call.core;
        // Not here: a handler must not run inside another's call of `respond`.
        cx.registry.defer(move |cx| held::unblock(cx, core, session));
    }
}
