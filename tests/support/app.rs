//! A service to fail with, and a state that notes what its callers were told.

use std::time::Duration;

use onceloop::{
    ApplicationError, Builder, CallError, Client, Code, Cx, Ran, Responder, Server, State,
};
use serde::{Deserialize, Serialize};

use super::World;
use super::proxy::{Harm, Harmed};

onceloop::service! {
    /// What the tests call.
    pub(crate) mod shop {
        /// Adds to the sum and returns it.
        fn add(amount: u64) -> u64;
        /// Returns the sum.
        #[idempotent]
        fn sum() -> u64;
        /// Returns the text.
        fn echo(text: &str) -> String;
        /// Adds to the sum, and is answered when the test says so, or never.
        fn later(amount: u64) -> u64;
        /// Returns a text of so many bytes.
        fn long(bytes: u64) -> String;
        /// Returns how many milliseconds its caller will still wait.
        fn time_left() -> Option<u64>;
        /// Fails with an error of its own.
        fn buy(money: u64) -> Result<u64, TooPoor>;
        /// Fails with a message.
        fn fail(message: &str);
        /// Adds to the sum, then panics.
        fn panic(amount: u64);
        /// Adds to the sum, then panics before it is answered.
        fn panic_later(amount: u64);
        /// Gives its call up without an answer.
        fn give_up();
        /// Is served by nobody.
        fn missing();
    }
}

/// An error with something to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TooPoor {
    /// How much is missing.
    pub(crate) missing: u64,
}

impl std::fmt::Display for TooPoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} are missing", self.missing)
    }
}

impl std::error::Error for TooPoor {}

/// What a caller was told: the reply as text, or whether the call ran and why there is none.
pub(crate) type Told = Result<String, (Ran, Option<Code>)>;

/// The state of a loop.
#[derive(Default)]
pub(crate) struct App {
    pub(crate) sum: u64,
    pub(crate) waiting: Vec<(u64, Responder<App, shop::later>)>,
    pub(crate) told: Vec<(u32, Told)>,
    pub(crate) states: Vec<State>,
    /// Errors in their own words.
    pub(crate) messages: Vec<String>,
    /// How many drains are over.
    pub(crate) drained: u32,
    harm: Harm,
}

impl Harmed for App {
    fn harm(&mut self) -> &mut Harm {
        &mut self.harm
    }
}

pub(crate) fn shop() -> Builder<App> {
    Builder::<App>::new()
        .method(shop::add, |(amount,), cx| {
            cx.state.sum += amount;
            Ok(cx.state.sum)
        })
        .method(shop::sum, |(), cx| Ok(cx.state.sum))
        .method(shop::echo, |(text,), _| Ok(text.to_owned()))
        .method(shop::long, |(bytes,), _| {
            Ok("x".repeat(usize::try_from(bytes).expect("it fits into memory")))
        })
        .method(shop::time_left, |(), cx| {
            let left = cx.time_left();
            Ok(left.map(|left| u64::try_from(left.as_millis()).expect("no eternity")))
        })
        .method(shop::buy, |(money,), _| match money.checked_sub(10) {
            Some(change) => Ok(change),
            None => Err(TooPoor { missing: 10 - money }),
        })
        .method(shop::fail, |(message,), _| Err(ApplicationError::from(message)))
        .method(shop::panic, |(amount,), cx| {
            cx.state.sum += amount;
            panic!("on purpose");
        })
        .deferred(shop::panic_later, |(amount,), _responder, cx| {
            cx.state.sum += amount;
            panic!("on purpose");
        })
        .deferred(shop::give_up, |(), responder, _| drop(responder))
        .deferred(shop::later, |(amount,), responder, cx| {
            cx.state.sum += amount;
            cx.state.waiting.push((amount, responder));
        })
}

/// Makes a continuation that notes what it was told, under the number `call`.
pub(crate) fn note<T, E>(
    call: u32,
) -> impl FnOnce(Result<T, CallError<E>>, &mut Cx<'_, App>) + 'static
where
    T: std::fmt::Debug + 'static,
    E: std::fmt::Display + 'static,
{
    move |reply, cx| keep(call, reply, cx)
}

/// Notes what the call `call` was told.
pub(crate) fn keep<T: std::fmt::Debug, E: std::fmt::Display>(
    call: u32,
    reply: Result<T, CallError<E>>,
    cx: &mut Cx<'_, App>,
) {
    if let Err(error) = &reply {
        cx.state.messages.push(error.to_string());
    }
    let told = match reply {
        Ok(reply) => Ok(format!("{reply:?}")),
        Err(error) => Err((error.ran(), error.code())),
    };
    cx.state.told.push((call, told));
}

pub(crate) fn ok(call: u32, reply: &str) -> (u32, Told) {
    (call, Ok(reply.to_owned()))
}

pub(crate) fn err(call: u32, ran: Ran, code: Code) -> (u32, Told) {
    (call, Err((ran, Some(code))))
}

impl World<App> {
    /// Returns a client of a server of its own, both on this loop.
    pub(crate) fn pair(&mut self) -> (Server<App>, Client<App>) {
        let (server, address) = self.serve(shop());
        let client = self.connect(&address);
        (server, client)
    }

    /// Turns until so many calls were answered, and returns what they were told, by number.
    #[track_caller]
    pub(crate) fn told(&mut self, count: usize) -> Vec<(u32, Told)> {
        self.until(|world| world.app.told.len() >= count);
        // One answer too many would come soon.
        self.pass(Duration::from_millis(2));
        let mut told = std::mem::take(&mut self.app.told);
        assert_eq!(told.len(), count, "{told:?}");
        told.sort_by_key(|(call, _)| *call);
        told
    }

    /// Answers all calls of `shop::later`.
    pub(crate) fn answer_later(&mut self) {
        let waiting = std::mem::take(&mut self.app.waiting);
        self.registry().defer(move |cx| {
            for (amount, responder) in waiting {
                responder.respond(cx, Ok(amount));
            }
        });
    }
}
