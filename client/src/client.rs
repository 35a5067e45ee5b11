//! A client as its program holds it: an id, and what can be done with it.

use std::fmt;
use std::io;

use onceloop_endpoint::ToAddress;
use onceloop_protocol::codec::EncodeArgs;
use onceloop_protocol::error::{CallError, Fault};
use onceloop_protocol::method::Method;
use onceloop_protocol::session::{CallKey, Counters};
use onceloop_reactor::{Cx, Id, Registry};

use crate::core::{Core, closed};
use crate::handle::Handle;
use crate::options::Request;
use crate::outcome::outcome;
use crate::{Builder, CallOptions, State};

/// Names a call of one client for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    /// Which of the client's sessions it went to: 0 is the first.
    pub(crate) session: u32,
    pub(crate) key: CallKey,
}

/// One client of one server. An id: `Copy`, `Send`, at home in the program's state.
///
/// It lives until [`Client::close`], not until the last copy of its id is gone. Used after that, a
/// call ends not executed, by its continuation, like any other call.
pub struct Client<S: 'static> {
    core: Id<Core<S>>,
}

impl<S: 'static> Client<S> {
    /// Returns a builder, to choose more than the address.
    pub fn builder() -> Builder<S> {
        Builder::new()
    }

    /// Makes a client; see [`Builder::connect`].
    ///
    /// # Errors
    /// If the address is none, or the system gives no random bytes.
    pub fn connect(registry: &mut Registry<S>, address: impl ToAddress) -> io::Result<Client<S>> {
        Builder::new().connect(registry, address)
    }

    /// Calls `method`, exactly once within the default time; see [`Client::call_with`].
    pub fn call<M, F>(
        self,
        registry: &mut Registry<S>,
        method: M,
        args: M::Args<'_>,
        continuation: F,
    ) -> CallId
    where
        M: Method,
        F: for<'a> FnOnce(Result<M::Reply<'a>, CallError<M::Error>>, &mut Cx<'_, S>) + 'static,
    {
        self.call_with(registry, CallOptions::new(), method, args, continuation)
    }

    /// Calls `method` as `options` say.
    ///
    /// `continuation` runs exactly once, in a task phase and never inside this call, also if the
    /// call could not be taken: too many wait, the arguments are too large or cannot be encoded, the
    /// client is closed. Its reply may borrow from the frame it came in.
    ///
    /// # Re-entrancy
    /// May be called in any callback, also a continuation of the same client. `continuation` may do
    /// anything, also close the client or remove its connection.
    pub fn call_with<M, F>(
        self,
        registry: &mut Registry<S>,
        options: CallOptions,
        method: M,
        args: M::Args<'_>,
        continuation: F,
    ) -> CallId
    where
        M: Method,
        F: for<'a> FnOnce(Result<M::Reply<'a>, CallError<M::Error>>, &mut Cx<'_, S>) + 'static,
    {
        let request = options.request(&method);
        // A closure without captures takes no memory: boxing it allocates nothing.
        let continuation =
            Box::new(move |answer: onceloop_protocol::session::Answer<'_>, cx: &mut Cx<'_, S>| {
                continuation(outcome::<M>(answer), cx);
            });
        let encode = |out: &mut Vec<u8>| args.encode_args(out);
        Core::call(registry, self.core, &request, continuation, encode)
    }

    /// Sends `method` once, in its turn among the calls, and asks for no answer: it may be lost, and
    /// nobody is told. One that cannot leave within `Limits::call_timeout` is dropped.
    ///
    /// # Errors
    /// If it cannot be taken: too many calls wait, the arguments are too large or cannot be encoded,
    /// or the client is closed.
    pub fn notify<M: Method>(
        self,
        registry: &mut Registry<S>,
        method: M,
        args: M::Args<'_>,
    ) -> Result<(), Fault> {
        Core::notify(registry, self.core, method.id(), |out| args.encode_args(out))
    }

    /// Stops waiting for a call, and returns whether it was still open.
    ///
    /// Its continuation runs in the next turn: not executed if the call never left, else
    /// indeterminate. The server is told, and its handler can see it.
    pub fn cancel(self, registry: &mut Registry<S>, call: CallId) -> bool {
        Core::cancel(registry, self.core, call)
    }

    /// Returns where the client stands, as the state callback was last told.
    pub fn state(self, registry: &Registry<S>) -> State {
        registry.get(self.core).map_or(State::Closed, |core| core.state.clone())
    }

    /// Returns how many calls and notifications are open.
    pub fn pending(self, registry: &Registry<S>) -> usize {
        Core::pending(registry, self.core)
    }

    /// Returns what the client has counted; nothing once it is closed.
    pub fn counters(self, registry: &Registry<S>) -> Counters {
        Core::counters(registry, self.core)
    }

    /// Ends the session on the server and the client here. Every open call ends: not executed if it
    /// never left, else indeterminate. Their continuations run in the next turn, then the state
    /// callback, for the last time.
    pub fn close(self, registry: &mut Registry<S>) {
        Core::close(registry, self.core);
    }

    /// Returns a handle by which other threads call.
    pub fn handle(self, registry: &Registry<S>) -> Handle<S> {
        Handle::new(registry.remote(), self)
    }

    pub(crate) fn of(core: Id<Core<S>>) -> Client<S> {
        Client { core }
    }

    /// Makes a call whose arguments are encoded already.
    pub(crate) fn call_encoded(
        self,
        registry: &mut Registry<S>,
        request: &Request,
        args: &[u8],
        continuation: crate::core::Continuation<S>,
    ) -> CallId {
        let encode = |out: &mut Vec<u8>| {
            out.extend_from_slice(args);
            Ok::<(), std::convert::Infallible>(())
        };
        Core::call(registry, self.core, request, continuation, encode)
    }

    /// Returns why a call would be refused whatever it is, for a caller that has to know at once.
    pub(crate) fn refusal(self, registry: &Registry<S>) -> Option<Fault> {
        (!registry.contains(self.core)).then(closed)
    }
}

// Derived, these would ask the same of `S`.
impl<S> Clone for Client<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Client<S> {}

impl<S> PartialEq for Client<S> {
    fn eq(&self, other: &Self) -> bool {
        self.core == other.core
    }
}

impl<S> Eq for Client<S> {}

impl<S> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.core).finish()
    }
}
