//! What the examples that tell a story share: a server, its clients and the wire between them, on a
//! host of a simulated world (`onceloop::sim`). They are the same servers and clients as on sockets;
//! but time costs nothing there, and a seed tells all that happens: each run prints the same.
#![allow(dead_code, reason = "no story needs all of it")]

mod wire;

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use onceloop::protocol::handshake::Order;
use onceloop::sim::{Faults, Host, Program, Simulation, Step};
use onceloop::{
    Address, Builder, CallError, CallOptions, Client, Config, Limits, Method, Ran, Reactor,
    Registry, Server,
};

pub(crate) use wire::Harm;
use wire::Wire;

/// What the parts of a story may fail with.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// How a call ended.
pub(crate) type Answer<M> = Result<<M as Method>::Owned, CallError<<M as Method>::Error>>;

/// Of which nothing hangs here but how long things take: what fails is what the story says.
const SEED: u64 = 0;

/// Longer than any story.
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// A world in which a story is told, and who is in it.
pub(crate) struct Story<S: 'static> {
    simulation: Simulation,
    host: Host,
    server: Server<S>,
    wire: Wire,
}

/// A call whose answer is not awaited yet.
pub(crate) struct Call<M: Method> {
    answer: Rc<Cell<Option<Answer<M>>>>,
}

impl<S: 'static> Story<S> {
    /// Begins with a server, whose handlers have this state.
    pub(crate) fn begin(state: S, server: Builder<S>) -> Outcome<Story<S>> {
        let mut simulation = Simulation::new(SEED, Faults::none());
        let host = simulation.world().host("stage");
        let mut state = Some(state);
        simulation.add(host.clone(), move |host| {
            let reactor = Reactor::simulated(host, Config::simulated());
            let state = state.take().ok_or_else(|| io::Error::other("it is told once"))?;
            Ok(Box::new(Program::new(reactor, state)))
        });
        let registry = registry::<S>(&mut simulation, &host);
        let server = server.listen(registry, "127.0.0.1:0")?;
        let wire = Wire::new(registry, address(server, registry)?)?;
        Ok(Story { simulation, host, server, wire })
    }

    /// Returns the state of the server's handlers.
    pub(crate) fn state(&mut self) -> &S {
        &program(&mut self.simulation, &self.host).state
    }

    /// Makes a client at the other end of the wire.
    pub(crate) fn client(&mut self, order: Order) -> Outcome<Client<S>> {
        let address = self.wire.address;
        Ok(Client::builder().order(order).connect(self.registry(), address)?)
    }

    /// Makes a client that has one connection and no other after it.
    pub(crate) fn client_of_one_connection(&mut self) -> Outcome<Client<S>> {
        let mut limits = Limits::default();
        limits.backoff_min = NEVER;
        limits.backoff_max = NEVER;
        let address = self.wire.address;
        Ok(Client::builder().limits(limits).connect(self.registry(), address)?)
    }

    /// Harms what is said next, once.
    pub(crate) fn harm(&mut self, harm: Harm) {
        let wire = self.wire;
        wire.harm_next(self.registry(), harm);
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
        client.call_with(self.registry(), options, method, args, move |reply, _| {
            slot.set(Some(reply.map(M::into_owned)));
        });
        Call { answer }
    }

    /// Lets time pass until a call has ended.
    pub(crate) fn wait<M: Method>(&mut self, call: &Call<M>) -> Outcome<Answer<M>> {
        loop {
            if let Some(answer) = call.answer.take() {
                return Ok(answer);
            }
            self.step()?;
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

    /// Lets time pass until the harm is done.
    pub(crate) fn wait_for_harm(&mut self) -> Outcome<()> {
        let wire = self.wire;
        while wire.is_to_harm(self.registry()) {
            self.step()?;
        }
        Ok(())
    }

    /// Ends the server and starts another. The state outlives that, as if it were on a disk; the
    /// sessions, which were in memory, are forgotten.
    pub(crate) fn crash(&mut self, next: Builder<S>) -> Outcome<()> {
        let registry = registry::<S>(&mut self.simulation, &self.host);
        self.server.close(registry);
        self.server = next.listen(registry, "127.0.0.1:0")?;
        let address = address(self.server, registry)?;
        self.wire.lead_to(registry, address);
        Ok(())
    }

    /// Lets what was held up arrive, and returns whether there was still a connection for it.
    pub(crate) fn let_it_arrive(&mut self) -> bool {
        let wire = self.wire;
        wire.let_it_arrive(self.registry())
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.simulation.run_for(time);
    }

    fn step(&mut self) -> Outcome<()> {
        if self.simulation.step() == Step::Idle || self.simulation.world().now() > NEVER {
            return Err("what the story waits for does not happen".into());
        }
        Ok(())
    }

    fn registry(&mut self) -> &mut Registry<S> {
        registry(&mut self.simulation, &self.host)
    }
}

fn program<'a, S: 'static>(simulation: &'a mut Simulation, host: &Host) -> &'a mut Program<S> {
    simulation.program(host).expect("nothing ends the process of a story")
}

fn registry<'a, S: 'static>(simulation: &'a mut Simulation, host: &Host) -> &'a mut Registry<S> {
    program(simulation, host).reactor.registry()
}

fn address<S: 'static>(server: Server<S>, registry: &Registry<S>) -> Outcome<SocketAddr> {
    match server.local_addresses(registry).first() {
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
