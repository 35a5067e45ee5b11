//! Rows 20 to 25: what a crash leaves, and what the store may forget.

use super::*;

#[test]
fn row_20_a_session_is_deleted_durably_first() {
    let mut d = durable();
    d.add(1, b"sum");
    d.safe();
    assert_eq!(d.table.close(d.session, d.now), [FIRST]);
    d.table.check_invariants();
    assert_eq!(d.table.sessions(), 0);
    assert_eq!(d.send(copy(2)).code(), Code::SessionUnknown);
    // That it is unknown is not told either before it is safe.
    assert_eq!(d.resume(SECOND), None);
    assert_eq!(d.released(), []);
    assert_eq!(d.safe(), [Out::Close(SECOND, Code::SessionUnknown)]);
    assert!(d.table.store().ledger().sessions().next().is_none());
    let found = d.table.resume(&d.message(), 4, Principal::ANYONE, d.now);
    assert_eq!(found.unwrap_err().code, Code::SessionUnknown);
}

#[test]
fn row_20_a_deletion_that_was_not_safe_did_not_happen() {
    let mut d = durable();
    d.add(1, b"sum");
    d.safe();
    d.table.close(d.session, d.now);
    d.crash(0);
    assert_eq!(d.resume(SECOND).unwrap().report(1), CellReport::Finished);
    assert_eq!(d.finished(), [1]);
}

#[test]
fn row_20_a_lease_does_not_end_before_the_last_answer_is_safe() {
    let mut d = durable();
    d.add(1, b"sum");
    d.table.detach(d.session, FIRST, d.now);
    d.now += d.limits.lease;
    d.table.expire(d.now, |_, _, _| {});
    assert_eq!(d.table.sessions(), 1);
    d.safe();
    d.now += d.limits.lease;
    d.table.expire(d.now, |_, _, _| {});
    assert_eq!(d.table.sessions(), 0);
}

#[test]
fn row_21_durable_a_session_that_gives_way_is_deleted_durably() {
    let limits = Limits { sessions_max: 1, ..Limits::default() };
    let mut d = durable();
    d.table.limits = limits;
    d.table.detach(d.session, FIRST, d.now);
    d.now += Duration::from_secs(60);
    d.table.open(&hello(0, Order::Unordered), 5, 7, Principal::ANYONE, d.now).unwrap();
    d.table.check_invariants();
    assert_eq!(d.table.sessions(), 1);
    d.sync(1);
    assert_eq!(d.released(), []);
    assert_eq!(d.safe(), [Out::Welcome(7)]);
    assert_eq!(d.table.store().ledger().sessions().count(), 1);
}

#[test]
fn row_22_a_volatile_table_knows_nothing_after_a_restart() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    f.table = Table::new(Limits::default(), [8; 16]);
    let found = f.table.resume(&f.message(), SECOND, Principal::ANYONE, f.now);
    assert_eq!(found.unwrap_err().code, Code::SessionUnknown);
    // A newcomer in the same place has another secret.
    f.open(&hello(0, Order::Unordered), 5, 7).unwrap();
    let found = f.table.resume(&f.message(), SECOND, Principal::ANYONE, f.now);
    assert_eq!(found.unwrap_err().code, Code::SessionUnknown);
}

#[test]
fn row_22_a_session_that_was_not_safe_was_not_told_and_is_unknown() {
    let mut d = durable();
    let other = d.table.open(&hello(0, Order::Unordered), 5, 7, Principal::ANYONE, d.now);
    let place = other.unwrap().0.to_bits();
    d.crash(0);
    let message = Resume { sid: Sid { place, secret: 5 }, ..d.message() };
    let found = d.table.resume(&message, 8, Principal::ANYONE, d.now);
    assert_eq!(found.unwrap_err().code, Code::SessionUnknown);
}

#[test]
fn row_23_the_table_comes_back_as_it_was_safe() {
    let ann = Principal(3);
    let mut d = durable();
    let mut table = Table::recover(d.limits.clone(), [7; 16], Log::new(), d.now).unwrap();
    let digest = table.digest(MethodId(1), b"x");
    let opened = table.open(&hello(2, Order::InOrder), 5, 7, ann, d.now).unwrap();
    (d.table, d.session) = (table, opened.0);
    d.sid = Sid { place: opened.0.to_bits(), secret: 5 };
    d.connection = 7;
    d.safe();
    d.add(1, b"sum");
    d.safe();
    d.crash(0);
    assert_eq!(d.table.digest(MethodId(1), b"x"), digest, "the key of digests is kept");
    assert!(d.table.is_in_order(d.session));
    let found = d.table.resume(&d.message(), 8, Principal::ANYONE, d.now);
    assert_eq!(found.unwrap_err().code, Code::SessionUnknown, "it is ann's");
    let resumption = d.table.resume(&d.message(), 8, ann, d.now).unwrap();
    let resumed = resumption.resumed.unwrap();
    assert_eq!((resumed.window, resumed.report(1)), (2, CellReport::Finished));
    d.connection = 8;
    assert_eq!(d.send(copy(1).body(&[0xc0])).code(), Code::XidReused, "digests are compared");
    assert_eq!(d.send(copy(3)).code(), Code::Window);
}

#[test]
fn row_23_leases_start_in_full() {
    let mut d = durable();
    d.add(1, b"sum");
    d.safe();
    d.table.detach(d.session, FIRST, d.now);
    d.now += d.limits.lease - Duration::from_secs(1);
    d.crash(0);
    assert_eq!(d.table.next_deadline(), Some(d.now + d.limits.lease));
}

#[test]
fn row_23_a_start_without_its_end_is_in_doubt_and_never_vacant() {
    let mut d = durable();
    d.send_plain(copy(1));
    d.started(1);
    d.crash(0);
    assert_eq!(d.resume(SECOND).unwrap().report(1), CellReport::Finished);
    assert_eq!(errors(&d.finished()), [(1, Code::InDoubt)]);
    let refusal = d.send_plain(copy(1)).refused();
    assert_eq!((refusal.code, refusal.code.class()), (Code::InDoubt, crate::error::Class::Unknown));
    assert_eq!(d.send_plain(copy(1).body(&[0xc0])).code(), Code::XidReused);
}

#[test]
fn row_23_an_idempotent_call_in_doubt_runs_again_until_it_is_poisoned() {
    let mut d = durable();
    for attempt in 1..=3 {
        assert_eq!(d.send_plain(copy(1).idempotent(true)), Found::Wait);
        d.started(1);
        let entry = d.facts().entries[&1].clone();
        assert!(matches!(entry, Entry::Started { attempt: found, .. } if found == attempt));
        d.crash(0);
        d.resume(SECOND + u64::from(attempt));
    }
    assert_eq!(d.send_plain(copy(1).idempotent(true)).code(), Code::Poisoned);
    assert_eq!(errors(&d.finished()), [(1, Code::Poisoned)]);
}

#[test]
fn row_23_a_call_in_doubt_that_runs_again_gets_its_answer() {
    let mut d = durable();
    d.send_plain(copy(1));
    d.started(1);
    d.crash(0);
    d.resume(SECOND);
    d.send_plain(copy(1).idempotent(true));
    let call = d.started(1);
    d.complete(call, b"one");
    assert_eq!(d.safe(), [Out::Send(vec![SECOND], b"one".to_vec())]);
    d.crash(0);
    d.resume(3);
    assert_eq!(d.send_plain(copy(1)), Found::Again(b"one".to_vec()));
}

#[test]
fn row_23_in_order_a_call_in_doubt_holds_nobody_up_until_it_runs_again() {
    let mut d = Durable::of(hello(WINDOW, Order::InOrder));
    d.send_plain(copy(1));
    d.started(1);
    d.crash(0);
    d.resume(SECOND);
    d.send(copy(2)).run();
    d.send_plain(copy(1).idempotent(true));
    assert_eq!(d.send(copy(3)), Found::Wait);
}

#[test]
fn row_23_a_start_beyond_the_window_of_the_floor_written_down_is_not_lost() {
    let mut d = durable();
    d.acknowledge(5);
    d.send_plain(copy(6).ack(5));
    d.started(6);
    assert_eq!(d.facts().floor, 0, "no end of a call has written it down");
    d.crash(0);
    let resumed = d.resume(SECOND).unwrap();
    assert_eq!((resumed.floor, resumed.report(6)), (6 - u64::from(WINDOW), CellReport::Finished));
    assert_eq!(d.send_plain(copy(6).ack(5)).code(), Code::InDoubt, "it does not run again");
}

#[test]
fn row_23_what_was_acknowledged_is_dropped() {
    let mut d = durable();
    d.add(1, b"sum");
    d.acknowledge(1);
    d.add(2, b"sum");
    d.safe();
    d.crash(0);
    assert_eq!(d.resume(SECOND).unwrap().floor, 1, "the highest floor written down");
    assert_eq!(d.send(copy(1)).code(), Code::Stale);
}

#[test]
fn row_24_when_the_store_fails_nothing_leaves_any_more() {
    let mut d = durable();
    d.add(1, b"sum");
    d.table.store_mut().fail("no space left");
    let failure = d.table.poll_released(d.now).unwrap_err();
    assert_eq!(failure.message, "no space left");
    assert_eq!(d.table.failure(), Some(&failure));
    d.table.store_mut().crash(1);
    assert!(d.table.poll_released(d.now).is_err(), "it has failed for ever");
    assert_eq!(d.send(copy(2)), Found::Wait, "nothing is answered");
    assert_eq!(d.send(copy(9).unprotected()), Found::Wait);
    d.crash(0);
    assert_eq!(d.resume(SECOND).unwrap().report(1), CellReport::Finished);
}

#[test]
fn row_25_dropped_entries_are_deleted_together_with_their_floor() {
    let mut d = durable();
    let window = u64::from(WINDOW);
    for seq in 1..=window + 1 {
        d.add(seq, b"sum");
        d.acknowledge(seq);
    }
    d.safe();
    assert_eq!(d.facts().entries.len(), 0, "more than a window was dropped");
    assert_eq!(d.facts().floor, window + 1);
    for seq in window + 2..=2 * window + 1 {
        d.add(seq, b"sum");
        d.acknowledge(seq);
    }
    d.safe();
    assert_eq!(d.facts().entries.len(), WINDOW as usize, "a window of them may stay");
    for keep in 0..=2 {
        let mut d = durable();
        for seq in 1..=window + 1 {
            d.add(seq, b"sum");
            d.acknowledge(seq);
        }
        // The last COMPLETE and the compaction are on their way.
        d.sync(WINDOW as usize);
        d.released();
        d.crash(keep);
        for seq in 1..=window {
            d.resume(SECOND + seq);
            let found = d.send(copy(seq).body(&[0x92, 3, 4]));
            assert!(!matches!(found, Found::Run(_)), "{seq} with {keep} kept runs again");
        }
    }
}

#[test]
fn row_25_a_crash_before_the_entries_are_deleted_does_not_keep_them_for_ever() {
    let window = u64::from(WINDOW);
    let mut d = durable();
    for seq in 1..=2 * window {
        d.add(seq, b"sum");
        if seq % window == 0 {
            d.acknowledge(seq);
        }
    }
    d.add(2 * window + 1, b"sum");
    d.sync(d.unsafe_commits());
    d.crash(0);
    d.resume(SECOND);
    for seq in 2 * window + 2..=4 * window {
        d.add(seq, b"sum");
        d.acknowledge(seq);
        d.safe();
    }
    assert!(d.facts().entries.len() <= WINDOW as usize + 1, "{}", d.facts().entries.len());
}

#[test]
fn a_session_with_a_journal_is_kept_for_a_day() {
    let hello = Hello { features: crate::handshake::JOURNAL, ..hello(WINDOW, Order::Unordered) };
    let mut d = Durable::of(hello.clone());
    d.add(1, b"sum");
    d.safe();
    d.crash(0);
    assert_eq!(d.table.next_deadline(), Some(d.now + d.limits.journal_lease));
    let resumed = d.resume(SECOND).unwrap();
    assert_eq!(resumed.limits.lease_ms, 24 * 3_600 * 1_000);
    let mut f = Fixture::new();
    let (session, welcome) = f.open(&hello, 9, 9).unwrap();
    assert_eq!(welcome.limits.lease_ms, 600_000, "only a durable table");
    f.table.acknowledge(session, 1).unwrap();
    f.table.detach(session, 9, f.now);
    assert_eq!(f.table.next_deadline(), Some(f.now + f.table.limits.lease));
}

#[test]
fn a_clone_goes_its_own_way_and_a_fingerprint_tells() {
    use std::hash::{DefaultHasher, Hasher};
    let print = |table: &Table<Log>| {
        let mut hasher = DefaultHasher::new();
        table.fingerprint(&mut hasher);
        hasher.finish()
    };
    let mut d = durable();
    let before = d.table.clone();
    assert_eq!(print(&before), print(&d.table));
    d.add(1, b"sum");
    assert_ne!(print(&before), print(&d.table));
    assert_eq!(before.store().unsafe_commits(), 0, "its store is its own");
    // Where a session is, and how it came there, does not matter.
    let mut one = durable();
    let mut other = durable();
    let extra = other.table.open(&hello(0, Order::Unordered), 5, 7, Principal::ANYONE, one.now);
    other.now = one.now;
    other.safe();
    other.table.close(extra.unwrap().0, one.now);
    other.safe();
    assert_ne!(one.table.counters(), other.table.counters());
    assert_eq!(print(&one.table), print(&other.table));
    one.send(copy(1)).run();
    assert_ne!(print(&one.table), print(&other.table));
}
