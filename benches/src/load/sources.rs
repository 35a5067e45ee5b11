//! Connections to 127.0.0.1, more of them than one address has ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

/// Connections from one address, in hundredths of the ports that it has. Linux tries the ports of
/// one parity first: beyond half of them, each search for a free one goes through thousands.
const PORTS_USED_PERCENT: u32 = 45;
/// Where the system says which ports it gives out.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Linux's default, where the system does not say.
const PORT_RANGE_DEFAULT: (u16, u16) = (32_768, 60_999);

/// Makes connections: from 127.0.0.1 as long as it has ports, then from 127.0.0.2 and so on.
pub struct Sources {
    server: SocketAddrV4,
    first_port: u16,
    ports_per_source: u16,
}

impl Sources {
    /// Returns those of a server that listens on `port` of 127.0.0.1.
    pub fn new(port: u16) -> Sources {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let (first_port, last_port) = port_range();
        let used = u32::from(last_port.saturating_sub(first_port)) * PORTS_USED_PERCENT / 100;
        let ports_per_source = u16::try_from(used.max(1)).expect("a part of a u16");
        Sources { server, first_port, ports_per_source }
    }

    /// Begins the connection with this number; its socket becomes writable when it stands.
    pub fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        set_tcp_nodelay(&socket, true)?;
        if let Some(source) = self.source(number) {
            // An earlier run's connections from there may still be remembered as closed.
            set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &source)?;
        }
        match connect(&socket, &self.server) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns where to connect from; `None` where the system is to choose.
    ///
    /// On the further addresses the port is named, since nobody else uses them: left to the system,
    /// binding is a search through all that were used lately.
    fn source(&self, number: usize) -> Option<SocketAddrV4> {
        let further = u32::try_from(number / usize::from(self.ports_per_source)).ok()?;
        let port = u16::try_from(number % usize::from(self.ports_per_source)).ok()?;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + further);
        (further > 0).then(|| SocketAddrV4::new(address, self.first_port + port))
    }
}

/// Returns how many connections one address can make to one server.
pub(crate) fn ports_per_address() -> u64 {
    let (first, last) = port_range();
    u64::from(last.saturating_sub(first)) + 1
}

fn port_range() -> (u16, u16) {
    let read = || {
        let text = std::fs::read_to_string(PORT_RANGE).ok()?;
        let (first, last) = text.trim().split_once(char::is_whitespace)?;
        Some((first.parse().ok()?, last.trim().parse().ok()?))
    };
    read().unwrap_or(PORT_RANGE_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_address_is_taken_when_the_ports_end() {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let sources = Sources { server, first_port: 100, ports_per_source: 9 };
        assert_eq!(sources.source(8), None);
        let source =
            |address, port| Some(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, address), port));
        assert_eq!(sources.source(9), source(2, 100));
        assert_eq!(sources.source(17), source(2, 108));
        assert_eq!(sources.source(18), source(3, 100));
    }

    #[test]
    fn a_connection_from_a_further_address_stands() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let sources = Sources::new(listener.local_addr().expect("bound").port());
        let number = usize::from(sources.ports_per_source);
        let stream = sources.connect(number).expect("loopback has more than one address");
        let (_accepted, from) = listener.accept().expect("it was made");
        assert_eq!(from.ip(), Ipv4Addr::new(127, 0, 0, 2));
        drop(stream);
    }
}
