//! The network between clients and server: it passes bytes on, and cuts each connection after a
//! number of bytes that is drawn when it is made.
//!
//! The number is drawn from an exponential distribution and counts the bytes of both directions,
//! handshakes included: a cut is as likely at one byte as at any other, in the middle of a request,
//! of a reply, or between. What has passed by then arrives, as far as the system goes on with it;
//! what comes after is gone, and both ends see their connection end.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use onceloop::reactor::{
    Id, Input, Io, Listener, Pollable, ReadOutcome, Source, Stream, WriteOutcome,
};
use onceloop::{Address, Cx, Registry};

/// What the network has carried and done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Harm {
    pub(super) connections: u64,
    pub(super) cuts: u64,
    /// Bytes passed on, both directions together.
    pub(super) bytes: u64,
    /// How long there were calls.
    pub(super) time: Duration,
}

/// The state of a loop with a network counts what that does.
pub(super) trait Harmed {
    fn harm(&mut self) -> &mut Harm;
}

/// Seeded numbers: splitmix64, from Steele, Lea, Flood, *Fast Splittable Pseudorandom Number
/// Generators*.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Returns a number above 0, and at most 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept, and are a fraction's")]
    fn fraction(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a time below `limit`.
    pub(super) fn time(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(1.0 - self.fraction())
    }

    /// Returns a number of at least 1 whose distribution is exponential with this mean.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "positive, and bytes of a connection are far below 2^53"
    )]
    fn exponential(&mut self, mean: u64) -> u64 {
        (-self.fraction().ln() * mean as f64).ceil().max(1.0) as u64
    }
}

/// Opens the network to `target`, and returns the address that clients connect to. Without
/// `bytes_per_cut` nothing is ever cut.
pub(super) fn open<S: Harmed + 'static>(
    registry: &mut Registry<S>,
    target: SocketAddr,
    bytes_per_cut: Option<u64>,
    random: Random,
) -> io::Result<Address> {
    let listener = Listener::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr().into();
    registry.insert(Gate { listener, target, bytes_per_cut, random, accepted: Vec::new() })?;
    Ok(address)
}

/// The listening side.
struct Gate {
    listener: Listener,
    target: SocketAddr,
    bytes_per_cut: Option<u64>,
    random: Random,
    accepted: Vec<Stream>,
}

impl<S: Harmed + 'static> Source<S> for Gate {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Listener(&mut self.listener)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        // An attempt that failed by itself is as good as none.
        while let Ok(Some(stream)) = self.listener.accept() {
            self.accepted.push(stream);
        }
        io.dispatch();
    }

    fn dispatch(cx: &mut Cx<'_, S>, id: Id<Self>, _: &mut Input<'_>) {
        let Some(gate) = cx.registry.get_mut(id) else { return };
        let target = gate.target;
        for near in std::mem::take(&mut gate.accepted) {
            let Some(gate) = cx.registry.get_mut(id) else { return };
            let draw = |mean| gate.random.exponential(mean);
            let left = Rc::new(Cell::new(gate.bytes_per_cut.map_or(u64::MAX, draw)));
            cx.state.harm().connections += 1;
            if let Err(error) = pass_on(cx.registry, near, target, &left) {
                // The client sees its connection end, as by a cut.
                eprintln!("cuts: the network cannot pass a connection on: {error}");
            }
        }
    }
}

fn pass_on<S: Harmed + 'static>(
    registry: &mut Registry<S>,
    near: Stream,
    target: SocketAddr,
    left: &Rc<Cell<u64>>,
) -> io::Result<()> {
    let near = registry.insert(Pipe::new(near, false, left))?;
    let far = registry.insert(Pipe::new(Stream::connect(&target)?, true, left))?;
    for (this, other) in [(near, far), (far, near)] {
        if let Some(pipe) = registry.get_mut(this) {
            pipe.other = Some(other);
        }
    }
    Ok(())
}

/// One side of a connection: reads, and hands what it read to the other side.
struct Pipe {
    stream: Stream,
    is_connecting: bool,
    other: Option<Id<Pipe>>,
    /// Bytes that may still pass, in either direction: shared with the other side.
    left: Rc<Cell<u64>>,
    /// What is to be written here.
    outgoing: Vec<u8>,
    is_over: bool,
}

impl Pipe {
    fn new(stream: Stream, is_connecting: bool, left: &Rc<Cell<u64>>) -> Pipe {
        let left = Rc::clone(left);
        Pipe { stream, is_connecting, other: None, left, outgoing: Vec::new(), is_over: false }
    }

    fn write(&mut self) {
        while !self.is_connecting && !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(WriteOutcome::Bytes(n)) => drop(self.outgoing.drain(..n)),
                Ok(WriteOutcome::WouldBlock) => return,
                Err(_) => {
                    self.outgoing.clear();
                    self.is_over = true;
                }
            }
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
        let (is_over, other) = (pipe.is_over, pipe.other);
        let left = pipe.left.get();
        let passing = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - passing as u64;
        pipe.left.set(left);
        cx.state.harm().bytes += passing as u64;
        if let Some(other) = other.and_then(|other| cx.registry.get_mut(other)) {
            other.outgoing.extend_from_slice(&bytes[..passing]);
            other.write();
        }
        if left == 0 {
            cx.state.harm().cuts += 1;
        }
        // A side that has closed takes the other with it, after what it had said.
        if left == 0 || is_over {
            cx.registry.remove(id);
            other.map(|other| cx.registry.remove(other));
        }
    }

    fn flush(&mut self, _: &mut Io<'_>) {
        self.write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_what_is_drawn_is_the_one_asked_for() {
        let mut random = Random::new(1);
        let sum: u64 = (0..10_000).map(|_| random.exponential(1_000)).sum();
        assert!((9_500_000..10_500_000).contains(&sum), "{sum}");
    }

    #[test]
    fn times_are_below_their_limit() {
        let mut random = Random::new(2);
        let limit = Duration::from_millis(2);
        let times: Vec<Duration> = (0..1_000).map(|_| random.time(limit)).collect();
        assert!(times.iter().all(|&time| time < limit));
        assert!(times.iter().any(|&time| time > limit / 2));
    }
}
