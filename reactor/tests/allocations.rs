//! A steady turn allocates nothing.

#[path = "support/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use counting::allocations;
use onceloop_reactor::{
    Cx, Id, Input, Io, Pollable, Reactor, ReadOutcome, Source, Stream, WriteOutcome,
};

/// Sends back what it is sent, through a buffer of its own.
struct Echo {
    stream: Stream,
    output: Vec<u8>,
}

impl Source<u64> for Echo {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Stream(&mut self.stream)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        while self.stream.is_readable() {
            match self.stream.read_into(io.space()) {
                Ok(ReadOutcome::Bytes(n)) => io.commit(n),
                _ => return,
            }
        }
    }

    fn dispatch(cx: &mut Cx<'_, u64>, id: Id<Self>, input: &mut Input<'_>) {
        *cx.state += 1;
        let deadline = cx.registry.now() + Duration::from_secs(60);
        cx.registry.set_deadline(id, Some(deadline));
        let echo = cx.registry.get_mut(id).expect("dispatched while it is here");
        echo.output.extend_from_slice(input.unread());
        cx.registry.touch(id);
    }

    fn flush(&mut self, _: &mut Io<'_>) {
        let outcome = self.stream.write(&self.output).unwrap();
        assert_eq!(outcome, WriteOutcome::Bytes(self.output.len()));
        self.output.clear();
    }
}

#[test]
fn a_steady_turn_allocates_nothing() {
    let mut reactor = Reactor::<u64>::new().unwrap();
    let (here, mut there) = UnixStream::pair().unwrap();
    let stream = Stream::from_unix(here).unwrap();
    reactor.registry().insert(Echo { stream, output: Vec::new() }).unwrap();
    let mut requests = 0;
    let mut turns = |count: usize| {
        let before = allocations();
        let mut reply = [0; 5];
        for _ in 0..count {
            there.write_all(b"hello").unwrap();
            let turn = reactor.turn(&mut requests, None).unwrap();
            assert_eq!((turn.events, turn.tasks), (1, 1), "one turn, one event, one dispatch");
            there.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, b"hello");
        }
        allocations() - before
    };
    assert!(turns(10) > 0, "the counter counts");
    assert_eq!(turns(1000), 0);
}
