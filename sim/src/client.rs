//! A client's host: a program that calls, waits, gives up, is killed and begins anew.

mod call;

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use onceloop::protocol::session::{Answer, ModelledJournal, Record, RecoveredCall};
use onceloop::reactor::sim::{Host, Process as Running, Program, Random};
use onceloop::{Client, Cx, Reactor, State};

use crate::Sabotage;
use crate::oracle::{Outcome, Process};
use crate::plan::LinkPlan;
use crate::service::{Operation, ledger};
use crate::shared::Shared;
use crate::workload::{self, Workload};

/// The port of every simulated server.
pub(crate) const PORT: u16 = 7_000;

/// The most calls made in one go.
const BURST_MAX: u64 = 4;

/// The state of the program.
pub(crate) struct ClientApp {
    shared: Rc<Shared>,
    /// Its place among the clients, and its process.
    place: usize,
    me: Process,
    random: Random,
    links: Vec<Link>,
    /// Calls that have not ended.
    open: u32,
}

/// A client of one server, and what it is for.
struct Link {
    plan: LinkPlan,
    client: Client<ClientApp>,
    workloads: Vec<Box<dyn Workload>>,
}

impl Drop for ClientApp {
    fn drop(&mut self) {
        self.shared.oracle.borrow_mut().client_gone(self.me);
    }
}

/// Starts the program.
pub(crate) fn boot(shared: &Rc<Shared>, place: usize, host: &Host) -> io::Result<Box<dyn Running>> {
    let me = shared.boot(shared.host_of_client(place));
    let random = shared.plan.random.fork("client").fork_by(place as u64).fork_by(me.boot.into());
    let mut reactor = Reactor::simulated(host, shared.plan.clients[place].config.clone());
    let plans = shared.plan.clients[place].links.clone();
    let links = plans.into_iter().enumerate().map(|(link, plan)| {
        if plan.is_journaled && me.boot > 1 {
            recover(shared, place, me, link);
        }
        let client = connect(shared, place, link, reactor.registry())?;
        let workloads = workload::all(&shared.numbers, plan.order, shared.plan.has_parcels);
        Ok(Link { plan, client, workloads })
    });
    let links = links.collect::<io::Result<Vec<_>>>()?;
    let app = ClientApp { shared: Rc::clone(shared), place, me, random, links, open: 0 };
    reactor.registry().defer(go_on);
    Ok(Box::new(Program::new(reactor, app)))
}

/// Looks what the crash has left of a link's journal.
fn recover(shared: &Rc<Shared>, place: usize, me: Process, link: usize) {
    let disk = shared.journal(place, link);
    disk.crash();
    let mut tags = BTreeMap::new();
    for record in disk.safe().records() {
        match record {
            Record::Call { seq, tag, .. } => tags.insert(seq, tag),
            Record::Ended { seq } => tags.remove(&seq),
            _ => None,
        };
    }
    let ids = tags.values().map(|&tag| u32::try_from(tag).expect("a call's number"));
    shared.oracle.borrow_mut().recovers(me, link, &ids.collect());
}

fn connect(
    shared: &Rc<Shared>,
    place: usize,
    link: usize,
    registry: &mut onceloop::Registry<ClientApp>,
) -> io::Result<Client<ClientApp>> {
    let plan = &shared.plan.clients[place].links[link];
    let mut builder = Client::builder()
        .limits(shared.plan.clients[place].limits.clone())
        .window(plan.window)
        .order(plan.order)
        .on_state(changed);
    if plan.is_journaled {
        builder = builder
            .journal(ModelledJournal::new(&shared.journal(place, link)))
            .on_recovered(recovered);
    }
    builder.connect(registry, format!("server-{}:{PORT}", plan.server + 1))
}

/// A client stands otherwise with its server.
fn changed(state: &State, cx: &mut Cx<'_, ClientApp>) {
    if let State::Disconnected { why, .. } = state {
        cx.state.shared.oracle.borrow_mut().disconnected(cx.state.me, why);
    }
}

/// A call has ended that an earlier process made.
fn recovered(call: &RecoveredCall, answer: Answer<'_>, cx: &mut Cx<'_, ClientApp>) {
    let id = u32::try_from(call.tag).expect("a call's number");
    // All methods answer alike.
    let outcome = Outcome::of(onceloop::client::outcome::<ledger::apply>(answer));
    cx.state.shared.oracle.borrow_mut().answered(id, outcome);
}

/// Makes some calls, and comes back for more.
fn go_on(cx: &mut Cx<'_, ClientApp>) {
    let app = &mut *cx.state;
    if !app.shared.has_calls_left(app.place) {
        return;
    }
    let plan = &app.shared.plan.clients[app.place];
    let pause = app.random.duration(Duration::ZERO..2 * plan.pause);
    let room = u64::from(plan.open_max.saturating_sub(app.open));
    let calls = app.random.range(1..BURST_MAX + 1).min(room);
    for _ in 0..calls {
        call_some(cx);
    }
    let closes = cx.state.shared.plan.clients[cx.state.place].closes;
    if cx.state.random.chance(closes) {
        begin_anew(cx);
    }
    cx.registry.after(pause, go_on);
}

/// Makes a call for one of the workloads that want any.
fn call_some(cx: &mut Cx<'_, ClientApp>) {
    let app = &mut *cx.state;
    let place = any(&mut app.random, app.links.len());
    let link = &mut app.links[place];
    let reason = any(&mut app.random, link.workloads.len());
    let Some(wish) = link.workloads[reason].next(&mut app.random) else { return };
    if app.shared.take_call(app.place) {
        app.open += 1;
        call::make(cx, (place, reason), wish);
    }
}

/// Returns a place in a list.
fn any(random: &mut Random, length: usize) -> usize {
    usize::try_from(random.below(length as u64)).expect("less than a usize")
}

/// Closes a client, which ends its session, and makes another in its place.
fn begin_anew(cx: &mut Cx<'_, ClientApp>) {
    let app = &mut *cx.state;
    let place = any(&mut app.random, app.links.len());
    app.shared.drop_journal(app.place, place);
    app.shared.oracle.borrow_mut().closed(app.me, place);
    app.links[place].client.close(cx.registry);
    match connect(&app.shared, app.place, place, cx.registry) {
        Ok(client) => app.links[place].client = client,
        Err(error) => panic!("a client can be made as long as there is memory: {error}"),
    }
}

/// A call has ended.
fn ended(
    cx: &mut Cx<'_, ClientApp>,
    (place, reason): (usize, usize),
    id: u32,
    operation: &Operation,
    outcome: Outcome,
) {
    let app = &mut *cx.state;
    app.open -= 1;
    let is_in_doubt = matches!(outcome, Outcome::Indeterminate(_));
    let verdict = app.links[place].workloads[reason].answered(operation, &outcome);
    let mut oracle = app.shared.oracle.borrow_mut();
    oracle.answered(id, outcome);
    if let Err(what) = verdict {
        oracle.contradicted(id, &what);
    }
    drop(oracle);
    if is_in_doubt && app.shared.plan.sabotage == Sabotage::BlindRetry {
        call::ask_again(cx, (place, reason), id, operation.clone());
    }
}
