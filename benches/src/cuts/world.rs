//! A server, clients and the network between them: one policy at one level.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use onceloop::{
    Address, Builder, CallError, CallOptions, Client, ClientBuilder, Cx, Limits, Reactor, Registry,
    Server, State,
};

use super::count::{Fate, Tally, Told};
use super::network::{self, Harm, Harmed, Random};
use super::{Options, Policy};

onceloop::service! {
    pub(crate) mod shop {
        /// Takes order number `call`: takes effect at once, and answers a little later.
        fn order(call: u32) -> u64;
    }
}

/// A handler answers within this time after its effect, as one does that waits for a disk.
const WORK_MAX: Duration = Duration::from_millis(2);
/// The longest a turn of the loop waits.
const TURN: Duration = Duration::from_millis(20);
/// How long what is on its way may take to arrive when all calls are answered.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// What the callbacks share.
struct App {
    policy: Policy,
    /// Where clients connect to: the network.
    address: Option<Address>,
    clients: Vec<Option<Client<App>>>,
    /// What became of each call, by its number.
    fates: Vec<Fate>,
    /// The number of the next call.
    next: u32,
    answered: usize,
    random: Random,
    harm: Harm,
}

impl Harmed for App {
    fn harm(&mut self) -> &mut Harm {
        &mut self.harm
    }
}

/// Every call has a reply of its own, so that one which went to another call is found.
fn reply_to(call: u32) -> u64 {
    u64::from(call) << 32 | u64::from(!call)
}

fn shop() -> Builder<App> {
    Builder::<App>::new().deferred(shop::order, |(call,), responder, cx| {
        if let Some(fate) = cx.state.fates.get_mut(call as usize) {
            fate.effects += 1;
        }
        let work = cx.state.random.time(WORK_MAX);
        cx.registry.after(work, move |cx| responder.respond(cx, Ok(reply_to(call))));
    })
}

/// Runs the calls of `policy` over a network that cuts, and returns what was counted.
pub(super) fn run(
    options: &Options,
    policy: Policy,
    bytes_per_cut: Option<u64>,
) -> Result<(Tally, Harm)> {
    let mut reactor = Reactor::<App>::new().context("making the loop")?;
    let registry = reactor.registry();
    let server = shop().listen(registry, "127.0.0.1:0").context("starting the server")?;
    let target = server.local_addresses(registry).remove(0).resolve().context("its address")?[0];
    let random = Random::new(options.seed);
    let address = network::open(registry, target, bytes_per_cut, random).context("the network")?;
    let mut app = App {
        policy,
        address: Some(address),
        clients: Vec::new(),
        fates: vec![Fate::default(); options.calls as usize],
        next: 0,
        answered: 0,
        random: Random::new(!options.seed),
        harm: Harm::default(),
    };
    start(registry, options, &mut app)?;
    let began = Instant::now();
    let give_up_at = began + Duration::from_secs_f64(options.seconds_max);
    while app.answered < app.fates.len() && Instant::now() < give_up_at {
        reactor.turn(&mut app, Some(TURN)).context("running the loop")?;
    }
    app.harm.time = began.elapsed();
    settle(&mut reactor, &mut app, server)?;
    Ok((Tally::of(&app.fates), app.harm))
}

fn start(registry: &mut Registry<App>, options: &Options, app: &mut App) -> Result<()> {
    for place in 0..options.clients as usize {
        let address = app.address.clone().context("it was just set")?;
        let client = connect(registry, address, app.policy, place);
        app.clients.push(Some(client.context("making a client")?));
        let in_flight = options.in_flight;
        registry.defer(move |cx| (0..in_flight).for_each(|_| call_next(cx, place)));
    }
    Ok(())
}

/// Waits until what is on its way has arrived and every handler has ended: a call may still take
/// effect after its caller was told something.
fn settle(reactor: &mut Reactor<App>, app: &mut App, server: Server<App>) -> Result<()> {
    // From here on nobody calls again.
    app.address = None;
    for client in std::mem::take(&mut app.clients).into_iter().flatten() {
        client.close(reactor.registry());
    }
    let give_up_at = Instant::now() + SETTLE_MAX;
    loop {
        let stats = server.stats(reactor.registry());
        if stats.connections == 0 && stats.in_flight == 0 {
            let effects: u64 = app.fates.iter().map(|fate| u64::from(fate.effects)).sum();
            ensure!(
                stats.calls_started == effects,
                "{} handlers started, and {effects} effects",
                stats.calls_started
            );
            return Ok(());
        }
        if Instant::now() > give_up_at {
            bail!("{} connections and {} calls do not end", stats.connections, stats.in_flight);
        }
        reactor.turn(app, Some(TURN)).context("running the loop")?;
    }
}

/// Makes a client that is soon back after a cut. One without a session of its own is replaced by a
/// new one when its connection ends, as callers do whose library knows connections only.
fn connect(
    registry: &mut Registry<App>,
    address: Address,
    policy: Policy,
    place: usize,
) -> std::io::Result<Client<App>> {
    let mut limits = Limits::default();
    limits.backoff_min = Duration::from_millis(1);
    limits.backoff_max = Duration::from_millis(5);
    let builder: ClientBuilder<App> = Client::builder().limits(limits);
    if policy.has_session() {
        return builder.connect(registry, address);
    }
    let mut was_connected = false;
    let builder = builder.on_state(move |state, cx| match state {
        State::Connected { .. } => was_connected = true,
        // Before that nothing was sent: the attempt alone is made again.
        State::Disconnected { .. } if was_connected => replace(cx, place),
        _ => {}
    });
    builder.connect(registry, address)
}

fn replace(cx: &mut Cx<'_, App>, place: usize) {
    let Some(address) = cx.state.address.clone() else { return };
    let new = connect(cx.registry, address, cx.state.policy, place);
    let new = new.expect("an address that served before, and a system that gives random bytes");
    let Some(old) = cx.state.clients[place].replace(new) else { return };
    old.close(cx.registry);
}

fn call_next(cx: &mut Cx<'_, App>, place: usize) {
    let call = cx.state.next;
    if (call as usize) < cx.state.fates.len() {
        cx.state.next += 1;
        make(cx, place, call);
    }
}

fn make(cx: &mut Cx<'_, App>, place: usize, call: u32) {
    let Some(client) = cx.state.clients.get(place).copied().flatten() else { return };
    // How long it takes is bounded by the run, not by the call.
    let mut options = CallOptions::new().no_deadline();
    if cx.state.policy == Policy::AtMostOnce {
        options = options.at_most_once();
    }
    client.call_with(cx.registry, options, shop::order, (call,), move |reply, cx| {
        on_answer(cx, place, call, &reply);
    });
}

fn on_answer<E>(cx: &mut Cx<'_, App>, place: usize, call: u32, reply: &Result<u64, CallError<E>>) {
    if cx.state.address.is_none() {
        // The run was stopped before this call had an answer.
        return;
    }
    if reply.is_err() && cx.state.policy == Policy::BlindRetry {
        return make(cx, place, call);
    }
    let fate = &mut cx.state.fates[call as usize];
    fate.endings += 1;
    match reply {
        Ok(reply) => {
            fate.told = Told::Success;
            fate.is_wrong_reply |= *reply != reply_to(call);
        }
        Err(error) => fate.told = Told::of(error.ran()),
    }
    cx.state.answered += 1;
    call_next(cx, place);
}
