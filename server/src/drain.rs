//! Shutting down without losing what was begun.

use std::time::{Duration, Instant};

use onceloop_endpoint::{Closed, close, finish};
use onceloop_protocol::frame::{Header, Kind};
use onceloop_reactor::{Cx, Id, Registry};

use crate::core::Core;
use crate::peer::connections;

/// How long clients have to leave by themselves after GOAWAY. What they had sent by then is on its
/// way, and is refused as not executed; closed under it, its caller could not know. A round trip of
/// a slow network, and some more for a busy client.
const FAREWELL: Duration = Duration::from_secs(1);

/// What runs when a server has shut down.
type Done<S> = Box<dyn FnOnce(Drained, &mut Cx<'_, S>)>;

/// How a shutdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Calls that had not ended by the deadline. Their handlers ran; their callers cannot know how
    /// that went.
    pub unfinished: usize,
}

/// A shutdown that goes on.
pub(crate) struct Drain<S: 'static> {
    done: Option<Done<S>>,
    unfinished: usize,
    /// Until when clients may leave by themselves.
    leave_by: Instant,
    /// Their time is over, and every call has been answered: the connections only write what is
    /// queued.
    is_finishing: bool,
}

impl<S: 'static> Drain<S> {
    /// Tells that it is over.
    pub(crate) fn end(self, registry: &mut Registry<S>, unfinished: usize) {
        if let Some(done) = self.done {
            registry.defer(move |cx| done(Drained { unfinished }, cx));
        }
    }
}

/// Takes no new connection and no new call, lets what runs end and clients leave, then closes.
pub(crate) fn start<S: 'static>(
    registry: &mut Registry<S>,
    id: Id<Core<S>>,
    within: Duration,
    done: impl FnOnce(Drained, &mut Cx<'_, S>) + 'static,
) {
    let leave_by = registry.now() + FAREWELL.min(within);
    let Some(core) = registry.get_mut(id) else {
        registry.defer(|cx| done(Drained { unfinished: 0 }, cx));
        return;
    };
    let done: Done<S> = Box::new(done);
    if let Some(drain) = &mut core.drain {
        // Asked again: both are told when it is over.
        let earlier = drain.done.take();
        drain.done = Some(Box::new(move |drained, cx| {
            if let Some(earlier) = earlier {
                earlier(drained, cx);
            }
            done(drained, cx);
        }));
    } else {
        core.table.drain();
        core.drain = Some(Drain { done: Some(done), unfinished: 0, leave_by, is_finishing: false });
    }
    let acceptors = std::mem::take(&mut core.acceptors);
    for acceptor in acceptors {
        registry.remove(acceptor);
    }
    for connection in connections(registry, id) {
        let Some(peer) = registry.get_mut(connection) else { continue };
        if peer.role().session().is_some() {
            Header::new(Kind::GoAway, 0).append(&[], peer.out());
            registry.touch(connection);
        } else {
            // Nothing was asked here, and nothing is owed.
            close(registry, connection, Closed::Local("the server shuts down"));
        }
    }
    registry.defer(move |cx| check(cx, id));
    registry.at(leave_by, move |cx| check(cx, id));
    registry.after(within, move |cx| give_up(cx, id));
}

/// Something ended: is that all?
pub(crate) fn check<S: 'static>(cx: &mut Cx<'_, S>, id: Id<Core<S>>) {
    let now = cx.registry.now();
    let Some(core) = cx.registry.get_mut(id) else { return };
    let Some(drain) = &mut core.drain else { return };
    if core.table.in_flight() > 0 || (core.table.is_waiting() && !core.has_failed) {
        return;
    }
    if core.counts.connections() == 0 {
        let unfinished = drain.unfinished;
        if let Some(drain) = cx.registry.remove(id).and_then(|core| core.drain) {
            drain.end(cx.registry, unfinished);
        }
        return;
    }
    if now < drain.leave_by || std::mem::replace(&mut drain.is_finishing, true) {
        return;
    }
    let connections = connections(cx.registry, id);
    // The last answer may still be on its way into its connection's output: not in this turn.
    cx.registry.defer(move |cx| {
        for connection in connections {
            finish(cx.registry, connection, Closed::Local("the server shuts down"));
        }
    });
}

/// The deadline passed.
fn give_up<S: 'static>(cx: &mut Cx<'_, S>, id: Id<Core<S>>) {
    let Some(core) = cx.registry.get_mut(id) else { return };
    let unfinished = core.table.in_flight();
    let Some(drain) = &mut core.drain else { return };
    if drain.done.is_none() {
        return;
    }
    drain.unfinished = unfinished;
    if unfinished > 0 {
        log::warn!("shutting down with {unfinished} calls unfinished");
    }
    core.table.abandon();
    for connection in connections(cx.registry, id) {
        close(cx.registry, connection, Closed::Local("the server shut down"));
    }
    cx.registry.defer(move |cx| check(cx, id));
}
