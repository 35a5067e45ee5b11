//! The lean load: ready-made requests over one epoll on one thread.
//!
//! It shakes hands, gives each call the next seq and the acknowledgement of all before, and matches
//! each answer to its call by the seq. It is the same for every server, whatever its [`Wire`] is, and
//! costs about what the bare server costs, so that the load is not what is measured.

use std::io;
use std::mem;
use std::ops::{DerefMut, Range};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::connection::{Connection, State};
use super::pace::Pace;
use super::sequence::{Generator, Watch};
use super::sources::Sources;
use super::tally::{Class, Tally};
use super::wire::{Front, Notice, Wire};
use super::{DRAIN_MAX, DUE_PER_LOOK_MAX, STALL_MAX, index, nanoseconds};
use crate::frames;
use crate::options::LoadOptions;
use crate::poller::Poller;

/// Connections that may be between `connect` and the end of the handshake: half of the shortest
/// backlog in use.
const CONNECTING_MAX: usize = 64;
/// Room for one read: above the longest frame, so that a read always makes progress.
const INPUT_BYTES: usize = 2 * frames::FRAME_BYTES_MAX;
/// Bits of a time of sending, in nanoseconds, that no clock reaches: they say what class the call is
/// of.
const CLASS_SHIFT: u32 = 62;

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Connections are made; nobody calls.
    Opening,
    /// Each connection makes one call, acknowledges it and is told that the server has seen the
    /// acknowledgement.
    Settling,
    /// Each answer makes room for the next call.
    Calling,
    /// No new calls; the last answers are awaited.
    Draining,
}

/// Why calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// They have fallen due: what is late now is the load.
    Plan,
    /// There is room for them; those of a plan may have waited for it, and that was the server.
    Room,
}

/// The whole load.
pub struct Load<'a, W> {
    options: &'a LoadOptions,
    wire: W,
    poller: Poller,
    sources: Sources,
    started: Instant,
    stage: Stage,
    connections: Vec<Connection>,
    /// Connections that the stage waits for.
    waiting: usize,
    /// When each call in flight was sent, or was due: a ring of `slots` for each connection, by
    /// seq, marked with its class. 0 where none is in flight.
    sent_at: Vec<u64>,
    slots: u64,
    window: u32,
    /// Only in an open loop.
    pace: Option<Pace>,
    /// The connections of calls that have just fallen due; empty in between.
    fallen_due: Vec<usize>,
    /// The connections with large calls.
    large: Range<usize>,
    input: Vec<u8>,
    tally: Tally,
}

impl<'a, W: Wire> Load<'a, W> {
    /// Returns one that calls by `wire` and asks for this window.
    ///
    /// # Errors
    ///
    /// The system lends no epoll.
    pub fn new(options: &'a LoadOptions, window: u32, wire: W) -> Result<Load<'a, W>> {
        let total = index(options.total().into());
        let large = index(options.connections.into())..total - index(options.idle.into());
        let slots = u64::from(window.next_power_of_two());
        let spin = Duration::from_micros(options.spin_us);
        Ok(Load {
            options,
            wire,
            poller: Poller::new(spin).context("making an epoll")?,
            sources: Sources::new(options.port),
            started: Instant::now(),
            stage: Stage::Opening,
            connections: Vec::with_capacity(total),
            waiting: 0,
            sent_at: vec![0; total * index(slots)],
            slots,
            window,
            pace: None,
            fallen_due: Vec::new(),
            large,
            input: vec![0; INPUT_BYTES],
            tally: Tally::new()?,
        })
    }

    /// Makes the calls that have fallen due by now, those of a connection with one write; returns when
    /// the next one does, if there is a plan.
    fn call_due(&mut self) -> Option<u64> {
        self.pace.as_ref()?;
        let now = self.now();
        let pace = self.pace.as_mut()?;
        for _ in 0..DUE_PER_LOOK_MAX {
            let Some(connection) = pace.next_due(now) else { break };
            let id = index(connection);
            if self.connections[id].state == State::Open {
                self.connections[id].due += 1;
                self.fallen_due.push(id);
            }
        }
        let next_at = pace.next_at();
        let mut ids = mem::take(&mut self.fallen_due);
        for id in ids.drain(..) {
            if self.connections[id].due > 0 {
                self.pump(id, self.now(), Cause::Plan);
            }
        }
        self.fallen_due = ids;
        Some(next_at)
    }

    /// Goes on until no connection is awaited, or gives those up that still are.
    fn wait_for_all(&mut self, wait_max: Duration, why: &str) -> Result<()> {
        let mut watch = Watch::begin();
        while self.waiting > 0 {
            if self.turn(Watch::TELL_INTERVAL)? > 0 {
                watch.on_progress();
            } else if watch.is_stalled(wait_max) {
                self.give_up(why);
            }
        }
        Ok(())
    }

    fn give_up(&mut self, why: &str) {
        for id in 0..self.connections.len() {
            if self.connections[id].is_awaited {
                self.lose(id, &io::Error::other(why));
            }
        }
    }

    fn await_one(&mut self, id: usize) {
        self.connections[id].is_awaited = true;
        self.waiting += 1;
    }

    /// Notes that a connection has done what the stage waits for.
    fn arrive(&mut self, id: usize) {
        if mem::take(&mut self.connections[id].is_awaited) {
            self.waiting -= 1;
        }
    }

    fn connect(&mut self) {
        let id = self.connections.len();
        let outcome = self.sources.connect(id).and_then(|stream| {
            self.poller.add(&stream, id as u64)?;
            Ok(stream)
        });
        match outcome {
            Ok(stream) => {
                self.connections.push(Connection::new(Some(stream)));
                self.await_one(id);
            }
            Err(error) => {
                self.connections.push(Connection::new(None));
                self.tally.fail(|| format!("connection {id}: {error}"));
            }
        }
    }

    fn lose(&mut self, id: usize, why: &io::Error) {
        self.connections[id].close();
        self.arrive(id);
        self.tally.fail(|| format!("connection {id}: {why}"));
    }

    /// Waits for events, at most `timeout`, and handles them; returns how many there were.
    fn turn(&mut self, timeout: Duration) -> Result<usize> {
        let ready = self.poller.wait(Some(timeout)).context("waiting for events")?;
        for event in 0..ready {
            self.on_ready(index(self.poller.id(event)));
            // A plan does not wait until a thousand sockets are read.
            self.call_due();
        }
        Ok(ready)
    }

    fn on_ready(&mut self, id: usize) {
        let mut input = mem::take(&mut self.input);
        let outcome = self.exchange(id, &mut input);
        self.input = input;
        if let Err(error) = outcome {
            self.lose(id, &error);
        }
    }

    /// Reads what has come for a connection and sends what follows from it.
    fn exchange(&mut self, id: usize, input: &mut [u8]) -> io::Result<()> {
        let connection = &mut self.connections[id];
        if connection.state == State::Connecting {
            connection.connect_error()?;
            connection.state = State::Greeting;
            // The same event may stand for bytes of a server that speaks first: read on.
            connection.write(&self.wire.hello())?;
        }
        connection.flush()?;
        loop {
            let (filled, may_have_more) = self.connections[id].read(input)?;
            if filled > 0 {
                let now = self.now();
                let (skipped, mut answers) = self.skip(id, filled, now);
                let bytes = &input[skipped..filled];
                let (used, more) = match self.connections[id].state {
                    State::Greeting => (self.take_welcome(id, bytes)?, 0),
                    _ => self.take_frames(id, bytes, now)?,
                };
                self.connections[id].keep(&bytes[used..]);
                answers += more;
                if answers > 0 {
                    self.on_answers(id, answers, now)?;
                }
            }
            if !may_have_more {
                return Ok(());
            }
        }
    }

    /// Does what the stage wants after `answers` calls were answered.
    fn on_answers(&mut self, id: usize, answers: u64, now: u64) -> io::Result<()> {
        match self.stage {
            Stage::Opening => {}
            Stage::Settling => {
                let connection = &mut self.connections[id];
                connection.write(&self.wire.acknowledge(connection.answered))?;
            }
            Stage::Calling => {
                if self.pace.is_none() || self.is_large(id) {
                    self.connections[id].due += answers;
                }
                self.pump(id, now, Cause::Room);
            }
            Stage::Draining => {
                if self.connections[id].in_flight() == 0 {
                    self.arrive(id);
                }
            }
        }
        Ok(())
    }

    /// Makes as many of the due calls of a connection as may be in flight, with one write.
    fn pump(&mut self, id: usize, now: u64, cause: Cause) {
        let is_large = self.is_large(id);
        let in_flight_max = if is_large { 1 } else { self.in_flight_max() };
        let connection = &mut self.connections[id];
        let room = (in_flight_max.saturating_sub(connection.in_flight()))
            .min(u64::from(self.window).min(self.slots).saturating_sub(connection.span()));
        let count = connection.due.min(room);
        if count == 0 {
            return;
        }
        connection.due -= count;
        let ring = &mut self.sent_at[id * index(self.slots)..][..index(self.slots)];
        let seqs = connection.next_seq..connection.next_seq + count;
        connection.next_seq = seqs.end;
        let slot = |seq: u64| index(seq & (self.slots - 1));
        let requests = if is_large {
            ring[slot(seqs.start)] = mark(now, Class::Large);
            self.wire.large_request(seqs.start, connection.answered)
        } else {
            self.wire.requests(seqs, connection.answered, |seq, class| {
                let sent_at = match &self.pace {
                    None => now,
                    Some(pace) => {
                        connection.paced += 1;
                        let due_at = pace.due_at(id as u64, connection.paced - 1);
                        if cause == Cause::Plan {
                            self.tally.record_lag(now.saturating_sub(due_at));
                        }
                        due_at
                    }
                };
                ring[slot(seq)] = mark(sent_at, class);
            })
        };
        if let Err(error) = connection.write(requests) {
            self.lose(id, &error);
        }
    }

    /// Reads the end of the handshake; returns how many bytes it is, 0 if it has not all come.
    fn take_welcome(&mut self, id: usize, bytes: &[u8]) -> io::Result<usize> {
        let Some((length, window)) = self.wire.welcome(bytes)? else { return Ok(0) };
        self.window = self.window.min(window);
        self.connections[id].state = State::Open;
        self.arrive(id);
        Ok(length)
    }

    /// Reads the whole frames in `bytes`; returns how many bytes they are and how many calls they
    /// answer.
    fn take_frames(&mut self, id: usize, bytes: &[u8], now: u64) -> io::Result<(usize, u64)> {
        let (mut used, mut answers) = (0, 0);
        // Calls that were sent together and answered together are recorded together.
        let (mut run_sent_at, mut run) = (now, 0);
        loop {
            let rest = &bytes[used..];
            match self.wire.front(rest) {
                Front::Part => break,
                Front::Begun(seq, length) => {
                    let seq = seq.unwrap_or_else(|| self.next_answer(id));
                    self.connections[id].skips = Some((seq, length - rest.len()));
                    used = bytes.len();
                    break;
                }
                Front::Answer(seq, length) => {
                    let seq = seq.unwrap_or_else(|| self.next_answer(id));
                    if let Some(sent_at) = self.match_answer(id, seq) {
                        if sent_at != run_sent_at {
                            self.record(now, run_sent_at, run);
                            (run_sent_at, run) = (sent_at, 0);
                        }
                        run += 1;
                        answers += 1;
                    } else {
                        self.tally.fail(|| format!("connection {id}: a reply to no call"));
                    }
                    used += length;
                }
                Front::Other(length) => {
                    answers += self.take_other(id, &rest[..length])?;
                    used += length;
                }
            }
        }
        self.record(now, run_sent_at, run);
        Ok((used, answers))
    }

    /// Skips what of `filled` bytes belongs to a long answer; returns how many bytes that is, and how
    /// many calls are answered with them.
    fn skip(&mut self, id: usize, filled: usize, now: u64) -> (usize, u64) {
        let Some((seq, left)) = self.connections[id].skips else { return (0, 0) };
        let skipped = left.min(filled);
        if skipped < left {
            self.connections[id].skips = Some((seq, left - skipped));
            return (skipped, 0);
        }
        self.connections[id].skips = None;
        match self.match_answer(id, seq) {
            Some(sent_at) => {
                self.record(now, sent_at, 1);
                (skipped, 1)
            }
            None => {
                self.tally.fail(|| format!("connection {id}: a reply to no call"));
                (skipped, 0)
            }
        }
    }

    /// Counts `count` answers to calls of one kind that were sent together.
    #[inline]
    fn record(&mut self, now: u64, sent_at: u64, count: u64) {
        let (sent_at, class) = unmark(sent_at);
        self.tally.record_as(class, now.saturating_sub(sent_at), count);
    }

    /// Returns the lowest seq without an answer.
    #[inline]
    fn next_answer(&self, id: usize) -> u64 {
        self.connections[id].answered + 1
    }

    /// Ends the call with this seq and returns when it was sent; `None` if there is no such call.
    // Left to the compiler, it is a call: 12 instructions more for each answer.
    #[inline(always)]
    fn match_answer(&mut self, id: usize, seq: u64) -> Option<u64> {
        let connection = &mut self.connections[id];
        if seq <= connection.answered || seq >= connection.next_seq {
            return None;
        }
        let ring = &mut self.sent_at[id * index(self.slots)..][..index(self.slots)];
        let slot = |seq: u64| index(seq & (self.slots - 1));
        let sent_at = mem::take(&mut ring[slot(seq)]);
        if sent_at == 0 {
            return None;
        }
        if seq > connection.answered + 1 {
            connection.early += 1;
            return Some(sent_at);
        }
        connection.answered = seq;
        while connection.early > 0 && ring[slot(connection.answered + 1)] == 0 {
            connection.answered += 1;
            connection.early -= 1;
        }
        Some(sent_at)
    }

    /// Reads a frame that is no reply; returns how many calls it answers.
    #[cold]
    fn take_other(&mut self, id: usize, frame: &[u8]) -> io::Result<u64> {
        match self.wire.notice(frame)? {
            Notice::Acknowledged if self.stage == Stage::Settling => self.arrive(id),
            Notice::Acknowledged => {}
            Notice::Asks(answer) => self.connections[id].write(&answer)?,
            Notice::Failed(seq, why) => {
                self.tally.fail(|| format!("connection {id}: {why}"));
                return Ok(u64::from(self.match_answer(id, seq).is_some()));
            }
            Notice::Unknown(what) => self.tally.fail(|| format!("connection {id}: {what}")),
        }
        Ok(0)
    }

    /// Returns whether a connection's calls are large. Its first one, of the opening, is not.
    fn is_large(&self, id: usize) -> bool {
        self.stage == Stage::Calling && self.large.contains(&id)
    }

    fn in_flight_max(&self) -> u64 {
        u64::from(self.options.in_flight.min(self.window))
    }
}

impl<W: Wire> Generator for Load<'_, W> {
    fn open(&mut self, until: u32) -> Result<()> {
        self.stage = Stage::Opening;
        let mut watch = Watch::begin();
        let until = index(u64::from(until));
        while self.connections.len() < until || self.waiting > 0 {
            while self.connections.len() < until && self.waiting < CONNECTING_MAX {
                self.connect();
            }
            if self.turn(Watch::TELL_INTERVAL)? > 0 {
                watch.on_progress();
            } else if watch.is_stalled(STALL_MAX) {
                self.give_up("the handshake did not end");
            }
            watch.tell(self.connections.len() - self.waiting);
        }
        Ok(())
    }

    fn settle(&mut self, from: u32, until: u32) -> Result<()> {
        self.stage = Stage::Settling;
        for id in index(u64::from(from))..index(u64::from(until)) {
            if self.connections[id].state == State::Open {
                self.await_one(id);
                self.connections[id].due = 1;
                self.pump(id, self.now(), Cause::Room);
            }
        }
        self.wait_for_all(STALL_MAX, "the first call was not answered and acknowledged")
    }

    fn begin_calls(&mut self) {
        self.stage = Stage::Calling;
        let in_flight = self.in_flight_max();
        self.pace = Pace::new(self.options.rate, self.options.connections, self.now());
        let small = if self.pace.is_some() { 0 } else { in_flight };
        for id in 0..self.large.end {
            if self.connections[id].state == State::Open {
                self.connections[id].due = if self.is_large(id) { 1 } else { small };
                self.pump(id, self.now(), Cause::Room);
            }
        }
    }

    fn call_until(&mut self, end_ns: u64) -> Result<()> {
        loop {
            let now = self.now();
            if now >= end_ns {
                return Ok(());
            }
            let wake_at = super::wake_at(self.call_due(), self.options, now, end_ns);
            self.turn(Duration::from_nanos(wake_at.saturating_sub(self.now())))?;
        }
    }

    fn drain(&mut self) -> Result<()> {
        self.stage = Stage::Draining;
        self.pace = None;
        for id in 0..self.connections.len() {
            self.connections[id].due = 0;
            if self.connections[id].in_flight() > 0 {
                self.await_one(id);
            }
        }
        self.wait_for_all(DRAIN_MAX, "its last calls were not answered")
    }

    fn close(&mut self) -> Result<()> {
        for connection in &mut self.connections {
            // The measurement is over: a server that is gone by now has nothing to lose.
            drop(connection.write(&self.wire.bye(connection.answered)));
            connection.close();
        }
        Ok(())
    }

    #[inline]
    fn now(&self) -> u64 {
        nanoseconds(self.started.elapsed()) + 1
    }

    fn granted(&self) -> (u32, u32) {
        (self.window, self.options.in_flight.min(self.window))
    }

    fn tally(&mut self) -> impl DerefMut<Target = Tally> {
        &mut self.tally
    }
}

/// Returns a time of sending and a class as one number.
#[inline]
fn mark(sent_at: u64, class: Class) -> u64 {
    sent_at | (class as u64) << CLASS_SHIFT
}

/// Returns the time of sending and the class that [`mark`] was given.
#[inline]
fn unmark(marked: u64) -> (u64, Class) {
    let class = match marked >> CLASS_SHIFT {
        0 => Class::Fast,
        1 => Class::Slow,
        _ => Class::Large,
    };
    (marked & ((1 << CLASS_SHIFT) - 1), class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_class() {
        for class in [Class::Fast, Class::Slow, Class::Large] {
            assert_eq!(unmark(mark(1_234, class)), (1_234, class));
        }
    }
}
