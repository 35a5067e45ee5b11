//! The heart of a client: its session, and what drives it.
//!
//! A [`Core`] is a source without a descriptor. Calls and frames find it by its id, use its session
//! and are done with it before any continuation runs; what ended without a frame, and changes of
//! state, are handed out in its own dispatch, a turn later.

use std::collections::VecDeque;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use onceloop_endpoint::{Closed, Connection, Settings};
use onceloop_protocol::error::{Code, Fault};
use onceloop_protocol::frame::MethodId;
use onceloop_protocol::session::{Answer, CallKey, CallSpec, Event, Session, Taken};
use onceloop_reactor::{Cx, Id, Input, Io, Pollable, Registry, Source};

use crate::connecting::Targets;
use crate::further::Further;
use crate::options::Request;
use crate::role::ClientRole;
use crate::{CallId, CallOptions, State};

/// What runs when a call has ended.
pub(crate) type Continuation<S> = Box<dyn for<'a, 'b, 'c> FnOnce(Answer<'a>, &'b mut Cx<'c, S>)>;

/// What runs when the state changes.
pub(crate) type OnState<S> = Box<dyn for<'a, 'b, 'c> FnMut(&'a State, &'b mut Cx<'c, S>)>;

/// How soon output that was held up is looked at again: the peer reads, or it does not; either way a
/// look is cheap.
pub(crate) const CONGESTION_PAUSE: Duration = Duration::from_millis(10);

/// How precisely a connection knows when bytes last came.
pub(crate) const RECEIVED_PRECISION: Duration = Duration::from_millis(1);

/// A key that names no call, for one that was refused.
const NO_CALL: CallKey = CallKey::from_bits(u64::MAX);

/// What stands between the session and its server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Link<S: 'static> {
    /// Nothing.
    Down,
    /// A name is being looked up.
    Resolving,
    /// A connection is on its way.
    Connecting(Id<Connection<ClientRole<S>>>),
    /// A connection is there; the session knows it.
    Open(Id<Connection<ClientRole<S>>>),
}

impl<S> Link<S> {
    /// Returns the connection, if it is open.
    #[inline]
    fn open(&self) -> Option<Id<Connection<ClientRole<S>>>> {
        match self {
            Link::Open(connection) => Some(*connection),
            Link::Down | Link::Resolving | Link::Connecting(_) => None,
        }
    }
}

/// One client.
pub(crate) struct Core<S: 'static> {
    pub(crate) session: Session<Continuation<S>>,
    pub(crate) link: Link<S>,
    /// The second connection, for hedges.
    pub(crate) second: Link<S>,
    /// Its further sessions; none of its own if it is one.
    pub(crate) further: Further<S>,
    pub(crate) targets: Targets,
    pub(crate) settings: Rc<Settings>,
    pub(crate) keepalive: Option<Duration>,
    /// Where the client stands, as it was last said to the program.
    pub(crate) state: State,
    /// Changes of state that the program has not been told.
    changes: VecDeque<State>,
    pub(crate) on_state: Option<OnState<S>>,
    /// When the deadline fires that is armed.
    armed: Option<Instant>,
    /// When to try again to send what the output had no room for.
    pub(crate) congested_until: Option<Instant>,
}

impl<S: 'static> Core<S> {
    pub(crate) fn new(
        session: Session<Continuation<S>>,
        targets: Targets,
        settings: Rc<Settings>,
        keepalive: Option<Duration>,
        on_state: Option<OnState<S>>,
    ) -> Core<S> {
        Core {
            session,
            link: Link::Down,
            second: Link::Down,
            further: Further::none(),
            targets,
            settings,
            keepalive,
            state: State::Connecting,
            changes: VecDeque::new(),
            on_state,
            armed: None,
            congested_until: None,
        }
    }

    /// Takes a call and sends it, if it may be sent now.
    #[inline]
    pub(crate) fn call<E: Display>(
        registry: &mut Registry<S>,
        id: Id<Self>,
        request: &Request,
        continuation: Continuation<S>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> CallId {
        let now = registry.now();
        let (mut session, mut id) = (0, id);
        let mut found = registry.get(id);
        if found.is_some_and(|core| !core.session.has_room()) {
            (session, id) = Self::route(registry, id);
            found = registry.get(id);
        }
        let open = found.and_then(|core| core.link.open());
        let mut both = open.and_then(|connection| registry.get2_mut(id, connection));
        if both.as_mut().is_some_and(|(_, open)| open.out().capacity() == 0)
            && let Some(connection) = open
        {
            Self::lend_buffer(registry, connection);
            both = registry.get2_mut(id, connection);
        }
        let (core, out) = match both {
            Some((core, open)) => (Some(core), Some(open.out())),
            None => (registry.get_mut(id), None),
        };
        let taken = match core {
            Some(core) => {
                let spec = request.spec(&core.settings.limits, now);
                let taken = core.session.call_now(spec, continuation, encode, now, out);
                taken.map(|taken| (taken, core.is_armed(&spec, now)))
            }
            None => Err((continuation, closed())),
        };
        match taken {
            Ok((Taken { key, has_left }, is_armed)) => {
                if has_left && let Some(connection) = open {
                    registry.touch(connection);
                }
                if !(has_left && is_armed) {
                    Self::pump(registry, id);
                }
                CallId { session, key }
            }
            Err((continuation, fault)) => {
                registry.defer(move |cx| continuation(Answer::NotExecuted(fault), cx));
                CallId { session, key: NO_CALL }
            }
        }
    }

    /// Gives the output of a connection at rest a spare buffer, which saves growing one from nothing.
    fn lend_buffer(registry: &mut Registry<S>, connection: Id<Connection<ClientRole<S>>>) {
        if registry.get_mut(connection).is_some_and(|open| open.out().capacity() == 0) {
            let spare = registry.take_buffer();
            if let Some(open) = registry.get_mut(connection) {
                *open.out() = spare;
            }
        }
    }

    pub(crate) fn notify<E: Display>(
        registry: &mut Registry<S>,
        id: Id<Self>,
        method: MethodId,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), Fault> {
        let now = registry.now();
        let core = registry.get_mut(id).ok_or_else(closed)?;
        let deadline = CallOptions::new().until(&core.settings.limits, now);
        core.session.notify(method, deadline, encode)?;
        Self::pump(registry, id);
        Ok(())
    }

    pub(crate) fn cancel(registry: &mut Registry<S>, id: Id<Self>, call: CallId) -> bool {
        let Some(id) = Self::session(registry, id, call.session) else { return false };
        let is_open = registry.get_mut(id).is_some_and(|core| core.session.cancel(call.key));
        if is_open {
            Self::pump(registry, id);
        }
        is_open
    }

    /// Says BYE and ends every call; the core is removed once that has been told.
    pub(crate) fn close(registry: &mut Registry<S>, id: Id<Self>) {
        Self::close_further(registry, id);
        let now = registry.now();
        let mut bye = registry.take_buffer();
        let Some(core) = registry.get_mut(id) else { return registry.give_buffer(bye) };
        core.session.close(&mut bye);
        core.session.drive_journal(now);
        Self::leave_second(registry, id);
        let Some(core) = registry.get_mut(id) else { return registry.give_buffer(bye) };
        let link = std::mem::replace(&mut core.link, Link::Down);
        if let Link::Open(connection) | Link::Connecting(connection) = link {
            if let Some(open) = registry.get_mut(connection) {
                open.out().extend_from_slice(&bye);
            }
            onceloop_endpoint::finish(registry, connection, Closed::Local("closed"));
        }
        registry.give_buffer(bye);
        registry.wake(id);
    }

    /// Sends what may be sent now, and sees to it that what is due later is not forgotten.
    pub(crate) fn pump(registry: &mut Registry<S>, id: Id<Self>) {
        let now = registry.now();
        let Some(core) = registry.get_mut(id) else { return };
        if core.session.is_journaled() {
            core.session.drive_journal(now);
        }
        // What is sent below makes no hedge.
        let is_hedging = core.is_hedging(now);
        if let Link::Open(connection) = core.link
            && core.session.wants_transmit(now)
        {
            Self::lend_buffer(registry, connection);
            if let Some((core, open)) = registry.get2_mut(id, connection) {
                let waiting = open.out().len();
                core.session.transmit(now, open.out());
                let has_more = open.out().len() > waiting;
                let waits_for_room = core.session.wants_transmit(now);
                core.congested_until = waits_for_room.then(|| now + CONGESTION_PAUSE);
                if has_more {
                    registry.touch(connection);
                }
            }
        }
        if is_hedging {
            Self::attend_second(registry, id);
        }
        Self::arm(registry, id);
    }

    /// Notes that the program has had what it was told, for the journal.
    pub(crate) fn consumed(registry: &mut Registry<S>, id: Id<Self>) {
        if let Some(core) = registry.get_mut(id)
            && core.session.is_journaled()
        {
            core.session.on_consumed();
            Self::pump(registry, id);
        }
    }

    /// Arms the deadline if something is due before it, and has news handed out.
    pub(crate) fn arm(registry: &mut Registry<S>, id: Id<Self>) {
        let Some(core) = registry.get_mut(id) else { return };
        let sooner = core.sooner();
        if sooner.is_some() {
            core.armed = sooner;
        }
        let has_news = core.has_news();
        if sooner.is_some() {
            registry.set_deadline(id, sooner);
        }
        if has_news {
            registry.wake(id);
        }
    }

    /// Returns whether there is anything to do but wait: to send, to tell, or to arm.
    #[inline]
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        self.session.wants_transmit(now)
            || self.has_news()
            || self.session.is_drained()
            || self.is_hedging(now)
            || self.sooner().is_some()
    }

    /// Returns whether the deadline that is armed comes before any that a call brings which leaves
    /// now: its own, or that of the silence after it.
    #[inline]
    fn is_armed(&self, spec: &CallSpec, now: Instant) -> bool {
        self.armed.is_some_and(|armed| {
            armed <= now + self.settings.limits.retransmit_timeout
                && spec.deadline.is_none_or(|deadline| armed <= deadline)
        })
    }

    fn has_news(&self) -> bool {
        self.session.has_news() || !self.changes.is_empty()
    }

    /// Returns when something is due, if that is before the deadline which is armed. One that comes
    /// too early costs a look; moving it with each call would cost more.
    fn sooner(&self) -> Option<Instant> {
        let connect_at = match self.link {
            Link::Down => self.session.connect_at(),
            _ => None,
        };
        let mut next = self.session.next_deadline();
        for other in [connect_at, self.congested_until, self.idle_at()] {
            if other.is_some() && next.is_none_or(|next| other < Some(next)) {
                next = other;
            }
        }
        // While there is no room, what is due cannot leave: that is no reason to look all the time.
        let next = next.max(self.congested_until);
        next.filter(|&next| self.armed.is_none_or(|armed| next < armed))
    }

    /// Leaves a server that is still silent.
    fn give_up(registry: &mut Registry<S>, id: Id<Self>) {
        let now = registry.now();
        let Some(core) = registry.get_mut(id) else { return };
        if let Err(fault) = core.session.on_deadline(now) {
            Self::disconnect(registry, id, &fault.to_string());
        }
        Self::connect_if_due(registry, id);
        Self::pump(registry, id);
    }

    /// Notes a change of state; the program is told in the next dispatch.
    pub(crate) fn change(&mut self, state: State) {
        self.changes.push_back(state);
    }

    /// Takes over what the session has to tell.
    pub(crate) fn take_events(&mut self) {
        while let Some(event) = self.session.next_event() {
            match event {
                Event::Ready { resumed } => self.change(State::Connected { resumed }),
                Event::Draining => self.change(State::Draining),
                Event::SessionLost => log::warn!(
                    "the server at {} does not know this client's session any more",
                    self.targets.address()
                ),
                _ => {}
            }
        }
    }

    /// Tells the program of one change of state; returns whether there was one.
    fn tell_change(cx: &mut Cx<'_, S>, id: Id<Self>) -> bool {
        let Some(core) = cx.registry.get_mut(id) else { return false };
        core.take_events();
        let Some(state) = core.changes.pop_front() else { return false };
        log::info!("client of {}: {state}", core.targets.address());
        core.state = state.clone();
        if let Some(mut on_state) = core.on_state.take() {
            // A callback that panics is told of the next change all the same.
            let result = catch_unwind(AssertUnwindSafe(|| on_state(&state, cx)));
            if let Some(core) = cx.registry.get_mut(id) {
                core.on_state = Some(on_state);
            }
            if let Err(panic) = result {
                resume_unwind(panic);
            }
        }
        true
    }

    /// Removes a core that was closed, when all its calls have been answered.
    fn end(cx: &mut Cx<'_, S>, id: Id<Self>) {
        let is_closed = cx
            .registry
            .get(id)
            .is_some_and(|core| core.session.state() == onceloop_protocol::session::State::Closed);
        if !is_closed {
            return;
        }
        if Self::has_further(cx.registry, id) {
            // The program is told that it is closed after its last call was answered.
            return cx.registry.wake(id);
        }
        let Some(mut core) = cx.registry.remove(id) else { return };
        if let Some(on_state) = &mut core.on_state {
            on_state(&State::Closed, cx);
        }
    }
}

/// The fault of a call on a client that is gone.
pub(crate) fn closed() -> Fault {
    Fault::new(Code::Cancelled, "the client is closed")
}

impl<S: 'static> Source<S> for Core<S> {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Nothing
    }

    fn handle_io(&mut self, _io: &mut Io<'_>) {}

    fn dispatch(cx: &mut Cx<'_, S>, id: Id<Self>, input: &mut Input<'_>) {
        for _ in 0..input.requests_max() {
            if Self::tell_change(cx, id) {
                continue;
            }
            let ended = cx.registry.get_mut(id).and_then(|core| core.session.next_ended());
            let Some((continuation, answer)) = ended else {
                // Perhaps the last call out was given up here, and no frame will tell.
                Self::leave_if_drained(cx.registry, id);
                return Self::end(cx, id);
            };
            continuation(answer, cx);
            Self::consumed(cx.registry, id);
        }
        // Others have their turn before the rest is told.
        cx.registry.wake(id);
    }

    fn on_deadline(cx: &mut Cx<'_, S>, id: Id<Self>) {
        let now = cx.registry.now();
        let Some(core) = cx.registry.get_mut(id) else { return };
        core.armed = None;
        if Self::close_if_idle(cx.registry, id) {
            return;
        }
        let Some(core) = cx.registry.get_mut(id) else { return };
        // Whether there still is no room will be seen; if nothing is to be sent any more, nobody looks.
        core.congested_until = core.congested_until.filter(|&until| until > now);
        if let Link::Open(connection) = core.link
            && let Some((core, open)) = cx.registry.get2_mut(id, connection)
        {
            // Rounded up: an answer that comes within a millisecond of its PING came after it.
            let heard_at = open.last_received(now) + RECEIVED_PRECISION;
            core.session.on_bytes(heard_at.min(now));
        }
        Self::note_second(cx.registry, id, now);
        let Some(core) = cx.registry.get_mut(id) else { return };
        match core.session.on_deadline(now) {
            Ok(()) => {
                Self::connect_if_due(cx.registry, id);
                Self::pump(cx.registry, id);
            }
            // Perhaps the answer came in this very turn, after a loop that was held up: it is looked
            // at before the server is blamed.
            Err(_) => cx.registry.defer(move |cx| Self::give_up(cx.registry, id)),
        }
    }
}
