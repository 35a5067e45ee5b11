//! Making a server.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use onceloop_endpoint::{Address, Settings, ToAddress};
use onceloop_protocol::limits::Limits;
use onceloop_protocol::method::{Method, MethodInfo};
use onceloop_protocol::table::store::{Store, StoreFailed};
use onceloop_protocol::table::{Principal, Table};
use onceloop_reactor::{Cx, Listener, Peer, Registry, os};

use crate::core::{Authenticate, Core};
use crate::durable::{AnyStore, OnFatal};
use crate::handler::{Handler, Handlers};
use crate::stats::Counts;
use crate::{Context, Responder, Server, builtin};

/// The service of every server; its names are taken.
const BUILTIN_PREFIX: &str = "onceloop.";

/// A server in the making: its methods and limits.
pub struct Builder<S: 'static> {
    handlers: Handlers<S>,
    expected: Vec<MethodInfo>,
    stops_on_panic: bool,
    limits: Limits,
    keepalive: Option<Duration>,
    authenticate: Option<Authenticate>,
    in_progress_ms: Option<u32>,
    store: AnyStore,
    on_fatal: Option<OnFatal<S>>,
    /// A method that needs a store.
    transactional: Option<String>,
    /// The first mistake; told when the server is to start.
    mistake: Option<ListenError>,
}

impl<S: 'static> Default for Builder<S> {
    fn default() -> Self {
        Builder::new()
    }
}

impl<S: 'static> Builder<S> {
    /// Returns a server without methods, with the default limits.
    pub fn new() -> Self {
        Builder {
            handlers: Handlers::new(),
            expected: Vec::new(),
            stops_on_panic: false,
            limits: Limits::default(),
            keepalive: None,
            authenticate: None,
            in_progress_ms: None,
            store: None,
            on_fatal: None,
            transactional: None,
            mistake: None,
        }
    }

    /// Serves `method` by a function that answers when it returns.
    ///
    /// The function gets the arguments, as the method declares them, and a [`Context`]; both, and
    /// the reply it makes of them, are borrowed: nothing is copied that need not be. It must not
    /// block. If it panics the panic is caught, and answered as an error of a call that ran.
    #[must_use]
    pub fn method<M, F>(self, method: M, handler: F) -> Self
    where
        M: Method,
        F: for<'a> Fn(M::Args<'a>, &'a mut Context<'_, S>) -> Result<M::Reply<'a>, M::Error>
            + 'static,
    {
        self.add(Handler::new(&method, handler))
    }

    /// Serves `method` by a function that answers later, by the [`Responder`] it is given.
    #[must_use]
    pub fn deferred<M, F>(self, method: M, handler: F) -> Self
    where
        M: Method,
        F: for<'a> Fn(M::Args<'a>, Responder<S, M>, &'a mut Context<'_, S>) + 'static,
    {
        self.add(Handler::deferred(&method, handler))
    }

    /// Serves `method` by a function that answers when it returns, and whose effects are in the
    /// server's store: [`Context::read`] and [`Context::write`]. They and the answer are one: after a
    /// crash both are there or neither, and the call runs once, for ever.
    ///
    /// If it fails, by a panic or by the method's own error, its effects are undone; it has run all the
    /// same, and the error is its answer. What it does elsewhere, in the program's state too, is not
    /// undone. A method that only reads is served so as well: then nothing need be written down before
    /// it starts.
    #[must_use]
    pub fn transactional<M, F>(mut self, method: M, handler: F) -> Self
    where
        M: Method,
        F: for<'a> Fn(M::Args<'a>, &'a mut Context<'_, S>) -> Result<M::Reply<'a>, M::Error>
            + 'static,
    {
        let handler = Handler::new(&method, handler).transactional();
        self.transactional.get_or_insert_with(|| handler.info.name.to_string());
        self.add(handler)
    }

    /// Keeps what the server knows of its calls in a store, with the effects of its
    /// [transactional](Builder::transactional) methods.
    #[must_use]
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        self.store = if store.is_durable() { Some(Box::new(store)) } else { None };
        self
    }

    /// Runs `on_fatal` once if the store fails. By then every connection is closed and nothing leaves
    /// any more: what is not safe nobody has been told. The program should end; a server that is
    /// started on the store again goes on from what is safe.
    #[must_use]
    pub fn on_fatal(
        mut self,
        on_fatal: impl FnOnce(StoreFailed, &mut Cx<'_, S>) + 'static,
    ) -> Self {
        self.on_fatal = Some(Box::new(on_fatal));
        self
    }

    /// Demands a handler for each method of a service: `.service(calc::METHODS)`.
    #[must_use]
    pub fn service(mut self, methods: &[MethodInfo]) -> Self {
        self.expected.extend_from_slice(methods);
        self
    }

    /// Lets a handler's panic through to the program ([`Reactor::turn`](onceloop_reactor::Reactor)
    /// and `run` panic), which then ends: its state may be half changed, and nobody is told a result
    /// that came of that. The call is not answered; a durable server that is started anew finds it in
    /// doubt. Without this a panic is caught, and is the answer.
    #[must_use]
    pub fn stop_on_panic(mut self) -> Self {
        self.stops_on_panic = true;
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets the system probe TCP connections that were silent for so long. The protocol's own pings
    /// ([`Limits::idle_ping`]) do the same at both ends, through proxies, too.
    #[must_use]
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.keepalive = Some(idle);
        self
    }

    /// Asks who each peer is, by the token of its HELLO or RESUME and its address; `None` refuses
    /// it (NOT_AUTHORIZED).
    ///
    /// A session belongs to the principal that opened it: for any other it does not exist. What one
    /// principal may have is bounded ([`Limits::sessions_per_principal_max`] and its like); those
    /// for whom the function says [`Principal::ANYONE`] have at most half of everything together.
    #[must_use]
    pub fn authenticate(
        mut self,
        authenticate: impl Fn(Option<&[u8]>, &Peer) -> Option<Principal> + 'static,
    ) -> Self {
        self.authenticate = Some(Box::new(authenticate));
        self
    }

    /// Answers a copy of a call that is running or waiting at once, by IN_PROGRESS: ask again after
    /// this time. The one reply comes all the same. Without it such a copy just waits.
    #[must_use]
    pub fn answer_in_progress(mut self, retry_after: Duration) -> Self {
        self.in_progress_ms = Some(u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// Starts the server at `address`: `host:port`, `[::]:port` (all of IPv6 and IPv4),
    /// `unix:/path` (a socket file that nobody listens at is replaced). Port 0 lets the system
    /// choose.
    ///
    /// A host's name is looked up here, and that blocks; of its addresses the first is taken that can
    /// be listened at.
    ///
    /// # Errors
    /// If two methods have one id, a demanded one has no handler, or it cannot listen there.
    pub fn listen(
        self,
        registry: &mut Registry<S>,
        address: impl ToAddress,
    ) -> Result<Server<S>, ListenError> {
        let address = address.to_address()?;
        let server = self.start(registry)?;
        let attached =
            bind(registry, &address).and_then(|listener| server.attach(registry, listener));
        attached.map_err(|error| {
            server.close(registry);
            ListenError::Io(error)
        })?;
        Ok(server)
    }

    /// Starts the server without a listener: for [`Server::attach`] and [`Server::listen`].
    ///
    /// # Errors
    /// If two methods have one id, or a demanded one has no handler.
    pub fn start(mut self, registry: &mut Registry<S>) -> Result<Server<S>, ListenError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let missing = self.expected.iter().find(|info| self.handlers.find(info.id()).is_none());
        if let Some(info) = missing {
            return Err(ListenError::MissingHandler(info.name.to_string()));
        }
        if let (Some(name), None) = (self.transactional, &self.store) {
            return Err(ListenError::NoStore(name));
        }
        builtin::add(&mut self.handlers);
        if self.stops_on_panic {
            self.handlers.stop_on_panic();
        }
        note_descriptors(self.limits.connections_max);
        let mut random = [0; 16];
        registry.random_bytes(&mut random)?;
        let now = registry.now();
        let limits = self.limits.clone();
        let mut table = Table::recover(limits, random, self.store, now)?;
        if self.authenticate.is_some() {
            table.authenticate();
        }
        if let Some(after_ms) = self.in_progress_ms {
            table.answer_in_progress(after_ms);
        }
        let core = registry.insert(Core {
            table,
            authenticate: self.authenticate,
            on_fatal: self.on_fatal,
            is_settling: false,
            has_failed: false,
            handlers: Rc::new(self.handlers),
            room: Rc::new(Cell::new(self.limits.connections_max)),
            settings: Rc::new(Settings::new(self.limits, registry)),
            keepalive: self.keepalive,
            acceptors: Vec::new(),
            on_cancel: Default::default(),
            drain: None,
            notifications_open: 0,
            counts: Counts::default(),
        })?;
        // Sessions that a store brought back have leases.
        registry.set_deadline(core, registry.get(core).and_then(|core| core.table.next_deadline()));
        Ok(Server::new(core))
    }

    fn add(mut self, handler: Handler<S>) -> Self {
        let name = handler.info.name.to_string();
        if name.starts_with(BUILTIN_PREFIX) {
            self.mistake.get_or_insert(ListenError::ReservedName(name));
        } else if let Some(other) = self.handlers.add(handler) {
            let other = other.name.to_string();
            self.mistake.get_or_insert(ListenError::Collision(name, other));
        }
        self
    }
}

/// Notes that the system will end accepting before the limit does. That is no error: connections
/// wait, and are accepted when descriptors are free.
fn note_descriptors(connections_max: usize) {
    if let Ok(limit) = os::descriptor_limit()
        && limit <= connections_max as u64
    {
        log::info!("{connections_max} connections are allowed, and {limit} descriptors there are");
    }
}

/// Listens where the address says. Of a name's addresses it is the first that can be listened at.
///
/// A name is looked up, and that blocks.
pub(crate) fn bind<S: 'static>(
    registry: &mut Registry<S>,
    address: &Address,
) -> io::Result<Listener> {
    let candidates = match address {
        Address::Unix(path) => return registry.listen_unix(path),
        Address::Tcp(address) => vec![*address],
        name => registry.resolve_blocking(&name.to_string())?,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in candidates {
        match registry.listen(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = cannot_listen(candidate, &error),
        }
    }
    Err(last)
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"))
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenError {
    /// Two methods have the same id: the same name, or names with the same hash.
    Collision(String, String),
    /// It cannot listen there.
    Io(io::Error),
    /// A method of a demanded service has no handler.
    MissingHandler(String),
    /// A method is transactional, and there is no store.
    NoStore(String),
    /// The name belongs to the methods that every server has.
    ReservedName(String),
    /// The store cannot be read.
    Store(StoreFailed),
}

impl From<StoreFailed> for ListenError {
    fn from(failure: StoreFailed) -> Self {
        ListenError::Store(failure)
    }
}

impl From<io::Error> for ListenError {
    fn from(error: io::Error) -> Self {
        ListenError::Io(error)
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Collision(a, b) if a == b => write!(f, "{a} has two handlers"),
            ListenError::Collision(a, b) => {
                write!(f, "{a} and {b} have the same id: give one another name, by #[name = …]")
            }
            ListenError::Io(error) => write!(f, "{error}"),
            ListenError::MissingHandler(name) => {
                write!(f, "{name} has no handler: add one by Builder::method or ::deferred")
            }
            ListenError::NoStore(name) => write!(
                f,
                "{name} is transactional, and the server has no durable store: give it one by \
                 Builder::store, or serve the method by Builder::method"
            ),
            ListenError::Store(failure) => write!(f, "{failure}"),
            ListenError::ReservedName(name) => {
                write!(f, "{name}: names that begin with `{BUILTIN_PREFIX}` are the server's own")
            }
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ListenError::Io(error) => Some(error),
            ListenError::Store(failure) => Some(failure),
            _ => None,
        }
    }
}
