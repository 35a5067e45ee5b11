//! Accepting connections, and what to do when there are too many.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use onceloop_reactor::{Cx, Id, Input, Io, Listener, Pollable, Registry, Source, Stream, os};

use crate::core::Core;
use crate::peer::{Peer, PeerConnection};

/// Connections accepted in one turn, so that a flood of them does not hold up those that are there.
const ACCEPTED_PER_TURN_MAX: usize = 256;
/// How long to wait for a descriptor to become free. Without another try the listener would stall:
/// the poll does not tell again of connections that wait already.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long after a warning the same is not said again, whatever clients do.
const WARN_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A listening socket.
pub(crate) struct Acceptor<S: 'static> {
    listener: Listener,
    core: Id<Core<S>>,
    /// How many more connections the server takes: all its listeners draw on one count.
    room: Rc<Cell<usize>>,
    accepted: Vec<Stream>,
    failure: Option<io::Error>,
    /// The last attempt failed; nothing is tried before the deadline, or before a connection ends.
    is_starved: bool,
    warned_at: Option<Instant>,
}

impl<S: 'static> Acceptor<S> {
    pub(crate) fn new(listener: Listener, core: Id<Core<S>>, room: Rc<Cell<usize>>) -> Self {
        Acceptor {
            listener,
            core,
            room,
            accepted: Vec::new(),
            failure: None,
            is_starved: false,
            warned_at: None,
        }
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Returns whether a warning is due: not if it was given a moment ago.
    fn warns(&mut self, now: Instant) -> bool {
        let is_due = self.warned_at.is_none_or(|at| at + WARN_AGAIN_AFTER <= now);
        if is_due {
            self.warned_at = Some(now);
        }
        is_due
    }
}

impl<S: 'static> Source<S> for Acceptor<S> {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Listener(&mut self.listener)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        if self.is_starved {
            return;
        }
        while self.accepted.len() < ACCEPTED_PER_TURN_MAX {
            let room = self.room.get();
            if room == 0 {
                // The rest wait in the system's queue until a connection ends.
                if self.warns(io.now()) {
                    let address = self.listener.local_addr();
                    log::warn!("{address}: as many connections as allowed; more wait");
                }
                break;
            }
            match self.listener.accept() {
                Ok(Some(stream)) => {
                    self.room.set(room - 1);
                    self.accepted.push(stream);
                }
                Ok(None) => break,
                Err(error) => {
                    self.failure = Some(error);
                    self.is_starved = true;
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
        let mut accepted = std::mem::take(&mut acceptor.accepted);
        for stream in accepted.drain(..) {
            admit(cx, core, stream);
        }
        if let Some(error) = failure {
            failed(cx, id, core, &error);
        } else if let Some(acceptor) = cx.registry.get_mut(id) {
            acceptor.accepted = accepted;
        }
    }

    fn on_deadline(cx: &mut Cx<'_, S>, id: Id<Self>) {
        look_again(cx.registry, id);
    }
}

/// Tries to accept again: a connection has ended, or some time has passed.
pub(crate) fn look_again<S: 'static>(registry: &mut Registry<S>, id: Id<Acceptor<S>>) {
    if let Some(acceptor) = registry.get_mut(id) {
        acceptor.is_starved = false;
        registry.again(id);
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
    let settings = Rc::clone(&this.settings);
    let inserted = PeerConnection::insert(cx.registry, stream, Peer::new(core), settings, false);
    let this = cx.registry.get_mut(core).expect("found above; inserting removes nothing");
    match inserted {
        Ok(_) => this.counts.connections_accepted += 1,
        Err(error) => {
            this.room.set(this.room.get() + 1);
            log::error!("a connection cannot be polled: {error}");
        }
    }
}

/// Accepting failed: tries again after a while.
fn failed<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<Acceptor<S>>,
    core: Id<Core<S>>,
    error: &io::Error,
) {
    let now = cx.registry.now();
    if let Some(core) = cx.registry.get_mut(core) {
        core.counts.accept_failures += 1;
    }
    cx.registry.set_deadline(id, Some(now + RETRY_AFTER));
    if !cx.registry.get_mut(id).is_some_and(|acceptor| acceptor.warns(now)) {
        return;
    }
    if os::is_out_of_descriptors(error) {
        log::error!(
            "out of file descriptors: new connections wait. Raise the limit (ulimit -n) or lower \
             connections_max"
        );
    } else {
        log::warn!("a connection could not be accepted: {error}");
    }
}
