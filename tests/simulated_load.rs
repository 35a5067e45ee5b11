//! A busy service in a simulated world: several clients, bursts of calls, answers of all sizes,
//! given at once, later, or off the loop; hedged, ordered, and cancelled now and then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use onceloop::sim::{Faults, Host, Process, Program, Random, Simulation, Tally};
use onceloop::{
    Builder, CallError, CallOptions, Client, ClientBuilder, Config, Order, Reactor, Registry,
    Responder,
};

onceloop::service! {
    /// Work of three kinds.
    pub mod work {
        /// Answers at once, with so many bytes.
        fn now(name: u64, length: u32) -> String;
        /// Answers later.
        fn later(name: u64, length: u32) -> String;
        /// Answers when a slow job is done.
        fn offloaded(name: u64, length: u32) -> String;
    }
}

const CLIENTS: u64 = 3;
const BURSTS: u64 = 12;
const CALLS_PER_BURST: u64 = 12;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Ledger {
    /// Names of the calls whose handlers began, as often as they did.
    runs: Vec<u64>,
    /// Of each call: what its caller was told, and once only.
    answers: BTreeMap<u64, Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    NotExecuted,
    Unknown,
}

type Shared = Rc<RefCell<Ledger>>;

/// What a call is answered with: anybody can tell whether it is whole.
fn answer(name: u64, length: u32) -> String {
    let word = format!("{name} ");
    word.repeat(1 + length as usize / word.len())
}

fn server(host: &Host, ledger: &Shared) -> io::Result<Box<dyn Process>> {
    let mut reactor = Reactor::<()>::simulated(host, Config::simulated());
    let ledgers = [(); 3].map(|()| Rc::clone(ledger));
    let [now, later, offloaded] = ledgers;
    Builder::new()
        .method(work::now, move |(name, length), _| {
            now.borrow_mut().runs.push(name);
            Ok(answer(name, length))
        })
        .deferred(work::later, move |(name, length), responder: Responder<_, _>, cx| {
            later.borrow_mut().runs.push(name);
            let pause = Duration::from_millis(name * 13 % 200);
            cx.registry.after(pause, move |cx| responder.respond(cx, Ok(answer(name, length))));
        })
        .deferred(work::offloaded, move |(name, length), responder: Responder<_, _>, cx| {
            offloaded.borrow_mut().runs.push(name);
            let job = move || answer(name, length);
            let done = move |result: Result<String, _>, cx: &mut onceloop::Cx<'_, ()>| {
                responder.respond(cx, Ok(result.expect("the job does not panic")));
            };
            cx.registry.offload(job, done).expect("few jobs are under way");
        })
        .listen(reactor.registry(), "0.0.0.0:80")
        .map_err(io::Error::other)?;
    Ok(Box::new(Program::new(reactor, ())))
}

/// A client: bursts of calls, at times of its own.
fn client(host: &Host, number: u64, ledger: &Shared) -> io::Result<Box<dyn Process>> {
    let mut reactor = Reactor::<()>::simulated(host, Config::simulated());
    let random = host.world().random(&format!("client {number}"));
    let order = if number == 1 { Order::InOrder } else { Order::Unordered };
    let builder: ClientBuilder<()> = Client::builder();
    let client = builder.order(order).connect(reactor.registry(), "server:80")?;
    burst(reactor.registry(), client, number * 1_000, random, Rc::clone(ledger));
    Ok(Box::new(Program::new(reactor, ())))
}

fn burst(
    registry: &mut Registry<()>,
    client: Client<()>,
    first: u64,
    mut random: Random,
    ledger: Shared,
) {
    for name in first..first + CALLS_PER_BURST {
        let length = u32::try_from(random.spread(1, 40_000)).expect("it is that small");
        let told = Rc::clone(&ledger);
        let tell = move |reply: Result<String, CallError<_>>| {
            let was_told = match reply {
                Ok(text) => {
                    assert!(text == answer(name, length), "the answer of call {name} is whole");
                    Answer::Done
                }
                Err(CallError::NotExecuted(_)) => Answer::NotExecuted,
                Err(_) => Answer::Unknown,
            };
            assert_eq!(told.borrow_mut().answers.insert(name, was_told), None, "told once");
        };
        let mut options = CallOptions::new();
        if first / 1_000 == 2 {
            options = options.hedge_after(Duration::from_millis(50));
        }
        let args = (name, length);
        let call = match random.below(3) {
            0 => client.call_with(registry, options, work::now, args, move |reply, _| tell(reply)),
            1 => {
                client.call_with(registry, options, work::later, args, move |reply, _| tell(reply))
            }
            _ => client
                .call_with(registry, options, work::offloaded, args, move |reply, _| tell(reply)),
        };
        if random.chance(30_000) {
            registry.after(Duration::from_millis(2), move |cx| {
                client.cancel(cx.registry, call);
            });
        }
    }
    if first % 1_000 / CALLS_PER_BURST + 1 < BURSTS {
        let pause = Duration::from_millis(random.spread(1, 2_000));
        registry.after(pause, move |cx| {
            burst(cx.registry, client, first + CALLS_PER_BURST, random, ledger);
        });
    }
}

/// Runs a seed, checks it, and returns its trace's hash and how many calls were done.
fn run(seed: u64, tally: &mut Tally) -> (u64, u64) {
    let mut simulation = Simulation::new(seed, Faults::drawn(seed));
    let world = simulation.world().clone();
    let ledger = Shared::default();
    let shared = Rc::clone(&ledger);
    simulation.add(world.host("server"), move |host| server(host, &shared));
    for number in 0..CLIENTS {
        let host = world.host(&format!("client{number}"));
        host.set_immortal(true);
        let shared = Rc::clone(&ledger);
        simulation.add(host, move |host| client(host, number, &shared));
    }
    simulation.run_for(8 * SECOND);
    world.set_faults(Faults::none());
    world.heal();
    let calls = CLIENTS * BURSTS * CALLS_PER_BURST;
    let all_told = |_: &mut Simulation| ledger.borrow().answers.len() as u64 == calls;
    let is_done = simulation.run_until(300 * SECOND, all_told);
    let ledger = &mut *ledger.borrow_mut();
    assert!(is_done, "seed {seed}: {} of {calls} calls ended", ledger.answers.len());
    ledger.runs.sort_unstable();
    if let Some(twice) = ledger.runs.windows(2).find(|pair| pair[0] == pair[1]) {
        panic!("seed {seed}: call {} ran twice", twice[0]);
    }
    for (name, answer) in &ledger.answers {
        let has_run = ledger.runs.binary_search(name).is_ok();
        let is_right = match answer {
            Answer::Done => has_run,
            Answer::NotExecuted => !has_run,
            Answer::Unknown => true,
        };
        assert!(is_right, "seed {seed}: call {name} was told {answer:?}; it ran: {has_run}");
    }
    *tally += &world.tally();
    let done = ledger.answers.values().filter(|&&answer| answer == Answer::Done).count();
    (world.trace_hash(), done as u64)
}

/// How many seeds: `SEEDS=100000 cargo test --release --test simulated_load` for a long night.
fn seeds() -> u64 {
    std::env::var("SEEDS").map_or(30, |seeds| seeds.parse().expect("a number of seeds"))
}

#[test]
fn a_busy_service_keeps_its_promise_whatever_goes_wrong() {
    let mut tally = Tally::default();
    let mut done = 0;
    for seed in 0..seeds() {
        done += run(seed, &mut tally).1;
    }
    println!("{done} calls were done; {tally}");
    let calls = seeds() * CLIENTS * BURSTS * CALLS_PER_BURST;
    assert!(done > calls / 2, "{done} of {calls} calls were done: {tally}");
}

#[test]
fn a_busy_seed_is_the_same_run_again() {
    for seed in 0..4 {
        let mut tally = Tally::default();
        assert_eq!(run(seed, &mut tally), run(seed, &mut tally), "seed {seed}");
    }
}
