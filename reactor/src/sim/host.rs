//! A machine of the world, and the process on it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::{Random, World};

/// A machine of a [`World`]: an address, a name, a clock, and entropy of its own.
///
/// A handle; its clones are one host. It outlives the processes that run on it, one after the
/// other.
#[derive(Clone)]
pub struct Host {
    world: World,
    pub(crate) index: usize,
}

impl Host {
    pub(crate) fn new(world: World, index: usize) -> Self {
        Self { world, index }
    }

    /// Returns its address: 10.0.0.1 for the first, and so on.
    pub fn address(&self) -> IpAddr {
        self.world.inner().hosts[self.index].address
    }

    /// Returns its name, by which other hosts find it.
    pub fn name(&self) -> String {
        self.world.inner().hosts[self.index].name.clone()
    }

    /// Reads its clock, which may drift and leap forward but never goes back. Instants of two hosts
    /// have nothing to do with each other.
    pub fn now(&self) -> Instant {
        let inner = self.world.inner();
        inner.hosts[self.index].clock.show(inner.now)
    }

    /// Returns the world that it is in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Whether a process runs on it, one that was booted by a [`Simulation`](super::Simulation).
    pub fn is_up(&self) -> bool {
        self.world.inner().hosts[self.index].is_up
    }

    /// Exempts it from being killed by a fault, or no longer. ([`Simulation::kill`] kills it all the
    /// same.)
    ///
    /// [`Simulation::kill`]: super::Simulation::kill
    pub fn set_immortal(&self, is_immortal: bool) {
        self.world.inner_mut().hosts[self.index].is_immortal = is_immortal;
    }

    /// Puts its clock forward at once.
    pub fn leap(&self, by: Duration) {
        self.world.inner_mut().hosts[self.index].clock.leap(by);
    }

    /// Lets its clock run faster by so many parts of a million, or slower; at most by half.
    pub fn drift(&self, ppm: i32) {
        let mut inner = self.world.inner_mut();
        let now = inner.now;
        inner.hosts[self.index].clock.drift(now, ppm);
    }

    /// Lets it stand still: the process on it makes no turn for so long, while its clock goes on
    /// and its sockets fill.
    pub fn stall(&self, lasts: Duration) {
        let mut inner = self.world.inner_mut();
        let until = inner.after(lasts);
        let host = &mut inner.hosts[self.index];
        host.stalled_until = host.stalled_until.max(until);
    }

    /// Notes something of it in the trace.
    pub fn note(&self, text: &str) {
        let mut inner = self.world.inner_mut();
        inner.line(self.index, super::What::Note { text });
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        self.world.inner_mut().hosts[self.index].entropy.fill(bytes);
    }

    /// Draws how long something takes that is done beside the loop.
    pub(crate) fn delay(&self, least: Duration, most: Duration) -> Duration {
        let mut inner = self.world.inner_mut();
        let timing = &mut inner.hosts[self.index].timing;
        let (least, most) = (super::random::nanos(least), super::random::nanos(most));
        Duration::from_nanos(timing.spread(least, most))
    }

    /// Looks a name up: `host:port`.
    pub(crate) fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let unknown =
            |what: &str| io::Error::new(io::ErrorKind::NotFound, format!("{name}: {what}"));
        let (host, port) = name.rsplit_once(':').ok_or_else(|| unknown("it has no port"))?;
        let port = port.parse().map_err(|_| unknown("its port is no number"))?;
        if host == "localhost" {
            return Ok(vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)]);
        }
        let inner = self.world.inner();
        let found = inner.hosts.iter().find(|known| known.name == host);
        let found = found.ok_or_else(|| unknown("no host of the world has this name"))?;
        Ok(vec![SocketAddr::new(found.address, port)])
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.index).finish()
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for Host {}

/// What the world knows of a host.
#[derive(Debug)]
pub(crate) struct HostState {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) entropy: Random,
    pub(crate) timing: Random,
    /// A process runs.
    pub(crate) is_up: bool,
    /// The machine is dead: it answers nothing.
    pub(crate) is_dark: bool,
    /// It was killed, and a happening will start it anew.
    pub(crate) restarts: bool,
    pub(crate) is_immortal: bool,
    /// Makes a turn although nothing has happened.
    pub(crate) wants_turn: bool,
    pub(crate) stalled_until: u64,
    /// Until when its last turn lasts.
    pub(crate) busy_until: u64,
    /// The port given out last.
    pub(crate) port: u16,
}

impl HostState {
    pub(crate) fn new(name: &str, index: usize, random: &Random) -> Self {
        let number = u16::try_from(index + 1).expect("fewer than 65 000 hosts");
        let [high, low] = number.to_be_bytes();
        // Clocks show anything from an hour to a year.
        let shown = random.fork("clock").range(3_600..365 * 24 * 3_600) * 1_000_000_000;
        Self {
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 0, high, low).into(),
            clock: Clock::new(shown),
            random: random.clone(),
            entropy: random.fork("entropy"),
            timing: random.fork("timing"),
            is_up: false,
            is_dark: false,
            restarts: false,
            is_immortal: false,
            wants_turn: false,
            stalled_until: 0,
            busy_until: 0,
            port: 49_151,
        }
    }

    /// Gives out a port: those above 49152 one after the other.
    pub(crate) fn next_port(&mut self) -> u16 {
        self.port = self.port.checked_add(1).unwrap_or(49_152);
        self.port
    }
}
