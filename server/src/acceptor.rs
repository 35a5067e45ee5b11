//! Accepting connections, and what to do when there are too many.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use onceloop_reactor::{Cx, Id, Input, Io, Listener, Pollable, Source, Stream, os};

use crate::core::Core;
use crate::peer::{Peer, PeerConnection};

/// Connections accepted in one turn, so that a flood of them does not hold up those that are there.
const ACCEPTED_PER_TURN_MAX: usize = 256;
/// How long to wait for a descriptor to become free. Without another try the listener would stall:
/// the poll does not tell again of connections that wait already.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A listening socket.
pub(crate) struct Acceptor<S: 'static> {
    listener: Listener,
    core: Id<Core<S>>,
    accepted: Vec<Stream>,
    failure: Option<io::Error>,
    /// The server is full: those who come wait in the system's queue.
    is_full: bool,
}

impl<S: 'static> Acceptor<S> {
    pub(crate) fn new(listener: Listener, core: Id<Core<S>>) -> Self {
        Acceptor { listener, core, accepted: Vec::new(), failure: None, is_full: false }
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }
}

impl<S: 'static> Source<S> for Acceptor<S> {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Listener(&mut self.listener)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        if self.is_full {
            // Perhaps there is room by now: the task phase can see that.
            return io.dispatch();
        }
        while self.accepted.len() < ACCEPTED_PER_TURN_MAX {
            match self.listener.accept() {
                Ok(Some(stream)) => self.accepted.push(stream),
                Ok(None) => break,
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        if self.accepted.len() == ACCEPTED_PER_TURN_MAX {
            io.again();
        }
        if !self.accepted.is_empty() || self.failure.is_some() {
            io.dispatch();
        }
    }

    fn dispatch(cx: &mut Cx<'_, S>, id: Id<Self>, _: &mut Input<'_>) {
        let Some(acceptor) = cx.registry.get_mut(id) else { return };
        let core = acceptor.core;
        let failure = acceptor.failure.take();
        let was_full = std::mem::take(&mut acceptor.is_full);
        let mut accepted = std::mem::take(&mut acceptor.accepted);
        for stream in accepted.drain(..) {
            admit(cx, core, stream);
        }
        let has_room = cx.registry.get(core).is_none_or(Core::has_room);
        let Some(acceptor) = cx.registry.get_mut(id) else { return };
        acceptor.accepted = accepted;
        acceptor.is_full = !has_room;
        if !has_room && !was_full {
            log::warn!(
                "{}: as many connections as allowed; more wait",
                acceptor.listener.local_addr()
            );
        }
        if has_room && was_full {
            cx.registry.again(id);
        }
        if let Some(error) = failure {
            failed(cx, id, core, &error);
        }
    }
}

/// Makes a connection of an accepted stream.
fn admit<S: 'static>(cx: &mut Cx<'_, S>, core: Id<Core<S>>, mut stream: Stream) {
    let Some(this) = cx.registry.get_mut(core) else { return };
    if let Some(idle) = this.keepalive
        && let Err(error) = stream.set_keepalive(Some(idle))
    {
        log::debug!("no keepalive for {:?}: {error}", stream.peer());
    }
    this.counts.connections_accepted += 1;
    let place = this.connections.vacant_key();
    let place = u32::try_from(place).expect("connections are bounded by descriptors");
    let settings = Rc::clone(&this.settings);
    let peer = Peer { core, session: None, place, is_in_order: false };
    match PeerConnection::insert(cx.registry, stream, peer, settings, false) {
        Ok(connection) => {
            let this = cx.registry.get_mut(core).expect("found above; inserting removes nothing");
            this.connections.insert(connection);
        }
        Err(error) => log::error!("a connection cannot be polled: {error}"),
    }
}

fn failed<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<Acceptor<S>>,
    core: Id<Core<S>>,
    error: &io::Error,
) {
    if let Some(core) = cx.registry.get_mut(core) {
        core.counts.accept_failures += 1;
    }
    if os::is_out_of_descriptors(error) {
        log::error!(
            "out of file descriptors: new connections wait. Raise the limit (ulimit -n) or lower \
             connections_max"
        );
    } else {
        log::warn!("a connection could not be accepted: {error}");
    }
    cx.registry.after(RETRY_AFTER, move |cx| cx.registry.again(id));
}
