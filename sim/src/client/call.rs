//! One call: in which way it is made, and that its continuation runs.

use std::rc::Rc;
use std::time::Duration;

use onceloop::reactor::sim::Random;
use onceloop::{ApplicationError, CallError, CallId, CallOptions, Client, Cx, Order, Registry};

use super::{ClientApp, ended};
use crate::oracle::{Draft, Ending, Outcome, Semantics, Space};
use crate::plan::ClientPlan;
use crate::service::{Operation, Receipt, ledger, mistaken};
use crate::shared::Shared;
use crate::workload::{Care, Wish};

/// The longest deadline of those that may well pass.
const DEADLINE_MAX_MS: u64 = 3_000;
/// The latest that a call is sent again on a second connection.
const HEDGE_AFTER_MAX_MS: u64 = 500;
/// The largest receipt.
const RECEIPT_BYTES_MAX: u64 = 24 * 1_024;

/// How an operation is served. Names as in [`ledger`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    After,
    AtOnce,
    Badly,
    Blindly,
    Commit,
    CommitBadly,
    CommitWhenReady,
    Largely,
    Late,
    Look,
    Missing,
    Offloaded,
    Read,
    Silently,
    Tell,
    WhenReady,
    Wrongly,
}

impl Way {
    fn space(self) -> Space {
        match self {
            Way::Commit | Way::CommitBadly | Way::CommitWhenReady | Way::Look => Space::Store,
            _ => Space::Memory,
        }
    }

    fn is_idempotent(self) -> bool {
        matches!(self, Way::Blindly | Way::Look | Way::Read)
    }

    fn name(self) -> &'static str {
        match self {
            Way::After => "apply_after",
            Way::AtOnce => "apply",
            Way::Badly => "apply_badly",
            Way::Blindly => "apply_blindly",
            Way::Commit => "commit",
            Way::CommitBadly => "commit_badly",
            Way::CommitWhenReady => "commit_when_ready",
            Way::Largely => "apply_largely",
            Way::Late => "apply_late",
            Way::Look => "look",
            Way::Missing => "missing",
            Way::Offloaded => "apply_offloaded",
            Way::Read => "read",
            Way::Silently => "apply_silently",
            Way::Tell => "tell",
            Way::WhenReady => "apply_when_ready",
            Way::Wrongly => "apply, wrongly",
        }
    }
}

/// What a call is made of, beside its operation.
struct Choice {
    way: Way,
    semantics: Semantics,
    deadline: Option<Duration>,
    cancel_after: Option<Duration>,
    attempts: Option<u32>,
    hedge_after: Option<Duration>,
    /// A delay or a size, where the way takes one.
    number: u32,
}

impl Choice {
    fn drawn(wish: &Wish, is_durable: bool, plan: &ClientPlan, random: &mut Random) -> Choice {
        let way = match is_durable && is_for_store(wish, random) {
            true => way_of_store(wish, random),
            false => way(wish, random),
        };
        let semantics = match (way, wish.care) {
            (Way::Tell, _) => Semantics::Notify,
            (_, Care::Blind) => Semantics::AtLeastOnce,
            (_, Care::Exact) => Semantics::ExactlyOnce,
            (Way::Read | Way::Look, _) if random.chance(500_000) => Semantics::AtLeastOnce,
            _ if random.chance(250_000) => Semantics::AtMostOnce,
            _ => Semantics::ExactlyOnce,
        };
        let is_free = wish.care == Care::Any && way != Way::Tell;
        let millis = Duration::from_millis;
        let mut some = |chance, most| {
            (is_free && random.chance(chance)).then(|| millis(random.spread(1, most)))
        };
        let deadline = some(plan.deadlines, DEADLINE_MAX_MS);
        let cancel_after = some(plan.cancels, DEADLINE_MAX_MS);
        let attempts = (is_free && random.chance(plan.attempts)).then(|| attempts(random));
        let is_hedged = way != Way::Tell && random.chance(plan.hedges);
        let hedge_after = is_hedged.then(|| millis(random.spread(1, HEDGE_AFTER_MAX_MS)));
        let number = match way {
            Way::Largely => random.spread(1, RECEIPT_BYTES_MAX),
            Way::WhenReady | Way::CommitWhenReady => random.below(4),
            _ => random.below(1_000_000),
        };
        let number = u32::try_from(number).expect("bounded above");
        Choice { way, semantics, deadline, cancel_after, attempts, hedge_after, number }
    }

    fn options(&self, id: u32) -> CallOptions {
        let options = CallOptions::new().tag(id.into());
        let options = match self.deadline {
            Some(deadline) => options.deadline(deadline),
            None => options.no_deadline(),
        };
        let options = match self.attempts {
            Some(attempts) => options.attempts(attempts),
            None => options,
        };
        let options = match self.hedge_after {
            Some(hedge_after) => options.hedge_after(hedge_after),
            None => options,
        };
        match self.semantics {
            Semantics::AtLeastOnce => options.at_least_once(),
            Semantics::AtMostOnce => options.at_most_once(),
            Semantics::ExactlyOnce | Semantics::Notify => options,
        }
    }

    fn draft(&self, operation: &Operation, order: Order) -> Draft {
        let ending = match self.way {
            Way::Badly | Way::Silently => Ending::Fails,
            Way::CommitBadly => Ending::RolledBack,
            Way::Missing | Way::Wrongly => Ending::Refused,
            _ => Ending::Receipt,
        };
        Draft {
            operation: operation.clone(),
            way: self.way.name(),
            space: self.way.space(),
            ending,
            is_idempotent: self.way.is_idempotent(),
            semantics: self.semantics,
            order,
            deadline: self.deadline,
            attempts: self.attempts,
            hedge_after: self.hedge_after,
        }
    }
}

fn attempts(random: &mut Random) -> u32 {
    u32::try_from(random.range(1..4)).expect("a few")
}

fn way(wish: &Wish, random: &mut Random) -> Way {
    if wish.care == Care::Blind {
        return Way::Blindly;
    }
    if wish.operation.is_read() && random.chance(500_000) {
        return Way::Read;
    }
    let plain = [
        Way::AtOnce,
        Way::AtOnce,
        Way::Late,
        Way::After,
        Way::Offloaded,
        Way::Largely,
        Way::WhenReady,
    ];
    let strange = [Way::Badly, Way::Silently, Way::Missing, Way::Wrongly, Way::Tell];
    match wish.care {
        Care::Any if random.chance(120_000) => *random.pick(&strange),
        _ => *random.pick(&plain),
    }
}

/// Returns whether an operation goes to the server's store. All calls of one story go to one place.
fn is_for_store(wish: &Wish, random: &mut Random) -> bool {
    match (wish.care, &wish.operation) {
        (Care::Blind, _) => false,
        (Care::Any, _) => random.chance(600_000),
        (Care::Exact, Operation::Debit(number, _) | Operation::Balance(number)) => number % 2 == 0,
        (Care::Exact, Operation::Put(number, _) | Operation::Get(number)) => number % 2 == 0,
        (Care::Exact, _) => true,
    }
}

fn way_of_store(wish: &Wish, random: &mut Random) -> Way {
    if wish.operation.is_read() && random.chance(500_000) {
        return Way::Look;
    }
    match random.below(10) {
        0 => Way::CommitWhenReady,
        1 if wish.care == Care::Any => Way::CommitBadly,
        _ => Way::Commit,
    }
}

/// Sees that its call's continuation is not dropped.
struct Waiting {
    shared: Rc<Shared>,
    id: u32,
    is_over: bool,
}

impl Waiting {
    fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.oracle.borrow_mut().dropped(self.id);
        }
    }
}

/// Makes a call for the workload `from`: the link's place, and the reason's.
pub(super) fn make(cx: &mut Cx<'_, ClientApp>, from: (usize, usize), wish: Wish) {
    let app = &mut *cx.state;
    let link = &app.links[from.0];
    let plan = &app.shared.plan.clients[app.place];
    let is_durable = app.shared.plan.servers[link.plan.server].is_durable;
    let choice = Choice::drawn(&wish, is_durable, plan, &mut app.random);
    let draft = choice.draft(&wish.operation, link.plan.order);
    let client = link.client;
    let shared = Rc::clone(&app.shared);
    let id = shared.oracle.borrow_mut().called(app.me, from.0, link.plan.server, draft);
    if choice.way == Way::Tell {
        // What cannot be taken does not run; nobody is told more.
        let _ = client.notify(cx.registry, ledger::tell, (id, wish.operation));
        app.open -= 1;
        return;
    }
    let waiting = Waiting { shared, id, is_over: false };
    let operation = wish.operation.clone();
    let then = move |result: Result<Receipt, CallError<ApplicationError>>,
                     cx: &mut Cx<'_, ClientApp>| {
        waiting.end();
        ended(cx, from, id, &operation, Outcome::of(result));
    };
    let call = send(client, cx.registry, &choice, id, wish.operation, then);
    if let Some(cancel_after) = choice.cancel_after {
        cx.registry.after(cancel_after, move |cx| {
            cx.state.shared.oracle.borrow_mut().cancelled(id);
            client.cancel(cx.registry, call);
        });
    }
}

fn send(
    client: Client<ClientApp>,
    registry: &mut Registry<ClientApp>,
    choice: &Choice,
    id: u32,
    operation: Operation,
    then: impl FnOnce(Result<Receipt, CallError<ApplicationError>>, &mut Cx<'_, ClientApp>) + 'static,
) -> CallId {
    let options = choice.options(id);
    let number = choice.number;
    let (two, three) = ((id, operation.clone()), (id, operation, number));
    match choice.way {
        Way::After => client.call_with(registry, options, ledger::apply_after, three, then),
        Way::AtOnce | Way::Tell => client.call_with(registry, options, ledger::apply, two, then),
        Way::Badly => client.call_with(registry, options, ledger::apply_badly, two, then),
        Way::Blindly => client.call_with(registry, options, ledger::apply_blindly, two, then),
        Way::Commit => client.call_with(registry, options, ledger::commit, two, then),
        Way::CommitBadly => client.call_with(registry, options, ledger::commit_badly, two, then),
        Way::CommitWhenReady => {
            client.call_with(registry, options, ledger::commit_when_ready, three, then)
        }
        Way::Largely => client.call_with(registry, options, ledger::apply_largely, three, then),
        Way::Late => client.call_with(registry, options, ledger::apply_late, three, then),
        Way::Look => client.call_with(registry, options, ledger::look, two, then),
        Way::Missing => client.call_with(registry, options, ledger::missing, two, then),
        Way::Offloaded => client.call_with(registry, options, ledger::apply_offloaded, three, then),
        Way::Read => client.call_with(registry, options, ledger::read, two, then),
        Way::Silently => client.call_with(registry, options, ledger::apply_silently, two, then),
        Way::WhenReady => {
            client.call_with(registry, options, ledger::apply_when_ready, three, then)
        }
        Way::Wrongly => client.call_with(registry, options, mistaken::apply, three, then),
    }
}

/// Asks again what nobody knows of, as a program without protection would: as another call.
pub(super) fn ask_again(
    cx: &mut Cx<'_, ClientApp>,
    from: (usize, usize),
    id: u32,
    operation: Operation,
) {
    let app = &mut *cx.state;
    let client = app.links[from.0].client;
    let waiting = Waiting { shared: Rc::clone(&app.shared), id, is_over: false };
    let options = CallOptions::new().no_deadline();
    client.call_with(cx.registry, options, ledger::apply, (id, operation), move |result, cx| {
        waiting.end();
        cx.state.shared.oracle.borrow_mut().answered(id, Outcome::of(result));
    });
}
