//! A server turned by hand, and scripted peers on real sockets.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use onceloop_protocol::codec::{self, Encode, EncodeArgs};
use onceloop_protocol::cutter::{Cut, Cutter};
use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::{Flags, Header, Kind, MAGIC, MethodId};
use onceloop_protocol::handshake::{Hello, Order, Resume, Welcome};
use onceloop_protocol::limits::Limits;
use onceloop_reactor::{Config, Reactor, Turn, os};
use onceloop_server::{Builder, Responder, Server, Stats};

onceloop_protocol::service! {
    pub mod bank {
        /// Not idempotent.
        fn debit(amount: u64) -> u64;
        fn later(amount: u64) -> u64;
        fn broken();
        fn big(bytes: usize) -> bytes::Bytes;
        #[idempotent]
        fn balance() -> u64;
    }
}

/// How long a test waits for what must come: far beyond what it takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What runs when a call of `bank.later` is cancelled.
pub type OnCancel = fn(&mut onceloop_reactor::Cx<'_, App>);

#[derive(Default)]
pub struct App {
    pub spent: u64,
    pub waiting: Vec<(u64, Responder<App, bank::later>)>,
    pub on_cancel: Option<OnCancel>,
    pub cancelled: u64,
}

/// A server and its loop, turned by hand between the peers' steps.
pub struct World {
    pub reactor: Reactor<App>,
    pub app: App,
    pub server: Server<App>,
}

impl World {
    pub fn new() -> World {
        World::with(Limits::default())
    }

    pub fn with(limits: Limits) -> World {
        World::built(limits, |builder| builder)
    }

    /// A server to which `more` is added.
    pub fn built(limits: Limits, more: impl FnOnce(Builder<App>) -> Builder<App>) -> World {
        World::over(Config::default(), limits, more)
    }

    /// The same over a loop of its own making.
    pub fn over(
        config: Config,
        limits: Limits,
        more: impl FnOnce(Builder<App>) -> Builder<App>,
    ) -> World {
        let mut reactor = Reactor::with_config(config).expect("a reactor");
        let builder = Builder::<App>::new()
            .service(bank::METHODS)
            .limits(limits)
            .method(bank::debit, |(amount,), cx| {
                cx.state.spent += amount;
                Ok(cx.state.spent)
            })
            .deferred(bank::later, |(amount,), responder, cx| {
                if let Some(on_cancel) = cx.state.on_cancel {
                    responder.on_cancel(cx.registry, on_cancel);
                }
                cx.state.waiting.push((amount, responder));
            })
            .method(bank::broken, |(), _| panic!("on purpose"))
            .method(bank::big, |(bytes,), _| Ok(vec![7; bytes].into()))
            .method(bank::balance, |(), cx| Ok(cx.state.spent));
        let server = more(builder).listen(reactor.registry(), "127.0.0.1:0").expect("a server");
        World { reactor, app: App::default(), server }
    }

    /// One turn that waits a little, if there is nothing to do.
    pub fn turn(&mut self) -> Turn {
        self.reactor.turn(&mut self.app, Some(Duration::from_millis(2))).expect("a turn")
    }

    /// Turns until nothing happens.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let turn = self.turn();
            quiet = if turn.events + turn.tasks == 0 { quiet + 1 } else { 0 };
        }
    }

    /// Turns until `is_done`; fails if that takes too long.
    #[track_caller]
    pub fn until(&mut self, mut is_done: impl FnMut(&mut World) -> bool) {
        let begin = Instant::now();
        while !is_done(self) {
            assert!(begin.elapsed() < PATIENCE, "it never happens");
            self.turn();
        }
    }

    /// Turns for so long, whatever happens.
    pub fn turn_for(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.turn();
        }
    }

    pub fn stats(&mut self) -> Stats {
        self.server.stats(self.reactor.registry())
    }

    pub fn address(&mut self) -> String {
        self.server.local_addresses(self.reactor.registry()).remove(0).to_string()
    }

    /// Answers what `bank.later` holds back.
    pub fn answer_all(&mut self) {
        let waiting = std::mem::take(&mut self.app.waiting);
        self.reactor.registry().defer(move |cx| {
            for (amount, responder) in waiting {
                responder.respond(cx, Ok(amount));
            }
        });
        self.settle();
    }
}

/// One end of a connection, by hand.
pub struct Wire {
    pub stream: TcpStream,
    cutter: Cutter,
    received: Vec<u8>,
}

/// A frame that came.
#[derive(Debug)]
pub struct Got {
    pub header: Header,
    pub body: Vec<u8>,
}

impl Got {
    pub fn code(&self) -> Option<Code> {
        assert_eq!(self.header.kind, Kind::Error, "{self:?}");
        let body: ErrorBody<'_> = codec::decode_whole(&self.body).expect("an error's body");
        Code::from_wire(body.code)
    }

    pub fn number(&self) -> u64 {
        assert_eq!(self.header.kind, Kind::Reply, "{self:?}");
        codec::decode_whole(&self.body).expect("a number")
    }
}

impl Wire {
    pub fn open(world: &mut World) -> Wire {
        let stream = TcpStream::connect(world.address()).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        Wire { stream, cutter: Cutter::new(), received: Vec::new() }
    }

    pub fn hello(world: &mut World, order: Order) -> (Wire, Welcome) {
        Wire::hello_of(world, &Hello { order, ..plain_hello() })
    }

    pub fn hello_of(world: &mut World, hello: &Hello) -> (Wire, Welcome) {
        let mut wire = Wire::open(world);
        wire.begin(world, Kind::Hello, hello);
        let welcome = wire.next(world);
        assert_eq!(welcome.header.kind, Kind::Welcome, "{welcome:?}");
        (wire, codec::decode_whole(&welcome.body).expect("a welcome"))
    }

    pub fn resume(world: &mut World, welcome: &Welcome, attachment: u32, ack: u64) -> Wire {
        let mut wire = Wire::open(world);
        wire.begin(world, Kind::Resume, &plain_resume(welcome, attachment, ack));
        wire
    }

    /// Comes by another connection beside the one that is attached.
    pub fn join(world: &mut World, welcome: &Welcome, attachment: u32) -> Wire {
        let mut wire = Wire::open(world);
        let resume = Resume { join: true, ..plain_resume(welcome, attachment, 0) };
        wire.begin(world, Kind::Resume, &resume);
        wire
    }

    pub fn begin<T: Encode>(&mut self, world: &mut World, kind: Kind, body: &T) {
        let bytes = first_frame(kind, body);
        self.stream.write_all(&bytes).expect("the server reads");
        world.turn();
    }

    pub fn send(&mut self, world: &mut World, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
        world.settle();
    }

    pub fn call(
        &mut self,
        world: &mut World,
        seq: u64,
        ack: u64,
        method: &str,
        args: &impl EncodeArgs,
    ) {
        let bytes = request(seq, ack, method, args);
        self.send(world, &bytes);
    }

    /// Takes the frames that are there.
    pub fn all(&mut self, world: &mut World) -> Vec<Got> {
        world.settle();
        self.stream.set_nonblocking(true).expect("non-blocking");
        let mut chunk = [0; 65536];
        while let Ok(n @ 1..) = self.stream.read(&mut chunk) {
            self.received.extend_from_slice(&chunk[..n]);
            world.settle();
        }
        self.stream.set_nonblocking(false).expect("blocking");
        self.cut()
    }

    /// Takes what is there without waiting; `false` if the server has closed.
    pub fn poll(&mut self, frames: &mut Vec<Got>) -> bool {
        self.stream.set_nonblocking(true).expect("non-blocking");
        let mut chunk = [0; 65536];
        let is_open = loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break false,
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.stream.set_nonblocking(false).expect("blocking");
        frames.append(&mut self.cut());
        is_open
    }

    fn cut(&mut self) -> Vec<Got> {
        let mut input = &self.received[..];
        let mut frames = Vec::new();
        loop {
            match self.cutter.next(&mut input, usize::MAX) {
                Cut::Frame(frame) => {
                    frames.push(Got { header: frame.header, body: frame.body.to_vec() });
                }
                Cut::NeedMore(_) => break,
                other => panic!("the server sends no such thing: {other:?}"),
            }
        }
        self.received = input.to_vec();
        frames
    }

    /// Turns until so many frames have come.
    #[track_caller]
    pub fn wait(&mut self, world: &mut World, count: usize) -> Vec<Got> {
        let mut frames = Vec::new();
        world.until(|_| {
            let is_open = self.poll(&mut frames);
            assert!(is_open || frames.len() >= count, "closed after {frames:?}");
            frames.len() >= count
        });
        frames
    }

    /// Turns until a frame has come; there may be no second.
    #[track_caller]
    pub fn next(&mut self, world: &mut World) -> Got {
        let mut frames = self.wait(world, 1);
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0)
    }

    #[track_caller]
    pub fn one(&mut self, world: &mut World) -> Got {
        let mut frames = self.all(world);
        assert_eq!(frames.len(), 1, "{frames:?}");
        frames.remove(0)
    }

    pub fn is_closed(&mut self, world: &mut World) -> bool {
        world.settle();
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }

    /// Turns until the server has closed; returns how long that took, and what came before.
    #[track_caller]
    pub fn until_closed(&mut self, world: &mut World) -> (Duration, Vec<Got>) {
        let begin = Instant::now();
        let mut frames = Vec::new();
        world.until(|_| !self.poll(&mut frames));
        (begin.elapsed(), frames)
    }
}

/// Has room for both ends of many connections.
pub fn raise_descriptor_limit(needed: u64) {
    let limit = os::raise_descriptor_limit().expect("the system tells");
    assert!(limit >= needed, "the test needs {needed} descriptors, and may have {limit}");
}

pub fn plain_hello() -> Hello {
    Hello { version: 1, features: 0, window: 8, order: Order::Unordered, token: None }
}

pub fn plain_resume(welcome: &Welcome, attachment: u32, ack: u64) -> Resume {
    Resume {
        version: 1,
        features: 0,
        sid: welcome.sid,
        incarnation: 0,
        attachment,
        ack,
        join: false,
        token: None,
    }
}

/// The magic and the frame after it.
pub fn first_frame<T: Encode + ?Sized>(kind: Kind, body: &T) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(frame(kind, 0, &codec::encode(body).expect("it encodes")));
    out
}

pub fn frame(kind: Kind, seq: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Header::new(kind, seq).append(body, &mut out);
    out
}

pub fn request(seq: u64, ack: u64, method: &str, args: &impl EncodeArgs) -> Vec<u8> {
    flagged(seq, ack, method, args, Flags::NONE)
}

pub fn flagged(seq: u64, ack: u64, method: &str, args: &impl EncodeArgs, flags: Flags) -> Vec<u8> {
    let mut header = Header::new(Kind::Request, seq);
    (header.ack, header.method, header.flags) = (ack, MethodId::of(method), flags);
    let mut body = Vec::new();
    args.encode_args(&mut body).expect("it encodes");
    let mut out = Vec::new();
    header.append(&body, &mut out);
    out
}
