//! How a client comes to a connection: names are looked up off the loop, addresses tried in turn.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use onceloop_endpoint::{Address, Closed, Connection};
use onceloop_reactor::{Id, Registry, Stream};

use crate::State;
use crate::core::{Core, Link};
use crate::role::{ClientRole, Lane};

/// Where to connect to, and what of it is left to try in this round.
#[derive(Debug)]
pub(crate) struct Targets {
    address: Address,
    /// What the name was resolved to and has not been tried.
    candidates: VecDeque<SocketAddr>,
    /// What was tried last: while there is a connection, where it leads.
    current: Option<SocketAddr>,
}

/// What to try next.
enum Target {
    Place(Place),
    Resolve(String),
}

/// A socket of a server.
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Place {
    /// Begins to connect to it.
    pub(crate) fn connect<S>(&self, registry: &mut Registry<S>) -> io::Result<Stream> {
        match self {
            Place::Tcp(address) => registry.connect(address),
            Place::Unix(path) => registry.connect_unix(path),
        }
    }
}

impl Targets {
    pub(crate) fn new(address: Address) -> Targets {
        Targets { address, candidates: VecDeque::new(), current: None }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Begins a new round, in which the name is looked up again.
    pub(crate) fn forget(&mut self) {
        self.candidates.clear();
    }

    /// Returns where the connection there is leads, for another one.
    pub(crate) fn current(&self) -> Option<Place> {
        match (&self.address, self.current) {
            (Address::Unix(path), _) => Some(Place::Unix(path.clone())),
            (Address::Tcp(address), _) => Some(Place::Tcp(*address)),
            (_, current) => current.map(Place::Tcp),
        }
    }

    fn next(&mut self) -> Target {
        if let Some(address) = self.candidates.pop_front() {
            self.current = Some(address);
            return Target::Place(Place::Tcp(address));
        }
        match &self.address {
            Address::Unix(path) => Target::Place(Place::Unix(path.clone())),
            Address::Tcp(address) => Target::Place(Place::Tcp(*address)),
            name => Target::Resolve(name.to_string()),
        }
    }
}

impl<S: 'static> Core<S> {
    /// Opens a connection if the session wants one now.
    pub(crate) fn connect_if_due(registry: &mut Registry<S>, id: Id<Self>) {
        let now = registry.now();
        while let Some(core) = registry.get_mut(id)
            && matches!(core.link, Link::Down)
            && core.session.connect_at().is_some_and(|at| at <= now)
        {
            if core.targets.candidates.is_empty() {
                core.change(State::Connecting);
            }
            let result = match core.targets.next() {
                Target::Resolve(name) => Self::resolve(registry, id, &name),
                Target::Place(place) => {
                    place.connect(registry).and_then(|stream| Self::open(registry, id, stream))
                }
            };
            if let Err(error) = result {
                Self::attempt_failed(registry, id, &Closed::ConnectFailed(error).to_string());
            }
        }
        Self::arm(registry, id);
    }

    fn resolve(registry: &mut Registry<S>, id: Id<Self>, name: &str) -> io::Result<()> {
        registry
            .resolve(name, move |resolved, cx| Self::on_resolved(cx.registry, id, resolved))
            .map_err(io::Error::other)?;
        if let Some(core) = registry.get_mut(id) {
            core.link = Link::Resolving;
        }
        Ok(())
    }

    fn on_resolved(
        registry: &mut Registry<S>,
        id: Id<Self>,
        resolved: io::Result<Vec<SocketAddr>>,
    ) {
        let Some(core) = registry.get_mut(id) else { return };
        if !matches!(core.link, Link::Resolving) {
            return;
        }
        core.link = Link::Down;
        match resolved {
            Ok(addresses) if addresses.is_empty() => {
                let why = format!("{} has no address", core.targets.address);
                Self::attempt_failed(registry, id, &why);
            }
            Ok(addresses) => core.targets.candidates = addresses.into(),
            Err(error) => {
                let why = format!("{} cannot be resolved: {error}", core.targets.address);
                Self::attempt_failed(registry, id, &why);
            }
        }
        Self::connect_if_due(registry, id);
    }

    fn open(registry: &mut Registry<S>, id: Id<Self>, stream: Stream) -> io::Result<()> {
        let connection = Self::insert(registry, id, stream, Lane::First)?;
        if let Some(core) = registry.get_mut(id) {
            core.link = Link::Connecting(connection);
        }
        Ok(())
    }

    /// Adds a connection that is on its way to the loop.
    pub(crate) fn insert(
        registry: &mut Registry<S>,
        id: Id<Self>,
        mut stream: Stream,
        lane: Lane,
    ) -> io::Result<Id<Connection<ClientRole<S>>>> {
        let core = registry.get_mut(id).ok_or(io::ErrorKind::NotConnected)?;
        let settings = core.settings.clone();
        if let Some(idle) = core.keepalive
            && let Err(error) = stream.set_keepalive(Some(idle))
        {
            log::warn!("no keepalive: {error}");
        }
        let role = ClientRole::new(id, lane);
        Connection::insert(registry, stream, role, settings, true)
    }

    /// Notes that an attempt came to nothing. The session hears of it when nothing is left to try.
    pub(crate) fn attempt_failed(registry: &mut Registry<S>, id: Id<Self>, why: &str) {
        let Some(core) = registry.get_mut(id) else { return };
        core.link = Link::Down;
        if core.targets.candidates.is_empty() {
            Self::lost(registry, id, why);
        } else {
            log::debug!("client of {}: {why}; trying its next address", core.targets.address);
        }
    }

    /// Gives up the connection there is, and tells the session; `why` is for a person.
    pub(crate) fn disconnect(registry: &mut Registry<S>, id: Id<Self>, why: &str) {
        let now = registry.now();
        let Some(core) = registry.get_mut(id) else { return };
        let link = std::mem::replace(&mut core.link, Link::Down);
        if let Link::Open(connection) = link
            && let Some((core, open)) = registry.get2_mut(id, connection)
        {
            core.session.on_bytes(open.last_received(now));
        }
        Self::lost(registry, id, why);
        if let Link::Open(connection) | Link::Connecting(connection) = link {
            onceloop_endpoint::close(registry, connection, Closed::Local("given up by the client"));
        }
        Self::connect_if_due(registry, id);
    }

    /// Closes a connection whose server takes no new calls, once nothing is out on it.
    pub(crate) fn leave_if_drained(registry: &mut Registry<S>, id: Id<Self>) {
        if registry.get(id).is_some_and(|core| core.session.is_drained()) {
            Self::disconnect(registry, id, "the server is shutting down");
        }
    }

    /// Tells the session, and the program, that there is no connection.
    pub(crate) fn lost(registry: &mut Registry<S>, id: Id<Self>, why: &str) {
        let now = registry.now();
        let Some(core) = registry.get_mut(id) else { return };
        core.take_events();
        core.session.on_disconnected(why, now);
        let Some(connect_at) = core.session.connect_at() else { return };
        let retry_in = connect_at.saturating_duration_since(now);
        core.change(State::Disconnected { why: why.to_owned(), retry_in });
    }
}
