//! A client that crashes and comes back from its journal, against a real server.
#![allow(missing_docs)]

mod support;

use std::time::{Duration, Instant};

use onceloop_client::{CallOptions, Client, outcome};
use onceloop_protocol::codec::decode_whole;
use onceloop_protocol::error::{Code, Ran};
use onceloop_protocol::method::Method;
use onceloop_protocol::session::{JournalDisk, JournalError, ModelledJournal, RecoveredCall};
use support::{Answer, App, PATIENCE, World, bank, err, hasty, ok};

/// Returns a client with a journal on `disk`; what it recovers is noted under the call's tag.
fn client(world: &mut World, disk: &JournalDisk, address: &str) -> std::io::Result<Client<App>> {
    hasty()
        .journal(ModelledJournal::new(disk))
        .on_recovered(|call: &RecoveredCall, answer, cx| {
            assert_eq!(call.method, bank::debit.id());
            assert_eq!(decode_whole::<(u64,)>(&call.args).unwrap(), (7,));
            let reply = outcome::<bank::debit>(answer)
                .map(|balance| balance.to_string())
                .map_err(|error| (error.ran(), error.code()));
            cx.state.answers.push(Answer { call: u32::try_from(call.tag).unwrap(), reply });
        })
        .connect(world.registry(), address)
}

/// Turns both loops until `done`.
#[track_caller]
fn until(server: &mut World, client: &mut World, mut done: impl FnMut(&World, &mut World) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(server, client) {
        assert!(Instant::now() < deadline, "it never happened: {:?}", client.app.answers);
        for world in [&mut *server, &mut *client] {
            world.reactor.turn(&mut world.app, Some(Duration::from_millis(1))).unwrap();
        }
    }
}

const TAGGED: CallOptions = CallOptions::new().tag(42);

#[test]
fn a_restarted_client_is_told_what_became_of_its_calls_and_nothing_runs_twice() {
    let mut far = World::new();
    let server = far.serve("127.0.0.1:0");
    let address = server.local_addresses(far.registry()).remove(0).to_string();
    let disk = JournalDisk::new(3);
    disk.set_delays(Duration::from_millis(1)..Duration::from_millis(3));

    let mut near = World::new();
    let first = client(&mut near, &disk, &address).unwrap();
    first.call_with(near.registry(), TAGGED, bank::debit, (7,), note!(1));
    until(&mut far, &mut near, |_, near| first.counters(near.registry()).calls == 1);
    disk.crash();
    drop(near);

    let mut near = World::new();
    let second = client(&mut near, &disk, &address).unwrap();
    until(&mut far, &mut near, |_, near| !near.app.answers.is_empty());
    assert_eq!(near.app.answers, [ok(42, "7")]);
    assert_eq!(far.app.balance, 7, "it ran once");
    second.call(near.registry(), bank::debit, (5,), note!(2));
    until(&mut far, &mut near, |_, near| near.app.answers.len() == 2);
    assert_eq!(near.app.answers[1], ok(2, "12"));
    let stats = server.stats(far.registry());
    assert_eq!((stats.sessions_opened, stats.sessions_resumed), (1, 1));

    // What was consumed is not told again.
    until(&mut far, &mut near, |_, _| disk.safe().is_empty());
    disk.crash();
    drop(near);
    let mut near = World::new();
    let third = client(&mut near, &disk, &address).unwrap();
    assert_eq!(third.pending(near.registry()), 0);
    until(&mut far, &mut near, |_, near| {
        matches!(third.state(near.registry()), onceloop_client::State::Connected { resumed: true })
    });
}

#[test]
fn a_journal_in_use_is_refused() {
    let disk = JournalDisk::new(1);
    let mut world = World::new();
    let first = client(&mut world, &disk, "127.0.0.1:1").unwrap();
    let error = client(&mut world, &disk, "127.0.0.1:1").unwrap_err();
    let journal_error = error.get_ref().and_then(|inner| inner.downcast_ref::<JournalError>());
    assert_eq!(journal_error, Some(&JournalError::InUse));
    first.close(world.registry());
    world.turn();
    assert!(client(&mut world, &disk, "127.0.0.1:1").is_ok());
}

#[test]
fn a_journal_that_fails_ends_calls_with_its_reason() {
    let mut world = World::new();
    let server = world.serve("127.0.0.1:0");
    let address = server.local_addresses(world.registry()).remove(0).to_string();
    let disk = JournalDisk::new(1);
    let client = client(&mut world, &disk, &address).unwrap();
    client.call(world.registry(), bank::debit, (7,), note!(1));
    assert_eq!(world.answers(1), [ok(1, "7")]);
    disk.fail("no space left");
    client.call(world.registry(), bank::debit, (7,), note!(2));
    assert_eq!(world.answers(1)[0].reply.as_ref().unwrap_err().1, Some(Code::Cancelled));
    client.call(world.registry(), bank::debit, (7,), note!(3));
    assert_eq!(world.answers(1), [err(3, Ran::No, Code::Cancelled)]);
    assert_eq!(world.app.balance, 7, "nothing was sent that was not written");
}
