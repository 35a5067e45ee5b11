//! What a server keeps beside its connections: a source without a descriptor, found by its id.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use onceloop_endpoint::Settings;
use onceloop_protocol::table::{CallKey, Principal, Table};
use onceloop_reactor::{Cx, Id, Input, Io, Peer, Pollable, Source};

use crate::acceptor::Acceptor;
use crate::drain::Drain;
use crate::durable::{self, AnyStore, OnFatal};
use crate::handler::Handlers;
use crate::peer::PeerConnection;
use crate::stats::Counts;

/// A callback for the cancellation of one call.
pub(crate) type OnCancel<S> = Box<dyn FnOnce(&mut Cx<'_, S>)>;

/// Tells who a peer is by the token it sent and its address.
pub(crate) type Authenticate = Box<dyn Fn(Option<&[u8]>, &Peer) -> Option<Principal>>;

/// A server: its table, its handlers, and where its connections and listeners are.
pub(crate) struct Core<S: 'static> {
    pub(crate) table: Table<AnyStore>,
    pub(crate) handlers: Rc<Handlers<S>>,
    pub(crate) settings: Rc<Settings>,
    pub(crate) keepalive: Option<std::time::Duration>,
    pub(crate) acceptors: Vec<Id<Acceptor<S>>>,
    /// How many more connections the listeners may accept.
    pub(crate) room: Rc<Cell<usize>>,
    pub(crate) authenticate: Option<Authenticate>,
    pub(crate) on_fatal: Option<OnFatal<S>>,
    /// Durable: what is safe is looked at later in this turn.
    pub(crate) is_settling: bool,
    /// The store failed: nothing is answered any more.
    pub(crate) has_failed: bool,
    pub(crate) on_cancel: BTreeMap<u64, OnCancel<S>>,
    pub(crate) drain: Option<Drain<S>>,
    /// Notifications whose deferred handlers have not ended.
    pub(crate) notifications_open: usize,
    pub(crate) counts: Counts,
}

impl<S> Core<S> {
    /// Takes the callback that waits for the cancellation of this call.
    pub(crate) fn take_on_cancel(&mut self, key: CallKey) -> Option<OnCancel<S>> {
        if self.on_cancel.is_empty() {
            return None;
        }
        self.on_cancel.remove(&key.to_bits())
    }
}

impl<S: 'static> Source<S> for Core<S> {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Nothing
    }

    fn handle_io(&mut self, _: &mut Io<'_>) {}

    fn dispatch(_: &mut Cx<'_, S>, _: Id<Self>, _: &mut Input<'_>) {}

    /// Leases of sessions end, and requests that waited too long for an earlier one are refused.
    fn on_deadline(cx: &mut Cx<'_, S>, id: Id<Self>) {
        let now = cx.registry.now();
        let Some(core) = cx.registry.get_mut(id) else { return };
        if core.has_failed {
            return;
        }
        let mut refused = Vec::new();
        core.table.expire(now, |connection, seq, refusal| {
            refused.push((connection, seq, refusal.clone()));
        });
        let (next, is_durable) = (core.table.next_deadline(), core.table.is_durable());
        cx.registry.set_deadline(id, next);
        for (connection, seq, refusal) in refused {
            let Some(connection) = connection.map(Id::<PeerConnection<S>>::from_bits) else {
                continue;
            };
            if let Some(peer) = cx.registry.get_mut(connection) {
                refusal.append(seq, peer.out());
                cx.registry.touch(connection);
            }
        }
        if is_durable {
            durable::release(cx, id);
        }
    }
}
