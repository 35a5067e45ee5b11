//! A task for each connection, on tokio: async and await on one thread, which the runtime, its
//! readiness list and all tasks share.
//!
//! A task that waits holds no buffers: it asks for them when there is something to read, and gives
//! them back when all of it is answered. A read that does not fill its buffer is the last one until
//! the next event, as in the event loop's server; tokio's own `poll_read` knows that.
//!
//! A slow handler sleeps where it runs, so on the thread of all tasks; or, offloaded, on the
//! runtime's pool for blocking work, while its connection goes on.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use anyhow::{Context, Result};
use onceloop_protocol::limits::Limits;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::session::{Aside, Buffers, Next, Session, Shared};
use super::spares::Spares;
use crate::options::{ServerKind, ServerOptions};
use crate::service;

/// Serves `listener` for ever, on this thread.
pub(super) fn run(
    listener: TcpListener,
    limits: Limits,
    options: &ServerOptions,
) -> Result<Infallible> {
    let shared = Arc::new(Shared::new(limits).context("asking for random bytes")?);
    let spares = Arc::new(Spares::new());
    listener.set_nonblocking(true).context("listening without blocking")?;
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_io().enable_time();
    let offloads = options.offload_threads.is_some();
    if let Some(threads) = options.offload_threads {
        builder.max_blocking_threads(usize::try_from(threads).context("threads of the pool")?);
    }
    builder.build().context("making the runtime")?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).context("taking connections")?;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accepting"),
            };
            stream.set_nodelay(true).context("asking for TCP_NODELAY")?;
            let (session, spares) = (Session::new(&shared), spares.clone());
            let mut connection =
                Connection { stream, session, offloads, asides: None, buffers: None, spares };
            tokio::spawn(async move {
                super::say_if_ours(ServerKind::Tokio, connection.serve().await);
            });
        }
    })
}

struct Connection {
    stream: TcpStream,
    session: Session,
    /// Slow handlers are the pool's.
    offloads: bool,
    /// Calls whose handlers wait on the pool.
    asides: Option<Box<JoinSet<Aside>>>,
    /// `None` while nothing is read and unanswered.
    buffers: Option<Box<Buffers>>,
    spares: Arc<Spares>,
}

/// What a connection waits for.
enum Event {
    /// So many bytes were read.
    Read(usize, Box<Buffers>),
    /// A handler's wait on the pool is over.
    Waited(Aside),
}

impl Connection {
    async fn serve(&mut self) -> io::Result<()> {
        // Boxed: the timer is not to be a part of the task for as long as that lives.
        let greeted = Box::pin(timeout(self.session.handshake_timeout(), self.greet())).await?;
        if greeted? == Next::Close {
            return Ok(());
        }
        while self.turn().await? != Next::Close {}
        Ok(())
    }

    async fn greet(&mut self) -> io::Result<Next> {
        while !self.session.is_open() {
            if self.turn().await? == Next::Close {
                return Ok(Next::Close);
            }
        }
        Ok(Next::Continue)
    }

    /// Reads once and answers what has come, or what was waited for.
    async fn turn(&mut self) -> io::Result<Next> {
        let (mut buffers, mut next) = match poll_fn(|task| self.poll_event(task)).await? {
            Event::Read(0, _) => return Ok(Next::Close),
            Event::Read(count, mut buffers) => {
                buffers.input.fill(count);
                let next = self.session.take(&mut buffers)?;
                (buffers, next)
            }
            Event::Waited(aside) => {
                let mut buffers = self.take_buffers();
                self.session.finish(aside, &mut buffers.output);
                (buffers, Next::Continue)
            }
        };
        loop {
            if let (Next::Wait(time_us), true) = (next, self.offloads) {
                next = self.offload(time_us, &mut buffers);
                continue;
            }
            if !buffers.output.is_empty() {
                self.stream.write_all(&buffers.output).await?;
                buffers.output.clear();
            }
            let Next::Wait(time_us) = next else { break };
            service::wait(time_us);
            next = self.session.resume(&mut buffers);
        }
        self.buffers = self.spares.give(buffers);
        Ok(next)
    }

    /// Lets the pool wait for a handler, and goes on.
    fn offload(&mut self, time_us: u32, buffers: &mut Buffers) -> Next {
        let (aside, next) = self.session.set_aside(buffers);
        self.asides.get_or_insert_default().spawn_blocking(move || {
            service::wait(time_us);
            aside
        });
        next
    }

    fn take_buffers(&mut self) -> Box<Buffers> {
        self.buffers.take().unwrap_or_else(|| self.spares.take())
    }

    fn poll_event(&mut self, task: &mut TaskContext<'_>) -> Poll<io::Result<Event>> {
        if let Some(asides) = &mut self.asides
            && let Poll::Ready(Some(aside)) = asides.poll_join_next(task)
        {
            return Poll::Ready(aside.map(Event::Waited).map_err(io::Error::other));
        }
        self.poll_read(task)
    }

    /// Reads once, into buffers that are taken when there is something to read.
    fn poll_read(&mut self, task: &mut TaskContext<'_>) -> Poll<io::Result<Event>> {
        ready!(self.stream.poll_read_ready(task))?;
        let mut buffers = self.take_buffers();
        let mut room = ReadBuf::new(buffers.input.room());
        match Pin::new(&mut self.stream).poll_read(task, &mut room) {
            Poll::Ready(result) => {
                let count = room.filled().len();
                Poll::Ready(result.map(|()| Event::Read(count, buffers)))
            }
            Poll::Pending => {
                self.buffers = self.spares.give(buffers);
                Poll::Pending
            }
        }
    }
}
