//! A durable table that crashes, at random: seeded runs in which clients call, lose connections and
//! come back, commits become safe late, and the server dies with any prefix of them.
//!
//! What must hold whatever happens: no call has its effect twice; what was answered as done is done
//! after every crash; what RESUMED told of an ended call stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{Flags, Frame, Header, Kind, MethodId};
use onceloop_protocol::handshake::{CellReport, Hello, Order, Resume, Sid};
use onceloop_protocol::limits::Limits;
use onceloop_protocol::table::store::{Log, Store};
use onceloop_protocol::table::{
    Admission, Answer, CallKey, Principal, Refusal, Released, Request, SessionKey, Table,
};

const SEEDS: u64 = 800;
const STEPS: usize = 250;
const WINDOW: u32 = 4;
const METHOD: MethodId = MethodId::of("model.call");

/// A call by its session's secret and its seq.
type Xid = (u128, u64);

/// A client, as far as the test cares.
struct Client {
    secret: u128,
    sid: Option<Sid>,
    key: Option<SessionKey>,
    connections: BTreeSet<u64>,
    incarnation: u32,
    attachment: u32,
    next: u64,
    ack: u64,
}

struct Running {
    call: CallKey,
    xid: Option<Xid>,
    is_transactional: bool,
}

struct World {
    table: Option<Table<Log>>,
    limits: Limits,
    now: Instant,
    dice: u64,
    clients: Vec<Client>,
    running: Vec<Running>,
    next_connection: u64,
    next_secret: u128,
    /// Effects that no store keeps: what a plain handler did in the world.
    outside: BTreeMap<Xid, u32>,
    /// Calls whose success somebody was told, and of these the ones that are in the store.
    told: BTreeMap<Xid, bool>,
    tally: Tally,
}

/// How often what is to be tested has happened.
#[derive(Debug, Default)]
struct Tally {
    crashes: u32,
    lost_commits: usize,
    answered: u32,
    in_doubt: u32,
    replayed: u32,
    put_off: u32,
    ended: u32,
}

/// The seq decides what kind of a method a call is of: copies of it are alike.
fn is_transactional(seq: u64) -> bool {
    !seq.is_multiple_of(3)
}

fn key_of((secret, seq): Xid) -> Vec<u8> {
    [&secret.to_le_bytes()[..], &seq.to_le_bytes()].concat()
}

#[test]
fn a_durable_table_runs_no_call_twice_and_forgets_no_answer_whatever_crashes() {
    let mut sum = Tally::default();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let named = Named(seed);
        for _ in 0..STEPS {
            world.step();
            world.check();
        }
        world.settle();
        drop(named);
        sum.crashes += world.tally.crashes;
        sum.lost_commits += world.tally.lost_commits;
        sum.answered += world.tally.answered;
        sum.in_doubt += world.tally.in_doubt;
        sum.replayed += world.tally.replayed;
        sum.put_off += world.tally.put_off;
        sum.ended += world.tally.ended;
    }
    let Tally { crashes, lost_commits, answered, in_doubt, replayed, put_off, ended } = sum;
    let counts = [crashes, answered, in_doubt, replayed, put_off, ended];
    assert!(counts.iter().all(|&count| count > 300) && lost_commits > 1_000, "{sum:?}");
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

impl World {
    fn new(seed: u64) -> World {
        let mut limits = Limits::default();
        limits.window = WINDOW;
        limits.kept_reply_bytes_per_session_max = 200;
        limits.reply_reservation_bytes = 20;
        let now = Instant::now();
        let table = Table::recover(limits.clone(), [1; 16], Log::new(), now).expect("it reads");
        let mut world = World {
            table: Some(table),
            limits,
            now,
            dice: seed,
            clients: Vec::new(),
            running: Vec::new(),
            next_connection: 0,
            next_secret: 1,
            outside: BTreeMap::new(),
            told: BTreeMap::new(),
            tally: Tally::default(),
        };
        for _ in 0..2 {
            let client = world.hello();
            world.clients.push(client);
        }
        world
    }

    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64 (Steele, Lea, Flood, OOPSLA '14).
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.dice ^ self.dice >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) % bound as u64).expect("below a usize")
    }

    fn table(&mut self) -> &mut Table<Log> {
        self.table.as_mut().expect("a server runs")
    }

    fn connection(&mut self) -> u64 {
        self.next_connection += 1;
        self.next_connection
    }

    fn hello(&mut self) -> Client {
        let (connection, secret, now) = (self.connection(), self.next_secret, self.now);
        self.next_secret += 1;
        let order = if self.below(3) == 0 { Order::InOrder } else { Order::Unordered };
        let hello = Hello { version: 1, features: 0, window: 0, order, token: None };
        let opened = self.table().open(&hello, secret, connection, Principal::ANYONE, now);
        assert!(opened.expect("there is room").1.is_none(), "nothing is said before it is safe");
        Client {
            secret,
            sid: None,
            key: None,
            connections: BTreeSet::from([connection]),
            incarnation: 0,
            attachment: 0,
            next: 1,
            ack: 0,
        }
    }

    fn step(&mut self) {
        let i = self.below(self.clients.len());
        match self.below(100) {
            0..40 => self.send(i),
            40..62 => self.end_one(),
            62..68 => self.acknowledge(i),
            68..72 => self.lose(i),
            72..80 => self.come_back(i),
            80..90 => {
                let count = self.below(4);
                self.table().store_mut().make_safe(count);
            }
            90..92 => self.bye(i),
            92..95 => self.pass(),
            95..97 => self.crash(),
            _ => {}
        }
        self.release();
    }

    fn send(&mut self, i: usize) {
        let client = &self.clients[i];
        let Some(key) = client.key else { return };
        let Some(&connection) = client.connections.first() else { return };
        let span = usize::try_from(client.next - client.ack).expect("small");
        let is_unprotected = self.below(10) == 0;
        let seq = self.clients[i].ack + 1 + self.below(span.min(WINDOW as usize + 1)) as u64;
        let client = &mut self.clients[i];
        client.next = client.next.max(seq + 1);
        let (ack, secret) = (client.ack, client.secret);
        let mut header = Header::new(Kind::Request, seq);
        (header.ack, header.method) = (ack, METHOD);
        if is_unprotected {
            header.flags = Flags::UNPROTECTED;
        }
        self.admit(key, (secret, seq), header, connection);
        self.take_turns(key, secret);
    }

    fn admit(&mut self, key: SessionKey, xid: Xid, header: Header, connection: u64) {
        let (_, seq) = xid;
        let is_unprotected = header.flags.contains(Flags::UNPROTECTED);
        let now = self.now;
        let body = seq.to_le_bytes();
        let digest = self.table().digest(METHOD, &body);
        let request = Request {
            frame: &Frame { header, body: &body },
            connection,
            digest,
            is_idempotent: is_unprotected,
            is_transactional: is_transactional(seq) || is_unprotected,
            refusal: None,
        };
        match self.table().admit(key, &request, now) {
            Admission::Again(answer) => {
                let answer = answer.to_vec();
                self.tally.replayed += 1;
                self.was_told(&answer);
            }
            Admission::Run(call) => {
                let xid = (!is_unprotected).then_some(xid);
                assert!(is_unprotected || is_transactional(seq), "nothing else starts at once");
                self.running.push(Running { call, xid, is_transactional: true });
            }
            Admission::Refuse(refusal) => {
                self.tally.in_doubt += u32::from(refusal.code == Code::InDoubt);
                let xid = if refusal.code == Code::NotRetained { Some(xid) } else { None };
                if let Some(xid) = xid {
                    self.told.insert(xid, is_transactional(seq));
                }
            }
            Admission::Wait | Admission::Close(_) => {}
        }
    }

    fn take_turns(&mut self, key: SessionKey, secret: u128) {
        let now = self.now;
        while let Some(held) = self.table().next_held(key, now) {
            let header = held.frame().header;
            self.admit(key, (secret, header.seq), header, held.connection());
        }
    }

    /// A handler ends: with its effect and an answer, or it asks to be called later.
    fn end_one(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let which = self.below(self.running.len());
        let Running { call, xid, is_transactional } = self.running.swap_remove(which);
        let now = self.now;
        if self.below(8) == 0 {
            let refusal = Refusal::retry_later(1);
            if let Some(xid) = xid.filter(|_| !is_transactional) {
                // It has done nothing.
                *self.outside.get_mut(&xid).expect("it started") -= 1;
            }
            self.table().begin(call);
            self.table().write(b"undone", Some(b"x"));
            self.table().retry_later(call, &refusal, now);
            self.tally.put_off += 1;
            return;
        }
        let length = 20 + 80 * usize::from(self.below(4) == 0);
        let Some(xid) = xid else {
            self.table().complete(call, Answer::Copied(&[0; 32]), now);
            return;
        };
        let mut answer = key_of(xid);
        answer.resize(length.max(24), 0xee);
        if is_transactional {
            self.table().begin(call);
            let before = self.table().read(&key_of(xid)).map_or(0, |value| value[0]);
            self.table().write(&key_of(xid), Some(&[before + 1]));
        }
        let delivery = self.table().complete(call, Answer::Copied(&answer), now);
        assert_eq!(delivery.connections().count(), 0, "not before it is safe");
        if let Some(key) = delivery.unblocks {
            self.take_turns(key, xid.0);
        }
    }

    /// Does what the table releases.
    fn release(&mut self) {
        let now = self.now;
        while let Some(released) = self.table().poll_released(now).expect("it works") {
            match released {
                Released::Close { refusal, .. } => assert_eq!(refusal.code, Code::SessionUnknown),
                Released::Welcome { session, welcome, connection } => {
                    let clients = &mut self.clients;
                    let found = clients.iter_mut().find(|one| one.secret == welcome.sid.secret);
                    if let Some(client) = found {
                        assert!(client.connections.contains(&connection));
                        (client.sid, client.key) = (Some(welcome.sid), Some(session));
                    }
                }
                Released::Resumed { session, .. } => self.finished(session),
                Released::Run { call, session, request } => {
                    let secret = self.clients.iter().find(|one| one.key == Some(session));
                    // The client of a session that is over is gone; its call runs all the same.
                    let xid = secret.map(|one| (one.secret, request.frame().header.seq));
                    if let Some(xid) = xid {
                        assert!(!is_transactional(xid.1));
                        *self.outside.entry(xid).or_default() += 1;
                    }
                    self.running.push(Running { call, xid, is_transactional: false });
                }
                Released::Send { delivery, frame } => {
                    if delivery.connections().count() > 0 {
                        self.tally.answered += 1;
                        self.was_told(&frame);
                    }
                    if let Some(key) = delivery.unblocks
                        && let Some(one) = self.clients.iter().find(|one| one.key == Some(key))
                    {
                        let secret = one.secret;
                        self.take_turns(key, secret);
                    }
                }
            }
        }
    }

    fn finished(&mut self, session: SessionKey) {
        let mut out = Vec::new();
        self.table().append_finished(session, &mut out);
    }

    /// Somebody was told that a call has ended well: from now on it has, for ever.
    fn was_told(&mut self, answer: &[u8]) {
        let (Some(secret), Some(seq)) = (answer.first_chunk(), answer.get(16..24)) else { return };
        let xid = (u128::from_le_bytes(*secret), u64::from_le_bytes(seq.try_into().expect("8")));
        let is_answer = xid.0 > 0 && xid.0 < self.next_secret;
        if is_answer {
            self.told.insert(xid, is_transactional(xid.1));
        }
    }

    fn acknowledge(&mut self, i: usize) {
        let more = self.below(3) as u64;
        let client = &mut self.clients[i];
        let Some(key) = client.key else { return };
        client.ack = (client.ack + more).min(client.next - 1);
        let (ack, secret) = (client.ack, client.secret);
        self.table().acknowledge(key, ack).expect("it is small");
        self.take_turns(key, secret);
    }

    fn lose(&mut self, i: usize) {
        let now = self.now;
        let client = &mut self.clients[i];
        if let Some(key) = client.key
            && let Some(connection) = client.connections.pop_first()
        {
            self.table().detach(key, connection, now);
        }
    }

    fn come_back(&mut self, i: usize) {
        let (connection, now) = (self.connection(), self.now);
        let is_restart = self.below(4) == 0;
        let join = self.below(2) == 0;
        let client = &mut self.clients[i];
        let Some(sid) = client.sid else { return };
        if is_restart {
            client.incarnation += 1;
        }
        client.attachment += 1;
        let message = Resume {
            version: 1,
            features: 0,
            sid,
            incarnation: client.incarnation,
            attachment: client.attachment,
            ack: client.ack,
            join,
            token: None,
        };
        let resumed = self.table().resume(&message, connection, Principal::ANYONE, now);
        let client = &mut self.clients[i];
        match resumed {
            Ok(resumption) => {
                for replaced in &resumption.replaced {
                    client.connections.remove(replaced);
                }
                client.connections.insert(connection);
                client.key = Some(resumption.session);
                if let Some(resumed) = resumption.resumed {
                    let secret = client.secret;
                    self.compare(secret, |seq| resumed.report(seq), resumed.floor);
                    self.finished(resumption.session);
                }
            }
            // Its lease was over.
            Err(refusal) => {
                assert_eq!(refusal.code, Code::SessionUnknown);
                self.another(i);
            }
        }
    }

    /// What somebody was told to have ended is not vacant.
    fn compare(&self, secret: u128, report: impl Fn(u64) -> CellReport, floor: u64) {
        for &(_, seq) in self.told.keys().filter(|&&(of, seq)| of == secret && seq > floor) {
            assert_ne!(report(seq), CellReport::Vacant, "seq {seq} was answered");
        }
    }

    fn another(&mut self, i: usize) {
        self.tally.ended += 1;
        self.clients[i] = self.hello();
    }

    fn bye(&mut self, i: usize) {
        let now = self.now;
        if let Some(key) = self.clients[i].key {
            self.table().close(key, now);
            self.another(i);
        }
    }

    fn pass(&mut self) {
        let seconds = [1, 11, 700][self.below(3)];
        self.now += Duration::from_secs(seconds);
        let now = self.now;
        self.table().expire(now, |_, _, _| {});
    }

    /// The server dies; of what was not safe a prefix is there. Another one starts.
    fn crash(&mut self) {
        self.tally.crashes += 1;
        let mut log = self.table.take().expect("a server runs").into_store();
        let unsafe_commits = log.unsafe_commits();
        let kept = self.below(unsafe_commits + 1);
        self.tally.lost_commits += unsafe_commits - kept;
        log.crash(kept);
        self.running.clear();
        let table = Table::recover(self.limits.clone(), [2; 16], log, self.now);
        self.table = Some(table.expect("it reads"));
        for i in 0..self.clients.len() {
            let client = &mut self.clients[i];
            client.connections.clear();
            // Where a session is, only its RESUME tells: another one may be in its place.
            client.key = None;
            if client.sid.is_none() {
                // It was not told of its session, and opens another one.
                self.another(i);
            }
        }
    }

    fn check(&mut self) {
        let table = self.table.as_ref().expect("a server runs");
        table.check_invariants();
        for (xid, count) in &self.outside {
            assert!(*count <= 1, "{xid:?} ran {count} times");
        }
        for (key, value) in table.store().data() {
            assert!(value == [1], "{key:?} has its effect {value:?} times");
        }
        for (&xid, &is_stored) in &self.told {
            if is_stored {
                assert!(table.store().get_safe(&key_of(xid)).is_some(), "{xid:?} was told");
            }
        }
        assert_eq!(table.store().get(b"undone"), None, "a call put off leaves nothing");
    }

    /// Everything ends: nothing may be left.
    fn settle(&mut self) {
        while !self.running.is_empty() || self.table().is_waiting() {
            self.end_one();
            let count = self.table().store().unsafe_commits();
            self.table().store_mut().make_safe(count);
            self.release();
            self.check();
        }
        assert_eq!(self.table().in_flight(), 0);
    }
}
