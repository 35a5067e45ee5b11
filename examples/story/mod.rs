//! What the examples that tell a story share: a server, its clients and the wire between them, on
//! one loop. The wire loses what it is told to lose, so that a story goes the same way each time.
#![allow(dead_code, reason = "no story needs all of it")]

mod wire;

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use onceloop::protocol::handshake::Order;
use onceloop::{
    Address, Builder, CallError, CallOptions, Client, Limits, Method, Ran, Reactor, Server,
};

pub(crate) use wire::Harm;
use wire::Wire;

/// What the parts of a story may fail with: sockets that are refused.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// How a call ended.
pub(crate) type Answer<M> = Result<<M as Method>::Owned, CallError<<M as Method>::Error>>;

/// How long a turn waits, if nothing happens, before the story looks again.
const TURN: Duration = Duration::from_millis(20);

/// Longer than any story.
const NEVER: Duration = Duration::from_secs(3_600);

/// How long a story waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A loop, and who is on it.
pub(crate) struct Story<S: 'static> {
    /// The state of the server's handlers.
    pub(crate) state: S,
    reactor: Reactor<S>,
    server: Server<S>,
    wire: Wire,
}

/// A call whose answer is not awaited yet.
pub(crate) struct Call<M: Method> {
    answer: Rc<Cell<Option<Answer<M>>>>,
}

impl<S: 'static> Story<S> {
    pub(crate) fn begin(state: S, server: Builder<S>) -> Outcome<Story<S>> {
        let mut reactor = Reactor::new()?;
        let server = server.listen(reactor.registry(), "127.0.0.1:0")?;
        let address = address(server, &mut reactor)?;
        let wire = Wire::new(reactor.registry(), address)?;
        Ok(Story { state, reactor, server, wire })
    }

    /// Makes a client at the other end of the wire. It connects again in milliseconds.
    pub(crate) fn client(&mut self, order: Order) -> Outcome<Client<S>> {
        self.connect(limits(), order)
    }

    /// Makes a client that takes silence for a loss after milliseconds, too, not after seconds.
    pub(crate) fn impatient_client(&mut self, order: Order) -> Outcome<Client<S>> {
        let mut limits = limits();
        limits.retransmit_timeout = Duration::from_millis(50);
        self.connect(limits, order)
    }

    /// Makes a client that has one connection and no other after it.
    pub(crate) fn client_of_one_connection(&mut self) -> Outcome<Client<S>> {
        let mut limits = limits();
        limits.backoff_min = NEVER;
        limits.backoff_max = NEVER;
        self.connect(limits, Order::Unordered)
    }

    fn connect(&mut self, limits: Limits, order: Order) -> Outcome<Client<S>> {
        let builder = Client::builder().limits(limits).order(order);
        Ok(builder.connect(self.reactor.registry(), self.wire.address)?)
    }

    /// Harms what is said next, once.
    pub(crate) fn harm(&mut self, harm: Harm) {
        self.wire.harm_next(self.reactor.registry(), harm);
    }

    /// Calls, and does not wait.
    pub(crate) fn start<M: Method + 'static>(
        &mut self,
        client: Client<S>,
        options: CallOptions,
        method: M,
        args: M::Args<'_>,
    ) -> Call<M> {
        let answer = Rc::new(Cell::new(None));
        let slot = Rc::clone(&answer);
        client.call_with(self.reactor.registry(), options, method, args, move |reply, _| {
            slot.set(Some(reply.map(M::into_owned)));
        });
        Call { answer }
    }

    /// Turns the loop until a call has ended. It does: every call has a deadline.
    pub(crate) fn wait<M: Method>(&mut self, call: &Call<M>) -> Outcome<Answer<M>> {
        loop {
            if let Some(answer) = call.answer.take() {
                return Ok(answer);
            }
            self.turn()?;
        }
    }

    /// Calls, and waits.
    pub(crate) fn call<M: Method + 'static>(
        &mut self,
        client: Client<S>,
        options: CallOptions,
        method: M,
        args: M::Args<'_>,
    ) -> Outcome<Answer<M>> {
        let call = self.start(client, options, method, args);
        self.wait(&call)
    }

    /// Turns the loop until the harm is done.
    pub(crate) fn wait_for_harm(&mut self) -> Outcome<()> {
        while self.wire.is_to_harm(self.reactor.registry()) {
            self.turn()?;
        }
        Ok(())
    }

    /// Ends the server and starts another. The state outlives that, as if it were on a disk; the
    /// sessions, which were in memory, are forgotten.
    pub(crate) fn crash(&mut self, next: Builder<S>) -> Outcome<()> {
        self.server.close(self.reactor.registry());
        self.server = next.listen(self.reactor.registry(), "127.0.0.1:0")?;
        let address = address(self.server, &mut self.reactor)?;
        self.wire.lead_to(self.reactor.registry(), address);
        Ok(())
    }

    /// Lets what was held up arrive, and returns whether there was still a connection for it.
    pub(crate) fn let_it_arrive(&mut self) -> bool {
        self.wire.let_it_arrive(self.reactor.registry())
    }

    /// Turns the loop until the state is so.
    pub(crate) fn until(&mut self, is_so: impl Fn(&S) -> bool) -> Outcome<()> {
        let give_up_at = Instant::now() + PATIENCE;
        while !is_so(&self.state) {
            if Instant::now() > give_up_at {
                return Err("what the story waits for does not happen".into());
            }
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Outcome<()> {
        self.reactor.turn(&mut self.state, Some(TURN))?;
        Ok(())
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.backoff_min = Duration::from_millis(1);
    limits.backoff_max = Duration::from_millis(10);
    limits.retries_per_second = 1_000;
    limits
}

fn address<S: 'static>(
    server: Server<S>,
    reactor: &mut Reactor<S>,
) -> Outcome<std::net::SocketAddr> {
    match server.local_addresses(reactor.registry()).first() {
        Some(Address::Tcp(address)) => Ok(*address),
        _ => Err("the server listens nowhere".into()),
    }
}

/// Says what a caller knows after a call.
pub(crate) fn told<T: std::fmt::Display, E>(answer: &Result<T, CallError<E>>) -> String {
    match answer {
        Ok(reply) => format!("Ok({reply})"),
        Err(error) => match error.ran() {
            Ran::Yes => "it ran, without a result".to_owned(),
            Ran::No => "NotExecuted".to_owned(),
            Ran::Unknown => "Indeterminate".to_owned(),
        },
    }
}
