//! Ready-made ECHO commands over one epoll on one thread, as the bench's bare load has frames: one
//! read, one write and one reading of the clock for a ready socket. Replies come in the order of the
//! commands and are all the same.

use std::io;
use std::mem;
use std::ops::DerefMut;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use onceloop_benches::harness::{
    Connection, DRAIN_MAX, DUE_PER_LOOK_MAX, Generator, LoadOptions, Pace, Poller, STALL_MAX,
    Sources, State, Tally, Watch, index, nanoseconds, wake_at,
};

use crate::peer::payload;

/// Connections that may be on their way at once: half of the shortest backlog in use.
const CONNECTING_MAX: usize = 64;
/// Room for one read, at least.
const INPUT_BYTES_MIN: usize = 64 << 10;

/// The whole load.
pub(crate) struct Load<'a> {
    options: &'a LoadOptions,
    poller: Poller,
    sources: Sources,
    started: Instant,
    /// Whether an answer makes room for the next call.
    is_calling: bool,
    connections: Vec<Connection>,
    /// Calls without an answer, over all connections.
    in_flight: u64,
    /// When each call in flight was sent, or was due: a ring of `slots` for each connection.
    sent_at: Vec<u64>,
    slots: u64,
    /// Only in an open loop.
    pace: Option<Pace>,
    /// As many commands as may be in flight, one behind the other.
    commands: Vec<u8>,
    command_bytes: usize,
    reply: Vec<u8>,
    input: Vec<u8>,
    tally: Tally,
}

impl<'a> Load<'a> {
    pub(crate) fn new(options: &'a LoadOptions) -> Result<Load<'a>> {
        let total = index(u64::from(options.connections) + u64::from(options.idle));
        let slots = u64::from(options.in_flight.next_power_of_two());
        let mut reply = format!("${}\r\n", options.payload).into_bytes();
        reply.extend(payload(options));
        reply.extend(b"\r\n");
        let command = [&b"*2\r\n$4\r\nECHO\r\n"[..], &reply].concat();
        let spin = Duration::from_micros(options.spin_us);
        Ok(Load {
            options,
            poller: Poller::new(spin).context("making an epoll")?,
            sources: Sources::new(options.port),
            started: Instant::now(),
            is_calling: false,
            connections: Vec::with_capacity(total),
            in_flight: 0,
            sent_at: vec![0; total * index(slots)],
            slots,
            pace: None,
            commands: command.repeat(index(u64::from(options.in_flight))),
            command_bytes: command.len(),
            input: vec![0; INPUT_BYTES_MIN.max(2 * reply.len())],
            reply,
            tally: Tally::new()?,
        })
    }

    /// Makes a connection. It may not stand yet: what is written meanwhile is sent when it does.
    fn connect(&mut self) {
        let id = self.connections.len();
        let outcome = self.sources.connect(id).and_then(|stream| {
            self.poller.add(&stream, id as u64)?;
            Ok(stream)
        });
        let mut connection = Connection::new(None);
        match outcome {
            Ok(stream) => {
                connection = Connection::new(Some(stream));
                connection.state = State::Open;
            }
            Err(error) => self.tally.fail(|| format!("connection {id}: {error}")),
        }
        self.connections.push(connection);
    }

    fn lose(&mut self, id: usize, why: &io::Error) {
        let connection = &mut self.connections[id];
        if connection.state != State::Lost {
            self.in_flight -= connection.in_flight();
            connection.close();
            self.tally.fail(|| format!("connection {id}: {why}"));
        }
    }

    /// Makes `count` more calls on a connection, as far as they may be in flight.
    fn call(&mut self, id: usize, count: u64, now: u64) {
        let connection = &mut self.connections[id];
        if connection.state != State::Open {
            return;
        }
        connection.due += count;
        let room = u64::from(self.options.in_flight) - connection.in_flight();
        let count = connection.due.min(room);
        connection.due -= count;
        for _ in 0..count {
            let slot = index(connection.next_seq & (self.slots - 1));
            self.sent_at[id * index(self.slots) + slot] = match &self.pace {
                None => now,
                Some(pace) => {
                    connection.paced += 1;
                    pace.due_at(id as u64, connection.paced - 1)
                }
            };
            connection.next_seq += 1;
        }
        self.in_flight += count;
        let commands = &self.commands[..index(count) * self.command_bytes];
        if let Err(error) = connection.write(commands) {
            self.lose(id, &error);
        }
    }

    /// Makes the calls that have fallen due by now; returns when the next one does, if there is a
    /// plan.
    fn call_due(&mut self) -> Option<u64> {
        for _ in 0..DUE_PER_LOOK_MAX {
            let now = self.now();
            let pace = self.pace.as_mut()?;
            let due_at = pace.next_at();
            let Some(connection) = pace.next_due(now) else { break };
            let id = index(connection);
            // A call that waits for room is not late for the load's sake.
            if self.connections[id].in_flight() < u64::from(self.options.in_flight) {
                self.tally.record_lag(now - due_at);
            }
            self.call(id, 1, now);
        }
        Some(self.pace.as_ref()?.next_at())
    }

    /// Makes one call on each of some connections and waits for the answers.
    fn call_each(&mut self, from: usize, until: usize) -> Result<()> {
        for id in from..until {
            self.call(id, 1, self.now());
        }
        self.wait_for_all(STALL_MAX)
    }

    /// Waits until nothing is in flight, or gives those up whose answers do not come.
    fn wait_for_all(&mut self, wait_max: Duration) -> Result<()> {
        let mut watch = Watch::begin();
        while self.in_flight > 0 {
            if self.turn(Watch::TELL_INTERVAL)? > 0 {
                watch.on_progress();
            } else if watch.is_stalled(wait_max) {
                for id in 0..self.connections.len() {
                    if self.connections[id].in_flight() > 0 {
                        self.lose(id, &io::Error::other("a call was not answered"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits for events, at most `timeout`, and handles them; returns how many there were.
    fn turn(&mut self, timeout: Duration) -> Result<usize> {
        let ready = self.poller.wait(Some(timeout)).context("waiting for events")?;
        let mut input = mem::take(&mut self.input);
        for event in 0..ready {
            let id = index(self.poller.id(event));
            if let Err(error) = self.exchange(id, &mut input) {
                self.lose(id, &error);
            }
            // A plan does not wait until a thousand sockets are read.
            self.call_due();
        }
        self.input = input;
        Ok(ready)
    }

    /// Reads what has come for a connection and makes the calls that follow.
    fn exchange(&mut self, id: usize, input: &mut [u8]) -> io::Result<()> {
        self.connections[id].flush()?;
        loop {
            let (filled, may_have_more) = self.connections[id].read(input)?;
            if filled > 0 {
                let now = self.now();
                let bytes = &input[..filled];
                let answers = self.take_replies(id, bytes, now)?;
                self.connections[id].keep(&bytes[index(answers) * self.reply.len()..]);
                if self.is_calling && answers > 0 {
                    self.call(id, if self.pace.is_none() { answers } else { 0 }, now);
                }
            }
            if !may_have_more {
                return Ok(());
            }
        }
    }

    /// Reads the whole replies in `bytes`; returns how many they are.
    fn take_replies(&mut self, id: usize, bytes: &[u8], now: u64) -> io::Result<u64> {
        let replies = bytes.chunks_exact(self.reply.len());
        let rest = replies.remainder();
        if !self.reply.starts_with(&rest[..rest.len().min(1)]) {
            return Err(io::Error::other(String::from_utf8_lossy(rest).trim().to_owned()));
        }
        let connection = &mut self.connections[id];
        let (mut answers, mut run_sent_at, mut run) = (0, now, 0);
        for reply in replies {
            if reply != self.reply || connection.in_flight() == 0 {
                return Err(io::Error::other("a reply to no call, or not what was sent"));
            }
            connection.answered += 1;
            let slot = index(connection.answered & (self.slots - 1));
            // Calls that were sent together and answered together are recorded together.
            let sent_at = self.sent_at[id * index(self.slots) + slot];
            if sent_at != run_sent_at {
                self.tally.record(now.saturating_sub(run_sent_at), run);
                (run_sent_at, run) = (sent_at, 0);
            }
            run += 1;
            answers += 1;
        }
        self.tally.record(now.saturating_sub(run_sent_at), run);
        self.in_flight -= answers;
        Ok(answers)
    }
}

impl Generator for Load<'_> {
    fn open(&mut self, until: u32) -> Result<()> {
        let mut watch = Watch::begin();
        let until = index(u64::from(until));
        while self.connections.len() < until {
            let from = self.connections.len();
            let wave_end = until.min(from + CONNECTING_MAX);
            while self.connections.len() < wave_end {
                self.connect();
            }
            // Its answer is what tells that a connection stands.
            self.call_each(from, wave_end)?;
            watch.tell(wave_end);
        }
        Ok(())
    }

    fn settle(&mut self, from: u32, until: u32) -> Result<()> {
        self.call_each(index(u64::from(from)), index(u64::from(until)))
    }

    fn begin_calls(&mut self) {
        self.is_calling = true;
        self.pace = Pace::new(self.options.rate, self.options.connections, self.now());
        if self.pace.is_some() {
            return;
        }
        for id in 0..index(u64::from(self.options.connections)) {
            self.call(id, u64::from(self.options.in_flight), self.now());
        }
    }

    fn call_until(&mut self, end_ns: u64) -> Result<()> {
        loop {
            let now = self.now();
            if now >= end_ns {
                return Ok(());
            }
            let wake_at = wake_at(self.call_due(), self.options, now, end_ns);
            self.turn(Duration::from_nanos(wake_at.saturating_sub(self.now())))?;
        }
    }

    fn drain(&mut self) -> Result<()> {
        self.is_calling = false;
        self.pace = None;
        self.wait_for_all(DRAIN_MAX)
    }

    fn close(&mut self) -> Result<()> {
        self.connections.clear();
        Ok(())
    }

    #[inline]
    fn now(&self) -> u64 {
        nanoseconds(self.started.elapsed()) + 1
    }

    fn granted(&self) -> (u32, u32) {
        (self.options.in_flight, self.options.in_flight)
    }

    fn tally(&mut self) -> impl DerefMut<Target = Tally> {
        &mut self.tally
    }
}
