//! What a program holds of the world: sockets, and the seat of its reactor.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::connection::{CLIENT, Key, SERVER, Stage, Watch};
use super::host::Host;
use super::pipe::End;
use super::world::{Ready, SeatState};
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
        inner.tell_room(self.key, 1 - self.side);
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
        // Nobody is told anything if a panic comes from within the world.
        if let Some(mut inner) = self.world.try_inner_mut() {
            inner.close(self.key, self.side);
        }
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
        if let Some(mut inner) = self.world.try_inner_mut() {
            inner.close_listener(self.key);
        }
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
        if let Some(mut inner) = self.host.world().try_inner_mut() {
            inner.seats.remove(self.index);
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("host", &self.host).finish_non_exhaustive()
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
