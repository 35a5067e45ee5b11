//! How what is written arrives, and what befalls it on the way.

use std::io;

use super::connection::{CLIENT, Key, SERVER, Stage};
use super::pipe::{Arrival, DoomKind, End, Flow};
use super::queue::Event;
use super::world::Inner;
use super::{Fault, What};
use crate::source::Readiness;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

impl Inner {
    /// Brings what has arrived by now to where `to` can read it.
    pub(crate) fn deliver(&mut self, key: Key, to: usize) {
        let Some(connection) = self.connection(key) else { return };
        let (host, from) = (connection.sides[to].host, connection.sides[1 - to].host);
        connection.pipes[1 - to].is_scheduled = false;
        let (is_parted, is_dark) = (self.is_parted(from, host), self.hosts[host].is_dark);
        let now = self.now;
        loop {
            let Self { connections, spare, .. } = self;
            let Some(connection) = connections.get_mut(key.index) else { return };
            let pipe = &mut connection.pipes[1 - to];
            if pipe.next_at().is_none_or(|at| at > now) {
                break;
            }
            match connection.sides[to].stage {
                Stage::Unborn | Stage::Connecting => return,
                _ if is_parted => return pipe.is_held = true,
                // Sent again until somebody answers.
                Stage::Closed if is_dark => {
                    pipe.is_scheduled = true;
                    return self.queue.push(now + SECOND, Event::Deliver { to, key });
                }
                Stage::Closed => return self.bounce(key, to),
                Stage::Open => {}
            }
            let drips = pipe.drip_reads > 0;
            let arrival = pipe.arrive(now, spare);
            let doom = pipe.take_doom();
            self.arrived(key, to, arrival);
            if let Some(doom) = doom {
                return self.strike_connection(key, to, doom);
            }
            if drips {
                return self.schedule_drip(key, to);
            }
        }
        self.schedule(key, to);
    }

    fn arrived(&mut self, key: Key, to: usize, arrival: Arrival) {
        let Some(connection) = self.connection(key) else { return };
        let host = connection.sides[to].host;
        match arrival {
            Arrival::Bytes(0) | Arrival::Later(_) | Arrival::Nothing => {}
            Arrival::Bytes(bytes) => {
                self.line(host, What::Arrived { connection: key.number, bytes });
                self.raise(key, to, Readiness::READABLE);
            }
            Arrival::End(End::Fin) => {
                self.line(host, What::End { connection: key.number });
                self.raise(key, to, Readiness::READABLE | Readiness::CLOSED);
            }
            Arrival::End(End::Reset) => {
                self.break_side(key, to, io::ErrorKind::ConnectionReset);
            }
        }
    }

    /// What is sent to a socket that is gone brings a reset back.
    fn bounce(&mut self, key: Key, to: usize) {
        let arrives = self.now;
        let Self { connections, spare, queue, .. } = self;
        let Some(connection) = connections.get_mut(key.index) else { return };
        let pipe = &mut connection.pipes[1 - to];
        let is_end = pipe.is_at_end();
        pipe.lose(Flow::Swallows, spare);
        if !is_end {
            let arrives = connection.arrival(arrives);
            queue.push(arrives, Event::ResetArrives { at: 1 - to, key });
        }
    }

    /// Resets both ends of a connection; what is under way is lost.
    pub(crate) fn reset_both(&mut self, key: Key) {
        let now = self.now;
        let Self { connections, spare, queue, .. } = self;
        let Some(connection) = connections.get_mut(key.index) else { return };
        for side in [CLIENT, SERVER] {
            connection.pipes[side].lose(Flow::Swallows, spare);
            let arrives = connection.arrival(now);
            queue.push(arrives, Event::ResetArrives { at: side, key });
        }
    }

    pub(crate) fn reset_arrives(&mut self, key: Key, side: usize) {
        self.break_side(key, side, io::ErrorKind::ConnectionReset);
    }

    /// An end has failed: its next read or write says so.
    pub(crate) fn break_side(&mut self, key: Key, side: usize, kind: io::ErrorKind) {
        let Self { connections, spare, .. } = self;
        let Some(connection) = connections.get_mut(key.index) else { return };
        if connection.number != key.number {
            return;
        }
        let this = &mut connection.sides[side];
        if this.is_broken || matches!(this.stage, Stage::Unborn | Stage::Closed) {
            return;
        }
        this.is_broken = true;
        this.error = Some(kind);
        let host = this.host;
        connection.pipes[side].lose(Flow::Swallows, spare);
        connection.pipes[1 - side].lose(Flow::Swallows, spare);
        // Whether what was not read can still be read differs from system to system.
        if connection.random.chance(500_000) {
            connection.pipes[1 - side].forget_unread();
        }
        self.line(host, What::Failed { connection: key.number });
        self.raise(key, side, Readiness::READABLE | Readiness::WRITABLE | Readiness::CLOSED);
    }

    /// So many bytes have arrived that the connection meets its fate.
    fn strike_connection(&mut self, key: Key, to: usize, doom: DoomKind) {
        let Self { connections, spare, queue, now, .. } = self;
        let Some(connection) = connections.get_mut(key.index) else { return };
        let host = connection.sides[to].host;
        let (fault, ends) = match doom {
            DoomKind::BlackHole => {
                connection.pipes[1 - to].lose(Flow::Hole, spare);
                if connection.random.chance(500_000) {
                    connection.pipes[to].lose(Flow::Hole, spare);
                }
                (Fault::BlackHole, false)
            }
            DoomKind::HalfClose => {
                connection.pipes[1 - to].lose(Flow::Swallows, spare);
                (Fault::HalfClose, true)
            }
            DoomKind::Cut => {
                connection.pipes[1 - to].lose(Flow::Swallows, spare);
                connection.pipes[to].lose(Flow::Swallows, spare);
                let arrives = connection.arrival(*now);
                queue.push(arrives, Event::ResetArrives { at: 1 - to, key });
                (Fault::Cut, connection.random.chance(500_000))
            }
        };
        if ends {
            connection.pipes[1 - to].end = Some(End::Fin);
        }
        self.fault(host, fault, key.number);
        self.tell_room(key, 1 - to);
        if ends {
            self.arrived(key, to, Arrival::End(End::Fin));
        } else if doom == DoomKind::Cut {
            self.break_side(key, to, io::ErrorKind::ConnectionReset);
        }
    }

    /// Sees to it that a side which was told that there is no room is told that there is again.
    pub(crate) fn tell_room(&mut self, key: Key, side: usize) {
        let now = self.now;
        let Some(connection) = self.connection(key) else { return };
        let pipe = &mut connection.pipes[side];
        if pipe.was_full && pipe.has_much_room() && !pipe.tells_room {
            pipe.tells_room = true;
            let at = connection.arrival(now);
            self.queue.push(at, Event::Room { side, key });
        }
    }

    /// Sees to it that what is under way to this side arrives.
    pub(crate) fn schedule(&mut self, key: Key, to: usize) {
        let now = self.now;
        let Some(connection) = self.connection(key) else { return };
        if connection.sides[to].stage == Stage::Unborn {
            return;
        }
        let pipe = &mut connection.pipes[1 - to];
        let Some(at) = pipe.next_at() else { return };
        if !std::mem::replace(&mut pipe.is_scheduled, true) {
            self.queue.push(at.max(now), Event::Deliver { to, key });
        }
    }

    fn schedule_drip(&mut self, key: Key, to: usize) {
        let now = self.now;
        let Some(connection) = self.connection(key) else { return };
        let pause = connection.random.range(2 * MICROSECOND..40 * MICROSECOND);
        let pipe = &mut connection.pipes[1 - to];
        let Some(at) = pipe.next_at() else { return };
        pipe.is_scheduled = true;
        self.queue.push(at.max(now + pause), Event::Deliver { to, key });
    }

    /// Lets in what partitions have held up that are over.
    pub(crate) fn release_held(&mut self) {
        let Self { connections, partitions, queue, now, .. } = self;
        for (index, connection) in connections.iter_mut() {
            for to in [CLIENT, SERVER] {
                let (host, from) = (connection.sides[to].host, connection.sides[1 - to].host);
                let is_parted =
                    partitions.iter().any(|parted| (parted.from, parted.to) == (from, host));
                let pipe = &mut connection.pipes[1 - to];
                if !pipe.is_held || is_parted {
                    continue;
                }
                pipe.is_held = false;
                pipe.is_scheduled = true;
                // When it is sent again, that is.
                let pause = connection.random.spread(MILLISECOND, SECOND);
                let key = Key { index, number: connection.number };
                queue.push(*now + pause, Event::Deliver { to, key });
            }
        }
    }
}
