//! The second connection of a client: where copies of slow calls go.
//!
//! When it is wanted and what goes over it, the session decides; here it is opened, fed and closed.
//! Nothing that happens to it is told to the program.

use std::io;
use std::time::Instant;

use onceloop_endpoint::{Closed, Connection};
use onceloop_reactor::{Id, Registry};

use crate::core::{CONGESTION_PAUSE, Core, Link, RECEIVED_PRECISION};
use crate::role::{ClientRole, Lane};

impl<S: 'static> Core<S> {
    /// Returns whether there is a second connection, or one is wanted.
    #[inline]
    pub(crate) fn is_hedging(&self, now: Instant) -> bool {
        match self.second {
            Link::Down => self.session.wants_hedge(),
            Link::Resolving | Link::Connecting(_) => false,
            Link::Open(_) => !self.session.has_hedge() || self.session.wants_transmit_hedge(now),
        }
    }

    /// Returns whether `id` is the second connection, and open.
    pub(crate) fn is_second(&self, id: Id<Connection<ClientRole<S>>>) -> bool {
        matches!(self.second, Link::Open(open) if open == id)
    }

    /// Opens the second connection if it is wanted, feeds it, or closes it if it has no use.
    pub(crate) fn attend_second(registry: &mut Registry<S>, id: Id<Self>) {
        let now = registry.now();
        let Some(core) = registry.get_mut(id) else { return };
        match core.second {
            Link::Down if core.session.wants_hedge() => Self::open_second(registry, id),
            Link::Open(connection) if core.session.has_hedge() => {
                if let Some((core, open)) = registry.get2_mut(id, connection) {
                    core.session.transmit_hedge(now, open.out());
                    if core.session.wants_transmit_hedge(now) {
                        core.congested_until = Some(now + CONGESTION_PAUSE);
                    }
                    registry.touch(connection);
                }
            }
            Link::Open(_) => Self::leave_second(registry, id),
            Link::Down | Link::Resolving | Link::Connecting(_) => {}
        }
    }

    fn open_second(registry: &mut Registry<S>, id: Id<Self>) {
        let Some(core) = registry.get(id) else { return };
        let place = core.targets.current().ok_or_else(|| io::ErrorKind::NotConnected.into());
        let opened = place.and_then(|place| place.connect(registry));
        let opened = opened.and_then(|stream| Self::insert(registry, id, stream, Lane::Second));
        let now = registry.now();
        let Some(core) = registry.get_mut(id) else { return };
        match opened {
            Ok(connection) => core.second = Link::Connecting(connection),
            Err(error) => {
                let why = Closed::ConnectFailed(error).to_string();
                core.session.on_hedge_disconnected(&why, now);
            }
        }
    }

    /// Begins the handshake on the second connection, which is there.
    pub(crate) fn on_second_open(
        registry: &mut Registry<S>,
        id: Id<Self>,
        connection: Id<Connection<ClientRole<S>>>,
        out: &mut Vec<u8>,
    ) {
        let now = registry.now();
        let Some(core) = registry.get_mut(id) else { return };
        if matches!(core.second, Link::Connecting(connecting) if connecting == connection) {
            core.second = Link::Open(connection);
            core.session.on_hedge_connected(now, out);
            Self::pump(registry, id);
        }
    }

    /// Notes that the second connection is gone, or could not be had.
    pub(crate) fn on_second_closed(
        registry: &mut Registry<S>,
        id: Id<Self>,
        connection: Id<Connection<ClientRole<S>>>,
        why: &str,
    ) {
        let now = registry.now();
        let Some(core) = registry.get_mut(id) else { return };
        let (Link::Connecting(second) | Link::Open(second)) = core.second else { return };
        if second == connection {
            log::debug!("client of {}: second connection: {why}", core.targets.address());
            core.second = Link::Down;
            core.session.on_hedge_disconnected(why, now);
            Self::pump(registry, id);
        }
    }

    /// Gives up the connection if it is a second one, and returns whether it is.
    pub(crate) fn lose_second(
        registry: &mut Registry<S>,
        connection: Id<Connection<ClientRole<S>>>,
        why: &str,
    ) -> bool {
        let Some(open) = registry.get(connection) else { return false };
        if open.role().lane() == Lane::First {
            return false;
        }
        let id = open.role().core();
        onceloop_endpoint::close(registry, connection, Closed::Local("given up by the client"));
        Self::on_second_closed(registry, id, connection, why);
        true
    }

    /// Closes the second connection, of which the session does not want to know any more.
    pub(crate) fn leave_second(registry: &mut Registry<S>, id: Id<Self>) {
        let Some(core) = registry.get_mut(id) else { return };
        let second = std::mem::replace(&mut core.second, Link::Down);
        if let Link::Connecting(connection) | Link::Open(connection) = second {
            onceloop_endpoint::close(registry, connection, Closed::Local("not needed any more"));
        }
    }

    /// Tells the session when bytes last came by its second connection.
    pub(crate) fn note_second(registry: &mut Registry<S>, id: Id<Self>, now: Instant) {
        let Some(core) = registry.get(id) else { return };
        if let Link::Open(connection) = core.second
            && let Some((core, open)) = registry.get2_mut(id, connection)
        {
            let heard_at = open.last_received(now) + RECEIVED_PRECISION;
            core.session.on_hedge_bytes(heard_at.min(now));
        }
    }
}
