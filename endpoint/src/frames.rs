//! What is left of a batch of frames, and how far it may be run.

use onceloop_protocol::cutter::{Cut, Cutter};
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{Frame, Kind};
use onceloop_protocol::scan::{ScanError, ScanLimits, scan};
use onceloop_protocol::table::Refusal;

use crate::Connection;

/// The frames behind the one that a [`Role`](crate::Role) is given.
///
/// A role may take REQUESTs from it one by one, each when the one before it has run, instead of
/// returning to the connection for each: as long as the connection
/// [is unchanged](onceloop_reactor::Registry::is_unchanged) since the role was called, so that what
/// is remembered of it here still holds.
#[derive(Debug)]
pub struct Frames<'a> {
    pub(crate) unread: &'a [u8],
    /// `None` until something was cut; then the bytes of the refused frame that is being skipped,
    /// or 0.
    pub(crate) skips: Option<usize>,
    /// How many more may run in this turn.
    pub(crate) left: usize,
    /// How many bytes of answers may be waiting for another frame to be run. The rest is of the
    /// connection, too.
    room: usize,
    body_bytes_max: usize,
    scan_limits: ScanLimits,
    connection: u64,
}

/// What is wrong with a frame.
pub(crate) enum Fault {
    Body(ScanError),
    Flags(u16),
}

impl Fault {
    /// Returns what its sender is told.
    #[cold]
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Fault::Body(error) => Refusal::new(Code::Malformed, error.to_string()),
            Fault::Flags(unknown) => {
                let message = format!("the flags {unknown:#06x} are not understood here");
                Refusal::new(Code::Unsupported, message)
            }
        }
    }
}

impl<'a> Frames<'a> {
    /// Returns nothing: what stands behind a frame that was kept back.
    pub const fn none() -> Frames<'static> {
        Frames::new(&[], 0, 0)
    }

    /// Returns the frames of a batch, of which `left` may run.
    pub(crate) const fn new(unread: &'a [u8], left: usize, connection: u64) -> Frames<'a> {
        Frames {
            unread,
            skips: None,
            left,
            room: 0,
            body_bytes_max: 0,
            scan_limits: ScanLimits { depth_max: 0, elements_max: 0, bytes_max: 0 },
            connection,
        }
    }

    /// Remembers what the connection says, which has room for more output, and cuts a frame.
    #[inline]
    pub(crate) fn cut<R>(
        &mut self,
        connection: &mut Connection<R>,
        body_bytes_max: usize,
    ) -> Cut<'a> {
        self.room = connection.room();
        self.body_bytes_max = body_bytes_max;
        self.scan_limits = connection.settings.scan_limits;
        connection.cutter.next(&mut self.unread, body_bytes_max)
    }

    /// Returns whether there may be another REQUEST to take.
    #[inline]
    pub fn may_have_more(&self) -> bool {
        self.left > 0 && !self.unread.is_empty()
    }

    /// Takes the next frame, if it is a REQUEST with nothing wrong with it, and neither the turn's
    /// budget nor the output is full with `out_bytes` of answers. What is not taken comes by the
    /// connection.
    // The hot path calls it in one place: as a function of its own it costs 15 instructions more.
    #[inline(always)]
    pub fn next_request(&mut self, out_bytes: usize) -> Option<Frame<'a>> {
        if self.left == 0 || out_bytes > self.room {
            return None;
        }
        let mut rest = self.unread;
        // Behind a whole frame the connection's own cutter stands at the beginning of one, too.
        let Cut::Frame(frame) = Cutter::between_frames().next(&mut rest, self.body_bytes_max)
        else {
            return None;
        };
        if frame.header.kind != Kind::Request || self.check(&frame).is_err() {
            return None;
        }
        self.unread = rest;
        self.left -= 1;
        self.trace(&frame);
        Some(frame)
    }

    /// Tells why a frame must not be looked at any further.
    #[inline(always)]
    pub(crate) fn check(&self, frame: &Frame<'_>) -> Result<(), Fault> {
        let unknown = frame.header.flags.not_understood();
        if unknown != 0 {
            return Err(Fault::Flags(unknown));
        }
        if frame.body.is_empty() {
            return Ok(());
        }
        scan(frame.body, &self.scan_limits).map_err(Fault::Body)
    }

    #[inline]
    pub(crate) fn trace(&self, frame: &Frame<'_>) {
        let header = &frame.header;
        log::trace!("connection {}: {:?} seq {}", self.connection, header.kind, header.seq);
    }
}
