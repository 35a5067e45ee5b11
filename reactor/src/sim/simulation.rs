//! A world with processes in it, and the time that passes.

use std::any::Any;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::world::Action;
use super::{Faults, Host, What, World};
use crate::{Reactor, Turn};

/// What runs on a host.
///
/// [`Program`] is one: a reactor and its state.
pub trait Process: Any {
    /// Makes one turn, without blocking.
    ///
    /// # Errors
    ///
    /// What [`Reactor::turn`] says.
    fn turn(&mut self) -> io::Result<Turn>;

    /// Returns when it has to make the next turn, in the time of its host.
    fn next_deadline(&self) -> Option<Instant>;
}

/// A reactor and the state it runs over.
#[derive(Debug)]
pub struct Program<S: 'static> {
    /// The reactor, made by [`Reactor::simulated`].
    pub reactor: Reactor<S>,
    /// The program's state.
    pub state: S,
}

impl<S> Program<S> {
    /// Puts the two together.
    pub fn new(reactor: Reactor<S>, state: S) -> Self {
        Self { reactor, state }
    }
}

impl<S> Process for Program<S> {
    fn turn(&mut self) -> io::Result<Turn> {
        self.reactor.turn(&mut self.state, Some(Duration::ZERO))
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.reactor.next_deadline()
    }
}

/// How a host dies.
///
/// Exhaustive: with its system, or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillMode {
    /// The machine dies: nobody is told, and nobody answers until it is started anew; then what
    /// comes for old connections is reset.
    Machine,
    /// The process dies, and its system closes its sockets: peers read the end, or a reset.
    Process,
}

/// What a step was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The process of a host was started anew.
    Booted(Host),
    /// The process of a host ended by [`Registry::stop`](crate::Registry::stop); nothing starts it
    /// anew but [`Simulation::restart`].
    Exited(Host),
    /// Something happened between the hosts.
    Happened,
    /// Nothing is to happen any more: no host has a deadline, nothing is under way.
    Idle,
    /// The process of a host was killed by a fault.
    Killed(Host, KillMode),
    /// A host made a turn.
    Turned(Host),
}

type Boot = Box<dyn FnMut(&Host) -> io::Result<Box<dyn Process>>>;

/// A host of the simulation.
struct Node {
    host: Host,
    boot: Boot,
    process: Option<Box<dyn Process>>,
}

/// A [`World`] and the processes on its hosts, step by step.
///
/// Time passes only here: each step goes to the next happening, whichever it is (something arrives,
/// a deadline of a host, a fault), or has the host run whose turn it is. A turn takes a host some
/// microseconds, in which it does nothing else.
pub struct Simulation {
    world: World,
    nodes: Vec<Node>,
}

impl Simulation {
    /// Makes a world without hosts; see [`World::new`].
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self { world: World::new(seed, faults), nodes: Vec::new() }
    }

    /// Returns the world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Runs a process on a host: `boot` makes it now, and anew after each time that it is killed.
    /// What is to survive that (a disk) is what `boot` holds on to.
    ///
    /// # Panics
    ///
    /// If the host has a process already, or `boot` fails.
    pub fn add(
        &mut self,
        host: Host,
        boot: impl FnMut(&Host) -> io::Result<Box<dyn Process>> + 'static,
    ) {
        assert!(self.node(&host).is_none(), "{} has a process already", host.name());
        self.nodes.push(Node { host, boot: Box::new(boot), process: None });
        self.boot(self.nodes.len() - 1);
    }

    /// Kills the process of a host, or its machine. Nothing starts it anew but
    /// [`Simulation::restart`] and [`World::heal`].
    pub fn kill(&mut self, host: &Host, mode: KillMode) {
        if let Some(node) = self.node(host) {
            self.end(node, Some(mode));
        }
    }

    /// Starts the process of a host anew; one that runs is killed first.
    ///
    /// # Panics
    ///
    /// If it has no process that could be started, or that fails to.
    pub fn restart(&mut self, host: &Host) {
        let node = self.node(host).expect("a host that has a process");
        self.end(node, Some(KillMode::Process));
        self.boot(node);
    }

    /// Returns the process of a host, while it is up and of this type, to be looked at or changed
    /// between two steps.
    pub fn program<S: 'static>(&mut self, host: &Host) -> Option<&mut Program<S>> {
        let node = self.node(host)?;
        let process: &mut dyn Any = &mut **self.nodes[node].process.as_mut()?;
        process.downcast_mut()
    }

    /// Goes on to the next happening.
    ///
    /// # Panics
    ///
    /// If a process does, if its turn fails, or if one fails to start anew.
    pub fn step(&mut self) -> Step {
        self.step_until(u64::MAX).unwrap_or(Step::Idle)
    }

    /// Goes on for so long; returns whether anything is still to happen then.
    ///
    /// # Panics
    ///
    /// As [`Simulation::step`].
    pub fn run_for(&mut self, time: Duration) -> bool {
        self.run_until(time, |_| false);
        self.next().is_some()
    }

    /// Goes on until `is_done`, but for no longer than so; returns whether it is.
    ///
    /// # Panics
    ///
    /// As [`Simulation::step`].
    pub fn run_until(
        &mut self,
        time: Duration,
        mut is_done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.world.inner().after(time);
        while !is_done(self) {
            if self.step_until(end).is_none() {
                return is_done(self);
            }
        }
        true
    }

    /// Makes a step unless the next is after `end`: then time goes on until there.
    fn step_until(&mut self, end: u64) -> Option<Step> {
        let Some((at, node)) = self.next().filter(|&(at, _)| at <= end) else {
            if end != u64::MAX {
                self.world.inner_mut().now = end;
            }
            return None;
        };
        let Some(node) = node else { return Some(self.happen()) };
        let mut inner = self.world.inner_mut();
        inner.now = at;
        let state = &mut inner.hosts[self.nodes[node].host.index];
        state.wants_turn = false;
        state.busy_until = at + state.timing.range(500..20_000);
        drop(inner);
        Some(self.turn(node))
    }

    /// When something is next: of a node, or (`None`) between them, which goes first.
    fn next(&self) -> Option<(u64, Option<usize>)> {
        let inner = self.world.inner();
        let mut next = inner.queue.next_at().map(|at| (at.max(inner.now), None));
        let now = inner.now;
        drop(inner);
        for (i, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { continue };
            let deadline = process.next_deadline();
            let inner = self.world.inner();
            let state = &inner.hosts[node.host.index];
            let due = match deadline {
                _ if state.wants_turn => now,
                Some(deadline) => state.clock.when(deadline),
                None => continue,
            };
            let at = due.max(now).max(state.busy_until).max(state.stalled_until);
            if next.is_none_or(|(first, _)| at < first) {
                next = Some((at, Some(i)));
            }
        }
        next
    }

    fn happen(&mut self) -> Step {
        let action = self.world.inner_mut().happen();
        match action {
            Action::Boot { host } => self.boot_again(host),
            Action::Kill { host, mode, down } => {
                let node = self.nodes.iter().position(|node| node.host.index == host);
                let Some(node) = node else { return Step::Happened };
                self.end(node, Some(mode));
                let mut inner = self.world.inner_mut();
                inner.hosts[host].restarts = true;
                let at = inner.now + down;
                inner.queue.push(at, super::queue::Event::Restart { host });
                Step::Killed(self.nodes[node].host.clone(), mode)
            }
            Action::Nothing => Step::Happened,
        }
    }

    fn boot_again(&mut self, host: usize) -> Step {
        let node = self.nodes.iter().position(|node| node.host.index == host);
        let Some(node) = node.filter(|_| self.world.inner().hosts[host].restarts) else {
            return Step::Happened;
        };
        self.boot(node);
        Step::Booted(self.nodes[node].host.clone())
    }

    fn turn(&mut self, node: usize) -> Step {
        let this = &mut self.nodes[node];
        let process = this.process.as_mut().expect("it has a deadline");
        let turn = process.turn();
        let turn = turn.unwrap_or_else(|error| panic!("{}: {error}", this.host.name()));
        let host = this.host.clone();
        if !turn.stopped {
            return Step::Turned(host);
        }
        self.end(node, None);
        Step::Exited(host)
    }

    /// Ends the process of a node: killed, or by itself.
    fn end(&mut self, node: usize, mode: Option<KillMode>) {
        let this = &mut self.nodes[node];
        let Some(process) = this.process.take() else { return };
        let host = this.host.index;
        let mut inner = self.world.inner_mut();
        inner.line(host, mode.map_or(What::Exited, |mode| What::Killed { mode }));
        let state = &mut inner.hosts[host];
        state.is_up = false;
        state.is_dark = mode == Some(KillMode::Machine);
        // By heal at the latest, unless it wanted to end.
        state.restarts = mode.is_some();
        drop(inner);
        drop(process);
        self.world.inner_mut().close_all(host);
    }

    fn boot(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let mut inner = self.world.inner_mut();
        let state = &mut inner.hosts[this.host.index];
        state.is_up = true;
        state.is_dark = false;
        state.restarts = false;
        state.stalled_until = 0;
        inner.line(this.host.index, What::Booted);
        drop(inner);
        let process = (this.boot)(&this.host);
        let name = this.host.name();
        this.process =
            Some(process.unwrap_or_else(|error| panic!("{name} does not start: {error}")));
    }

    fn node(&self, host: &Host) -> Option<usize> {
        self.nodes.iter().position(|node| node.host == *host)
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("world", &self.world).finish_non_exhaustive()
    }
}
