//! A fiber for each connection: coroutines with stacks of their own, on one thread, from the crate
//! may. The code reads like that of a thread; where a thread would block, a fiber yields.
//!
//! A fiber that waits holds no buffers: it waits until its socket is ready, and only then takes some
//! and reads, through the socket itself. may's own `read` would need its buffer while it waits, and
//! read once more after each batch to find nothing.
//!
//! A slow handler sleeps as fibers do: its fiber yields, and what comes behind it on the same
//! connection waits.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use may::coroutine;
use may::io::{CoIo, WaitIo};
use onceloop_protocol::limits::Limits;

use rustix::event::epoll::EventFlags;

use super::session::{Buffers, Next, Session, Shared};
use super::spares::Spares;
use crate::options::ServerKind;

/// Stack of a fiber, in words: as much as a thread's. A page below it is a guard, so that an overflow
/// ends the program. Used are 4 KiB of it, and 15 KiB in a build for debugging, as the runtime tells
/// of a stack whose size is odd; memory is taken only by what is used.
const STACK_WORDS: usize = 64 * 1024 / size_of::<usize>();
/// Fibers that are kept, stack and all, for new connections.
const POOL_FIBERS: usize = 64;

/// Serves `listener` for ever, on one worker thread which stays where this one does.
pub(super) fn run(listener: TcpListener, limits: Limits) -> Result<Infallible> {
    // The worker inherits this thread's core, if it is kept on one.
    may::config().set_worker_pin(false);
    may::config().set_workers(1).set_stack_size(STACK_WORDS).set_pool_capacity(POOL_FIBERS);
    let shared = Arc::new(Shared::new(limits).context("asking for random bytes")?);
    match may::go!(move || accept(listener, &shared)).join() {
        Ok(ended) => ended,
        Err(_) => bail!("the fiber that accepts has panicked"),
    }
}

fn accept(listener: TcpListener, shared: &Arc<Shared>) -> Result<Infallible> {
    let listener = watch(listener).context("watching the listener")?;
    let spares = Arc::new(Spares::new());
    loop {
        let stream = match listener.inner().accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                listener.wait_io();
                continue;
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("accepting"),
        };
        stream.set_nodelay(true).context("asking for TCP_NODELAY")?;
        let mut connection = Connection {
            stream: watch(stream).context("watching a connection")?,
            is_drained: false,
            session: Session::new(shared),
            buffers: None,
            spares: spares.clone(),
        };
        may::go!(move || {
            super::say_if_ours(ServerKind::Fibers, connection.serve());
            // No longer watched before it is closed: its descriptor may then be another's.
            drop(connection.stream.into_inner());
        });
    }
}

/// Has the worker tell when something can be done with `socket`.
fn watch<T: AsRawFd>(socket: T) -> io::Result<CoIo<T>> {
    Ok(CoIo::new(socket)?)
}

struct Connection {
    stream: CoIo<TcpStream>,
    /// The last read took all there was, and nothing was heard of the socket since.
    is_drained: bool,
    session: Session,
    /// `None` while nothing is read and unanswered.
    buffers: Option<Box<Buffers>>,
    spares: Arc<Spares>,
}

impl Connection {
    fn serve(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(self.session.handshake_timeout()))?;
        while !self.session.is_open() {
            let mut buffers = self.take_buffers();
            let count = self.stream.read(buffers.input.room())?;
            if self.answer(buffers, count)? == Next::Close {
                return Ok(());
            }
        }
        loop {
            let (buffers, count) = self.read()?;
            if self.answer(buffers, count)? == Next::Close {
                return Ok(());
            }
        }
    }

    fn take_buffers(&mut self) -> Box<Buffers> {
        self.buffers.take().unwrap_or_else(|| self.spares.take())
    }

    /// Reads once, into buffers that are taken when there is something to read.
    fn read(&mut self) -> io::Result<(Box<Buffers>, usize)> {
        loop {
            let has_ended = self.is_drained && self.wait();
            let mut buffers = self.take_buffers();
            let room = buffers.input.room();
            match self.stream.inner().read(room) {
                Ok(count) => {
                    // Of an end that was told of already nothing more will be heard.
                    self.is_drained = count < room.len() && !has_ended;
                    return Ok((buffers, count));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_drained = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            self.buffers = self.spares.give(buffers);
        }
    }

    /// Waits until something is heard of the socket; returns whether it is that no more will come.
    fn wait(&mut self) -> bool {
        let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.stream.wait_io() & ends.bits() as usize != 0
    }

    /// Answers what has come: `count` bytes.
    fn answer(&mut self, mut buffers: Box<Buffers>, count: usize) -> io::Result<Next> {
        if count == 0 {
            return Ok(Next::Close);
        }
        buffers.input.fill(count);
        let mut next = self.session.take(&mut buffers)?;
        loop {
            self.write(&buffers.output)?;
            buffers.output.clear();
            let Next::Wait(time_us) = next else { break };
            sleep(Duration::from_micros(time_us.into()));
            next = self.session.resume(&mut buffers);
        }
        self.buffers = self.spares.give(buffers);
        Ok(next)
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.inner().write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait();
                    // What was heard may have been of input, too.
                    self.is_drained = false;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Lets the fiber sleep.
fn sleep(time: Duration) {
    coroutine::sleep(time);
    // may has its thread for timers go on with a fiber whose time has come: back to the worker, so
    // that one thread runs them all.
    coroutine::yield_now();
}

#[cfg(test)]
mod tests {
    use onceloop_protocol::frame::Flags;

    use super::*;
    use crate::frames;

    #[test]
    fn half_a_stack_is_enough() {
        let converse = || {
            let shared = Arc::new(Shared::new(Limits::default()).expect("random bytes"));
            let (mut session, mut buffers) = (Session::new(&shared), Buffers::new());
            let mut call = frames::request(1 << 20, Flags::NONE);
            frames::stamp(&mut call, 1, 0);
            // A body that is no MessagePack is the deepest way: its refusal is put into words.
            let mut refused = frames::request(16, Flags::NONE);
            *refused.last_mut().expect("a frame") = 0xc1;
            frames::stamp(&mut refused, 2, 0);
            for bytes in [frames::hello(64), call, refused] {
                let mut bytes = &bytes[..];
                while !bytes.is_empty() {
                    let count = bytes.read(buffers.input.room()).expect("it is in memory");
                    buffers.input.fill(count);
                    assert_eq!(session.take(&mut buffers).expect("random bytes"), Next::Continue);
                }
            }
            buffers.output.len()
        };
        let fiber = may::go_with!(STACK_WORDS / 2, converse).expect("a fiber");
        assert!(fiber.join().expect("no panic") > 1 << 20);
    }
}
