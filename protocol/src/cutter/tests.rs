use super::*;
use crate::frame::{CALL_HEADER_BYTES, Flags, MethodId};

const BODY_BYTES_MAX: usize = 100;

/// What a cutter said, without the input's lifetime.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Frame(Header, Vec<u8>),
    Lost(FramingError),
    Refused(Header, usize),
}

fn request(seq: u64, body: usize) -> (Header, Vec<u8>) {
    let mut header = Header::new(Kind::Request, seq);
    header.ack = seq - 1;
    header.method = MethodId::of("calc.add");
    header.flags = Flags::UNPROTECTED;
    header.time_left_ms = 5;
    (header, vec![0x55; body])
}

/// A stream with frames of several kinds, one too large among them, and what is to be said of it.
fn stream() -> (Vec<u8>, Vec<Said>) {
    let mut bytes = MAGIC.to_vec();
    let mut said = Vec::new();
    let frames = [
        (Header::new(Kind::Hello, 0), vec![0x80]),
        request(1, BODY_BYTES_MAX),
        (Header::new(Kind::Ping, 7), vec![]),
        request(2, BODY_BYTES_MAX + 1),
        (Header::new(Kind::Reply, 2), vec![0x11; 1_000]),
        request(3, 0),
        (Header::new(Kind::Bye, 3), vec![]),
    ];
    for (header, body) in frames {
        header.append(&body, &mut bytes);
        said.push(match body.len() <= BODY_BYTES_MAX {
            true => Said::Frame(header, body),
            false => Said::Refused(header, body.len()),
        });
    }
    (bytes, said)
}

/// Takes all there is, and returns what the last `NeedMore` asked for; 0 after `Lost`.
fn drain(cutter: &mut Cutter, input: &mut &[u8], said: &mut Vec<Said>) -> usize {
    loop {
        match cutter.next(input, BODY_BYTES_MAX) {
            Cut::Frame(frame) => said.push(Said::Frame(frame.header, frame.body.to_vec())),
            Cut::Lost(error) => {
                said.push(Said::Lost(error));
                return 0;
            }
            Cut::NeedMore(bytes) => {
                assert!(bytes > input.len(), "{bytes} are there");
                return bytes;
            }
            Cut::Refused { header, length } => said.push(Said::Refused(header, length)),
        }
    }
}

fn lost(bytes: &[u8]) -> Option<FramingError> {
    match Cutter::new().next(&mut &*bytes, BODY_BYTES_MAX) {
        Cut::Lost(error) => Some(error),
        _ => None,
    }
}

/// The error for a frame that begins with `frame`, after the magic.
fn lost_after_magic(frame: &[u8]) -> Option<FramingError> {
    lost(&[&MAGIC, frame].concat())
}

#[test]
fn a_stream_comes_apart_into_frames() {
    let (bytes, expected) = stream();
    let mut said = Vec::new();
    let mut input = &bytes[..];
    assert_eq!(drain(&mut Cutter::new(), &mut input, &mut said), LENGTH_BYTES);
    assert_eq!(said, expected);
    assert!(input.is_empty());
}

#[test]
fn it_comes_apart_the_same_wherever_it_is_cut() {
    let (bytes, expected) = stream();
    for step in (1..=50).chain([1_000]) {
        let mut cutter = Cutter::new();
        let mut said = Vec::new();
        let mut kept = Vec::new();
        for piece in bytes.chunks(step) {
            kept.extend_from_slice(piece);
            let mut input = &kept[..];
            drain(&mut cutter, &mut input, &mut said);
            kept = input.to_vec();
            let longest = CALL_HEADER_BYTES + BODY_BYTES_MAX;
            assert!(kept.len() < longest, "a refused body is not kept: {}", kept.len());
        }
        assert_eq!(said, expected, "in pieces of {step}");
        assert!(kept.is_empty());
    }
}

#[test]
fn it_asks_for_no_more_than_the_frame() {
    let (bytes, expected) = stream();
    let mut cutter = Cutter::new();
    let mut said = Vec::new();
    let (mut from, mut to) = (0, 0);
    while to < bytes.len() {
        let mut input = &bytes[from..to];
        let needed = drain(&mut cutter, &mut input, &mut said);
        from = to - input.len();
        to = from + needed;
    }
    drain(&mut cutter, &mut &bytes[from..to], &mut said);
    assert_eq!((said, to), (expected, bytes.len()));
}

#[test]
fn a_stranger_is_known_by_its_first_bytes() {
    let cases: [(&[u8], Stranger); 12] = [
        (b"G", Stranger::Http),
        (b"GET / HTTP/1.1\r\n", Stranger::Http),
        (b"PRI * HTTP/2.0\r\n", Stranger::Http),
        (b"HTTP/1.1 400 Bad Request", Stranger::Http),
        (b"GARBAGE", Stranger::Other(b'G')),
        (&[0x16, 3, 1], Stranger::Tls),
        (&[0x93], Stranger::MessagePackRpc),
        (&[0x94, 0, 1], Stranger::MessagePackRpc),
        (&[0xdc], Stranger::MessagePackRpc),
        (&[0xdd], Stranger::MessagePackRpc),
        (b"once more", Stranger::Other(b'o')),
        (&[0], Stranger::Other(0)),
    ];
    for (bytes, stranger) in cases {
        assert_eq!(lost(bytes), Some(FramingError::Stranger(stranger)), "{bytes:x?}");
    }
    let line = FramingError::Stranger(Stranger::Http).to_string();
    assert_eq!(line, "not Onceloop, but HTTP");
    assert!(lost(b"").is_none() && lost(b"once").is_none());
}

#[test]
fn framing_is_lost_by_a_header_that_makes_no_sense() {
    let frame = |length: u32, kind: u8, reserved: u8| {
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend([kind, reserved]);
        frame.resize(64, 0);
        lost_after_magic(&frame)
    };
    assert_eq!(frame(12, Kind::Ping as u8, 0), None);
    assert_eq!(frame(11, Kind::Ping as u8, 0), Some(FramingError::TooShort { bytes: 15 }));
    assert_eq!(frame(31, Kind::Request as u8, 0), Some(FramingError::TooShort { bytes: 35 }));
    assert_eq!(frame(32, Kind::Request as u8, 0), None);
    for kind in [0, 16, 255] {
        assert_eq!(frame(12, kind, 0), Some(FramingError::UnknownKind { kind }));
    }
    assert_eq!(frame(12, Kind::Ping as u8, 1), Some(FramingError::Reserved { byte: 1 }));
    let longest = u32::try_from(FRAME_SKIP_BYTES_MAX - LENGTH_BYTES).expect("256 MiB");
    assert_eq!(frame(longest, Kind::Reply as u8, 0), None);
    let too_long = FramingError::TooLong { bytes: FRAME_SKIP_BYTES_MAX + 1 };
    assert_eq!(frame(longest + 1, Kind::Reply as u8, 0), Some(too_long));
    assert_eq!(lost_after_magic(&[0, 0, 0, 3]), Some(FramingError::TooShort { bytes: 7 }));
}

#[test]
fn the_magic_comes_once() {
    let again = [MAGIC, MAGIC].concat();
    // `once` read as a length is more than anybody skips; the header is awaited first.
    let mut cutter = Cutter::new();
    let mut input = &again[..];
    assert!(matches!(cutter.next(&mut input, BODY_BYTES_MAX), Cut::NeedMore(HEADER_BYTES)));
    let mut said = Vec::new();
    let bytes = [&again[..], &[0; 64]].concat();
    drain(&mut Cutter::new(), &mut &bytes[..], &mut said);
    assert!(matches!(said[..], [Said::Lost(FramingError::UnknownKind { .. })]));
}

#[test]
fn the_limit_may_change_between_frames() {
    let mut bytes = MAGIC.to_vec();
    Header::new(Kind::Hello, 0).append(&[1; 10], &mut bytes);
    Header::new(Kind::Reply, 1).append(&[2; 10], &mut bytes);
    let mut cutter = Cutter::new();
    let mut input = &bytes[..];
    assert!(matches!(cutter.next(&mut input, 10), Cut::Frame(_)));
    assert!(matches!(cutter.next(&mut input, 9), Cut::Refused { length: 10, .. }));
}

#[test]
fn a_cutter_is_small() {
    assert!(size_of::<Cutter>() <= 4);
}
