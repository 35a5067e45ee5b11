//! What a server does with a connection's bytes between a read and a write: bytes in, bytes out.
//!
//! The servers that stand for a way of serving (a thread, a task or a fiber for each connection) are
//! all this, and differ in how they come by the bytes: the same protocol, with the same table of
//! xids, scan and codec as the event loop's server, so that a comparison shows the way and nothing
//! else. The table is behind one mutex: a batch is decided on under one lock, its handlers run
//! outside it, and their answers are recorded under a second one. Scan and digest are outside the
//! lock, too. Before a handler that waits, what is answered already is recorded and written; how to
//! wait is the server's affair ([`Next::Wait`]).
//!
//! There is less to do here than in the event loop's server in three things, which no figure of this
//! bench shows: a session ends with its connection (RESUME is refused), calls run as they come (a
//! session in order is refused), and there are no deadlines after the handshake.

#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

use super::input::Input;
use crate::frames::{self, Front};
use crate::service::bench;

/// What all connections of a server share.
pub(super) struct Shared {
    table: Mutex<Table>,
    /// The table's, so that digests are made outside the lock.
    digest_key: DigestKey,
    scan_limits: ScanLimits,
    handshake_timeout: Duration,
    echo: MethodId,
    slow: MethodId,
    /// Connections so far.
    connections: AtomicU64,
}

impl Shared {
    pub(super) fn new(limits: Limits) -> io::Result<Shared> {
        let random = random_bytes()?;
        Ok(Shared {
            connections: AtomicU64::new(0),
            digest_key: DigestKey::new(random),
            scan_limits: ScanLimits::of(&limits),
            handshake_timeout: limits.handshake_timeout,
            echo: bench::echo.id(),
            slow: bench::slow.id(),
            table: Mutex::new(Table::new(limits, random)),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No handler runs under the lock: what panics there is a bug of the table, and then every
        // later answer would be as wrong as the first.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random_bytes() -> io::Result<[u8; 16]> {
    let mut random = [0; 16];
    let length = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    if length < random.len() {
        return Err(io::Error::other(format!("the system gave {length} random bytes of 16")));
    }
    Ok(random)
}

/// What a connection's bytes go through. A connection that has answered all and holds no unfinished
/// frame needs none: all of it is empty then.
pub(super) struct Buffers {
    /// Where to read to.
    pub(super) input: Input,
    /// What to write.
    pub(super) output: Vec<u8>,
    steps: Vec<Step>,
    batch: Batch,
}

impl Buffers {
    pub(super) fn new() -> Buffers {
        Buffers {
            input: Input::new(),
            output: Vec::new(),
            steps: Vec::new(),
            batch: Batch { calls: Vec::new(), now: Instant::now(), used: 0, is_last: false },
        }
    }
}

/// One frame of a batch that has something to do with the table.
enum Step {
    /// REQUEST at this place of the input.
    Request { at: Range<usize>, header: Header, digest: u64 },
    /// Every seq up to this one is consumed.
    Ack(u64),
}

/// Whole frames that were read together.
struct Batch {
    /// Those that are admitted and not answered.
    calls: Vec<Call>,
    /// When they were read, or a wait was over.
    now: Instant,
    /// Bytes of the frames, at the front of the input.
    used: usize,
    /// The connection ends with it.
    is_last: bool,
}

/// A call that is admitted, and its answer in the output once there is one.
struct Call {
    key: CallKey,
    seq: u64,
    is_slow: bool,
    /// Microseconds that its handler is still to wait.
    wait_us: Option<u32>,
    arguments: Range<usize>,
    /// `None`: the arguments did not fit, and the refusal is in the output.
    answer: Option<Range<usize>>,
}

/// A call whose handler waits beside its connection, which goes on meanwhile.
pub(super) struct Aside {
    call: Call,
    arguments: Vec<u8>,
}

/// What is to be done once the output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read.
    Continue,
    Close,
    /// A handler blocks for so many microseconds, and the rest of the batch is behind it:
    /// [`Session::resume`] after them, or [`Session::set_aside`].
    Wait(u32),
}

/// A connection's session, which ends when this is dropped.
pub(super) struct Session {
    shared: Arc<Shared>,
    number: u64,
    /// `None` until the client has greeted.
    key: Option<SessionKey>,
}

impl Session {
    /// Returns the session of a new connection, to be opened by its client's greeting.
    pub(super) fn new(shared: &Arc<Shared>) -> Session {
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        Session { shared: shared.clone(), number, key: None }
    }

    /// Returns how long the client may take to greet.
    pub(super) fn handshake_timeout(&self) -> Duration {
        self.shared.handshake_timeout
    }

    /// Returns whether the client has greeted and was taken.
    pub(super) fn is_open(&self) -> bool {
        self.key.is_some()
    }

    /// Takes the whole frames out of the input and appends what they are answered to the output.
    pub(super) fn take(&mut self, buffers: &mut Buffers) -> io::Result<Next> {
        let session = match self.key {
            Some(session) => session,
            None => match self.greet(buffers)? {
                Greeted::Unfinished => return Ok(Next::Continue),
                Greeted::Refused => return Ok(Next::Close),
                Greeted::Taken(session) => *self.key.insert(session),
            },
        };
        self.sort_frames(buffers);
        if !buffers.steps.is_empty() {
            buffers.batch.now = Instant::now();
            self.admit(session, buffers);
        }
        Ok(self.run(buffers))
    }

    /// Goes on after the wait of a handler.
    pub(super) fn resume(&mut self, buffers: &mut Buffers) -> Next {
        let Batch { calls, now, .. } = &mut buffers.batch;
        calls[0].wait_us = None;
        *now = Instant::now();
        self.run(buffers)
    }

    /// Goes on beside a handler that waits, which is to be [finished](Session::finish) later.
    pub(super) fn set_aside(&mut self, buffers: &mut Buffers) -> (Aside, Next) {
        let call = buffers.batch.calls.remove(0);
        let arguments = buffers.input.filled()[call.arguments.clone()].to_vec();
        (Aside { call, arguments }, self.run(buffers))
    }

    /// Answers a call that was set aside.
    pub(super) fn finish(&mut self, aside: Aside, output: &mut Vec<u8>) {
        let Aside { mut call, arguments } = aside;
        call.answer = answer(&call, &arguments, output);
        self.record([call], output, Instant::now());
    }

    /// Answers the magic and HELLO.
    fn greet(&self, buffers: &mut Buffers) -> io::Result<Greeted> {
        let received = buffers.input.filled();
        if !received.starts_with(&MAGIC[..received.len().min(MAGIC.len())]) {
            return Ok(Greeted::Refused);
        }
        let end = match frames::front(received.get(MAGIC.len()..).unwrap_or_default()) {
            Front::Frame(header, length) if header[4] == Kind::Hello as u8 => MAGIC.len() + length,
            Front::Part => return Ok(Greeted::Unfinished),
            Front::Frame(..) | Front::Broken => return Ok(Greeted::Refused),
        };
        let body = &received[MAGIC.len() + HEADER_BYTES..end];
        buffers.output.extend_from_slice(&MAGIC);
        let opened = match decode_scanned::<Hello>(body, &self.shared.scan_limits) {
            Ok(hello) if hello.order == Order::Unordered => {
                let secret = u128::from_le_bytes(random_bytes()?);
                let now = Instant::now();
                self.shared.table().open(&hello, secret, self.number, Principal::ANYONE, now)
            }
            Ok(_) => Err(Refusal::new(Code::Unsupported, "calls are not kept in order here")),
            Err(error) => Err(Refusal::new(Code::Malformed, error.to_string())),
        };
        match opened {
            Ok((session, welcome)) => {
                let welcome = welcome.ok_or_else(|| io::Error::other("a durable table"))?;
                let start = Header::new(Kind::Welcome, 0).begin(&mut buffers.output);
                welcome.encode(&mut buffers.output).map_err(io::Error::other)?;
                frame::finish(&mut buffers.output, start);
                buffers.input.consume(end);
                Ok(Greeted::Taken(session))
            }
            Err(refusal) => {
                refusal.append(0, &mut buffers.output);
                Ok(Greeted::Refused)
            }
        }
    }

    /// Sorts the whole frames of the input into steps; answers those that need no table.
    fn sort_frames(&self, buffers: &mut Buffers) {
        let Buffers { input, output, steps, batch } = buffers;
        (batch.used, batch.is_last) = (0, false);
        while !batch.is_last {
            let rest = &input.filled()[batch.used..];
            let length = match frames::front(rest) {
                Front::Part => return,
                Front::Broken => return batch.is_last = true,
                Front::Frame(_, length) => length,
            };
            let at = batch.used..batch.used + length;
            batch.used += length;
            let Some(header) = Header::read(&rest[..length]) else { return batch.is_last = true };
            match header.kind {
                Kind::Request => match self.check(&header, &rest[..length]) {
                    Ok(digest) => steps.push(Step::Request { at, header, digest }),
                    Err(refusal) => refusal.append(header.seq, output),
                },
                Kind::Ack => steps.push(Step::Ack(header.seq)),
                Kind::Ping => Header::new(Kind::Pong, header.seq).append(&[], output),
                // Handlers here end before the next frame is looked at, and echoing to nobody has
                // no effect.
                Kind::Cancel | Kind::Notify | Kind::Pong => {}
                Kind::Bye => batch.is_last = true,
                _ => {
                    let message = "only calls, acknowledgements and pings are taken here";
                    Refusal::new(Code::Protocol, message).append(0, output);
                    batch.is_last = true;
                }
            }
        }
    }

    /// Returns the digest of a request that is well-formed.
    fn check(&self, header: &Header, frame: &[u8]) -> Result<u64, Refusal> {
        if header.flags.not_understood() != 0 {
            return Err(Refusal::new(Code::Unsupported, "a flag that is not understood here"));
        }
        let body = &frame[header.kind.header_bytes()..];
        scan(body, &self.shared.scan_limits)
            .map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
        Ok(self.shared.digest_key.digest(header.method, body))
    }

    /// Decides on every step, under one lock.
    fn admit(&self, session: SessionKey, buffers: &mut Buffers) {
        let Buffers { input, output, steps, batch } = buffers;
        let mut table = self.shared.table();
        for step in steps.drain(..) {
            let (at, header, digest) = match step {
                Step::Request { at, header, digest } => (at, header, digest),
                Step::Ack(seq) => {
                    if let Err(refusal) = table.acknowledge(session, seq) {
                        refusal.append(0, output);
                        batch.is_last = true;
                    }
                    continue;
                }
            };
            let arguments = at.start + header.kind.header_bytes()..at.end;
            let body = &input.filled()[arguments.clone()];
            let is_slow = header.method == self.shared.slow;
            let is_known = is_slow || header.method == self.shared.echo;
            let request = Request {
                frame: &Frame { header, body },
                connection: self.number,
                digest,
                is_idempotent: false,
                is_transactional: false,
                refusal: (!is_known).then_some(Code::NoMethod),
            };
            match table.admit(session, &request, batch.now) {
                Admission::Run(key) => {
                    let (seq, wait_us) = (header.seq, if is_slow { wait_us(body) } else { None });
                    batch.calls.push(Call { key, seq, is_slow, wait_us, arguments, answer: None });
                }
                Admission::Again(frame) => output.extend_from_slice(frame),
                Admission::Refuse(refusal) => refusal.append(header.seq, output),
                Admission::Wait => {}
                Admission::Close(refusal) => {
                    refusal.append(header.seq, output);
                    batch.is_last = true;
                }
            }
        }
    }

    /// Runs the handlers up to one that waits, outside the lock, and records their answers.
    fn run(&self, buffers: &mut Buffers) -> Next {
        let Buffers { input, output, batch, .. } = buffers;
        let mut ended = 0;
        for call in batch.calls.iter_mut().take_while(|call| call.wait_us.is_none()) {
            call.answer = answer(call, &input.filled()[call.arguments.clone()], output);
            ended += 1;
        }
        if ended > 0 {
            self.record(batch.calls.drain(..ended), output, batch.now);
        }
        if let Some(wait_us) = batch.calls.first().and_then(|call| call.wait_us) {
            return Next::Wait(wait_us);
        }
        input.consume(batch.used);
        if batch.is_last { Next::Close } else { Next::Continue }
    }

    /// Records answers that stand in `output`, under one lock.
    fn record(&self, calls: impl IntoIterator<Item = Call>, output: &[u8], now: Instant) {
        let mut table = self.shared.table();
        for call in calls {
            match call.answer {
                Some(at) => {
                    let frame = &output[at];
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
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(session) = self.key {
            self.shared.table().close(session, Instant::now());
        }
    }
}

/// What becomes of a client that has not greeted yet.
enum Greeted {
    /// More of its greeting is to come.
    Unfinished,
    Refused,
    Taken(SessionKey),
}

/// Returns the microseconds that the handler of a slow call waits, if its arguments fit.
#[cold]
fn wait_us(arguments: &[u8]) -> Option<u32> {
    <(u32, Bin<'_>)>::decode_args(arguments).ok().map(|(wait_us, _)| wait_us)
}

/// Runs the handler, but for its wait, and appends its answer to `output`; returns where it is, or
/// `None` if the arguments did not fit and a refusal was appended.
#[inline]
fn answer(call: &Call, arguments: &[u8], output: &mut Vec<u8>) -> Option<Range<usize>> {
    let payload = match call.is_slow {
        false => <(Bin<'_>,)>::decode_args(arguments).map(|(payload,)| payload),
        true => <(u32, Bin<'_>)>::decode_args(arguments).map(|(_, payload)| payload),
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
