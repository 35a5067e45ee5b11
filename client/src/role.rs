//! The client's part in a connection: frames go to the session, and what they end runs.

use std::time::Instant;

use onceloop_endpoint::{Closed, Connection, Frames, Role};
use onceloop_protocol::cutter::FramingError;
use onceloop_protocol::error::{Code, Fault};
use onceloop_protocol::frame::{Frame, Header, Kind};
use onceloop_protocol::session::Answer;
use onceloop_protocol::table::Refusal;
use onceloop_reactor::{Cx, Id};

use crate::core::{Continuation, Core, Link};

/// Which of a client's connections one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Its own.
    First,
    /// The second, for hedges.
    Second,
}

/// What a connection knows of its client.
pub(crate) struct ClientRole<S: 'static> {
    core: Id<Core<S>>,
    lane: Lane,
    is_established: bool,
    /// When bytes last came, once the connection is about to go.
    received_at: Option<Instant>,
}

impl<S> Clone for ClientRole<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for ClientRole<S> {}

impl<S: 'static> ClientRole<S> {
    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    pub(crate) fn core(&self) -> Id<Core<S>> {
        self.core
    }

    pub(crate) fn new(core: Id<Core<S>>, lane: Lane) -> Self {
        ClientRole { core, lane, is_established: false, received_at: None }
    }
}

/// Finds the client of a connection, if it is the connection the client has.
fn find<'r, S: 'static>(
    cx: &'r mut Cx<'_, S>,
    id: Id<Connection<ClientRole<S>>>,
) -> Option<(Id<Core<S>>, &'r mut Core<S>)> {
    let core_id = cx.registry.get(id)?.role().core;
    Some((core_id, serving(cx, core_id, id)?))
}

/// Returns the client, if `id` is the connection it has.
fn serving<'r, S: 'static>(
    cx: &'r mut Cx<'_, S>,
    core_id: Id<Core<S>>,
    id: Id<Connection<ClientRole<S>>>,
) -> Option<&'r mut Core<S>> {
    let core = cx.registry.get_mut(core_id)?;
    matches!(core.link, Link::Open(open) if open == id).then_some(core)
}

/// What a frame led to.
type Taken<'a, S> = Result<Option<(Continuation<S>, Answer<'a>)>, Fault>;

/// Goes on after a frame: runs what it ended. What an answer makes room for is sent when the batch
/// is over, since the continuations after it may have more to send.
#[inline]
fn go_on<S: 'static>(
    cx: &mut Cx<'_, S>,
    core_id: Id<Core<S>>,
    is_journaled: bool,
    taken: Taken<'_, S>,
) {
    match taken {
        Ok(None) => attend(cx, core_id),
        Ok(Some((continuation, answer))) => {
            continuation(answer, cx);
            if is_journaled {
                Core::consumed(cx.registry, core_id);
            }
        }
        Err(fault) => break_off(cx, core_id, &fault),
    }
}

/// Leaves a connection that cannot go on.
#[cold]
fn break_off<S: 'static>(cx: &mut Cx<'_, S>, core_id: Id<Core<S>>, fault: &Fault) {
    if matches!(fault.code, Some(Code::Protocol | Code::Unsupported)) {
        log::warn!("the server breaks the protocol: {fault}");
    }
    Core::disconnect(cx.registry, core_id, &fault.to_string());
}

/// Gives the session a frame of its second connection.
fn on_second_frame<S: 'static>(
    cx: &mut Cx<'_, S>,
    core_id: Id<Core<S>>,
    id: Id<Connection<ClientRole<S>>>,
    frame: &Frame<'_>,
    out: &mut Vec<u8>,
) {
    let now = cx.registry.now();
    let Some(core) = cx.registry.get_mut(core_id) else { return };
    if !core.is_second(id) {
        return;
    }
    let taken = core.session.on_hedge_frame(frame, now, out);
    let is_journaled = core.session.is_journaled();
    match taken {
        Ok(ended) => {
            if frame.header.kind == Kind::Resumed
                && let Some(connection) = cx.registry.get_mut(id)
            {
                connection.role_mut().is_established = true;
            }
            go_on(cx, core_id, is_journaled, Ok(ended));
        }
        Err(fault) => {
            Core::lose_second(cx.registry, id, &fault.to_string());
        }
    }
}

/// Does for the session what it cannot do itself, if there is anything: sends what there is room for
/// and the acknowledgement that no new call has taken along; arms; tells.
fn attend<S: 'static>(cx: &mut Cx<'_, S>, core_id: Id<Core<S>>) {
    let now = cx.registry.now();
    if cx.registry.get(core_id).is_some_and(|core| core.is_busy(now)) {
        Core::pump(cx.registry, core_id);
        Core::leave_if_drained(cx.registry, core_id);
    }
}

impl<S: 'static> Role<S> for ClientRole<S> {
    fn is_established(&self) -> bool {
        self.is_established
    }

    fn on_open(cx: &mut Cx<'_, S>, id: Id<Connection<Self>>, out: &mut Vec<u8>) {
        let now = cx.registry.now();
        let Some(core_id) = cx.registry.get(id).map(|connection| connection.role().core) else {
            return;
        };
        let Some(core) = cx.registry.get_mut(core_id) else { return };
        if matches!(core.link, Link::Connecting(connecting) if connecting == id) {
            core.link = Link::Open(id);
            core.session.on_connected(now, out);
            Core::pump(cx.registry, core_id);
        } else {
            Core::on_second_open(cx.registry, core_id, id, out);
        }
    }

    fn on_frame(
        self,
        cx: &mut Cx<'_, S>,
        id: Id<Connection<Self>>,
        frame: &Frame<'_>,
        _: &mut Frames<'_>,
        out: &mut Vec<u8>,
    ) {
        let now = cx.registry.now();
        let core_id = self.core;
        if self.lane == Lane::Second {
            return on_second_frame(cx, core_id, id, frame, out);
        }
        let Some(core) = serving(cx, core_id, id) else { return };
        let taken = core.session.on_frame(frame, now, out);
        let is_journaled = core.session.is_journaled();
        if matches!(frame.header.kind, Kind::Welcome | Kind::Resumed) && taken.is_ok() {
            // A later loss begins with all addresses again.
            core.targets.forget();
            if let Some(connection) = cx.registry.get_mut(id) {
                connection.role_mut().is_established = true;
            }
        }
        go_on(cx, core_id, is_journaled, taken);
    }

    fn on_refused(
        cx: &mut Cx<'_, S>,
        id: Id<Connection<Self>>,
        header: Header,
        refusal: Refusal,
        _out: &mut Vec<u8>,
    ) {
        let now = cx.registry.now();
        if Core::lose_second(cx.registry, id, &refusal.message) {
            return;
        }
        let Some((core_id, core)) = find(cx, id) else { return };
        let fault = Fault::new(refusal.code, refusal.message);
        let taken = core.session.on_refused(&header, fault, now);
        let is_journaled = core.session.is_journaled();
        go_on(cx, core_id, is_journaled, taken);
    }

    fn on_lost(
        cx: &mut Cx<'_, S>,
        id: Id<Connection<Self>>,
        error: &FramingError,
        _out: &mut Vec<u8>,
    ) {
        if Core::lose_second(cx.registry, id, &error.to_string()) {
            return;
        }
        if let Some((core_id, _)) = find(cx, id) {
            log::warn!("what answers is no onceloop server: {error}");
            Core::disconnect(cx.registry, core_id, &error.to_string());
        }
    }

    fn run_waiting(
        self,
        cx: &mut Cx<'_, S>,
        _id: Id<Connection<Self>>,
        _count_max: usize,
        _out: &mut Vec<u8>,
    ) -> bool {
        attend(cx, self.core);
        false
    }

    fn is_owing(_cx: &mut Cx<'_, S>, _id: Id<Connection<Self>>) -> bool {
        false // a server asks nothing
    }

    fn on_closing(&mut self, received_at: Instant) {
        self.received_at = Some(received_at);
    }

    fn on_closed(self, cx: &mut Cx<'_, S>, id: Id<Connection<Self>>, why: Closed) {
        let now = cx.registry.now();
        if self.lane == Lane::Second {
            return Core::on_second_closed(cx.registry, self.core, id, &why.to_string());
        }
        let Some(core) = cx.registry.get_mut(self.core) else { return };
        match core.link {
            Link::Connecting(connecting) if connecting == id => {
                Core::attempt_failed(cx.registry, self.core, &why.to_string());
            }
            Link::Open(open) if open == id => {
                core.link = Link::Down;
                core.session.on_bytes(self.received_at.unwrap_or(now));
                Core::lost(cx.registry, self.core, &why.to_string());
            }
            _ => return,
        }
        Core::connect_if_due(cx.registry, self.core);
    }
}
