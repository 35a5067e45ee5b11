//! The world: hosts, what is between them, and the true time.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use super::connection::{Connection, Key, Listening};
use super::host::{Host, HostState};
use super::queue::{Event, Queue, Strike};
use super::random::nanos;
use super::trace::{Line, Trace, What};
use super::{Fault, Faults, KillMode, Random, Tally};

/// Network, clocks, entropy and failures of many hosts, all from one seed.
///
/// A handle; its clones are one world. A [`Simulation`](super::Simulation) makes one and moves its
/// time.
#[derive(Clone)]
pub struct World(Rc<RefCell<Inner>>);

impl World {
    /// Makes a world without hosts, at time zero.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let random = Random::new(seed);
        let mut inner = Inner {
            seed,
            now: 0,
            queue: Queue::default(),
            hosts: Vec::new(),
            connections: Slab::new(),
            listeners: Slab::new(),
            seats: Slab::new(),
            partitions: Vec::new(),
            numbers: 0,
            network: random.fork("network"),
            chance: random.fork("chance"),
            faults: Faults::none(),
            faults_epoch: 0,
            tally: Tally::default(),
            trace: Trace::new(),
            spare: Vec::new(),
        };
        inner.set_faults(faults);
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Returns the seed that all of this is from.
    pub fn seed(&self) -> u64 {
        self.inner().seed
    }

    /// Returns the true time since the world began. Hosts do not know it; each has a clock of its
    /// own ([`Host::now`]).
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.inner().now)
    }

    /// Returns the host of this name, which is made if there is none: the n-th has the address
    /// 10.0.0.n. Other hosts find it by its name.
    ///
    /// # Panics
    ///
    /// If there are 65 000 already, or the name holds a colon.
    pub fn host(&self, name: &str) -> Host {
        let index = self.inner_mut().host(name);
        Host::new(self.clone(), index)
    }

    /// Returns a generator for a part of the workload: a fork of the world's seed, independent of
    /// all that the world draws.
    pub fn random(&self, label: &str) -> Random {
        Random::new(self.inner().seed).fork("workload").fork(label)
    }

    /// Sets the faults that strike from now on. What goes on already is not ended by that; see
    /// [`World::heal`]. Each host draws its clock's rate anew.
    pub fn set_faults(&self, faults: Faults) {
        self.inner_mut().set_faults(faults);
    }

    /// Ends what goes on: hosts hear each other and no longer stand still, those that are down are
    /// started anew. A connection whose bytes vanish in one direction or both is reset at both
    /// ends, since what has vanished cannot come again. What else is under way arrives at its time
    /// (late connections and delayed segments too), what was held up by a partition soon.
    ///
    /// With [`Faults::none`] set before, nothing strikes after it: what is still not done some time
    /// later never will be.
    pub fn heal(&self) {
        self.inner_mut().heal();
    }

    /// What `from` sends no longer arrives at `to`, until [`World::rejoin`] or [`World::heal`]: it
    /// arrives then. Connections are neither made nor broken by it. Not counted as a fault.
    pub fn part(&self, from: &Host, to: &Host) {
        let mut inner = self.inner_mut();
        inner.partitions.push(Partition { from: from.index, to: to.index, until: u64::MAX });
    }

    /// Ends all partitions, those that were drawn too.
    pub fn rejoin(&self) {
        let mut inner = self.inner_mut();
        inner.partitions.clear();
        inner.release_held();
    }

    /// Returns how often each kind of fault has struck.
    pub fn tally(&self) -> Tally {
        self.inner().tally.clone()
    }

    /// Notes something of the workload in the trace, as of this host or of none (`""`).
    pub fn note(&self, host: &str, text: &str) {
        let inner = &mut *self.inner_mut();
        inner.trace.line(inner.now, host, What::Note { text });
    }

    /// Has each line of the trace shown to `on_line`, from now on. Without it lines are hashed and
    /// not made.
    ///
    /// `on_line` must not use the world: it is called while the world is at work.
    pub fn trace(&self, on_line: impl FnMut(&Line<'_>) + 'static) {
        self.inner_mut().trace.set(Some(Box::new(on_line)));
    }

    /// Has the trace shown to nobody any more.
    pub fn trace_off(&self) {
        self.inner_mut().trace.set(None);
    }

    /// Returns a hash of all that has happened until now: the trace's lines, and the bytes that
    /// were written. Two runs are the same if it is.
    pub fn trace_hash(&self) -> u64 {
        self.inner().trace.hash()
    }

    /// Returns how many lines the trace has.
    pub fn trace_lines(&self) -> u64 {
        self.inner().trace.lines()
    }

    pub(crate) fn inner(&self) -> Ref<'_, Inner> {
        self.0.borrow()
    }

    pub(crate) fn inner_mut(&self) -> RefMut<'_, Inner> {
        self.0.borrow_mut()
    }

    pub(crate) fn try_inner_mut(&self) -> Option<RefMut<'_, Inner>> {
        self.0.try_borrow_mut().ok()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("World");
        if let Ok(inner) = self.0.try_borrow() {
            debug.field("seed", &inner.seed).field("now", &Duration::from_nanos(inner.now));
        }
        debug.finish_non_exhaustive()
    }
}

/// All that the world is.
pub(crate) struct Inner {
    seed: u64,
    /// True time, in nanoseconds.
    pub(crate) now: u64,
    pub(crate) queue: Queue,
    pub(crate) hosts: Vec<HostState>,
    pub(crate) connections: Slab<Connection>,
    pub(crate) listeners: Slab<Listening>,
    pub(crate) seats: Slab<SeatState>,
    pub(crate) partitions: Vec<Partition>,
    /// Connections and listening sockets made until now.
    pub(crate) numbers: u64,
    /// Each connection has a fork of it.
    pub(crate) network: Random,
    /// Each kind of fault of time has a fork of it.
    pub(crate) chance: Random,
    pub(crate) faults: Faults,
    /// Counts the settings of the faults: strikes of an earlier one are void.
    pub(crate) faults_epoch: u32,
    pub(crate) tally: Tally,
    pub(crate) trace: Trace,
    /// Buffers for segments.
    pub(crate) spare: Vec<Vec<u8>>,
}

/// A reactor of a host, as the world knows it.
pub(crate) struct SeatState {
    pub(crate) ready: VecDeque<Ready>,
}

/// A socket with news for its reactor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    Listener(Key),
    Socket(Key, usize),
}

/// What one host sends does not arrive at the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partition {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) until: u64,
}

/// What the simulation has to do, which owns the processes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Boot { host: usize },
    Kill { host: usize, mode: KillMode, down: u64 },
    Nothing,
}

impl Inner {
    /// Brings about what is next.
    pub(crate) fn happen(&mut self) -> Action {
        let Some(at) = self.queue.next_at() else { return Action::Nothing };
        self.now = self.now.max(at);
        let Some(event) = self.queue.pop() else { return Action::Nothing };
        match event {
            Event::Deliver { to, key } => self.deliver(key, to),
            Event::PartitionEnds => self.end_partitions(),
            Event::Refused { key, attempts } => self.refused(key, attempts),
            Event::Reset { key } => self.reset_by_fault(key),
            Event::ResetArrives { at, key } => self.reset_arrives(key, at),
            Event::Restart { host } => return Action::Boot { host },
            Event::Room { side, key } => self.has_room(key, side),
            Event::Strike { strike, epoch } if epoch == self.faults_epoch => {
                return self.strike(strike);
            }
            Event::Strike { .. } => {}
            Event::Syn { key, attempts } => self.syn(key, attempts),
            Event::SynAck { key, attempts } => self.syn_ack(key, attempts),
        }
        Action::Nothing
    }

    pub(crate) fn line(&mut self, host: usize, what: What<'_>) {
        self.trace.line(self.now, &self.hosts[host].name, what);
    }

    /// Notes and counts a fault. `connection` is 0 if it is of none.
    pub(crate) fn fault(&mut self, host: usize, fault: Fault, connection: u64) {
        self.tally.add(fault);
        self.line(host, What::Fault { fault, connection });
    }

    fn host(&mut self, name: &str) -> usize {
        assert!(!name.contains(':'), "a colon stands before a port: {name}");
        if let Some(index) = self.hosts.iter().position(|host| host.name == name) {
            return index;
        }
        let index = self.hosts.len();
        let random = Random::new(self.seed).fork("hosts").fork(name);
        self.hosts.push(HostState::new(name, index, &random));
        self.draw_drift(index);
        index
    }

    /// Which host has this address, as seen from `from`.
    pub(crate) fn host_at(&self, from: usize, address: SocketAddr) -> Option<usize> {
        let ip = address.ip();
        if ip.is_loopback() || ip.is_unspecified() {
            return Some(from);
        }
        self.hosts.iter().position(|host| host.address == ip)
    }

    fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.faults_epoch += 1;
        for strike in Strike::ALL {
            self.schedule_strike(strike);
        }
        for host in 0..self.hosts.len() {
            self.draw_drift(host);
        }
    }

    /// Ends partitions whose time is over; what they held up comes in soon.
    fn end_partitions(&mut self) {
        let now = self.now;
        self.partitions.retain(|partition| partition.until > now);
        self.release_held();
    }

    pub(crate) fn is_parted(&self, from: usize, to: usize) -> bool {
        !self.partitions.is_empty()
            && self.partitions.iter().any(|parted| (parted.from, parted.to) == (from, to))
    }

    fn heal(&mut self) {
        self.trace.line(self.now, "", What::Healed);
        self.partitions.clear();
        self.release_held();
        self.reset_vanishing();
        self.spare_connections();
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            host.stalled_until = 0;
            if host.restarts {
                self.queue.push(self.now, Event::Restart { host: index });
            }
        }
    }

    /// A time from now on, in nanoseconds.
    pub(crate) fn after(&self, delay: Duration) -> u64 {
        self.now.saturating_add(nanos(delay))
    }
}
