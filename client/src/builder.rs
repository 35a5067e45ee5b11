//! What is chosen for a client before it connects.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use onceloop_endpoint::{Settings, ToAddress};
use onceloop_protocol::handshake::Order;
use onceloop_protocol::limits::Limits;
use onceloop_protocol::session::{Answer, Journal, JournalError, RecoveredCall, Session};
use onceloop_reactor::{Cx, Registry};

use crate::connecting::Targets;
use crate::core::{Continuation, Core, OnState};
use crate::further::Further;
use crate::{Client, State};

/// What runs when a recovered call has ended.
type OnRecovered<S> =
    Rc<dyn for<'a, 'b, 'c, 'd> Fn(&'a RecoveredCall, Answer<'b>, &'c mut Cx<'d, S>)>;

/// Makes a [`Client`].
pub struct Builder<S: 'static> {
    limits: Limits,
    order: Order,
    token: Option<Bytes>,
    keepalive: Option<Duration>,
    on_state: Option<OnState<S>>,
    journal: Option<Box<dyn Journal>>,
    on_recovered: Option<OnRecovered<S>>,
}

impl<S: 'static> Builder<S> {
    pub(crate) fn new() -> Builder<S> {
        Builder {
            limits: Limits::default(),
            order: Order::Unordered,
            token: None,
            keepalive: None,
            on_state: None,
            journal: None,
            on_recovered: None,
        }
    }

    /// Sets every bound of the client.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how many calls may be unacknowledged; more wait. A power of two, at most
    /// `Limits::window_max`; another number is rounded up. The server may grant fewer.
    #[must_use]
    pub fn window(mut self, calls: u32) -> Self {
        self.limits.window = calls.max(1);
        self
    }

    /// Sets in which order the server runs this client's calls. Those made at least once are
    /// outside any order.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets what proves to the server who this is, where it asks. It travels in the handshake; no
    /// server of this version asks.
    #[must_use]
    pub fn token(mut self, token: impl Into<Bytes>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Has the system probe an idle TCP connection after this time. The protocol's own PING does so
    /// already; this is for what stands in between.
    #[must_use]
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.keepalive = Some(idle);
        self
    }

    /// Sets what is told of each change of state: it runs in a task phase and may do anything.
    #[must_use]
    pub fn on_state(mut self, on_state: impl FnMut(&State, &mut Cx<'_, S>) + 'static) -> Self {
        self.on_state = Some(Box::new(on_state));
        self
    }

    /// Sets where the client writes its session down, so that it comes back under the same name after
    /// a crash: nothing leaves before it is safe there, and nothing is acknowledged before the
    /// program has had its answer. A client with a journal has no further sessions.
    ///
    /// Calls made at least once, and notifications, are outside of it.
    #[must_use]
    pub fn journal(mut self, journal: impl Journal + 'static) -> Self {
        self.journal = Some(Box::new(journal));
        self
    }

    /// Sets what is told how calls ended that an earlier run of the program made and did not finish.
    /// [`outcome`](crate::outcome) reads the answer.
    ///
    /// Such a call has no deadline. One whose answer the earlier run had, and did not come to finish
    /// with, is told again: a continuation that returned may not have been written down yet.
    ///
    /// # Re-entrancy
    /// Like a continuation, it may do anything.
    #[must_use]
    pub fn on_recovered(
        mut self,
        on_recovered: impl Fn(&RecoveredCall, Answer<'_>, &mut Cx<'_, S>) + 'static,
    ) -> Self {
        self.on_recovered = Some(Rc::new(on_recovered));
        self
    }

    /// Makes the client, which connects in the turns that come: `host:port`, `[::1]:port`,
    /// `unix:/path`, or a `SocketAddr`.
    ///
    /// The server need not be there yet: calls wait, and attempts go on, until the client is
    /// closed.
    ///
    /// # Errors
    /// If the address is none, the system gives no random bytes, or the journal is in use or cannot
    /// be read ([`JournalError`] inside).
    pub fn connect(
        self,
        registry: &mut Registry<S>,
        address: impl ToAddress,
    ) -> io::Result<Client<S>> {
        let address = address.to_address()?;
        let mut seed = [0; 8];
        registry.random_bytes(&mut seed)?;
        let now = registry.now();
        let seed = u64::from_le_bytes(seed);
        let further = if self.journal.is_some() {
            Further::none()
        } else {
            Further::new(&self.limits, self.order, self.token.as_ref(), seed)
        };
        let mut session = Session::new(self.limits.clone(), self.order, self.token, seed, now);
        if let Some(journal) = self.journal {
            let on_recovered = self.on_recovered;
            let attach = |call| continuation(on_recovered.clone(), call);
            session = session.with_journal(journal, attach, now).map_err(from_journal)?;
        }
        // The session bounds the output. A client that stopped reading, as a server does, could wait
        // for a server that waits for it.
        let mut limits = self.limits;
        // One body may be added below the mark: that much is no sign of a peer that does not read.
        let queued_bytes_max = limits.output_bytes_mark.saturating_add(2 * limits.body_bytes_max);
        limits.output_bytes_max = limits.output_bytes_max.max(queued_bytes_max);
        limits.output_bytes_mark = usize::MAX;
        let settings = Rc::new(Settings::new(limits, registry));
        let targets = Targets::new(address);
        let mut core = Core::new(session, targets, settings, self.keepalive, self.on_state);
        core.further = further;
        let id = registry.insert(core)?;
        Core::connect_if_due(registry, id);
        Ok(Client::of(id))
    }
}

/// Returns what runs when a recovered call has ended.
fn continuation<S: 'static>(
    on_recovered: Option<OnRecovered<S>>,
    call: RecoveredCall,
) -> Continuation<S> {
    Box::new(move |answer, cx| match &on_recovered {
        Some(on_recovered) => on_recovered(&call, answer, cx),
        None => log::warn!("nobody asks how the recovered call {:?} ended", call.tag),
    })
}

fn from_journal(error: JournalError) -> io::Error {
    let kind = match error {
        JournalError::InUse => io::ErrorKind::ResourceBusy,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
