//! What a handler can see and do.

use std::fmt;
use std::time::{Duration, Instant};

use onceloop_protocol::table::{CallKey, SessionKey};
use onceloop_reactor::{Cx, Id, Peer, Registry};

use crate::core::Core;
use crate::peer::PeerConnection;

/// What every handler gets: the program's state, the loop, and what is known of the call. All three
/// may be used at once.
pub struct Context<'a, S: 'static> {
    /// The program's own state.
    pub state: &'a mut S,
    /// The loop.
    pub registry: &'a mut Registry<S>,
    /// The call.
    pub call: CallInfo<S>,
    /// Row 16: the caller is to come again after so long.
    pub(crate) retry_after: Option<Duration>,
}

/// A transaction id: which call of which session. The same for every copy of a call; another one has
/// it only after the server was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xid {
    /// Where the session is on this server; not the secret that resumes it.
    pub session: u64,
    /// The number of the call in its session.
    pub seq: u64,
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{}", self.session, self.seq)
    }
}

/// What is known of a call. It may be kept; what it asks of the loop is answered for the time of
/// asking.
pub struct CallInfo<S: 'static> {
    pub(crate) core: Id<Core<S>>,
    pub(crate) connection: Id<PeerConnection<S>>,
    pub(crate) session: Option<SessionKey>,
    /// `None` for a notification.
    pub(crate) key: Option<CallKey>,
    pub(crate) seq: u64,
    pub(crate) deadline: Option<Instant>,
}

impl<S> Clone for CallInfo<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for CallInfo<S> {}

impl<S> CallInfo<S> {
    /// Returns the xid. `None` for a notification and for an unprotected call, whose seq is only a
    /// label.
    pub fn xid(&self) -> Option<Xid> {
        Some(Xid { session: self.session?.to_bits(), seq: self.seq })
    }

    /// Returns until when the caller waits; `None` if it waits as long as it takes.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns whether nobody waits for the answer any more: the caller cancelled the call, gave it
    /// up or ended its session. Its effects count all the same.
    pub fn is_cancelled(&self, registry: &Registry<S>) -> bool {
        let Some(key) = self.key else { return false };
        registry.get(self.core).is_none_or(|core| !core.table.is_awaited(key))
    }

    /// Returns who is at the other end of the connection; `None` once that is gone.
    pub fn peer(&self, registry: &Registry<S>) -> Option<Peer> {
        registry.get(self.connection).map(|connection| connection.stream().peer())
    }
}

impl<S> Context<'_, S> {
    /// Returns how long the caller will still wait, as of the start of this turn; `None` if it waits
    /// as long as it takes.
    pub fn time_left(&self) -> Option<Duration> {
        Some(self.call.deadline?.saturating_duration_since(self.registry.now()))
    }

    /// Returns whether nobody waits for the answer any more.
    pub fn is_cancelled(&self) -> bool {
        self.call.is_cancelled(self.registry)
    }

    /// Returns who is at the other end of the connection; `None` once that is gone.
    pub fn peer(&self) -> Option<Peer> {
        self.call.peer(self.registry)
    }

    /// Returns the xid, as [`CallInfo::xid`] does.
    pub fn xid(&self) -> Option<Xid> {
        self.call.xid()
    }

    /// Returns a value of the program's in the server's store ([`Builder::store`](crate::Builder)): as
    /// this handler has left it, or the handlers before it. `None` if there is none, or no store.
    pub fn read(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.registry.get(self.call.core)?.table.read(key)
    }

    /// Sets a value of the program's in the server's store, or removes it. It happens together with
    /// the call's answer, or not at all.
    ///
    /// # Panics
    /// If the method is not served by [`Builder::transactional`](crate::Builder::transactional): the
    /// caller is told that the handler failed.
    pub fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(core) = self.registry.get_mut(self.call.core) {
            assert!(
                core.table.is_in_transaction(),
                "only a method served by Builder::transactional writes to the store"
            );
            core.table.write(key, value);
        }
    }

    /// Asks the caller to call again after this time: the handler has done nothing. What it has
    /// [written](Context::write) is undone, what it returns is dropped, and the call counts as not
    /// executed: its copies may run. Of what it did elsewhere nothing is undone.
    pub fn retry_later(&mut self, after: Duration) {
        self.retry_after = Some(after);
    }

    /// Returns what the loop's other callbacks get: to pass on to a function of theirs.
    pub fn as_cx(&mut self) -> Cx<'_, S> {
        Cx { state: self.state, registry: self.registry }
    }
}
