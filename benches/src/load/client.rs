//! The load through our own client library: a client for each connection, a callback for each call.
//!
//! A callback is boxed with what it needs (which client, when it was called), as in a program that
//! does something with its replies; it takes the reply apart and makes the next call itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::DerefMut;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use onceloop::{
    ApplicationError, Bin, CallError, Client, Config, Cx, Limits, Raw, Reactor, Registry, State,
};
use onceloop_protocol::codec::DecodeArgs;

use super::pace::Pace;
use super::sequence::{Generator, Watch};
use super::tally::Tally;
use super::{DRAIN_MAX, DUE_PER_LOOK_MAX, STALL_MAX, index, nanoseconds};
use crate::options::LoadOptions;
use crate::service::any_server;

/// Clients that may be on their way to a session: half of the shortest backlog in use.
const CONNECTING_MAX: usize = 64;
/// Silence after which a client acknowledges on its own. The default is as good for programs; here
/// the sample of memory waits for it.
const ACK_DELAY: Duration = Duration::from_millis(50);
/// How long to go on after the last first call so that its acknowledgement is with the server.
const ACK_WAIT: Duration = Duration::from_millis(300);
/// How long to go on at the end so that the servers are told.
const CLOSE_WAIT: Duration = Duration::from_millis(100);
/// The first byte of the bare server's reply: an array of one.
const ARRAY_OF_ONE: u8 = 0x91;

/// A client and what it has asked.
struct Peer {
    client: Client<Calls>,
    is_connected: bool,
    /// Whether the stage of the load waits for it.
    is_awaited: bool,
    in_flight: u64,
    /// Calls it is to make and has not.
    due: u64,
    /// Calls it has made by plan.
    paced: u64,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Settling,
    Calling,
    Draining,
    Closing,
}

/// The state that the callbacks work on.
struct Calls {
    stage: Stage,
    peers: Vec<Peer>,
    /// Peers that the stage waits for.
    waiting: usize,
    payload: Vec<u8>,
    in_flight_max: u64,
    pace: Option<Pace>,
    started: Instant,
    /// The clock as it was read last, in which turn and for which peer: answers of one peer in one
    /// turn came with one read.
    clock: (u64, u32, u64),
    turn: u64,
    /// Whether anything has happened since it was asked.
    has_moved: bool,
    tally: Tally,
}

/// The whole load.
pub(super) struct Load<'a> {
    options: &'a LoadOptions,
    reactor: Reactor<Calls>,
    calls: Calls,
}

impl<'a> Load<'a> {
    pub(super) fn new(options: &'a LoadOptions) -> Result<Load<'a>> {
        let mut config = Config::default();
        config.spin_us = options.spin_us;
        Ok(Load {
            options,
            reactor: Reactor::with_config(config).context("making the loop")?,
            calls: Calls {
                stage: Stage::Settling,
                peers: Vec::new(),
                waiting: 0,
                payload: vec![0xa5; index(options.payload)],
                in_flight_max: u64::from(options.in_flight.min(options.window)),
                pace: None,
                started: Instant::now(),
                clock: (0, 0, 0),
                turn: 0,
                has_moved: false,
                tally: Tally::new()?,
            },
        })
    }

    /// Makes a client, which connects in the turns that come.
    fn connect(&mut self) -> Result<()> {
        let number = u32::try_from(self.calls.peers.len()).context("the number of a client")?;
        let mut limits = Limits::default();
        limits.ack_delay = ACK_DELAY;
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, self.options.port));
        let client = Client::builder()
            .limits(limits)
            .window(self.options.window)
            .on_state(move |state, cx: &mut Cx<'_, Calls>| cx.state.on_state(number, state))
            .connect(self.reactor.registry(), server)
            .context("making a client")?;
        self.calls.peers.push(Peer {
            client,
            is_connected: false,
            is_awaited: true,
            in_flight: 0,
            due: 0,
            paced: 0,
        });
        self.calls.waiting += 1;
        Ok(())
    }

    fn turn(&mut self, timeout: Duration) -> Result<()> {
        self.calls.turn += 1;
        self.reactor.turn(&mut self.calls, Some(timeout)).context("turning the loop")?;
        Ok(())
    }

    fn turn_for(&mut self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.turn(left)?;
        }
    }

    fn wait_for_all(&mut self, wait_max: Duration, why: &str) -> Result<()> {
        let mut watch = Watch::begin();
        while self.calls.waiting > 0 {
            self.turn(Watch::TELL_INTERVAL)?;
            if std::mem::take(&mut self.calls.has_moved) {
                watch.on_progress();
            } else if watch.is_stalled(wait_max) {
                self.calls.give_up(why);
            }
        }
        Ok(())
    }

    fn call_due(&mut self) -> Option<u64> {
        for _ in 0..DUE_PER_LOOK_MAX {
            let now = self.calls.now();
            let pace = self.calls.pace.as_mut()?;
            let due_at = pace.next_at();
            let Some(number) = pace.next_due(now) else { break };
            let number = u32::try_from(number).expect("the number of a client");
            let in_flight_max = self.calls.in_flight_max;
            let peer = self.calls.peer(number);
            peer.due += 1;
            // A call that waits for room is not late for the load's sake.
            if peer.in_flight < in_flight_max {
                self.calls.tally.record_lag(now - due_at);
            }
            self.calls.pump(self.reactor.registry(), number, now);
        }
        Some(self.calls.pace.as_ref()?.next_at())
    }
}

impl Calls {
    fn peer(&mut self, number: u32) -> &mut Peer {
        &mut self.peers[number as usize]
    }

    fn on_state(&mut self, number: u32, state: &State) {
        self.has_moved = true;
        match state {
            State::Connected { .. } => {
                self.peer(number).is_connected = true;
                self.arrive(number);
            }
            State::Disconnected { why, .. } if self.stage != Stage::Closing => {
                self.peer(number).is_connected = false;
                self.tally.fail(|| format!("client {number}: {why}"));
            }
            _ => {}
        }
    }

    fn arrive(&mut self, number: u32) {
        if std::mem::take(&mut self.peer(number).is_awaited) {
            self.waiting -= 1;
        }
    }

    fn await_one(&mut self, number: u32) {
        self.peer(number).is_awaited = true;
        self.waiting += 1;
    }

    fn give_up(&mut self, why: &str) {
        for number in 0..self.numbers() {
            if self.peer(number).is_awaited {
                self.arrive(number);
                self.tally.fail(|| format!("client {number}: {why}"));
            }
        }
    }

    fn numbers(&self) -> u32 {
        u32::try_from(self.peers.len()).expect("a number of connections")
    }

    /// Makes as many of the due calls of a client as may be in flight.
    fn pump(&mut self, registry: &mut Registry<Calls>, number: u32, now: u64) {
        let in_flight_max = self.in_flight_max;
        let peer = &mut self.peers[number as usize];
        while peer.due > 0 && peer.in_flight < in_flight_max {
            peer.due -= 1;
            peer.in_flight += 1;
            let sent_at = match &self.pace {
                None => now,
                Some(pace) => {
                    peer.paced += 1;
                    pace.due_at(u64::from(number), peer.paced - 1)
                }
            };
            let arguments = (Bin(&self.payload),);
            peer.client.call(registry, any_server::echo, arguments, move |reply, cx| {
                let Cx { state, registry } = cx;
                state.on_answer(registry, number, sent_at, &reply);
            });
        }
    }

    fn on_answer(
        &mut self,
        registry: &mut Registry<Calls>,
        number: u32,
        sent_at: u64,
        reply: &Result<Raw<'_>, CallError<ApplicationError>>,
    ) {
        let now = self.now_of(number);
        self.has_moved = true;
        match reply {
            Ok(reply) if echoed(*reply) == Some(self.payload.len()) => {
                self.tally.record(now.saturating_sub(sent_at), 1);
            }
            Ok(_) => self.tally.fail(|| format!("client {number}: not what it sent")),
            Err(error) if self.stage != Stage::Closing => {
                self.tally.fail(|| format!("client {number}: {error}"));
            }
            Err(_) => {}
        }
        let is_open_loop = self.pace.is_some();
        let peer = &mut self.peers[number as usize];
        peer.in_flight -= 1;
        let is_idle = peer.in_flight == 0;
        match self.stage {
            Stage::Calling => {
                peer.due += u64::from(!is_open_loop);
                self.pump(registry, number, now);
            }
            Stage::Settling | Stage::Draining if is_idle => self.arrive(number),
            _ => {}
        }
    }

    /// Reads the clock, but once for all answers of a client in a turn.
    #[inline]
    fn now_of(&mut self, number: u32) -> u64 {
        let (turn, of, now) = self.clock;
        if (turn, of) == (self.turn, number) {
            return now;
        }
        let now = self.now();
        self.clock = (self.turn, number, now);
        now
    }

    /// Nanoseconds since the start, and never 0.
    #[inline]
    fn now(&self) -> u64 {
        nanoseconds(self.started.elapsed()) + 1
    }
}

/// Returns how many bytes came back.
#[inline]
fn echoed(reply: Raw<'_>) -> Option<usize> {
    let payload = match reply.as_bytes() {
        arguments @ [ARRAY_OF_ONE, ..] => <(Bin<'_>,)>::decode_args(arguments).ok()?.0,
        _ => reply.read::<Bin<'_>>().ok()?,
    };
    Some(payload.len())
}

impl Generator for Load<'_> {
    fn open(&mut self, until: u32) -> Result<()> {
        let mut watch = Watch::begin();
        while self.calls.numbers() < until || self.calls.waiting > 0 {
            while self.calls.numbers() < until && self.calls.waiting < CONNECTING_MAX {
                self.connect()?;
            }
            self.turn(Watch::TELL_INTERVAL)?;
            if std::mem::take(&mut self.calls.has_moved) {
                watch.on_progress();
            } else if watch.is_stalled(STALL_MAX) {
                self.calls.give_up("the handshake did not end");
            }
            watch.tell(self.calls.peers.len() - self.calls.waiting);
        }
        Ok(())
    }

    fn settle(&mut self, from: u32, until: u32) -> Result<()> {
        for number in from..until {
            if self.calls.peer(number).is_connected {
                self.calls.await_one(number);
                self.calls.peer(number).due = 1;
                let now = self.calls.now();
                self.calls.pump(self.reactor.registry(), number, now);
            }
        }
        self.wait_for_all(STALL_MAX, "the first call was not answered")?;
        self.turn_for(ACK_WAIT)
    }

    fn begin_calls(&mut self) {
        self.calls.stage = Stage::Calling;
        let now = self.calls.now();
        self.calls.pace = Pace::new(self.options.rate, self.options.connections, now);
        if self.calls.pace.is_some() {
            return;
        }
        for number in 0..self.options.connections {
            self.calls.peer(number).due = self.calls.in_flight_max;
            let now = self.calls.now();
            self.calls.pump(self.reactor.registry(), number, now);
        }
    }

    fn call_until(&mut self, end_ns: u64) -> Result<()> {
        loop {
            let now = self.calls.now();
            if now >= end_ns {
                return Ok(());
            }
            let wake_at = super::wake_at(self.call_due(), self.options, now, end_ns);
            self.turn(Duration::from_nanos(wake_at.saturating_sub(self.calls.now())))?;
        }
    }

    fn drain(&mut self) -> Result<()> {
        self.calls.stage = Stage::Draining;
        for number in 0..self.calls.numbers() {
            self.calls.peer(number).due = 0;
            if self.calls.peer(number).in_flight > 0 {
                self.calls.await_one(number);
            }
        }
        self.wait_for_all(DRAIN_MAX, "its last calls were not answered")
    }

    fn close(&mut self) -> Result<()> {
        self.calls.stage = Stage::Closing;
        for number in 0..self.calls.numbers() {
            self.calls.peer(number).client.close(self.reactor.registry());
        }
        self.turn_for(CLOSE_WAIT)
    }

    fn now(&self) -> u64 {
        self.calls.now()
    }

    fn granted(&self) -> (u32, u32) {
        (self.options.window, self.options.in_flight.min(self.options.window))
    }

    fn tally(&mut self) -> impl DerefMut<Target = Tally> {
        &mut self.calls.tally
    }
}
