//! A store of values by key, and what a late copy of a request does to it.
//!
//! A client puts 10, hears nothing, puts 10 again and is answered; it puts 20 and is answered. Then
//! the first copy of *put 10*, which the network had held up, arrives. Who has retried blindly reads
//! 10. A late append is worse: it is there twice.
//!
//! *Blind retry* is here what programs do over a library that promises no more than one attempt: when
//! the time is over they connect anew and call again. To the server that is another client and
//! another call; no table can tell. The library's own retry keeps the name of the call, and a
//! connection that it has left for another is dead: nothing that comes by it runs any more. Of a
//! hedged call both connections live, and the copy is known by its name.
//!
//! All of it is on one host of a simulated world (`onceloop::sim`): seconds pass in no time.
//!
//! Run it: `cargo run --example kv`

mod story;

use std::collections::HashMap;
use std::time::Duration;

use onceloop::protocol::handshake::Order;
use onceloop::{Builder, CallOptions, Method, Ran};
use story::{Answer, Harm, Outcome, Story};

/// When a blind client gives up waiting.
const TIMEOUT: Duration = Duration::from_secs(5);
/// When a hedged call is sent once more.
const HEDGE_AFTER: Duration = Duration::from_millis(300);
/// Long enough for what is late to arrive.
const A_WHILE: Duration = Duration::from_secs(1);
/// How long the store takes for a large value.
const SLOW: Duration = Duration::from_secs(1);

onceloop::service! {
    /// Values by key.
    pub mod kv {
        /// Sets the value of a key.
        fn put(key: &str, value: &str);
        /// The same, by a slow disk: the value is set when this ends.
        fn put_slowly(key: &str, value: &str);
        /// Adds to the value of a key.
        fn append(key: &str, value: &str);
        /// Returns the value of a key; without one, nothing.
        #[idempotent]
        fn get(key: &str) -> String;
    }
}

#[derive(Default)]
struct Store {
    values: HashMap<String, String>,
    /// How many puts and appends have run.
    writes: usize,
}

impl Store {
    fn put(&mut self, key: &str, value: &str) {
        self.writes += 1;
        self.values.insert(key.to_owned(), value.to_owned());
    }

    fn append(&mut self, key: &str, value: &str) {
        self.writes += 1;
        self.values.entry(key.to_owned()).or_default().push_str(value);
    }
}

fn server() -> Builder<Store> {
    Builder::<Store>::new()
        .service(kv::METHODS)
        .method(kv::put, |(key, value), cx| {
            cx.state.put(key, value);
            Ok(())
        })
        .deferred(kv::put_slowly, |(key, value), responder, cx| {
            let (key, value) = (key.to_owned(), value.to_owned());
            cx.registry.after(SLOW, move |cx| {
                cx.state.put(&key, &value);
                responder.respond(cx, Ok(()));
            });
        })
        .method(kv::append, |(key, value), cx| {
            cx.state.append(key, value);
            Ok(())
        })
        .method(kv::get, |(key,), cx| Ok(cx.state.values.get(key).cloned().unwrap_or_default()))
}

fn main() -> Outcome<()> {
    println!("put 10, put 20, and a copy of put 10 that arrives late");
    late_put("blind retry", Retry::Blind)?;
    late_put("exactly once", Retry::Library(Order::Unordered, CallOptions::new()))?;
    late_put("exactly once, in order", Retry::Library(Order::InOrder, CallOptions::new()))?;
    // A copy by a second connection, before anybody knows what is wrong with the first.
    let hedged = CallOptions::new().hedge_after(HEDGE_AFTER);
    late_put("exactly once, hedged", Retry::Library(Order::Unordered, hedged))?;

    println!("append a, append b, and the reply to the first is lost");
    lost_append("blind retry", Retry::Blind)?;
    lost_append("exactly once", Retry::Library(Order::Unordered, CallOptions::new()))?;
    lost_append("exactly once, in order", Retry::Library(Order::InOrder, CallOptions::new()))?;

    println!("put 10 and put 20 without waiting, and put 10 takes longer");
    overtaken("exactly once", Order::Unordered)?;
    overtaken("exactly once, in order", Order::InOrder)?;
    Ok(())
}

/// Who sends a call again.
#[derive(Clone, Copy)]
enum Retry {
    /// The program, by another client each time.
    Blind,
    /// The library, in a session of this order.
    Library(Order, CallOptions),
}

fn late_put(name: &str, retry: Retry) -> Outcome<()> {
    let mut story = Story::begin(Store::default(), server())?;
    story.harm(Harm::HoldRequest);
    write(&mut story, retry, kv::put, [("k", "10"), ("k", "20")])?;
    let before = story.state().writes;
    let arrived = story.let_it_arrive();
    story.pass(A_WHILE);
    let late = match story.state().writes - before {
        _ if !arrived => "the late copy's connection is gone",
        0 => "the late copy came, and did not run",
        _ => "the late copy ran",
    };
    tell(name, story, late)
}

fn lost_append(name: &str, retry: Retry) -> Outcome<()> {
    let mut story = Story::begin(Store::default(), server())?;
    story.harm(Harm::LoseReply);
    write(&mut story, retry, kv::append, [("k", "a"), ("k", "b")])?;
    tell(name, story, "of 2 appends")
}

/// Two calls that do not wait for each other. Exactly once does not say which one runs first: that
/// does the session's order.
fn overtaken(name: &str, order: Order) -> Outcome<()> {
    let mut story = Story::begin(Store::default(), server())?;
    let client = story.client(order)?;
    let slow = story.start(client, CallOptions::new(), kv::put_slowly, ("k", "10"));
    let fast = story.start(client, CallOptions::new(), kv::put, ("k", "20"));
    story.wait(&fast)??;
    story.wait(&slow)??;
    tell(name, story, "of 2 puts")
}

/// Writes one after the other, each until it is answered.
fn write<M>(
    story: &mut Story<Store>,
    retry: Retry,
    method: M,
    writes: [(&str, &str); 2],
) -> Outcome<()>
where
    M: for<'a> Method<Args<'a> = (&'a str, &'a str), Owned = ()> + Copy + 'static,
    M::Error: std::error::Error + 'static,
{
    match retry {
        Retry::Blind => writes.into_iter().try_for_each(|args| write_blindly(story, method, args)),
        Retry::Library(order, options) => {
            let client = story.client(order)?;
            for args in writes {
                story.call(client, options, method, args)??;
            }
            Ok(())
        }
    }
}

/// Writes until there is an answer, as programs do that have nothing but a timeout.
fn write_blindly<M>(story: &mut Story<Store>, method: M, args: M::Args<'_>) -> Outcome<()>
where
    M: for<'a> Method<Args<'a> = (&'a str, &'a str), Owned = ()> + Copy + 'static,
    M::Error: std::error::Error + 'static,
{
    let once = CallOptions::new().at_most_once().deadline(TIMEOUT);
    loop {
        let attempt = story.client_of_one_connection()?;
        let answer: Answer<M> = story.call(attempt, once, method, args)?;
        match answer {
            Err(error) if error.ran() != Ran::Yes => {} // nobody answers: once more
            answer => return Ok(answer?),
        }
    }
}

/// Prints what is read in the end.
fn tell(name: &str, mut story: Story<Store>, what: &str) -> Outcome<()> {
    let client = story.client(Order::Unordered)?;
    let read = story.call(client, CallOptions::new().at_least_once(), kv::get, ("k",))??;
    println!("  {name:22}  get returns {read:3}  {} writes ran; {what}", story.state().writes);
    Ok(())
}
