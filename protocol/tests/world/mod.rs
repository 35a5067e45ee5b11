//! One client, one server, and the pipes between them, all from one seed.

mod server;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use onceloop_protocol::frame::{Frame, Header, LENGTH_BYTES, MAGIC, MethodId};
use onceloop_protocol::handshake::Order;
use onceloop_protocol::limits::Limits;
use onceloop_protocol::session::{
    Answer, CallKey, CallSpec, JournalDisk, ModelledJournal, RecoveredCall, Semantics, Session,
    State,
};

use server::Server;

/// What may go wrong.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// Connections break.
    pub(crate) cuts: bool,
    /// The server forgets its table.
    pub(crate) restarts: bool,
    /// The session is in order.
    pub(crate) in_order: bool,
    /// Exactly-once calls are hedged.
    pub(crate) hedges: bool,
    /// The client has a journal, crashes, and comes back.
    pub(crate) crashes: bool,
    /// Nothing is refused, cancelled or late.
    pub(crate) quiet: bool,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) replies: u64,
    pub(crate) not_executed: u64,
    pub(crate) indeterminate: u64,
    pub(crate) resends: u64,
    pub(crate) cuts: u64,
    pub(crate) restarts: u64,
    pub(crate) stale_frames: u64,
    pub(crate) hedges: u64,
    pub(crate) crashes: u64,
    pub(crate) recovered: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.replies += other.replies;
        self.not_executed += other.not_executed;
        self.indeterminate += other.indeterminate;
        self.resends += other.resends;
        self.cuts += other.cuts;
        self.restarts += other.restarts;
        self.stale_frames += other.stale_frames;
        self.hedges += other.hedges;
        self.crashes += other.crashes;
        self.recovered += other.recovered;
    }
}

/// Random numbers from a seed: xorshift64*.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    /// Returns true once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A connection: the bytes on their way, in both directions.
pub(crate) struct Pipe {
    pub(crate) id: u64,
    pub(crate) to_server: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
    /// Bytes the client has received and not cut yet.
    received: Vec<u8>,
}

/// What a call was and what became of it.
struct Record {
    semantics: Semantics,
    answers: Vec<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Indeterminate,
    NotExecuted,
    Ran,
}

/// The whole of it.
pub(crate) struct World {
    dice: Dice,
    faults: Faults,
    now: Instant,
    session: Session<u32>,
    limits: Limits,
    disk: JournalDisk,
    server: Server,
    pipe: Option<Pipe>,
    /// The second connection.
    second: Option<Pipe>,
    /// Connections the client has given up and the server has not noticed.
    ghosts: Vec<Pipe>,
    next_connection: u64,
    calls: BTreeMap<u32, Record>,
    open: Vec<CallKey>,
    pub(crate) tally: Tally,
}

const CALLS: u32 = 30;
/// Long after the last fault: every deadline, back-off and lease has passed.
const STEPS_MAX: u32 = 20_000;

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> World {
        let mut dice = Dice::new(seed);
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.window = 1 << dice.below(5);
        limits.retransmit_timeout = Duration::from_millis(200);
        limits.ack_delay = Duration::from_millis(50);
        limits.backoff_max = Duration::from_millis(300);
        limits.hole_age_max = Duration::from_secs(1_000);
        let order = if faults.in_order { Order::InOrder } else { Order::Unordered };
        let disk = JournalDisk::new(seed);
        disk.set_delays(Duration::ZERO..Duration::from_millis(dice.below(30)));
        let mut world = World {
            session: Session::new(limits.clone(), order, None, seed, now),
            server: Server::new(limits.clone(), faults.clone()),
            limits,
            disk,
            dice,
            faults,
            now,
            pipe: None,
            second: None,
            ghosts: Vec::new(),
            next_connection: 1,
            calls: BTreeMap::new(),
            open: Vec::new(),
            tally: Tally::default(),
        };
        if world.faults.crashes {
            world.boot();
        }
        world
    }

    /// Begins an incarnation of a client with a journal.
    fn boot(&mut self) {
        let seed = self.dice.below(u64::MAX);
        let session = Session::new(self.limits.clone(), self.order(), None, seed, self.now);
        let journal = Box::new(ModelledJournal::new(&self.disk));
        let recovered = &mut self.tally.recovered;
        let attach = |call: RecoveredCall| {
            *recovered += 1;
            u32::try_from(call.tag).unwrap()
        };
        self.session = session.with_journal(journal, attach, self.now).expect("it is free");
    }

    /// Ends the incarnation: what it had on its way may still arrive.
    fn crash(&mut self) {
        self.tally.crashes += 1;
        self.count();
        self.cut();
        self.cut_second();
        self.open.clear();
        self.disk.crash();
        self.boot();
    }

    fn order(&self) -> Order {
        if self.faults.in_order { Order::InOrder } else { Order::Unordered }
    }

    /// Takes over what this session has counted.
    fn count(&mut self) {
        self.tally.resends += self.session.counters().resends;
        self.tally.hedges += self.session.counters().hedges;
    }

    /// Runs until nothing is left to happen.
    pub(crate) fn run(&mut self) {
        for step in 0.. {
            assert!(step < STEPS_MAX, "it does not come to an end: {:?}", self.session);
            let is_quiet = self.calls.len() >= CALLS as usize && step > 200;
            if !is_quiet {
                self.make_trouble();
            } else if self.session.is_empty() {
                break;
            }
            self.now += Duration::from_micros(self.dice.below(20_000));
            self.turn_client();
            self.deliver(is_quiet);
            self.turn_server();
            self.server.table.check_invariants();
        }
        self.count();
    }

    /// Compares what the callers were told with what ran.
    pub(crate) fn check(&self) {
        for (id, record) in &self.calls {
            let effects = self.server.effects.get(id).copied().unwrap_or(0);
            let is_protected = record.semantics != Semantics::AtLeastOnce;
            if self.faults.crashes {
                // An answer that was not consumed comes again; a call that was not safe in the journal
                // was not sent, and nobody hears of it.
                assert!(
                    !is_protected || effects == 0 || !record.answers.is_empty(),
                    "{id} is lost"
                );
            } else {
                assert_eq!(record.answers.len(), 1, "call {id} was answered {:?}", record.answers);
            }
            assert!(!is_protected || effects <= 1, "call {id} ran {effects} times");
            for outcome in &record.answers {
                match outcome {
                    Outcome::Ran => assert!(effects >= 1, "call {id} was answered and did not run"),
                    Outcome::NotExecuted => assert_eq!(effects, 0, "call {id} ran all the same"),
                    Outcome::Indeterminate => {}
                }
            }
        }
    }

    fn make_trouble(&mut self) {
        if self.calls.len() < CALLS as usize && self.dice.once_in(3) {
            self.call();
        }
        if !self.faults.quiet && self.dice.once_in(60) && !self.open.is_empty() {
            let index = self.dice.below(self.open.len() as u64);
            let key = self.open.swap_remove(usize::try_from(index).unwrap());
            self.session.cancel(key);
        }
        if self.faults.cuts && self.dice.once_in(40) {
            self.cut();
        }
        if self.faults.crashes && self.dice.once_in(80) {
            self.crash();
        }
        if self.faults.cuts && self.dice.once_in(40) {
            self.cut_second();
        }
        if self.faults.restarts && self.dice.once_in(300) {
            self.tally.restarts += 1;
            self.cut();
            self.cut_second();
            self.ghosts.clear();
            self.server.restart();
        }
    }

    fn call(&mut self) {
        let id = u32::try_from(self.calls.len()).unwrap();
        let semantics =
            match self.dice.below(if self.faults.in_order || self.faults.quiet { 8 } else { 10 }) {
                0..=5 => Semantics::ExactlyOnce,
                6..=7 => Semantics::AtMostOnce,
                _ => Semantics::AtLeastOnce,
            };
        let left = if self.faults.quiet { 60_000 } else { 20 + self.dice.below(4_000) };
        let deadline = Some(self.now + Duration::from_millis(left));
        let spec = CallSpec {
            semantics,
            idempotent: true,
            deadline,
            ..CallSpec::new(MethodId::of("world.run"))
        };
        let delay = Duration::from_millis(self.dice.below(100));
        let hedge_after = self.faults.hedges.then_some(delay);
        let spec = CallSpec { hedge_after, tag: id.into(), ..spec };
        self.calls.insert(id, Record { semantics, answers: Vec::new() });
        let key = self.session.call(spec, id, |out| {
            out.extend_from_slice(&id.to_le_bytes());
            Ok::<(), Infallible>(())
        });
        self.open.push(key.expect("there is room"));
    }

    /// Loses the connection at the client; the server may notice later, and may still be given
    /// some of what was on its way.
    fn cut(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        self.tally.cuts += 1;
        self.haunt(pipe);
        self.session.on_disconnected("cut", self.now);
    }

    /// The same for the second connection.
    fn cut_second(&mut self) {
        let Some(pipe) = self.second.take() else { return };
        self.haunt(pipe);
        self.session.on_hedge_disconnected("cut", self.now);
    }

    /// Keeps a connection that only the server still believes in.
    fn haunt(&mut self, mut pipe: Pipe) {
        let arrives = self.dice.below(pipe.to_server.len() as u64 + 1);
        pipe.to_server.truncate(usize::try_from(arrives).unwrap());
        self.ghosts.push(pipe);
    }

    fn new_pipe(&mut self) -> Pipe {
        let id = self.next_connection;
        self.next_connection += 1;
        Pipe { id, to_server: Vec::new(), to_client: Vec::new(), received: Vec::new() }
    }

    fn turn_client(&mut self) {
        // Whatever was handed out a turn ago, the program has dealt with by now.
        self.session.on_consumed();
        self.session.drive_journal(self.now);
        if self.session.connect_at().is_some_and(|at| at <= self.now) {
            let mut pipe = self.new_pipe();
            self.session.on_connected(self.now, &mut pipe.to_server);
            self.pipe = Some(pipe);
        }
        let mut dead = self.session.on_deadline(self.now).is_err();
        if let Some(mut pipe) = self.pipe.take() {
            dead |= self.read(&mut pipe, true).is_err();
            self.session.transmit(self.now, &mut pipe.to_server);
            self.pipe = Some(pipe);
        }
        if dead {
            self.cut();
        }
        self.turn_second();
        while let Some((id, answer)) = self.session.next_ended() {
            self.answered(id, &answer);
        }
        // What was just said must not be needed to know what is next.
        if let (State::Ready, Some(deadline)) = (self.session.state(), self.session.next_deadline())
        {
            let _ = self.session.on_deadline(deadline.min(self.now));
        }
    }

    /// Opens, feeds, reads or leaves the second connection.
    fn turn_second(&mut self) {
        if self.second.is_none() && self.session.wants_hedge() {
            let mut pipe = self.new_pipe();
            self.session.on_hedge_connected(self.now, &mut pipe.to_server);
            self.second = Some(pipe);
        }
        let Some(mut pipe) = self.second.take() else { return };
        if !self.session.has_hedge() {
            return self.haunt(pipe);
        }
        let is_dead = self.read(&mut pipe, false).is_err();
        self.session.transmit_hedge(self.now, &mut pipe.to_server);
        self.second = Some(pipe);
        if is_dead {
            self.cut_second();
        }
    }

    fn read(&mut self, pipe: &mut Pipe, is_first: bool) -> Result<(), ()> {
        let received = std::mem::take(&mut pipe.received);
        let mut rest = &received[..];
        while let Some(frame) = cut_frame(&mut rest) {
            let out = &mut pipe.to_server;
            let result = if is_first {
                self.session.on_frame(&frame, self.now, out)
            } else {
                self.session.on_hedge_frame(&frame, self.now, out)
            };
            if let Some((id, answer)) = result.map_err(drop)? {
                self.answered(id, &answer);
            }
        }
        pipe.received = rest.to_vec();
        Ok(())
    }

    fn answered(&mut self, id: u32, answer: &Answer<'_>) {
        let (outcome, count) = match answer {
            Answer::Reply(body) => {
                assert_eq!(*body, id.to_le_bytes(), "somebody else's reply");
                (Outcome::Ran, &mut self.tally.replies)
            }
            Answer::Application(details) => {
                assert_eq!(**details, id.to_le_bytes(), "somebody else's error");
                (Outcome::Ran, &mut self.tally.replies)
            }
            Answer::Executed(_) => (Outcome::Ran, &mut self.tally.replies),
            Answer::NotExecuted(_) => (Outcome::NotExecuted, &mut self.tally.not_executed),
            Answer::Indeterminate(_) => (Outcome::Indeterminate, &mut self.tally.indeterminate),
        };
        *count += 1;
        self.calls.get_mut(&id).expect("a call that was made").answers.push(outcome);
    }

    /// Moves bytes along, any number of them.
    fn deliver(&mut self, is_quiet: bool) {
        for pipe in [&mut self.pipe, &mut self.second].into_iter().flatten() {
            let some = |dice: &mut Dice, bytes: &Vec<u8>| {
                let all = bytes.len() as u64;
                let part = if is_quiet { all } else { dice.below(all + 1) };
                usize::try_from(part).unwrap()
            };
            let bytes = some(&mut self.dice, &pipe.to_client);
            pipe.received.extend(pipe.to_client.drain(..bytes));
            let bytes = some(&mut self.dice, &pipe.to_server);
            let bytes: Vec<u8> = pipe.to_server.drain(..bytes).collect();
            self.server.receive(pipe.id, &bytes);
        }
    }

    fn turn_server(&mut self) {
        // A connection that is lost is noticed late; its last bytes may come after a RESUME.
        if !self.ghosts.is_empty() && self.dice.once_in(25) {
            let ghost = self.ghosts.remove(0);
            let before = self.server.stale_frames;
            self.server.receive(ghost.id, &ghost.to_server);
            self.server.run(self.now, &mut self.dice, &mut [&mut self.pipe, &mut self.second]);
            self.tally.stale_frames += self.server.stale_frames - before;
            self.server.lost(ghost.id, self.now);
        }
        self.server.run(self.now, &mut self.dice, &mut [&mut self.pipe, &mut self.second]);
    }
}

/// Takes one whole frame off the front of `bytes`, after the magic.
pub(crate) fn cut_frame<'a>(bytes: &mut &'a [u8]) -> Option<Frame<'a>> {
    if let Some(rest) = bytes.strip_prefix(&MAGIC) {
        *bytes = rest;
    }
    let length: [u8; LENGTH_BYTES] = *bytes.first_chunk()?;
    let length = u32::from_be_bytes(length) as usize + LENGTH_BYTES;
    let (frame, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let header = Header::read(frame).expect("both ends write whole headers");
    Some(Frame { header, body: &frame[header.kind.header_bytes()..] })
}
