//! A server whose table outlives it: what happens when something is safe, and when nothing will be.

use bytes::Bytes;
use onceloop_endpoint::{Closed, close};
use onceloop_protocol::table::store::{Store, StoreFailed};
use onceloop_protocol::table::{Delivery, HeldRequest, Released, SessionKey};
use onceloop_reactor::{Cx, Id, Registry};
use std::rc::Rc;

use crate::core::Core;
use crate::peer::{self, PeerConnection};
use crate::{delivery, drain, held, request};

/// Where a server's table is kept: `None` keeps nothing.
pub(crate) type AnyStore = Option<Box<dyn Store>>;

/// What runs when the store failed.
pub(crate) type OnFatal<S> = Box<dyn FnOnce(StoreFailed, &mut Cx<'_, S>)>;

/// Something was asked of a durable table: looks, once a turn, at what is safe.
#[inline]
pub(crate) fn settle<S: 'static>(registry: &mut Registry<S>, id: Id<Core<S>>) {
    if registry.get(id).is_some_and(|core| core.table.is_durable() && !core.is_settling) {
        settle_later(registry, id);
    }
}

#[cold]
fn settle_later<S: 'static>(registry: &mut Registry<S>, id: Id<Core<S>>) {
    if let Some(core) = registry.get_mut(id) {
        core.is_settling = true;
        registry.defer(move |cx| release(cx, id));
    }
}

/// Does what may be done now that something is safe.
pub(crate) fn release<S: 'static>(cx: &mut Cx<'_, S>, id: Id<Core<S>>) {
    let now = cx.registry.now();
    loop {
        let Some(core) = cx.registry.get_mut(id) else { return };
        core.is_settling = false;
        if core.has_failed {
            return;
        }
        match core.table.poll_released(now) {
            Ok(Some(released)) => act(cx, id, released),
            Ok(None) => break,
            Err(failure) => return fatal(cx, id, failure),
        }
    }
    let next = cx.registry.get(id).and_then(|core| core.table.next_deadline());
    cx.registry.set_deadline(id, next);
    drain::check(cx, id);
}

fn act<S: 'static>(cx: &mut Cx<'_, S>, id: Id<Core<S>>, released: Released) {
    match released {
        Released::Close { connection, refusal } => {
            peer::refuse_late(cx, Id::from_bits(connection), &refusal);
        }
        Released::Resumed { connection, session, resumed } => {
            peer::resumed_late(cx, Id::from_bits(connection), session, &resumed);
        }
        Released::Run { call, session, request } => run(cx, id, call, session, &request),
        Released::Send { delivery, frame } => send(cx, id, delivery, frame),
        Released::Welcome { connection, session, welcome } => {
            peer::welcome_late(cx, Id::from_bits(connection), session, &welcome);
        }
    }
}

/// Row 13: that a handler is about to start is safe.
fn run<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<Core<S>>,
    call: onceloop_protocol::table::CallKey,
    session: SessionKey,
    held: &HeldRequest,
) {
    let Some(core) = cx.registry.get(id) else { return };
    let handlers = Rc::clone(&core.handlers);
    let frame = held.frame();
    let handler = handlers.find(frame.header.method);
    let handler = handler.expect("the table refuses what it is told to refuse");
    let connection = Id::<PeerConnection<S>>::from_bits(held.connection());
    let mut out = cx.registry.take_buffer();
    request::start(cx, connection, id, session, call, &frame, handler, &mut out);
    delivery::send(cx, connection, out);
    unblock(cx, id, Some(session));
}

fn send<S: 'static>(cx: &mut Cx<'_, S>, id: Id<Core<S>>, to: Delivery, frame: Bytes) {
    delivery::send_everywhere(cx, to, &frame);
    unblock(cx, id, to.unblocks);
}

/// In-order session: something ended, so another call may have its turn.
fn unblock<S: 'static>(cx: &mut Cx<'_, S>, id: Id<Core<S>>, session: Option<SessionKey>) {
    if let Some(session) = session
        && cx.registry.get(id).is_some_and(|core| core.table.is_in_order(session))
    {
        held::unblock(cx, id, session);
    }
}

/// Row 24: the store failed. Nothing that waits will leave; all connections close, and the program is
/// told. What its clients do not know they ask the server that is started next.
#[cold]
fn fatal<S: 'static>(cx: &mut Cx<'_, S>, id: Id<Core<S>>, failure: StoreFailed) {
    log::error!("{failure}: no reply leaves any more");
    let Some(core) = cx.registry.get_mut(id) else { return };
    core.has_failed = true;
    let acceptors = std::mem::take(&mut core.acceptors);
    let on_fatal = core.on_fatal.take();
    cx.registry.set_deadline(id, None);
    for acceptor in acceptors {
        cx.registry.remove(acceptor);
    }
    for connection in peer::connections(cx.registry, id) {
        close(cx.registry, connection, Closed::Local("the server's store failed"));
    }
    if let Some(on_fatal) = on_fatal {
        on_fatal(failure, cx);
    }
}
