//! The table of xids against a model of maps: seeded runs of random operations.
//!
//! The model knows nothing of rings, arenas or deadlines. For every xid it knows with which bytes it
//! ran, whether it has ended and with what answer; for every session its floor and who is attached.
//! After each operation the table's own invariants are checked, too.

mod model;
#[path = "table_model/sessions.rs"]
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use model::{Copy, Dice, Expected, Found, Known, Tally, Xid};
use onceloop_protocol::error::{Class, Code};
use onceloop_protocol::frame::{Flags, Frame, Header, Kind, MethodId, NO_DEADLINE_MS};
use onceloop_protocol::handshake::{CellReport, Hello, Order, Resume, Resumed, Sid};
use onceloop_protocol::limits::Limits;
use onceloop_protocol::table::{
    Admission, Answer, CallKey, Cancelled, Delivery, Principal, Refusal, Request, SessionKey, Table,
};

/// Runs of [`STEPS`] operations each.
const SEEDS: u64 = 600;
const STEPS: usize = 300;
/// Calls a session may have unacknowledged: small, so that the ring goes round often.
const WINDOW: u32 = 8;
/// Small enough for answers that are not retained and for calls refused because of kept answers.
const KEPT_BYTES_MAX: usize = 400;
const RESERVED_BYTES: usize = 40;
const IN_FLIGHT_MAX: usize = 20;
const SESSIONS: usize = 3;
/// A connection that no session ever has.
const NOBODY: u64 = u64::MAX - 1;
const METHOD: MethodId = MethodId::of("model.call");

#[test]
fn the_table_does_what_the_model_does() {
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        let _named = Named(seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
            world.table.check_invariants();
        }
        world.end();
        tally.add(&world.tally);
    }
    tally.check();
}

/// Names the seed of the run that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

/// A handler that runs.
struct Running {
    call: CallKey,
    /// Which session and seq; `None` if it is unprotected or its session has ended.
    xid: Option<(usize, u64)>,
    connection: u64,
}

struct World {
    table: Table,
    dice: Dice,
    now: Instant,
    next_connection: u64,
    sessions: Vec<Known>,
    /// Connections that were replaced or lost; what they sent may still come.
    old: Vec<(usize, u64)>,
    /// Sessions that have ended.
    gone: Vec<(SessionKey, Sid)>,
    running: Vec<Running>,
    /// Calls that have ended: no end of theirs may be told twice.
    ended: Vec<CallKey>,
    tally: Tally,
}

impl World {
    fn new(seed: u64) -> World {
        let mut limits = Limits::default();
        limits.window = WINDOW;
        limits.in_flight_per_session_max = WINDOW;
        limits.in_flight_max = IN_FLIGHT_MAX;
        limits.kept_reply_bytes_per_session_max = KEPT_BYTES_MAX;
        limits.reply_reservation_bytes = RESERVED_BYTES;
        let mut world = World {
            table: Table::new(limits, [3; 16]),
            dice: Dice(seed),
            now: Instant::now(),
            next_connection: 0,
            sessions: Vec::new(),
            old: Vec::new(),
            gone: Vec::new(),
            running: Vec::new(),
            ended: Vec::new(),
            tally: Tally::default(),
        };
        for i in 0..SESSIONS {
            world.open(i);
        }
        world
    }

    fn step(&mut self) {
        let i = self.dice.below(SESSIONS);
        if self.sessions[i].connections.is_empty() && self.dice.below(3) == 0 {
            return self.resume(i);
        }
        match self.dice.below(100) {
            0..45 => self.send(i),
            45..70 => self.end_one(),
            70..78 => self.acknowledge(i),
            78..82 => self.cancel(i),
            82..85 => self.lose(i),
            85..91 => self.resume(i),
            91..92 => self.bye(i),
            92..96 => self.send_late(),
            96..98 => self.knock_in_vain(),
            _ => self.pass(),
        }
    }

    fn connection(&mut self) -> u64 {
        self.next_connection += 1;
        self.next_connection
    }

    /// Opens session `i` anew.
    fn open(&mut self, i: usize) {
        let connection = self.connection();
        let is_in_order = self.dice.below(2) == 0;
        let order = if is_in_order { Order::InOrder } else { Order::Unordered };
        let hello = Hello { version: 1, features: 0, window: 0, order, token: None };
        let secret = u128::from(self.dice.number()) << 64 | u128::from(self.dice.number());
        let opened = self.table.open(&hello, secret, connection, Principal::ANYONE, self.now);
        let (key, welcome) = opened.expect("there is room");
        let welcome = welcome.expect("nothing is to be waited for");
        assert_eq!(welcome.window, WINDOW);
        let session = Known {
            key,
            sid: welcome.sid,
            is_in_order,
            connections: vec![connection],
            incarnation: 0,
            attachment: 0,
            floor: 0,
            ran: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        if i == self.sessions.len() {
            self.sessions.push(session);
        } else {
            self.sessions[i] = session;
        }
    }

    /// A copy with a seq near the window, mostly with the bytes that this seq has always had.
    fn copy(&mut self, i: usize) -> Copy {
        let session = &self.sessions[i];
        let floor = session.floor;
        let attached = session.connections.len().max(1);
        let which = self.dice.below(attached);
        let connection = session.connections.get(which).copied().unwrap_or(NOBODY);
        let dice = &mut self.dice;
        let span = if dice.below(4) == 0 { WINDOW as usize + 4 } else { 6 };
        let seq = (floor + dice.below(span) as u64).saturating_sub(u64::from(span > 6));
        // A client acknowledges what it has consumed: here, what ran, and rarely anything.
        let has_ended = |seq| session.ran.get(&seq).is_some_and(|xid| xid.has_ended);
        let mut ack = if dice.below(4) == 0 { floor } else { 0 };
        if dice.below(3) == 0 && has_ended(floor + 1) {
            ack = floor + 1;
        }
        if dice.below(20) == 0 {
            ack = floor + dice.below(3 * WINDOW as usize) as u64;
        }
        let usual = u8::try_from(seq % 128).expect("below 128");
        Copy {
            seq,
            ack,
            body: if dice.below(12) == 0 { usual ^ 0x80 } else { usual },
            connection,
            time_left_ms: if dice.below(20) == 0 { 0 } else { NO_DEADLINE_MS },
            is_unprotected: dice.below(15) == 0,
            is_idempotent: dice.below(2) == 0,
            refusal: (dice.below(20) == 0).then_some(Code::NoMethod),
        }
    }

    fn send(&mut self, i: usize) {
        let copy = self.copy(i);
        self.admit(i, copy, false);
        self.take_turns(i);
    }

    /// Sends a copy, and compares what comes of it with what the model says.
    fn admit(&mut self, i: usize, copy: Copy, is_in_turn: bool) {
        let body = [copy.body];
        let header = Header {
            kind: Kind::Request,
            flags: if copy.is_unprotected { Flags::UNPROTECTED } else { Flags::NONE },
            seq: copy.seq,
            ack: copy.ack,
            method: METHOD,
            time_left_ms: copy.time_left_ms,
        };
        let request = Request {
            frame: &Frame { header, body: &body },
            connection: copy.connection,
            digest: self.table.digest(METHOD, &body),
            is_idempotent: copy.is_idempotent,
            is_transactional: false,
            refusal: copy.refusal,
        };
        let expected = self.sessions[i].expect(&copy, &mut self.tally);
        let key = self.sessions[i].key;
        let found = match self.table.admit(key, &request, self.now) {
            Admission::Again(answer) => Found::Again(answer.to_vec()),
            Admission::Close(refusal) | Admission::Refuse(refusal) => Found::Refused(refusal.code),
            Admission::Run(call) => Found::Run(call),
            Admission::Wait => Found::Wait,
        };
        self.compare(i, &copy, expected, found, is_in_turn);
    }

    fn compare(&mut self, i: usize, copy: &Copy, expected: Expected, found: Found, in_turn: bool) {
        let session = &mut self.sessions[i];
        let tally = &mut self.tally;
        match (expected, found) {
            (Expected::RunOrBusy, Found::Run(call)) => {
                tally.effects += 1;
                tally.ran_in_turn += u32::from(in_turn);
                let mut xid = None;
                if !copy.is_unprotected {
                    xid = Some((i, copy.seq));
                    let first = Xid { body: copy.body, call, has_ended: false, answer: None };
                    let before = session.ran.insert(copy.seq, first);
                    assert!(before.is_none(), "seq {} ran twice", copy.seq);
                }
                self.running.push(Running { call, xid, connection: copy.connection });
            }
            (Expected::HoldOrBusy, Found::Wait) => {
                assert!(!in_turn, "a turn that has come is not put off");
                session.held.insert(copy.seq, (copy.body, copy.connection, None));
            }
            (Expected::Wait, Found::Wait) => {
                tally.waits += 1;
                if let Some((_, came_by, joined)) = session.held.get_mut(&copy.seq)
                    && *came_by != copy.connection
                {
                    *joined = Some(copy.connection);
                }
            }
            (Expected::Again(answer), Found::Again(bytes)) => {
                assert_eq!(bytes, answer, "the answer of seq {} is its own", copy.seq);
                assert_eq!(bytes[0], copy.body, "and comes from its bytes");
                tally.replays += 1;
            }
            (
                Expected::RunOrBusy | Expected::HoldOrBusy | Expected::OrBusy(_),
                Found::Refused(Code::Busy),
            ) => {
                assert!(
                    self.table.in_flight() > 0 || self.table.kept().1 > 0,
                    "what is it busy with?"
                );
                *tally.by_code.entry(Code::Busy.name()).or_default() += 1;
            }
            (Expected::Refused(code) | Expected::OrBusy(code), Found::Refused(found)) => {
                assert_eq!(found, code, "seq {}", copy.seq);
                *tally.by_code.entry(code.name()).or_default() += 1;
                tally.fenced += u32::from(code == Code::Fenced);
            }
            (expected, found) => panic!("seq {}: {found:?}, not {expected:?}", copy.seq),
        }
    }

    /// Ends one of the handlers that run, in any order.
    fn end_one(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let which = self.dice.below(self.running.len());
        let Running { call, xid, connection } = self.running.swap_remove(which);
        self.ended.push(call);
        let length = 1 + self.dice.below(3 * RESERVED_BYTES);
        let Some((i, seq)) = xid else {
            let delivery = self.table.complete(call, Answer::Copied(&[0; 9]), self.now);
            assert!(delivery.connections().all(|to| to == connection));
            return self.take_turns_of_all();
        };
        let session = &mut self.sessions[i];
        let is_abandoned = seq <= session.floor;
        let xid = session.ran.get_mut(&seq).expect("it ran");
        assert_eq!(xid.call, call);
        xid.has_ended = true;
        let mut answer = vec![xid.body; length];
        answer[length / 2] = 0xee;
        answer[0] = xid.body;
        let kept_before = self.table.kept();
        let delivery = self.table.complete(call, Answer::Copied(&answer), self.now);
        if is_abandoned {
            assert_eq!((delivery.connections().count(), self.table.kept()), (0, kept_before));
        } else {
            assert_eq!(delivery.connections().collect::<Vec<_>>(), session.connections);
            self.tally.answered_twice += u32::from(session.connections.len() == 2);
            let is_kept = self.table.kept().0 > kept_before.0;
            assert!(is_kept || length > RESERVED_BYTES, "what is reserved is kept");
            xid.answer = is_kept.then_some(answer);
        }
        assert_eq!(delivery.unblocks, session.is_in_order.then_some(session.key));
        self.take_turns(i);
    }

    fn take_turns_of_all(&mut self) {
        for i in 0..SESSIONS {
            self.take_turns(i);
        }
    }

    /// Runs the held requests whose turn has come, as a server does after every event.
    fn take_turns(&mut self, i: usize) {
        while let Some(held) = self.table.next_held(self.sessions[i].key, self.now) {
            let Frame { header, body } = held.frame();
            let session = &mut self.sessions[i];
            let (lowest, (its_body, came_by, joined)) =
                session.held.pop_first().expect("it was held");
            assert_eq!((lowest, its_body), (header.seq, body[0]), "the lowest, with its own bytes");
            let is_there = session.connections.contains(&came_by);
            let mut joined = joined.filter(|joined| session.connections.contains(joined));
            let by = match is_there {
                true => came_by,
                false => joined.take().unwrap_or(session.connections[0]),
            };
            assert_eq!((held.connection(), held.joined()), (by, joined), "seq {lowest}");
            assert!(!session.is_blocked(header.seq));
            let refusal = (self.dice.below(20) == 0).then_some(Code::NoMethod);
            let copy = Copy {
                seq: header.seq,
                ack: header.ack,
                body: body[0],
                connection: held.connection(),
                time_left_ms: header.time_left_ms,
                is_unprotected: false,
                is_idempotent: false,
                refusal,
            };
            self.admit(i, copy, true);
        }
        let session = &self.sessions[i];
        if !session.connections.is_empty()
            && let Some((&seq, _)) = session.held.first_key_value()
        {
            assert!(session.is_blocked(seq), "seq {seq} has its turn and was not given");
        }
    }

    fn acknowledge(&mut self, i: usize) {
        let session = &mut self.sessions[i];
        let far = if self.dice.below(8) == 0 { 1_000_000 } else { 4 };
        let ack = (session.floor + self.dice.below(far) as u64).saturating_sub(1);
        self.table.acknowledge(session.key, ack).expect("far below 2^63");
        session.raise_floor(ack, &mut self.tally);
        self.take_turns(i);
    }

    fn cancel(&mut self, i: usize) {
        let session = &mut self.sessions[i];
        if session.connections.is_empty() {
            return;
        }
        let seq = session.floor + self.dice.below(WINDOW as usize + 2) as u64;
        let found = self.table.cancel(session.key, seq);
        let running = session.ran.get(&seq).filter(|xid| !xid.has_ended && seq > session.floor);
        let held = session.held.remove(&seq);
        let is_held = held.is_some();
        match found {
            Cancelled::Held { connection, refusal: Refusal { code, .. } } => {
                assert!(held.is_some_and(|(_, came_by, _)| came_by == connection));
                assert!(code == Code::Cancelled && code.class() == Class::NotExecuted);
                *self.tally.by_code.entry(code.name()).or_default() += 1;
            }
            Cancelled::Running(call) => assert_eq!(Some(call), running.map(|xid| xid.call)),
            Cancelled::Nothing => assert!(!is_held && running.is_none(), "seq {seq}"),
        }
    }

    /// A request by a connection that was replaced or lost, or of a session that has ended; and the
    /// end of a call that has ended before.
    fn send_late(&mut self) {
        if !self.old.is_empty() {
            let (i, connection) = self.old[self.dice.below(self.old.len())];
            let copy = Copy { connection, ..self.copy(i) };
            self.admit(i, copy, false);
        }
        if !self.gone.is_empty() {
            let (key, _) = self.gone[self.dice.below(self.gone.len())];
            let header = Header::new(Kind::Request, 1);
            let frame = Frame { header, body: &[1] };
            let digest = self.table.digest(METHOD, &[1]);
            let request = Request {
                frame: &frame,
                connection: 1,
                digest,
                is_idempotent: true,
                is_transactional: false,
                refusal: None,
            };
            let found = self.table.admit(key, &request, self.now);
            let Admission::Refuse(refusal) = found else { panic!("{found:?}") };
            assert_eq!(refusal.code, Code::SessionUnknown);
        }
        if !self.ended.is_empty() {
            let call = self.ended[self.dice.below(self.ended.len())];
            let before = self.table.kept();
            let delivery = self.table.complete(call, Answer::Copied(b"twice"), self.now);
            assert_eq!(delivery, Delivery::NOBODY);
            assert_eq!(self.table.kept(), before);
        }
    }

    /// A RESUME that must fail: of a session that has ended, with a wrong secret, or an old one.
    fn knock_in_vain(&mut self) {
        let connection = self.connection();
        let session = &self.sessions[self.dice.below(SESSIONS)];
        let newest = (session.incarnation + 1, 0);
        let wrong = Sid { secret: session.sid.secret ^ 1 << self.dice.below(128), ..session.sid };
        let floor = session.floor;
        let mut attempts = vec![
            (resume(wrong, newest.0, newest.1, floor + 5), Code::SessionUnknown),
            (resume(session.sid, session.incarnation, session.attachment, floor), Code::Fenced),
        ];
        let stranger = resume(session.sid, newest.0, newest.1, floor + 5);
        let refusal = self.table.resume(&stranger, connection, Principal(7), self.now);
        assert_eq!(refusal.expect_err("another's").code, Code::SessionUnknown);
        if let Some(&(_, sid)) = self.gone.last() {
            attempts.push((resume(sid, u32::MAX, 1, 1), Code::SessionUnknown));
        }
        for (message, code) in attempts {
            let refusal = self.table.resume(&message, connection, Principal::ANYONE, self.now);
            let refusal = refusal.expect_err("not its session");
            assert_eq!(refusal.code, code);
            *self.tally.by_code.entry(code.name()).or_default() += 1;
        }
    }

    /// Time passes: leases end, and holes become too old.
    fn pass(&mut self) {
        let seconds = if self.dice.below(4) == 0 { 601 } else { self.dice.below(12) as u64 };
        self.now += Duration::from_secs(seconds);
        let mut refused = BTreeSet::new();
        let before = self.table.counters().expired;
        self.table.expire(self.now, |connection, seq, refusal| {
            assert_eq!(refusal.code, Code::Deadline);
            // What is held of a client that is away is given up, and nobody is there to be told.
            if let Some(connection) = connection {
                assert!(refused.insert((connection, seq)), "once");
            }
        });
        for session in &mut self.sessions {
            let is_refused = |table: &Table, seq| {
                let report = table.peek(session.key, seq);
                report == Some(CellReport::Vacant)
            };
            let count = session.held.len();
            let table = &self.table;
            session.held.retain(|&seq, &mut (_, came_by, joined)| {
                for connection in joined.into_iter().chain([came_by]) {
                    let is_told = refused.remove(&(connection, seq));
                    let is_gone = !session.connections.contains(&connection);
                    assert!(is_told || is_gone || !is_refused(table, seq));
                }
                !is_refused(table, seq)
            });
            assert!(session.held.is_empty() || session.held.len() == count, "all or none");
        }
        assert!(refused.is_empty(), "not held: {refused:?}");
        let expired = self.table.counters().expired - before;
        let mut forgotten = 0;
        for i in 0..SESSIONS {
            if self.has_expired(i) {
                forgotten += 1;
                self.forget(i);
            }
        }
        assert_eq!(forgotten, expired);
    }

    /// Whether the table has deleted session `i`, which it may only where nobody is attached and
    /// nothing runs.
    fn has_expired(&mut self, i: usize) -> bool {
        let session = &self.sessions[i];
        let runs = self.running.iter().any(|running| running.xid.is_some_and(|(of, _)| of == i));
        // A request by a connection that nobody knows tells whether there is a session to fence it.
        let frame = Frame { header: Header::new(Kind::Request, 1), body: &[] };
        let request = Request {
            frame: &frame,
            connection: NOBODY,
            digest: 0,
            is_idempotent: false,
            is_transactional: false,
            refusal: None,
        };
        let is_there = match self.table.admit(session.key, &request, self.now) {
            Admission::Close(refusal) => refusal.code == Code::Fenced,
            _ => false,
        };
        assert!(is_there || (session.connections.is_empty() && !runs));
        !is_there
    }

    /// Every handler ends and every client says goodbye: nothing may be left.
    fn end(&mut self) {
        while !self.running.is_empty() {
            self.end_one();
        }
        for i in 0..SESSIONS {
            self.table.close(self.sessions[i].key, self.now);
        }
        self.table.check_invariants();
        assert_eq!((self.table.sessions(), self.table.in_flight()), (0, 0));
        assert_eq!((self.table.kept(), self.table.next_deadline()), ((0, 0), None));
    }
}

fn resume(sid: Sid, incarnation: u32, attachment: u32, ack: u64) -> Resume {
    Resume { version: 1, features: 0, sid, incarnation, attachment, ack, join: false, token: None }
}
