//! One frame of each kind, as the protocol's version 1 has it. `golden.rs` holds their bytes against
//! what they have always been, `document.rs` against what docs/PROTOCOL.md says.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use onceloop_protocol::codec::{Decode, Encode, EncodeArgs, decode_scanned};
use onceloop_protocol::cutter::{Cut, Cutter};
use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::{self, Header, Kind, MAGIC, MethodId};
use onceloop_protocol::handshake::{
    CellReport, Hello, Order, Resume, Resumed, ServerLimits, Sid, Welcome,
};
use onceloop_protocol::scan::ScanLimits;
use onceloop_protocol::value::Value;

/// A frame and what it is called.
pub(crate) struct Example {
    pub(crate) name: &'static str,
    header: Header,
    body: Body,
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Args(Vec<Value>),
    Empty,
    Error(ErrorBody<'static>),
    Hello(Hello),
    Resume(Resume),
    Resumed(Resumed),
    Value(Value),
    Welcome(Welcome),
}

impl Example {
    /// Returns the frame as this version writes it.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let start = self.header.begin(&mut out);
        match &self.body {
            Body::Args(args) => args.encode_args(&mut out),
            Body::Empty => Ok(()),
            Body::Error(body) => body.encode(&mut out),
            Body::Hello(body) => body.encode(&mut out),
            Body::Resume(body) => body.encode(&mut out),
            Body::Resumed(body) => body.encode(&mut out),
            Body::Value(body) => body.encode(&mut out),
            Body::Welcome(body) => body.encode(&mut out),
        }
        .expect("encodes");
        frame::finish(&mut out, start);
        out
    }

    /// Asserts that this version reads `bytes` as the example.
    pub(crate) fn read(&self, bytes: &[u8]) {
        let stream = [&MAGIC, bytes].concat();
        let mut input = &stream[..];
        let Cut::Frame(frame) = Cutter::new().next(&mut input, bytes.len()) else {
            panic!("{}: not one frame", self.name);
        };
        assert!(input.is_empty(), "{}: more than one frame", self.name);
        assert_eq!(frame.header, self.header, "{}", self.name);
        let body = match &self.body {
            Body::Args(_) => match body(frame.body) {
                Value::Array(args) => Body::Args(args),
                other => panic!("{}: {other} are no arguments", self.name),
            },
            Body::Empty => {
                assert!(frame.body.is_empty(), "{}", self.name);
                Body::Empty
            }
            Body::Error(_) => {
                let read: ErrorBody<'_> = body(frame.body);
                let message = Cow::Owned(read.message.into_owned());
                let details = read.details.map(|details| Cow::Owned(details.into_owned()));
                Body::Error(ErrorBody { message, details, ..read })
            }
            Body::Hello(_) => Body::Hello(body(frame.body)),
            Body::Resume(_) => Body::Resume(body(frame.body)),
            Body::Resumed(_) => Body::Resumed(body(frame.body)),
            Body::Value(_) => Body::Value(body(frame.body)),
            Body::Welcome(_) => Body::Welcome(body(frame.body)),
        };
        assert_eq!(body, self.body, "{}", self.name);
    }
}

fn body<'a, T: Decode<'a>>(bytes: &'a [u8]) -> T {
    decode_scanned(bytes, &ScanLimits::default()).expect("well-formed and of its type")
}

/// Returns bytes as pairs of digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// Returns the bytes that pairs of digits stand for; white space does not matter.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text}");
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("digits are ASCII");
            u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{pair} is no byte"))
        })
        .collect()
}

fn server_limits() -> ServerLimits {
    ServerLimits {
        body_bytes_max: 1_052_672,
        depth_max: 32,
        elements_max: 65_536,
        lease_ms: 600_000,
    }
}

fn sid() -> Sid {
    Sid { place: 7, secret: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff }
}

fn call(kind: Kind, seq: u64, ack: u64, method: &str, time_left_ms: u32) -> Header {
    let mut header = Header::new(kind, seq);
    (header.ack, header.method, header.time_left_ms) = (ack, MethodId::of(method), time_left_ms);
    header
}

/// Returns an example of each kind of frame; of ERROR, one of each shape.
pub(crate) fn examples() -> Vec<Example> {
    let mut all = Vec::new();
    let mut add = |name, header, body| all.push(Example { name, header, body });
    add(
        "hello",
        Header::new(Kind::Hello, 0),
        Body::Hello(Hello {
            version: 1,
            features: 0,
            window: 128,
            order: Order::Unordered,
            token: None,
        }),
    );
    add(
        "hello-in-order",
        Header::new(Kind::Hello, 0),
        Body::Hello(Hello {
            version: 1,
            features: 0,
            window: 16,
            order: Order::InOrder,
            token: Some(Bytes::from_static(b"secret")),
        }),
    );
    add(
        "welcome",
        Header::new(Kind::Welcome, 0),
        Body::Welcome(Welcome {
            version: 1,
            features: 0,
            sid: sid(),
            window: 128,
            limits: server_limits(),
        }),
    );
    add(
        "resume",
        Header::new(Kind::Resume, 0),
        Body::Resume(Resume {
            version: 1,
            features: 0,
            sid: sid(),
            incarnation: 0,
            attachment: 2,
            ack: 40,
            join: false,
            token: None,
        }),
    );
    let cells = [CellReport::Finished, CellReport::Vacant, CellReport::Running];
    add(
        "resumed",
        Header::new(Kind::Resumed, 0),
        Body::Resumed(Resumed {
            version: 1,
            features: 0,
            floor: 40,
            window: 128,
            cells: Resumed::pack(cells),
            limits: server_limits(),
        }),
    );
    add(
        "request",
        call(Kind::Request, 1, 0, "calc.add", 1_500),
        Body::Args(vec![3.into(), 4.into()]),
    );
    let mut unprotected = call(Kind::Request, 1 << 62, 0, "calc.add", u32::MAX);
    unprotected.flags = frame::Flags::UNPROTECTED;
    add("request-unprotected", unprotected, Body::Args(vec![3.into(), 4.into()]));
    add("reply", Header::new(Kind::Reply, 1), Body::Value(7.into()));
    let application = ErrorBody {
        details: Some(Cow::Borrowed(b"\x81\xa6amount\x05")),
        ..ErrorBody::new(Code::ApplicationError, "not enough money")
    };
    add("error-application", Header::new(Kind::Error, 2), Body::Error(application));
    let busy = ErrorBody { retry_after_ms: Some(100), ..ErrorBody::new(Code::Busy, "no room") };
    add("error-busy", Header::new(Kind::Error, 3), Body::Error(busy));
    let window = ErrorBody { floor: Some(40), ..ErrorBody::new(Code::Window, "beyond") };
    add("error-window", Header::new(Kind::Error, 200), Body::Error(window));
    let protocol = ErrorBody::new(Code::Protocol, "a second HELLO");
    add("error-connection", Header::new(Kind::Error, 0), Body::Error(protocol));
    add(
        "notify",
        call(Kind::Notify, 0, 1, "log.write", u32::MAX),
        Body::Args(vec!["ready".into()]),
    );
    for (name, kind, seq) in [
        ("ack", Kind::Ack, 12),
        ("cancel", Kind::Cancel, 13),
        ("ping", Kind::Ping, 99),
        ("pong", Kind::Pong, 99),
        ("goaway", Kind::GoAway, 0),
        ("bye", Kind::Bye, 13),
    ] {
        add(name, Header::new(kind, seq), Body::Empty);
    }
    all
}
