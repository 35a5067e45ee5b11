//! A connection: the reactor's source that owns the stream. This file is its I/O phase; `dispatch`
//! is its task phase, `deadlines` its time.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onceloop_protocol::cutter::Cutter;
use onceloop_reactor::{Id, Io, Pollable, ReadOutcome, Registry, Source, Stream};

use crate::output::{Flushed, Output};
use crate::{Closed, Role, Settings};

/// An unfinished frame at most this long is copied in front of the next read, so that it is cut in
/// one piece; a longer one is read into a buffer of its own.
const TAIL_COPY_BYTES_MAX: usize = 16 * 1024;
/// How far the buffer of a long frame runs ahead of what has arrived: a peer that only announces
/// much gets little.
const TAIL_AHEAD_BYTES: usize = 64 * 1024;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Opened by this end; not there yet.
    Connecting,
    /// Frames go both ways.
    Open,
    /// The peer has sent its FIN; what is owed is still written.
    HalfClosed,
    /// This end has said its last word: what is queued is written, input is dropped.
    Finishing,
}

/// One connection and what it needs between turns: at rest no buffer at all.
pub struct Connection<R> {
    pub(crate) stream: Stream,
    pub(crate) role: R,
    pub(crate) settings: Rc<Settings>,
    pub(crate) cutter: Cutter,
    /// An unfinished frame, or frames beyond the budget of a turn.
    pub(crate) tail: Vec<u8>,
    pub(crate) output: Output,
    /// Whole bytes of the frame at the front of `tail`, as far as known.
    pub(crate) tail_needs: u32,
    /// When bytes last came, when the phase and the frame in `tail` began, and when output last made
    /// progress, in [`Settings::ticks`].
    pub(crate) received_at: u32,
    pub(crate) began_at: u32,
    pub(crate) frame_began_at: u32,
    pub(crate) written_at: u32,
    pub(crate) phase: Phase,
    pub(crate) pings_missed: u8,
    /// `tail` holds whole frames: not read on before they have run.
    pub(crate) has_backlog: bool,
    /// The stream was left unread; ask for it when there is room again.
    is_paused: bool,
    /// The connection this end opened is there, and its role has not been told yet.
    pub(crate) is_new: bool,
    /// Nothing more can be done here: the task phase closes it, for `ended`.
    pub(crate) is_over: bool,
    /// Why it ends.
    pub(crate) ended: Option<Box<Closed>>,
}

impl<R> Connection<R> {
    /// Adds a connection to the loop: one that was accepted, or one on its way
    /// ([`Stream::connect`]).
    ///
    /// # Errors
    /// If the stream cannot be registered with the poll.
    pub fn insert<S>(
        registry: &mut Registry<S>,
        stream: Stream,
        role: R,
        settings: Rc<Settings>,
        is_connecting: bool,
    ) -> io::Result<Id<Self>>
    where
        S: 'static,
        R: Role<S>,
    {
        let now = registry.now();
        let ticks = settings.ticks(now);
        let timeout = if is_connecting {
            settings.limits.connect_timeout
        } else {
            settings.limits.handshake_timeout
        };
        let id = registry.insert(Connection {
            stream,
            role,
            settings,
            cutter: Cutter::new(),
            tail: Vec::new(),
            output: Output::default(),
            tail_needs: 0,
            received_at: ticks,
            began_at: ticks,
            frame_began_at: ticks,
            written_at: ticks,
            phase: if is_connecting { Phase::Connecting } else { Phase::Open },
            pings_missed: 0,
            has_backlog: false,
            is_paused: false,
            is_new: false,
            is_over: false,
            ended: None,
        })?;
        registry.set_deadline(id, Some(now + timeout));
        Ok(id)
    }

    /// Returns this end's part.
    pub fn role(&self) -> &R {
        &self.role
    }

    /// Returns this end's part, to be changed.
    pub fn role_mut(&mut self) -> &mut R {
        &mut self.role
    }

    /// Returns the socket.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Returns the buffer to append small whole frames to. Touch the connection, so that they are
    /// written at the end of the turn.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.output.buffer()
    }

    /// Queues a large whole frame without copying it. Touch the connection, as with
    /// [`Connection::out`].
    pub fn push_shared(&mut self, frame: Bytes) {
        self.output.push_shared(frame);
    }

    /// Returns whether so much output is queued that nothing more should be asked of this
    /// connection.
    pub fn is_congested(&self) -> bool {
        self.output.len() > self.settings.limits.output_bytes_mark
    }

    /// Returns when bytes last came, to the millisecond.
    pub fn last_received(&self, now: Instant) -> Instant {
        let ms = self.settings.ticks(now).wrapping_sub(self.received_at);
        now.checked_sub(Duration::from_millis(ms.into())).unwrap_or(now)
    }

    /// Returns the limits in force.
    pub fn settings(&self) -> &Rc<Settings> {
        &self.settings
    }

    /// Records why the connection is to end, once; the task phase acts on it.
    fn end(&mut self, why: Closed, io: &mut Io<'_>) {
        self.ended.get_or_insert_with(|| Box::new(why));
        self.is_over = true;
        io.dispatch();
    }

    /// Reads until the socket is empty or this turn's share of the buffer is full.
    fn read(&mut self, io: &mut Io<'_>) {
        let ticks = self.settings.ticks(io.now());
        if !self.tail.is_empty() && self.tail_needs as usize > TAIL_COPY_BYTES_MAX {
            return self.read_long_frame(ticks, io);
        }
        if io.space().len() <= self.tail.len() {
            io.again();
            return;
        }
        let mut is_first = true;
        while self.stream.is_readable() {
            let room = if is_first { self.tail.len() } else { 0 };
            let space = &mut io.space()[room..];
            if space.is_empty() {
                io.again();
                return;
            }
            match self.stream.read_into(space) {
                Ok(ReadOutcome::Bytes(n)) => {
                    if is_first {
                        io.space()[..room].copy_from_slice(&self.tail);
                        let mut tail = std::mem::take(&mut self.tail);
                        tail.clear();
                        io.give_buffer(tail);
                    }
                    is_first = false;
                    io.commit(room + n);
                    self.received_at = ticks;
                    self.pings_missed = 0;
                }
                Ok(ReadOutcome::WouldBlock) => return,
                Ok(ReadOutcome::Eof) => return self.end_of_input(io),
                Err(error) => return self.end(Closed::Io(error), io),
            }
        }
    }

    /// Reads the rest of a long frame where its beginning is.
    fn read_long_frame(&mut self, ticks: u32, io: &mut Io<'_>) {
        let needs = self.tail_needs as usize;
        while self.stream.is_readable() && self.tail.len() < needs {
            let have = self.tail.len();
            self.tail.resize(needs.min(have + TAIL_AHEAD_BYTES), 0);
            let outcome = self.stream.read_into(&mut self.tail[have..]);
            let n = if let Ok(ReadOutcome::Bytes(n)) = outcome { n } else { 0 };
            self.tail.truncate(have + n);
            match outcome {
                Ok(ReadOutcome::Bytes(_)) => {
                    self.received_at = ticks;
                    self.pings_missed = 0;
                }
                Ok(ReadOutcome::WouldBlock) => return,
                Ok(ReadOutcome::Eof) => return self.end_of_input(io),
                Err(error) => return self.end(Closed::Io(error), io),
            }
        }
        if self.tail.len() >= needs {
            self.has_backlog = true;
            io.dispatch();
            self.is_paused = true;
        }
    }

    fn end_of_input(&mut self, io: &mut Io<'_>) {
        if self.phase == Phase::Finishing {
            return self.end(Closed::Eof, io);
        }
        self.phase = Phase::HalfClosed;
        self.began_at = self.settings.ticks(io.now());
        io.dispatch();
    }

    /// After the last word: what still comes is read and dropped, so that closing does not reset the
    /// connection before the peer has read that word.
    fn discard(&mut self, io: &mut Io<'_>) {
        if !self.stream.is_readable() || io.space().is_empty() {
            return;
        }
        match self.stream.read_into(io.space()) {
            Ok(ReadOutcome::Bytes(_)) if self.stream.is_readable() => io.again(),
            Ok(ReadOutcome::Bytes(_) | ReadOutcome::WouldBlock) => {}
            Ok(ReadOutcome::Eof) => self.end_of_input(io),
            Err(error) => self.end(Closed::Io(error), io),
        }
    }
}

impl<S: 'static, R: Role<S>> Source<S> for Connection<R> {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Stream(&mut self.stream)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        if self.phase == Phase::Connecting {
            match self.stream.connect_result() {
                Ok(true) => {
                    self.phase = Phase::Open;
                    self.is_new = true;
                    self.began_at = self.settings.ticks(io.now());
                    self.received_at = self.began_at;
                    if self.stream.is_readable() {
                        // The peer spoke first, and its event was this one.
                        io.again();
                    }
                    return io.dispatch();
                }
                Ok(false) => return,
                Err(error) => return self.end(Closed::ConnectFailed(error), io),
            }
        }
        match self.phase {
            Phase::Finishing => self.discard(io),
            Phase::HalfClosed => {}
            _ if self.has_backlog || self.is_congested() => self.is_paused = true,
            _ => self.read(io),
        }
    }

    fn dispatch(
        cx: &mut onceloop_reactor::Cx<'_, S>,
        id: Id<Self>,
        input: &mut onceloop_reactor::Input<'_>,
    ) {
        crate::dispatch::run(cx, id, input);
    }

    fn on_deadline(cx: &mut onceloop_reactor::Cx<'_, S>, id: Id<Self>) {
        crate::deadlines::check(cx, id);
    }

    fn flush(&mut self, io: &mut Io<'_>) {
        if self.phase == Phase::Connecting || self.is_over {
            return;
        }
        let was_congested = self.is_congested();
        match self.output.flush(&mut self.stream, io) {
            Ok(Flushed::All) => self.after_output(io),
            Ok(Flushed::Blocked { progress }) => self.blocked(progress, io),
            Err(error) => return self.end(Closed::Io(error), io),
        }
        if was_congested && !self.is_congested() {
            if self.has_backlog {
                io.dispatch();
            } else if std::mem::take(&mut self.is_paused) {
                io.again();
            }
        }
    }
}

impl<R> Connection<R> {
    fn after_output(&mut self, io: &mut Io<'_>) {
        self.written_at = self.settings.ticks(io.now());
        match self.phase {
            Phase::Connecting | Phase::Open => {}
            // Perhaps that was all that was owed.
            Phase::HalfClosed => io.dispatch(),
            Phase::Finishing => {
                if let Err(error) = self.stream.shutdown_write() {
                    self.end(Closed::Io(error), io);
                }
            }
        }
    }

    fn blocked(&mut self, progress: bool, io: &mut Io<'_>) {
        if progress {
            self.written_at = self.settings.ticks(io.now());
        }
        if self.output.len() > self.settings.limits.output_bytes_max {
            return self.end(Closed::Local("the peer does not read its answers"), io);
        }
        // The task phase arms the deadline for a peer that does not read.
        io.dispatch();
    }

    /// Notes that `tail` is part of a frame of so many bytes. The time it may take counts from its
    /// first byte, however many pieces it comes in.
    pub(crate) fn await_frame(&mut self, bytes: usize, is_next: bool, now: Instant) {
        if is_next || self.tail_needs == 0 {
            self.frame_began_at = self.settings.ticks(now);
        }
        self.tail_needs = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Tells whether the stream was left unread and may be read again now.
    pub(crate) fn take_paused(&mut self) -> bool {
        !self.has_backlog && !self.is_congested() && std::mem::take(&mut self.is_paused)
    }
}

/// Closes a connection at once: what is queued is lost. [`Role::on_closed`] runs in the next turn.
///
/// A connection that is gone already stays gone.
pub fn close<S: 'static, R: Role<S>>(
    registry: &mut Registry<S>,
    id: Id<Connection<R>>,
    why: Closed,
) {
    let Some(connection) = registry.remove(id) else { return };
    log::debug!("connection {}: {why}", id.to_bits());
    registry.defer(move |cx| connection.role.on_closed(cx, id, why));
}

/// Writes what is queued, then closes; nothing the peer sends is read any more. The peer has
/// `half_close_timeout` to take what is written.
pub fn finish<S: 'static, R: Role<S>>(
    registry: &mut Registry<S>,
    id: Id<Connection<R>>,
    why: Closed,
) {
    let now = registry.now();
    let Some(connection) = registry.get_mut(id) else { return };
    if connection.phase == Phase::Connecting {
        return close(registry, id, why);
    }
    connection.phase = Phase::Finishing;
    connection.has_backlog = false;
    connection.tail = Vec::new();
    connection.began_at = connection.settings.ticks(now);
    connection.ended.get_or_insert_with(|| Box::new(why));
    let deadline = now + connection.settings.limits.half_close_timeout;
    registry.set_deadline(id, Some(deadline));
    registry.touch(id);
    registry.again(id);
}
