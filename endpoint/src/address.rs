//! Where a server is.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server listens or is to be found: `host:port`, `[::1]:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A host by name, and a port: to be resolved.
    Name(String),
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Returns the TCP addresses that this one stands for; none for a Unix socket.
    ///
    /// A name is looked up in the system, and that may block for seconds: on a loop, use
    /// [`Registry::resolve`](onceloop_reactor::Registry::resolve).
    ///
    /// # Errors
    /// If the name is unknown, or the system cannot tell.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Address::Name(name) => Ok(name.to_socket_addrs()?.collect()),
            Address::Tcp(address) => Ok(vec![*address]),
            Address::Unix(_) => Ok(Vec::new()),
        }
    }
}

/// What can be taken for an [`Address`]: a text, a `SocketAddr`, or an `Address` itself.
pub trait ToAddress {
    /// Returns the address.
    ///
    /// # Errors
    /// If it is none: `InvalidInput`, with a sentence that says how one is written.
    fn to_address(self) -> io::Result<Address>;
}

impl<A> ToAddress for A
where
    A: TryInto<Address>,
    A::Error: Error + Send + Sync + 'static,
{
    fn to_address(self) -> io::Result<Address> {
        self.try_into().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress(String);

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no address: write host:port, [::1]:port or unix:/path", self.0)
    }
}

impl Error for BadAddress {}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(BadAddress(text.into())),
                path => Ok(Address::Unix(path.into())),
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Address::Tcp(address));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Address::Name(text.into()))
            }
            _ => Err(BadAddress(text.into())),
        }
    }
}

impl TryFrom<&str> for Address {
    type Error = BadAddress;

    fn try_from(text: &str) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = BadAddress;

    fn try_from(text: &String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Tcp(address)
    }
}

impl From<onceloop_reactor::Address> for Address {
    fn from(address: onceloop_reactor::Address) -> Self {
        match address {
            onceloop_reactor::Address::Tcp(address) => Address::Tcp(address),
            onceloop_reactor::Address::Unix(path) => Address::Unix(path),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Name(name) => f.write_str(name),
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_back() {
        for text in ["127.0.0.1:80", "[::1]:80", "localhost:80", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(text.into()));
        }
    }

    #[test]
    fn what_is_no_address_is_said_to_be_none() {
        for text in ["", "localhost", ":80", "host:port", "host:70000", "unix:"] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.to_string().contains("host:port"), "{error}");
        }
    }
}
