//! The few frames that the bench makes by hand, of the real protocol.

use bytes::Bytes;
use onceloop_protocol::frame::{
    Flags, HEADER_BYTES, Header, Kind, LENGTH_BYTES, MAGIC, MethodId, VERSION,
};
use onceloop_protocol::handshake::{Hello, Order, ServerLimits, Sid, Welcome};
use onceloop_protocol::limits::Limits;
use onceloop_protocol::method::Method;
use serde::Serialize;

use crate::service::bench;

/// Bytes of the longest frame that the bench sends or takes: its largest payload is 1 MiB.
pub(crate) const FRAME_BYTES_MAX: usize = (1 << 20) + 4096;

/// Returns what a client sends first: the magic and HELLO.
pub(crate) fn hello(window: u32) -> Vec<u8> {
    let body =
        Hello { version: VERSION, features: 0, window, order: Order::Unordered, token: None };
    greeting(Kind::Hello, &rmp_serde::to_vec_named(&body).expect("plain data is encoded"))
}

/// Returns what a server answers: the magic and WELCOME.
pub(crate) fn welcome(window: u32) -> Vec<u8> {
    let body = Welcome {
        version: VERSION,
        features: 0,
        sid: Sid { place: 0, secret: 0 },
        window,
        limits: ServerLimits::of(&Limits::default()),
    };
    greeting(Kind::Welcome, &rmp_serde::to_vec_named(&body).expect("plain data is encoded"))
}

fn greeting(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    Header::new(kind, 0).append(body, &mut out);
    out
}

/// Returns a call of [`bench::echo`] with a byte string of `payload` bytes, to be given its seq and ack
/// by [`stamp`].
pub(crate) fn request(payload: usize, flags: Flags) -> Vec<u8> {
    call(bench::echo.id(), &(some_bytes(payload),), flags)
}

/// Returns a call of [`bench::slow`], as [`request`] does.
pub(crate) fn slow_request(payload: usize, time_us: u32) -> Vec<u8> {
    call(bench::slow.id(), &(time_us, some_bytes(payload)), Flags::NONE)
}

fn some_bytes(count: usize) -> Bytes {
    Bytes::from(vec![0xa5; count])
}

fn call(method: MethodId, arguments: &impl Serialize, flags: Flags) -> Vec<u8> {
    let body = rmp_serde::to_vec(arguments).expect("plain data is encoded");
    let mut header = Header::new(Kind::Request, 0);
    header.method = method;
    header.flags = flags;
    let mut out = Vec::new();
    header.append(&body, &mut out);
    out
}

/// Writes `seq` and `ack` into a ready-made request.
#[inline]
pub(crate) fn stamp(request: &mut [u8], seq: u64, ack: u64) {
    request[8..16].copy_from_slice(&seq.to_le_bytes());
    request[16..24].copy_from_slice(&ack.to_le_bytes());
}

/// Returns a frame that is all header.
pub(crate) fn bare(kind: Kind, seq: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    Header::new(kind, seq).append(&[], &mut out);
    out
}

/// What stands at the front of some bytes.
pub(crate) enum Front<'a> {
    /// A whole frame of so many bytes, beginning with this header.
    Frame(&'a [u8; HEADER_BYTES], usize),
    /// The beginning of one, or nothing.
    Part,
    /// No frame that this bench would see.
    Broken,
}

/// Returns the header of the frame that begins with `bytes`, and its length, if so much has come.
#[inline]
pub(crate) fn announced(bytes: &[u8]) -> Option<(&[u8; HEADER_BYTES], usize)> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    Some((header, length + LENGTH_BYTES))
}

/// Returns what stands at the front of `bytes`.
#[inline]
pub(crate) fn front(bytes: &[u8]) -> Front<'_> {
    let Some((header, length)) = announced(bytes) else { return Front::Part };
    if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&length) {
        Front::Broken
    } else if length <= bytes.len() {
        Front::Frame(header, length)
    } else {
        Front::Part
    }
}

/// Returns the seq of a frame.
#[inline]
pub(crate) fn seq(header: &[u8; HEADER_BYTES]) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = *header;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_request_is_a_frame_of_the_protocol() {
        let mut frame = request(300, Flags::UNPROTECTED);
        stamp(&mut frame, 7, 5);
        let header = Header::read(&frame).expect("a header");
        assert_eq!((header.kind, header.seq, header.ack), (Kind::Request, 7, 5));
        assert_eq!((header.method, header.flags), (bench::echo.id(), Flags::UNPROTECTED));
        let body = &frame[Kind::Request.header_bytes()..];
        let (payload,): (Bytes,) = rmp_serde::from_slice(body).expect("an array of one bin");
        assert_eq!(payload.len(), 300);
        match front(&frame) {
            Front::Frame(header, length) => assert_eq!((seq(header), length), (7, frame.len())),
            _ => panic!("a whole frame"),
        }
        let slow = slow_request(300, 5_000);
        let header = Header::read(&slow).expect("a header");
        assert_eq!((header.kind, header.method), (Kind::Request, bench::slow.id()));
        let body = &slow[Kind::Request.header_bytes()..];
        let (time_us, payload): (u32, Bytes) = rmp_serde::from_slice(body).expect("two values");
        assert_eq!((time_us, payload.len()), (5_000, 300));
        assert!(matches!(front(&frame[..frame.len() - 1]), Front::Part));
        assert!(matches!(front(b"GET / HTTP/1.1\r\n\r\n"), Front::Broken));
        assert!(matches!(front(&[0; HEADER_BYTES]), Front::Broken));
    }

    #[test]
    fn a_canned_welcome_reads_as_one() {
        let bytes = welcome(1024);
        assert_eq!(bytes[..MAGIC.len()], MAGIC);
        let body = &bytes[MAGIC.len() + HEADER_BYTES..];
        let welcome: Welcome = rmp_serde::from_slice(body).expect("a WELCOME");
        assert_eq!((welcome.version, welcome.window), (VERSION, 1024));
    }
}
