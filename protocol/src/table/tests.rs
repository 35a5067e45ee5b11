//! Row by row, on a table without a network. Each test is named after what it holds.

mod durable;
mod hostile;
mod join;
mod order;
mod principals;
mod quotas;
mod rows;
mod sessions;

use std::time::{Duration, Instant};

use super::{Admission, Answer, CallKey, Delivery, Principal, Refusal, Request, SessionKey, Table};
use crate::error::{Code, ErrorBody};
use crate::frame::{Flags, Frame, Header, Kind, MethodId, NO_DEADLINE_MS};
use crate::handshake::{CellReport, Hello, Order, Resume, Resumed, Sid, Welcome};
use crate::limits::Limits;

/// The connection by which a [`Fixture`]'s session is opened.
const FIRST: u64 = 1;
/// The connection by which it comes back.
const SECOND: u64 = 2;
const SECRET: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

/// A table with one session.
struct Fixture {
    table: Table,
    session: SessionKey,
    sid: Sid,
    /// The connection that is attached.
    connection: u64,
    attachment: u32,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        Fixture::with(Limits::default(), Order::Unordered)
    }

    fn in_order() -> Self {
        Fixture::with(Limits::default(), Order::InOrder)
    }

    fn with(limits: Limits, order: Order) -> Self {
        Fixture::of(Table::new(limits, [7; 16]), order)
    }

    /// Of a server that asks who its peers are.
    fn authenticated(limits: Limits, order: Order) -> Self {
        let mut table = Table::new(limits, [7; 16]);
        table.authenticate();
        Fixture::of(table, order)
    }

    fn of(mut table: Table, order: Order) -> Self {
        let now = Instant::now();
        let (session, welcome) =
            table.open(&hello(0, order), SECRET, FIRST, Principal::ANYONE, now).unwrap();
        let sid = welcome.unwrap().sid;
        Fixture { table, session, sid, connection: FIRST, attachment: 0, now }
    }

    /// Sends a request and checks every invariant afterwards.
    #[track_caller]
    fn send(&mut self, copy: Copy) -> Found {
        self.send_to(self.session, copy)
    }

    #[track_caller]
    fn send_to(&mut self, session: SessionKey, copy: Copy) -> Found {
        let header = Header {
            kind: Kind::Request,
            flags: copy.flags,
            seq: copy.seq,
            ack: copy.ack,
            method: MethodId::of(copy.method),
            time_left_ms: copy.time_left_ms,
        };
        let request = Request {
            frame: &Frame { header, body: &copy.body },
            connection: copy.connection.unwrap_or(self.connection),
            digest: self.table.digest(header.method, &copy.body),
            is_idempotent: copy.is_idempotent,
            is_transactional: false,
            refusal: copy.refusal,
        };
        let found = match self.table.admit(session, &request, self.now) {
            Admission::Again(answer) => Found::Again(answer.to_vec()),
            Admission::Close(refusal) => Found::Close(refusal),
            Admission::Refuse(refusal) => Found::Refuse(refusal),
            Admission::Run(call) => Found::Run(call),
            Admission::Wait => Found::Wait,
        };
        self.table.check_invariants();
        found
    }

    #[track_caller]
    fn complete(&mut self, call: CallKey, answer: &[u8]) -> Delivery {
        let delivery = self.table.complete(call, Answer::Copied(answer), self.now);
        self.table.check_invariants();
        delivery
    }

    /// Sends a request that runs, and ends it.
    #[track_caller]
    fn run(&mut self, copy: Copy, answer: &[u8]) {
        let call = self.send(copy).run();
        self.complete(call, answer);
    }

    #[track_caller]
    fn withdraw(&mut self, call: CallKey) -> Delivery {
        let refusal = Refusal::new(Code::BadArguments, "they do not fit");
        let delivery = self.table.withdraw(call, &refusal, self.now);
        self.table.check_invariants();
        delivery
    }

    fn close(&mut self, session: SessionKey) -> Vec<u64> {
        let attached = self.table.close(session, self.now);
        self.table.check_invariants();
        attached
    }

    #[track_caller]
    fn acknowledge(&mut self, ack: u64) {
        self.table.acknowledge(self.session, ack).unwrap();
        self.table.check_invariants();
    }

    fn detach(&mut self) {
        self.table.detach(self.session, self.connection, self.now);
        self.table.check_invariants();
    }

    fn message(&self) -> Resume {
        Resume {
            version: 1,
            features: 0,
            sid: self.sid,
            incarnation: 0,
            attachment: self.attachment + 1,
            ack: 0,
            join: false,
            token: None,
        }
    }

    /// Opens another session.
    fn open(&mut self, hello: &Hello, secret: u128, connection: u64) -> Opened {
        self.open_as(hello, secret, connection, Principal::ANYONE)
    }

    fn open_as(
        &mut self,
        hello: &Hello,
        secret: u128,
        connection: u64,
        principal: Principal,
    ) -> Opened {
        let opened = self.table.open(hello, secret, connection, principal, self.now);
        self.table.check_invariants();
        opened.map(|(session, welcome)| (session, welcome.expect("nothing is to be waited for")))
    }

    /// Comes back by `connection`, and returns which connections that replaced and what RESUMED says.
    #[track_caller]
    fn resume(&mut self, connection: u64, ack: u64) -> (Vec<u64>, Resumed) {
        self.resume_with(connection, Resume { ack, ..self.message() })
    }

    /// Comes by `connection`, beside the one that is attached.
    #[track_caller]
    fn join(&mut self, connection: u64) -> (Vec<u64>, Resumed) {
        self.resume_with(connection, Resume { join: true, ..self.message() })
    }

    #[track_caller]
    fn resume_with(&mut self, connection: u64, message: Resume) -> (Vec<u64>, Resumed) {
        let principal = Principal::ANYONE;
        let resumption = self.table.resume(&message, connection, principal, self.now).unwrap();
        assert_eq!(resumption.session, self.session);
        self.attachment += 1;
        self.connection = connection;
        self.table.check_invariants();
        (resumption.replaced, resumption.resumed.unwrap())
    }

    /// Lets `time` pass, and returns what was refused, with the connection it is refused on.
    fn pass(&mut self, time: Duration) -> Vec<(Option<u64>, u64, Code)> {
        self.now += time;
        let mut refused = Vec::new();
        self.table.expire(self.now, |connection, seq, refusal| {
            refused.push((connection, seq, refusal.code));
        });
        self.table.check_invariants();
        refused
    }

    /// In-order session: admits the held requests whose turn has come, as a server does, and
    /// returns what was found of each.
    #[track_caller]
    fn turn(&mut self) -> Vec<(u64, Found)> {
        let mut found = Vec::new();
        while let Some(held) = self.table.next_held(self.session, self.now) {
            let Frame { header, body } = held.frame();
            let mut copy = copy(header.seq).ack(header.ack).body(body).on(held.connection());
            copy.time_left_ms = header.time_left_ms;
            let answer = self.send(copy);
            found.push((header.seq, answer));
            assert!(found.len() <= 128, "a turn that has come is not put off");
        }
        found
    }

    /// What the table keeps of the session: cells and held bytes, answers and their bytes.
    fn kept(&self) -> (usize, usize, (usize, usize)) {
        let session = self.table.sessions.get(self.session).unwrap();
        (session.cells().len(), self.table.held_bytes, self.table.kept())
    }

    fn floor(&self) -> u64 {
        self.table.sessions.get(self.session).unwrap().floor
    }

    /// What RESUMED would tell of `seq`, without resuming.
    fn report(&self, seq: u64) -> CellReport {
        self.table.peek(self.session, seq).unwrap()
    }
}

/// What came of a HELLO.
type Opened = Result<(SessionKey, Welcome), Refusal>;

fn hello(window: u32, order: Order) -> Hello {
    Hello { version: 1, features: 0, window, order, token: None }
}

/// One copy of a request.
#[derive(Clone)]
struct Copy {
    seq: u64,
    ack: u64,
    method: &'static str,
    body: Vec<u8>,
    flags: Flags,
    time_left_ms: u32,
    connection: Option<u64>,
    is_idempotent: bool,
    refusal: Option<Code>,
}

fn copy(seq: u64) -> Copy {
    Copy {
        seq,
        ack: 0,
        method: "calc.add",
        body: vec![0x92, 3, 4],
        flags: Flags::NONE,
        time_left_ms: NO_DEADLINE_MS,
        connection: None,
        is_idempotent: false,
        refusal: None,
    }
}

impl Copy {
    fn ack(self, ack: u64) -> Self {
        Copy { ack, ..self }
    }

    fn body(self, body: &[u8]) -> Self {
        Copy { body: body.to_vec(), ..self }
    }

    fn method(self, method: &'static str) -> Self {
        Copy { method, ..self }
    }

    fn on(self, connection: u64) -> Self {
        Copy { connection: Some(connection), ..self }
    }

    fn time_left(self, time_left_ms: u32) -> Self {
        Copy { time_left_ms, ..self }
    }

    fn refused(self, code: Code) -> Self {
        Copy { refusal: Some(code), ..self }
    }

    fn unprotected(self) -> Self {
        Copy { flags: Flags::UNPROTECTED, is_idempotent: true, ..self }
    }

    fn idempotent(self, is_idempotent: bool) -> Self {
        Copy { is_idempotent, ..self }
    }
}

/// What became of a request, without the table's borrow.
#[derive(Debug, PartialEq)]
enum Found {
    Again(Vec<u8>),
    Close(Refusal),
    Refuse(Refusal),
    Run(CallKey),
    Wait,
}

impl Found {
    #[track_caller]
    fn run(self) -> CallKey {
        match self {
            Found::Run(call) => call,
            other => panic!("not run: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(self) -> Refusal {
        match self {
            Found::Refuse(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// The code of a refusal after which the connection lives.
    #[track_caller]
    fn code(self) -> Code {
        self.refused().code
    }

    /// The code of a refusal after which the connection is closed.
    #[track_caller]
    fn closed(self) -> Code {
        match self {
            Found::Close(refusal) => refusal.code,
            other => panic!("not closed: {other:?}"),
        }
    }
}

/// Reads the ERROR frames in `bytes`: seq and code of each.
fn errors(mut bytes: &[u8]) -> Vec<(u64, Code)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let header = Header::read(bytes).unwrap();
        assert_eq!(header.kind, Kind::Error);
        let length = u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize + 4;
        let body: ErrorBody<'_> = rmp_serde::from_slice(&bytes[16..length]).unwrap();
        found.push((header.seq, Code::from_wire(body.code).unwrap()));
        bytes = &bytes[length..];
    }
    found
}
