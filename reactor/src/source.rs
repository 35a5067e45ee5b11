//! What a source is, and what it is handed in each phase of a turn.

use std::any::Any;
use std::io;
use std::time::Instant;

use crate::buffers::Buffers;
use crate::id::{Id, RawId};
use crate::poll::Poll;
use crate::{Cx, Listener, Stream};

/// Something that the reactor polls, reads and dispatches: a socket with all that belongs to it,
/// or a holder of state that is found by its id and has no descriptor at all.
///
/// [`handle_io`](Source::handle_io) and [`flush`](Source::flush) move bytes and cannot reach user
/// code: they see the source and an [`Io`], nothing else. [`dispatch`](Source::dispatch) and
/// [`on_deadline`](Source::on_deadline) have everything but a borrow of the source, which stays
/// in the registry and is looked up by its id whenever it is needed; so what they call may remove
/// it, or anything else.
pub trait Source<S: 'static>: Sized + 'static {
    /// Returns what is to be registered with the poll.
    ///
    /// Asked at [`Registry::insert`](crate::Registry::insert), at each event and at
    /// [`Registry::remove`](crate::Registry::remove); the answer must name the same descriptor
    /// for as long as the source is in the registry.
    fn pollable(&mut self) -> Pollable<'_>;

    /// Reads what is there, or accepts: the I/O phase.
    ///
    /// Called when the readiness of the descriptor changed, or when it was asked for by
    /// [`Io::again`] or [`Registry::again`](crate::Registry::again); at most once a turn. Must
    /// not panic.
    ///
    /// Readiness is edge-triggered: it is announced once. A source that leaves bytes (or waiting
    /// connections) behind, because its budget is used up, calls [`Io::again`]; one that does not
    /// want them now has to call it later, for example when its output has been written.
    fn handle_io(&mut self, io: &mut Io<'_>);

    /// Works on a batch of input, or on what the source itself has kept: the task phase.
    ///
    /// Called once in a turn in which [`handle_io`](Source::handle_io) committed bytes or asked
    /// for it, or after [`Registry::wake`](crate::Registry::wake). What is left in `input` when
    /// it returns is dropped: keeping an unfinished tail is the source's business.
    ///
    /// # Panics
    ///
    /// A panic in here passes through [`Reactor::turn`](crate::Reactor::turn). The next turn
    /// dispatches the source again, with the bytes past the last [`Input::advance`] (perhaps
    /// none): advance over a message before running the code that it asks for.
    fn dispatch(cx: &mut Cx<'_, S>, id: Id<Self>, input: &mut Input<'_>);

    /// Runs when the deadline of [`Registry::set_deadline`](crate::Registry::set_deadline) has
    /// passed: the task phase. The deadline is disarmed by then.
    fn on_deadline(cx: &mut Cx<'_, S>, id: Id<Self>) {
        let _ = (cx, id);
    }

    /// Writes what is queued: the end of a turn.
    ///
    /// Called once in a turn in which the source was touched
    /// ([`Registry::touch`](crate::Registry::touch)) or its stream became writable again. Must
    /// not panic. [`Io::space`] is empty here. A source that has more to write than
    /// [`Io::write_share`] leaves the rest and calls [`Io::touch`].
    fn flush(&mut self, io: &mut Io<'_>) {
        let _ = io;
    }
}

/// What a source wants registered: once, for both directions, edge-triggered.
#[derive(Debug)]
#[non_exhaustive]
pub enum Pollable<'a> {
    /// A listening socket.
    Listener(&'a mut Listener),
    /// No descriptor: the source runs by [`wake`](crate::Registry::wake) and deadlines alone.
    Nothing,
    /// A connected or connecting socket.
    Stream(&'a mut Stream),
}

/// What a source is handed to do its reading and writing.
#[derive(Debug)]
pub struct Io<'a> {
    /// The free bytes of the turn buffer, the first `committed` of them filled by this source.
    space: &'a mut [u8],
    /// How many of them it may fill.
    read_share: usize,
    committed: usize,
    /// Bytes at the end of `space` that are no longer free, since as many were read elsewhere.
    spent: usize,
    write_share: usize,
    wants_again: bool,
    wants_dispatch: bool,
    wants_flush: bool,
    now: Instant,
    buffers: &'a mut Buffers,
}

impl<'a> Io<'a> {
    pub(crate) fn new(
        space: &'a mut [u8],
        read_share: usize,
        write_share: usize,
        now: Instant,
        buffers: &'a mut Buffers,
    ) -> Self {
        Self {
            space,
            read_share,
            committed: 0,
            spent: 0,
            write_share,
            wants_again: false,
            wants_dispatch: false,
            wants_flush: false,
            now,
            buffers,
        }
    }

    /// Returns the part of the turn buffer that this source may still fill in this turn.
    ///
    /// Empty when the budget is used up, and in [`Source::flush`].
    pub fn space(&mut self) -> &mut [u8] {
        let end = self.read_share.min(self.space.len()).saturating_sub(self.spent);
        &mut self.space[self.committed.min(end)..end]
    }

    /// Returns how many bytes this source may still read in this turn into a buffer of its own: the
    /// rest of a long message, of which it may read as much as it may write
    /// ([`Config::write_bytes_per_turn`](crate::Config::write_bytes_per_turn)), or as there is
    /// [space](Io::space) for if that is more.
    pub fn own_space(&self) -> usize {
        let share = self.read_share.max(self.write_share).min(self.space.len());
        share.saturating_sub(self.committed + self.spent)
    }

    /// Adds the first `n` bytes of [`Io::space`] to the batch of this source.
    ///
    /// # Panics
    ///
    /// If `n` is more than the space holds.
    pub fn commit(&mut self, n: usize) {
        assert!(n <= self.space().len(), "committed more than there was space");
        self.committed += n;
    }

    /// Takes `n` bytes from [`Io::own_space`] and [`Io::space`]: as many were read into a buffer of
    /// the source's own, and what a source and a turn may read is bounded wherever it goes.
    ///
    /// # Panics
    ///
    /// If `n` is more than [`Io::own_space`].
    pub fn spend(&mut self, n: usize) {
        assert!(n <= self.own_space(), "spent more than there was space");
        self.spent += n;
    }

    /// Returns how many bytes this source should write in one flush at most
    /// ([`Config::write_bytes_per_turn`](crate::Config::write_bytes_per_turn)).
    pub fn write_share(&self) -> usize {
        self.write_share
    }

    /// Asks for a dispatch even if no bytes were committed: end of input, a connection accepted
    /// or established, an error.
    ///
    /// In [`Source::flush`] the dispatch comes in the next turn.
    pub fn dispatch(&mut self) {
        self.wants_dispatch = true;
    }

    /// Asks for another [`Source::handle_io`] in the next turn, which then does not block.
    pub fn again(&mut self) {
        self.wants_again = true;
    }

    /// Asks for a [`Source::flush`]: at the end of this turn; in `flush` itself, of the next turn,
    /// which then does not block.
    pub fn touch(&mut self) {
        self.wants_flush = true;
    }

    /// Returns the time of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Takes a spare buffer, as [`Registry::take_buffer`](crate::Registry::take_buffer) does.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.buffers.take()
    }

    /// Takes a large spare buffer, as
    /// [`Registry::take_large_buffer`](crate::Registry::take_large_buffer) does.
    pub fn take_large_buffer(&mut self) -> Vec<u8> {
        self.buffers.take_large()
    }

    /// Gives a buffer back, as [`Registry::give_buffer`](crate::Registry::give_buffer) does.
    pub fn give_buffer(&mut self, buffer: Vec<u8>) {
        self.buffers.give(buffer);
    }

    /// What the source asked for, once it is done.
    pub(crate) fn asked(&self) -> Asked {
        Asked {
            bytes: self.committed,
            spent: self.spent,
            flush: self.wants_flush,
            again: self.wants_again,
            dispatch: self.wants_dispatch || self.committed > 0,
        }
    }
}

/// What a source asked for by its [`Io`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) bytes: usize,
    pub(crate) spent: usize,
    pub(crate) again: bool,
    pub(crate) flush: bool,
    pub(crate) dispatch: bool,
}

/// A batch: the bytes that a source read in this turn, in the turn buffer.
#[derive(Debug)]
pub struct Input<'a> {
    unread: &'a [u8],
    /// Where the batch begins in the turn buffer. It belongs to the reactor, so that what was
    /// advanced survives a panic.
    start: &'a mut usize,
    requests_max: usize,
}

impl<'a> Input<'a> {
    pub(crate) fn new(unread: &'a [u8], start: &'a mut usize, requests_max: usize) -> Self {
        Self { unread, start, requests_max }
    }

    /// Returns the bytes not yet advanced over.
    ///
    /// They outlive the borrow of `self`: a message may be read in place while the input is
    /// advanced past it.
    pub fn unread(&self) -> &'a [u8] {
        self.unread
    }

    /// Passes over the first `n` unread bytes.
    ///
    /// # Panics
    ///
    /// If fewer than `n` bytes are unread.
    pub fn advance(&mut self, n: usize) {
        self.unread = &self.unread[n..];
        *self.start += n;
    }

    /// Returns how many requests this dispatch should run at most.
    ///
    /// The rest are for the next turn: keep them, and [`wake`](crate::Registry::wake) the source.
    pub fn requests_max(&self) -> usize {
        self.requests_max
    }
}

/// What an event said, kept in the slot until the source is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness(u8);

impl Readiness {
    pub(crate) const CLOSED: u8 = 1;
    pub(crate) const READABLE: u8 = 2;
    pub(crate) const WRITABLE: u8 = 4;

    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub(crate) fn of(event: &mio::event::Event) -> Self {
        let mut bits = 0;
        if event.is_readable() {
            bits |= Self::READABLE;
        }
        if event.is_writable() {
            bits |= Self::WRITABLE;
        }
        // An error is found by trying: both directions are tried, whatever a read brings first.
        if event.is_read_closed() || event.is_error() {
            bits |= Self::CLOSED | Self::READABLE;
        }
        if event.is_write_closed() || event.is_error() {
            bits |= Self::WRITABLE;
        }
        Self(bits)
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    pub(crate) fn is_readable(self) -> bool {
        self.0 & Self::READABLE != 0
    }

    pub(crate) fn is_writable(self) -> bool {
        self.0 & Self::WRITABLE != 0
    }
}

/// [`Source::dispatch`] of a source whose type is forgotten.
pub(crate) type DispatchCall<S> = fn(&mut Cx<'_, S>, RawId, &mut Input<'_>);

/// [`Source::on_deadline`] of a source whose type is forgotten.
pub(crate) type DeadlineCall<S> = fn(&mut Cx<'_, S>, RawId);

/// A source as the registry keeps it: its type forgotten, to be found again by downcast.
///
/// The calls that need the registry are handed out as plain functions, since they must run while
/// the source is not borrowed.
pub(crate) trait AnySource<S: 'static>: Any {
    /// Notes the readiness, then calls [`Source::handle_io`] unless there is nothing new.
    /// Returns whether the source became writable, and so wants a flush.
    fn handle_event(&mut self, readiness: Readiness, is_asked: bool, io: &mut Io<'_>) -> bool;
    fn handle_flush(&mut self, io: &mut Io<'_>);
    fn register(&mut self, poll: &Poll, raw: RawId) -> io::Result<()>;
    fn deregister(&mut self, poll: &Poll) -> io::Result<()>;
    fn deadline_call(&self) -> DeadlineCall<S>;
}

impl<S: 'static, T: Source<S>> AnySource<S> for T {
    fn handle_event(&mut self, readiness: Readiness, is_asked: bool, io: &mut Io<'_>) -> bool {
        let noted = match self.pollable() {
            Pollable::Listener(listener) => listener.note(readiness),
            Pollable::Nothing => Noted::default(),
            Pollable::Stream(stream) => stream.note(readiness),
        };
        // Every event of a quiet stream says "writable"; only the change is news.
        if noted.is_readable || noted.became_writable || is_asked {
            self.handle_io(io);
        }
        noted.became_writable
    }

    fn handle_flush(&mut self, io: &mut Io<'_>) {
        self.flush(io);
    }

    fn register(&mut self, poll: &Poll, raw: RawId) -> io::Result<()> {
        match self.pollable() {
            Pollable::Listener(listener) => listener.register(poll, raw),
            Pollable::Nothing => Ok(()),
            Pollable::Stream(stream) => stream.register(poll, raw),
        }
    }

    fn deregister(&mut self, poll: &Poll) -> io::Result<()> {
        match self.pollable() {
            Pollable::Listener(listener) => listener.deregister(poll),
            Pollable::Nothing => Ok(()),
            Pollable::Stream(stream) => stream.deregister(poll),
        }
    }

    fn deadline_call(&self) -> DeadlineCall<S> {
        |cx, id| T::on_deadline(cx, Id::from_raw(id))
    }
}

/// What an event changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noted {
    pub(crate) is_readable: bool,
    pub(crate) became_writable: bool,
}
