//! A thread for each connection: what most servers are, made as well as it goes.
//!
//! A thread reads all that its socket has, hands it to its session as one batch, and writes the
//! answers with one write. Stacks and buffers are as small as they can be. A slow handler sleeps on
//! its connection's thread: what comes behind it on the same connection waits.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use onceloop_protocol::limits::Limits;

use super::session::{Buffers, Next, Session, Shared};
use crate::options::ServerKind;
use crate::service;

/// Stack of a connection's thread. What is used of it is less than half.
const STACK_BYTES: usize = 64 * 1024;

/// Serves `listener` for ever.
pub(super) fn run(listener: &TcpListener, limits: Limits) -> Result<Infallible> {
    let shared = Arc::new(Shared::new(limits).context("asking for random bytes")?);
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("accepting"),
        };
        stream.set_nodelay(true).context("asking for TCP_NODELAY")?;
        let session = Session::new(&shared);
        let serve = move || {
            let connection = Connection { stream, session, buffers: Buffers::new() };
            super::say_if_ours(ServerKind::Threads, connection.serve());
        };
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(serve)
            .context("starting a connection's thread")?;
    }
}

struct Connection {
    stream: TcpStream,
    session: Session,
    buffers: Buffers,
}

impl Connection {
    fn serve(mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(self.session.handshake_timeout()))?;
        while !self.session.is_open() {
            if self.turn()? == Next::Close {
                return Ok(());
            }
        }
        self.stream.set_read_timeout(None)?;
        while self.turn()? != Next::Close {}
        Ok(())
    }

    /// Reads once and answers what has come.
    fn turn(&mut self) -> io::Result<Next> {
        let Buffers { input, .. } = &mut self.buffers;
        match self.stream.read(input.room()) {
            Ok(0) => return Ok(Next::Close),
            Ok(count) => input.fill(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Next::Continue),
            Err(error) => return Err(error),
        }
        let mut next = self.session.take(&mut self.buffers)?;
        loop {
            if !self.buffers.output.is_empty() {
                self.stream.write_all(&self.buffers.output)?;
                self.buffers.output.clear();
            }
            let Next::Wait(time_us) = next else { return Ok(next) };
            service::wait(time_us);
            next = self.session.resume(&mut self.buffers);
        }
    }
}
