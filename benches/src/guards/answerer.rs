//! A bare server that is turned by hand: it answers when it is told to, and nothing before.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use onceloop_protocol::frame::{CALL_HEADER_BYTES, Kind, MAGIC};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::frames::{self, Front};
use crate::server::reply;

/// How long a client may take to connect and to shake hands.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The connections of a client's process, from their server's side.
pub(super) struct Answerer {
    listener: TcpListener,
    clients: Vec<Peer>,
}

struct Peer {
    stream: TcpStream,
    /// What has come and is not answered.
    input: Vec<u8>,
    /// Bytes at the front of it that are whole frames, and how many of these are requests.
    whole: usize,
    requests: u64,
}

impl Answerer {
    pub(super) fn listen() -> Result<Answerer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
        Ok(Answerer { listener, clients: Vec::new() })
    }

    pub(super) fn port(&self) -> Result<u16> {
        Ok(self.listener.local_addr().context("asking for the port")?.port())
    }

    /// Takes so many connections, with a handshake on each.
    pub(super) fn accept(&mut self, connections: u32) -> Result<()> {
        for _ in 0..connections {
            wait(&self.listener, "no client connected")?;
            let (stream, _) = self.listener.accept().context("accepting")?;
            self.clients.push(Peer::greet(stream)?);
        }
        Ok(())
    }

    /// Takes what has come, and returns how many requests wait for their answers.
    pub(super) fn requests(&mut self) -> Result<u64> {
        self.clients.iter_mut().try_fold(0, |sum, peer| Ok(sum + peer.take()?))
    }

    /// Answers all requests that have come, with one write a connection.
    pub(super) fn answer(&mut self) -> Result<()> {
        self.clients.iter_mut().try_for_each(Peer::answer)
    }
}

impl Peer {
    fn greet(mut stream: TcpStream) -> Result<Peer> {
        stream.set_nodelay(true).context("asking for no delay")?;
        let mut input = Vec::new();
        let used = loop {
            wait(&stream, "no HELLO came")?;
            let mut chunk = [0; 4096];
            let read = stream.read(&mut chunk).context("reading HELLO")?;
            ensure!(read > 0, "the client closed the connection");
            input.extend_from_slice(&chunk[..read]);
            let Some(rest) = input.get(MAGIC.len()..) else { continue };
            match frames::front(rest) {
                Front::Part => {}
                Front::Frame(header, length) if header[4] == Kind::Hello as u8 => {
                    break MAGIC.len() + length;
                }
                _ => bail!("the client said no HELLO"),
            }
        };
        ensure!(used == input.len(), "bytes behind the HELLO");
        stream.write_all(&frames::welcome(1024)).context("sending WELCOME")?;
        stream.set_nonblocking(true).context("asking not to block")?;
        Ok(Peer { stream, input: Vec::new(), whole: 0, requests: 0 })
    }

    fn take(&mut self) -> Result<u64> {
        let mut chunk = [0; 65_536];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the client closed the connection"),
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading requests"),
            }
        }
        while let Front::Frame(header, length) = frames::front(&self.input[self.whole..]) {
            self.requests += u64::from(header[4] == Kind::Request as u8);
            self.whole += length;
        }
        Ok(self.requests)
    }

    fn answer(&mut self) -> Result<()> {
        let mut output = Vec::new();
        let mut bytes = &self.input[..self.whole];
        while let Front::Frame(header, length) = frames::front(bytes) {
            if header[4] == Kind::Request as u8 {
                let body = bytes.get(CALL_HEADER_BYTES..length).context("a request's header")?;
                reply(header, body, &mut output);
            }
            bytes = &bytes[length..];
        }
        self.input.drain(..self.whole);
        (self.whole, self.requests) = (0, 0);
        // What is in flight fits the socket's buffer.
        self.stream.write_all(&output).context("answering")
    }
}

fn wait(socket: &impl std::os::fd::AsFd, why_not: &'static str) -> Result<()> {
    let mut sockets = [PollFd::new(socket, PollFlags::IN)];
    ensure!(poll(&mut sockets, Some(&PATIENCE)).context("waiting")? > 0, why_not);
    Ok(())
}
