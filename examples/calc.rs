//! A service and its callers: `ping`, `add`, and `calculate`, which fails with an error of its own
//! for a division by zero. Shows the three faces of a client over one server: callbacks on the
//! loop, a handle on another thread, and a blocking client whose calls read like local ones.
//!
//! Run it: `cargo run --example calc`

use std::error::Error;
use std::fmt;
use std::thread;

use onceloop::{BlockingClient, Builder, CallError, Client, Handle, Reactor};
use serde::{Deserialize, Serialize};

onceloop::service! {
    /// A calculator.
    pub mod calc {
        /// Answers at once.
        fn ping();
        /// Adds two numbers.
        fn add(a: i32, b: i32) -> i32;
        /// Does one piece of work.
        fn calculate(work: Work) -> Result<i32, InvalidOperation>;
    }
}

/// Two operands and what to do with them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    left: i32,
    right: i32,
    operation: Operation,
}

/// What a calculator can do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// Left and right.
    Add,
    /// Left by right.
    Divide,
}

/// What a calculator cannot do.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidOperation {
    why: String,
}

impl fmt::Display for InvalidOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for InvalidOperation {}

fn calculate(work: &Work) -> Result<i32, InvalidOperation> {
    let result = match work.operation {
        Operation::Add => work.left.checked_add(work.right),
        Operation::Divide if work.right == 0 => {
            return Err(InvalidOperation { why: "division by zero".into() });
        }
        Operation::Divide => work.left.checked_div(work.right),
    };
    result.ok_or_else(|| InvalidOperation { why: "the result has no place in 32 bits".into() })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::<()>::new()?;
    let server = Builder::new()
        .service(calc::METHODS)
        .method(calc::ping, |(), _| Ok(()))
        .method(calc::add, |(a, b), _| Ok(a.wrapping_add(b)))
        .method(calc::calculate, |(work,), _| calculate(&work))
        .listen(reactor.registry(), "127.0.0.1:0")?;
    let address = server.local_addresses(reactor.registry()).remove(0);

    // Callbacks: the calls are under way together, and each reply comes when it comes.
    let client = Client::connect(reactor.registry(), address.clone())?;
    client.call(reactor.registry(), calc::ping, (), |reply, _| {
        println!("ping: {}", if reply.is_ok() { "the server is there" } else { "no answer" });
    });
    let work = Work { left: 8, right: 0, operation: Operation::Divide };
    client.call(reactor.registry(), calc::calculate, (work,), |reply, _| match reply {
        Ok(result) => println!("8 / 0 = {result}"),
        Err(CallError::Application(error)) => println!("8 / 0: {error}"),
        Err(error) => println!("8 / 0 gave no answer: {error}"),
    });

    // The loop is this thread's; others hold a handle, or a client of their own.
    let handle = client.handle(reactor.registry());
    let remote = reactor.registry().remote();
    let others = thread::spawn(move || -> Result<(i32, i32), CallFailed> {
        let sums = from_other_threads(handle, address);
        // The loop may end whatever became of the calls.
        let _ = remote.post(|cx| cx.registry.stop());
        sums
    });
    reactor.run(&mut ())?;
    let (by_handle, by_blocking_client) =
        others.join().expect("the thread does not panic").map_err(|error| error.to_string())?;
    println!("1 + 2 = {by_handle}, by a handle");
    println!("3 + 4 = {by_blocking_client}, by a blocking client");
    Ok(())
}

type CallFailed = Box<dyn Error + Send + Sync>;

fn from_other_threads(
    handle: Handle<()>,
    address: onceloop::Address,
) -> Result<(i32, i32), CallFailed> {
    let by_handle = calc::Stub(handle).add(1, 2)?;
    let mut calc = calc::Stub(BlockingClient::connect(address)?);
    let by_blocking_client = calc.add(3, 4)?;
    Ok((by_handle, by_blocking_client))
}
