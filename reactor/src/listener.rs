//! Listening sockets.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};

use crate::Stream;
use crate::id::RawId;
use crate::os;
use crate::poll::{self, Poll};
use crate::sim;
use crate::source::{Noted, Readiness};

/// Connections that may wait to be accepted. Thousands of clients come at once after a restart,
/// and one that finds the backlog full tries again only after a second. (The system may lower
/// it; on Linux to net.core.somaxconn, 4096 by default.)
const BACKLOG: i32 = 4096;

/// A listening socket that never blocks.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    address: Address,
    /// The file of a Unix socket that was bound here, to be removed at the end.
    file: Option<SocketFile>,
    is_readable: bool,
}

#[derive(Debug)]
enum Kind {
    Sim(Box<sim::Acceptor>),
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener),
}

/// Where a listener listens.
///
/// Exhaustive: these are the families of sockets there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP address, with the port that the system chose if it was asked to.
    Tcp(SocketAddr),
    /// The path of a Unix socket; empty if it has none.
    Unix(PathBuf),
}

impl Address {
    /// Returns the TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    /// Listens on a TCP address; port 0 lets the system choose one.
    ///
    /// In a real reactor only; [`Registry::listen`](crate::Registry::listen) is for both kinds.
    ///
    /// With the feature `os`, `[::]` takes IPv4 connections too, whatever the system's default
    /// is, and the backlog is raised to 4096.
    ///
    /// # Errors
    ///
    /// What the system says: the address is in use, or not ours.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        Self::from_tcp(bind_tcp(address)?)
    }

    /// Listens on a Unix socket at `path`.
    ///
    /// A socket file that a dead process left there is replaced. The file is removed when the
    /// listener is dropped, if it is still the one made here.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if another process listens there, or if the file is no socket; else what the
    /// system says.
    pub fn unix(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let listener = match unix::UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                unix::UnixListener::bind(path)?
            }
            result => result?,
        };
        let mut listener = Self::from_unix(listener)?;
        listener.file = SocketFile::at(path).ok();
        Ok(listener)
    }

    /// Takes over a TCP socket that listens already.
    ///
    /// # Errors
    ///
    /// What the system says to making it non-blocking.
    pub fn from_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        os::set_backlog(&listener, BACKLOG)?;
        let address = Address::Tcp(listener.local_addr()?);
        let kind = Kind::Tcp(mio::net::TcpListener::from_std(listener));
        Ok(Self { kind, address, file: None, is_readable: false })
    }

    /// Takes over a Unix socket that listens already. Its file is left alone.
    ///
    /// # Errors
    ///
    /// What the system says to making it non-blocking.
    pub fn from_unix(listener: unix::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        os::set_backlog(&listener, BACKLOG)?;
        let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
        let address = Address::Unix(path.unwrap_or_default());
        let kind = Kind::Unix(mio::net::UnixListener::from_std(listener));
        Ok(Self { kind, address, file: None, is_readable: false })
    }

    pub(crate) fn simulated(acceptor: sim::Acceptor) -> Self {
        let address = Address::Tcp(acceptor.address());
        Self { kind: Kind::Sim(Box::new(acceptor)), address, file: None, is_readable: false }
    }

    /// Accepts a connection, if one waits.
    ///
    /// # Errors
    ///
    /// What the system says. After [a lack of descriptors](os::is_out_of_descriptors) no event
    /// will tell of the connections that wait: try again later, by a timer and
    /// [`Registry::again`](crate::Registry::again).
    pub fn accept(&mut self) -> io::Result<Option<Stream>> {
        loop {
            let result = match &self.kind {
                Kind::Sim(acceptor) => {
                    let socket = acceptor.accept().ok_or(io::ErrorKind::WouldBlock);
                    socket.map(Stream::accepted_simulated).map_err(io::Error::from)
                }
                Kind::Tcp(listener) => {
                    listener.accept().map(|(stream, _)| Stream::accepted_tcp(stream))
                }
                Kind::Unix(listener) => {
                    listener.accept().map(|(stream, _)| Stream::accepted_unix(stream))
                }
            };
            return match result {
                Ok(stream) => Ok(Some(stream)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.is_readable = false;
                        Ok(None)
                    }
                    // The first in the queue has given up; there may be others.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => continue,
                    _ => Err(error),
                },
            };
        }
    }

    /// Whether a connection may wait, as far as the events and the last accept have told.
    pub fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Returns where it listens.
    pub fn local_addr(&self) -> Address {
        self.address.clone()
    }

    pub(crate) fn register(&mut self, poll: &Poll, raw: RawId) -> io::Result<()> {
        let readable = mio::Interest::READABLE;
        match (&mut self.kind, poll) {
            (Kind::Sim(acceptor), Poll::Sim(seat)) => {
                acceptor.register(seat, raw);
                Ok(())
            }
            (Kind::Tcp(listener), Poll::Mio(poll)) => {
                poll.registry().register(listener, raw.token(), readable)
            }
            (Kind::Unix(listener), Poll::Mio(poll)) => {
                poll.registry().register(listener, raw.token(), readable)
            }
            _ => Err(poll::mixed()),
        }
    }

    pub(crate) fn deregister(&mut self, poll: &Poll) -> io::Result<()> {
        match (&mut self.kind, poll) {
            (Kind::Sim(acceptor), _) => {
                acceptor.deregister();
                Ok(())
            }
            (Kind::Tcp(listener), Poll::Mio(poll)) => poll.registry().deregister(listener),
            (Kind::Unix(listener), Poll::Mio(poll)) => poll.registry().deregister(listener),
            _ => Err(poll::mixed()),
        }
    }

    /// Takes in what an event said.
    pub(crate) fn note(&mut self, readiness: Readiness) -> Noted {
        self.is_readable |= readiness.is_readable();
        Noted { is_readable: readiness.is_readable(), became_writable: false }
    }
}

/// # Panics
///
/// A simulated listener has no descriptor.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Sim(_) => panic!("a simulated listener has no descriptor"),
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(listener) => listener.as_fd(),
        }
    }
}

#[cfg(feature = "os")]
fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

    if !(address.is_ipv6() && address.ip().is_unspecified()) {
        return std::net::TcpListener::bind(address);
    }
    // The option has to be set between socket and bind, where std lets nobody in. Apple's systems
    // have no flag; there, a child started this very instant could inherit the socket.
    #[cfg(not(target_vendor = "apple"))]
    let flags = SocketFlags::CLOEXEC;
    #[cfg(target_vendor = "apple")]
    let flags = SocketFlags::empty();
    let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(not(feature = "os"))]
fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address)
}

/// Removes the socket file of a process that is gone; anything else stays, and is told of.
fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |what: &str| {
        let message = format!("cannot listen on {}: {what}", path.display());
        io::Error::new(io::ErrorKind::AddrInUse, message)
    };
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("the file exists and is not a socket"));
    }
    // mio's connect does not block; a live listener whose backlog is full says WouldBlock.
    match mio::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("replacing the stale socket file {}", path.display());
            fs::remove_file(path)
        }
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            Err(in_use(&format!("whether anyone listens there cannot be told: {error}")))
        }
        _ => Err(in_use("another process listens there")),
    }
}

/// A socket file, known by its inode: another process may have replaced it since.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| metadata.dev() == self.device && metadata.ino() == self.inode);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("the socket file {} stays behind: {error}", self.path.display());
        }
    }
}
