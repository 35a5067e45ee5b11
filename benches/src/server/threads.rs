//! A thread for each connection: what most servers are, made as well as it goes.
//!
//! It speaks the same protocol with the same table of xids, scan and codec as the event loop's
//! server; the table is behind one mutex. A thread reads all that its socket has, decides on the
//! whole batch under one lock, runs the handlers outside it, records their answers under a second
//! one, and writes them with one write; before a handler that blocks, those that are there. Scan and digest are outside the lock, too. Stacks and
//! buffers are as small as they can be.
//!
//! It has less to do than the event loop's server in three things, which no figure of this bench
//! shows: a session ends with its connection (RESUME is refused), calls run as they come (a session
//! in order is refused), and there are no deadlines after the handshake.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use onceloop_protocol::codec::{Bin, DecodeArgs, Encode, decode_scanned};
use onceloop_protocol::digest::DigestKey;
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{self, Frame, HEADER_BYTES, Header, Kind, MAGIC, MethodId};
use onceloop_protocol::handshake::{Hello, Order};
use onceloop_protocol::limits::Limits;
use onceloop_protocol::method::Method;
use onceloop_protocol::scan::{ScanLimits, scan};
use onceloop_protocol::table::{
    Admission, Answer, CallKey, Principal, REPLY_COPY_BYTES_MAX, Refusal, Request, SessionKey,
    Table,
};

use crate::frames::{self, Front};
use crate::service::{self, bench};

/// Stack of a connection's thread. What is used of it is less than half.
const STACK_BYTES: usize = 64 * 1024;
/// A connection's input buffer at first: dozens of small requests.
const INPUT_BYTES_MIN: usize = 2 * 1024;
/// What the input buffer grows to on a busy connection; a longer frame makes it longer.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// What all threads share.
struct Shared {
    table: Mutex<Table>,
    /// The table's, so that digests are made outside the lock.
    digest_key: DigestKey,
    scan_limits: ScanLimits,
    limits: Limits,
    echo: MethodId,
    slow: MethodId,
}

/// Serves `listener` for ever.
pub(super) fn run(listener: &TcpListener, limits: Limits) -> Result<Infallible> {
    let random = random_bytes()?;
    let shared = Arc::new(Shared {
        table: Mutex::new(Table::new(limits.clone(), random)),
        digest_key: DigestKey::new(random),
        scan_limits: ScanLimits::of(&limits),
        limits,
        echo: bench::echo.id(),
        slow: bench::slow.id(),
    });
    let mut number = 0;
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("accepting"),
        };
        stream.set_nodelay(true).context("asking for TCP_NODELAY")?;
        number += 1;
        let shared = shared.clone();
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let mut connection = Connection::new(&shared, number, stream);
                if let Err(error) = connection.serve() {
                    // A client that breaks off is its own affair: it counts what it lost.
                    log_if_ours(&error);
                }
                connection.close();
            })
            .context("starting a connection's thread")?;
    }
}

fn log_if_ours(error: &io::Error) {
    let is_theirs = matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
    );
    if !is_theirs {
        eprintln!("c10k: server threads: {error}");
    }
}

fn random_bytes() -> Result<[u8; 16]> {
    let mut random = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    let length = rustix::rand::getrandom(&mut random, flags).context("asking for random bytes")?;
    anyhow::ensure!(length == random.len(), "the system gave {length} random bytes of 16");
    Ok(random)
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // No handler runs under the lock: what panics there is a bug of the table, and then every
        // later answer would be as wrong as the first.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One frame of a batch that has something to do with the table.
enum Step {
    /// REQUEST at this place of the input.
    Request { at: Range<usize>, header: Header, digest: u64 },
    /// Every seq up to this one is consumed.
    Ack(u64),
}

/// A call that is admitted, and its answer in the output once there is one.
struct Call {
    key: CallKey,
    seq: u64,
    is_slow: bool,
    arguments: Range<usize>,
    /// `None`: the arguments did not fit, and the refusal is in the output.
    answer: Option<Range<usize>>,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    Close,
}

struct Connection<'a> {
    shared: &'a Shared,
    number: u64,
    stream: TcpStream,
    session: Option<SessionKey>,
    input: Vec<u8>,
    /// How much of the input holds bytes that are not done with.
    filled: usize,
    output: Vec<u8>,
    steps: Vec<Step>,
    calls: Vec<Call>,
}

impl<'a> Connection<'a> {
    fn new(shared: &'a Shared, number: u64, stream: TcpStream) -> Connection<'a> {
        Connection {
            shared,
            number,
            stream,
            session: None,
            input: vec![0; INPUT_BYTES_MIN],
            filled: 0,
            output: Vec::new(),
            steps: Vec::new(),
            calls: Vec::new(),
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(self.shared.limits.handshake_timeout))?;
        let Some(session) = self.greet()? else { return Ok(()) };
        self.session = Some(session);
        self.stream.set_read_timeout(None)?;
        loop {
            let (used, next) = self.sort_frames();
            let next = if self.run_batch(session)? == Next::Close { Next::Close } else { next };
            self.input.copy_within(used..self.filled, 0);
            self.filled -= used;
            self.send()?;
            if next == Next::Close || !self.read()? {
                return Ok(());
            }
        }
    }

    /// Reads the magic and HELLO and answers them; `None` if the client is refused.
    fn greet(&mut self) -> io::Result<Option<SessionKey>> {
        let length = loop {
            let received = &self.input[..self.filled];
            if !received.starts_with(&MAGIC[..received.len().min(MAGIC.len())]) {
                return Ok(None);
            }
            match frames::front(received.get(MAGIC.len()..).unwrap_or_default()) {
                Front::Frame(header, length) if header[4] == Kind::Hello as u8 => break length,
                Front::Part => {}
                Front::Frame(..) | Front::Broken => return Ok(None),
            }
            if !self.read()? {
                return Ok(None);
            }
        };
        let end = MAGIC.len() + length;
        let body = &self.input[MAGIC.len() + HEADER_BYTES..end];
        self.output.extend_from_slice(&MAGIC);
        let opened = match decode_scanned::<Hello>(body, &self.shared.scan_limits) {
            Ok(hello) if hello.order == Order::Unordered => {
                let secret = random_bytes().map_err(io::Error::other)?;
                let secret = u128::from_le_bytes(secret);
                let now = Instant::now();
                self.shared.table().open(&hello, secret, self.number, Principal::ANYONE, now)
            }
            Ok(_) => Err(Refusal::new(Code::Unsupported, "calls are not kept in order here")),
            Err(error) => Err(Refusal::new(Code::Malformed, error.to_string())),
        };
        let session = match opened {
            Ok((session, welcome)) => {
                let welcome = welcome.ok_or_else(|| io::Error::other("a durable table"))?;
                let start = Header::new(Kind::Welcome, 0).begin(&mut self.output);
                welcome.encode(&mut self.output).map_err(io::Error::other)?;
                frame::finish(&mut self.output, start);
                Some(session)
            }
            Err(refusal) => {
                refusal.append(0, &mut self.output);
                None
            }
        };
        self.stream.write_all(&self.output)?;
        self.output.clear();
        self.input.copy_within(end..self.filled, 0);
        self.filled -= end;
        Ok(session)
    }

    /// Reads once, with room for as much as the last reads needed; `false` at the end.
    fn read(&mut self) -> io::Result<bool> {
        if self.filled == self.input.len() {
            self.input.resize(2 * self.input.len(), 0);
        }
        loop {
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.filled += read;
                    // A full buffer: there was more, so the next read is given more room.
                    let length = self.input.len();
                    if self.filled == length && length < INPUT_BYTES_MAX {
                        self.input.resize(2 * length, 0);
                    }
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sorts the whole frames of the input into steps; answers those that need no table. Returns
    /// how many bytes they are.
    fn sort_frames(&mut self) -> (usize, Next) {
        let mut used = 0;
        loop {
            let rest = &self.input[used..self.filled];
            let length = match frames::front(rest) {
                Front::Part => return (used, Next::Continue),
                Front::Broken => return (used, Next::Close),
                Front::Frame(_, length) => length,
            };
            let at = used..used + length;
            used += length;
            let Some(header) = Header::read(&rest[..length]) else { return (used, Next::Close) };
            match header.kind {
                Kind::Request => self.sort_request(at, header),
                Kind::Ack => self.steps.push(Step::Ack(header.seq)),
                Kind::Ping => Header::new(Kind::Pong, header.seq).append(&[], &mut self.output),
                // Handlers here end before the next frame is looked at, and echoing to nobody has
                // no effect.
                Kind::Cancel | Kind::Notify | Kind::Pong => {}
                Kind::Bye => return (used, Next::Close),
                _ => {
                    let message = "only calls, acknowledgements and pings are taken here";
                    Refusal::new(Code::Protocol, message).append(0, &mut self.output);
                    return (used, Next::Close);
                }
            }
        }
    }

    fn sort_request(&mut self, at: Range<usize>, header: Header) {
        let body = &self.input[at.start + header.kind.header_bytes()..at.end];
        if header.flags.not_understood() != 0 {
            let refusal = Refusal::new(Code::Unsupported, "a flag that is not understood here");
            return refusal.append(header.seq, &mut self.output);
        }
        if let Err(error) = scan(body, &self.shared.scan_limits) {
            let refusal = Refusal::new(Code::Malformed, error.to_string());
            return refusal.append(header.seq, &mut self.output);
        }
        let digest = self.shared.digest_key.digest(header.method, body);
        self.steps.push(Step::Request { at, header, digest });
    }

    /// Takes the steps: decides under the lock, runs outside it, records under it again.
    fn run_batch(&mut self, session: SessionKey) -> io::Result<Next> {
        if self.steps.is_empty() {
            return Ok(Next::Continue);
        }
        let now = Instant::now();
        let next = self.admit(session, now);
        let mut calls = mem::take(&mut self.calls);
        let mut recorded = 0;
        for at in 0..calls.len() {
            if calls[at].is_slow && recorded < at {
                // What is answered already does not wait for it.
                self.record(&calls[recorded..at], now);
                self.send()?;
                recorded = at;
            }
            let arguments = &self.input[calls[at].arguments.clone()];
            calls[at].answer = answer(&calls[at], arguments, &mut self.output);
        }
        self.record(&calls[recorded..], now);
        calls.clear();
        self.calls = calls;
        Ok(next)
    }

    /// Records answers that stand in the output, under one lock.
    fn record(&self, calls: &[Call], now: Instant) {
        if calls.is_empty() {
            return;
        }
        let mut table = self.shared.table();
        for call in calls {
            match call.answer.clone() {
                Some(at) => {
                    let frame = &self.output[at];
                    let answer = match frame.len() {
                        0..=REPLY_COPY_BYTES_MAX => Answer::Copied(frame),
                        _ => Answer::Shared(Bytes::copy_from_slice(frame)),
                    };
                    // The session has one connection, this one, and an answer that was given up
                    // meanwhile does no harm on it.
                    table.complete(call.key, answer, now);
                }
                None => {
                    let refusal = Refusal::new(Code::BadArguments, "told already");
                    table.withdraw(call.key, &refusal, now);
                }
            }
        }
    }

    /// Writes what is in the output.
    fn send(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Decides on every step under one lock.
    fn admit(&mut self, session: SessionKey, now: Instant) -> Next {
        let mut table = self.shared.table();
        let mut next = Next::Continue;
        for step in self.steps.drain(..) {
            let (at, header, digest) = match step {
                Step::Request { at, header, digest } => (at, header, digest),
                Step::Ack(seq) => {
                    if let Err(refusal) = table.acknowledge(session, seq) {
                        refusal.append(0, &mut self.output);
                        next = Next::Close;
                    }
                    continue;
                }
            };
            let arguments = at.start + header.kind.header_bytes()..at.end;
            let is_slow = header.method == self.shared.slow;
            let request = Request {
                frame: &Frame { header, body: &self.input[arguments.clone()] },
                connection: self.number,
                digest,
                is_idempotent: false,
                is_transactional: false,
                refusal: (!is_slow && header.method != self.shared.echo).then_some(Code::NoMethod),
            };
            match table.admit(session, &request, now) {
                Admission::Run(key) => {
                    let seq = header.seq;
                    self.calls.push(Call { key, seq, is_slow, arguments, answer: None });
                }
                Admission::Again(frame) => self.output.extend_from_slice(frame),
                Admission::Refuse(refusal) => refusal.append(header.seq, &mut self.output),
                Admission::Wait => {}
                Admission::Close(refusal) => {
                    refusal.append(header.seq, &mut self.output);
                    next = Next::Close;
                }
            }
        }
        next
    }

    fn close(&self) {
        if let Some(session) = self.session {
            self.shared.table().close(session, Instant::now());
        }
    }
}

/// Runs the handler and appends its answer to `output`; returns where it is, or `None` if the
/// arguments did not fit and a refusal was appended.
#[inline]
fn answer(call: &Call, arguments: &[u8], output: &mut Vec<u8>) -> Option<Range<usize>> {
    let payload = match call.is_slow {
        false => <(Bin<'_>,)>::decode_args(arguments).map(|(payload,)| payload),
        true => <(u32, Bin<'_>)>::decode_args(arguments).map(|(time_us, payload)| {
            service::wait(time_us);
            payload
        }),
    };
    match payload {
        Ok(payload) => {
            let start = Header::new(Kind::Reply, call.seq).begin(output);
            payload.encode(output).expect("bytes encode into a Vec");
            frame::finish(output, start);
            Some(start..output.len())
        }
        Err(error) => {
            Refusal::new(Code::BadArguments, error.to_string()).append(call.seq, output);
            None
        }
    }
}
