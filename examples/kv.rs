//! A store of values by key, and what a late copy of a request does to it.
//!
//! A client puts 10, hears nothing, puts 10 again and is answered; it puts 20 and is answered. Then
//! the first copy of *put 10*, which the network had held up, arrives. Who has retried blindly reads
//! 10. A late append is worse: it is there twice.
//!
//! *Blind retry* is here what programs do over a library that promises no more than one attempt: when
//! the time is over they connect anew and call again. To the server that is another client and
//! another call; no table can tell. The library's own retry keeps the name of the call, and a
//! connection that it has left for another is dead: nothing that comes by it runs any more.
//!
//! All of it is on one host of a simulated world (`onceloop::sim`): seconds pass in no time.
//!
//! Run it: `cargo run --example kv`

mod story;

use std::collections::HashMap;
use std::time::Duration;

use onceloop::protocol::handshake::Order;
use onceloop::{Builder, CallOptions, Client, Method, Ran};
use story::{Answer, Harm, Outcome, Story};

/// When a blind client gives up waiting.
const TIMEOUT: Duration = Duration::from_secs(5);
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
    late_put("blind retry", None)?;
    late_put("exactly once", Some(Order::Unordered))?;
    late_put("exactly once, in order", Some(Order::InOrder))?;

    println!("append a, append b, and the reply to the first is lost");
    lost_append("blind retry", None)?;
    lost_append("exactly once", Some(Order::Unordered))?;
    lost_append("exactly once, in order", Some(Order::InOrder))?;

    println!("put 10 and put 20 without waiting, and put 10 takes longer");
    overtaken("exactly once", Order::Unordered)?;
    overtaken("exactly once, in order", Order::InOrder)?;
    Ok(())
}

/// The story of the late put. Without an order it is told of a client that retries blindly.
fn late_put(name: &str, order: Option<Order>) -> Outcome<()> {
    let mut story = Story::begin(Store::default(), server())?;
    let client = story.client(order.unwrap_or(Order::Unordered))?;
    story.harm(Harm::HoldRequest);
    for value in ["10", "20"] {
        write(&mut story, client, order.is_some(), kv::put, ("k", value))?;
    }
    let arrived = story.let_it_arrive();
    if arrived {
        // The server cannot know that it is late, nor that it is a copy: it runs.
        story.until(|store| store.writes == 3)?;
    }
    let late = if arrived { "the late copy ran" } else { "the late copy's connection is gone" };
    tell(name, story, late)
}

fn lost_append(name: &str, order: Option<Order>) -> Outcome<()> {
    let mut story = Story::begin(Store::default(), server())?;
    let client = story.client(order.unwrap_or(Order::Unordered))?;
    story.harm(Harm::LoseReply);
    for value in ["a", "b"] {
        write(&mut story, client, order.is_some(), kv::append, ("k", value))?;
    }
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

/// Writes exactly once, or until a blind client is answered.
fn write<M>(
    story: &mut Story<Store>,
    client: Client<Store>,
    is_exactly_once: bool,
    method: M,
    args: M::Args<'_>,
) -> Outcome<()>
where
    M: for<'a> Method<Args<'a> = (&'a str, &'a str), Owned = ()> + Copy + 'static,
    M::Error: std::error::Error + 'static,
{
    if is_exactly_once {
        return Ok(story.call(client, CallOptions::new(), method, args)??);
    }
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
