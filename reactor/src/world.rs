//! What a callback asks of the world: sockets, names and chance, real or simulated.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use crate::poll::{self, Poll};
use crate::sim;
use crate::{Cx, Listener, OffloadFull, Registry, Stream, os};

/// Sockets, names and chance: of the operating system, or of the [simulated world](crate::sim).
impl<S> Registry<S> {
    /// Begins to connect to a TCP address; [`Stream::connect_result`] tells when it is done.
    ///
    /// # Errors
    ///
    /// As [`Stream::connect`]; never in simulation.
    pub fn connect(&mut self, address: &SocketAddr) -> io::Result<Stream> {
        match &self.poll {
            Poll::Mio(_) => Stream::connect(address),
            Poll::Sim(seat) => {
                let socket = sim::Socket::connect(seat.host(), *address);
                Ok(Stream::connecting_simulated(socket))
            }
        }
    }

    /// Begins to connect to a Unix socket; usually done at once.
    ///
    /// # Errors
    ///
    /// As [`Stream::connect_unix`]; in simulation always, which has none: `Unsupported`.
    pub fn connect_unix(&mut self, path: &Path) -> io::Result<Stream> {
        match &self.poll {
            Poll::Mio(_) => Stream::connect_unix(path),
            Poll::Sim(_) => Err(poll::not_simulated("Unix sockets")),
        }
    }

    /// Listens on a TCP address; port 0 is one that is free.
    ///
    /// # Errors
    ///
    /// As [`Listener::tcp`]: the address is in use, or not ours.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<Listener> {
        match &self.poll {
            Poll::Mio(_) => Listener::tcp(address),
            Poll::Sim(seat) => {
                Ok(Listener::simulated(sim::Acceptor::listen(seat.host(), address)?))
            }
        }
    }

    /// Listens on a Unix socket at `path`.
    ///
    /// # Errors
    ///
    /// As [`Listener::unix`]; in simulation always, which has none: `Unsupported`.
    pub fn listen_unix(&mut self, path: &Path) -> io::Result<Listener> {
        match &self.poll {
            Poll::Mio(_) => Listener::unix(path),
            Poll::Sim(_) => Err(poll::not_simulated("Unix sockets")),
        }
    }

    /// Looks up `host:port`, off the loop, and hands the addresses to `done`, in a task phase.
    ///
    /// # Errors
    ///
    /// [`OffloadFull`] if too many jobs wait: `done` does not run then.
    pub fn resolve(
        &mut self,
        name: &str,
        done: impl FnOnce(io::Result<Vec<SocketAddr>>, &mut Cx<'_, S>) + 'static,
    ) -> Result<(), OffloadFull> {
        if let Poll::Sim(seat) = &self.poll {
            let (found, delay) = (seat.host().lookup(name), seat.lookup_delay());
            self.after(delay, move |cx| done(found, cx));
            return Ok(());
        }
        let name = name.to_owned();
        let job = move || name.to_socket_addrs().map(Iterator::collect);
        self.offload(job, move |found, cx| {
            done(found.unwrap_or_else(|panic| Err(io::Error::other(panic))), cx);
        })
    }

    /// Looks up `host:port` at once, and that may block for seconds: not for a loop that serves.
    ///
    /// # Errors
    ///
    /// If the name is unknown, or the system cannot tell.
    pub fn resolve_blocking(&mut self, name: &str) -> io::Result<Vec<SocketAddr>> {
        match &self.poll {
            Poll::Mio(_) => Ok(name.to_socket_addrs()?.collect()),
            Poll::Sim(seat) => seat.host().lookup(name),
        }
    }

    /// Fills `bytes` with random bytes, fit for secrets; in simulation drawn from the seed, and
    /// fit for none.
    ///
    /// # Errors
    ///
    /// As [`os::random_bytes`]; never in simulation.
    pub fn random_bytes(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        match &self.poll {
            Poll::Mio(_) => os::random_bytes(bytes),
            Poll::Sim(seat) => {
                seat.host().fill(bytes);
                Ok(())
            }
        }
    }
}
