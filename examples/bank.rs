//! A debit of $10, and a reply that is lost. A client that hears nothing cannot know whether the
//! money is gone: what it may do then is what its semantics say.
//!
//! The wire of this example (`story/wire.rs`) really loses what is said: it cuts the connection after
//! the request was delivered and before the reply is. All of it is on one host of a simulated
//! world (`onceloop::sim`). *Blind retry* is what clients do that have
//! nothing but a timeout: they send the request again. Here that is an at-least-once call of a method
//! that someone has declared idempotent, which a debit is not.
//!
//! Run it: `cargo run --example bank`

mod story;

use std::time::Duration;

use onceloop::protocol::handshake::Order;
use onceloop::protocol::table::store::Disk;
use onceloop::{Builder, CallOptions, Client, Context, Method, Ran};
use story::{Answer, Harm, Outcome, Story, told};

/// Accounts of the transfers, and what is in them at first, together.
const ACCOUNTS: usize = 4;
const DOLLARS: i64 = 1_000;
/// Half of them debits, half credits.
const CALLS: usize = 80;

onceloop::service! {
    /// Accounts.
    pub mod bank {
        /// Takes dollars out of an account and returns what is left.
        fn debit(account: usize, dollars: i64) -> i64;
        /// Puts dollars into an account and returns what is there.
        fn credit(account: usize, dollars: i64) -> i64;
        /// `debit`, with a lie: a second run takes the money a second time.
        #[idempotent]
        fn debit_blindly(account: usize, dollars: i64) -> i64;
        /// `credit`, with the same lie.
        #[idempotent]
        fn credit_blindly(account: usize, dollars: i64) -> i64;
    }
}

struct Bank {
    accounts: Vec<i64>,
    /// How many handlers have run.
    ran: usize,
}

impl Bank {
    fn new() -> Bank {
        Bank { accounts: vec![DOLLARS / ACCOUNTS as i64; ACCOUNTS], ran: 0 }
    }

    fn change(&mut self, account: usize, dollars: i64) -> Result<i64, &'static str> {
        self.ran += 1;
        let balance = self.accounts.get_mut(account).ok_or("no such account")?;
        *balance += dollars;
        Ok(*balance)
    }
}

fn server() -> Builder<Bank> {
    let debit =
        |(account, dollars): (usize, i64), bank: &mut Bank| Ok(bank.change(account, -dollars)?);
    let credit =
        |(account, dollars): (usize, i64), bank: &mut Bank| Ok(bank.change(account, dollars)?);
    Builder::<Bank>::new()
        .service(bank::METHODS)
        .method(bank::debit, move |args, cx| debit(args, cx.state))
        .method(bank::credit, move |args, cx| credit(args, cx.state))
        .method(bank::debit_blindly, move |args, cx| debit(args, cx.state))
        .method(bank::credit_blindly, move |args, cx| credit(args, cx.state))
}

/// What a caller picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// At least once, where it must not be.
    BlindRetry,
    AtMostOnce,
    ExactlyOnce,
}

impl Choice {
    const ALL: [Choice; 3] = [Choice::BlindRetry, Choice::AtMostOnce, Choice::ExactlyOnce];

    fn name(self) -> &'static str {
        match self {
            Choice::BlindRetry => "blind retry",
            Choice::AtMostOnce => "at most once",
            Choice::ExactlyOnce => "exactly once",
        }
    }

    fn options(self) -> CallOptions {
        match self {
            Choice::BlindRetry => CallOptions::new().no_deadline().at_least_once(),
            Choice::AtMostOnce => CallOptions::new().no_deadline().at_most_once(),
            Choice::ExactlyOnce => CallOptions::new().no_deadline(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    RequestLost,
    ReplyLost,
    ServerCrashes,
}

impl Failure {
    const ALL: [Failure; 3] = [Failure::RequestLost, Failure::ReplyLost, Failure::ServerCrashes];

    fn name(self) -> &'static str {
        match self {
            Failure::RequestLost => "the request is lost",
            Failure::ReplyLost => "the reply is lost alone",
            Failure::ServerCrashes => "the reply is lost, and the server with its table",
        }
    }
}

fn main() -> Outcome<()> {
    println!("$10 is taken from an account of $100:");
    for failure in Failure::ALL {
        println!("{}", failure.name());
        for choice in Choice::ALL {
            debit(failure, choice)?;
        }
    }
    println!("the same, and the table is on a disk, with the accounts");
    debit_on_disk()?;
    println!("{} transfers, and of eight calls one request and one reply are lost:", CALLS / 2);
    for choice in Choice::ALL {
        transfer(choice)?;
    }
    Ok(())
}

/// Takes $10 and prints what the caller is told beside what has happened.
fn debit(failure: Failure, choice: Choice) -> Outcome<()> {
    let mut story = Story::begin(Bank { accounts: vec![100], ran: 0 }, server())?;
    let client = story.client(Order::Unordered)?;
    let harm = match failure {
        Failure::RequestLost => Harm::LoseRequest,
        Failure::ReplyLost | Failure::ServerCrashes => Harm::LoseReply,
    };
    story.harm(harm);
    let answer = if choice == Choice::BlindRetry {
        call_and_fail(&mut story, client, choice, failure, bank::debit_blindly)?
    } else {
        call_and_fail(&mut story, client, choice, failure, bank::debit)?
    };
    let Bank { accounts, ran } = story.state();
    let (name, told) = (choice.name(), told(&answer));
    println!("  {name:12}  the caller is told {told:13}  ran {ran} times, ${} left", accounts[0]);
    Ok(())
}

/// Takes $10 from an account on a disk, by a method whose effect and answer are one commit there; the
/// server crashes before its reply is heard.
fn debit_on_disk() -> Outcome<()> {
    let disk = Disk::new(|| Duration::from_millis(1));
    let mut story = Story::begin(Bank { accounts: Vec::new(), ran: 0 }, server_on(&disk))?;
    let client = story.client(Order::Unordered)?;
    story.harm(Harm::LoseReply);
    let choice = Choice::ExactlyOnce;
    let call = story.start(client, choice.options(), bank::debit, (0, 10));
    story.wait_for_harm()?;
    // What was not safe is lost; but no reply leaves before what it says is.
    disk.crash(0);
    story.crash(server_on(&disk))?;
    let answer = story.wait(&call)?;
    let (name, told, ran) = (choice.name(), told(&answer), story.state().ran);
    let left = disk.log().get_safe(ACCOUNT).map_or(100, dollars);
    println!("  {name:12}  the caller is told {told:13}  ran {ran} times, ${left} left");
    Ok(())
}

/// Where the account is on the disk. Nothing there is an account that nobody has touched.
const ACCOUNT: &[u8] = b"account 0";

fn server_on(disk: &Disk) -> Builder<Bank> {
    let debit = |(_, amount): (usize, i64), cx: &mut Context<'_, Bank>| {
        cx.state.ran += 1;
        let left = cx.read(ACCOUNT).map_or(100, |bytes| dollars(&bytes)) - amount;
        cx.write(ACCOUNT, Some(&left.to_le_bytes()));
        Ok(left)
    };
    Builder::<Bank>::new().store(disk.open()).transactional(bank::debit, debit)
}

fn dollars(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().expect("it was written as eight bytes"))
}

fn call_and_fail<M>(
    story: &mut Story<Bank>,
    client: Client<Bank>,
    choice: Choice,
    failure: Failure,
    method: M,
) -> Outcome<Answer<M>>
where
    M: for<'a> Method<Args<'a> = (usize, i64)> + 'static,
{
    let call = story.start(client, choice.options(), method, (0, 10));
    story.wait_for_harm()?;
    if failure == Failure::ServerCrashes {
        story.crash(server())?;
    }
    story.wait(&call)
}

/// Moves money about, each time by a debit and a credit, over a wire that loses one request and one
/// reply in eight calls. Whatever is lost, no money may be.
fn transfer(choice: Choice) -> Outcome<()> {
    let mut story = Story::begin(Bank::new(), server())?;
    let client = story.client(Order::Unordered)?;
    for call in 0..CALLS {
        match call % 8 {
            2 => story.harm(Harm::LoseReply),
            5 => story.harm(Harm::LoseRequest),
            _ => {}
        }
        let n = call / 2;
        let (from, to, dollars) = (n % ACCOUNTS, (n + 1) % ACCOUNTS, 1 + n as i64 % 7);
        let is_debit = call % 2 == 0;
        let account = if is_debit { from } else { to };
        change(&mut story, client, choice, is_debit, (account, dollars))?;
    }
    let Bank { accounts, ran } = story.state();
    let after: i64 = accounts.iter().sum();
    let verdict = if after == DOLLARS { "conserved" } else { "NOT conserved" };
    let name = choice.name();
    println!("  {name:12}  {CALLS} calls ran {ran} times; ${DOLLARS} became ${after}: {verdict}");
    Ok(())
}

/// Half a transfer. What has not run, as is proved, is asked for again; nothing else is.
fn change(
    story: &mut Story<Bank>,
    client: Client<Bank>,
    choice: Choice,
    is_debit: bool,
    args: (usize, i64),
) -> Outcome<()> {
    let options = choice.options();
    loop {
        let answer = match (choice, is_debit) {
            (Choice::BlindRetry, true) => story.call(client, options, bank::debit_blindly, args)?,
            (Choice::BlindRetry, false) => {
                story.call(client, options, bank::credit_blindly, args)?
            }
            (_, true) => story.call(client, options, bank::debit, args)?,
            (_, false) => story.call(client, options, bank::credit, args)?,
        };
        match answer {
            Ok(_) => return Ok(()),
            Err(error) if error.ran() == Ran::No => {}
            Err(error) => return Err(error.into()),
        }
    }
}
