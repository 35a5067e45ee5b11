//! The limit: a bare epoll echo on one thread.
//!
//! It answers HELLO with a canned WELCOME and each request with a reply of the same body. It knows
//! the length, the kind and the seq of a frame and nothing more: no session, no scan, no deadline.
//! One read and one write for each ready socket; the buffers are shared by all of them.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use onceloop_protocol::frame::{CALL_HEADER_BYTES, HEADER_BYTES, Kind, LENGTH_BYTES, MAGIC};
use rustix::net::SocketFlags;
use rustix::net::sockopt::set_tcp_nodelay;
use slab::Slab;

use crate::frames::{self, Front};
use crate::poller::Poller;

/// Room for one read: above the longest frame, so that a read always makes progress.
const INPUT_BYTES: usize = 2 * frames::FRAME_BYTES_MAX;
/// The window every client is granted: the protocol's largest. Nothing here depends on it.
const WINDOW: u32 = 1024;
/// The listener among the ids of the poller; no slab grows this far.
const LISTENER: u64 = u64::MAX;

/// A connection: 80 bytes as long as frames and replies are not cut.
struct Peer {
    stream: TcpStream,
    /// Whether the magic has come.
    is_greeted: bool,
    /// The beginning of a frame whose end has not come.
    rest: Vec<u8>,
    /// Replies that the socket did not take. No request is read before they are gone.
    unsent: Vec<u8>,
}

/// What becomes of a connection.
enum Next {
    Keep,
    Close,
}

/// Serves `listener` for ever.
pub(super) fn run(listener: TcpListener, spin: Duration) -> Result<Infallible> {
    listener.set_nonblocking(true).context("listening without blocking")?;
    let mut poller = Poller::new(spin).context("making an epoll")?;
    poller.add(&listener, LISTENER).context("watching the listener")?;
    let mut server = Server {
        peers: Slab::new(),
        input: vec![0; INPUT_BYTES],
        output: Vec::with_capacity(INPUT_BYTES),
        welcome: frames::welcome(WINDOW),
    };
    loop {
        let ready = poller.wait(None).context("waiting for events")?;
        for index in 0..ready {
            match poller.id(index) {
                LISTENER => server.accept(&listener, &poller).context("accepting")?,
                id => server.serve(usize::try_from(id).context("an id this server made")?),
            }
        }
    }
}

struct Server {
    peers: Slab<Peer>,
    input: Vec<u8>,
    output: Vec<u8>,
    welcome: Vec<u8>,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener, poller: &Poller) -> io::Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match rustix::net::accept_with(listener, flags) {
                Ok(socket) => socket,
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                Err(rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            set_tcp_nodelay(&socket, true)?;
            let entry = self.peers.vacant_entry();
            poller.add(&socket, entry.key() as u64)?;
            entry.insert(Peer {
                stream: TcpStream::from(socket),
                is_greeted: false,
                rest: Vec::new(),
                unsent: Vec::new(),
            });
        }
    }

    fn serve(&mut self, id: usize) {
        // A socket closed earlier in this batch of events may still be in it.
        let Some(peer) = self.peers.get_mut(id) else { return };
        let next = peer.serve(&mut self.input, &mut self.output, &self.welcome);
        if let Ok(Next::Keep) = next {
            return;
        }
        // A client that breaks off is its own affair: it counts what it lost.
        self.peers.remove(id);
    }
}

impl Peer {
    /// Reads what has come and answers it, until the socket is empty or takes no more.
    fn serve(
        &mut self,
        input: &mut [u8],
        output: &mut Vec<u8>,
        welcome: &[u8],
    ) -> io::Result<Next> {
        if !self.unsent.is_empty() {
            let unsent = mem::take(&mut self.unsent);
            self.send(&unsent)?;
        }
        while self.unsent.is_empty() {
            let kept = self.rest.len();
            input[..kept].copy_from_slice(&self.rest);
            let read = match self.stream.read(&mut input[kept..]) {
                Ok(0) => return Ok(Next::Close),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Keep),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let filled = &input[..kept + read];
            output.clear();
            let Some(used) = self.answer(filled, output, welcome) else { return Ok(Next::Close) };
            if kept > 0 || used < filled.len() {
                self.rest = filled[used..].to_vec();
            }
            if !output.is_empty() {
                self.send(output)?;
            }
            if kept + read < input.len() {
                // A short read: the socket is empty, and the next byte brings an event.
                return Ok(Next::Keep);
            }
        }
        Ok(Next::Keep)
    }

    /// Appends the answers to the whole frames in `bytes` to `output`; returns how many bytes they
    /// were, or `None` if the connection is over.
    fn answer(&mut self, bytes: &[u8], output: &mut Vec<u8>, welcome: &[u8]) -> Option<usize> {
        let mut used = 0;
        if !self.is_greeted {
            let magic: &[u8; MAGIC.len()] = match bytes.first_chunk() {
                Some(magic) => magic,
                None => return Some(0),
            };
            if *magic != MAGIC {
                return None;
            }
            self.is_greeted = true;
            used = MAGIC.len();
        }
        loop {
            let rest = &bytes[used..];
            match frames::front(rest) {
                Front::Part => return Some(used),
                Front::Broken => return None,
                Front::Frame(header, length) => {
                    if header[4] == Kind::Request as u8 {
                        reply(header, rest.get(CALL_HEADER_BYTES..length)?, output);
                    } else {
                        answer_other(header, output, welcome)?;
                    }
                    used += length;
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match self.stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if sent < bytes.len() {
            self.unsent = bytes[sent..].to_vec();
        }
        Ok(())
    }
}

/// Appends a reply with the request's seq and body.
#[inline]
pub(crate) fn reply(request: &[u8; HEADER_BYTES], body: &[u8], output: &mut Vec<u8>) {
    let mut header = *request;
    // Shorter than the request, whose length was a `u32`.
    #[expect(clippy::cast_possible_truncation, reason = "see above")]
    let length = (HEADER_BYTES - LENGTH_BYTES + body.len()) as u32;
    header[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    header[4] = Kind::Reply as u8;
    output.extend_from_slice(&header);
    output.extend_from_slice(body);
}

/// Answers what is no request; `None` ends the connection.
#[cold]
fn answer_other(header: &[u8; HEADER_BYTES], output: &mut Vec<u8>, welcome: &[u8]) -> Option<()> {
    match Kind::from_wire(header[4])? {
        Kind::Hello => output.extend_from_slice(welcome),
        Kind::Ping => output.extend(frames::bare(Kind::Pong, frames::seq(header))),
        Kind::Bye => return None,
        _ => {}
    }
    Some(())
}
