//! A connection: the reactor's source that owns the stream. This file is its I/O phase; `dispatch`
//! is its task phase, `deadlines` its time.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use onceloop_protocol::cutter::Cutter;
use onceloop_reactor::{Id, Io, Pollable, ReadOutcome, Registry, Source, Stream};

use crate::output::Flushed;
use crate::tail::Tail;
use crate::work::Work;
use crate::{Closed, Role, Settings};

/// An unfinished frame at most this long is copied in front of the next read, so that it is cut in
/// one piece; a longer one is read into a buffer of its own.
const TAIL_COPY_BYTES_MAX: usize = 16 * 1024;
/// A frame beyond this may not come in one read beside others; if it did not, the next is expected to
/// be as long.
const LONG_FRAME_BYTES_MIN: usize = 64 * 1024;
/// Where a long frame is expected there is no more room than this, however large the budgets are: its
/// buffer is to be a spare one afterwards, and not made and zeroed each time.
const EXPECTED_BYTES_MAX: usize = 1024 * 1024;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Opened by this end; not there yet.
    Connecting,
    /// Opened by this end and there; its role has not been told yet.
    Connected,
    /// Frames go both ways.
    Open,
    /// The peer has sent its FIN; what is owed is still written.
    HalfClosed,
    /// This end has said its last word: what is queued is written, input is dropped.
    Finishing,
    /// Nothing more can be done here: the task phase closes it, for `ended`.
    Over,
}

/// One connection and what it needs between turns: at rest no buffer at all, and no room for any.
pub struct Connection<R> {
    pub(crate) stream: Stream,
    pub(crate) role: R,
    pub(crate) settings: Rc<Settings>,
    pub(crate) cutter: Cutter,
    /// What it has to do; none while it is at rest.
    pub(crate) work: Option<Box<Work>>,
    /// Whole bytes, as far as known, of the frame that has begun: it is in `tail`, or it was refused
    /// and is being skipped. 0 between frames.
    pub(crate) tail_needs: u32,
    /// When bytes last came, in [`Settings::ticks`].
    pub(crate) received_at: u32,
    /// When that began whose time is limited: the phase; in an open connection the frame that has
    /// begun, and between frames the wait for the answer to a PING.
    pub(crate) began_at: u32,
    pub(crate) phase: Phase,
    pub(crate) pings_missed: u8,
    /// `tail` holds what is to be run: not read on before it has.
    pub(crate) has_backlog: bool,
    reading: Reading,
}

/// What is remembered of the reading, in one byte: a connection has none to spare.
#[derive(Clone, Copy, Debug, Default)]
struct Reading(u8);

impl Reading {
    /// The stream was left unread; ask for it when there is room again.
    const PAUSED: u8 = 1;
    /// A long frame came in pieces, or as much in one read: so may the next.
    const EXPECTS_LONG_FRAME: u8 = 2;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn set(&mut self, bit: u8, is_set: bool) {
        self.0 = if is_set { self.0 | bit } else { self.0 & !bit };
    }
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
            work: None,
            tail_needs: 0,
            received_at: ticks,
            began_at: ticks,
            phase: if is_connecting { Phase::Connecting } else { Phase::Open },
            pings_missed: 0,
            has_backlog: false,
            reading: Reading::default(),
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
        self.work().output.buffer()
    }

    /// Queues a large whole frame without copying it. Touch the connection, as with
    /// [`Connection::out`].
    pub fn push_shared(&mut self, frame: Bytes) {
        self.work().output.push_shared(frame);
    }

    /// Returns whether so much output is queued that nothing more should be asked of this
    /// connection.
    pub fn is_congested(&self) -> bool {
        !self.has_room_beside(0)
    }

    /// Returns whether another frame may be run that adds to the output, with `bytes` more waiting
    /// to be added to it.
    #[inline]
    pub fn has_room_beside(&self, bytes: usize) -> bool {
        self.output_len() + bytes <= self.settings.limits.output_bytes_mark
    }

    /// Returns how many bytes waiting to be added to the output leave room for another frame.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.settings.limits.output_bytes_mark.saturating_sub(self.output_len())
    }

    /// Returns whether this end has said its last word here: what is queued now may never arrive.
    pub fn is_finishing(&self) -> bool {
        matches!(self.phase, Phase::Finishing | Phase::Over)
    }

    /// Returns how many bytes of memory the buffers of this connection take: none while it is at
    /// rest.
    pub fn buffer_bytes(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.bytes())
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
        self.work().ended.get_or_insert(why);
        self.phase = Phase::Over;
        io.dispatch();
    }

    /// Reads until the socket is empty or this turn's share of the buffer is full.
    fn read(&mut self, io: &mut Io<'_>) {
        let ticks = self.settings.ticks(io.now());
        let is_long = self.tail_needs as usize > TAIL_COPY_BYTES_MAX;
        let tail_len = self.tail_len();
        if tail_len > 0 && (is_long || io.space().len() <= tail_len) {
            return self.read_long_frame(ticks, io);
        }
        if tail_len == 0 && self.reading.has(Reading::EXPECTS_LONG_FRAME) {
            return self.read_expecting_long(ticks, io);
        }
        let mut is_first = true;
        while self.stream.is_readable() {
            let room = if is_first { tail_len } else { 0 };
            let space = &mut io.space()[room..];
            if space.is_empty() {
                io.again();
                return;
            }
            match self.stream.read_into(space) {
                Ok(ReadOutcome::Bytes(n)) => {
                    if room > 0 {
                        let tail = self.take_tail();
                        io.space()[..room].copy_from_slice(tail.bytes());
                        io.give_buffer(tail.into_buffer());
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

    /// Reads the rest of a long frame where its beginning is, within this turn's share.
    fn read_long_frame(&mut self, ticks: u32, io: &mut Io<'_>) {
        let needs = self.tail_needs as usize;
        let mut tail = self.take_tail();
        let outcome = loop {
            if !self.stream.is_readable() || tail.len() >= needs {
                break Ok(ReadOutcome::WouldBlock);
            }
            let share = io.own_space();
            if share == 0 {
                io.again();
                break Ok(ReadOutcome::WouldBlock);
            }
            match self.stream.read_into(tail.space(needs, share)) {
                Ok(ReadOutcome::Bytes(n)) => {
                    tail.fill(n);
                    io.spend(n);
                    self.received_at = ticks;
                    self.pings_missed = 0;
                }
                outcome => break outcome,
            }
        };
        let is_whole = tail.len() >= needs;
        self.work().tail = tail;
        match outcome {
            Ok(ReadOutcome::Eof) => return self.end_of_input(io),
            Err(error) => return self.end(Closed::Io(error), io),
            Ok(ReadOutcome::Bytes(_) | ReadOutcome::WouldBlock) => {}
        }
        if is_whole {
            self.run_tail(io);
        }
    }

    /// Reads into a buffer of its own from the start, so that a long frame need not be copied there
    /// from the turn's.
    fn read_expecting_long(&mut self, ticks: u32, io: &mut Io<'_>) {
        if !self.stream.is_readable() {
            return;
        }
        let share = io.own_space().min(io.write_share()).min(EXPECTED_BYTES_MAX);
        if share == 0 {
            return io.again();
        }
        let mut tail = Tail::with_space(io.take_large_buffer(), share);
        let outcome = self.stream.read_into(tail.space(share, share));
        if let Ok(ReadOutcome::Bytes(n)) = outcome {
            tail.fill(n);
            io.spend(n);
            self.received_at = ticks;
            self.pings_missed = 0;
            let is_long = n > LONG_FRAME_BYTES_MIN;
            self.reading.set(Reading::EXPECTS_LONG_FRAME, is_long);
            if !is_long {
                // The long buffer is for the next, in this very turn: many may read a few bytes in it.
                let (short, unused) = Tail::copy(tail.bytes(), 0, io.take_buffer());
                io.give_buffer(unused);
                io.give_buffer(std::mem::replace(&mut tail, short).into_buffer());
            }
            self.work().tail = tail;
            return self.run_tail(io);
        }
        io.give_buffer(tail.into_buffer());
        match outcome {
            Ok(ReadOutcome::Bytes(_) | ReadOutcome::WouldBlock) => {}
            Ok(ReadOutcome::Eof) => self.end_of_input(io),
            Err(error) => self.end(Closed::Io(error), io),
        }
    }

    /// Has the tail run in this turn; what else has come is read when that is done.
    fn run_tail(&mut self, io: &mut Io<'_>) {
        self.has_backlog = true;
        self.reading.set(Reading::PAUSED, self.stream.is_readable());
        io.dispatch();
    }

    fn end_of_input(&mut self, io: &mut Io<'_>) {
        if self.phase == Phase::Finishing {
            // A peer that sends no more may still read what is queued.
            if self.output_len() == 0 {
                self.end(Closed::Eof, io);
            }
            return;
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
                    self.phase = Phase::Connected;
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
            Phase::HalfClosed | Phase::Over => {}
            _ if self.has_backlog || self.is_congested() => {
                self.reading.set(Reading::PAUSED, true);
            }
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
        if matches!(self.phase, Phase::Connecting | Phase::Over) {
            return;
        }
        let was_congested = self.is_congested();
        let now = self.settings.ticks(io.now());
        let flushed = match &mut self.work {
            Some(work) => work.output.flush(&mut self.stream, io, now),
            None => Ok(Flushed::All),
        };
        match flushed {
            Ok(Flushed::All) => {
                self.rest();
                self.after_output(io);
            }
            Ok(Flushed::Share) => {}
            Ok(Flushed::Blocked) => self.blocked(io),
            Err(error) => return self.end(Closed::Io(error), io),
        }
        if was_congested && !self.is_congested() {
            // What waited for room goes on: frames kept back, reading, the role's own. A frame that
            // has begun could not come while it was not read.
            if self.phase == Phase::Open && self.role.is_established() {
                self.began_at = now;
            }
            io.dispatch();
        }
    }
}

impl<R> Connection<R> {
    fn after_output(&mut self, io: &mut Io<'_>) {
        match self.phase {
            Phase::Connecting | Phase::Connected | Phase::Open | Phase::Over => {}
            // Perhaps that was all that was owed.
            Phase::HalfClosed => io.dispatch(),
            Phase::Finishing => {
                if let Err(error) = self.stream.shutdown_write() {
                    return self.end(Closed::Io(error), io);
                }
                // The peer's FIN may have come before.
                io.again();
            }
        }
    }

    fn blocked(&mut self, io: &mut Io<'_>) {
        if self.output_len() > self.settings.limits.output_bytes_max {
            return self.end(Closed::Local("the peer does not read its answers"), io);
        }
        // The task phase arms the deadline for a peer that does not read.
        io.dispatch();
    }

    /// Notes of how many bytes the frame is that has begun; 0 if none has. The time it may take
    /// counts from its first byte, however many pieces it comes in.
    pub(crate) fn await_frame<S: 'static>(&mut self, bytes: usize, is_next: bool, now: Instant)
    where
        R: Role<S>,
    {
        let is_first = is_next || self.tail_needs == 0;
        self.tail_needs = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes > LONG_FRAME_BYTES_MIN && !self.cutter.is_skipping() {
            self.reading.set(Reading::EXPECTS_LONG_FRAME, true);
        }
        // Before the handshake and after the peer's FIN it is the phase whose time counts.
        if bytes > 0 && is_first && self.phase == Phase::Open && self.role.is_established() {
            self.began_at = self.settings.ticks(now);
        }
    }

    /// Tells whether the stream was left unread and may be read again now.
    pub(crate) fn take_paused(&mut self) -> bool {
        let may_read = !self.has_backlog && !self.is_congested();
        let is_paused = self.reading.has(Reading::PAUSED);
        self.reading.set(Reading::PAUSED, is_paused && !may_read);
        is_paused && may_read
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
    let now = registry.now();
    let Some(mut connection) = registry.remove(id) else { return };
    log::debug!("connection {}: {why}", id.to_bits());
    let received_at = connection.last_received(now);
    connection.role.on_closing(received_at);
    registry.defer(move |cx| connection.role.on_closed(cx, id, why));
}

/// Writes what is queued, then closes; nothing the peer sends is looked at any more. The peer has
/// `half_close_timeout` to take what is written.
pub fn finish<S: 'static, R: Role<S>>(
    registry: &mut Registry<S>,
    id: Id<Connection<R>>,
    why: Closed,
) {
    let now = registry.now();
    let Some(connection) = registry.get_mut(id) else { return };
    match connection.phase {
        Phase::Connecting | Phase::Connected => return close(registry, id, why),
        // Its dispatch, which closes it, is on its way.
        Phase::Over => return,
        Phase::Open | Phase::HalfClosed | Phase::Finishing => {}
    }
    connection.phase = Phase::Finishing;
    connection.has_backlog = false;
    connection.take_tail();
    connection.tail_needs = 0;
    connection.began_at = connection.settings.ticks(now);
    connection.work().ended.get_or_insert(why);
    let deadline = now + connection.settings.limits.half_close_timeout;
    registry.set_deadline(id, Some(deadline));
    registry.touch(id);
    registry.again(id);
}
