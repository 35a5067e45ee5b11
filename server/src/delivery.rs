//! Where answers go: into the table first, then out by the connections that wait for them.

use std::time::Instant;

use bytes::Bytes;
use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::{self, HEADER_BYTES};
use onceloop_protocol::table::{Answer, CallKey, Delivery, REPLY_COPY_BYTES_MAX, append_error};
use onceloop_reactor::{Cx, Id, SPARE_BUFFER_BYTES_MAX};

use crate::context::CallInfo;
use crate::core::Core;
use crate::peer::PeerConnection;
use crate::{drain, durable};

/// What is left to do for an answer that the table has recorded.
pub(crate) enum Recorded {
    /// It stands in the output of the one connection that it goes out by: nothing.
    Here,
    /// All that [`forward`] does. A large one is no longer in the output, but here.
    Elsewhere(Delivery, Option<Bytes>),
}

/// Records the answer that stands in `out` from `begin` on, and leaves it there if it goes out by
/// the connection `id`; otherwise it is taken out and goes where it belongs.
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
    let recorded = record(core, id, key, call.seq, begin, out, now);
    forward(cx, id, call.core, recorded, begin, out);
}

/// The part of [`deliver`] that needs nothing but the core.
#[inline(always)]
pub(crate) fn record<S: 'static>(
    core: &mut Core<S>,
    id: Id<PeerConnection<S>>,
    key: CallKey,
    seq: u64,
    begin: usize,
    out: &mut Vec<u8>,
    now: Instant,
) -> Recorded {
    if out.len() - begin - HEADER_BYTES > core.settings.limits.body_bytes_max {
        refuse_too_large(core, seq, begin, out);
    }
    frame::finish(out, begin);
    if !core.on_cancel.is_empty() {
        core.on_cancel.remove(&key.to_bits());
    }
    let in_flight = core.table.in_flight();
    let (answer, shared) = if out.len() - begin <= REPLY_COPY_BYTES_MAX {
        (Answer::Copied(&out[begin..]), None)
    } else {
        let frame = take_large(out, begin);
        (Answer::Shared(frame.clone()), Some(frame))
    };
    let delivery = core.table.complete(key, answer, now);
    // Not one that is answered already, by a handler that panicked and dropped its responder.
    core.counts.answered += (in_flight - core.table.in_flight()) as u64;
    let is_here = delivery.connection == Some(id.to_bits()) && delivery.joined.is_none();
    if is_here && shared.is_none() && core.drain.is_none() && !core.table.is_durable() {
        return Recorded::Here;
    }
    Recorded::Elsewhere(delivery, shared)
}

/// Takes what stands in `out` from `begin` on: with its memory if that is all there is and long, so
/// that it is written once and copied never.
#[inline(never)]
fn take_large(out: &mut Vec<u8>, begin: usize) -> Bytes {
    // A shorter one leaves the next answers their buffer; that of a longer one was made for it.
    if begin > 0 || out.len() <= SPARE_BUFFER_BYTES_MAX {
        let frame = Bytes::copy_from_slice(&out[begin..]);
        out.truncate(begin);
        return frame;
    }
    let mut frame = std::mem::take(out);
    if frame.capacity() - frame.len() > frame.len() / 8 {
        // It is kept until it is acknowledged, and counted as long as it is.
        frame.shrink_to_fit();
    }
    Bytes::from(frame)
}

/// The part of [`deliver`] for which the core must not be borrowed.
#[inline]
pub(crate) fn forward<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    core: Id<Core<S>>,
    recorded: Recorded,
    begin: usize,
    out: &mut Vec<u8>,
) {
    if let Recorded::Elsewhere(delivery, shared) = recorded {
        forward_elsewhere(cx, id, core, delivery, shared, begin, out);
    }
}

#[inline(never)]
fn forward_elsewhere<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    core: Id<Core<S>>,
    delivery: Delivery,
    shared: Option<Bytes>,
    begin: usize,
    out: &mut Vec<u8>,
) {
    if let Some(frame) = shared {
        if delivery.connections().any(|connection| connection == id.to_bits())
            && let Some(connection) = cx.registry.get_mut(id)
        {
            // It does not overtake the small ones before it.
            connection.out().append(out);
        }
        send_shared(cx, delivery, &frame);
    } else if delivery.connection != Some(id.to_bits()) || delivery.joined.is_some() {
        send_elsewhere(cx, id, delivery, begin, out);
    }
    durable::settle(cx.registry, core);
    drain::check(cx, core);
}

/// A reply that no client would take becomes an error that says so: the handler has run.
#[cold]
fn refuse_too_large<S>(core: &Core<S>, seq: u64, begin: usize, out: &mut Vec<u8>) {
    let body_bytes_max = core.settings.limits.body_bytes_max;
    let bytes = out.len() - begin - HEADER_BYTES;
    out.truncate(begin);
    let message = format!(
        "the call ran, but its reply of {bytes} bytes is larger than the {body_bytes_max} that \
         one frame carries: answer in pages"
    );
    append_error(&ErrorBody::new(Code::ApplicationError, message), seq, out);
}

/// Sends the answer that stands in `out` from `begin` on by those of its connections that are not
/// `id`, and takes it out of `out` if `id` is none of them.
#[cold]
pub(crate) fn send_elsewhere<S: 'static>(
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
