//! Connected sockets, whatever they run over.
//!
//! A [`Stream`] remembers its readiness, since the poll announces each change only once. TLS comes in
//! beside TCP, Unix and simulated sockets; its shape is in the methods already: [`Stream::flush`], [`Stream::wants_write`] and
//! [`Stream::has_buffered_plaintext`] are trivial for a plain socket and are not for TLS.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net as unix;
use std::path::Path;
use std::time::Duration;

use crate::id::RawId;
use crate::poll::{self, Poll};
use crate::sim;
use crate::source::{Noted, Readiness};

/// A connected or connecting socket that never blocks.
///
/// TCP_NODELAY is always on: what is written in a turn is written at once, so there is nothing
/// for the kernel to gather.
#[derive(Debug)]
pub struct Stream {
    kind: Kind,
}

/// Each kind holds its state beside the socket: there it takes no room of its own.
#[derive(Debug)]
enum Kind {
    Sim(Box<sim::Socket>, State),
    Tcp(mio::net::TcpStream, State),
    Unix(mio::net::UnixStream, State),
}

/// What is remembered of a socket: the bits of [`Readiness`].
#[derive(Clone, Copy, Debug)]
struct State(u8);

impl State {
    const CONNECTING: Self = Self(0);
    const CONNECTED: Self = Self(Self::WRITABLE);

    const READABLE: u8 = Readiness::READABLE;
    const WRITABLE: u8 = Readiness::WRITABLE;
    /// The poll has said that the peer closed (or that the socket failed): a short read no
    /// longer means that the socket is empty, for the end of input is still to be read.
    const READ_CLOSED: u8 = Readiness::CLOSED;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn set(&mut self, bit: u8, is_set: bool) {
        self.0 = if is_set { self.0 | bit } else { self.0 & !bit };
    }
}

/// What came of a read.
///
/// Exhaustive: there is no fourth outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many bytes were read.
    Bytes(usize),
    /// The peer sends no more. (It may still read.)
    Eof,
    /// Nothing is there now; an event will tell.
    WouldBlock,
}

/// What came of a write.
///
/// Exhaustive: there is no third outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// So many bytes were taken, perhaps not all.
    Bytes(usize),
    /// No room now; an event will tell.
    WouldBlock,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A process of this machine. What the system does not tell (without the feature `os`, or
    /// outside Linux) is `None`.
    Unix {
        /// The process that connected.
        pid: Option<u32>,
        /// The user it ran as.
        uid: Option<u32>,
    },
    /// Not connected, not yet or no longer.
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { pid: Some(pid), uid: Some(uid) } => write!(f, "unix:pid={pid},uid={uid}"),
            Self::Unix { .. } => f.write_str("unix"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Stream {
    /// Begins to connect to a TCP address; [`Stream::connect_result`] tells when it is done.
    ///
    /// In a real reactor only; [`Registry::connect`](crate::Registry::connect) is for both kinds.
    ///
    /// # Errors
    ///
    /// What the system says at once; a refusal usually comes later, by `connect_result`.
    pub fn connect(address: &SocketAddr) -> io::Result<Self> {
        let stream = mio::net::TcpStream::connect(*address)?;
        stream.set_nodelay(true)?;
        Ok(Self { kind: Kind::Tcp(stream, State::CONNECTING) })
    }

    /// Begins to connect to a Unix socket; usually done at once.
    ///
    /// # Errors
    ///
    /// What the system says: no such file, nobody listening, or (`WouldBlock`) a listener whose
    /// backlog is full.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let stream = mio::net::UnixStream::connect(path)?;
        Ok(Self { kind: Kind::Unix(stream, State::CONNECTING) })
    }

    /// Takes over a connected TCP socket.
    ///
    /// # Errors
    ///
    /// If the system refuses to make it non-blocking or to turn TCP_NODELAY on.
    pub fn from_tcp(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = mio::net::TcpStream::from_std(stream);
        Ok(Self { kind: Kind::Tcp(stream, State::CONNECTED) })
    }

    /// Takes over a connected Unix socket.
    ///
    /// # Errors
    ///
    /// If the system refuses to make it non-blocking.
    pub fn from_unix(stream: unix::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = mio::net::UnixStream::from_std(stream);
        Ok(Self { kind: Kind::Unix(stream, State::CONNECTED) })
    }

    pub(crate) fn accepted_tcp(stream: mio::net::TcpStream) -> Self {
        // It fails only (on some systems) for a peer that has gone already; the first read finds
        // that out.
        let _ = stream.set_nodelay(true);
        Self { kind: Kind::Tcp(stream, State::CONNECTED) }
    }

    pub(crate) fn accepted_unix(stream: mio::net::UnixStream) -> Self {
        Self { kind: Kind::Unix(stream, State::CONNECTED) }
    }

    pub(crate) fn connecting_simulated(socket: sim::Socket) -> Self {
        Self { kind: Kind::Sim(Box::new(socket), State::CONNECTING) }
    }

    pub(crate) fn accepted_simulated(socket: sim::Socket) -> Self {
        Self { kind: Kind::Sim(Box::new(socket), State::CONNECTED) }
    }

    /// Tells whether a connection has been established: `Ok(false)` while it is under way.
    ///
    /// # Errors
    ///
    /// Why it failed; told once.
    pub fn connect_result(&mut self) -> io::Result<bool> {
        let (failure, peer) = match &self.kind {
            Kind::Sim(socket, _) => return socket.connect_result(),
            Kind::Tcp(stream, _) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
            Kind::Unix(stream, _) => (stream.take_error()?, stream.peer_addr().map(|_| ())),
        };
        match (failure, peer) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(true),
            (None, Err(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            (None, Err(error)) => Err(error),
        }
    }

    /// Reads into `space`.
    ///
    /// A read that does not fill the space has emptied the socket, which then is no longer
    /// [readable](Stream::is_readable): a second read would only be told so. (That is a rule of
    /// plain sockets; and it does not hold once the peer has closed, since the end of input is
    /// still to be read.)
    ///
    /// # Errors
    ///
    /// What the system says: the connection is broken.
    pub fn read_into(&mut self, space: &mut [u8]) -> io::Result<ReadOutcome> {
        if space.is_empty() {
            // The system would answer 0, which means the end of input.
            return Ok(ReadOutcome::Bytes(0));
        }
        loop {
            let (result, state) = match &mut self.kind {
                Kind::Sim(socket, state) => (socket.read(space), state),
                Kind::Tcp(stream, state) => (stream.read(space), state),
                Kind::Unix(stream, state) => (stream.read(space), state),
            };
            return match result {
                Ok(0) => Ok(ReadOutcome::Eof),
                Ok(n) => {
                    let may_have_more = n == space.len() || state.has(State::READ_CLOSED);
                    state.set(State::READABLE, may_have_more);
                    Ok(ReadOutcome::Bytes(n))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.set(State::READABLE, false);
                    Ok(ReadOutcome::WouldBlock)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Writes what there is room for.
    ///
    /// A write that is not taken whole has filled the socket, which then is no longer
    /// [writable](Stream::is_writable) until an event says so.
    ///
    /// # Errors
    ///
    /// What the system says: the connection is broken.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<WriteOutcome> {
        self.write_with(bytes.len(), |kind| match kind {
            Kind::Sim(socket, state) => (socket.write(bytes), state),
            Kind::Tcp(stream, state) => (stream.write(bytes), state),
            Kind::Unix(stream, state) => (stream.write(bytes), state),
        })
    }

    /// Writes several pieces by one system call; otherwise as [`Stream::write`].
    ///
    /// # Errors
    ///
    /// As [`Stream::write`].
    pub fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<WriteOutcome> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        self.write_with(length, |kind| match kind {
            Kind::Sim(socket, state) => (socket.write_vectored(pieces), state),
            Kind::Tcp(stream, state) => (stream.write_vectored(pieces), state),
            Kind::Unix(stream, state) => (stream.write_vectored(pieces), state),
        })
    }

    fn write_with(
        &mut self,
        length: usize,
        mut write: impl FnMut(&mut Kind) -> (io::Result<usize>, &mut State),
    ) -> io::Result<WriteOutcome> {
        loop {
            let (result, state) = write(&mut self.kind);
            return match result {
                Ok(0) if length > 0 => Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    state.set(State::WRITABLE, n == length);
                    Ok(WriteOutcome::Bytes(n))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.set(State::WRITABLE, false);
                    Ok(WriteOutcome::WouldBlock)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Writes what the stream itself holds back; returns whether nothing is left.
    ///
    /// A plain socket holds nothing back: always `Ok(true)`. A TLS stream holds records.
    ///
    /// # Errors
    ///
    /// As [`Stream::write`].
    pub fn flush(&mut self) -> io::Result<bool> {
        match &self.kind {
            Kind::Sim(..) | Kind::Tcp(..) | Kind::Unix(..) => Ok(true),
        }
    }

    /// Whether the stream itself has something to write, with or without the caller: never, for
    /// a plain socket; a TLS stream has, while it shakes hands.
    pub fn wants_write(&self) -> bool {
        match &self.kind {
            Kind::Sim(..) | Kind::Tcp(..) | Kind::Unix(..) => false,
        }
    }

    /// Whether bytes can be read that the socket no longer holds, of which no event will tell:
    /// never, for a plain socket; a TLS stream holds the rest of a record.
    pub fn has_buffered_plaintext(&self) -> bool {
        match &self.kind {
            Kind::Sim(..) | Kind::Tcp(..) | Kind::Unix(..) => false,
        }
    }

    /// Whether a read may bring something, as far as the events and the last read have told.
    pub fn is_readable(&self) -> bool {
        self.state().has(State::READABLE)
    }

    /// Whether a write may be taken, as far as the events and the last write have told.
    ///
    /// An established stream is held to be writable from the start.
    pub fn is_writable(&self) -> bool {
        self.state().has(State::WRITABLE)
    }

    /// Ends the output: the peer reads what was written, then the end. Reading goes on.
    ///
    /// # Errors
    ///
    /// What the system says; `NotConnected` if the peer is gone.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        match &self.kind {
            Kind::Sim(socket, _) => socket.shutdown_write(),
            Kind::Tcp(stream, _) => stream.shutdown(Shutdown::Write),
            Kind::Unix(stream, _) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Returns who is at the other end. A system call: ask once, not per request.
    pub fn peer(&self) -> Peer {
        match &self.kind {
            Kind::Sim(socket, _) => socket.peer().map_or(Peer::Unknown, Peer::Tcp),
            Kind::Tcp(stream, _) => stream.peer_addr().map_or(Peer::Unknown, Peer::Tcp),
            Kind::Unix(stream, _) => unix_peer(stream),
        }
    }

    /// Has the kernel probe a silent TCP peer after `idle`, and drop the connection when it does
    /// not answer 3 probes, each a third of `idle` (at least a second) after the other. `None`
    /// turns it off.
    ///
    /// A Unix socket needs none, its peer cannot vanish unseen, and a simulated one has none: `Ok`,
    /// and nothing is done.
    ///
    /// # Errors
    ///
    /// What the system says; `Unsupported` without the feature `os`.
    pub fn set_keepalive(&mut self, idle: Option<Duration>) -> io::Result<()> {
        let Kind::Tcp(stream, _) = &self.kind else { return Ok(()) };
        #[cfg(feature = "os")]
        {
            use rustix::net::sockopt;
            const PROBES: u32 = 3;
            let Some(idle) = idle else {
                return Ok(sockopt::set_socket_keepalive(stream, false)?);
            };
            // The system counts in whole seconds and takes no zero.
            let second = Duration::from_secs(1);
            sockopt::set_tcp_keepidle(stream, idle.max(second))?;
            sockopt::set_tcp_keepintvl(stream, (idle / PROBES).max(second))?;
            sockopt::set_tcp_keepcnt(stream, PROBES)?;
            Ok(sockopt::set_socket_keepalive(stream, true)?)
        }
        #[cfg(not(feature = "os"))]
        {
            let _ = (stream, idle);
            Err(crate::os::unsupported("keepalive"))
        }
    }

    pub(crate) fn register(&mut self, poll: &Poll, raw: RawId) -> io::Result<()> {
        let both = mio::Interest::READABLE | mio::Interest::WRITABLE;
        match (&mut self.kind, poll) {
            (Kind::Sim(socket, _), Poll::Sim(seat)) => {
                socket.register(seat, raw);
                Ok(())
            }
            (Kind::Tcp(stream, _), Poll::Mio(poll)) => {
                poll.registry().register(stream, raw.token(), both)
            }
            (Kind::Unix(stream, _), Poll::Mio(poll)) => {
                poll.registry().register(stream, raw.token(), both)
            }
            _ => Err(poll::mixed()),
        }
    }

    pub(crate) fn deregister(&mut self, poll: &Poll) -> io::Result<()> {
        match (&mut self.kind, poll) {
            (Kind::Sim(socket, _), _) => {
                socket.deregister();
                Ok(())
            }
            (Kind::Tcp(stream, _), Poll::Mio(poll)) => poll.registry().deregister(stream),
            (Kind::Unix(stream, _), Poll::Mio(poll)) => poll.registry().deregister(stream),
            _ => Err(poll::mixed()),
        }
    }

    /// Takes in what an event said.
    pub(crate) fn note(&mut self, readiness: Readiness) -> Noted {
        let state = self.state_mut();
        let became_writable = readiness.is_writable() && !state.has(State::WRITABLE);
        state.0 |= readiness.bits();
        Noted { is_readable: readiness.is_readable(), became_writable }
    }

    fn state(&self) -> State {
        match self.kind {
            Kind::Sim(_, state) | Kind::Tcp(_, state) | Kind::Unix(_, state) => state,
        }
    }

    fn state_mut(&mut self) -> &mut State {
        match &mut self.kind {
            Kind::Sim(_, state) | Kind::Tcp(_, state) | Kind::Unix(_, state) => state,
        }
    }
}

/// # Panics
///
/// A simulated stream has no descriptor.
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Sim(..) => panic!("a simulated stream has no descriptor"),
            Kind::Tcp(stream, _) => stream.as_fd(),
            Kind::Unix(stream, _) => stream.as_fd(),
        }
    }
}

#[cfg(all(feature = "os", target_os = "linux"))]
fn unix_peer(stream: &mio::net::UnixStream) -> Peer {
    let Ok(credentials) = rustix::net::sockopt::socket_peercred(stream) else {
        return Peer::Unknown;
    };
    let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).ok();
    Peer::Unix { pid, uid: Some(credentials.uid.as_raw()) }
}

#[cfg(not(all(feature = "os", target_os = "linux")))]
fn unix_peer(stream: &mio::net::UnixStream) -> Peer {
    stream.peer_addr().map_or(Peer::Unknown, |_| Peer::Unix { pid: None, uid: None })
}
