//! The way of a request, from its frame to its reply in the output. This is the hot path.

use std::rc::Rc;
use std::time::{Duration, Instant};

use onceloop_endpoint::Frames;
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{Flags, Frame, Header, Kind, NO_DEADLINE_MS};
use onceloop_protocol::table::{
    Admission, CallKey, Delivery, Refusal, Request, SessionKey, append_error,
};
use onceloop_reactor::{Cx, Id, Registry};

use crate::context::{CallInfo, Context};
use crate::core::Core;
use crate::delivery::Recorded;
use crate::handler::{Ended, Handler};
use crate::peer::{Peer, PeerConnection, fail};
use crate::{delivery, drain, durable};

/// Runs a REQUEST, or answers it with what is known of it; then, one by one, those that stand behind
/// it in `frames`, as long as there is nothing else to be done in between. Returns whether the first
/// was refused outright: by the table, before a handler was looked at.
///
/// The core is looked up once for a request: while it is at hand to record an answer, the next
/// request is admitted. The connection is looked at again only if it was changed meanwhile.
#[inline]
pub(crate) fn run<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    peer: &Peer<S>,
    session: SessionKey,
    first: &Frame<'_>,
    frames: &mut Frames<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let now = cx.registry.now();
    let Some(mut core) = cx.registry.get_mut(peer.core) else { return false };
    let handlers = Rc::clone(&core.handlers);
    let (mut method, mut handler) = (first.header.method, handlers.find(first.header.method));
    let mut frame = first;
    let mut next;
    loop {
        let header = &frame.header;
        if header.method != method {
            (method, handler) = (header.method, handlers.find(header.method));
        }
        match admit(core, id, session, frame, handler, now) {
            Admission::Run(key) => {
                let handler = handler.expect("the table refuses what it is told to refuse");
                let ran = call_handler(cx, id, peer.core, session, key, frame, handler, out);
                if !ran.has_replied() {
                    let call = call_info(cx.registry, id, peer.core, session, key, header);
                    conclude(cx, &call, handler, ran, out);
                    return false;
                }
                let begin = ran.begin;
                let is_alone = !frames.may_have_more() || !cx.registry.is_unchanged(id);
                let Some(again) = cx.registry.get_mut(peer.core) else {
                    out.truncate(begin);
                    return false;
                };
                core = again;
                let recorded = delivery::record(core, id, key, header.seq, begin, out, now);
                if is_alone || !matches!(recorded, Recorded::Here) {
                    delivery::forward(cx, id, peer.core, recorded, begin, out);
                    return false;
                }
            }
            Admission::Again(answer) => out.extend_from_slice(answer),
            Admission::Wait => {
                durable::settle(cx.registry, peer.core);
                return false;
            }
            Admission::Refuse(refusal) => {
                refusal.append(header.seq, out);
                return true;
            }
            Admission::Close(refusal) => {
                fail(cx, id, &refusal, out);
                return false;
            }
        }
        next = frames.next_request(out.len());
        let Some(request) = &next else { return false };
        frame = request;
    }
}

/// Asks the table what to do with a request.
#[inline]
fn admit<'c, S: 'static>(
    core: &'c mut Core<S>,
    id: Id<PeerConnection<S>>,
    session: SessionKey,
    frame: &Frame<'_>,
    handler: Option<&Handler<S>>,
    now: Instant,
) -> Admission<'c> {
    let header = &frame.header;
    // Unprotected, it has no cell to be told by.
    let is_protected = !header.flags.contains(Flags::UNPROTECTED);
    let request = Request {
        frame,
        connection: id.to_bits(),
        digest: if is_protected { core.table.digest(header.method, frame.body) } else { 0 },
        is_idempotent: handler.is_some_and(|handler| handler.is_idempotent),
        is_transactional: handler.is_some_and(|handler| handler.is_transactional),
        refusal: handler.is_none().then_some(Code::NoMethod),
    };
    core.table.admit(session, &request, now)
}

/// Runs the handler of a call that the table has let run elsewhere, and does what follows.
#[expect(clippy::too_many_arguments, reason = "the call and where it came from; used once")]
pub(crate) fn start<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    core: Id<Core<S>>,
    session: SessionKey,
    key: CallKey,
    frame: &Frame<'_>,
    handler: &Handler<S>,
    out: &mut Vec<u8>,
) {
    let ran = call_handler(cx, id, core, session, key, frame, handler, out);
    let call = call_info(cx.registry, id, core, session, key, &frame.header);
    conclude(cx, &call, handler, ran, out);
}

#[inline(always)]
fn call_info<S: 'static>(
    registry: &Registry<S>,
    id: Id<PeerConnection<S>>,
    core: Id<Core<S>>,
    session: SessionKey,
    key: CallKey,
    header: &Header,
) -> CallInfo<S> {
    let is_protected = !header.flags.contains(Flags::UNPROTECTED);
    CallInfo {
        core,
        connection: id,
        session: is_protected.then_some(session),
        key: Some(key),
        seq: header.seq,
        deadline: deadline(registry, header),
    }
}

/// A handler that has returned.
struct Ran {
    /// Where its answer begins in the output.
    begin: usize,
    ended: Ended,
    /// It asks to be called again after so long; then nothing else counts.
    retry_after: Option<Duration>,
}

impl Ran {
    #[inline]
    fn has_replied(&self) -> bool {
        matches!(self.ended, Ended::Replied) && self.retry_after.is_none()
    }
}

/// Runs a handler, with nothing borrowed.
#[expect(clippy::too_many_arguments, reason = "the call and where it came from")]
#[inline(always)]
fn call_handler<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    core: Id<Core<S>>,
    session: SessionKey,
    key: CallKey,
    frame: &Frame<'_>,
    handler: &Handler<S>,
    out: &mut Vec<u8>,
) -> Ran {
    let begin = Header::new(Kind::Reply, frame.header.seq).begin(out);
    if handler.is_transactional {
        begin_transaction(cx, core, key);
    }
    let call = call_info(cx.registry, id, core, session, key, &frame.header);
    // Made in place: copied while its fields are still on their way to memory, it would be waited for.
    let mut context = Context { state: cx.state, registry: cx.registry, call, retry_after: None };
    let ended = handler.run(frame.body, &mut context, begin, out);
    Ran { begin, ended, retry_after: context.retry_after }
}

/// Does what follows from how a handler has ended.
#[inline(never)]
fn conclude<S: 'static>(
    cx: &mut Cx<'_, S>,
    call: &CallInfo<S>,
    handler: &Handler<S>,
    ran: Ran,
    out: &mut Vec<u8>,
) {
    let (id, begin) = (call.connection, ran.begin);
    if let Some(after) = ran.retry_after {
        out.truncate(begin);
        return retry_later(cx, id, call, after, out);
    }
    match ran.ended {
        Ended::Replied => delivery::deliver(cx, id, call, begin, out),
        Ended::Failed(error) => {
            out.truncate(begin);
            if handler.is_transactional
                && let Some(core) = cx.registry.get_mut(call.core)
            {
                // Row 17, and a method's own error: it has run, and its effects are undone.
                core.table.rollback();
            }
            append_error(&error, call.seq, out);
            delivery::deliver(cx, id, call, begin, out);
        }
        Ended::Deferred => out.truncate(begin),
        Ended::BadArguments(error) => {
            out.truncate(begin);
            let message = format!("{}: {error}", handler.info.name);
            let refusal = Refusal::new(Code::BadArguments, message);
            let now = cx.registry.now();
            let (Some(key), Some(core)) = (call.key, cx.registry.get_mut(call.core)) else {
                return;
            };
            let to = core.table.withdraw(key, &refusal, now);
            refuse(cx, id, call, to, &refusal, out);
        }
    }
}

/// Durable: what the handler writes goes into one commit with its answer.
#[cold]
fn begin_transaction<S: 'static>(cx: &mut Cx<'_, S>, core: Id<Core<S>>, key: CallKey) {
    if let Some(core) = cx.registry.get_mut(core)
        && core.table.is_durable()
    {
        core.table.begin(key);
    }
}

/// Row 16: the handler asks to be called again later. What goes out by `id` is appended to `out`.
pub(crate) fn retry_later<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    call: &CallInfo<S>,
    after: Duration,
    out: &mut Vec<u8>,
) {
    let Some(key) = call.key else { return };
    let now = cx.registry.now();
    let after_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
    let refusal = Refusal::retry_later(after_ms);
    let Some(core) = cx.registry.get_mut(call.core) else { return };
    core.on_cancel.remove(&key.to_bits());
    core.counts.put_off += 1;
    let delivery = core.table.retry_later(key, &refusal, now);
    refuse(cx, id, call, delivery, &refusal, out);
    drain::check(cx, call.core);
}

/// A call was taken back: tells its caller so, if that may leave now.
fn refuse<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    call: &CallInfo<S>,
    to: Delivery,
    refusal: &Refusal,
    out: &mut Vec<u8>,
) {
    let begin = out.len();
    refusal.append(call.seq, out);
    if to.connection != Some(id.to_bits()) || to.joined.is_some() {
        delivery::send_elsewhere(cx, id, to, begin, out);
    }
    durable::settle(cx.registry, call.core);
}

fn deadline<S>(registry: &Registry<S>, header: &Header) -> Option<std::time::Instant> {
    let time_left = Duration::from_millis(header.time_left_ms.into());
    (header.time_left_ms != NO_DEADLINE_MS).then(|| registry.now() + time_left)
}

/// Runs a NOTIFY: once at most, and whatever becomes of it, nothing is answered.
pub(crate) fn notify<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    peer: &Peer<S>,
    frame: &Frame<'_>,
) {
    let header = &frame.header;
    let Some(core) = cx.registry.get_mut(peer.core) else { return };
    let handlers = Rc::clone(&core.handlers);
    let handler = handlers.find(header.method);
    // Row 12, as far as it speaks of what is not in the table.
    let is_refused = core.drain.is_some()
        || header.time_left_ms == 0
        || core.notifications_open >= core.settings.limits.in_flight_max;
    let (Some(handler), false) = (handler, is_refused) else {
        core.counts.notifications_dropped += 1;
        return;
    };
    core.counts.notifications += 1;
    let call = CallInfo {
        core: peer.core,
        connection: id,
        session: None,
        key: None,
        seq: header.seq,
        deadline: deadline(cx.registry, header),
    };
    let mut reply = cx.registry.take_buffer();
    let is_transactional = handler.is_transactional && core_is_durable(cx, peer.core);
    if is_transactional && let Some(core) = cx.registry.get_mut(peer.core) {
        core.table.begin_unanswered();
    }
    let mut context = Context { state: cx.state, registry: cx.registry, call, retry_after: None };
    let ended = handler.run(frame.body, &mut context, 0, &mut reply);
    let is_undone = context.retry_after.is_some() || !matches!(ended, Ended::Replied);
    let now = cx.registry.now();
    if is_transactional && let Some(core) = cx.registry.get_mut(peer.core) {
        match is_undone {
            true => core.table.abort(),
            false => core.table.commit_unanswered(now),
        }
        durable::settle(cx.registry, peer.core);
    }
    if let Ended::BadArguments(_) = ended {
        // What is wrong may quote them, and nobody is answered.
        log::debug!("a notification of {}: its arguments do not fit", handler.info.name);
    }
    cx.registry.give_buffer(reply);
}

fn core_is_durable<S: 'static>(cx: &Cx<'_, S>, core: Id<Core<S>>) -> bool {
    cx.registry.get(core).is_some_and(|core| core.table.is_durable())
}
