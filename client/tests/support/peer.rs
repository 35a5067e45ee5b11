//! A server that is played by hand, on a plain socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use onceloop_protocol::codec::{Encode, decode_whole};
use onceloop_protocol::frame::{self, Header, Kind, LENGTH_BYTES, MAGIC, VERSION};
use onceloop_protocol::handshake::{CellReport, Resume, Resumed, ServerLimits, Sid, Welcome};
use onceloop_protocol::limits::Limits;

use super::{PATIENCE, World};

/// One connection of a client, as its server sees it.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
}

impl Peer {
    pub(crate) fn accept(listener: &TcpListener) -> Peer {
        let (stream, _) = listener.accept().unwrap();
        Peer::begin(stream)
    }

    pub(crate) fn begin(mut stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut magic = [0; 8];
        stream.read_exact(&mut magic).unwrap();
        assert_eq!(magic, MAGIC);
        stream.write_all(&MAGIC).unwrap();
        Peer { stream }
    }

    /// Returns the next frame, or nothing if the client has closed.
    pub(crate) fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut length = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = length.to_vec();
        frame.resize(LENGTH_BYTES + u32::from_be_bytes(length) as usize, 0);
        self.stream.read_exact(&mut frame[LENGTH_BYTES..]).ok()?;
        let header = Header::read(&frame).unwrap();
        Some((header, frame.split_off(header.kind.header_bytes())))
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, kind: Kind) -> (Header, Vec<u8>) {
        let (header, body) = self.next().expect("a frame");
        assert_eq!(header.kind, kind);
        (header, body)
    }

    /// Turns the client's loop until it has connected and said something.
    pub(crate) fn accept_beside(world: &mut World, listener: &TcpListener) -> Peer {
        listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        world.until(|_| {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        wait_beside(world, &stream);
        Peer::begin(stream)
    }

    /// Turns the client's loop until it sends a frame, or closes.
    pub(crate) fn next_beside(&mut self, world: &mut World) -> Option<(Header, Vec<u8>)> {
        wait_beside(world, &self.stream);
        self.next()
    }

    pub(crate) fn send(&mut self, kind: Kind, seq: u64, body: &impl Encode) {
        let mut out = Vec::new();
        let start = Header::new(kind, seq).begin(&mut out);
        body.encode(&mut out).unwrap();
        frame::finish(&mut out, start);
        self.stream.write_all(&out).unwrap();
    }

    pub(crate) fn send_empty(&mut self, kind: Kind) {
        let mut out = Vec::new();
        Header::new(kind, 0).append(&[], &mut out);
        self.stream.write_all(&out).unwrap();
    }

    pub(crate) fn welcome(&mut self) {
        self.expect(Kind::Hello);
        let limits = ServerLimits::of(&Limits::default());
        let sid = Sid { place: 1, secret: 2 };
        let welcome = Welcome { version: VERSION, features: 0, sid, window: 8, limits };
        self.send(Kind::Welcome, 0, &welcome);
    }

    pub(crate) fn resumed(&mut self, reports: &[CellReport]) -> Resume {
        let (_, body) = self.expect(Kind::Resume);
        let resume: Resume = decode_whole(&body).unwrap();
        let resumed = Resumed {
            version: VERSION,
            features: 0,
            floor: resume.ack,
            window: 8,
            cells: Resumed::pack(reports.iter().copied()),
            limits: ServerLimits::of(&Limits::default()),
        };
        self.send(Kind::Resumed, 0, &resumed);
        resume
    }
}

/// Turns the client's loop until there is something to read. Small frames come whole.
pub(crate) fn wait_beside(world: &mut World, stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    world.until(|_| stream.peek(&mut [0]).is_ok());
    stream.set_nonblocking(false).unwrap();
}

/// Plays a server on a thread; the test joins it, so that what it asserts counts.
pub(crate) fn play(
    script: impl FnOnce(TcpListener) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, std::thread::spawn(move || script(listener)))
}
