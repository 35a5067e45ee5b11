//! What a connection's frames mean at this end.

use std::time::Instant;

use onceloop_protocol::cutter::FramingError;
use onceloop_protocol::frame::{Frame, Header};
use onceloop_protocol::table::Refusal;
use onceloop_reactor::{Cx, Id};

use crate::{Closed, Connection, Frames};

/// One end's part in a connection.
///
/// All functions but the questions run in the task phase, with nothing borrowed: the connection is
/// in the registry under `id` as long as it lives, and any of them may remove it. `out` is written
/// at the end of the turn, whatever happens to the connection's own output meanwhile.
/// A role is small and copied: that spares a look at the connection for every frame.
pub trait Role<S: 'static>: Copy + 'static {
    /// Returns whether the handshake is done: until then a peer gets less time and less room.
    fn is_established(&self) -> bool;

    /// The connection that this end opened is there.
    fn on_open(cx: &mut Cx<'_, S>, id: Id<Connection<Self>>, out: &mut Vec<u8>);

    /// A whole frame came, within the limits, its body scanned, its critical flags understood. PING
    /// and PONG come here only before the handshake is done, where they have no place.
    ///
    /// REQUESTs that stand behind it may be taken from `frames` and run as well.
    fn on_frame(
        self,
        cx: &mut Cx<'_, S>,
        id: Id<Connection<Self>>,
        frame: &Frame<'_>,
        frames: &mut Frames<'_>,
        out: &mut Vec<u8>,
    );

    /// A frame came whose header is readable and whose body is too large or was refused by the
    /// scan; the body is skipped and the connection lives.
    fn on_refused(
        cx: &mut Cx<'_, S>,
        id: Id<Connection<Self>>,
        header: Header,
        refusal: Refusal,
        out: &mut Vec<u8>,
    );

    /// What came is not our protocol, from its first byte or from here on. What is put in `out` is
    /// the last thing the peer is told before the connection closes.
    fn on_lost(
        cx: &mut Cx<'_, S>,
        id: Id<Connection<Self>>,
        error: &FramingError,
        out: &mut Vec<u8>,
    );

    /// Runs at most `count_max` of the frames that this end has kept back and whose turn has come,
    /// as long as the connection [has room](Connection::has_room_beside) beside `out`. Returns
    /// whether more could run at once.
    ///
    /// Called after each batch, when the connection was woken, and when there is room again.
    fn run_waiting(
        self,
        cx: &mut Cx<'_, S>,
        id: Id<Connection<Self>>,
        count_max: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let _ = (cx, id, count_max, out);
        false
    }

    /// Returns whether an answer may still come for what the peer asked: after its FIN the
    /// connection waits for that.
    fn is_owing(cx: &mut Cx<'_, S>, id: Id<Connection<Self>>) -> bool;

    /// The connection is about to go; bytes last came at `received_at`. For a role that has to know
    /// that in [`Role::on_closed`].
    fn on_closing(&mut self, received_at: Instant) {
        let _ = received_at;
    }

    /// The connection is gone; `id` finds nothing any more. Called exactly once for each, in a turn
    /// after the one that closed it or in the same.
    fn on_closed(self, cx: &mut Cx<'_, S>, id: Id<Connection<Self>>, why: Closed);
}
