//! What the tests of the simulated world share: a source that connects or was accepted, and what is
//! known of it from outside.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(unreachable_pub, reason = "each test is a crate of its own")]

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use onceloop_reactor::sim::{Faults, Host, Process, Program, Simulation};
use onceloop_reactor::{
    Config, Cx, Id, Input, Io, Listener, Pollable, Reactor, ReadOutcome, Registry, Source, Stream,
    WriteOutcome,
};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);

/// What has become of a socket, and what it is to do.
#[derive(Debug, Default)]
pub struct Record {
    pub is_connected: bool,
    pub received: Vec<u8>,
    /// How many bytes each read brought, and each write took.
    pub reads: Vec<usize>,
    pub writes: Vec<usize>,
    /// `eof`, or the kind of an error.
    pub ended: Option<String>,
    /// Bytes that were to be written and are not yet.
    pub unwritten: usize,
    /// What is to be written next.
    pub output: Vec<u8>,
    pub echoes: bool,
    pub is_paused: bool,
    /// Ends its output once all is written.
    pub shuts: bool,
    /// Leaves once all is written, or at the end of input.
    pub leaves: bool,
}

impl Record {
    /// An error after the end of input is news; what comes after an error is not.
    fn end(&mut self, how: String) {
        if self.ended.as_ref().is_none_or(|before| before == "eof") {
            self.ended = Some(how);
        }
    }
}

pub type Shared = Rc<RefCell<Record>>;
pub type Accepted = Rc<RefCell<Vec<Shared>>>;

/// Bytes that are not all alike.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// A connected socket.
pub struct Peer {
    stream: Stream,
    record: Shared,
    is_shut: bool,
}

impl Peer {
    fn end(&self, how: impl Into<String>, io: &mut Io<'_>) {
        self.record.borrow_mut().end(how.into());
        io.dispatch();
    }

    fn read(&mut self, io: &mut Io<'_>) {
        while self.stream.is_readable() && !self.record.borrow().is_paused {
            let space = io.space();
            if space.is_empty() {
                return io.again();
            }
            match self.stream.read_into(space) {
                Ok(ReadOutcome::Bytes(n)) => {
                    let mut record = self.record.borrow_mut();
                    record.received.extend_from_slice(&io.space()[..n]);
                    record.reads.push(n);
                    if record.echoes {
                        record.output.extend_from_slice(&io.space()[..n]);
                    }
                    io.dispatch();
                }
                Ok(ReadOutcome::WouldBlock) => return,
                Ok(ReadOutcome::Eof) => return self.end("eof", io),
                Err(error) => return self.end(error.kind().to_string(), io),
            }
        }
    }
}

impl Source<()> for Peer {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Stream(&mut self.stream)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        if !self.record.borrow().is_connected {
            match self.stream.connect_result() {
                Ok(is_connected) => self.record.borrow_mut().is_connected = is_connected,
                Err(error) => return self.end(error.kind().to_string(), io),
            }
            if self.record.borrow().is_connected {
                io.dispatch();
            }
        }
        if self.record.borrow().is_connected {
            self.read(io);
        }
    }

    fn dispatch(cx: &mut Cx<'_, ()>, id: Id<Self>, _: &mut Input<'_>) {
        cx.registry.touch(id);
        let Some(peer) = cx.registry.get_mut(id) else { return };
        let record = peer.record.borrow();
        let is_done = record.ended.is_some() || (record.is_connected && record.output.is_empty());
        let leaves = record.leaves && is_done;
        drop(record);
        if leaves {
            cx.registry.remove(id);
        }
    }

    fn flush(&mut self, io: &mut Io<'_>) {
        let mut record = self.record.borrow_mut();
        while record.is_connected && !record.output.is_empty() && self.stream.is_writable() {
            match self.stream.write(&record.output) {
                Ok(WriteOutcome::Bytes(n)) => {
                    record.output.drain(..n);
                    record.writes.push(n);
                    io.dispatch();
                }
                Ok(WriteOutcome::WouldBlock) => break,
                Err(error) => {
                    record.end(error.kind().to_string());
                    record.output.clear();
                }
            }
        }
        record.unwritten = record.output.len();
        if record.shuts && record.is_connected && record.output.is_empty() && !self.is_shut {
            self.is_shut = true;
            let _ = self.stream.shutdown_write();
        }
    }
}

/// A listening socket; each accepted one is a copy of `model`, and is noted.
pub struct Door {
    listener: Listener,
    streams: Vec<Stream>,
    accepted: Accepted,
    echoes: bool,
}

impl Source<()> for Door {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Listener(&mut self.listener)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        while let Ok(Some(stream)) = self.listener.accept() {
            self.streams.push(stream);
            io.dispatch();
        }
    }

    fn dispatch(cx: &mut Cx<'_, ()>, id: Id<Self>, _: &mut Input<'_>) {
        let Some(door) = cx.registry.get_mut(id) else { return };
        let (streams, accepted) = (std::mem::take(&mut door.streams), Rc::clone(&door.accepted));
        let echoes = door.echoes;
        for stream in streams {
            let record = Record { is_connected: true, echoes, ..Record::default() };
            let record = Rc::new(RefCell::new(record));
            accepted.borrow_mut().push(Rc::clone(&record));
            insert(cx.registry, stream, record).unwrap();
        }
    }
}

/// Has all peers look at their records.
fn wake(registry: &mut Registry<()>) {
    for bits in PEERS.with(|peers| peers.borrow().clone()) {
        let id = Id::<Peer>::from_bits(bits);
        if registry.contains(id) {
            registry.again(id);
            registry.touch(id);
        }
    }
}

thread_local! {
    /// The ids of all peers of a test; those of another reactor name nothing, or another peer.
    static PEERS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn insert(registry: &mut Registry<()>, stream: Stream, record: Shared) -> io::Result<()> {
    let id = registry.insert(Peer { stream, record, is_shut: false })?;
    PEERS.with(|peers| peers.borrow_mut().push(id.to_bits()));
    Ok(())
}

/// Listens at port 80 of the reactor's host.
pub fn listen(registry: &mut Registry<()>, accepted: &Accepted, echoes: bool) -> io::Result<()> {
    let listener = registry.listen(([0, 0, 0, 0], 80).into())?;
    let accepted = Rc::clone(accepted);
    registry.insert(Door { listener, streams: Vec::new(), accepted, echoes })?;
    Ok(())
}

/// Connects; the record says what to write.
pub fn dial(registry: &mut Registry<()>, to: SocketAddr, record: Record) -> Shared {
    let record = Rc::new(RefCell::new(record));
    let stream = registry.connect(&to).unwrap();
    insert(registry, stream, Rc::clone(&record)).unwrap();
    record
}

pub fn reactor(host: &Host) -> Reactor<()> {
    Reactor::simulated(host, Config::simulated())
}

pub fn boxed(reactor: Reactor<()>) -> io::Result<Box<dyn Process>> {
    Ok(Box::new(Program::new(reactor, ())))
}

/// Two hosts: a server that accepts (and echoes, if it is to), and a client that does nothing yet.
pub struct Pair {
    pub simulation: Simulation,
    pub server: Host,
    pub client: Host,
    pub accepted: Accepted,
}

impl Pair {
    pub fn new(seed: u64, faults: Faults, echoes: bool) -> Self {
        let mut simulation = Simulation::new(seed, faults);
        let world = simulation.world().clone();
        let (server, client) = (world.host("server"), world.host("client"));
        client.set_immortal(true);
        let accepted = Accepted::default();
        let shared = Rc::clone(&accepted);
        simulation.add(server.clone(), move |host| {
            let mut reactor = reactor(host);
            listen(reactor.registry(), &shared, echoes)?;
            boxed(reactor)
        });
        simulation.add(client.clone(), |host| boxed(reactor(host)));
        Self { simulation, server, client, accepted }
    }

    /// The client connects to the server.
    pub fn dial(&mut self, record: Record) -> Shared {
        let to = SocketAddr::new(self.server.address(), 80);
        dial(self.registry(), to, record)
    }

    /// The client connects and writes so many bytes.
    pub fn send(&mut self, length: usize) -> Shared {
        self.dial(Record { output: pattern(length), ..Record::default() })
    }

    pub fn registry(&mut self) -> &mut Registry<()> {
        let program = self.simulation.program::<()>(&self.client).expect("the client is up");
        program.reactor.registry()
    }

    /// Has the client look at its records again, in which a test has changed something.
    pub fn wake(&mut self) {
        wake(self.registry());
    }

    /// Has the server do so.
    pub fn wake_server(&mut self) {
        let program = self.simulation.program::<()>(&self.server).expect("the server is up");
        wake(program.reactor.registry());
    }

    /// The client takes over a stream.
    pub fn insert(&mut self, stream: Stream) -> io::Result<()> {
        insert(self.registry(), stream, Shared::default())
    }

    /// The server's end of the only connection.
    pub fn at_server(&self) -> Shared {
        let accepted = self.accepted.borrow();
        assert_eq!(accepted.len(), 1, "one connection was accepted");
        Rc::clone(&accepted[0])
    }
}
