//! The handle of a server that runs.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use onceloop_endpoint::{Address, Closed, ToAddress, close};
use onceloop_reactor::{Cx, Id, Listener, Registry};

use crate::acceptor::Acceptor;
use crate::builder::bind;
use crate::core::Core;
use crate::peer::connections;
use crate::{Drained, Stats, drain};

/// A server on a loop: an id, to be kept anywhere, the program's state included. It serves until it
/// is drained or closed, or the loop is dropped; of a server that is gone it tells nothing.
pub struct Server<S: 'static> {
    core: Id<Core<S>>,
}

impl<S> Clone for Server<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Server<S> {}

impl<S> fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.core.to_bits())
    }
}

impl<S: 'static> Server<S> {
    pub(crate) fn new(core: Id<Core<S>>) -> Self {
        Server { core }
    }

    /// Listens at one more address: of a host's name the first one that can be listened at. The name
    /// is looked up here, and that blocks.
    ///
    /// # Errors
    /// If the address is none, is taken, or the server is gone or draining.
    pub fn listen(self, registry: &mut Registry<S>, address: impl ToAddress) -> io::Result<()> {
        let listener = bind(registry, &address.to_address()?)?;
        self.attach(registry, listener)
    }

    /// Takes over a listening socket: one that was inherited, or made with options of its own.
    ///
    /// # Errors
    /// If it cannot be polled, or the server is gone or draining.
    pub fn attach(self, registry: &mut Registry<S>, listener: Listener) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the server is shut down");
        let core = registry.get(self.core).filter(|core| core.drain.is_none());
        let room = Rc::clone(&core.ok_or_else(gone)?.room);
        let acceptor = registry.insert(Acceptor::new(listener, self.core, room))?;
        registry.get_mut(self.core).ok_or_else(gone)?.acceptors.push(acceptor);
        Ok(())
    }

    /// Returns where the server listens.
    pub fn local_addresses(self, registry: &Registry<S>) -> Vec<Address> {
        let Some(core) = registry.get(self.core) else { return Vec::new() };
        let listeners = core.acceptors.iter().filter_map(|&acceptor| registry.get(acceptor));
        listeners.map(|acceptor| acceptor.listener().local_addr().into()).collect()
    }

    /// Returns the server's numbers.
    pub fn stats(self, registry: &Registry<S>) -> Stats {
        registry.get(self.core).map(Stats::of).unwrap_or_default()
    }

    /// Checks all that must hold between what the server keeps of sessions and calls. It takes as long
    /// as going over all of it: for tests and simulations.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn check_invariants(self, registry: &Registry<S>) {
        if let Some(core) = registry.get(self.core) {
            core.table.check_invariants();
        }
    }

    /// Shuts down: no new connection, no new call; what runs may end, and what has ended is
    /// written. When all connections are closed, or `within` has passed, `done` runs, once.
    ///
    /// Clients are told (GOAWAY), and leave when they have their answers; calls that were on their
    /// way are refused as not executed. One that has not left after a second is closed as soon as
    /// nothing runs.
    pub fn drain(
        self,
        registry: &mut Registry<S>,
        within: Duration,
        done: impl FnOnce(Drained, &mut Cx<'_, S>) + 'static,
    ) {
        drain::start(registry, self.core, within, done);
    }

    /// Ends the server at once: its listeners and connections close, its sessions are forgotten. A
    /// deferred call that is answered later is answered into the void. A drain that goes on is over.
    pub fn close(self, registry: &mut Registry<S>) {
        let Some(core) = registry.remove(self.core) else { return };
        if cfg!(debug_assertions) {
            core.table.check_invariants();
        }
        let unfinished = core.table.in_flight();
        for acceptor in core.acceptors {
            registry.remove(acceptor);
        }
        for connection in connections(registry, self.core) {
            close(registry, connection, Closed::Local("the server was closed"));
        }
        if let Some(drain) = core.drain {
            drain.end(registry, unfinished);
        }
    }
}
