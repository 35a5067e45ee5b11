//! How connections come about.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::connection::{CLIENT, Connection, Fate, Key, Listening, SERVER, Side, Stage, Watch};
use super::pipe::Pipe;
use super::queue::Event;
use super::world::Inner;
use super::{Fault, What};
use crate::source::Readiness;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// How often the beginning of a connection, or the answer to it, is sent again when it is lost:
/// after 1 s, 2 s, 4 s and so on, as Linux does. Then the connection fails.
const ATTEMPTS_MAX: u32 = 6;
/// Connections that may wait to be accepted; the beginning of one more is lost.
const BACKLOG: usize = 1024;
/// Bytes that are under way in one direction and unread at its end, at most.
const ROOM_BYTES: std::ops::RangeInclusive<u64> = 16 * 1024..=256 * 1024;

impl Inner {
    /// Begins a connection.
    pub(crate) fn connect(&mut self, from: usize, to: SocketAddr) -> Key {
        let target = self.host_at(from, to);
        let is_local = target == Some(from);
        self.numbers += 1;
        let number = self.numbers;
        let mut random = self.network.fork_by(number);
        let latency = match is_local {
            true => random.spread(5 * MICROSECOND, 20 * MICROSECOND),
            false => random.spread(30 * MICROSECOND, MILLISECOND),
        };
        // Within a host nothing is lost.
        let fate = if is_local { Fate::default() } else { Fate::draw(&self.faults, &random) };
        let room = usize::try_from(random.spread(*ROOM_BYTES.start(), *ROOM_BYTES.end()));
        let room = room.expect("it is that small");
        let pipe = |side: usize| {
            let mut pipe = Pipe::new(room);
            pipe.doom = fate.doom[side];
            pipe.drip_reads = fate.drip_reads[side];
            pipe.drip_writes = fate.drip_writes[side];
            pipe
        };
        let pipes = [pipe(CLIENT), pipe(SERVER)];
        let state = &mut self.hosts[from];
        let local = SocketAddr::new(state.address, state.next_port());
        let sides = [
            Side::new(from, local, Stage::Connecting),
            Side::new(target.unwrap_or(from), to, Stage::Unborn),
        ];
        let is_late = fate.late_by.is_some();
        let is_spared = false;
        let connection = Connection { number, random, latency, sides, pipes, is_late, is_spared };
        let key = Key { index: self.connections.insert(connection), number };
        self.line(from, What::Connecting { connection: number, to });
        for side in [CLIENT, SERVER] {
            if fate.drip_reads[side] > 0 {
                self.fault(from, Fault::OneByteRead, number);
            }
            if fate.drip_writes[side] > 0 {
                self.fault(from, Fault::OneByteWrite, number);
            }
        }
        if let Some(after) = fate.reset_after {
            self.queue.push(self.now + after, Event::Reset { key });
        }
        let arrives = self.now + latency;
        if target.is_none() {
            self.queue.push(arrives + latency, Event::Refused { key, attempts: ATTEMPTS_MAX });
        } else if let Some(late_by) = fate.late_by {
            // Whoever stands between answers for the server.
            self.fault(from, Fault::Late, number);
            self.queue.push(arrives + latency, Event::SynAck { key, attempts: 0 });
            self.queue.push(arrives + late_by, Event::Syn { key, attempts: 0 });
        } else {
            self.queue.push(arrives, Event::Syn { key, attempts: 0 });
        }
        key
    }

    pub(crate) fn connection(&mut self, key: Key) -> Option<&mut Connection> {
        self.connections.get_mut(key.index).filter(|connection| connection.number == key.number)
    }

    /// The beginning of a connection arrives, unless it is lost.
    pub(crate) fn syn(&mut self, key: Key, attempts: u32) {
        let Some(connection) = self.connection(key) else { return };
        let [client, server] = &connection.sides;
        let (from, host, address) = (client.host, server.host, server.address);
        let (is_late, latency) = (connection.is_late, connection.latency);
        if client.stage == Stage::Closed && !is_late {
            return self.free(key);
        }
        let listener = self.listener_at(host, from, address);
        let is_full = listener.is_some_and(|at| self.listeners[at].backlog.len() >= BACKLOG);
        if self.is_parted(from, host) || self.hosts[host].is_dark || is_full {
            if attempts < ATTEMPTS_MAX {
                let again = self.now + (SECOND << attempts);
                self.queue.push(again, Event::Syn { key, attempts: attempts + 1 });
                return;
            }
            return self.refused(key, ATTEMPTS_MAX);
        }
        let Some(listener) = listener else {
            self.queue.push(self.now + latency, Event::Refused { key, attempts: 0 });
            return;
        };
        let listening = &mut self.listeners[listener];
        listening.backlog.push_back(key);
        let listener = Key { index: listener, number: listening.number };
        self.raise_listener(listener);
        let Some(connection) = self.connection(key) else { return };
        connection.sides[SERVER].stage = Stage::Open;
        if !is_late {
            self.queue.push(self.now + latency, Event::SynAck { key, attempts: 0 });
        }
        self.schedule(key, SERVER);
    }

    /// The answer arrives: the connection is established for the one that connects.
    pub(crate) fn syn_ack(&mut self, key: Key, attempts: u32) {
        let Some(connection) = self.connection(key) else { return };
        let [client, server] = &connection.sides;
        let (host, from) = (client.host, server.host);
        if client.stage != Stage::Connecting || client.is_broken {
            return;
        }
        if self.is_parted(from, host) {
            if attempts < ATTEMPTS_MAX {
                let again = self.now + (SECOND << attempts);
                self.queue.push(again, Event::SynAck { key, attempts: attempts + 1 });
                return;
            }
            return self.refused(key, ATTEMPTS_MAX);
        }
        let Some(connection) = self.connection(key) else { return };
        connection.sides[CLIENT].stage = Stage::Open;
        self.line(host, What::Established { connection: key.number });
        self.raise(key, CLIENT, Readiness::WRITABLE);
        self.schedule(key, CLIENT);
    }

    /// The connection comes to nothing: nobody listens, or (after as many attempts as there are)
    /// nobody answers.
    pub(crate) fn refused(&mut self, key: Key, attempts: u32) {
        let Some(connection) = self.connection(key) else { return };
        let [client, server] = &mut connection.sides;
        if client.stage == Stage::Closed {
            return self.free(key);
        }
        let (host, from) = (client.host, server.host);
        let was_established = client.stage == Stage::Open;
        if attempts < ATTEMPTS_MAX && self.is_parted(from, host) {
            // The refusal is lost; the beginning is sent again, and refused again.
            let again = self.now + (SECOND << attempts);
            self.queue.push(again, Event::Syn { key, attempts: attempts + 1 });
            return;
        }
        let kind = match attempts {
            ATTEMPTS_MAX => io::ErrorKind::TimedOut,
            _ if was_established => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::ConnectionRefused,
        };
        self.break_side(key, CLIENT, kind);
    }

    /// The socket of a host at which a connection to this address is accepted.
    fn listener_at(&self, host: usize, from: usize, address: SocketAddr) -> Option<usize> {
        let takes = |listening: &Listening| {
            let ip = listening.address.ip();
            listening.host == host
                && listening.address.port() == address.port()
                && (ip.is_unspecified()
                    || ip == address.ip()
                    || (from == host && (ip.is_loopback() || address.ip().is_unspecified())))
        };
        let mut found = self.listeners.iter().filter(|(_, listening)| takes(listening));
        found.next().map(|(index, _)| index)
    }

    /// Listens; port 0 is one that is free.
    pub(crate) fn listen(&mut self, host: usize, mut at: SocketAddr) -> io::Result<Key> {
        let ip = at.ip();
        if !(ip.is_unspecified() || ip.is_loopback() || ip == self.hosts[host].address) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let is_taken = |inner: &Self, port: u16| {
            inner.listeners.iter().any(|(_, listening)| {
                let other = listening.address;
                listening.host == host
                    && other.port() == port
                    && (other.ip() == ip || other.ip().is_unspecified() || ip.is_unspecified())
            })
        };
        while at.port() == 0 {
            let port = self.hosts[host].next_port();
            at.set_port(if is_taken(self, port) { 0 } else { port });
        }
        if is_taken(self, at.port()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.numbers += 1;
        let number = self.numbers;
        let (backlog, watch) = (VecDeque::new(), Watch::default());
        let index = self.listeners.insert(Listening { number, host, address: at, backlog, watch });
        self.line(host, What::Listening { at });
        Ok(Key { index, number })
    }

    /// Forgets a connection that has no end any more.
    pub(crate) fn free(&mut self, key: Key) {
        if self.connection(key).is_none() {
            return;
        }
        let connection = self.connections.remove(key.index);
        for pipe in connection.pipes {
            pipe.recycle(&mut self.spare);
        }
    }

    /// Draws when a segment arrives that is sent now.
    pub(crate) fn arrival(&mut self, key: Key, side: usize) -> u64 {
        let (now, delays, delay_max) = (self.now, self.faults.delays, self.faults.delay_max);
        let Some(connection) = self.connection(key) else { return now };
        let arrives = connection.arrival(now);
        let host = connection.sides[side].host;
        let is_local = host == connection.sides[1 - side].host;
        if is_local || delays == 0 || !connection.random.chance(delays) {
            return arrives;
        }
        let longest = super::random::nanos(delay_max).max(MILLISECOND);
        let delay = connection.random.spread(MILLISECOND, longest);
        self.fault(host, Fault::Delay, key.number);
        arrives + delay
    }
}
