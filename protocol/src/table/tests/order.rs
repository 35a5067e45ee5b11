//! Row 12b: in an in-order session a call waits until every lower seq has ended.

use super::*;
use crate::table::Cancelled;

/// Longer than a hole may be.
const LONG: Duration = Duration::from_secs(11);

/// Gives the seqs that the turns let run, and ends each of them.
#[track_caller]
fn run_turns(f: &mut Fixture) -> Vec<u64> {
    let mut ran = Vec::new();
    while let [(seq, found)] = &mut f.turn()[..] {
        let Found::Run(call) = *found else { panic!("{seq}: {found:?}") };
        ran.push(*seq);
        f.complete(call, b"in turn");
    }
    ran
}

#[test]
fn row_12b_calls_run_by_seq_whatever_order_they_come_in() {
    let mut f = Fixture::in_order();
    for seq in [5, 3, 2, 4] {
        assert_eq!(f.send(copy(seq)), Found::Wait);
    }
    assert_eq!((f.table.in_flight(), f.turn()), (0, vec![]), "a held call is not in flight");
    let first = f.send(copy(1)).run();
    assert_eq!(f.turn(), vec![], "1 has not ended");
    assert_eq!(f.complete(first, b"one").unblocks, Some(f.session));
    assert_eq!(run_turns(&mut f), [2, 3, 4, 5]);
    assert_eq!(f.send(copy(4)), Found::Again(b"in turn".to_vec()));
}

#[test]
fn an_unordered_session_unblocks_nothing() {
    let mut f = Fixture::new();
    let call = f.send(copy(2)).run();
    assert_eq!(f.complete(call, b"two").unblocks, None);
    assert_eq!(f.turn(), vec![]);
}

#[test]
fn row_9_a_copy_of_a_held_call_waits_too_and_is_held_once() {
    let mut f = Fixture::in_order();
    assert_eq!(f.send(copy(2)), Found::Wait);
    assert_eq!(f.send(copy(2)), Found::Wait);
    assert_eq!(f.table.held_bytes, 3);
    f.run(copy(1), b"one");
    assert_eq!(run_turns(&mut f), [2]);
}

#[test]
fn row_12b_a_running_call_in_order_keeps_the_next_one_waiting() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    assert_eq!(f.send(copy(2)), Found::Wait);
    f.table.complete(first, Answer::Copied(b"one"), f.now);
    // The next one to come does not overtake the one whose turn it is.
    assert_eq!(f.send(copy(3)), Found::Wait);
    assert_eq!(run_turns(&mut f), [2, 3]);
}

#[test]
fn row_12b_an_abandoned_handler_keeps_the_next_one_waiting() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    f.acknowledge(1);
    assert_eq!(f.send(copy(2)), Found::Wait);
    assert_eq!(f.turn(), vec![]);
    let delivery = f.complete(first, b"late");
    assert_eq!((delivery.connection, delivery.unblocks), (None, Some(f.session)));
    assert_eq!(run_turns(&mut f), [2]);
}

#[test]
fn row_12b_an_acknowledged_hole_is_no_hole() {
    let mut f = Fixture::in_order();
    assert_eq!(f.send(copy(4)), Found::Wait);
    f.acknowledge(3);
    assert_eq!(run_turns(&mut f), [4]);
    f.send(copy(9).ack(8)).run();
}

#[test]
fn row_12b_a_refused_call_is_a_hole_until_it_comes_again() {
    let mut f = Fixture::in_order();
    assert_eq!(f.send(copy(1).time_left(0)).code(), Code::Deadline);
    assert_eq!(f.send(copy(2)), Found::Wait);
    f.run(copy(1), b"one");
    assert_eq!(run_turns(&mut f), [2]);
}

#[test]
fn row_12_is_asked_again_when_the_turn_comes() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    assert_eq!(f.send(copy(2).time_left(1_000)), Found::Wait);
    assert_eq!(f.send(copy(3).time_left(3_000)), Found::Wait);
    f.now += Duration::from_secs(2);
    f.complete(first, b"one");
    let found: Vec<_> = f.turn().into_iter().map(|(seq, found)| (seq, found.code())).collect();
    assert_eq!(found, [(2, Code::Deadline)]);
    assert_eq!((f.report(2), f.report(3)), (CellReport::Vacant, CellReport::Running));
    f.run(copy(2), b"two");
    let held = f.table.next_held(f.session, f.now).unwrap();
    assert_eq!(held.frame().header.time_left_ms, 1_000, "its time went on while it waited");
}

#[test]
fn row_12b_a_server_that_drains_refuses_a_held_call_when_its_turn_comes() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    assert_eq!(f.send(copy(2)), Found::Wait);
    f.table.drain();
    f.complete(first, b"one");
    let found: Vec<_> = f.turn().into_iter().map(|(seq, found)| (seq, found.code())).collect();
    assert_eq!(found, [(2, Code::Draining)]);
}

#[test]
fn a_held_call_without_a_deadline_keeps_none() {
    let mut f = Fixture::in_order();
    f.send(copy(2));
    f.run(copy(1), b"one");
    let held = f.table.next_held(f.session, f.now).unwrap();
    assert_eq!(held.frame().header.time_left_ms, NO_DEADLINE_MS);
}

#[test]
fn row_12b_what_one_session_holds_is_bounded() {
    let limits = Limits { held_bytes_per_session_max: 100, ..Limits::default() };
    let mut f = Fixture::with(limits, Order::InOrder);
    assert_eq!(f.send(copy(2).body(&[0; 60])), Found::Wait);
    assert_eq!(f.send(copy(3).body(&[0; 41])).code(), Code::Busy);
    assert_eq!(f.report(3), CellReport::Vacant);
    assert_eq!(f.send(copy(3).body(&[0; 40])), Found::Wait);
    f.run(copy(1), b"one");
    assert_eq!(run_turns(&mut f), [2, 3]);
    assert_eq!(f.send(copy(5).body(&[0; 100])), Found::Wait, "the bytes are given back");
}

#[test]
fn row_12b_what_all_sessions_hold_is_bounded() {
    let limits = Limits { in_flight_bytes_max: 100, ..Limits::default() };
    let mut f = Fixture::with(limits, Order::InOrder);
    let (other, _) = f.open(&hello(0, Order::InOrder), 5, SECOND).unwrap();
    assert_eq!(f.send(copy(2).body(&[0; 60])), Found::Wait);
    let second = copy(2).body(&[0; 41]).on(SECOND);
    assert_eq!(f.send_to(other, second.clone()).code(), Code::Busy);
    f.close(f.session);
    assert_eq!(f.send_to(other, second), Found::Wait);
}

#[test]
fn row_4c_a_cancelled_held_call_never_ran() {
    let mut f = Fixture::in_order();
    f.send(copy(2));
    f.send(copy(3));
    let Cancelled::Held { connection, refusal } = f.table.cancel(f.session, 2) else {
        panic!("2 is held")
    };
    f.table.check_invariants();
    assert_eq!(connection, FIRST);
    assert_eq!((refusal.code, f.report(2)), (Code::Cancelled, CellReport::Vacant));
    f.run(copy(1), b"one");
    assert_eq!(run_turns(&mut f), [0; 0], "2 is a hole until it is burnt");
    f.acknowledge(2);
    assert_eq!(run_turns(&mut f), [3]);
}

#[test]
fn row_5_an_acknowledged_held_call_never_runs() {
    let mut f = Fixture::in_order();
    f.send(copy(2));
    f.send(copy(3));
    f.acknowledge(2);
    assert_eq!(run_turns(&mut f), [3]);
    assert_eq!(f.send(copy(2)).code(), Code::Stale);
}

#[test]
fn row_19b_a_resume_drops_what_is_held() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    f.send(copy(2));
    f.send(copy(3));
    let (_, resumed) = f.resume(SECOND, 0);
    let reports = [1, 2, 3].map(|seq| resumed.report(seq));
    assert_eq!(reports, [CellReport::Running, CellReport::Vacant, CellReport::Vacant]);
    assert_eq!(f.table.held_bytes, 0);
    f.complete(first, b"one");
    assert_eq!(f.turn(), vec![], "what the old connection brought is gone");
    f.run(copy(2), b"two");
}

#[test]
fn what_is_held_of_a_client_that_is_away_does_not_run() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    f.send(copy(2));
    f.detach();
    f.complete(first, b"one");
    assert_eq!(f.turn(), vec![]);
    assert_eq!(f.resume(SECOND, 0).1.report(2), CellReport::Vacant);
    assert_eq!(f.turn(), vec![]);
}

#[test]
fn a_held_call_knows_the_connection_it_came_by() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    f.resume(SECOND, 0);
    f.send(copy(2));
    f.complete(first, b"one");
    let held = f.table.next_held(f.session, f.now).unwrap();
    assert_eq!((held.connection(), held.frame().header.seq), (SECOND, 2));
}

#[test]
fn row_12b_a_hole_is_waited_for_only_so_long() {
    let mut f = Fixture::in_order();
    f.send(copy(2));
    f.send(copy(3));
    assert_eq!(f.table.next_deadline(), Some(f.now + f.table.limits.hole_age_max));
    assert_eq!(f.pass(Duration::from_secs(9)), []);
    let refused = f.pass(Duration::from_secs(1));
    let expected = [2, 3].map(|seq| (Some(FIRST), seq, Code::Deadline));
    assert_eq!((refused, f.report(2)), (expected.to_vec(), CellReport::Vacant));
    assert_eq!((f.table.next_deadline(), f.table.held_bytes), (None, 0));
    for seq in 1..=3 {
        f.run(copy(seq), b"after all");
    }
}

#[test]
fn row_12b_a_long_handler_is_no_hole() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    f.send(copy(2));
    f.send(copy(3));
    for _ in 0..5 {
        assert_eq!(f.pass(LONG), []);
    }
    // Nor is it once it is abandoned.
    f.acknowledge(1);
    assert_eq!(f.pass(LONG), []);
    f.complete(first, b"late");
    assert_eq!(run_turns(&mut f), [2, 3]);
}

#[test]
fn the_age_of_a_hole_counts_from_when_it_is_one() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    f.send(copy(3));
    assert_eq!(f.pass(LONG), []);
    f.complete(first, b"one");
    assert_eq!(f.turn(), vec![]);
    assert_eq!(f.pass(Duration::from_secs(9)), [], "2 is missed for 9 s, not for 20");
    assert_eq!(f.pass(LONG), [(Some(FIRST), 3, Code::Deadline)]);
}

#[test]
fn the_next_hole_has_its_own_time() {
    let mut f = Fixture::in_order();
    f.send(copy(2));
    f.send(copy(4));
    assert_eq!(f.pass(Duration::from_secs(8)), []);
    f.run(copy(1), b"one");
    assert_eq!(run_turns(&mut f), [2]);
    assert_eq!(f.pass(Duration::from_secs(8)), []);
    f.run(copy(3), b"three");
    assert_eq!(run_turns(&mut f), [4]);
}

#[test]
fn a_burnt_hole_leaves_the_next_one_its_own_time() {
    let mut f = Fixture::in_order();
    f.send(copy(3));
    assert_eq!(f.pass(Duration::from_secs(8)), []);
    f.acknowledge(1);
    assert_eq!(f.turn(), vec![]);
    assert_eq!(f.pass(Duration::from_secs(8)), [], "2 is missed for 8 s");
    assert_eq!(f.pass(Duration::from_secs(2)), [(Some(FIRST), 3, Code::Deadline)]);
}

#[test]
fn an_unprotected_call_has_no_turn() {
    let mut f = Fixture::in_order();
    f.send(copy(2));
    let call = f.send(copy(7).unprotected()).run();
    f.complete(call, b"now");
    assert_eq!(f.turn(), vec![]);
}

#[test]
fn order_is_kept_around_the_ring() {
    let limits = Limits { window: 4, ..Limits::default() };
    let mut f = Fixture::with(limits, Order::InOrder);
    let mut ran = Vec::new();
    for floor in (0..400).step_by(4) {
        for seq in [floor + 4, floor + 2, floor + 3] {
            assert_eq!(f.send(copy(seq).ack(floor)), Found::Wait);
        }
        f.run(copy(floor + 1).ack(floor), b"first");
        ran.push(floor + 1);
        ran.extend(run_turns(&mut f));
    }
    assert_eq!(ran, (1..=400).collect::<Vec<_>>());
}
