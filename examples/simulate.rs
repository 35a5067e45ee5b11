//! How a service of one's own is tested against failures: a bank and a customer, the same code as on
//! sockets, on hosts of simulated worlds in which connections break, bytes vanish, hosts part,
//! clocks leap and the bank is killed. A seed tells all of it: what one seed shows can be seen again.
//!
//! The customer transfers money, each time by a debit and a credit. However often these are sent
//! again, no money may come or go. Only where the bank's memory died with it may a call be in doubt,
//! and then the caller is told so: what is missing must be explained by that.
//!
//! Run it: `cargo run --release --example simulate`; with a seed as its argument it shows what
//! happens in that world.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use onceloop::protocol::error::Ran;
use onceloop::sim::{Faults, Host, Process, Program, Simulation, Tally};
use onceloop::{Builder, CallOptions, Client, Config, Cx, Method, Reactor};

/// How many worlds are tried.
const WORLDS: u64 = 100;
const TRANSFERS: usize = 30;
const ACCOUNTS: usize = 4;
/// What is in the accounts at first, together.
const DOLLARS: i64 = 1_000;
/// The customer's pause between two transfers.
const PAUSE: Duration = Duration::from_millis(300);
/// How long things go wrong, and how long a world may take from there to its end.
const BAD_TIME: Duration = Duration::from_secs(20);
const GOOD_TIME: Duration = Duration::from_secs(600);

onceloop::service! {
    /// Accounts.
    pub mod bank {
        /// Adds dollars to an account, or takes them away, and returns what is there.
        fn change(account: usize, dollars: i64) -> i64;
        /// The same, declared to do no harm when it runs twice, which is a lie.
        #[idempotent]
        fn change_blindly(account: usize, dollars: i64) -> i64;
    }
}

/// What the bank writes down: it outlives the bank's process, as a disk would.
type Accounts = Rc<RefCell<Vec<i64>>>;

/// The customer's state.
struct Customer {
    client: Client<Customer>,
    is_blind: bool,
    transfers_begun: usize,
    is_done: bool,
    /// What was on its way in calls of which nobody knows whether they ran.
    dollars_in_doubt: i64,
}

/// What came of a world.
struct Outcome {
    dollars: i64,
    dollars_in_doubt: i64,
    struck: Tally,
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(seed) = std::env::args().nth(1) {
        let outcome = run(seed.parse()?, false, true)?;
        println!("${DOLLARS} became ${}", outcome.dollars);
        return Ok(());
    }
    println!("{TRANSFERS} transfers in each of {WORLDS} worlds:");
    for (name, is_blind) in [("blind retry", true), ("exactly once", false)] {
        let (mut conserved, mut in_doubt, mut struck) = (0, 0, Tally::default());
        for seed in 0..WORLDS {
            let outcome = run(seed, is_blind, false)?;
            let missing = DOLLARS - outcome.dollars;
            conserved += u64::from((0..=outcome.dollars_in_doubt).contains(&missing));
            in_doubt += outcome.dollars_in_doubt;
            struck += &outcome.struck;
        }
        println!("{name}: money conserved in {conserved} worlds; ${in_doubt} said to be in doubt");
        let kinds = struck.iter().filter(|&(_, count)| count > 0).count();
        println!("    in spite of {} faults of {kinds} kinds", struck.total());
    }
    Ok(())
}

/// Runs a world: a time in which things go wrong, and one in which all must come to its end.
fn run(seed: u64, is_blind: bool, is_traced: bool) -> Result<Outcome, String> {
    let mut simulation = Simulation::new(seed, Faults::drawn(seed));
    let world = simulation.world().clone();
    if is_traced {
        world.trace(|line| println!("{line}"));
    }
    let accounts = Accounts::new(RefCell::new(vec![DOLLARS / ACCOUNTS as i64; ACCOUNTS]));
    let kept = Rc::clone(&accounts);
    simulation.add(world.host("bank"), move |host| start_bank(host, &kept));
    let customer = world.host("customer");
    // A customer that dies forgets what it was doing: then nobody would know what to expect.
    customer.set_immortal(true);
    simulation.add(customer.clone(), move |host| start_customer(host, is_blind));

    simulation.run_for(BAD_TIME);
    world.set_faults(Faults::none());
    world.heal();
    let is_done = |simulation: &mut Simulation| {
        simulation.program::<Customer>(&customer).is_some_and(|program| program.state.is_done)
    };
    if !simulation.run_until(GOOD_TIME, is_done) {
        return Err(format!("seed {seed}: a call has no end"));
    }
    let program = simulation.program::<Customer>(&customer);
    let dollars_in_doubt = program.map_or(0, |program| program.state.dollars_in_doubt);
    let dollars = accounts.borrow().iter().sum();
    Ok(Outcome { dollars, dollars_in_doubt, struck: world.tally() })
}

/// Starts the bank's process: in the beginning, and whenever it has been killed.
fn start_bank(host: &Host, accounts: &Accounts) -> io::Result<Box<dyn Process>> {
    let mut reactor = Reactor::<()>::simulated(host, Config::simulated());
    let change = |accounts: &Accounts, account: usize, dollars: i64| {
        let mut accounts = accounts.borrow_mut();
        let balance = accounts.get_mut(account).ok_or("no such account")?;
        *balance += dollars;
        Ok(*balance)
    };
    let (once, blindly) = (Rc::clone(accounts), Rc::clone(accounts));
    Builder::new()
        .service(bank::METHODS)
        .method(bank::change, move |(account, dollars), _| change(&once, account, dollars))
        .method(bank::change_blindly, move |(account, dollars), _| {
            change(&blindly, account, dollars)
        })
        .listen(reactor.registry(), "0.0.0.0:80")
        .map_err(io::Error::other)?;
    Ok(Box::new(Program::new(reactor, ())))
}

fn start_customer(host: &Host, is_blind: bool) -> io::Result<Box<dyn Process>> {
    let mut reactor = Reactor::simulated(host, Config::simulated());
    let client = Client::connect(reactor.registry(), "bank:80")?;
    reactor.registry().defer(transfer);
    let customer =
        Customer { client, is_blind, transfers_begun: 0, is_done: false, dollars_in_doubt: 0 };
    Ok(Box::new(Program::new(reactor, customer)))
}

/// Begins the next transfer.
fn transfer(cx: &mut Cx<'_, Customer>) {
    let n = cx.state.transfers_begun;
    if n == TRANSFERS {
        cx.state.is_done = true;
        return;
    }
    cx.state.transfers_begun += 1;
    change(n, true, cx);
}

/// One half of a transfer: the debit or the credit.
fn change(n: usize, is_debit: bool, cx: &mut Cx<'_, Customer>) {
    let options = CallOptions::new().no_deadline();
    if cx.state.is_blind {
        call(options.at_least_once(), bank::change_blindly, n, is_debit, cx);
    } else {
        call(options, bank::change, n, is_debit, cx);
    }
}

fn call<M>(options: CallOptions, method: M, n: usize, is_debit: bool, cx: &mut Cx<'_, Customer>)
where
    M: for<'a> Method<Args<'a> = (usize, i64)> + 'static,
{
    let dollars = 1 + n as i64 % 7;
    let args = if is_debit { (n % ACCOUNTS, -dollars) } else { ((n + 1) % ACCOUNTS, dollars) };
    let client = cx.state.client;
    client.call_with(cx.registry, options, method, args, move |reply, cx| {
        match reply.map(drop) {
            Ok(()) if is_debit => return change(n, false, cx),
            Ok(()) => {}
            // Proof that it did not run: it may be asked for again.
            Err(error) if error.ran() == Ran::No => return change(n, is_debit, cx),
            // It may not: a second run would be worse than the doubt.
            Err(_) => cx.state.dollars_in_doubt += dollars,
        }
        cx.registry.after(PAUSE, transfer);
    });
}
