//! A client against a server that is played by hand, on a plain socket.
//!
//! Most scripts have a thread of their own. Where the client's patience is short, client and script
//! take turns on one thread: a machine that is busy elsewhere then delays both, and proves nothing.
#![allow(missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use onceloop_client::Client;
use onceloop_protocol::codec::{Encode, decode_whole};
use onceloop_protocol::error::{Code, ErrorBody, Ran};
use onceloop_protocol::frame::{self, Header, Kind, LENGTH_BYTES, MAGIC, VERSION};
use onceloop_protocol::handshake::{CellReport, Resume, Resumed, ServerLimits, Sid, Welcome};
use onceloop_protocol::limits::Limits;
use support::{App, PATIENCE, World, bank, err, hasty, hasty_limits, ok};

/// One connection of a client, as its server sees it.
struct Peer {
    stream: TcpStream,
}

impl Peer {
    fn accept(listener: &TcpListener) -> Peer {
        let (stream, _) = listener.accept().unwrap();
        Peer::begin(stream)
    }

    fn begin(mut stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut magic = [0; 8];
        stream.read_exact(&mut magic).unwrap();
        assert_eq!(magic, MAGIC);
        stream.write_all(&MAGIC).unwrap();
        Peer { stream }
    }

    /// Returns the next frame, or nothing if the client has closed.
    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut length = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut length).ok()?;
        let mut frame = length.to_vec();
        frame.resize(LENGTH_BYTES + u32::from_be_bytes(length) as usize, 0);
        self.stream.read_exact(&mut frame[LENGTH_BYTES..]).ok()?;
        let header = Header::read(&frame).unwrap();
        Some((header, frame.split_off(header.kind.header_bytes())))
    }

    #[track_caller]
    fn expect(&mut self, kind: Kind) -> (Header, Vec<u8>) {
        let (header, body) = self.next().expect("a frame");
        assert_eq!(header.kind, kind);
        (header, body)
    }

    /// Turns the client's loop until it has connected and said something.
    fn accept_beside(world: &mut World, listener: &TcpListener) -> Peer {
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
    fn next_beside(&mut self, world: &mut World) -> Option<(Header, Vec<u8>)> {
        wait_beside(world, &self.stream);
        self.next()
    }

    fn send(&mut self, kind: Kind, seq: u64, body: &impl Encode) {
        let mut out = Vec::new();
        let start = Header::new(kind, seq).begin(&mut out);
        body.encode(&mut out).unwrap();
        frame::finish(&mut out, start);
        self.stream.write_all(&out).unwrap();
    }

    fn welcome(&mut self) {
        self.expect(Kind::Hello);
        let limits = ServerLimits::of(&Limits::default());
        let sid = Sid { place: 1, secret: 2 };
        let welcome = Welcome { version: VERSION, features: 0, sid, window: 8, limits };
        self.send(Kind::Welcome, 0, &welcome);
    }

    fn resumed(&mut self, reports: &[CellReport]) -> Resume {
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
fn wait_beside(world: &mut World, stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    world.until(|_| stream.peek(&mut [0]).is_ok());
    stream.set_nonblocking(false).unwrap();
}

/// Returns a client of `listener` that asks a silent server soon.
fn impatient(world: &mut World, listener: &TcpListener) -> Client<App> {
    let mut limits = hasty_limits();
    limits.retransmit_timeout = Duration::from_millis(30);
    let address = listener.local_addr().unwrap();
    Client::builder().limits(limits).connect(world.registry(), address).unwrap()
}

/// Plays a server on a thread; the test joins it, so that what it asserts counts.
fn play(script: impl FnOnce(TcpListener) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, std::thread::spawn(move || script(listener)))
}

#[test]
fn a_server_that_falls_silent_is_asked_and_then_left() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = impatient(&mut world, &listener);
    client.call(world.registry(), bank::debit, (7,), note!(1));
    let mut first = Peer::accept_beside(&mut world, &listener);
    first.welcome();
    let (request, request_body) = first.next_beside(&mut world).unwrap();
    assert_eq!(request.kind, Kind::Request);
    assert_eq!(first.next_beside(&mut world).unwrap().0.kind, Kind::Ping);
    // No PONG: the client gives the connection up and comes back.
    assert!(first.next_beside(&mut world).is_none(), "the first connection is closed");
    let mut second = Peer::accept_beside(&mut world, &listener);
    let resume = second.resumed(&[CellReport::Vacant]);
    assert_eq!((resume.ack, resume.attachment), (0, 2));
    let (again, again_body) = second.next_beside(&mut world).unwrap();
    assert_eq!((again.seq, again_body), (1, request_body));
    second.send(Kind::Reply, 1, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);
}

#[test]
fn a_server_that_answers_pings_is_waited_for() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = impatient(&mut world, &listener);
    client.call(world.registry(), bank::debit, (7,), note!(1));
    let mut peer = Peer::accept_beside(&mut world, &listener);
    peer.welcome();
    assert_eq!(peer.next_beside(&mut world).unwrap().0.kind, Kind::Request);
    for _ in 0..4 {
        let (ping, _) = peer.next_beside(&mut world).unwrap();
        assert_eq!(ping.kind, Kind::Ping);
        let mut out = Vec::new();
        Header::new(Kind::Pong, ping.seq).append(&[], &mut out);
        peer.stream.write_all(&out).unwrap();
    }
    peer.send(Kind::Reply, 1, &7_u64);
    assert_eq!(world.answers(1), [ok(1, "7")]);
    assert_eq!(client.counters(world.registry()).resends, 0);
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let (address, script) = play(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.welcome();
        for _ in 0..3 {
            let (header, _) = peer.expect(Kind::Request);
            assert_eq!(header.seq, 1);
            let mut body = ErrorBody::new(Code::Busy, "not now");
            body.retry_after_ms = Some(5);
            peer.send(Kind::Error, 1, &body);
        }
        peer.expect(Kind::Request);
        peer.send(Kind::Reply, 1, &7_u64);
        while peer.next().is_some() {}
    });
    let mut world = World::new();
    let client = Client::connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::debit, (7,), note!(1));
    assert_eq!(world.answers(1), [ok(1, "7")]);
    drop(world);
    script.join().unwrap();
}

#[test]
fn a_reply_that_is_too_large_has_run() {
    let (address, script) = play(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.welcome();
        peer.expect(Kind::Request);
        peer.send(Kind::Reply, 1, &"x".repeat(3_000));
        peer.expect(Kind::Request);
        peer.send(Kind::Reply, 2, &"y");
        while peer.next().is_some() {}
    });
    let mut world = World::new();
    let mut limits = hasty_limits();
    limits.body_bytes_max = 2_000;
    let client = Client::builder().limits(limits).connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::echo, ("x",), note!(1));
    assert_eq!(world.answers(1), [err(1, Ran::Yes, Code::TooLarge)]);
    client.call(world.registry(), bank::echo, ("y",), note!(2));
    assert_eq!(world.answers(1), [ok(2, "\"y\"")]);
    drop(world);
    script.join().unwrap();
}

#[test]
fn a_server_that_breaks_the_protocol_is_left_and_resumed() {
    let (address, script) = play(|listener| {
        let mut first = Peer::accept(&listener);
        first.welcome();
        first.expect(Kind::Request);
        first.send(Kind::Reply, 99, &7_u64);
        let mut second = Peer::accept(&listener);
        second.resumed(&[CellReport::Finished]);
        second.send(Kind::Reply, 1, &7_u64);
        while second.next().is_some() {}
    });
    let mut world = World::new();
    let client = hasty().connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::debit, (7,), note!(1));
    assert_eq!(world.answers(1), [ok(1, "7")]);
    drop(world);
    script.join().unwrap();
}

#[test]
fn a_closed_client_says_bye_and_what_it_has_consumed() {
    let (address, script) = play(|listener| {
        let mut peer = Peer::accept(&listener);
        peer.welcome();
        peer.expect(Kind::Request);
        peer.send(Kind::Reply, 1, &7_u64);
        let (bye, body) = peer.expect(Kind::Bye);
        assert_eq!((bye.seq, body.len()), (1, 0));
        assert!(peer.next().is_none());
    });
    let mut world = World::new();
    let client = Client::connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::debit, (7,), move |reply, cx| {
        note!(1)(reply, cx);
        client.close(cx.registry);
    });
    assert_eq!(world.answers(1), [ok(1, "7")]);
    world.until(|_| script.is_finished());
    script.join().unwrap();
}

#[test]
fn a_server_that_never_answers_the_handshake_is_left() {
    let (address, script) = play(|listener| {
        let mut first = Peer::accept(&listener);
        first.expect(Kind::Hello);
        // A machine that is busy elsewhere may make more than one handshake late.
        loop {
            let mut peer = Peer::accept(&listener);
            peer.welcome();
            if peer.next().is_some() {
                peer.send(Kind::Reply, 1, &7_u64);
                while peer.next().is_some() {}
                return;
            }
        }
    });
    let mut world = World::new();
    let mut limits = hasty_limits();
    limits.handshake_timeout = Duration::from_millis(50);
    let client = Client::builder().limits(limits).connect(world.registry(), address).unwrap();
    client.call(world.registry(), bank::debit, (7,), note!(1));
    assert_eq!(world.answers(1), [ok(1, "7")]);
    drop(world);
    script.join().unwrap();
}
