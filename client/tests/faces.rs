//! The blocking client, and the handle of other threads.
#![allow(missing_docs)]

mod support;

use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use onceloop_client::{BlockingClient, CallOptions, Client, Handle, State};
use onceloop_protocol::error::{CallError, Code, Ran};
use onceloop_reactor::{Reactor, Remote};
use support::{App, SocketPath, World, bank};

/// A server on a thread of its own, and how to stop it.
struct Served {
    address: String,
    remote: Remote<App>,
    thread: Option<JoinHandle<App>>,
}

impl Served {
    fn new() -> Served {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut reactor = Reactor::new().unwrap();
            let server = support::server().listen(reactor.registry(), "127.0.0.1:0").unwrap();
            let address = server.local_addresses(reactor.registry()).remove(0).to_string();
            sender.send((address, reactor.registry().remote())).unwrap();
            let mut app = App::default();
            reactor.run(&mut app).unwrap();
            app
        });
        let (address, remote) = receiver.recv().unwrap();
        Served { address, remote, thread: Some(thread) }
    }

    fn stop(mut self) -> App {
        self.remote.post(|cx| cx.registry.stop()).unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Returns a handle of a client on a loop of its own, and the thread of that loop.
fn on_a_thread(address: String) -> (Handle<Rc<u8>>, Remote<Rc<u8>>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        let client = Client::connect(reactor.registry(), address).unwrap();
        let registry = reactor.registry();
        sender.send((client.handle(registry), registry.remote())).unwrap();
        reactor.run(&mut Rc::new(0)).unwrap();
    });
    let (handle, remote) = receiver.recv().unwrap();
    (handle, remote, thread)
}

#[test]
fn a_blocking_call_reads_like_a_local_one() {
    let served = Served::new();
    let mut bank = bank::Stub(BlockingClient::connect(&*served.address).unwrap());
    assert_eq!(bank.debit(3), Ok(3));
    assert_eq!(bank.debit(4), Ok(7));
    assert_eq!(bank.echo("both ways"), Ok("both ways".to_owned()));
    let Err(CallError::Application(error)) = bank.fail("no") else { panic!() };
    assert_eq!(error.message, "no");
    assert_eq!(bank.missing().unwrap_err().code(), Some(Code::NoMethod));
    bank.0.notify(bank::debit, (1,)).unwrap();
    assert_eq!(bank.balance(), Ok(8));
    assert_eq!(bank.0.state(), State::Connected { resumed: false });
    assert_eq!(served.stop().balance, 8);
}

#[test]
fn a_blocking_call_has_its_deadline() {
    let path = SocketPath::new();
    let mut client = BlockingClient::connect(path.address()).unwrap();
    let options = CallOptions::new().deadline(Duration::from_millis(20));
    let error = client.call_with(options, bank::balance, ()).unwrap_err();
    assert_eq!((error.ran(), error.code()), (Ran::No, Some(Code::Deadline)));
    assert!(error.to_string().contains("could not connect"), "{error}");
}

#[test]
fn a_blocking_client_that_is_dropped_ends_its_session() {
    let served = Served::new();
    let mut client = BlockingClient::connect(&*served.address).unwrap();
    assert_eq!(client.call(bank::debit, (1,)), Ok(1));
    let mut watcher = BlockingClient::connect(&*served.address).unwrap();
    let mut sessions = || {
        let method = onceloop_protocol::method::DynamicMethod::new("onceloop.stats");
        let stats = watcher.call(method, Vec::new()).unwrap();
        stats.field("sessions").unwrap().as_u64().unwrap()
    };
    assert_eq!(sessions(), 2);
    drop(client);
    let deadline = Instant::now() + support::PATIENCE;
    while sessions() != 1 {
        assert!(Instant::now() < deadline);
    }
    served.stop();
}

#[test]
fn a_handle_calls_from_any_thread() {
    let served = Served::new();
    let (handle, remote, thread) = on_a_thread(served.address.clone());
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let handle = handle.clone();
            std::thread::spawn(move || {
                let mut bank = bank::Stub(handle.clone());
                for _ in 0..25 {
                    bank.debit(1).unwrap();
                    handle.call_channel(bank::debit, (1,)).recv().unwrap().unwrap();
                    let (sender, receiver) = mpsc::channel();
                    handle.call(bank::debit, (1,), move |reply| sender.send(reply).unwrap());
                    receiver.recv().unwrap().unwrap();
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    assert_eq!(handle.wait(CallOptions::new(), bank::balance, ()), Ok(300));
    let failed = handle.wait(CallOptions::new(), bank::fail, ("no",)).unwrap_err();
    assert_eq!(failed.to_string(), "the call failed: no");
    remote.post(|cx| cx.registry.stop()).unwrap();
    thread.join().unwrap();
    served.stop();
}

#[test]
fn a_handle_whose_loop_is_gone_answers_all_the_same() {
    let served = Served::new();
    let (handle, remote, thread) = on_a_thread(served.address.clone());
    let running = handle.call_channel(bank::later, (1,));
    // It is out: the server has run what came after it.
    handle.wait(CallOptions::new(), bank::debit, (1,)).unwrap();
    remote.post(|cx| cx.registry.stop()).unwrap();
    thread.join().unwrap();
    let error = running.recv().unwrap().unwrap_err();
    assert_eq!(error.ran(), Ran::Unknown, "{error}");
    let error = handle.wait(CallOptions::new(), bank::debit, (1,)).unwrap_err();
    assert_eq!(error.ran(), Ran::No, "{error}");
    let error = handle.call_channel(bank::debit, (1,)).recv().unwrap().unwrap_err();
    assert_eq!(error.ran(), Ran::No, "{error}");
    served.stop();
}

#[test]
fn calls_in_the_mailbox_of_a_loop_that_ends_did_not_run() {
    let mut world = World::new();
    let (_, client) = world.pair();
    let handle = client.handle(world.registry());
    let replies: Vec<_> = (0..10).map(|_| handle.call_channel(bank::debit, (1,))).collect();
    drop(world);
    for reply in replies {
        assert_eq!(reply.recv().unwrap().unwrap_err().ran(), Ran::No);
    }
}

#[test]
fn a_wait_on_the_loops_own_thread_is_refused() {
    let mut world = World::new();
    let (_, client) = world.pair();
    let handle = client.handle(world.registry());
    let error = handle.wait(CallOptions::new(), bank::balance, ()).unwrap_err();
    assert_eq!(error.ran(), Ran::No);
    assert!(error.to_string().contains("callback"), "{error}");
    let reply = handle.call_channel(bank::balance, ());
    world.until(|_| matches!(reply.try_recv(), Ok(Ok(0))));
}

#[test]
fn a_closed_client_refuses_what_its_handle_posts() {
    let mut world = World::new();
    let (_, client) = world.pair();
    let handle = client.handle(world.registry());
    client.close(world.registry());
    world.until(|world| client.state(world.reactor.registry()) == State::Closed);
    let reply = handle.call_channel(bank::balance, ());
    world.until(|_| match reply.try_recv() {
        Ok(reply) => {
            assert_eq!(reply.unwrap_err().ran(), Ran::No);
            true
        }
        Err(_) => false,
    });
}

#[test]
fn arguments_that_have_no_form_are_refused() {
    onceloop_protocol::service! { /// Takes what it should not.
        mod odd { /// Takes a value that fails to serialize.
            fn take(value: super::Unwritable); }
    }
    let mut world = World::new();
    let (_, client) = world.pair();
    let handle = client.handle(world.registry());
    let reply = handle.call_channel(odd::take, (Unwritable,));
    client.call(world.registry(), odd::take, (Unwritable,), note!(1));
    let answers = world.answers(1);
    assert_eq!(answers, [support::err(1, Ran::No, Code::BadArguments)]);
    world.until(|_| match reply.try_recv() {
        Ok(reply) => reply.unwrap_err().code() == Some(Code::BadArguments),
        Err(_) => false,
    });
}

/// A value that fails to serialize.
pub(crate) struct Unwritable;

impl serde::Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

impl<'de> serde::Deserialize<'de> for Unwritable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Unwritable)
    }
}
