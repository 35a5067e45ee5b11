//! What a program holds of the world: sockets, and the seat of its reactor.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::connection::{CLIENT, Key, SERVER, Stage, Watch};
use super::host::Host;
use super::pipe::End;
use super::queue::Event;
use super::world::{Inner, Ready, SeatState};
use super::{What, World};
use crate::id::RawId;
use crate::source::Readiness;

/// One end of a connection; dropped, it is closed.
pub(crate) struct Socket {
    world: World,
    key: Key,
    side: usize,
}

impl Socket {
    pub(crate) fn connect(host: &Host, to: SocketAddr) -> Self {
        let key = host.world().inner_mut().connect(host.index, to);
        Self { world: host.world().clone(), key, side: CLIENT }
    }

    pub(crate) fn connect_result(&self) -> io::Result<bool> {
        let mut inner = self.world.inner_mut();
        let connection = inner.connection(self.key).ok_or(io::ErrorKind::NotConnected)?;
        let side = &mut connection.sides[self.side];
        match side.error.take() {
            Some(kind) => Err(kind.into()),
            None if side.is_broken => Err(io::ErrorKind::NotConnected.into()),
            None => Ok(side.stage == Stage::Open),
        }
    }

    /// Reads as `read(2)` does: 0 is the end.
    pub(crate) fn read(&self, space: &mut [u8]) -> io::Result<usize> {
        let inner = &mut *self.world.inner_mut();
        let now = inner.now;
        let connection = inner.connection(self.key).ok_or(io::ErrorKind::NotConnected)?;
        let side = &mut connection.sides[self.side];
        let pipe = &mut connection.pipes[1 - self.side];
        if !pipe.has_unread() {
            return match side.error.take() {
                Some(kind) => Err(kind.into()),
                None if side.is_broken || pipe.end.is_some() => Ok(0),
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let n = pipe.read(space);
        if pipe.was_full && pipe.has_much_room() && !pipe.tells_room {
            pipe.tells_room = true;
            let at = connection.arrival(now);
            inner.queue.push(at, Event::Room { side: 1 - self.side, key: self.key });
        }
        Ok(n)
    }

    /// Writes as `write(2)` does.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let inner = &mut *self.world.inner_mut();
        inner.write(self.key, self.side, bytes)
    }

    /// Writes several pieces, one behind the other: none before all of the one before it.
    pub(crate) fn write_vectored(&self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            match self.write(piece) {
                Ok(n) if n < piece.len() => return Ok(written + n),
                Ok(n) => written += n,
                // There was room until here.
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        let inner = &mut *self.world.inner_mut();
        let connection = inner.connection(self.key).ok_or(io::ErrorKind::NotConnected)?;
        let side = &connection.sides[self.side];
        if side.stage != Stage::Open || side.is_broken {
            return Err(io::ErrorKind::NotConnected.into());
        }
        if !connection.pipes[self.side].is_shut {
            inner.send(self.key, self.side, Vec::new(), Some(End::Fin));
        }
        Ok(())
    }

    /// The address of the other end, while there is one.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        let mut inner = self.world.inner_mut();
        let connection = inner.connection(self.key)?;
        let side = &connection.sides[self.side];
        let is_there = side.stage == Stage::Open && !side.is_broken;
        is_there.then(|| connection.sides[1 - self.side].address)
    }

    /// Has the seat's reactor told of the socket's readiness, at once of the one there is.
    pub(crate) fn register(&self, seat: &Seat, raw: RawId) {
        let mut inner = self.world.inner_mut();
        let Some(connection) = inner.connection(self.key) else { return };
        let side = &mut connection.sides[self.side];
        side.watch.seat = Some((seat.index, raw));
        let pipe = &connection.pipes[1 - self.side];
        let mut readiness = if pipe.is_readable() { Readiness::READABLE } else { 0 };
        if pipe.end.is_some() {
            readiness |= Readiness::CLOSED;
        }
        if side.is_broken {
            readiness |= Readiness::READABLE | Readiness::WRITABLE | Readiness::CLOSED;
        }
        let is_open = side.stage == Stage::Open;
        if is_open && connection.pipes[self.side].room() > 0 {
            readiness |= Readiness::WRITABLE;
        }
        if readiness != 0 {
            inner.raise(self.key, self.side, readiness);
        }
    }

    pub(crate) fn deregister(&self) {
        if let Some(connection) = self.world.inner_mut().connection(self.key) {
            connection.sides[self.side].watch = Watch::default();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.world.inner_mut().close(self.key, self.side);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("connection", &self.key.number).finish_non_exhaustive()
    }
}

/// A listening socket; dropped, it is closed.
pub(crate) struct Acceptor {
    world: World,
    key: Key,
    address: SocketAddr,
}

impl Acceptor {
    pub(crate) fn listen(host: &Host, at: SocketAddr) -> io::Result<Self> {
        let mut inner = host.world().inner_mut();
        let key = inner.listen(host.index, at)?;
        let address = inner.listeners[key.index].address;
        drop(inner);
        Ok(Self { world: host.world().clone(), key, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn accept(&self) -> Option<Socket> {
        let inner = &mut *self.world.inner_mut();
        let listening = inner.listening(self.key)?;
        let host = listening.host;
        let key = listening.backlog.pop_front()?;
        inner.line(host, What::Accepted { connection: key.number });
        Some(Socket { world: self.world.clone(), key, side: SERVER })
    }

    pub(crate) fn register(&self, seat: &Seat, raw: RawId) {
        let inner = &mut *self.world.inner_mut();
        let Some(listening) = inner.listening(self.key) else { return };
        listening.watch.seat = Some((seat.index, raw));
        if !listening.backlog.is_empty() {
            inner.raise_listener(self.key);
        }
    }

    pub(crate) fn deregister(&self) {
        if let Some(listening) = self.world.inner_mut().listening(self.key) {
            listening.watch = Watch::default();
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.world.inner_mut().close_listener(self.key);
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The place of a reactor in the world: what the poll is to a real one.
pub(crate) struct Seat {
    host: Host,
    index: usize,
}

/// How long a name takes to be looked up.
const LOOKUP: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(20));
/// How long an offloaded job takes.
const JOB: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(50));

impl Seat {
    pub(crate) fn new(host: &Host) -> Self {
        let seat = SeatState { ready: Default::default() };
        let index = host.world().inner_mut().seats.insert(seat);
        Self { host: host.clone(), index }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn now(&self) -> Instant {
        self.host.now()
    }

    pub(crate) fn has_events(&self) -> bool {
        !self.host.world().inner().seats[self.index].ready.is_empty()
    }

    /// Takes an event.
    pub(crate) fn next_event(&self) -> Option<(RawId, Readiness)> {
        let inner = &mut *self.host.world().inner_mut();
        loop {
            let ready = inner.seats[self.index].ready.pop_front()?;
            let watch = match ready {
                Ready::Listener(key) => inner.listening(key).map(|listening| &mut listening.watch),
                Ready::Socket(key, side) => {
                    inner.connection(key).map(|connection| &mut connection.sides[side].watch)
                }
            };
            let Some(watch) = watch.filter(|watch| watch.is_queued) else { continue };
            watch.is_queued = false;
            let readiness = std::mem::take(&mut watch.readiness);
            if let Some((seat, raw)) = watch.seat
                && seat == self.index
            {
                return Some((raw, Readiness::from_bits(readiness)));
            }
        }
    }

    pub(crate) fn lookup_delay(&self) -> Duration {
        self.host.delay(LOOKUP.0, LOOKUP.1)
    }

    pub(crate) fn job_delay(&self) -> Duration {
        self.host.delay(JOB.0, JOB.1)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.host.world().inner_mut().seats.remove(self.index);
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Inner {
    fn write(&mut self, key: Key, side: usize, bytes: &[u8]) -> io::Result<usize> {
        let connection = self.connection(key).ok_or(io::ErrorKind::NotConnected)?;
        let this = &mut connection.sides[side];
        if let Some(kind) = this.error.take() {
            return Err(kind.into());
        }
        let pipe = &mut connection.pipes[side];
        if this.is_broken || pipe.is_shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if this.stage != Stage::Open {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(pipe.room());
        let drips = pipe.drip_writes > 0 && n > 0;
        if drips {
            pipe.drip_writes -= 1;
        }
        if n < bytes.len() {
            pipe.was_full = true;
            if drips && !pipe.tells_room {
                pipe.tells_room = true;
                let at = connection.random.range(2_000..40_000);
                let at = self.now + at;
                self.queue.push(at, Event::Room { side, key });
            }
        }
        if n == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.trace.bytes(&bytes[..n]);
        let mut segment = self.spare.pop().unwrap_or_default();
        segment.extend_from_slice(&bytes[..n]);
        self.send(key, side, segment, None);
        Ok(n)
    }

    /// Puts a segment, or the end, on its way.
    fn send(&mut self, key: Key, side: usize, segment: Vec<u8>, end: Option<End>) {
        use super::pipe::Flow;
        let arrives = self.arrival(key, side);
        let Some(connection) = self.connection(key) else { return };
        let host = connection.sides[side].host;
        let pipe = &mut connection.pipes[side];
        let bytes = segment.len();
        pipe.send(arrives, segment, end);
        let flow = pipe.flow;
        if flow != Flow::Runs {
            let Self { connections, spare, .. } = self;
            connections[key.index].pipes[side].lose(flow, spare);
        }
        if end.is_none() {
            self.line(host, What::Wrote { connection: key.number, bytes });
        }
        self.schedule(key, 1 - side);
    }

    /// There is room again for this side to write.
    pub(crate) fn has_room(&mut self, key: Key, side: usize) {
        let Some(connection) = self.connection(key) else { return };
        let pipe = &mut connection.pipes[side];
        pipe.tells_room = false;
        if pipe.room() > 0 {
            pipe.was_full = false;
            self.raise(key, side, Readiness::WRITABLE);
        }
    }

    /// Closes a socket as the system does for a process: what was written still arrives, then the
    /// end, or a reset if something was left unread. A dead machine closes nothing.
    pub(crate) fn close(&mut self, key: Key, side: usize) {
        let Some(connection) = self.connection(key) else { return };
        let (this, other) = (&connection.sides[side], &connection.sides[1 - side]);
        let (host, stage, other_stage) = (this.host, this.stage, other.stage);
        if stage == Stage::Closed {
            return;
        }
        let is_broken = this.is_broken;
        let unread = connection.pipes[1 - side].has_unread();
        let is_shut = connection.pipes[side].is_shut;
        let is_late = connection.is_late;
        let side_state = &mut connection.sides[side];
        side_state.stage = Stage::Closed;
        side_state.watch = Watch::default();
        connection.pipes[1 - side].forget_unread();
        self.line(host, What::Closed { connection: key.number });
        let nobody_is_coming =
            other_stage == Stage::Unborn && stage == Stage::Connecting && !is_late;
        let was_refused = other_stage == Stage::Unborn && is_broken;
        if other_stage == Stage::Closed || nobody_is_coming || was_refused {
            return self.free(key);
        }
        if is_broken || self.hosts[host].is_dark {
            return;
        }
        if stage == Stage::Connecting || unread {
            self.send(key, side, Vec::new(), Some(End::Reset));
        } else if !is_shut {
            self.send(key, side, Vec::new(), Some(End::Fin));
        }
    }

    pub(crate) fn close_listener(&mut self, key: Key) {
        if self.listening(key).is_none() {
            return;
        }
        for waiting in self.listeners.remove(key.index).backlog {
            // Its bytes were never read: the peer is reset.
            if self.connection(waiting).is_some() {
                self.close_unaccepted(waiting);
            }
        }
    }

    fn close_unaccepted(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let client = connection.sides[CLIENT].stage;
        let server = &mut connection.sides[SERVER];
        server.stage = Stage::Closed;
        let (host, is_broken) = (server.host, server.is_broken);
        if client == Stage::Closed {
            return self.free(key);
        }
        if !is_broken && !self.hosts[host].is_dark {
            self.send(key, SERVER, Vec::new(), Some(End::Reset));
        }
    }

    pub(crate) fn listening(&mut self, key: Key) -> Option<&mut super::connection::Listening> {
        self.listeners.get_mut(key.index).filter(|listening| listening.number == key.number)
    }

    /// Tells the reactor of a socket of its readiness, as an edge-triggered poll does: with each
    /// news of one kind it says again that the other holds.
    pub(crate) fn raise(&mut self, key: Key, side: usize, mut readiness: u8) {
        let Some(connection) = self.connection(key) else { return };
        let is_open = connection.sides[side].stage == Stage::Open;
        if is_open && !connection.pipes[side].was_full {
            readiness |= Readiness::WRITABLE;
        }
        let watch = &mut connection.sides[side].watch;
        let Some((seat, _)) = watch.seat else { return };
        watch.readiness |= readiness;
        if !std::mem::replace(&mut watch.is_queued, true) {
            self.push_ready(seat, Ready::Socket(key, side));
        }
    }

    pub(crate) fn raise_listener(&mut self, key: Key) {
        let Some(listening) = self.listening(key) else { return };
        let Some((seat, _)) = listening.watch.seat else { return };
        listening.watch.readiness |= Readiness::READABLE;
        if !std::mem::replace(&mut listening.watch.is_queued, true) {
            self.push_ready(seat, Ready::Listener(key));
        }
    }

    /// Closes all that a host has still open, whoever holds it.
    pub(crate) fn close_all(&mut self, host: usize) {
        let listeners: Vec<Key> = (self.listeners.iter())
            .filter(|(_, listening)| listening.host == host)
            .map(|(index, listening)| Key { index, number: listening.number })
            .collect();
        for key in listeners {
            self.close_listener(key);
        }
        for side in [CLIENT, SERVER] {
            let open: Vec<Key> = (self.connections.iter())
                .filter(|(_, connection)| {
                    let side = &connection.sides[side];
                    side.host == host && !matches!(side.stage, Stage::Closed | Stage::Unborn)
                })
                .map(|(index, connection)| Key { index, number: connection.number })
                .collect();
            for key in open {
                self.close(key, side);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Faults, World};

    /// Writes `text` in two pieces, again and again, and returns what the other end reads.
    fn through(seed: u64, text: &[u8]) -> Vec<u8> {
        let mut faults = Faults::none();
        faults.one_byte_writes = 1_000_000;
        let world = World::new(seed, faults);
        let address = SocketAddr::new(world.host("server").address(), 1);
        let listener = Acceptor::listen(&world.host("server"), address).expect("a free port");
        let client = Socket::connect(&world.host("client"), address);
        while !client.connect_result().expect("somebody listens") {
            world.inner_mut().happen();
        }
        let server = listener.accept().expect("it has connected");
        let (mut written, mut read) = (0, Vec::new());
        while read.len() < text.len() {
            let (first, second) = text[written..].split_at((text.len() - written) / 2);
            match client.write_vectored(&[io::IoSlice::new(first), io::IoSlice::new(second)]) {
                Ok(n) => written += n,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            world.inner_mut().happen();
            let mut space = [0; 64];
            if let Ok(n) = server.read(&mut space) {
                read.extend_from_slice(&space[..n]);
            }
        }
        read
    }

    #[test]
    fn of_several_pieces_none_is_written_before_all_of_the_one_before_it() {
        for seed in 0..20 {
            assert_eq!(through(seed, b"one behind the other"), b"one behind the other");
        }
    }
}
