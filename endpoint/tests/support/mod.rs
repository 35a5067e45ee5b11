//! A role that only echoes, its loop turned by hand, and the other ends of its connections.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use onceloop_endpoint::{Closed, Connection, Frames, Role, Settings, close, finish};
use onceloop_protocol::cutter::FramingError;
use onceloop_protocol::frame::{Frame, Header, Kind, MAGIC};
use onceloop_protocol::limits::Limits;
use onceloop_protocol::table::Refusal;
use onceloop_reactor::{Config, Cx, Id, Reactor, Stream};

/// Answers each REQUEST with its own body; `seq` says what else is to be done.
#[derive(Clone, Copy)]
pub struct Echo;

pub type EchoId = Id<Connection<Echo>>;

/// Seqs with a meaning.
pub const PANIC: u64 = 1_000;
pub const CLOSE: u64 = 1_001;
pub const FINISH: u64 = 1_002;
/// The answer is a shared frame, with a body of `LARGE_BYTES`.
pub const LARGE: u64 = 1_003;
pub const LARGE_BYTES: usize = 50_000;

#[derive(Default)]
pub struct App {
    pub frames: Vec<u64>,
    pub closed: Vec<(u64, String)>,
}

pub fn echo(cx: &mut Cx<'_, App>, id: EchoId, frame: &Frame<'_>, out: &mut Vec<u8>) {
    let seq = frame.header.seq;
    cx.state.frames.push(seq);
    match seq {
        // Without a word from the panic hook.
        PANIC => resume_unwind(Box::new("on purpose")),
        CLOSE => {
            close(cx.registry, id, Closed::Local("asked"));
            close(cx.registry, id, Closed::Local("asked again"));
        }
        FINISH => finish(cx.registry, id, Closed::Local("asked")),
        LARGE => {
            let mut large = Vec::new();
            Header::new(Kind::Reply, seq).append(&[7; LARGE_BYTES], &mut large);
            let connection = cx.registry.get_mut(id).expect("it is open");
            // As the server does it: it does not overtake those before it.
            connection.out().append(out);
            connection.push_shared(large.into());
            return cx.registry.touch(id);
        }
        _ => {}
    }
    Header::new(Kind::Reply, seq).append(frame.body, out);
}

impl Role<App> for Echo {
    fn is_established(&self) -> bool {
        true
    }

    fn on_open(_: &mut Cx<'_, App>, _: EchoId, _: &mut Vec<u8>) {}

    fn on_frame(
        self,
        cx: &mut Cx<'_, App>,
        id: EchoId,
        frame: &Frame<'_>,
        frames: &mut Frames<'_>,
        out: &mut Vec<u8>,
    ) {
        echo(cx, id, frame, out);
        // As the server does it.
        while cx.registry.is_unchanged(id)
            && let Some(next) = frames.next_request(out.len())
        {
            echo(cx, id, &next, out);
        }
    }

    fn on_refused(_: &mut Cx<'_, App>, _: EchoId, _: Header, refusal: Refusal, out: &mut Vec<u8>) {
        refusal.append(0, out);
    }

    fn on_lost(_: &mut Cx<'_, App>, _: EchoId, _: &FramingError, _: &mut Vec<u8>) {}

    fn is_owing(_: &mut Cx<'_, App>, _: EchoId) -> bool {
        false
    }

    fn on_closed(self, cx: &mut Cx<'_, App>, id: EchoId, why: Closed) {
        cx.state.closed.push((id.to_bits(), why.to_string()));
    }
}

pub struct World {
    pub reactor: Reactor<App>,
    pub app: App,
    pub settings: Rc<Settings>,
}

impl World {
    pub fn new() -> World {
        World::with(Limits::default(), Config::default())
    }

    pub fn with(limits: Limits, config: Config) -> World {
        let mut reactor = Reactor::with_config(config).expect("a reactor");
        let settings = Rc::new(Settings::new(limits, reactor.registry()));
        World { reactor, app: App::default(), settings }
    }

    /// Returns a connection and its other end, which has sent the magic and does not block.
    pub fn connect(&mut self) -> (EchoId, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
        let stream = Stream::from_unix(ours).expect("a stream");
        let settings = Rc::clone(&self.settings);
        let registry = self.reactor.registry();
        let id = Connection::insert(registry, stream, Echo, settings, false).expect("inserted");
        theirs.write_all(&MAGIC).expect("there is room");
        theirs.set_nonblocking(true).expect("non-blocking");
        (id, theirs)
    }

    pub fn turn(&mut self) {
        self.reactor.turn(&mut self.app, Some(Duration::from_millis(1))).expect("a turn");
    }

    pub fn turns(&mut self, count: usize) {
        for _ in 0..count {
            self.turn();
        }
    }

    #[track_caller]
    pub fn until(&mut self, mut is_done: impl FnMut(&mut World) -> bool) {
        let begin = Instant::now();
        while !is_done(self) {
            assert!(begin.elapsed() < Duration::from_secs(10), "it never happens");
            self.turn();
        }
    }

    pub fn buffer_bytes(&mut self, id: EchoId) -> usize {
        self.reactor.registry().get(id).expect("it is open").buffer_bytes()
    }
}

pub fn request(seq: u64, body_bytes: usize) -> Vec<u8> {
    let mut body = vec![0xc6];
    let bytes = u32::try_from(body_bytes).expect("small");
    body.extend_from_slice(&bytes.to_be_bytes());
    body.resize(body.len() + body_bytes, 7);
    let mut out = Vec::new();
    Header::new(Kind::Request, seq).append(&body, &mut out);
    out
}

/// Bytes of the answer to a request with a body of so many.
pub fn answer_bytes(body_bytes: usize) -> usize {
    request(1, body_bytes).len() - 20
}

/// Writes all of it, turning while there is no room.
pub fn write(world: &mut World, stream: &mut UnixStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(_) => world.turn(),
        }
    }
}

/// Reads what is there; `None` at the end of input.
pub fn read(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    let mut chunk = [0; 65536];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) if all.is_empty() => return None,
            Ok(0) => return Some(all),
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                return Some(all);
            }
        }
    }
}
