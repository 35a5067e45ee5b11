//! A server and its clients on one loop, and a relay between them that breaks connections.
#![allow(dead_code, reason = "no test uses all of it")]

pub(crate) mod peer;
pub(crate) mod relay;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use onceloop_client::{Builder, Client, State};
use onceloop_protocol::error::{ApplicationError, Code, Ran};
use onceloop_protocol::limits::Limits;
use onceloop_reactor::{Reactor, Registry};
use onceloop_server::{Responder, Server};

onceloop_protocol::service! {
    /// What the tests call.
    pub mod bank {
        /// Adds to the balance and returns it.
        fn debit(amount: u64) -> u64;
        /// Returns the balance.
        #[idempotent]
        fn balance() -> u64;
        /// Returns the text.
        fn echo(text: &str) -> &str;
        /// Returns so many bytes.
        fn big(bytes: u64) -> bytes::Bytes;
        /// Fails with a message.
        fn fail(message: &str);
        /// Panics.
        fn panic();
        /// Is answered by the test, or never.
        fn later(amount: u64) -> u64;
        /// Is served by nobody.
        fn missing();
    }
}

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The state of the loop.
#[derive(Default)]
pub(crate) struct App {
    pub(crate) balance: u64,
    pub(crate) waiting: Vec<(u64, Responder<App, bank::later>)>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) states: Vec<State>,
}

/// What a continuation was told: which call, the reply as text or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) call: u32,
    pub(crate) reply: Result<String, (Ran, Option<Code>)>,
}

/// A loop, its state, and helpers to turn it until something is so.
pub(crate) struct World {
    pub(crate) reactor: Reactor<App>,
    pub(crate) app: App,
}

impl World {
    pub(crate) fn new() -> World {
        World { reactor: Reactor::new().expect("a reactor"), app: App::default() }
    }

    pub(crate) fn registry(&mut self) -> &mut Registry<App> {
        self.reactor.registry()
    }

    pub(crate) fn serve(&mut self, address: &str) -> Server<App> {
        server().listen(self.reactor.registry(), address).expect("a server")
    }

    /// Returns a client of a server of its own, both in this loop.
    pub(crate) fn pair(&mut self) -> (Server<App>, Client<App>) {
        let server = self.serve("127.0.0.1:0");
        let address = server.local_addresses(self.registry()).remove(0);
        (server, Client::connect(self.registry(), address).expect("a client"))
    }

    pub(crate) fn turn(&mut self) {
        self.reactor.turn(&mut self.app, Some(Duration::from_millis(50))).expect("a turn");
    }

    /// Turns until `done`.
    #[track_caller]
    pub(crate) fn until(&mut self, mut done: impl FnMut(&mut World) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "it never happened: {:?}", self.app.answers);
            self.turn();
        }
    }

    /// Turns until so many calls have been answered, and returns the answers.
    #[track_caller]
    pub(crate) fn answers(&mut self, count: usize) -> Vec<Answer> {
        self.until(|world| world.app.answers.len() >= count);
        std::mem::take(&mut self.app.answers)
    }

    /// Turns a while, in which nothing may be answered.
    #[track_caller]
    pub(crate) fn quiet(&mut self) {
        for _ in 0..3 {
            self.reactor.turn(&mut self.app, Some(Duration::from_millis(1))).expect("a turn");
        }
        assert_eq!(self.app.answers, []);
    }

    /// Answers all calls of `bank::later`.
    pub(crate) fn answer_later(&mut self) {
        let waiting = std::mem::take(&mut self.app.waiting);
        self.registry().defer(move |cx| {
            for (amount, responder) in waiting {
                responder.respond(cx, Ok(amount));
            }
        });
    }
}

pub(crate) fn server() -> onceloop_server::Builder<App> {
    onceloop_server::Builder::<App>::new()
        .method(bank::debit, |(amount,), cx| {
            cx.state.balance += amount;
            Ok(cx.state.balance)
        })
        .method(bank::balance, |(), cx| Ok(cx.state.balance))
        .method(bank::echo, |(text,), _| Ok(text))
        .method(bank::big, |(bytes,), _| {
            Ok(vec![7; usize::try_from(bytes).unwrap_or(usize::MAX)].into())
        })
        .method(bank::fail, |(message,), _| Err(ApplicationError::from(message)))
        .method(bank::panic, |(), _| panic!("on purpose"))
        .deferred(bank::later, |(amount,), responder, cx| {
            cx.state.waiting.push((amount, responder));
        })
}

/// Returns a builder of a client that comes back at once.
pub(crate) fn hasty() -> Builder<App> {
    Client::builder().limits(hasty_limits())
}

pub(crate) fn hasty_limits() -> Limits {
    let mut limits = Limits::default();
    limits.backoff_min = Duration::from_millis(1);
    limits.backoff_max = Duration::from_millis(5);
    limits
}

/// Makes a continuation that notes what it was told under the number `call`.
#[macro_export]
macro_rules! note {
    ($call:expr) => {{
        let call = $call;
        move |reply, cx: &mut onceloop_reactor::Cx<'_, $crate::support::App>| {
            let reply = match reply {
                Ok(reply) => Ok(format!("{reply:?}")),
                Err(error) => Err((onceloop_protocol::error::CallError::ran(&error), error.code())),
            };
            cx.state.answers.push($crate::support::Answer { call, reply });
        }
    }};
}

pub(crate) fn ok(call: u32, reply: &str) -> Answer {
    Answer { call, reply: Ok(reply.to_owned()) }
}

pub(crate) fn err(call: u32, ran: Ran, code: Code) -> Answer {
    Answer { call, reply: Err((ran, Some(code))) }
}

/// A path for a Unix socket that nobody else uses; the file is removed with it.
pub(crate) struct SocketPath(PathBuf);

impl SocketPath {
    pub(crate) fn new() -> SocketPath {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("onceloop-client-{}-{count}.sock", std::process::id());
        SocketPath(std::env::temp_dir().join(name))
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.0.display())
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // Whoever listened there has removed it already, as a rule.
        let _ = std::fs::remove_file(&self.0);
    }
}
