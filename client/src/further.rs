//! Further sessions of a client (C7): when a slow call holds up a full window, new calls of an
//! unordered client go round it, by a session and a connection of their own.
//!
//! Each is a [`Core`] like the first, but that it tells the program nothing of its states and closes
//! when it has been idle.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use onceloop_protocol::handshake::Order;
use onceloop_protocol::limits::Limits;
use onceloop_protocol::session::{Counters, Session};
use onceloop_reactor::{Id, Registry};

use crate::connecting::Targets;
use crate::core::{Core, Link};

/// What seeds of one client's sessions differ by: any odd number far from small ones.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a session is made of.
#[derive(Clone)]
struct Recipe {
    limits: Limits,
    token: Option<Bytes>,
    seed: u64,
}

/// One further session.
struct One<S: 'static> {
    /// What its calls name it by; never given to another.
    number: u32,
    core: Id<Core<S>>,
}

/// The further sessions of a client; or, in one of them, whose it is.
pub(crate) struct Further<S: 'static> {
    /// Absent where there are to be none.
    recipe: Option<Rc<Recipe>>,
    sessions: Vec<One<S>>,
    /// How many there ever were.
    count: u32,
    /// What those counted that are gone.
    retired: Counters,
    /// The client this is a further session of, and when it was last seen busy.
    owner: Option<(Id<Core<S>>, Instant)>,
}

impl<S: 'static> Further<S> {
    /// Returns what a session has that has no others beside it.
    pub(crate) fn none() -> Further<S> {
        Further {
            recipe: None,
            sessions: Vec::new(),
            count: 0,
            retired: Counters::default(),
            owner: None,
        }
    }

    /// Returns what a client's first session has.
    pub(crate) fn new(
        limits: &Limits,
        order: Order,
        token: Option<&Bytes>,
        seed: u64,
    ) -> Further<S> {
        let recipe = Recipe { limits: limits.clone(), token: token.cloned(), seed };
        // Two sessions have no order among them.
        let may_be = order == Order::Unordered && limits.further_sessions_max > 0;
        Further { recipe: may_be.then(|| Rc::new(recipe)), ..Further::none() }
    }
}

impl<S: 'static> Core<S> {
    /// Returns the session that a new call goes to, when the first one's window is full: its number
    /// and where it is.
    pub(crate) fn route(registry: &mut Registry<S>, id: Id<Self>) -> (u32, Id<Self>) {
        let now = registry.now();
        let Some(core) = registry.get(id) else { return (0, id) };
        let Some(recipe) = core.further.recipe.clone() else { return (0, id) };
        if !core.session.is_stalled(now) {
            return (0, id);
        }
        let window = recipe.limits.window as usize;
        let with_room = core.further.sessions.iter().find(|one| {
            registry.get(one.core).is_some_and(|further| {
                // One that the server does not take now would hold the call up longer than the window.
                !matches!(further.link, Link::Down) && further.session.len() < window
            })
        });
        if let Some(one) = with_room {
            return (one.number, one.core);
        }
        if core.further.sessions.len() >= recipe.limits.further_sessions_max {
            return (0, id);
        }
        Self::open_further(registry, id, &recipe).unwrap_or((0, id))
    }

    fn open_further(
        registry: &mut Registry<S>,
        id: Id<Self>,
        recipe: &Recipe,
    ) -> Option<(u32, Id<Self>)> {
        let now = registry.now();
        let core = registry.get_mut(id)?;
        core.further.count += 1;
        let number = core.further.count;
        let seed = recipe.seed.wrapping_add(u64::from(number).wrapping_mul(SEED_STEP));
        let (limits, token) = (recipe.limits.clone(), recipe.token.clone());
        let session = Session::new(limits, Order::Unordered, token, seed, now);
        let targets = Targets::new(core.targets.address().clone());
        let (settings, keepalive) = (core.settings.clone(), core.keepalive);
        log::info!("client of {}: a further session, its window is stalled", targets.address());
        let mut further = Core::new(session, targets, settings, keepalive, None);
        further.further.owner = Some((id, now));
        let further = registry.insert(further).ok()?;
        if let Some(core) = registry.get_mut(id) {
            core.further.sessions.push(One { number, core: further });
        }
        Core::connect_if_due(registry, further);
        Some((number, further))
    }

    /// Returns where the session with this number is, if it still is.
    pub(crate) fn session(registry: &Registry<S>, id: Id<Self>, number: u32) -> Option<Id<Self>> {
        if number == 0 {
            return Some(id);
        }
        let core = registry.get(id)?;
        core.further.sessions.iter().find(|one| one.number == number).map(|one| one.core)
    }

    /// Returns how many calls and notifications are open in all sessions.
    pub(crate) fn pending(registry: &Registry<S>, id: Id<Self>) -> usize {
        Self::sessions(registry, id).map(|core| core.session.len()).sum()
    }

    /// Returns what all sessions have counted, those that are gone included.
    pub(crate) fn counters(registry: &Registry<S>, id: Id<Self>) -> Counters {
        let mut counters = registry.get(id).map(|core| core.further.retired).unwrap_or_default();
        for core in Self::sessions(registry, id) {
            counters.add(&core.session.counters());
        }
        counters
    }

    /// Returns the first session and the further ones.
    fn sessions(registry: &Registry<S>, id: Id<Self>) -> impl Iterator<Item = &Core<S>> {
        let first = registry.get(id);
        let further = first.into_iter().flat_map(|core| &core.further.sessions);
        first.into_iter().chain(further.filter_map(|one| registry.get(one.core)))
    }

    /// Returns when to look whether this session is needed any more, if it is a further one.
    pub(crate) fn idle_at(&self) -> Option<Instant> {
        let (_, busy_at) = self.further.owner?;
        busy_at.checked_add(self.settings.limits.spare_idle)
    }

    /// Closes a further session that has been idle; returns whether it did.
    pub(crate) fn close_if_idle(registry: &mut Registry<S>, id: Id<Self>) -> bool {
        let now = registry.now();
        let Some(core) = registry.get_mut(id) else { return true };
        let is_due = core.idle_at().is_some_and(|at| now >= at);
        let Some((owner, busy_at)) = &mut core.further.owner else { return false };
        if !is_due {
            return false;
        }
        if !core.session.is_empty() {
            // Looked at once in a while, not noted with each call.
            *busy_at = now;
            return false;
        }
        let (owner, counters) = (*owner, core.session.counters());
        if let Some(owner) = registry.get_mut(owner) {
            owner.further.sessions.retain(|one| one.core != id);
            owner.further.retired.add(&counters);
        }
        Self::close(registry, id);
        true
    }

    /// Closes the further sessions of a client.
    pub(crate) fn close_further(registry: &mut Registry<S>, id: Id<Self>) {
        let Some(core) = registry.get(id) else { return };
        let further: Vec<_> = core.further.sessions.iter().map(|one| one.core).collect();
        for core in further {
            Self::close(registry, core);
        }
    }

    /// Returns whether a further session is there, if only to answer its last calls.
    pub(crate) fn has_further(registry: &Registry<S>, id: Id<Self>) -> bool {
        registry
            .get(id)
            .is_some_and(|core| core.further.sessions.iter().any(|one| registry.contains(one.core)))
    }
}
