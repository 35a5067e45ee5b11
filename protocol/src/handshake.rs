//! The bodies of the four frames that begin a connection. All are named maps: a newer peer may add
//! fields, an older one ignores them.
//!
//! A connection's first frame is one HELLO or RESUME; the client sends nothing else before it has
//! read WELCOME or RESUMED.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Features that both ends name in the handshake; what is used is what both have. None is needed
/// by version 1.
pub type Features = u64;

/// The client keeps a journal, and will know its session after a crash.
///
/// In HELLO it is a statement that asks for nothing: a server with a durable table gives such a
/// session a longer lease, and any other may ignore it.
pub const JOURNAL: Features = 1;

/// The features that this version has. What the other end names beyond is dropped.
pub const FEATURES: Features = JOURNAL;

/// A session's identity: 128 random bits of the operating system, and where the server keeps it.
///
/// Whoever holds it may resume the session, so it is never printed whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sid {
    /// Where in the server's table; no secret.
    pub place: u64,
    /// The random bits.
    pub secret: u128,
}

impl Sid {
    /// Compares the secrets in a time that does not tell how many bits agree.
    pub fn is_same_secret(&self, other: &Sid) -> bool {
        std::hint::black_box(self.secret ^ other.secret) == 0
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid({:x}/{:04x}…)", self.place, self.secret >> 112)
    }
}

/// In which order a session's calls run.
///
/// Exhaustive: a further order would be a further version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As they come; none waits for another.
    #[default]
    Unordered,
    /// By seq: a call waits until every earlier one has ended.
    InOrder,
}

/// HELLO: opens a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The highest version the client speaks; it speaks every one below, too.
    pub version: u16,
    /// What the client can do beyond the version.
    #[serde(default)]
    pub features: Features,
    /// Calls it wants to have unacknowledged; the server may grant fewer.
    pub window: u32,
    /// In which order its calls run.
    #[serde(default)]
    pub order: Order,
    /// What proves who it is, where the server asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<bytes::Bytes>,
}

/// What a server tells its clients of its limits, so that a call which cannot succeed is refused
/// before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerLimits {
    /// Bytes of one body.
    pub body_bytes_max: u64,
    /// Nesting of one body.
    pub depth_max: u32,
    /// Elements of one body.
    pub elements_max: u32,
    /// Milliseconds a session outlives its last connection.
    pub lease_ms: u64,
}

impl ServerLimits {
    /// Returns what `limits` look like from outside.
    pub fn of(limits: &Limits) -> Self {
        ServerLimits {
            body_bytes_max: limits.body_bytes_max as u64,
            depth_max: u32::try_from(limits.depth_max).unwrap_or(u32::MAX),
            elements_max: u32::try_from(limits.elements_max).unwrap_or(u32::MAX),
            lease_ms: u64::try_from(limits.lease.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// WELCOME: the session is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version spoken from here on: the lower of the two.
    pub version: u16,
    /// What both ends can do beyond the version.
    #[serde(default)]
    pub features: Features,
    /// The session's identity, to resume it by.
    pub sid: Sid,
    /// Calls that may be unacknowledged.
    pub window: u32,
    /// What the server takes.
    pub limits: ServerLimits,
}

/// RESUME: comes back to a session on a new connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The highest version the client speaks.
    pub version: u16,
    /// What the client can do beyond the version.
    #[serde(default)]
    pub features: Features,
    /// Which session.
    pub sid: Sid,
    /// The client's incarnation: raised when it restarts from its journal.
    pub incarnation: u32,
    /// Raised for each connection of an incarnation; the server refuses one it has seen.
    pub attachment: u32,
    /// Every seq up to this one is consumed or burnt.
    pub ack: u64,
    /// Whether the session's other connection is to stay.
    #[serde(default)]
    pub join: bool,
    /// What proves who it is, where the server asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<bytes::Bytes>,
}

/// What became of one call, as RESUMED tells it in two bits.
///
/// Exhaustive: a fourth value of the two bits counts as `Finished`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CellReport {
    /// Nothing of it has passed the server's checks, and no copy sent earlier ever will.
    Vacant = 0,
    /// It is running or waiting for its turn.
    Running = 1,
    /// It has ended; its answer follows.
    Finished = 2,
}

/// RESUMED: what became of each call of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The version spoken from here on.
    pub version: u16,
    /// What both ends can do beyond the version.
    #[serde(default)]
    pub features: Features,
    /// The highest acknowledgement the server has seen.
    pub floor: u64,
    /// Calls that may be unacknowledged.
    pub window: u32,
    /// Two bits a call ([`CellReport`]), from `floor + 1` on, lowest bits first; calls past its end
    /// are vacant.
    pub cells: bytes::Bytes,
    /// What the server takes.
    pub limits: ServerLimits,
}

impl Resumed {
    /// Packs reports into `cells`, leaving out the vacant ones at the end.
    pub fn pack(reports: impl IntoIterator<Item = CellReport>) -> bytes::Bytes {
        let mut packed = Vec::new();
        for (i, report) in reports.into_iter().enumerate() {
            if report != CellReport::Vacant {
                packed.resize(i / 4 + 1, 0);
                packed[i / 4] |= (report as u8) << (i % 4 * 2);
            }
        }
        packed.into()
    }

    /// Returns what became of the call `seq`, which must be above the floor.
    pub fn report(&self, seq: u64) -> CellReport {
        let index = usize::try_from(seq.saturating_sub(self.floor + 1)).unwrap_or(usize::MAX);
        match self.cells.get(index / 4).map_or(0, |byte| byte >> (index % 4 * 2) & 3) {
            0 => CellReport::Vacant,
            1 => CellReport::Running,
            _ => CellReport::Finished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_packed_two_bits_each() {
        use CellReport::{Finished, Running, Vacant};
        let reports = [Vacant, Running, Finished, Vacant, Finished, Vacant];
        let resumed = Resumed {
            version: 1,
            features: 0,
            floor: 10,
            window: 8,
            cells: Resumed::pack(reports),
            limits: ServerLimits::of(&Limits::default()),
        };
        assert_eq!(resumed.cells.as_ref(), [0b0010_0100, 0b10]);
        for (i, report) in reports.into_iter().enumerate() {
            assert_eq!(resumed.report(11 + i as u64), report);
        }
        assert_eq!(resumed.report(u64::MAX), Vacant);
    }

    #[test]
    fn a_session_id_is_never_printed_whole() {
        let sid = Sid { place: 3, secret: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef };
        assert_eq!(format!("{sid:?}"), "Sid(3/0123…)");
    }
}
