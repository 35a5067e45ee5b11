//! A proxy that cuts, delays and withholds: sources of their own on the loop of the test.
//!
//! What happens to a connection is drawn from a seed when it is accepted: how many bytes pass in
//! each direction, anywhere in a frame, and what comes then.

use std::net::SocketAddr;
use std::time::Duration;

use onceloop::reactor::{
    Id, Input, Io, Listener, Pollable, ReadOutcome, Source, Stream, WriteOutcome,
};
use onceloop::{Address, Cx, Registry};

use super::{Random, socket_path};

/// What has been done to connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Harm {
    pub(crate) accepted: u64,
    pub(crate) cut: u64,
    pub(crate) delayed: u64,
    pub(crate) refused: u64,
    pub(crate) silenced: u64,
}

/// The state of a loop with proxies keeps what they have done.
pub(crate) trait Harmed {
    fn harm(&mut self) -> &mut Harm;
}

/// What comes when the bytes of a direction are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer sees the end of input, after all that passed.
    Fin,
    /// Both sides are closed at once; the kernel may drop what is on its way.
    Reset,
    /// Nothing more passes, and nobody is told.
    Silence,
}

/// A proxy, by the address that clients connect to.
pub(crate) struct Proxy {
    pub(crate) address: Address,
    gate: Id<Gate>,
}

impl Proxy {
    /// Passes connections on to `target`: harmed as `seed` has it.
    pub(crate) fn new<S: Harmed + 'static>(
        registry: &mut Registry<S>,
        target: SocketAddr,
        seed: u64,
    ) -> Proxy {
        let mut random = Random::new(seed);
        // A Unix listener can go away and come back at the same place: a true refusal. A TCP port
        // could be taken by another program meanwhile; there the proxy accepts and closes.
        let is_unix = random.chance(50);
        let near = if is_unix {
            Address::Unix(socket_path())
        } else {
            Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
        };
        Proxy::at(registry, &near, target, Some(random))
    }

    /// Passes connections on to `target` unharmed, until [`Proxy::cut`] is called.
    pub(crate) fn gentle<S: Harmed + 'static>(
        registry: &mut Registry<S>,
        target: SocketAddr,
    ) -> Proxy {
        let near = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        Proxy::at(registry, &near, target, None)
    }

    fn at<S: Harmed + 'static>(
        registry: &mut Registry<S>,
        near: &Address,
        target: SocketAddr,
        random: Option<Random>,
    ) -> Proxy {
        let gate = Gate::open(registry, near, target, random);
        let listener = &registry.get(gate).expect("just inserted").listener;
        Proxy { address: listener.local_addr().into(), gate }
    }

    /// Cuts every connection of a gentle proxy; new ones are passed on.
    pub(crate) fn cut<S: Harmed + 'static>(&self, registry: &mut Registry<S>) {
        let gate = registry.get_mut(self.gate).expect("a gentle proxy never shuts");
        for pipe in std::mem::take(&mut gate.pipes) {
            registry.remove(pipe);
        }
    }
}

/// The listening side.
struct Gate {
    listener: Listener,
    near: Address,
    target: SocketAddr,
    /// None: no harm is done.
    random: Option<Random>,
    accepted: Vec<Stream>,
    pipes: Vec<Id<Pipe>>,
}

impl Gate {
    fn open<S: Harmed + 'static>(
        registry: &mut Registry<S>,
        near: &Address,
        target: SocketAddr,
        random: Option<Random>,
    ) -> Id<Gate> {
        let listener = match near {
            Address::Unix(path) => Listener::unix(path),
            Address::Tcp(address) => Listener::tcp(*address),
            _ => unreachable!("a proxy has no name"),
        };
        let listener = listener.expect("a listener");
        let near = near.clone();
        let gate = Gate { listener, near, target, random, accepted: Vec::new(), pipes: Vec::new() };
        registry.insert(gate).expect("the proxy is polled")
    }

    /// Nobody listens for a while.
    fn shut<S: Harmed + 'static>(cx: &mut Cx<'_, S>, id: Id<Gate>) {
        let Some(Gate { listener, near, target, mut random, .. }) = cx.registry.remove(id) else {
            return;
        };
        drop(listener);
        cx.state.harm().refused += 1;
        let pause = random.as_mut().map_or(Duration::ZERO, |random| random.millis(2..15));
        cx.registry.after(pause, move |cx| {
            Gate::open(cx.registry, &near, target, random);
        });
    }
}

impl<S: Harmed + 'static> Source<S> for Gate {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Listener(&mut self.listener)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        while let Some(stream) = self.listener.accept().expect("descriptors are not short") {
            self.accepted.push(stream);
        }
        io.dispatch();
    }

    fn dispatch(cx: &mut Cx<'_, S>, id: Id<Self>, _: &mut Input<'_>) {
        let Some(gate) = cx.registry.get_mut(id) else { return };
        let target = gate.target;
        let is_unix = matches!(gate.near, Address::Unix(_));
        let accepted = std::mem::take(&mut gate.accepted);
        let mut random = gate.random.clone();
        let mut is_shut = false;
        let mut pipes = Vec::new();
        for near in accepted {
            cx.state.harm().accepted += 1;
            if random.as_mut().is_some_and(|random| random.chance(4)) {
                cx.state.harm().refused += u64::from(!is_unix);
                is_shut = is_unix;
            } else {
                pipes.extend(pass_on(cx.registry, near, target, random.as_mut()));
            }
        }
        if let Some(gate) = cx.registry.get_mut(id) {
            gate.random = random;
            gate.pipes.extend(pipes);
        }
        if is_shut {
            Gate::shut(cx, id);
        }
    }
}

fn pass_on<S: Harmed + 'static>(
    registry: &mut Registry<S>,
    near: Stream,
    target: SocketAddr,
    mut random: Option<&mut Random>,
) -> [Id<Pipe>; 2] {
    let far = Stream::connect(&target).expect("the target is there");
    let near = Pipe::new(near, false, random.as_deref_mut());
    let far = Pipe::new(far, true, random);
    let near = registry.insert(near).expect("it is polled");
    let far = registry.insert(far).expect("it is polled");
    for (this, other) in [(near, far), (far, near)] {
        registry.get_mut(this).expect("just inserted").other = Some(other);
    }
    [near, far]
}

/// One side of a connection: reads, and hands what it read to the other side.
struct Pipe {
    stream: Stream,
    is_connecting: bool,
    other: Option<Id<Pipe>>,
    /// How many bytes read here may still pass.
    passes: u64,
    end: End,
    random: Option<Random>,
    /// What came while a delay was on, in order.
    held: Vec<u8>,
    is_holding: bool,
    /// What is to be written here.
    outgoing: Vec<u8>,
    /// The end is to be written after `outgoing`.
    ends: bool,
    is_over: bool,
}

impl Pipe {
    fn new(stream: Stream, is_connecting: bool, random: Option<&mut Random>) -> Pipe {
        let Some(random) = random else {
            return Pipe::with(stream, is_connecting, u64::MAX, End::Silence, None);
        };
        let passes = match random.within(0..10) {
            0..3 => random.within(1..400),
            3..9 => random.within(400..3_000),
            _ => 20_000,
        };
        let end = match random.within(0..40) {
            0 => End::Silence,
            1..20 => End::Fin,
            _ => End::Reset,
        };
        let random = Random::new(random.next());
        Pipe::with(stream, is_connecting, passes, end, Some(random))
    }

    fn with(
        stream: Stream,
        is_connecting: bool,
        passes: u64,
        end: End,
        random: Option<Random>,
    ) -> Pipe {
        Pipe {
            stream,
            is_connecting,
            other: None,
            passes,
            end,
            random,
            held: Vec::new(),
            is_holding: false,
            outgoing: Vec::new(),
            ends: false,
            is_over: false,
        }
    }

    fn write(&mut self) {
        while !self.is_connecting && !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(WriteOutcome::Bytes(n)) => drop(self.outgoing.drain(..n)),
                Ok(WriteOutcome::WouldBlock) => return,
                Err(_) => return self.is_over = true,
            }
        }
        if self.outgoing.is_empty() && std::mem::take(&mut self.ends) {
            // The peer may be gone already.
            let _ = self.stream.shutdown_write();
        }
    }
}

/// Hands bytes that were read at `id` to the other side, now.
fn hand_over<S: Harmed + 'static>(cx: &mut Cx<'_, S>, id: Id<Pipe>, bytes: &[u8]) {
    let Some(pipe) = cx.registry.get_mut(id) else { return };
    let n = bytes.len().min(usize::try_from(pipe.passes).unwrap_or(usize::MAX));
    pipe.passes -= n as u64;
    let (is_used_up, end, other) = (pipe.passes == 0, pipe.end, pipe.other);
    let Some(other) = other else { return };
    if let Some(pipe) = cx.registry.get_mut(other)
        && n > 0
    {
        pipe.outgoing.extend_from_slice(&bytes[..n]);
        pipe.ends = is_used_up && end == End::Fin;
        pipe.write();
    }
    if n == 0 || !is_used_up {
        return;
    }
    match end {
        End::Silence => cx.state.harm().silenced += 1,
        End::Fin => cx.state.harm().cut += 1,
        End::Reset => {
            cx.state.harm().cut += 1;
            cx.registry.remove(id);
            cx.registry.remove(other);
        }
    }
}

impl<S: Harmed + 'static> Source<S> for Pipe {
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
            self.write();
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
        let Some(pipe) = cx.registry.get_mut(id) else { return };
        if pipe.is_holding {
            return pipe.held.extend_from_slice(bytes);
        }
        if let Some(random) = &mut pipe.random
            && random.chance(3)
        {
            let delay = random.millis(1..8);
            pipe.is_holding = true;
            pipe.held.extend_from_slice(bytes);
            cx.state.harm().delayed += 1;
            cx.registry.after(delay, move |cx| release(cx, id));
            return;
        }
        hand_over(cx, id, bytes);
        leave_if_over(cx, id);
    }

    fn flush(&mut self, _: &mut Io<'_>) {
        self.write();
    }
}

fn release<S: Harmed + 'static>(cx: &mut Cx<'_, S>, id: Id<Pipe>) {
    let Some(pipe) = cx.registry.get_mut(id) else { return };
    pipe.is_holding = false;
    let held = std::mem::take(&mut pipe.held);
    hand_over(cx, id, &held);
    leave_if_over(cx, id);
}

/// A side that has closed takes the other with it, after what it had said.
fn leave_if_over<S: Harmed + 'static>(cx: &mut Cx<'_, S>, id: Id<Pipe>) {
    let Some(pipe) = cx.registry.get_mut(id) else { return };
    if !pipe.is_over || pipe.is_holding {
        return;
    }
    let Some(pipe) = cx.registry.remove(id) else { return };
    if let Some(other) = pipe.other {
        cx.registry.remove(other);
    }
}
