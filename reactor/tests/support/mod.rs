//! What the tests share: a world with a log, and a socket whose callback is a closure.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(unreachable_pub, reason = "each test is a crate of its own")]

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use onceloop_reactor::{
    Cx, Id, Input, Io, Pollable, Reactor, ReadOutcome, Source, Stream, WriteOutcome,
};

/// Long enough for the slowest machine; no test waits for it unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The state of the program under test: what happened, in order.
#[derive(Default)]
pub struct World {
    pub log: Vec<String>,
}

impl World {
    pub fn note(&mut self, what: impl Into<String>) {
        self.log.push(what.into());
    }

    pub fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|entry| *entry == what).count()
    }
}

/// Makes turns until `is_done`, or fails.
pub fn turn_until<S>(reactor: &mut Reactor<S>, state: &mut S, mut is_done: impl FnMut(&S) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_done(state) {
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "waited too long");
        reactor.turn(state, Some(left)).unwrap();
    }
}

/// Makes turns without blocking until nothing is left to do.
pub fn settle<S>(reactor: &mut Reactor<S>, state: &mut S) {
    loop {
        let turn = reactor.turn(state, Some(Duration::ZERO)).unwrap();
        if turn.events == 0 && turn.tasks == 0 {
            return;
        }
    }
}

type OnInput = Box<dyn FnMut(&mut Cx<'_, World>, Id<Socket>, &[u8])>;

/// A socket that hands what it reads to a closure, all at once.
pub struct Socket {
    pub stream: Stream,
    pub name: &'static str,
    pub output: Vec<u8>,
    pub on_input: Option<OnInput>,
    pub is_eof: bool,
    pub reads: Vec<usize>,
}

impl Socket {
    /// A socket and its other end.
    pub fn pair(name: &'static str) -> (Self, UnixStream) {
        let (here, there) = UnixStream::pair().unwrap();
        there.set_read_timeout(Some(PATIENCE)).unwrap();
        (Self::over(Stream::from_unix(here).unwrap(), name), there)
    }

    pub fn over(stream: Stream, name: &'static str) -> Self {
        let (output, reads) = (Vec::new(), Vec::new());
        Self { stream, name, output, on_input: None, is_eof: false, reads }
    }

    pub fn on_input(
        mut self,
        on_input: impl FnMut(&mut Cx<'_, World>, Id<Socket>, &[u8]) + 'static,
    ) -> Self {
        self.on_input = Some(Box::new(on_input));
        self
    }
}

impl Source<World> for Socket {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Stream(&mut self.stream)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        let mut bytes = 0;
        while self.stream.is_readable() {
            if io.space().is_empty() {
                io.again();
                break;
            }
            match self.stream.read_into(io.space()) {
                Ok(ReadOutcome::Bytes(n)) => {
                    io.commit(n);
                    bytes += n;
                }
                Ok(ReadOutcome::WouldBlock) => break,
                Ok(ReadOutcome::Eof) | Err(_) => {
                    self.is_eof = true;
                    io.dispatch();
                    break;
                }
            }
        }
        self.reads.push(bytes);
    }

    fn dispatch(cx: &mut Cx<'_, World>, id: Id<Self>, input: &mut Input<'_>) {
        let bytes = input.unread();
        input.advance(bytes.len());
        let socket = cx.registry.get_mut(id).expect("dispatched while it is here");
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]);
        let end = if socket.is_eof { " eof" } else { "" };
        cx.state.note(format!("{} {text}{end}", socket.name));
        let Some(mut on_input) = socket.on_input.take() else { return };
        on_input(cx, id, bytes);
        if let Some(socket) = cx.registry.get_mut(id) {
            socket.on_input = Some(on_input);
        }
    }

    fn on_deadline(cx: &mut Cx<'_, World>, id: Id<Self>) {
        let name = cx.registry.get(id).expect("its deadline dies with it").name;
        cx.state.note(format!("{name} deadline"));
    }

    fn flush(&mut self, _: &mut Io<'_>) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(WriteOutcome::Bytes(n)) => drop(self.output.drain(..n)),
                Ok(WriteOutcome::WouldBlock) | Err(_) => return,
            }
        }
    }
}

/// A source without a descriptor, which counts what is done to it.
#[derive(Default)]
pub struct Counter {
    pub name: &'static str,
    pub io: usize,
    pub flushes: usize,
    pub is_insatiable: bool,
}

impl Source<World> for Counter {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Nothing
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        self.io += 1;
        if self.is_insatiable {
            io.again();
        }
    }

    fn dispatch(cx: &mut Cx<'_, World>, id: Id<Self>, _: &mut Input<'_>) {
        let counter = cx.registry.get(id).expect("dispatched while it is here");
        cx.state.log.push(format!("{} woken", counter.name));
        if counter.is_insatiable {
            cx.registry.wake(id);
            cx.registry.touch(id);
        }
    }

    fn on_deadline(cx: &mut Cx<'_, World>, id: Id<Self>) {
        let name = cx.registry.get(id).expect("its deadline dies with it").name;
        cx.state.note(format!("{name} deadline"));
    }

    fn flush(&mut self, io: &mut Io<'_>) {
        assert!(io.space().is_empty());
        self.flushes += 1;
    }
}
