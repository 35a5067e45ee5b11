//! Connections to 127.0.0.1, more of them than one address has ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

/// Connections from one address, of the ports that it has: the search for a free one gets long
/// towards the end. In hundredths.
const PORTS_USED_PERCENT: usize = 75;
/// Where the system says which ports it gives out.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Ports of an address where the system does not say: Linux's default, 32 768 to 60 999.
const PORTS_DEFAULT: usize = 28_232;

/// Makes connections: from 127.0.0.1 as long as it has ports, then from 127.0.0.2 and so on.
pub(crate) struct Sources {
    server: SocketAddrV4,
    connections_per_source: usize,
}

impl Sources {
    pub(crate) fn new(port: u16) -> Sources {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let ports = ports_per_address().unwrap_or(PORTS_DEFAULT);
        Sources { server, connections_per_source: (ports * PORTS_USED_PERCENT / 100).max(1) }
    }

    /// Begins the connection with this number; its socket becomes writable when it stands.
    pub(crate) fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        set_tcp_nodelay(&socket, true)?;
        if let Some(source) = self.source(number) {
            set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &SocketAddrV4::new(source, 0))?;
        }
        match connect(&socket, &self.server) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the address to connect from; `None` for the one the system takes by itself.
    fn source(&self, number: usize) -> Option<Ipv4Addr> {
        let further = u32::try_from(number / self.connections_per_source).ok()?;
        (further > 0).then(|| Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + further))
    }
}

fn ports_per_address() -> Option<usize> {
    let text = std::fs::read_to_string(PORT_RANGE).ok()?;
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    let (first, last) = (first.parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
    last.checked_sub(first).map(|ports| ports + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_address_is_taken_when_the_ports_end() {
        let sources = Sources {
            server: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
            connections_per_source: 9,
        };
        assert_eq!(sources.source(8), None);
        assert_eq!(sources.source(9), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(sources.source(17), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(sources.source(18), Some(Ipv4Addr::new(127, 0, 0, 3)));
    }

    #[test]
    fn a_connection_from_a_further_address_stands() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let mut sources = Sources::new(listener.local_addr().expect("bound").port());
        sources.connections_per_source = 1;
        let stream = sources.connect(1).expect("loopback has more than one address");
        let (_accepted, from) = listener.accept().expect("it was made");
        assert_eq!(from.ip(), Ipv4Addr::new(127, 0, 0, 2));
        drop(stream);
    }
}
