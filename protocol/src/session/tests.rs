//! A session against a server played by hand, in virtual time.

mod acknowledging;
mod answering;
mod connecting;
mod direct;
mod doubting;
mod hedging;
mod journaling;
mod lease;
mod regressions;
mod resuming;
mod retrying;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::*;
use crate::codec::{decode_whole, encode};
use crate::error::{Class, ErrorBody};
use crate::frame::{Frame, LENGTH_BYTES, MAGIC};
use crate::handshake::{CellReport, Hello, Resumed, ServerLimits, Sid, Welcome};

const METHOD: MethodId = MethodId::of("test.method");
const SID: Sid = Sid { place: 1, secret: 2 };

type Ended = Option<(u32, Answer<'static>)>;

/// A session, the time, and what it has written and the server has not read.
struct Bench {
    session: Session<u32>,
    now: Instant,
    out: Vec<u8>,
}

/// A frame that the session has sent.
struct Sent {
    header: Header,
    body: Vec<u8>,
    bytes: Vec<u8>,
}

impl Bench {
    fn new(limits: Limits) -> Bench {
        Bench::at(Instant::now(), limits)
    }

    fn at(now: Instant, limits: Limits) -> Bench {
        let session = Session::new(limits, Order::Unordered, None, 7, now);
        Bench { session, now, out: Vec::new() }
    }

    /// Returns a bench whose session is ready, with a window of 4.
    fn ready() -> Bench {
        let mut bench = Bench::new(Limits { window: 4, ..Limits::default() });
        bench.welcome();
        bench
    }

    fn welcome(&mut self) {
        self.session.on_connected(self.now, &mut self.out);
        assert_eq!(self.kinds(), [Kind::Hello]);
        let limits = ServerLimits::of(&Limits::default());
        let welcome = Welcome { version: 1, features: 0, sid: SID, window: 4, limits };
        assert_eq!(self.frame(Kind::Welcome, 0, &encode(&welcome).unwrap()), Ok(None));
    }

    /// Loses the connection, makes another, and answers its RESUME.
    fn resume(&mut self, floor: u64, reports: &[CellReport]) {
        self.disconnect();
        self.session.on_connected(self.now, &mut self.out);
        assert_eq!(self.kinds(), [Kind::Resume]);
        self.resumed(floor, reports);
    }

    /// Answers a RESUME.
    fn resumed(&mut self, floor: u64, reports: &[CellReport]) {
        let resumed = Resumed {
            version: 1,
            features: 0,
            floor,
            window: 4,
            cells: Resumed::pack(reports.iter().copied()),
            limits: ServerLimits::of(&Limits::default()),
        };
        assert_eq!(self.frame(Kind::Resumed, 0, &encode(&resumed).unwrap()), Ok(None));
    }

    fn disconnect(&mut self) {
        self.out.clear();
        self.session.on_disconnected("reset by peer", self.now);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.session.on_deadline(self.now).unwrap();
    }

    /// Lets time pass in which the server is heard but says nothing of a call.
    fn alive(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + millis(500));
            self.session.on_bytes(self.now);
            self.session.on_deadline(self.now).unwrap();
        }
    }

    fn spec(&self, semantics: Semantics) -> CallSpec {
        let deadline = Some(self.now + Duration::from_secs(30));
        CallSpec { semantics, idempotent: true, deadline, ..CallSpec::new(METHOD) }
    }

    fn call(&mut self, attached: u32) -> CallKey {
        self.call_with(attached, self.spec(Semantics::ExactlyOnce))
    }

    fn call_with(&mut self, attached: u32, spec: CallSpec) -> CallKey {
        let body = encode(&(attached,)).unwrap();
        self.session
            .call(spec, attached, |out| {
                out.extend_from_slice(&body);
                Ok::<(), Infallible>(())
            })
            .unwrap()
    }

    fn try_call(&mut self, attached: u32, bytes: usize) -> Result<CallKey, (u32, Fault)> {
        let spec = self.spec(Semantics::ExactlyOnce);
        self.session.call(spec, attached, |out| {
            out.resize(out.len() + bytes, 0xc0);
            Ok::<(), Infallible>(())
        })
    }

    /// Transmits, and returns all that was written since it was last asked.
    fn sent(&mut self) -> Vec<Sent> {
        self.session.transmit(self.now, &mut self.out);
        let out = std::mem::take(&mut self.out);
        parse(&out)
    }

    fn kinds(&mut self) -> Vec<Kind> {
        self.sent().iter().map(|sent| sent.header.kind).collect()
    }

    /// Transmits, and returns the seqs of the requests that this wrote; nothing else may.
    fn requested(&mut self) -> Vec<u64> {
        let request = |sent: Sent| {
            assert_eq!(sent.header.kind, Kind::Request);
            sent.header.seq
        };
        self.sent().into_iter().map(request).collect()
    }

    fn frame(&mut self, kind: Kind, seq: u64, body: &[u8]) -> Result<Ended, Fault> {
        let frame = Frame { header: Header::new(kind, seq), body };
        let ended = self.session.on_frame(&frame, self.now, &mut self.out)?;
        Ok(ended.map(|(attached, answer)| (attached, owned(answer))))
    }

    fn reply(&mut self, seq: u64) -> Result<Ended, Fault> {
        self.frame(Kind::Reply, seq, &[0xc0])
    }

    fn error(&mut self, seq: u64, code: Code, retry_after_ms: Option<u32>) -> Result<Ended, Fault> {
        let mut body = ErrorBody::new(code, "because");
        body.retry_after_ms = retry_after_ms;
        self.frame(Kind::Error, seq, &encode(&body).unwrap())
    }

    /// Returns the calls that ended without a frame, and by which kind of outcome.
    fn ended(&mut self) -> Vec<(u32, &'static str, Option<Code>)> {
        let ended = std::iter::from_fn(|| self.session.next_ended());
        ended.map(|(attached, answer)| outcome(attached, &answer)).collect()
    }
}

/// Cuts what was written into its frames.
fn parse(out: &[u8]) -> Vec<Sent> {
    let mut rest = out.strip_prefix(&MAGIC).unwrap_or(out);
    let mut frames = Vec::new();
    while let Some(header) = Header::read(rest) {
        let length = u32::from_be_bytes(rest[..LENGTH_BYTES].try_into().unwrap());
        let (frame, after) = rest.split_at(length as usize + LENGTH_BYTES);
        let body = frame[header.kind.header_bytes()..].to_vec();
        frames.push(Sent { header, body, bytes: frame.to_vec() });
        rest = after;
    }
    assert!(rest.is_empty());
    frames
}

/// Replies are told apart by their kind only; a test that looks at bytes calls the session itself.
fn owned(answer: Answer<'_>) -> Answer<'static> {
    match answer {
        Answer::Reply(_) => Answer::Reply(&[]),
        Answer::Application(details) => Answer::Application(details.into_owned().into()),
        Answer::Executed(fault) => Answer::Executed(fault),
        Answer::NotExecuted(fault) => Answer::NotExecuted(fault),
        Answer::Indeterminate(fault) => Answer::Indeterminate(fault),
    }
}

fn outcome(attached: u32, answer: &Answer<'_>) -> (u32, &'static str, Option<Code>) {
    match answer {
        Answer::Reply(_) => (attached, "reply", None),
        Answer::Application(_) => (attached, "application", None),
        Answer::Executed(fault) => (attached, "executed", fault.code),
        Answer::NotExecuted(fault) => (attached, "not executed", fault.code),
        Answer::Indeterminate(fault) => (attached, "indeterminate", fault.code),
    }
}

/// Returns the outcome of the call that a frame has ended.
#[track_caller]
fn ending(ended: Result<Ended, Fault>) -> (u32, &'static str, Option<Code>) {
    let (attached, answer) = ended.expect("no fault").expect("the frame ends a call");
    outcome(attached, &answer)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
