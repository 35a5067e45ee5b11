//! The server: the real table, handlers that count, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use onceloop_protocol::codec::{Encode, decode_whole};
use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::{self, Frame, Header, Kind, MAGIC};
use onceloop_protocol::limits::Limits;
use onceloop_protocol::table::{
    Admission, Answer, CallKey, Cancelled, Principal, Refusal, Request, SessionKey, Table,
    append_error,
};

use super::{Dice, Faults, Pipe, cut_frame};

/// A handler that has not ended.
struct Running {
    due: Instant,
    call: CallKey,
    seq: u64,
    id: u32,
}

/// What the server has of one connection.
#[derive(Default)]
struct Connection {
    received: Vec<u8>,
    session: Option<SessionKey>,
}

pub(super) struct Server {
    pub(super) table: Table,
    /// How often each call has run.
    pub(super) effects: BTreeMap<u32, u32>,
    /// Requests of connections that were replaced.
    pub(super) stale_frames: u64,
    limits: Limits,
    faults: Faults,
    connections: BTreeMap<u64, Connection>,
    /// Connections that were closed here; what still comes on them is nobody's.
    closed: BTreeSet<u64>,
    running: Vec<Running>,
    /// What is to be written, by connection.
    out: BTreeMap<u64, Vec<u8>>,
    sessions_opened: u128,
    /// In an in-order session: the call that ran last.
    last_id: Option<u32>,
}

impl Server {
    pub(super) fn new(limits: Limits, faults: Faults) -> Server {
        Server {
            table: Table::new(limits.clone(), [3; 16]),
            effects: BTreeMap::new(),
            stale_frames: 0,
            limits,
            faults,
            connections: BTreeMap::new(),
            closed: BTreeSet::new(),
            running: Vec::new(),
            out: BTreeMap::new(),
            sessions_opened: 0,
            last_id: None,
        }
    }

    /// Forgets everything but what has happened.
    pub(super) fn restart(&mut self) {
        self.table = Table::new(self.limits.clone(), [4; 16]);
        self.closed.extend(std::mem::take(&mut self.connections).into_keys());
        self.running.clear();
        self.out.clear();
    }

    pub(super) fn receive(&mut self, connection: u64, bytes: &[u8]) {
        if !self.closed.contains(&connection) {
            self.connections.entry(connection).or_default().received.extend_from_slice(bytes);
        }
    }

    /// Notices that a connection is lost.
    pub(super) fn lost(&mut self, id: u64, now: Instant) {
        self.closed.insert(id);
        if let Some(connection) = self.connections.remove(&id)
            && let Some(session) = connection.session
        {
            self.table.detach(session, id, now);
        }
    }

    /// Runs what has come, ends handlers that are due, and writes to the pipes that live.
    pub(super) fn run(&mut self, now: Instant, dice: &mut Dice, pipes: &mut [&mut Option<Pipe>]) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            let received = std::mem::take(&mut self.connections.get_mut(&id).unwrap().received);
            let mut rest = &received[..];
            while !self.closed.contains(&id)
                && let Some(frame) = cut_frame(&mut rest)
            {
                self.on_frame(id, &frame, now, dice);
            }
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.received = rest.to_vec();
            }
        }
        self.end_handlers(now, dice);
        let mut out = std::mem::take(&mut self.out);
        for pipe in pipes.iter_mut().filter_map(|pipe| pipe.as_mut()) {
            pipe.to_client.extend(out.remove(&pipe.id).unwrap_or_default());
        }
    }

    fn on_frame(&mut self, id: u64, frame: &Frame<'_>, now: Instant, dice: &mut Dice) {
        let session = self.connections[&id].session;
        let seq = frame.header.seq;
        match (frame.header.kind, session) {
            (Kind::Hello, None) => {
                self.sessions_opened += 1;
                let hello = decode_whole(frame.body).unwrap();
                let secret = self.sessions_opened;
                let opened = self.table.open(&hello, secret, id, Principal::ANYONE, now);
                let (key, welcome) = opened.unwrap();
                self.connections.get_mut(&id).unwrap().session = Some(key);
                self.write_handshake(id, Kind::Welcome, &welcome.unwrap());
            }
            (Kind::Resume, None) => self.on_resume(id, frame, now),
            (Kind::Request, Some(key)) => self.on_request(key, id, frame, now, dice),
            (Kind::Ack, Some(key)) => {
                self.table.acknowledge(key, seq).unwrap();
                self.run_held(key, now, dice);
            }
            (Kind::Cancel, Some(key)) => match self.table.cancel(key, seq) {
                Cancelled::Held { connection, refusal } => {
                    refusal.append(seq, self.out.entry(connection).or_default());
                    self.run_held(key, now, dice);
                }
                Cancelled::Running(_) | Cancelled::Nothing => {}
            },
            (Kind::Ping, Some(_)) => {
                Header::new(Kind::Pong, seq).append(&[], self.out.entry(id).or_default());
            }
            (kind, _) => panic!("{kind:?} on a connection with session {session:?}"),
        }
    }

    fn on_resume(&mut self, id: u64, frame: &Frame<'_>, now: Instant) {
        let resume = decode_whole(frame.body).unwrap();
        match self.table.resume(&resume, id, Principal::ANYONE, now) {
            Ok(resumption) => {
                self.connections.get_mut(&id).unwrap().session = Some(resumption.session);
                self.write_handshake(id, Kind::Resumed, &resumption.resumed.unwrap());
                let out = self.out.entry(id).or_default();
                self.table.append_finished(resumption.session, out);
            }
            Err(refusal) => self.close(id, &refusal, 0),
        }
    }

    fn on_request(
        &mut self,
        key: SessionKey,
        connection: u64,
        frame: &Frame<'_>,
        now: Instant,
        dice: &mut Dice,
    ) {
        let seq = frame.header.seq;
        let digest = self.table.digest(frame.header.method, frame.body);
        let refusal = (!self.faults.quiet && dice.once_in(6)).then_some(Code::Busy);
        let request = Request {
            frame,
            connection,
            digest,
            is_idempotent: true,
            is_transactional: false,
            refusal,
        };
        let out = self.out.entry(connection).or_default();
        match self.table.admit(key, &request, now) {
            Admission::Again(answer) => out.extend_from_slice(answer),
            Admission::Close(refusal) => {
                self.stale_frames += 1;
                self.close(connection, &refusal, seq);
            }
            Admission::Refuse(refusal) => {
                // The second copy of a hedged call may come when the first one's answer is consumed.
                let is_stale = refusal.code == Code::Stale;
                assert!(!is_stale || self.faults.hedges, "no caller waits for it");
                assert_ne!(refusal.code, Code::XidReused, "a resend changed its bytes");
                refusal.append(seq, out);
                self.run_held(key, now, dice);
            }
            Admission::Run(call) => {
                let id = u32::from_le_bytes(frame.body.try_into().unwrap());
                *self.effects.entry(id).or_default() += 1;
                assert!(!self.faults.in_order || self.last_id < Some(id), "{id} out of order");
                self.last_id = Some(id);
                let longest = if dice.once_in(10) { 2_000 } else { 5 };
                let due = now + Duration::from_millis(dice.below(longest));
                self.running.push(Running { due, call, seq, id });
            }
            // Its acknowledgement may have been what an earlier one waited for.
            Admission::Wait => self.run_held(key, now, dice),
        }
    }

    fn end_handlers(&mut self, now: Instant, dice: &mut Dice) {
        let (due, running): (Vec<_>, _) =
            self.running.drain(..).partition(|handler| handler.due <= now);
        self.running = running;
        for handler in due {
            let mut answer = Vec::new();
            let body = handler.id.to_le_bytes();
            if handler.id % 7 == 0 {
                let mut error = ErrorBody::new(Code::ApplicationError, "a seventh");
                error.details = Some(body[..].into());
                append_error(&error, handler.seq, &mut answer);
            } else {
                Header::new(Kind::Reply, handler.seq).append(&body, &mut answer);
            }
            let delivery = self.table.complete(handler.call, Answer::Copied(&answer), now);
            for connection in delivery.connections() {
                self.out.entry(connection).or_default().extend(&answer);
            }
            if let Some(key) = delivery.unblocks {
                self.run_held(key, now, dice);
            }
        }
    }

    fn run_held(&mut self, key: SessionKey, now: Instant, dice: &mut Dice) {
        while let Some(held) = self.table.next_held(key, now) {
            self.on_request(key, held.connection(), &held.frame(), now, dice);
        }
    }

    fn close(&mut self, id: u64, refusal: &Refusal, seq: u64) {
        refusal.append(seq, self.out.entry(id).or_default());
        self.connections.remove(&id);
        self.closed.insert(id);
    }

    fn write_handshake(&mut self, id: u64, kind: Kind, body: &impl Encode) {
        let out = self.out.entry(id).or_default();
        out.extend_from_slice(&MAGIC);
        let start = Header::new(kind, 0).begin(out);
        body.encode(out).unwrap();
        frame::finish(out, start);
    }
}
