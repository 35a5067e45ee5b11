//! Requests of in-order sessions that were held: they run when their turn has come.

use onceloop_endpoint::Frames;
use onceloop_protocol::table::{HeldRequest, SessionKey};
use onceloop_reactor::{Cx, Id};

use crate::core::Core;
use crate::peer::{Peer, PeerConnection};
use crate::{delivery, request};

/// In-order session: runs at most `count_max` requests whose turn has come, as long as there is room
/// for their answers. Returns whether more could run at once.
pub(crate) fn run_held<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    peer: &Peer<S>,
    session: SessionKey,
    count_max: usize,
    out: &mut Vec<u8>,
) -> bool {
    for _ in 0..count_max {
        let Some(connection) = cx.registry.get(id) else { return false };
        if connection.is_finishing() || !connection.has_room_beside(out.len()) {
            return false;
        }
        let Some(held) = next_held(cx, peer.core, session) else { return false };
        if held.connection() == id.to_bits() {
            let begin = out.len();
            if request::run(cx, id, peer, session, &held.frame(), &mut Frames::none(), out) {
                refuse_copy(cx, &held, &out[begin..]);
            }
        } else {
            // What the other one answers here does not overtake what is answered already.
            if let Some(connection) = cx.registry.get_mut(id) {
                connection.out().append(out);
                cx.registry.touch(id);
            }
            run_by_other(cx, session, &held);
        }
    }
    true
}

/// In-order session: runs one request whose turn has come with a late answer, by the connection it
/// waits on; the others follow in that connection's own dispatch.
pub(crate) fn unblock<S: 'static>(cx: &mut Cx<'_, S>, core: Id<Core<S>>, session: SessionKey) {
    if let Some(held) = next_held(cx, core, session) {
        run_by_other(cx, session, &held);
    }
}

/// Runs a held request as if its own connection had its turn: what it is answered goes out there.
fn run_by_other<S: 'static>(cx: &mut Cx<'_, S>, session: SessionKey, held: &HeldRequest) {
    let id = Id::<PeerConnection<S>>::from_bits(held.connection());
    let Some(connection) = cx.registry.get(id) else { return };
    let peer = *connection.role();
    let mut out = cx.registry.take_buffer();
    if request::run(cx, id, &peer, session, &held.frame(), &mut Frames::none(), &mut out) {
        refuse_copy(cx, held, &out);
    }
    delivery::send(cx, id, out);
    cx.registry.wake(id);
}

/// A request that was held has been refused: the copy of it that came by the session's other
/// connection is refused, too.
fn refuse_copy<S: 'static>(cx: &mut Cx<'_, S>, held: &HeldRequest, refusal: &[u8]) {
    let Some(joined) = held.joined().map(Id::<PeerConnection<S>>::from_bits) else { return };
    let mut frame = cx.registry.take_buffer();
    frame.extend_from_slice(refusal);
    delivery::send(cx, joined, frame);
}

fn next_held<S: 'static>(
    cx: &mut Cx<'_, S>,
    core: Id<Core<S>>,
    session: SessionKey,
) -> Option<HeldRequest> {
    let now = cx.registry.now();
    let this = cx.registry.get_mut(core)?;
    let held = this.table.next_held(session, now);
    let deadline = this.table.next_deadline();
    cx.registry.set_deadline(core, deadline);
    held
}
