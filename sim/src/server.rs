//! A server's host: a program that serves the ledger, is killed, drained and begun anew.

mod broken;
mod handlers;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use onceloop::reactor::Turn;
use onceloop::reactor::sim::{Host, Process as Running, Program, Random};
use onceloop::{Cx, Reactor, Registry, Server, Stats};

use crate::client::PORT;
use crate::oracle::Process;
use crate::shared::Shared;

/// How long a drain may take.
const DRAIN: Duration = Duration::from_secs(5);

/// The state of the program.
pub(crate) struct ServerApp {
    shared: Rc<Shared>,
    host: Host,
    /// The server's process; a server that was drained and begins anew counts as another.
    me: Process,
    random: Random,
    server: Option<Server<ServerApp>>,
    is_draining: bool,
}

impl ServerApp {
    fn set_draining(&mut self, is_draining: bool) {
        let before = std::mem::replace(&mut self.is_draining, is_draining);
        let draining = self.shared.draining.get() + u32::from(is_draining) - u32::from(before);
        self.shared.draining.set(draining);
    }
}

impl Drop for ServerApp {
    fn drop(&mut self) {
        self.set_draining(false);
    }
}

/// Starts the program.
pub(crate) fn boot(shared: &Rc<Shared>, place: usize, host: &Host) -> io::Result<Box<dyn Running>> {
    let me = shared.boot(place);
    let random = shared.plan.random.fork("server").fork_by(place as u64).fork_by(me.boot.into());
    let mut reactor = Reactor::simulated(host, shared.plan.servers[place].config.clone());
    let mut state = ServerApp {
        shared: Rc::clone(shared),
        host: host.clone(),
        me,
        random,
        server: None,
        is_draining: false,
    };
    if me.boot > 1 {
        shared.oracle.borrow_mut().server_restarted(place);
    }
    if let Some(disk) = shared.ledgers.disk(place) {
        let commits = disk.unsafe_commits() as u64;
        disk.crash(
            usize::try_from(state.random.below(commits + 1)).expect("no more than there are"),
        );
    }
    let fails_after = shared.plan.servers[place].fails_after;
    if !fails_after.is_zero() {
        reactor.registry().after(fails_after, fail_store);
    }
    start(&mut state, reactor.registry());
    Ok(Box::new(Checked { program: Program::new(reactor, state), stats: (me, Stats::default()) }))
}

/// A server of which the invariants are checked after every turn.
struct Checked {
    program: Program<ServerApp>,
    /// What it had counted by the last turn.
    stats: (Process, Stats),
}

impl Running for Checked {
    fn turn(&mut self) -> io::Result<Turn> {
        let turned = self.program.turn();
        let state = &self.program.state;
        if let Some(server) = state.server {
            let registry = self.program.reactor.registry();
            server.check_invariants(registry);
            let now = (state.me, server.stats(registry));
            let is_another = now.0 != self.stats.0;
            let before = if is_another { Stats::default() } else { self.stats.1.clone() };
            // One that is drained has nothing more to tell.
            if now.1.connections_accepted >= before.connections_accepted {
                state.shared.work.borrow_mut().add_server(&now.1, &before);
                self.stats = now;
            }
        }
        turned
    }

    fn next_deadline(&self) -> Option<std::time::Instant> {
        self.program.next_deadline()
    }
}

fn start(state: &mut ServerApp, registry: &mut Registry<ServerApp>) {
    let address = std::net::SocketAddr::new(state.host.address(), PORT);
    let server = handlers::builder(state).listen(registry, address);
    state.server = Some(server.unwrap_or_else(|error| panic!("nobody else listens here: {error}")));
    let drain_every = state.shared.plan.servers[state.me.host].drain_every;
    if !drain_every.is_zero() {
        registry.after(drain_every, drain);
    }
}

/// The store fails: the server ends, and is started anew.
fn fail_store(cx: &mut Cx<'_, ServerApp>) {
    let state = &*cx.state;
    let disk = state.shared.ledgers.disk(state.me.host);
    if let Some(disk) = disk.filter(|_| !state.shared.is_healed.get()) {
        state.shared.oracle.borrow().note(state.me.host, format_args!("its store fails"));
        state.shared.work.borrow_mut().stores_failed += 1;
        disk.fail("by a fault");
    }
}

/// Drains the server, and begins anew.
fn drain(cx: &mut Cx<'_, ServerApp>) {
    let Some(server) = cx.state.server.filter(|_| !cx.state.shared.is_healed.get()) else { return };
    cx.state.set_draining(true);
    cx.state.shared.oracle.borrow().note(cx.state.me.host, format_args!("drains"));
    server.drain(cx.registry, DRAIN, |_, cx| {
        let state = &mut *cx.state;
        state.set_draining(false);
        // What it has written arrives, though nobody waits for it any more.
        if let Some(disk) = state.shared.ledgers.disk(state.me.host) {
            disk.crash(disk.unsafe_commits());
        }
        state.me = state.shared.boot(state.me.host);
        state.shared.oracle.borrow_mut().server_restarted(state.me.host);
        start(state, cx.registry);
    });
}
