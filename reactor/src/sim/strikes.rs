//! Faults that strike by time, and those that strike a connection whatever it carries.

use super::connection::{CLIENT, Key, SERVER, Side, Stage};
use super::pipe::Flow;
use super::queue::{Event, Strike};
use super::random::nanos;
use super::world::{Action, Inner, Partition, Ready};
use super::{Fault, KillMode, Random};
use crate::source::Readiness;

const MILLISECOND: u64 = 1_000_000;

impl Inner {
    /// Puts the next strike of a kind on the queue, if it strikes at all.
    pub(crate) fn schedule_strike(&mut self, strike: Strike) {
        let every = nanos(match strike {
            Strike::Kill => self.faults.kills_every,
            Strike::Leap => self.faults.leaps_every,
            Strike::Partition => self.faults.partitions_every,
            Strike::Spurious => self.faults.spurious_every,
            Strike::Stall => self.faults.stalls_every,
        });
        if every == 0 {
            return;
        }
        let at = self.now + self.chance_of(strike).range(1..every.saturating_mul(2).max(2));
        self.queue.push(at, Event::Strike { strike, epoch: self.faults_epoch });
    }

    /// The generator for a strike of a kind at this time.
    fn chance_of(&self, strike: Strike) -> Random {
        self.chance.fork_by(strike as u64).fork_by(self.now)
    }

    pub(crate) fn strike(&mut self, strike: Strike) -> Action {
        // A fork of the one that chose the time of the next.
        let random = &mut self.chance_of(strike).fork("strike");
        let action = match strike {
            Strike::Kill => self.kill_one(random),
            Strike::Leap => self.leap_one(random),
            Strike::Partition => self.part_some(random),
            Strike::Spurious => self.wake_one(random),
            Strike::Stall => self.stall_one(random),
        };
        self.schedule_strike(strike);
        action
    }

    /// Chooses one of the hosts on which a process runs.
    fn choose(&self, random: &mut Random, mortal: bool) -> Option<usize> {
        let fits = |index: &usize| {
            let host = &self.hosts[*index];
            host.is_up && !(mortal && host.is_immortal)
        };
        let count = (0..self.hosts.len()).filter(fits).count();
        if count == 0 {
            return None;
        }
        (0..self.hosts.len()).filter(fits).nth(random.index(count))
    }

    fn kill_one(&mut self, random: &mut Random) -> Action {
        let Some(host) = self.choose(random, true) else { return Action::Nothing };
        let (mode, fault) = match random.chance(500_000) {
            true => (KillMode::Machine, Fault::KillMachine),
            false => (KillMode::Process, Fault::KillProcess),
        };
        let down = random.spread(MILLISECOND, nanos(self.faults.down_max).max(MILLISECOND));
        self.fault(host, fault, 0);
        Action::Kill { host, mode, down }
    }

    fn leap_one(&mut self, random: &mut Random) -> Action {
        if let Some(host) = self.choose(random, false) {
            let by = random.spread(MILLISECOND, nanos(self.faults.leap_max).max(MILLISECOND));
            self.hosts[host].clock.leap(std::time::Duration::from_nanos(by));
            self.fault(host, Fault::ClockLeap, 0);
        }
        Action::Nothing
    }

    fn stall_one(&mut self, random: &mut Random) -> Action {
        if let Some(host) = self.choose(random, false) {
            let lasts = random.spread(MILLISECOND, nanos(self.faults.stall_max).max(MILLISECOND));
            let until = self.now + lasts;
            let state = &mut self.hosts[host];
            state.stalled_until = state.stalled_until.max(until);
            self.fault(host, Fault::Stall, 0);
        }
        Action::Nothing
    }

    fn part_some(&mut self, random: &mut Random) -> Action {
        let count = self.hosts.len();
        if count < 2 {
            return Action::Nothing;
        }
        let one = random.index(count);
        let other = (one + 1 + random.index(count - 1)) % count;
        let longest = nanos(self.faults.partition_max).max(10 * MILLISECOND);
        let until = self.now + random.spread(10 * MILLISECOND, longest);
        let (is_alone, both) = (random.chance(300_000), random.chance(500_000));
        for host in (0..count).filter(|&host| host != one && (is_alone || host == other)) {
            self.partitions.push(Partition { from: one, to: host, until });
            if both {
                self.partitions.push(Partition { from: host, to: one, until });
            }
        }
        self.queue.push(until, Event::PartitionEnds);
        self.fault(one, if both { Fault::PartitionBoth } else { Fault::PartitionOne }, 0);
        Action::Nothing
    }

    fn wake_one(&mut self, random: &mut Random) -> Action {
        let Some(host) = self.choose(random, false) else { return Action::Nothing };
        self.fault(host, Fault::Spurious, 0);
        self.hosts[host].wants_turn = true;
        let sockets = self.connections.iter().flat_map(|(index, connection)| {
            let key = Key { index, number: connection.number };
            [CLIENT, SERVER].map(|side| (key, side, connection.sides[side].host))
        });
        let mut sockets = sockets.filter(|&(.., at)| at == host);
        let count = sockets.clone().count();
        if count > 0 && random.chance(700_000) {
            let chosen = sockets.nth(random.index(count));
            let (key, side, _) = chosen.expect("one of those counted");
            self.raise(key, side, Readiness::READABLE | Readiness::WRITABLE);
        } else if let Some((index, listening)) =
            self.listeners.iter().find(|(_, listening)| listening.host == host)
        {
            let key = Key { index, number: listening.number };
            self.raise_listener(key);
        }
        Action::Nothing
    }

    /// Draws the rate of a host's clock.
    pub(crate) fn draw_drift(&mut self, host: usize) {
        let most = self.faults.drift_ppm_max.min(500_000);
        let (now, epoch) = (self.now, u64::from(self.faults_epoch));
        let state = &mut self.hosts[host];
        if most == 0 {
            return state.clock.drift(now, 0);
        }
        let mut random = state.random.fork("drift").fork_by(epoch);
        let ppm = i32::try_from(random.below(2 * u64::from(most) + 1)).expect("at most a million")
            - i32::try_from(most).expect("at most half a million");
        state.clock.drift(now, ppm);
        self.fault(host, Fault::ClockDrift, 0);
    }

    /// The connection is reset, if there still is one.
    pub(crate) fn reset_by_fault(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let is_open = |side: &Side| side.stage == Stage::Open && !side.is_broken;
        if connection.is_spared || !connection.sides.iter().any(is_open) {
            return;
        }
        let host = connection.sides[CLIENT].host;
        self.fault(host, Fault::Reset, key.number);
        self.reset_both(key);
    }

    /// What was to befall the connections there are does not.
    pub(crate) fn spare_connections(&mut self) {
        for (_, connection) in &mut self.connections {
            connection.is_spared = true;
            for pipe in &mut connection.pipes {
                pipe.doom = None;
            }
        }
    }

    /// Resets the connections whose bytes vanish.
    pub(crate) fn reset_vanishing(&mut self) {
        let vanishing = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.pipes.iter().any(|pipe| pipe.flow != Flow::Runs));
        let keys: Vec<Key> =
            vanishing.map(|(index, connection)| Key { index, number: connection.number }).collect();
        for key in keys {
            self.reset_both(key);
        }
    }

    pub(crate) fn push_ready(&mut self, seat: usize, ready: Ready) {
        if let Some(seat) = self.seats.get_mut(seat) {
            seat.ready.push_back(ready);
        }
    }
}
