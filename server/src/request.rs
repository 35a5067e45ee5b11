//! The way of a request, from its frame to its reply in the output. This is the hot path.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::{self, Flags, Frame, HEADER_BYTES, Header, Kind, NO_DEADLINE_MS};
use onceloop_protocol::table::{
    Admission, Answer, CallKey, Delivery, HeldRequest, REPLY_COPY_BYTES_MAX, Refusal, Request,
    SessionKey, append_error,
};
use onceloop_reactor::{Cx, Id, Registry};

use crate::context::{CallInfo, Context};
use crate::core::Core;
use crate::handler::{Ended, Handler};
use crate::peer::{Peer, PeerConnection, fail};
use crate::{drain, durable};

/// Runs a REQUEST, or answers it with what is known of it. Returns whether it was refused outright: by
/// the table, before a handler was looked at.
#[inline]
pub(crate) fn run<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    peer: &Peer<S>,
    session: SessionKey,
    frame: &Frame<'_>,
    out: &mut Vec<u8>,
) -> bool {
    let now = cx.registry.now();
    let Some(core) = cx.registry.get_mut(peer.core) else { return false };
    let header = &frame.header;
    let handlers = Rc::clone(&core.handlers);
    let handler = handlers.find(header.method);
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
    match core.table.admit(session, &request, now) {
        Admission::Run(key) => {
            let handler = handler.expect("the table refuses what it is told to refuse");
            start(cx, id, peer.core, session, key, frame, handler, out);
        }
        Admission::Wait => durable::settle(cx.registry, peer.core),
        Admission::Again(answer) => out.extend_from_slice(answer),
        Admission::Refuse(refusal) => {
            refusal.append(header.seq, out);
            return true;
        }
        Admission::Close(refusal) => fail(cx, id, &refusal, out),
    }
    false
}

/// In-order session: runs at most `count_max` requests whose turn has come, as long as there is room
/// for their answers. Returns whether more could run at once.
pub(crate) fn run_held<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    peer: &Peer<S>,
    session: SessionKey,
    count_max: usize,
    out: &mut Vec<u8>,
) -> bool {
    for _ in 0..count_max {
        let Some(connection) = cx.registry.get(id) else { return false };
        if connection.is_finishing() || !connection.has_room_beside(out.len()) {
            return false;
        }
        let Some(held) = next_held(cx, peer.core, session) else { return false };
        if held.connection() == id.to_bits() {
            let begin = out.len();
            if run(cx, id, peer, session, &held.frame(), out) {
                refuse_copy(cx, &held, &out[begin..]);
            }
        } else {
            // What the other one answers here does not overtake what is answered already.
            if let Some(connection) = cx.registry.get_mut(id) {
                connection.out().append(out);
                cx.registry.touch(id);
            }
            run_by_other(cx, session, &held);
        }
    }
    true
}

/// In-order session: runs one request whose turn has come with a late answer, by the connection it
/// waits on; the others follow in that connection's own dispatch.
pub(crate) fn unblock<S: 'static>(cx: &mut Cx<'_, S>, core: Id<Core<S>>, session: SessionKey) {
    if let Some(held) = next_held(cx, core, session) {
        run_by_other(cx, session, &held);
    }
}

/// Runs a held request as if its own connection had its turn: what it is answered goes out there.
fn run_by_other<S: 'static>(cx: &mut Cx<'_, S>, session: SessionKey, held: &HeldRequest) {
    let id = Id::<PeerConnection<S>>::from_bits(held.connection());
    let Some(connection) = cx.registry.get(id) else { return };
    let peer = *connection.role();
    let mut out = cx.registry.take_buffer();
    if run(cx, id, &peer, session, &held.frame(), &mut out) {
        refuse_copy(cx, held, &out);
    }
    send(cx, id, out);
    cx.registry.wake(id);
}

/// A request that was held has been refused: the copy of it that came by the session's other
/// connection is refused, too.
fn refuse_copy<S: 'static>(cx: &mut Cx<'_, S>, held: &HeldRequest, refusal: &[u8]) {
    let Some(joined) = held.joined().map(Id::<PeerConnection<S>>::from_bits) else { return };
    let mut frame = cx.registry.take_buffer();
    frame.extend_from_slice(refusal);
    send(cx, joined, frame);
}

fn next_held<S: 'static>(
    cx: &mut Cx<'_, S>,
    core: Id<Core<S>>,
    session: SessionKey,
) -> Option<HeldRequest> {
    let now = cx.registry.now();
    let this = cx.registry.get_mut(core)?;
    let held = this.table.next_held(session, now);
    let deadline = this.table.next_deadline();
    cx.registry.set_deadline(core, deadline);
    held
}

/// Queues whole frames on a connection, if it is still there.
pub(crate) fn send<S: 'static>(cx: &mut Cx<'_, S>, id: Id<PeerConnection<S>>, out: Vec<u8>) {
    if let Some(connection) = cx.registry.get_mut(id)
        && !out.is_empty()
        && !connection.is_finishing()
    {
        connection.out().extend_from_slice(&out);
        cx.registry.touch(id);
    }
    cx.registry.give_buffer(out);
}

#[expect(clippy::too_many_arguments, reason = "the call and where it came from; used once")]
#[inline]
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
    let header = &frame.header;
    let is_protected = !header.flags.contains(Flags::UNPROTECTED);
    let deadline = deadline(cx.registry, header);
    let begin = Header::new(Kind::Reply, header.seq).begin(out);
    if handler.is_transactional {
        begin_transaction(cx, core, key);
    }
    // Made in place: copied while its fields are still on their way to memory, it would be waited for.
    let mut context = Context {
        state: cx.state,
        registry: cx.registry,
        call: CallInfo {
            core,
            connection: id,
            session: is_protected.then_some(session),
            key: Some(key),
            seq: header.seq,
            deadline,
        },
        retry_after: None,
    };
    let ended = handler.run(frame.body, &mut context, out);
    let call = context.call;
    if let Some(after) = context.retry_after {
        out.truncate(begin);
        return retry_later(cx, id, &call, after, out);
    }
    match ended {
        Ended::Replied => deliver(cx, id, &call, begin, out),
        Ended::Failed(error) => {
            out.truncate(begin);
            if handler.is_transactional
                && let Some(core) = cx.registry.get_mut(core)
            {
                // Row 17, and a method's own error: it has run, and its effects are undone.
                core.table.rollback();
            }
            append_error(&error, header.seq, out);
            deliver(cx, id, &call, begin, out);
        }
        Ended::Deferred => out.truncate(begin),
        Ended::BadArguments(error) => {
            out.truncate(begin);
            let message = format!("{}: {error}", handler.info.name);
            let refusal = Refusal::new(Code::BadArguments, message);
            let now = cx.registry.now();
            let Some(this) = cx.registry.get_mut(core) else { return };
            let delivery = this.table.withdraw(key, &refusal, now);
            refuse(cx, id, &call, delivery, &refusal, out);
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
    delivery: Delivery,
    refusal: &Refusal,
    out: &mut Vec<u8>,
) {
    let begin = out.len();
    refusal.append(call.seq, out);
    if delivery.connection != Some(id.to_bits()) || delivery.joined.is_some() {
        send_elsewhere(cx, id, delivery, begin, out);
    }
    durable::settle(cx.registry, call.core);
}

fn deadline<S>(registry: &Registry<S>, header: &Header) -> Option<std::time::Instant> {
    let time_left = Duration::from_millis(header.time_left_ms.into());
    (header.time_left_ms != NO_DEADLINE_MS).then(|| registry.now() + time_left)
}

/// Records the answer that stands in `out` from `begin` on, and leaves it there if it goes out by
/// the connection `id`; otherwise it is taken out and goes where it belongs.
#[inline]
pub(crate) fn deliver<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    call: &CallInfo<S>,
    begin: usize,
    out: &mut Vec<u8>,
) {
    let Some(key) = call.key else { return out.truncate(begin) };
    let now = cx.registry.now();
    let Some(core) = cx.registry.get_mut(call.core) else { return out.truncate(begin) };
    refuse_too_large(core, call.seq, begin, out);
    frame::finish(out, begin);
    if !core.on_cancel.is_empty() {
        core.on_cancel.remove(&key.to_bits());
    }
    let (is_draining, is_durable) = (core.drain.is_some(), core.table.is_durable());
    let here = Some(id.to_bits());
    let in_flight = core.table.in_flight();
    if out.len() - begin <= REPLY_COPY_BYTES_MAX {
        let delivery = core.table.complete(key, Answer::Copied(&out[begin..]), now);
        // Not one that is answered already, by a handler that panicked and dropped its responder.
        core.counts.answered += (in_flight - core.table.in_flight()) as u64;
        if delivery.connection != here || delivery.joined.is_some() {
            send_elsewhere(cx, id, delivery, begin, out);
        }
    } else {
        let frame = Bytes::copy_from_slice(&out[begin..]);
        out.truncate(begin);
        let delivery = core.table.complete(key, Answer::Shared(frame.clone()), now);
        core.counts.answered += (in_flight - core.table.in_flight()) as u64;
        if delivery.connections().any(|connection| Some(connection) == here)
            && let Some(connection) = cx.registry.get_mut(id)
        {
            // It does not overtake the small ones before it.
            connection.out().append(out);
        }
        send_shared(cx, delivery, &frame);
    }
    if is_durable {
        durable::settle(cx.registry, call.core);
    }
    if is_draining {
        drain::check(cx, call.core);
    }
}

/// A reply that no client would take becomes an error that says so: the handler has run.
fn refuse_too_large<S>(core: &Core<S>, seq: u64, begin: usize, out: &mut Vec<u8>) {
    let body_bytes_max = core.settings.limits.body_bytes_max;
    let bytes = out.len() - begin - HEADER_BYTES;
    if bytes > body_bytes_max {
        out.truncate(begin);
        let message = format!(
            "the call ran, but its reply of {bytes} bytes is larger than the {body_bytes_max} that \
             one frame carries: answer in pages"
        );
        append_error(&ErrorBody::new(Code::ApplicationError, message), seq, out);
    }
}

/// Sends the answer that stands in `out` from `begin` on by those of its connections that are not
/// `id`, and takes it out of `out` if `id` is none of them.
#[cold]
fn send_elsewhere<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    delivery: Delivery,
    begin: usize,
    out: &mut Vec<u8>,
) {
    let mut is_here = false;
    for connection in delivery.connections().map(Id::<PeerConnection<S>>::from_bits) {
        if connection == id {
            is_here = true;
        } else if let Some(peer) = open_connection(cx, connection) {
            peer.out().extend_from_slice(&out[begin..]);
            cx.registry.touch(connection);
        }
    }
    if !is_here {
        out.truncate(begin);
    }
}

/// Sends a whole frame by each of its connections.
pub(crate) fn send_everywhere<S: 'static>(cx: &mut Cx<'_, S>, delivery: Delivery, frame: &Bytes) {
    if frame.len() > REPLY_COPY_BYTES_MAX {
        return send_shared(cx, delivery, frame);
    }
    for connection in delivery.connections().map(Id::<PeerConnection<S>>::from_bits) {
        if let Some(peer) = open_connection(cx, connection) {
            peer.out().extend_from_slice(frame);
            cx.registry.touch(connection);
        }
    }
}

fn send_shared<S: 'static>(cx: &mut Cx<'_, S>, delivery: Delivery, frame: &Bytes) {
    for connection in delivery.connections().map(Id::<PeerConnection<S>>::from_bits) {
        if let Some(peer) = open_connection(cx, connection) {
            peer.push_shared(frame.clone());
            cx.registry.touch(connection);
        }
    }
}

/// Returns a connection that still takes what is sent.
fn open_connection<'a, S: 'static>(
    cx: &'a mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
) -> Option<&'a mut PeerConnection<S>> {
    cx.registry.get_mut(id).filter(|peer| !peer.is_finishing())
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
    let ended = handler.run(frame.body, &mut context, &mut reply);
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
