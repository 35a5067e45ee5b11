//! The layout of a frame, and nothing else: numbers at offsets.
//!
//! Every frame begins with the same sixteen bytes; REQUEST and NOTIFY add twenty more. The length
//! is big-endian, so that a frame below 16 MiB starts with a zero byte and can never be taken for a
//! MessagePack array; every other number is little-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | `length`: bytes that follow this field, big-endian |
//! | 4 | 1 | [`Kind`] |
//! | 5 | 1 | reserved, zero |
//! | 6 | 2 | [`Flags`] |
//! | 8 | 8 | `seq`: the xid's number; in ACK and BYE the acknowledgement; in PING and PONG a label |
//! | 16 | 8 | `ack` (REQUEST, NOTIFY): every seq up to this one is consumed or burnt |
//! | 24 | 8 | `method` (REQUEST, NOTIFY): [`MethodId`] |
//! | 32 | 4 | `time_left_ms` (REQUEST, NOTIFY): 2³²−1 = no deadline, 0 = passed |

use std::fmt;

/// What each side sends first, before its first frame.
pub const MAGIC: [u8; 8] = *b"onceloop";
/// The version of the protocol this crate speaks.
pub const VERSION: u16 = 1;
/// Bytes of the `length` field, which does not count itself.
pub const LENGTH_BYTES: usize = 4;
/// Bytes before the body in every frame but REQUEST and NOTIFY.
pub const HEADER_BYTES: usize = 16;
/// Bytes before the body in REQUEST and NOTIFY.
pub const CALL_HEADER_BYTES: usize = 36;
/// `time_left_ms` of a call without a deadline.
pub const NO_DEADLINE_MS: u32 = u32::MAX;
/// Sequence numbers end here: a larger one is an error of the peer.
pub const SEQ_MAX: u64 = 1 << 63;

/// The number a method goes by on the wire: a 64-bit hash of its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodId(pub u64);

impl MethodId {
    /// Returns the id of the method called `name` (`service.method`): FNV-1a, 64 bits.
    ///
    /// Source: Fowler, Noll, Vo, *The FNV Non-Cryptographic Hash Algorithm*. It runs at compile
    /// time; a collision among a server's methods is refused when the server starts.
    pub const fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            i += 1;
        }
        MethodId(hash)
    }
}

impl fmt::Debug for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MethodId({:016x})", self.0)
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// Client: opens a session.
    Hello = 1,
    /// Server: the session is open.
    Welcome = 2,
    /// Client: comes back to a session on a new connection.
    Resume = 3,
    /// Server: what became of each call of the session.
    Resumed = 4,
    /// Client: run a method.
    Request = 5,
    /// Server: the handler's result.
    Reply = 6,
    /// Server: the call failed, and whether it ran; `seq` 0 speaks of the connection.
    Error = 7,
    /// Client: run a method and answer nothing.
    Notify = 8,
    /// Client: every seq up to `seq` is consumed or burnt.
    Ack = 9,
    /// Client: the caller of `seq` no longer waits.
    Cancel = 10,
    /// Either: are you there?
    Ping = 11,
    /// Either: yes.
    Pong = 12,
    /// Server: no new calls here; what is running is answered.
    GoAway = 13,
    /// Client: `seq` is its last acknowledgement; the session is over.
    Bye = 14,
    /// Reserved for a part of a large body.
    Chunk = 15,
}

impl Kind {
    /// Returns the kind with this number, if there is one.
    #[inline]
    pub const fn from_wire(number: u8) -> Option<Kind> {
        Some(match number {
            1 => Kind::Hello,
            2 => Kind::Welcome,
            3 => Kind::Resume,
            4 => Kind::Resumed,
            5 => Kind::Request,
            6 => Kind::Reply,
            7 => Kind::Error,
            8 => Kind::Notify,
            9 => Kind::Ack,
            10 => Kind::Cancel,
            11 => Kind::Ping,
            12 => Kind::Pong,
            13 => Kind::GoAway,
            14 => Kind::Bye,
            15 => Kind::Chunk,
            _ => return None,
        })
    }

    /// Returns how many bytes stand before the body.
    #[inline]
    pub const fn header_bytes(self) -> usize {
        match self {
            Kind::Request | Kind::Notify => CALL_HEADER_BYTES,
            _ => HEADER_BYTES,
        }
    }
}

/// The flags of a frame. A peer refuses a frame with a low bit (0–7) it does not know, and ignores
/// high bits (8–15) it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// REQUEST: outside the xid table; `seq` is only a label. For idempotent methods.
    pub const UNPROTECTED: Flags = Flags(1);
    /// Reserved: the body is one part of a larger one.
    pub const CHUNKED: Flags = Flags(1 << 1);
    /// Reserved: the call goes from server to client, and `seq` counts in that direction.
    pub const REVERSE: Flags = Flags(1 << 2);
    /// Reserved: a block of metadata stands before the body.
    pub const METADATA: Flags = Flags(1 << 3);
    /// The bits a peer must understand or refuse.
    pub const CRITICAL: Flags = Flags(0x00ff);
    /// The critical bits that this version understands.
    pub const UNDERSTOOD: Flags = Flags::UNPROTECTED;

    /// Returns whether every bit of `other` is set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the critical bits this version does not understand, as a number; 0 if there is none.
    pub const fn not_understood(self) -> u16 {
        self.0 & Flags::CRITICAL.0 & !Flags::UNDERSTOOD.0
    }
}

/// The fields before a frame's body. Those that a kind does not carry are zero (`time_left_ms`:
/// [`NO_DEADLINE_MS`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Its flags.
    pub flags: Flags,
    /// The xid's number, an acknowledgement, or a label: see the table above.
    pub seq: u64,
    /// Every seq up to this one is consumed or burnt.
    pub ack: u64,
    /// Which method.
    pub method: MethodId,
    /// Milliseconds the caller will still wait, from when the frame was sent.
    pub time_left_ms: u32,
}

impl Header {
    /// Returns the header of a frame without a call's fields.
    pub const fn new(kind: Kind, seq: u64) -> Header {
        Header {
            kind,
            flags: Flags::NONE,
            seq,
            ack: 0,
            method: MethodId(0),
            time_left_ms: NO_DEADLINE_MS,
        }
    }

    /// Appends the header of a frame to `out`, its length not yet known, and returns where the
    /// frame starts. The body is appended next; [`finish`] then writes the length.
    #[inline]
    pub fn begin(&self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let mut bytes = [0; CALL_HEADER_BYTES];
        bytes[4] = self.kind as u8;
        bytes[6..8].copy_from_slice(&self.flags.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ack.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.method.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.time_left_ms.to_le_bytes());
        out.extend_from_slice(&bytes[..self.kind.header_bytes()]);
        start
    }

    /// Appends a whole frame with this header and `body` to `out`.
    ///
    /// # Panics
    /// If the frame is 4 GiB or longer.
    #[inline]
    pub fn append(&self, body: &[u8], out: &mut Vec<u8>) {
        let start = self.begin(out);
        out.extend_from_slice(body);
        finish(out, start);
    }

    /// Reads the header at the front of a whole frame; `frame` starts with the length field.
    ///
    /// Returns `None` if the kind is unknown or the frame is shorter than its kind's header.
    #[inline]
    pub fn read(frame: &[u8]) -> Option<Header> {
        let fixed: &[u8; HEADER_BYTES] = frame.first_chunk()?;
        Self::read_of(Kind::from_wire(fixed[4])?, frame)
    }

    /// Reads the header at the front of a frame of a known kind. Returns `None` if the frame is shorter
    /// than that.
    #[inline]
    pub(crate) fn read_of(kind: Kind, frame: &[u8]) -> Option<Header> {
        let fixed: &[u8; HEADER_BYTES] = frame.first_chunk()?;
        let mut header = Header::new(kind, u64_at(fixed, 8));
        header.flags = Flags(u16::from_le_bytes([fixed[6], fixed[7]]));
        if kind.header_bytes() == CALL_HEADER_BYTES {
            let call: &[u8; CALL_HEADER_BYTES] = frame.first_chunk()?;
            header.ack = u64_at(call, 16);
            header.method = MethodId(u64_at(call, 24));
            header.time_left_ms = u32::from_le_bytes([call[32], call[33], call[34], call[35]]);
        }
        Some(header)
    }
}

/// Writes the length of the frame that starts at `start` and ends where `out` ends.
///
/// # Panics
/// If the frame is 4 GiB or longer.
#[inline]
pub fn finish(out: &mut [u8], start: usize) {
    let length = out.len() - start - LENGTH_BYTES;
    let length = u32::try_from(length).expect("bodies are bounded far below 4 GiB");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Writes `ack` and `time_left_ms` into a kept REQUEST that is sent again: the only fields that may
/// differ between two copies.
///
/// # Panics
/// If `request` is shorter than the header of a call.
#[inline]
pub fn restamp(request: &mut [u8], ack: u64, time_left_ms: u32) {
    request[16..24].copy_from_slice(&ack.to_le_bytes());
    request[32..36].copy_from_slice(&time_left_ms.to_le_bytes());
}

/// Writes `seq` into a kept REQUEST that is about to be sent for the first time.
///
/// # Panics
/// If `request` is shorter than a header.
pub fn number(request: &mut [u8], seq: u64) {
    request[8..16].copy_from_slice(&seq.to_le_bytes());
}

/// A frame in place: its header, decoded, and its body where it was read.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The fields before the body.
    pub header: Header,
    /// The body, not yet scanned.
    pub body: &'a [u8],
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_went() {
        let mut header = Header::new(Kind::Request, 7);
        header.flags = Flags::UNPROTECTED;
        header.ack = 6;
        header.method = MethodId::of("calc.add");
        header.time_left_ms = 1_500;
        let mut out = vec![0xff];
        let start = header.begin(&mut out);
        out.extend_from_slice(&[0x92, 3, 4]);
        finish(&mut out, start);
        assert_eq!(out.len(), 1 + CALL_HEADER_BYTES + 3);
        assert_eq!(out[1..5], [0, 0, 0, 35]);
        assert_eq!(Header::read(&out[1..]), Some(header));
    }

    #[test]
    fn a_short_or_unknown_frame_has_no_header() {
        let mut out = Vec::new();
        Header::new(Kind::Reply, 1).append(&[0xc0], &mut out);
        assert!(Header::read(&out[..HEADER_BYTES - 1]).is_none());
        out[4] = Kind::Request as u8;
        assert!(Header::read(&out).is_none(), "a request needs 36 bytes");
        out[4] = 99;
        assert!(Header::read(&out).is_none());
    }

    #[test]
    fn only_unknown_critical_flags_are_refused() {
        assert_eq!(Flags::UNPROTECTED.not_understood(), 0);
        assert_eq!(Flags(0x8000).not_understood(), 0, "an ignorable bit");
        assert_eq!(Flags::METADATA.not_understood(), Flags::METADATA.0);
    }
}
