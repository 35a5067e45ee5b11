//! Each fault of the simulated world: it strikes, it is counted, and it does what is said of it.

mod simulated;

use std::collections::BTreeSet;
use std::time::Duration;

use onceloop_reactor::sim::{Fault, Faults};
use simulated::{MINUTE, Pair, Record, SECOND, Shared, pattern};

const ALWAYS: u32 = 1_000_000;
/// More than the bytes after which a connection meets its fate.
const LONG: usize = 150_000;

fn faults(set: impl FnOnce(&mut Faults)) -> Faults {
    let mut faults = Faults::none();
    set(&mut faults);
    faults
}

/// Sends much to an echo and waits a while.
fn exchange(seed: u64, faults: Faults) -> (Pair, Shared) {
    let mut pair = Pair::new(seed, faults, true);
    let client = pair.send(LONG);
    pair.simulation.run_for(20 * SECOND);
    (pair, client)
}

fn count(pair: &Pair, fault: Fault) -> u64 {
    pair.simulation.world().tally().of(fault)
}

#[test]
fn a_cut_ends_a_connection_after_some_bytes() {
    let mut ends = BTreeSet::new();
    let mut lengths = BTreeSet::new();
    for seed in 0..40 {
        let (pair, client) = exchange(seed, faults(|faults| faults.cuts = ALWAYS));
        assert_eq!(count(&pair, Fault::Cut), 1, "seed {seed}");
        let server = pair.at_server();
        let (client, server) = (client.borrow(), server.borrow());
        assert!(server.received == pattern(LONG)[..server.received.len()], "in order");
        assert!(client.received.len() < LONG, "seed {seed}");
        assert!(client.ended.is_some() && server.ended.is_some(), "both ends are told");
        ends.insert(client.ended.clone());
        ends.insert(server.ended.clone());
        lengths.insert(server.received.len());
    }
    assert_eq!(ends.len(), 2, "by the end of input, and by a reset: {ends:?}");
    assert!(lengths.len() > 20 && lengths.first() < Some(&200), "{lengths:?}");
}

#[test]
fn a_reset_comes_at_any_time() {
    let (pair, client) = exchange(1, faults(|faults| faults.resets = ALWAYS));
    assert_eq!(count(&pair, Fault::Reset), 1);
    assert_eq!(client.borrow().ended.as_deref(), Some("connection reset"));
    assert_eq!(pair.at_server().borrow().ended.as_deref(), Some("connection reset"));
}

#[test]
fn a_half_close_ends_one_direction_and_swallows_what_follows() {
    let mut sides = [0, 0];
    for seed in 0..20 {
        let (mut pair, client) = exchange(seed, faults(|faults| faults.half_closes = ALWAYS));
        assert_eq!(count(&pair, Fault::HalfClose), 1, "seed {seed}");
        let server = pair.at_server();
        let ended = [client.borrow().ended.clone(), server.borrow().ended.clone()];
        let side = ended.iter().position(Option::is_some).expect("one is told");
        assert_eq!(ended[side].as_deref(), Some("eof"));
        assert_eq!(ended[1 - side], None, "seed {seed}: the other is not");
        assert_eq!(client.borrow().unwritten, 0, "all was taken");
        sides[side] += 1;
        // It is reset when the world heals.
        pair.simulation.world().heal();
        pair.simulation.run_for(SECOND);
        let silent = if side == 0 { server } else { client };
        assert_eq!(silent.borrow().ended.as_deref(), Some("connection reset"));
    }
    assert!(sides.iter().all(|&count| count > 3), "{sides:?}");
}

#[test]
fn a_black_hole_tells_nobody_until_the_world_heals() {
    for seed in 0..20 {
        let (mut pair, client) = exchange(seed, faults(|faults| faults.black_holes = ALWAYS));
        assert_eq!(count(&pair, Fault::BlackHole), 1, "seed {seed}");
        let server = pair.at_server();
        pair.simulation.run_for(10 * MINUTE);
        assert_eq!((&client.borrow().ended, &server.borrow().ended), (&None, &None));
        assert!(client.borrow().received.len() < LONG);
        pair.simulation.world().set_faults(Faults::none());
        pair.simulation.world().heal();
        pair.simulation.run_for(SECOND);
        for end in [client, server] {
            assert_eq!(end.borrow().ended.as_deref(), Some("connection reset"), "seed {seed}");
        }
        let again = pair.send(LONG);
        pair.simulation.run_for(10 * SECOND);
        assert_eq!(again.borrow().received.len(), LONG, "a new one is whole");
    }
}

#[test]
fn what_has_not_struck_when_the_world_heals_does_not_strike() {
    let kinds: [fn(&mut Faults); 4] = [
        |faults| faults.cuts = ALWAYS,
        |faults| faults.resets = ALWAYS,
        |faults| faults.half_closes = ALWAYS,
        |faults| faults.black_holes = ALWAYS,
    ];
    for (seed, kind) in (0..40).zip(kinds.into_iter().cycle()) {
        let mut pair = Pair::new(seed, faults(kind), true);
        let client = pair.send(LONG);
        pair.simulation.run_for(Duration::from_micros(30));
        pair.simulation.world().set_faults(Faults::none());
        pair.simulation.world().heal();
        pair.simulation.run_for(20 * SECOND);
        assert_eq!(client.borrow().received.len(), LONG, "seed {seed}");
        assert_eq!(pair.simulation.world().tally().total(), 0, "seed {seed}");
    }
}

#[test]
fn one_byte_reads_and_writes_are_of_one_byte_and_lose_none() {
    let (mut reads, mut writes) = (0, 0);
    for seed in 0..10 {
        let (pair, client) = exchange(seed, faults(|faults| faults.one_byte_reads = ALWAYS));
        assert_eq!(count(&pair, Fault::OneByteRead), 1);
        assert!(client.borrow().received == pattern(LONG), "seed {seed}");
        let server = pair.at_server();
        let count = |record: &Record| record.reads.iter().filter(|&&n| n == 1).count();
        reads += count(&client.borrow()).max(count(&server.borrow()));

        let (pair, client) = exchange(seed, faults(|faults| faults.one_byte_writes = ALWAYS));
        assert_eq!(pair.simulation.world().tally().of(Fault::OneByteWrite), 1);
        assert!(client.borrow().received == pattern(LONG), "seed {seed}");
        let server = pair.at_server();
        let count = |record: &Record| record.writes.iter().filter(|&&n| n == 1).count();
        writes += count(&client.borrow()).max(count(&server.borrow()));
    }
    assert!(reads > 300 && writes > 300, "{reads} reads, {writes} writes");
}

#[test]
fn a_delay_holds_up_what_follows_too() {
    let set = faults(|faults| {
        faults.delays = ALWAYS;
        faults.delay_max = 5 * SECOND;
    });
    let mut pair = Pair::new(2, set, true);
    let client = pair.send(1_000);
    pair.simulation.run_for(30 * SECOND);
    assert!(client.borrow().received == pattern(1_000));
    assert_eq!(count(&pair, Fault::Delay), 2, "there and back");
}

#[test]
fn a_late_connection_brings_the_bytes_of_a_client_that_has_left() {
    let mut met_a_new_server = 0;
    for seed in 0..40 {
        let mut pair = Pair::new(seed, faults(|faults| faults.late = ALWAYS), false);
        let record = Record { output: pattern(100), leaves: true, ..Record::default() };
        let client = pair.dial(record);
        pair.simulation.run_until(SECOND, |_| client.borrow().writes.len() == 1);
        assert_eq!(count(&pair, Fault::Late), 1);
        assert!(client.borrow().is_connected, "established at once, whatever the server does");
        let is_early = pair.accepted.borrow().is_empty();
        let server = pair.server.clone();
        pair.simulation.restart(&server);
        pair.simulation.run_for(MINUTE);
        if is_early {
            met_a_new_server += 1;
            let server = pair.at_server();
            assert!(server.borrow().received == pattern(100), "seed {seed}");
            assert_eq!(server.borrow().ended.as_deref(), Some("eof"));
        }
    }
    assert!(met_a_new_server > 20, "{met_a_new_server}");
}

#[test]
fn partitions_come_and_go() {
    let set = faults(|faults| faults.partitions_every = 2 * SECOND);
    let mut pair = Pair::new(1, set, true);
    let client = pair.send(1_000);
    for _ in 0..200 {
        pair.simulation.run_for(SECOND);
        client.borrow_mut().output.push(1);
        pair.wake();
    }
    assert!(count(&pair, Fault::PartitionBoth) > 10 && count(&pair, Fault::PartitionOne) > 10);
    pair.simulation.world().set_faults(Faults::none());
    pair.simulation.world().heal();
    pair.simulation.run_for(10 * SECOND);
    assert_eq!(client.borrow().received.len(), 1_200, "nothing is lost by them");
    assert_eq!(client.borrow().ended, None);
}

#[test]
fn spurious_wake_ups_do_no_harm() {
    let set = faults(|faults| faults.spurious_every = Duration::from_micros(200));
    let mut pair = Pair::new(1, set, true);
    let client = pair.send(LONG);
    let idle = pair.dial(Record::default());
    pair.simulation.run_for(SECOND);
    assert!(count(&pair, Fault::Spurious) > 1_000);
    assert!(client.borrow().received == pattern(LONG));
    assert_eq!((idle.borrow().is_connected, &idle.borrow().ended), (true, &None));
}

#[test]
fn no_faults_no_tally() {
    let (pair, client) = exchange(1, Faults::none());
    assert_eq!(pair.simulation.world().tally().total(), 0);
    assert!(client.borrow().received == pattern(LONG));
}
