//! The server: the real table, handlers that do nothing but take effect, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Instant;

use onceloop_protocol::codec::decode_whole;
use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::{
    Flags, Frame, HEADER_BYTES, Header, Kind, MethodId, NO_DEADLINE_MS, VERSION,
};
use onceloop_protocol::handshake::{Hello, Order, Resume, Resumed, Sid};
use onceloop_protocol::limits::Limits;
use onceloop_protocol::table::store::Log;
use onceloop_protocol::table::{
    Admission, Answer, CallKey, Cancelled, Delivery, Principal, Refusal, Released, Request,
    SessionKey, Store, Table,
};

use crate::network::{CallIndex, End, Pipe, PipeIndex, Report, SessionIndex, ToClient, ToServer};
use crate::world::Bounds;

const METHOD: MethodId = MethodId::of("model.call");
/// What unprotected requests are numbered by: no call has such a seq.
const LOOK: u64 = 1 << 32;

/// A handler that has started and not ended.
#[derive(Clone, Debug)]
struct Running {
    key: CallKey,
    call: CallIndex,
    /// By which connection it came, and its seq: only to tell one handler from another.
    xid: (PipeIndex, u64),
}

/// The server.
#[derive(Clone)]
pub(crate) struct Server {
    table: Table<Option<Log>>,
    now: Instant,
    limits: Limits,
    /// Every session that was ever opened: what its client resumes it by, and where it is.
    sessions: Vec<(Sid, Option<SessionKey>)>,
    /// The highest incarnation of each session's client that was told RESUMED.
    told: Vec<u32>,
    /// The incarnation in each connection's RESUME.
    resumes: BTreeMap<PipeIndex, u32>,
    /// As what each call ran last.
    ran: BTreeMap<CallIndex, (SessionIndex, u64)>,
    running: Vec<Running>,
    /// How often each call took effect, where that is not the store's to know.
    effects: Vec<u8>,
    is_idempotent: bool,
    is_transactional: bool,
    order: Order,
    boots: u8,
}

impl Server {
    /// Returns a server that has just been started.
    pub(crate) fn new(bounds: &Bounds) -> Server {
        let mut limits = Limits::default();
        limits.window = bounds.window;
        limits.window_max = bounds.window;
        let now = Instant::now();
        let store = bounds.is_durable.then(Log::new);
        let table = Table::recover(limits.clone(), [0; 16], store, now).expect("it is new");
        let mut server = Server {
            table,
            now,
            limits,
            sessions: Vec::new(),
            told: Vec::new(),
            resumes: BTreeMap::new(),
            ran: BTreeMap::new(),
            running: Vec::new(),
            effects: vec![0; bounds.calls.len()],
            is_idempotent: bounds.is_idempotent,
            is_transactional: bounds.is_transactional,
            order: if bounds.in_order { Order::InOrder } else { Order::Unordered },
            boots: 0,
        };
        // That the store is new is no step of its own.
        server.make_safe(&mut []);
        server
    }

    /// Returns how many commits are not safe.
    pub(crate) fn unsafe_commits(&self) -> usize {
        self.table.store().as_ref().map_or(0, Log::unsafe_commits)
    }

    /// One more commit becomes safe.
    pub(crate) fn make_safe(&mut self, pipes: &mut [Pipe]) {
        if let Some(log) = self.table.store_mut() {
            log.make_safe(1);
        }
        self.release(pipes);
    }

    /// Returns how many handlers run.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Returns whether there is a session whose lease could end.
    pub(crate) fn has_sessions(&self) -> bool {
        self.table.sessions() > 0
    }

    /// Returns how often a call took effect, as far as anybody could see it now.
    pub(crate) fn effects(&self, call: CallIndex) -> u8 {
        match self.table.store() {
            Some(log) if self.is_transactional => count(log.get(&[call])),
            _ => self.effects[usize::from(call)],
        }
    }

    /// I3: the effect of a call whose reply is seen is safe.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn check_visible(&self, call: CallIndex) -> Result<(), String> {
        match self.table.store() {
            Some(log) if self.is_transactional && log.get_safe(&[call]).is_none() => {
                Err(format!("I3: the reply of call {call} is seen before its effect is safe"))
            }
            _ => Ok(()),
        }
    }

    /// Takes the next frame of a connection.
    pub(crate) fn receive(&mut self, index: PipeIndex, is_busy: bool, pipes: &mut [Pipe]) {
        let pipe = &mut pipes[usize::from(index)];
        let Some(frame) = pipe.to_server.pop_front() else { return };
        if pipe.server == End::Waiting {
            pipe.server = End::Open;
        }
        match (frame, pipe.server) {
            (ToServer::Hello, End::Open) => self.hello(index, pipes),
            (ToServer::Resume { session, incarnation, attachment, ack, join }, End::Open) => {
                let resume = Resume {
                    version: VERSION,
                    features: 0,
                    sid: self.sessions[usize::from(session)].0,
                    incarnation,
                    attachment,
                    ack,
                    join,
                    token: None,
                };
                self.resume(index, session, &resume, pipes);
            }
            (ToServer::Request { seq, call, ack }, End::Attached(session)) => {
                self.request(index, session, (seq, call, ack), is_busy, pipes);
            }
            (ToServer::Look(call), End::Attached(session)) => {
                self.look(index, session, call, pipes);
            }
            (ToServer::Ack(ack), End::Attached(session)) => {
                if let Some(key) = self.key(session) {
                    self.table.acknowledge(key, ack).expect("the client counts from one");
                }
                self.run_held(session, pipes);
            }
            (ToServer::Cancel(seq), End::Attached(session)) => {
                if let Some(key) = self.key(session)
                    && let Cancelled::Held { refusal, .. } = self.table.cancel(key, seq)
                {
                    refuse(&mut pipes[usize::from(index)], seq, &refusal);
                }
                self.run_held(session, pipes);
            }
            // What breaks the order of a connection's frames is not for this client to send.
            (_, _) => pipes[usize::from(index)].close_at_server(),
        }
        self.release(pipes);
    }

    /// Does what was waiting until something was safe.
    fn release(&mut self, pipes: &mut [Pipe]) {
        while let Some(released) = self.table.poll_released(self.now).expect("no write fails") {
            match released {
                Released::Close { connection, refusal } => {
                    fail(pipe_of(connection, pipes), &refusal);
                }
                Released::Resumed { connection, session, resumed: body } => {
                    let pipe = pipe_of(connection, pipes);
                    pipe.tell(resumed(&body));
                    self.tell_finished(session, pipe);
                    let of = self.index(session).expect("it was resumed");
                    self.note_told(PipeIndex::try_from(connection).expect("an index"), of);
                }
                Released::Run { call, request, session } => {
                    let frame = request.frame();
                    let index = PipeIndex::try_from(request.connection()).expect("an index");
                    let of = self.index(session).expect("it has a call");
                    self.start(call, frame.body[0], of, (index, frame.header.seq));
                }
                Released::Send { delivery, frame } => self.send(delivery, &frame, pipes),
                Released::Welcome { connection, session, .. } => {
                    if let Some(session) = self.index(session) {
                        pipe_of(connection, pipes).tell(ToClient::Welcome(session));
                    }
                }
            }
        }
    }

    /// Sends an answer where it goes, and runs what waited for its call.
    fn send(&mut self, delivery: Delivery, frame: &[u8], pipes: &mut [Pipe]) {
        for connection in delivery.connections() {
            tell_frames(frame, pipe_of(connection, pipes));
        }
        if let Some(session) = delivery.unblocks.and_then(|key| self.index(key)) {
            self.run_held(session, pipes);
        }
    }

    fn tell_finished(&mut self, session: SessionKey, pipe: &mut Pipe) {
        let mut out = Vec::new();
        self.table.append_finished(session, &mut out);
        tell_frames(&out, pipe);
    }

    fn hello(&mut self, index: PipeIndex, pipes: &mut [Pipe]) {
        let hello = Hello {
            version: VERSION,
            features: 0,
            window: self.limits.window,
            order: self.order,
            token: None,
        };
        let session = SessionIndex::try_from(self.sessions.len()).expect("few are opened");
        let secret = u128::from(session) + 1;
        let opened = self.table.open(&hello, secret, index.into(), Principal::ANYONE, self.now);
        let pipe = &mut pipes[usize::from(index)];
        match opened {
            Ok((key, welcome)) => {
                let sid = Sid { place: key.to_bits(), secret };
                self.sessions.push((sid, Some(key)));
                self.told.push(0);
                pipe.server = End::Attached(session);
                if welcome.is_some() {
                    pipe.tell(ToClient::Welcome(session));
                }
            }
            Err(refusal) => fail(pipe, &refusal),
        }
    }

    fn resume(
        &mut self,
        index: PipeIndex,
        session: SessionIndex,
        resume: &Resume,
        pipes: &mut [Pipe],
    ) {
        match self.table.resume(resume, index.into(), Principal::ANYONE, self.now) {
            Err(refusal) => fail(&mut pipes[usize::from(index)], &refusal),
            Ok(resumption) => {
                let (incarnation, told) = (resume.incarnation, self.told[usize::from(session)]);
                assert!(incarnation >= told, "row 3: incarnation {incarnation} after {told}");
                self.resumes.insert(index, incarnation);
                for replaced in resumption.replaced {
                    pipe_of(replaced, pipes).close_at_server();
                }
                self.sessions[usize::from(session)].1 = Some(resumption.session);
                let pipe = &mut pipes[usize::from(index)];
                pipe.server = End::Attached(session);
                if let Some(body) = &resumption.resumed {
                    pipe.tell(resumed(body));
                    self.tell_finished(resumption.session, pipe);
                    self.note_told(index, session);
                }
            }
        }
    }

    /// RESUMED has left by this connection.
    fn note_told(&mut self, index: PipeIndex, session: SessionIndex) {
        let told = &mut self.told[usize::from(session)];
        *told = self.resumes.get(&index).map_or(*told, |&incarnation| incarnation.max(*told));
    }

    /// An unprotected request: reads how often a call took effect.
    fn look(
        &mut self,
        index: PipeIndex,
        session: SessionIndex,
        call: CallIndex,
        pipes: &mut [Pipe],
    ) {
        let flags = Flags::UNPROTECTED;
        let header = Header { flags, method: METHOD, ..Header::new(Kind::Request, LOOK) };
        let header = Header { time_left_ms: NO_DEADLINE_MS, ..header };
        let request = Request {
            frame: &Frame { header, body: &[call] },
            connection: index.into(),
            digest: 0,
            is_idempotent: true,
            is_transactional: true,
            refusal: None,
        };
        let Some(key) = self.key(session) else { return };
        if let Admission::Run(key) = self.table.admit(key, &request, self.now) {
            self.table.begin(key);
            let effects = count(self.table.read(&[call]));
            let mut reply = Vec::new();
            Header::new(Kind::Reply, LOOK).append(&[call, effects], &mut reply);
            let delivery = self.table.complete(key, Answer::Copied(&reply), self.now);
            self.send(delivery, &reply, pipes);
        }
    }

    fn request(
        &mut self,
        index: PipeIndex,
        session: SessionIndex,
        (seq, call, ack): (u64, CallIndex, u64),
        is_busy: bool,
        pipes: &mut [Pipe],
    ) {
        let header = Header {
            kind: Kind::Request,
            flags: Flags::NONE,
            seq,
            ack,
            method: METHOD,
            time_left_ms: NO_DEADLINE_MS,
        };
        self.admit(index, session, &Frame { header, body: &[call] }, is_busy, pipes);
        self.run_held(session, pipes);
    }

    fn admit(
        &mut self,
        index: PipeIndex,
        session: SessionIndex,
        frame: &Frame<'_>,
        is_busy: bool,
        pipes: &mut [Pipe],
    ) {
        let request = Request {
            frame,
            connection: index.into(),
            digest: self.table.digest(METHOD, frame.body),
            is_idempotent: self.is_idempotent,
            is_transactional: self.is_transactional,
            refusal: (is_busy && !self.is_transactional).then_some(Code::Busy),
        };
        let pipe = &mut pipes[usize::from(index)];
        let seq = frame.header.seq;
        let Some(key) = self.key(session) else { return fail(pipe, &unknown()) };
        match self.table.admit(key, &request, self.now) {
            Admission::Again(answer) => tell_frames(answer, pipe),
            Admission::Close(refusal) => fail(pipe, &refusal),
            Admission::Refuse(refusal) => refuse(pipe, seq, &refusal),
            Admission::Run(key) if self.is_transactional => {
                self.ran.insert(frame.body[0], (session, seq));
                self.run_transaction(key, frame.body[0], seq, is_busy, pipes);
            }
            Admission::Run(key) => self.start(key, frame.body[0], session, (index, seq)),
            Admission::Wait => {}
        }
    }

    /// A handler starts, and takes effect at once: what comes after is only its answer.
    fn start(&mut self, key: CallKey, call: CallIndex, of: SessionIndex, xid: (PipeIndex, u64)) {
        self.ran.insert(call, (of, xid.1));
        self.effects[usize::from(call)] += 1;
        self.running.push(Running { key, call, xid });
        self.running.sort_by_key(|running| running.xid);
    }

    /// A handler whose effect is in the transaction of its answer: it ends, or (row 16) gives up
    /// after having written.
    fn run_transaction(
        &mut self,
        key: CallKey,
        call: CallIndex,
        seq: u64,
        gives_up: bool,
        pipes: &mut [Pipe],
    ) {
        self.table.begin(key);
        let effects = count(self.table.read(&[call])) + 1;
        self.table.write(&[call], Some(&[effects]));
        if gives_up {
            return self.give_back(key, seq, pipes);
        }
        self.answer(key, call, seq, pipes);
    }

    /// Row 16.
    fn give_back(&mut self, key: CallKey, seq: u64, pipes: &mut [Pipe]) {
        let refusal = Refusal::retry_later(0);
        let delivery = self.table.retry_later(key, &refusal, self.now);
        let mut frame = Vec::new();
        refusal.append(seq, &mut frame);
        self.send(delivery, &frame, pipes);
    }

    fn answer(&mut self, key: CallKey, call: CallIndex, seq: u64, pipes: &mut [Pipe]) {
        let mut reply = Vec::new();
        Header::new(Kind::Reply, seq).append(&[call], &mut reply);
        let delivery = self.table.complete(key, Answer::Copied(&reply), self.now);
        self.send(delivery, &reply, pipes);
    }

    /// In-order session: admits what was held and whose turn has come.
    fn run_held(&mut self, session: SessionIndex, pipes: &mut [Pipe]) {
        while let Some(key) = self.key(session)
            && let Some(held) = self.table.next_held(key, self.now)
        {
            let index = PipeIndex::try_from(held.connection()).expect("it is an index");
            self.admit(index, session, &held.frame(), false, pipes);
        }
    }

    /// A handler ends with its answer, or asks that its call come again, having done nothing.
    pub(crate) fn end_handler(&mut self, place: usize, retries: bool, pipes: &mut [Pipe]) {
        let Running { key, call, xid: (_, seq) } = self.running.remove(place);
        if retries {
            self.effects[usize::from(call)] -= 1;
            self.give_back(key, seq, pipes);
        } else {
            self.answer(key, call, seq, pipes);
        }
        self.release(pipes);
    }

    /// The server notices that a connection is lost.
    pub(crate) fn lose(&mut self, index: PipeIndex, pipes: &mut [Pipe]) {
        let pipe = &mut pipes[usize::from(index)];
        if let End::Attached(session) = pipe.server
            && let Some(key) = self.key(session)
        {
            self.table.detach(key, index.into(), self.now);
        }
        pipe.close_at_server();
    }

    /// So much time passes that every lease ends.
    pub(crate) fn expire(&mut self, pipes: &mut [Pipe]) {
        self.now += 2 * (self.limits.lease + self.limits.unused_lease);
        let mut attached = BTreeSet::new();
        for pipe in &*pipes {
            if let End::Attached(session) = pipe.server {
                attached.extend(self.key(session).map(SessionKey::to_bits));
            }
        }
        let mut refused = Vec::new();
        self.table.expire(self.now, |connection, seq, refusal| {
            refused.push((connection, seq, refusal.clone()));
        });
        let left = self.table.sessions();
        assert!(left >= attached.len(), "row 20: a session ended to which its client is attached");
        for (connection, seq, refusal) in refused {
            if let Some(connection) = connection {
                refuse(pipe_of(connection, pipes), seq, &refusal);
            }
        }
        self.release(pipes);
    }

    /// The process dies and is started anew; of its commits that are not safe `kept` have survived.
    /// What it has written to its connections is still on its way; what it has not read is lost, but
    /// for connections that it has not accepted.
    pub(crate) fn crash(&mut self, kept: usize, pipes: &mut [Pipe]) {
        for pipe in pipes.iter_mut().filter(|pipe| pipe.server != End::Waiting) {
            pipe.close_at_server();
        }
        self.running.clear();
        self.boots += 1;
        let mut store = self.table.store().clone();
        if let Some(log) = &mut store {
            log.crash(kept);
        }
        let is_durable = store.is_some();
        let random = [self.boots; 16];
        self.table = Table::recover(self.limits.clone(), random, store, self.now)
            .expect("what is safe can be read");
        for (sid, key) in &mut self.sessions {
            *key = is_durable.then(|| SessionKey::from_bits(sid.place));
        }
        self.release(pipes);
    }

    /// Asserts what must always hold.
    ///
    /// # Errors
    /// If the store has the effect of a call, or a handler may have had one, and nothing in it says
    /// that the call is not to run again.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.table.check_invariants();
        let Some(log) = self.table.store() else { return Ok(()) };
        for (&call, &(session, seq)) in &self.ran {
            let has_run = match self.is_transactional {
                true => log.get_safe(&[call]).is_some(),
                false => self.effects[usize::from(call)] > 0,
            };
            let session = log.ledger().session(u128::from(session) + 1);
            let is_known = session
                .is_none_or(|session| session.floor >= seq || session.entries.contains_key(&seq));
            if has_run && !is_known {
                return Err(format!("I6: call {call} has run, and the store does not know it"));
            }
        }
        Ok(())
    }

    /// Hashes all that tells this server from another.
    pub(crate) fn fingerprint(&self, state: &mut impl Hasher) {
        self.table.fingerprint(state);
        self.table.store().hash(state);
        self.sessions.len().hash(state);
        (&self.told, &self.resumes, &self.ran).hash(state);
        for running in &self.running {
            (running.call, running.xid, self.table.is_awaited(running.key)).hash(state);
        }
        self.effects.hash(state);
        self.boots.hash(state);
    }

    fn key(&self, session: SessionIndex) -> Option<SessionKey> {
        self.sessions[usize::from(session)].1
    }

    fn index(&self, key: SessionKey) -> Option<SessionIndex> {
        let place = self.sessions.iter().rposition(|(_, other)| *other == Some(key))?;
        SessionIndex::try_from(place).ok()
    }
}

/// Reads a count of effects.
fn count(value: Option<Vec<u8>>) -> u8 {
    value.map_or(0, |bytes| bytes[0])
}

fn pipe_of(connection: u64, pipes: &mut [Pipe]) -> &mut Pipe {
    &mut pipes[usize::try_from(connection).expect("it is an index")]
}

fn unknown() -> Refusal {
    Refusal::new(Code::SessionUnknown, "the server was started anew")
}

/// Answers a call with an error.
fn refuse(pipe: &mut Pipe, seq: u64, refusal: &Refusal) {
    pipe.tell(ToClient::error(seq, refusal.code));
}

/// Says why, and closes the connection.
fn fail(pipe: &mut Pipe, refusal: &Refusal) {
    refuse(pipe, 0, refusal);
    pipe.close_at_server();
}

fn resumed(resumed: &Resumed) -> ToClient {
    let mut cells = Vec::new();
    for seq in resumed.floor + 1..=resumed.floor + u64::from(resumed.window) {
        cells.push(Report::from(resumed.report(seq)));
    }
    ToClient::Resumed { floor: resumed.floor, cells }
}

/// Reads frames that the table has kept.
fn tell_frames(mut frames: &[u8], pipe: &mut Pipe) {
    while let Some(header) = Header::read(frames) {
        let length = u32::from_be_bytes([frames[0], frames[1], frames[2], frames[3]]) as usize + 4;
        let (frame, rest) = frames.split_at(length);
        let body = &frame[HEADER_BYTES..];
        pipe.tell(match header.kind {
            Kind::Reply if header.seq == LOOK => {
                ToClient::Looked { call: body[0], effects: body[1] }
            }
            Kind::Reply => ToClient::Reply { seq: header.seq, call: body[0] },
            _ => {
                let error: ErrorBody<'_> = decode_whole(body).expect("the table wrote it");
                ToClient::Error { seq: header.seq, code: error.code }
            }
        });
        frames = rest;
    }
}
