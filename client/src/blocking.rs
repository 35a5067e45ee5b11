//! A client for a program without a loop: it turns its own while it waits.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use onceloop_endpoint::ToAddress;
use onceloop_protocol::error::{CallError, Class, Code, Fault};
use onceloop_protocol::method::{Caller, Method};
use onceloop_reactor::{Reactor, Registry};

use crate::{Builder, CallOptions, Client, State};

/// Turns in which BYE is given the chance to leave when a client is dropped: one to write it, one
/// for what the first left over.
const LAST_TURNS: u32 = 2;

/// Turns before a call in which what happened since the last one is looked at: one to read the end
/// of a connection, one to tell the client, and some for what else there was. One is enough if
/// nothing happened.
const CATCH_UP_TURNS_MAX: u32 = 4;

/// A client that blocks its thread for each call.
///
/// A remote call reads like a local one, through the stub that `service!` makes:
///
/// ```no_run
/// # onceloop_protocol::service! { /// Sums.
/// #     pub mod calc { /// Adds.
/// #         fn add(a: i32, b: i32) -> i32; } }
/// use onceloop_client::BlockingClient;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut calc = calc::Stub(BlockingClient::connect("localhost:7000")?);
/// let z = calc.add(3, 4)?;
/// # Ok(()) }
/// ```
///
/// Its loop turns only during calls: between them nothing is read, and a connection that breaks
/// then is found broken, and made anew, at the beginning of the next call. Dropped, it tells the
/// server that the session is over.
pub struct BlockingClient {
    reactor: Reactor<()>,
    client: Client<()>,
}

impl BlockingClient {
    /// Makes a client of the server at `address`: `host:port`, `[::1]:port`, `unix:/path`, or a
    /// `SocketAddr`. It connects with the first call, and does not mind if the server comes later.
    ///
    /// # Errors
    /// If the address is none, or the system refuses what a loop needs.
    pub fn connect(address: impl ToAddress) -> io::Result<BlockingClient> {
        BlockingClient::connect_with(Client::builder(), address)
    }

    /// Makes a client with what `builder` has chosen.
    ///
    /// # Errors
    /// As for [`BlockingClient::connect`].
    pub fn connect_with(
        builder: Builder<()>,
        address: impl ToAddress,
    ) -> io::Result<BlockingClient> {
        let mut reactor = Reactor::new()?;
        let client = builder.connect(reactor.registry(), address)?;
        Ok(BlockingClient { reactor, client })
    }

    /// Calls `method`, exactly once within the default time, and returns its reply.
    ///
    /// # Errors
    /// See [`CallError`]: its kinds tell whether the method ran.
    pub fn call<M: Method>(
        &mut self,
        method: M,
        args: M::Args<'_>,
    ) -> Result<M::Owned, CallError<M::Error>> {
        self.call_with(CallOptions::new(), method, args)
    }

    /// Calls `method` as `options` say, and returns its reply.
    ///
    /// # Errors
    /// See [`CallError`]: its kinds tell whether the method ran.
    pub fn call_with<M: Method>(
        &mut self,
        options: CallOptions,
        method: M,
        args: M::Args<'_>,
    ) -> Result<M::Owned, CallError<M::Error>> {
        if let Err(error) = self.catch_up() {
            let class = Class::NotExecuted;
            return Err(CallError::NotExecuted(Fault { class, ..no_loop(&error) }));
        }
        let answer = Rc::new(Cell::new(None));
        let slot = Rc::clone(&answer);
        self.client.call_with(self.reactor.registry(), options, method, args, move |reply, _| {
            slot.set(Some(reply.map(M::into_owned)));
        });
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            if let Err(error) = self.reactor.turn(&mut (), None) {
                return Err(CallError::Indeterminate(no_loop(&error)));
            }
        }
    }

    /// Sends `method` once and asks for no answer; it is written before this returns, if there is a
    /// connection, else by a later call.
    ///
    /// # Errors
    /// As for [`Client::notify`].
    pub fn notify<M: Method>(&mut self, method: M, args: M::Args<'_>) -> Result<(), Fault> {
        self.catch_up().map_err(|error| no_loop(&error))?;
        self.client.notify(self.reactor.registry(), method, args)?;
        self.reactor.turn(&mut (), Some(Duration::ZERO)).map(drop).map_err(|error| no_loop(&error))
    }

    /// Looks at what happened since the last call. A call that is sent on a connection which is long
    /// gone might have run, for all that can be told if its server was restarted meanwhile.
    fn catch_up(&mut self) -> io::Result<()> {
        for _ in 0..CATCH_UP_TURNS_MAX {
            let turn = self.reactor.turn(&mut (), Some(Duration::ZERO))?;
            if turn.events == 0 && turn.tasks == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Returns where the client stands, as of its last call.
    pub fn state(&mut self) -> State {
        self.client.state(self.reactor.registry())
    }

    /// Returns the client and the registry of its loop, for what this face does not offer; the loop
    /// turns only during calls.
    pub fn parts(&mut self) -> (Client<()>, &mut Registry<()>) {
        (self.client, self.reactor.registry())
    }
}

impl Caller for BlockingClient {
    fn call<M: Method>(
        &mut self,
        method: M,
        args: M::Args<'_>,
    ) -> Result<M::Owned, CallError<M::Error>> {
        BlockingClient::call(self, method, args)
    }
}

impl Drop for BlockingClient {
    fn drop(&mut self) {
        self.client.close(self.reactor.registry());
        for _ in 0..LAST_TURNS {
            if let Err(error) = self.reactor.turn(&mut (), Some(Duration::ZERO)) {
                log::debug!("the session is left to its lease: {error}");
            }
        }
    }
}

/// The fault of a call whose loop failed: it may have left.
fn no_loop(error: &io::Error) -> Fault {
    Fault {
        code: Some(Code::Cancelled),
        class: Class::Unknown,
        message: format!("the loop of the client failed: {error}"),
        retry_after_ms: None,
    }
}
