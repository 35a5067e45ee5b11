//! A connection as the server sees it: the handshake, then the frames of its session.

use std::fmt;

use onceloop_endpoint::{Closed, Connection, Frames, Role, close, finish};
use onceloop_protocol::codec;
use onceloop_protocol::cutter::FramingError;
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{self, Frame, Header, Kind, MAGIC};
use onceloop_protocol::handshake::{Hello, Resume, Resumed, Welcome};
use onceloop_protocol::table::{Cancelled, Principal, Refusal, SessionKey};
use onceloop_reactor::{Cx, Id, Peer as Address, Registry};

use crate::core::Core;
use crate::{acceptor, delivery, drain, durable, held, request};

/// A connection of a server.
pub(crate) type PeerConnection<S> = Connection<Peer<S>>;

/// The server's part in a connection. Every connection carries one, so it is packed.
pub(crate) struct Peer<S: 'static> {
    pub(crate) core: Id<Core<S>>,
    /// The session, once the handshake is done; before, a key that names none.
    session: SessionKey,
    /// [`IN_ORDER`] and [`WAITING`], or neither.
    state: u8,
}

/// The bits of a key that names no session.
const NO_SESSION: u64 = u64::MAX;
/// The session runs its calls in order: one that ends may let another run.
const IN_ORDER: u8 = 1;
/// The session is known, and nothing is said of it before it is safe: the handshake is not done.
const WAITING: u8 = 2;

impl<S> Peer<S> {
    /// Returns the part of a connection before its handshake.
    pub(crate) fn new(core: Id<Core<S>>) -> Self {
        Peer { core, session: SessionKey::from_bits(NO_SESSION), state: 0 }
    }

    /// Returns the session; `None` before the handshake is done.
    #[inline]
    pub(crate) fn session(&self) -> Option<SessionKey> {
        let is_done = self.session.to_bits() != NO_SESSION && self.state & WAITING == 0;
        is_done.then_some(self.session)
    }

    /// Returns the session that the table has attached this connection to, told or not.
    fn attached_session(&self) -> Option<SessionKey> {
        (self.session.to_bits() != NO_SESSION).then_some(self.session)
    }

    fn is_waiting(&self) -> bool {
        self.state & WAITING != 0
    }

    #[inline]
    fn is_in_order(&self) -> bool {
        self.state & IN_ORDER != 0
    }
}

impl<S> Clone for Peer<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Peer<S> {}

impl<S> fmt::Debug for Peer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("session", &self.session()).finish_non_exhaustive()
    }
}

impl<S: 'static> Role<S> for Peer<S> {
    fn is_established(&self) -> bool {
        self.session().is_some()
    }

    fn on_open(_: &mut Cx<'_, S>, _: Id<PeerConnection<S>>, _: &mut Vec<u8>) {}

    #[inline]
    fn on_frame(
        self,
        cx: &mut Cx<'_, S>,
        id: Id<PeerConnection<S>>,
        frame: &Frame<'_>,
        frames: &mut Frames<'_>,
        out: &mut Vec<u8>,
    ) {
        let peer = self;
        let Some(session) = peer.session() else { return handshake(cx, id, peer.core, frame, out) };
        match frame.header.kind {
            Kind::Request => {
                request::run(cx, id, &peer, session, frame, frames, out);
            }
            Kind::Notify => request::notify(cx, id, &peer, frame),
            Kind::Ack => acknowledge(cx, id, &peer, session, frame.header.seq, out),
            Kind::Cancel => cancel(cx, id, &peer, session, frame.header.seq, out),
            Kind::Bye => bye(cx, id, &peer, session, frame.header.seq),
            kind => {
                let message = format!("a {kind:?} frame has no place here");
                fail(cx, id, &Refusal::new(Code::Protocol, message), out);
            }
        }
    }

    fn run_waiting(
        self,
        cx: &mut Cx<'_, S>,
        id: Id<PeerConnection<S>>,
        count_max: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        match self.session() {
            Some(session) if self.is_in_order() => {
                held::run_held(cx, id, &self, session, count_max, out)
            }
            _ => false,
        }
    }

    fn on_refused(
        cx: &mut Cx<'_, S>,
        id: Id<PeerConnection<S>>,
        header: Header,
        refusal: Refusal,
        out: &mut Vec<u8>,
    ) {
        let Some(connection) = cx.registry.get(id) else { return };
        let core = connection.role().core;
        let is_established = connection.role().is_established();
        if let Some(core) = cx.registry.get_mut(core) {
            core.counts.frames_refused += 1;
        }
        match header.kind {
            Kind::Request if is_established => refusal.append(header.seq, out),
            Kind::Notify if is_established => {}
            _ => {
                if !is_established {
                    out.extend_from_slice(&MAGIC);
                }
                fail(cx, id, &refusal, out);
            }
        }
    }

    fn on_lost(
        cx: &mut Cx<'_, S>,
        id: Id<PeerConnection<S>>,
        error: &FramingError,
        out: &mut Vec<u8>,
    ) {
        let Some(connection) = cx.registry.get(id) else { return };
        log::warn!("{}: {error}", connection.stream().peer());
        let is_established = connection.role().is_established();
        if matches!(error, FramingError::Stranger(_)) {
            // Not our protocol: a sentence that a person at the other end can read.
            return out.extend_from_slice(error.refusal_for_strangers());
        }
        if !is_established {
            out.extend_from_slice(&MAGIC);
        }
        Refusal::new(Code::Protocol, error.to_string()).append(0, out);
    }

    fn is_owing(cx: &mut Cx<'_, S>, id: Id<PeerConnection<S>>) -> bool {
        let Some(connection) = cx.registry.get(id) else { return false };
        let peer = *connection.role();
        let Some(session) = peer.session() else { return false };
        cx.registry.get(peer.core).is_some_and(|core| core.table.is_owing(session))
    }

    fn on_closed(self, cx: &mut Cx<'_, S>, id: Id<PeerConnection<S>>, _: Closed) {
        let now = cx.registry.now();
        let Some(core) = cx.registry.get_mut(self.core) else { return };
        core.counts.connections_closed += 1;
        core.room.set(core.room.get() + 1);
        if let Some(session) = self.attached_session() {
            core.table.detach(session, id.to_bits(), now);
        }
        let next = core.table.next_deadline();
        let acceptors = core.acceptors.clone();
        cx.registry.set_deadline(self.core, next);
        for acceptor in acceptors {
            // There is room for another connection, and a descriptor.
            acceptor::look_again(cx.registry, acceptor);
        }
        drain::check(cx, self.core);
    }
}

/// Returns the connections of a server.
pub(crate) fn connections<S: 'static>(
    registry: &Registry<S>,
    core: Id<Core<S>>,
) -> Vec<Id<PeerConnection<S>>> {
    let all = registry.iter::<PeerConnection<S>>();
    all.filter(|(_, peer)| peer.role().core == core).map(|(id, _)| id).collect()
}

/// Tells the peer why, and closes the connection once that is written.
pub(crate) fn fail<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    refusal: &Refusal,
    out: &mut Vec<u8>,
) {
    fail_quietly(cx, id, refusal, &refusal.message, out);
}

/// As [`fail`], for a refusal whose message may quote what the peer sent: the log gets `why`.
fn fail_quietly<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    refusal: &Refusal,
    why: &str,
    out: &mut Vec<u8>,
) {
    let address = cx.registry.get(id).map_or(Address::Unknown, |peer| peer.stream().peer());
    log::warn!("connection {} of {address}: {}: {why}", id.to_bits(), refusal.code);
    refusal.append(0, out);
    finish(cx.registry, id, Closed::Protocol(why.to_owned()));
}

/// C0: the first frame is one HELLO or RESUME.
#[cold]
fn handshake<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    core: Id<Core<S>>,
    frame: &Frame<'_>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&MAGIC);
    let is_waiting = cx.registry.get(id).is_some_and(|peer| peer.role().is_waiting());
    let result = match frame.header.kind {
        // C0, also while the server has reason to keep silent.
        _ if is_waiting => {
            let message = "nothing may follow HELLO or RESUME before it is answered";
            Err(Refusal::new(Code::Protocol, message))
        }
        Kind::Hello => match codec::decode_whole(frame.body) {
            Ok(body) => hello(cx, id, core, &body, out),
            Err(error) => return unreadable(cx, id, "the HELLO does not read", &error, out),
        },
        Kind::Resume => match codec::decode_whole(frame.body) {
            Ok(body) => resume(cx, id, core, &body, out),
            Err(error) => return unreadable(cx, id, "the RESUME does not read", &error, out),
        },
        kind => {
            let message = format!("the first frame is HELLO or RESUME, not {kind:?}");
            Err(Refusal::new(Code::Protocol, message))
        }
    };
    if let Err(refusal) = result {
        return fail(cx, id, &refusal, out);
    }
    if cx.registry.get(id).is_some_and(|peer| peer.role().is_waiting()) {
        out.clear();
        return durable::settle(cx.registry, core);
    }
    // From here on answers may be queued beside `out`: the magic goes before them.
    if let Some(connection) = cx.registry.get_mut(id) {
        debug_assert!(connection.out().is_empty(), "nothing is said before the handshake");
        std::mem::swap(connection.out(), out);
        cx.registry.touch(id);
    }
}

/// The peer is told what is wrong with its HELLO; the log is not, since that may quote a token.
fn unreadable<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    what: &str,
    error: &codec::CodecError,
    out: &mut Vec<u8>,
) {
    let refusal = Refusal::new(Code::Protocol, format!("{what}: {error}"));
    fail_quietly(cx, id, &refusal, what, out);
}

fn hello<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    core: Id<Core<S>>,
    hello: &Hello,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let mut secret = [0; 16];
    if let Err(error) = cx.registry.random_bytes(&mut secret) {
        log::error!("the system gives no random bytes: {error}");
        return Err(Refusal::new(Code::Busy, "the server cannot make a session id now"));
    }
    let principal = authenticate(cx, id, core, hello.token.as_deref())?;
    let now = cx.registry.now();
    let Some(this) = cx.registry.get_mut(core) else { return Ok(()) };
    let secret = u128::from_le_bytes(secret);
    let (session, welcome) = this.table.open(hello, secret, id.to_bits(), principal, now)?;
    establish(cx, id, session, welcome.is_some());
    if let Some(welcome) = welcome {
        append(Kind::Welcome, &welcome, out);
    }
    Ok(())
}

fn resume<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    core: Id<Core<S>>,
    resume: &Resume,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let principal = authenticate(cx, id, core, resume.token.as_deref())?;
    let now = cx.registry.now();
    let Some(this) = cx.registry.get_mut(core) else { return Ok(()) };
    let resumption = this.table.resume(resume, id.to_bits(), principal, now)?;
    // Row 19b: with the source goes its batch, so that nothing of it is run from here on.
    for replaced in resumption.replaced {
        close(cx.registry, Id::<PeerConnection<S>>::from_bits(replaced), Closed::Local("resumed"));
    }
    establish(cx, id, resumption.session, resumption.resumed.is_some());
    if let Some(resumed) = resumption.resumed
        && let Some(this) = cx.registry.get_mut(core)
    {
        append(Kind::Resumed, &resumed, out);
        this.table.append_finished(resumption.session, out);
    }
    Ok(())
}

/// Asks the program who the peer is. Where it is not asked, everybody is anyone.
fn authenticate<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    core: Id<Core<S>>,
    token: Option<&[u8]>,
) -> Result<Principal, Refusal> {
    let Some(core) = cx.registry.get(core) else { return Ok(Principal::ANYONE) };
    let Some(authenticate) = &core.authenticate else { return Ok(Principal::ANYONE) };
    let peer = cx.registry.get(id).map_or(Address::Unknown, |peer| peer.stream().peer());
    authenticate(token, &peer).ok_or_else(|| {
        Refusal::new(Code::NotAuthorized, "the server does not take this peer, or its token")
    })
}

/// Notes the session of a connection. Until it `is_told` of it the handshake is not done.
fn establish<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    session: SessionKey,
    is_told: bool,
) {
    let Some(connection) = cx.registry.get(id) else { return };
    let core = connection.role().core;
    let is_in_order = cx.registry.get(core).is_some_and(|core| core.table.is_in_order(session));
    if let Some(connection) = cx.registry.get_mut(id) {
        let peer = connection.role_mut();
        peer.session = session;
        peer.state &= !WAITING;
        peer.state |= if is_in_order { IN_ORDER } else { 0 };
        peer.state |= if is_told { 0 } else { WAITING };
    }
}

/// The session is safe: WELCOME leaves.
pub(crate) fn welcome_late<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    session: SessionKey,
    welcome: &Welcome,
) {
    establish(cx, id, session, true);
    let mut out = cx.registry.take_buffer();
    out.extend_from_slice(&MAGIC);
    append(Kind::Welcome, welcome, &mut out);
    delivery::send(cx, id, out);
}

/// What the server must know of the client's return is safe: RESUMED leaves.
pub(crate) fn resumed_late<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    session: SessionKey,
    resumed: &Resumed,
) {
    establish(cx, id, session, true);
    let Some(connection) = cx.registry.get(id) else { return };
    let core = connection.role().core;
    let mut out = cx.registry.take_buffer();
    out.extend_from_slice(&MAGIC);
    append(Kind::Resumed, resumed, &mut out);
    if let Some(core) = cx.registry.get_mut(core) {
        core.table.append_finished(session, &mut out);
    }
    delivery::send(cx, id, out);
}

/// That the session is over is safe: its client is told.
pub(crate) fn refuse_late<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    refusal: &Refusal,
) {
    let mut out = cx.registry.take_buffer();
    out.extend_from_slice(&MAGIC);
    refusal.append(0, &mut out);
    delivery::send(cx, id, out);
    finish(cx.registry, id, Closed::Protocol(refusal.message.to_string()));
}

/// Appends a frame whose body is a named map.
fn append<T: codec::Encode>(kind: Kind, body: &T, out: &mut Vec<u8>) {
    let start = Header::new(kind, 0).begin(out);
    body.encode(out).expect("numbers and bytes encode into a Vec");
    frame::finish(out, start);
}

fn acknowledge<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    peer: &Peer<S>,
    session: SessionKey,
    ack: u64,
    out: &mut Vec<u8>,
) {
    let Some(core) = cx.registry.get_mut(peer.core) else { return };
    if let Err(refusal) = core.table.acknowledge(session, ack) {
        fail(cx, id, &refusal, out);
    }
    durable::settle(cx.registry, peer.core);
}

fn cancel<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    peer: &Peer<S>,
    session: SessionKey,
    seq: u64,
    out: &mut Vec<u8>,
) {
    let Some(core) = cx.registry.get_mut(peer.core) else { return };
    match core.table.cancel(session, seq) {
        Cancelled::Held { connection, refusal } if connection == id.to_bits() => {
            refusal.append(seq, out);
        }
        Cancelled::Held { connection, refusal } => {
            let mut frame = cx.registry.take_buffer();
            refusal.append(seq, &mut frame);
            delivery::send(cx, Id::from_bits(connection), frame);
        }
        Cancelled::Nothing => {}
        Cancelled::Running(key) => {
            core.counts.cancelled += 1;
            if let Some(on_cancel) = core.take_on_cancel(key) {
                on_cancel(cx);
            }
        }
    }
}

fn bye<S: 'static>(
    cx: &mut Cx<'_, S>,
    id: Id<PeerConnection<S>>,
    peer: &Peer<S>,
    session: SessionKey,
    ack: u64,
) {
    let now = cx.registry.now();
    let Some(core) = cx.registry.get_mut(peer.core) else { return };
    log::debug!("session {session:?} said goodbye at {ack}");
    for attached in core.table.close(session, now) {
        let attached = Id::<PeerConnection<S>>::from_bits(attached);
        finish(cx.registry, attached, Closed::Local("the client said goodbye"));
    }
    finish(cx.registry, id, Closed::Local("the client said goodbye"));
    durable::settle(cx.registry, peer.core);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_no_larger_than_it_was_designed() {
        // In debug builds mio adds a check of its own to each socket, and padding to the rest.
        let bytes_max = if cfg!(debug_assertions) { 96 } else { 72 };
        let bytes = size_of::<PeerConnection<()>>();
        assert!(bytes <= bytes_max, "{bytes}");
    }
}
