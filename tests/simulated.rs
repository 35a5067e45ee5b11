//! Servers and clients in a simulated world: whatever goes wrong there, no call runs twice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use onceloop::sim::{Faults, Host, Process, Program, Simulation, Tally};
use onceloop::{Builder, CallError, Client, Config, Reactor, Registry};

onceloop::service! {
    /// Counts.
    pub mod counting {
        /// Counts one call, by its name.
        fn count(name: u64) -> u64;
    }
}

const CALLS: u64 = 60;
const SECOND: Duration = Duration::from_secs(1);

/// What is known of each call, from outside: how often it ran, over all lives of the server, and
/// what its caller was told.
#[derive(Default)]
struct Ledger {
    runs: BTreeMap<u64, u32>,
    answers: BTreeMap<u64, Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    NotExecuted,
    Unknown,
}

type Shared = Rc<RefCell<Ledger>>;

fn server(host: &Host, ledger: &Shared) -> std::io::Result<Box<dyn Process>> {
    let mut reactor = Reactor::<()>::simulated(host, Config::simulated());
    let ledger = Rc::clone(ledger);
    Builder::new()
        .method(counting::count, move |(name,), _| {
            *ledger.borrow_mut().runs.entry(name).or_default() += 1;
            Ok(name)
        })
        .listen(reactor.registry(), "0.0.0.0:80")
        .map_err(std::io::Error::other)?;
    Ok(Box::new(Program::new(reactor, ())))
}

/// Makes the calls, one each 100 ms or so, whatever becomes of them.
fn client(host: &Host, ledger: &Shared) -> std::io::Result<Box<dyn Process>> {
    let mut reactor = Reactor::<()>::simulated(host, Config::simulated());
    let client = Client::connect(reactor.registry(), "server:80")?;
    call(reactor.registry(), client, 0, Rc::clone(ledger));
    Ok(Box::new(Program::new(reactor, ())))
}

fn call(registry: &mut Registry<()>, client: Client<()>, name: u64, ledger: Shared) {
    let told = Rc::clone(&ledger);
    client.call(registry, counting::count, (name,), move |reply, _| {
        let answer = match reply {
            Ok(echoed) => {
                assert_eq!(echoed, name);
                Answer::Done
            }
            Err(CallError::NotExecuted(_)) => Answer::NotExecuted,
            Err(_) => Answer::Unknown,
        };
        assert_eq!(told.borrow_mut().answers.insert(name, answer), None, "told once");
    });
    if name + 1 < CALLS {
        let pause = Duration::from_millis(20 + name * 37 % 160);
        registry.after(pause, move |cx| call(cx.registry, client, name + 1, ledger));
    }
}

/// How many seeds: `SEEDS=100000 cargo test --release --test simulated` for a long night.
fn seeds() -> u64 {
    std::env::var("SEEDS").map_or(200, |seeds| seeds.parse().expect("a number of seeds"))
}

/// What came of a seed.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    hash: u64,
    done: usize,
    unknown: usize,
    tally: Tally,
}

/// Runs a seed: a time of faults, then one without in which every call must come to its end.
fn run(seed: u64, faults: Faults) -> Outcome {
    let mut simulation = Simulation::new(seed, faults);
    let ledger = Shared::default();
    let world = simulation.world().clone();
    let (at_server, at_client) = (world.host("server"), world.host("client"));
    // A client that dies forgets its calls: here nobody would be told what became of them.
    at_client.set_immortal(true);
    let shared = Rc::clone(&ledger);
    simulation.add(at_server.clone(), move |host| server(host, &shared));
    let shared = Rc::clone(&ledger);
    simulation.add(at_client, move |host| client(host, &shared));

    simulation.run_for(10 * SECOND);
    world.set_faults(Faults::none());
    world.heal();
    let all_told = |_: &mut Simulation| ledger.borrow().answers.len() as u64 == CALLS;
    assert!(simulation.run_until(120 * SECOND, all_told), "seed {seed}: a call hangs");

    let ledger = ledger.borrow();
    for (name, answer) in &ledger.answers {
        let runs = ledger.runs.get(name).copied().unwrap_or(0);
        let is_right = match answer {
            Answer::Done => runs == 1,
            Answer::NotExecuted => runs == 0,
            Answer::Unknown => runs <= 1,
        };
        assert!(is_right, "seed {seed}: call {name} was told {answer:?} and ran {runs} times");
    }
    let count = |which| ledger.answers.values().filter(|&&answer| answer == which).count();
    Outcome {
        hash: world.trace_hash(),
        done: count(Answer::Done),
        unknown: count(Answer::Unknown),
        tally: world.tally(),
    }
}

#[test]
fn without_faults_every_call_is_done() {
    for seed in 0..5 {
        let outcome = run(seed, Faults::none());
        assert_eq!((outcome.done as u64, outcome.tally.total()), (CALLS, 0));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..10 {
        assert_eq!(run(seed, Faults::drawn(seed)), run(seed, Faults::drawn(seed)), "seed {seed}");
    }
    assert_ne!(run(1, Faults::none()).hash, run(2, Faults::none()).hash);
}

#[test]
fn with_all_faults_no_call_runs_twice() {
    let mut tally = Tally::default();
    let (mut done, mut unknown) = (0, 0);
    for seed in 0..seeds() {
        let outcome = run(seed, Faults::drawn(seed));
        done += outcome.done;
        unknown += outcome.unknown;
        tally += &outcome.tally;
    }
    let silent: Vec<_> = tally.iter().filter(|&(_, count)| count == 0).collect();
    assert!(silent.is_empty(), "never struck: {silent:?}");
    println!("{done} done, {unknown} unknown; {tally}");
    assert!(done > 4 * unknown, "{done} done, {unknown} unknown: {tally}");
}
