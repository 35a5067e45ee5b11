//! What a client writes down, so that it can come back under the same name after a crash.
//!
//! A [`Journal`] is sans-IO: a session appends [`Record`]s and commits them; whoever implements the
//! journal says later, when asked with the time, up to where all is safe. A session sends nothing
//! that is not safe in its journal, and acknowledges nothing whose consumption is not.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use super::Semantics;
use crate::frame::{CALL_HEADER_BYTES, Header, MethodId};
use crate::handshake::Sid;
use crate::table::store::Lsn;

/// Where a client's sessions are written down.
///
/// Of what was committed a crash leaves a prefix: a record that survives has all earlier ones before
/// it, and of one commit all records survive or none.
pub trait Journal {
    /// Takes the journal for this incarnation of the client, and returns what was written before.
    /// Called once, before anything else. No other incarnation can have it until this is dropped.
    ///
    /// # Errors
    /// [`JournalError::InUse`] if another incarnation has it.
    fn recover(&mut self) -> Result<Recovered, JournalError>;

    /// Appends a record to the open commit.
    fn append(&mut self, record: &Record<'_>);

    /// Ends the open commit, and returns its position. It is not safe yet.
    fn commit(&mut self, now: Instant) -> Lsn;

    /// Returns up to where everything is safe: it survives any crash.
    ///
    /// # Errors
    /// The journal cannot go on; it stays so.
    fn poll_safe(&mut self, now: Instant) -> Result<Lsn, JournalError>;

    /// Returns when [`Journal::poll_safe`] may have news; `None` only if all that was committed is
    /// safe, or will never be.
    fn next_deadline(&self) -> Option<Instant>;
}

/// Why a journal cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalError {
    /// It could not be written or read.
    Failed(String),
    /// Another incarnation of the client has it.
    InUse,
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Failed(why) => write!(f, "the client's journal failed: {why}"),
            JournalError::InUse => {
                f.write_str("the client's journal is in use by another incarnation of the client")
            }
        }
    }
}

impl std::error::Error for JournalError {}

/// One fact of a client's session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'a> {
    /// A call was given its seq. Safe before it is sent for the first time.
    Call {
        /// Its seq; one above the last.
        seq: u64,
        /// How often it may be sent.
        semantics: Semantics,
        /// What its caller knows it by.
        tag: u64,
        /// The whole frame, as it is sent.
        request: Cow<'a, [u8]>,
    },
    /// A call was consumed or burnt. Safe before an acknowledgement passes it.
    Ended {
        /// Its seq.
        seq: u64,
    },
    /// A client came back to the session of the last [`Record::Session`]. Safe before its RESUME.
    Incarnation(u32),
    /// The session is given up; nothing written before is of use any more.
    Lost,
    /// The server opened a session; nothing written before is of use any more.
    Session(Opened),
}

impl Record<'_> {
    /// Returns the record with bytes of its own.
    pub fn into_owned(self) -> Record<'static> {
        match self {
            Record::Call { seq, semantics, tag, request } => {
                Record::Call { seq, semantics, tag, request: Cow::Owned(request.into_owned()) }
            }
            Record::Ended { seq } => Record::Ended { seq },
            Record::Incarnation(incarnation) => Record::Incarnation(incarnation),
            Record::Lost => Record::Lost,
            Record::Session(opened) => Record::Session(opened),
        }
    }
}

/// A session as its server opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its identity.
    pub sid: Sid,
    /// Calls that may be unacknowledged.
    pub window: u32,
    /// Milliseconds it outlives its last connection.
    pub lease_ms: u64,
}

/// What a journal holds: the sum of its records.
///
/// A journal that is read from its beginning replays each record; one that is compacted keeps this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    session: Option<Opened>,
    incarnation: u32,
    /// The highest seq given out.
    last_seq: u64,
    /// Calls that have not ended, by seq.
    calls: BTreeMap<u64, Kept>,
}

/// A call that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) semantics: Semantics,
    pub(super) tag: u64,
    pub(super) request: Vec<u8>,
}

impl Recovered {
    /// Adds a record to the sum.
    pub fn replay(&mut self, record: &Record<'_>) {
        match record {
            Record::Call { seq, semantics, tag, request } => {
                self.last_seq = self.last_seq.max(*seq);
                let kept = Kept { semantics: *semantics, tag: *tag, request: request.to_vec() };
                self.calls.insert(*seq, kept);
            }
            Record::Ended { seq } => {
                self.calls.remove(seq);
            }
            Record::Incarnation(incarnation) => self.incarnation = *incarnation,
            Record::Lost => *self = Recovered::default(),
            Record::Session(opened) => {
                *self = Recovered { session: Some(*opened), ..Recovered::default() };
            }
        }
    }

    /// Returns the records whose sum this is: what a compacted journal is written as.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let session = self.session.map(Record::Session);
        let incarnation = (self.incarnation > 0).then_some(Record::Incarnation(self.incarnation));
        let calls = self.calls.iter().map(|(&seq, kept)| Record::Call {
            seq,
            semantics: kept.semantics,
            tag: kept.tag,
            request: Cow::Borrowed(&kept.request),
        });
        // The highest seq has to be known even if its call has ended.
        let last = (self.last_seq > 0 && !self.calls.contains_key(&self.last_seq)).then(|| {
            let (seq, semantics) = (self.last_seq, Semantics::AtMostOnce);
            [
                Record::Call { seq, semantics, tag: 0, request: Cow::Borrowed(&[]) },
                Record::Ended { seq },
            ]
        });
        session.into_iter().chain(incarnation).chain(calls).chain(last.into_iter().flatten())
    }

    /// Returns how many calls have not ended.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Returns whether every call has ended.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn session(&self) -> Option<Opened> {
        self.session
    }

    /// Returns whether it is what one session can have written, of a window of at most `window_max`.
    pub(super) fn is_sound(&self, window_max: u32) -> bool {
        let Some(opened) = self.session else { return self.calls.is_empty() };
        let oldest = self.calls.keys().next().copied().unwrap_or(self.last_seq + 1);
        let span = (self.last_seq + 1).saturating_sub(oldest);
        (1..=window_max).contains(&opened.window) && oldest > 0 && span <= opened.window.into()
    }

    pub(super) fn incarnation(&self) -> u32 {
        self.incarnation
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub(super) fn into_calls(self) -> BTreeMap<u64, Kept> {
        self.calls
    }
}

/// A call that an earlier incarnation of the client made and did not finish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveredCall {
    /// Which method.
    pub method: MethodId,
    /// How often it may be sent.
    pub semantics: Semantics,
    /// What its caller knew it by.
    pub tag: u64,
    /// Its arguments, as MessagePack.
    pub args: Vec<u8>,
}

impl RecoveredCall {
    pub(super) fn of(kept: &Kept) -> RecoveredCall {
        let header = Header::read(&kept.request);
        RecoveredCall {
            method: header.map_or(MethodId(0), |header| header.method),
            semantics: kept.semantics,
            tag: kept.tag,
            args: kept.request.get(CALL_HEADER_BYTES..).unwrap_or_default().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(seq: u64) -> Record<'static> {
        let request = vec![u8::try_from(seq).unwrap(); 3].into();
        Record::Call { seq, semantics: Semantics::ExactlyOnce, tag: seq, request }
    }

    #[test]
    fn a_compacted_journal_says_the_same() {
        let sid = Sid { place: 1, secret: 2 };
        let mut recovered = Recovered::default();
        let records = [
            call(1),
            Record::Session(Opened { sid, window: 4, lease_ms: 600 }),
            Record::Incarnation(3),
            call(1),
            call(2),
            call(3),
            Record::Ended { seq: 3 },
            Record::Ended { seq: 1 },
        ];
        for record in &records {
            recovered.replay(record);
        }
        assert_eq!((recovered.len(), recovered.last_seq(), recovered.incarnation()), (1, 3, 3));
        let mut again = Recovered::default();
        for record in recovered.records() {
            again.replay(&record);
        }
        assert_eq!(again, recovered);
        again.replay(&Record::Lost);
        assert_eq!(again, Recovered::default());
    }
}
