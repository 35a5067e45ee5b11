//! The wire: it passes bytes on between clients and a server, and does them harm when it is told to.
//!
//! A reactor serves any socket by a `Source`; this is two kinds of them, one that accepts and one for
//! each side of a connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use onceloop::reactor::{
    Id, Input, Io, Listener, Pollable, ReadOutcome, Source, Stream, WriteOutcome,
};
use onceloop::{Cx, Registry};

/// What happens to the next thing that is said on a connection after its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// What a client says is held up, with all that it says on that connection afterwards. Nothing
    /// is closed: nobody can tell this from a slow server.
    HoldRequest,
    /// What the server says is dropped, and the connection is cut: the request has been delivered.
    LoseReply,
    /// What a client says is dropped, and the connection is cut.
    LoseRequest,
}

/// A way to the server that is not its own address.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    gate: Id<Gate>,
}

impl Wire {
    pub(crate) fn new<S: 'static>(
        registry: &mut Registry<S>,
        target: SocketAddr,
    ) -> io::Result<Wire> {
        let listener = registry.listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = listener.local_addr().tcp().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let gate = Gate { listener, target, accepted: Vec::new(), harm: None, held_up: None };
        Ok(Wire { address, gate: registry.insert(gate)? })
    }

    pub(crate) fn harm_next<S: 'static>(self, registry: &mut Registry<S>, harm: Harm) {
        self.gate(registry).harm = Some(harm);
    }

    pub(crate) fn is_to_harm<S: 'static>(self, registry: &mut Registry<S>) -> bool {
        self.gate(registry).harm.is_some()
    }

    /// Takes new connections to another server.
    pub(crate) fn lead_to<S: 'static>(self, registry: &mut Registry<S>, target: SocketAddr) {
        self.gate(registry).target = target;
    }

    /// Passes on what was held up, if the server still has that connection.
    pub(crate) fn let_it_arrive<S: 'static>(self, registry: &mut Registry<S>) -> bool {
        let Some(pipe) = self.gate(registry).held_up.take() else { return false };
        let Some(pipe) = registry.get_mut(pipe) else { return false };
        let held_up = pipe.held_up.take().unwrap_or_default();
        let other = pipe.other;
        let Some(other) = other.and_then(|other| registry.get_mut(other)) else { return false };
        other.write(&held_up);
        true
    }

    fn gate<S: 'static>(self, registry: &mut Registry<S>) -> &mut Gate {
        registry.get_mut(self.gate).expect("a gate is never removed")
    }
}

/// Where clients connect to.
struct Gate {
    listener: Listener,
    target: SocketAddr,
    accepted: Vec<Stream>,
    harm: Option<Harm>,
    /// The side from which something is held up.
    held_up: Option<Id<Pipe>>,
}

impl<S: 'static> Source<S> for Gate {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Listener(&mut self.listener)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        // An error ends the story by the calls that get no answer.
        while let Ok(Some(stream)) = self.listener.accept() {
            self.accepted.push(stream);
        }
        io.dispatch();
    }

    fn dispatch(cx: &mut Cx<'_, S>, id: Id<Self>, _: &mut Input<'_>) {
        let Some(gate) = cx.registry.get_mut(id) else { return };
        let target = gate.target;
        for near in std::mem::take(&mut gate.accepted) {
            if let Err(error) = Pipe::pair(cx.registry, id, near, target) {
                eprintln!("the wire: {error}");
            }
        }
    }
}

/// One side of a connection.
struct Pipe {
    stream: Stream,
    gate: Id<Gate>,
    other: Option<Id<Pipe>>,
    is_clients: bool,
    /// The first thing that each side says is its handshake, and alone: a client waits for the
    /// answer before it says more.
    has_greeted: bool,
    /// What came from this side and waits, once something is held up.
    held_up: Option<Vec<u8>>,
    is_connecting: bool,
    is_over: bool,
    outgoing: Vec<u8>,
}

impl Pipe {
    fn pair<S: 'static>(
        registry: &mut Registry<S>,
        gate: Id<Gate>,
        near: Stream,
        target: SocketAddr,
    ) -> io::Result<()> {
        let far = registry.connect(&target)?;
        let near = registry.insert(Pipe::new(near, gate, true))?;
        let far = registry.insert(Pipe::new(far, gate, false))?;
        for (this, other) in [(near, far), (far, near)] {
            if let Some(pipe) = registry.get_mut(this) {
                pipe.other = Some(other);
            }
        }
        Ok(())
    }

    fn new(stream: Stream, gate: Id<Gate>, is_clients: bool) -> Pipe {
        Pipe {
            stream,
            gate,
            other: None,
            is_clients,
            has_greeted: false,
            held_up: None,
            is_connecting: !is_clients,
            is_over: false,
            outgoing: Vec::new(),
        }
    }

    /// Writes to this side, now or when it can be written to.
    fn write(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
        while !self.is_connecting && !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(WriteOutcome::Bytes(n)) => drop(self.outgoing.drain(..n)),
                Ok(WriteOutcome::WouldBlock) => return,
                Err(_) => return self.is_over = true,
            }
        }
    }
}

impl<S: 'static> Source<S> for Pipe {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Stream(&mut self.stream)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        if self.is_connecting {
            match self.stream.connect_result() {
                Ok(true) => self.is_connecting = false,
                Ok(false) => return,
                Err(_) => self.is_over = true,
            }
            self.write(&[]);
        }
        while !self.is_over && self.stream.is_readable() {
            if io.space().is_empty() {
                return io.again();
            }
            match self.stream.read_into(io.space()) {
                Ok(ReadOutcome::Bytes(n)) => io.commit(n),
                Ok(ReadOutcome::WouldBlock) => break,
                Ok(ReadOutcome::Eof) | Err(_) => self.is_over = true,
            }
        }
        if self.is_over {
            io.dispatch();
        }
    }

    fn dispatch(cx: &mut Cx<'_, S>, id: Id<Self>, input: &mut Input<'_>) {
        let bytes = input.unread();
        input.advance(bytes.len());
        if !bytes.is_empty() {
            pass_on(cx.registry, id, bytes);
        }
        close_if_over(cx.registry, id);
    }

    fn flush(&mut self, _: &mut Io<'_>) {
        self.write(&[]);
    }
}

/// Passes on what one side has said, unless it is to be harmed.
fn pass_on<S: 'static>(registry: &mut Registry<S>, id: Id<Pipe>, bytes: &[u8]) {
    let Some(pipe) = registry.get_mut(id) else { return };
    if let Some(held_up) = &mut pipe.held_up {
        return held_up.extend_from_slice(bytes);
    }
    let has_greeted = std::mem::replace(&mut pipe.has_greeted, true);
    let (is_clients, gate, other) = (pipe.is_clients, pipe.gate, pipe.other);
    let Some(gate) = registry.get_mut(gate) else { return };
    let hits = |harm: &mut Harm| has_greeted && is_clients == (*harm != Harm::LoseReply);
    match gate.harm.take_if(hits) {
        Some(Harm::HoldRequest) => {
            gate.held_up = Some(id);
            if let Some(pipe) = registry.get_mut(id) {
                pipe.held_up = Some(bytes.to_vec());
            }
        }
        Some(Harm::LoseReply | Harm::LoseRequest) => {
            registry.remove(id);
            other.and_then(|other| registry.remove(other));
        }
        None => {
            if let Some(other) = other.and_then(|other| registry.get_mut(other)) {
                other.write(bytes);
            }
        }
    }
}

/// A side that has closed takes the other with it. What is held up is on its way all the same: it
/// keeps the server's side open, as a network would.
fn close_if_over<S: 'static>(registry: &mut Registry<S>, id: Id<Pipe>) {
    let Some(pipe) = registry.get_mut(id) else { return };
    if pipe.is_over && pipe.held_up.is_none() {
        let other = pipe.other;
        registry.remove(id);
        other.and_then(|other| registry.remove(other));
    }
}
