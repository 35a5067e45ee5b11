//! Rows 3, 19 and 19b with two connections of one session.

use super::*;
use crate::table::Cancelled;

const THIRD: u64 = 3;

/// A session with the connections [`FIRST`] and [`SECOND`].
fn joined() -> Fixture {
    let mut f = Fixture::new();
    f.join(SECOND);
    f
}

fn to(delivery: Delivery) -> Vec<u64> {
    delivery.connections().collect()
}

#[test]
fn row_19b_a_second_connection_joins_the_first() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    let (replaced, resumed) = f.join(SECOND);
    assert_eq!((replaced, resumed.report(1)), (vec![], CellReport::Running));
    for connection in [FIRST, SECOND] {
        assert_eq!(f.send(copy(1).on(connection)), Found::Wait, "both take requests");
    }
    assert_eq!(to(f.complete(call, b"one")), [FIRST, SECOND], "and both get the reply");
    for connection in [FIRST, SECOND] {
        assert_eq!(f.send(copy(1).on(connection)), Found::Again(b"one".to_vec()));
    }
}

#[test]
fn row_19b_a_call_may_run_by_either_connection_and_runs_once() {
    let mut f = joined();
    let call = f.send(copy(1).on(SECOND)).run();
    assert_eq!(f.send(copy(1).on(FIRST)), Found::Wait);
    f.complete(call, b"one");
    f.run(copy(2).on(FIRST), b"two");
    assert_eq!(f.send(copy(2).on(SECOND)), Found::Again(b"two".to_vec()));
    assert_eq!(f.table.counters().started, 2);
}

#[test]
fn row_19b_a_join_drops_nothing_and_proves_nothing() {
    let mut f = Fixture::in_order();
    assert_eq!(f.send(copy(2)), Found::Wait);
    let (_, resumed) = f.join(SECOND);
    assert_eq!(resumed.report(2), CellReport::Running, "what is held stays held");
    assert_eq!(resumed.report(1), CellReport::Vacant);
    // A copy sent before by the first connection runs although its cell was reported vacant.
    f.run(copy(1).on(FIRST), b"one");
    assert_eq!(f.turn().len(), 1);
}

/// A client joins by what it has left: of a second connection that died unnoticed the next one takes
/// the place, and the first, which is none the worse, stays.
#[test]
fn row_19b_a_third_connection_takes_the_place_of_the_one_that_joined() {
    let mut f = joined();
    let (replaced, _) = f.join(THIRD);
    assert_eq!(replaced, [SECOND]);
    assert_eq!(f.send(copy(1).on(SECOND)).closed(), Code::Fenced);
    let call = f.send(copy(1).on(FIRST)).run();
    assert_eq!(to(f.complete(call, b"one")), [FIRST, THIRD]);
    // Alone, the one that joined is the first.
    f.table.detach(f.session, FIRST, f.now);
    assert_eq!(f.join(4).0, []);
    assert_eq!(f.join(5).0, [4]);
}

#[test]
fn row_19b_without_join_every_other_connection_goes() {
    let mut f = joined();
    let (replaced, _) = f.resume(THIRD, 0);
    assert_eq!(replaced, [FIRST, SECOND]);
    for old in [FIRST, SECOND] {
        assert_eq!(f.send(copy(1).on(old)).closed(), Code::Fenced);
    }
    let call = f.send(copy(1)).run();
    assert_eq!(to(f.complete(call, b"one")), [THIRD]);
}

#[test]
fn row_19b_a_join_of_a_new_incarnation_fences_the_old_one() {
    let mut f = Fixture::in_order();
    f.send(copy(2));
    let message = Resume { join: true, incarnation: 1, ..f.message() };
    let (replaced, resumed) = f.resume_with(SECOND, message);
    assert_eq!((replaced, resumed.report(2)), (vec![FIRST], CellReport::Vacant));
    assert_eq!(f.send(copy(1).on(FIRST)).closed(), Code::Fenced);
}

#[test]
fn row_3_a_join_must_be_newer_like_every_resume() {
    let mut f = joined();
    for attachment in [0, 1] {
        let message = Resume { join: true, attachment, ..f.message() };
        let found = f.table.resume(&message, THIRD, Principal::ANYONE, f.now);
        assert_eq!(found.unwrap_err().code, Code::Fenced);
    }
    let call = f.send(copy(1)).run();
    assert_eq!(to(f.complete(call, b"one")), [FIRST, SECOND]);
}

#[test]
fn row_19_the_last_connection_to_go_detaches_the_session() {
    for [one, other] in [[FIRST, SECOND], [SECOND, FIRST]] {
        let mut f = joined();
        let call = f.send(copy(1)).run();
        f.table.detach(f.session, one, f.now);
        f.table.check_invariants();
        assert_eq!(f.table.next_deadline(), None, "one is left");
        assert_eq!(f.send(copy(2).on(one)).closed(), Code::Fenced);
        assert_eq!(f.send(copy(1).on(other)), Found::Wait);
        f.table.detach(f.session, one, f.now);
        assert_eq!(f.table.next_deadline(), None, "gone is gone");
        assert_eq!(to(f.complete(call, b"one")), [other]);
        f.table.detach(f.session, other, f.now);
        f.table.check_invariants();
        assert_eq!(f.table.next_deadline(), Some(f.now + f.table.limits.lease));
        assert_eq!(f.resume(THIRD, 0).1.report(1), CellReport::Finished);
    }
}

#[test]
fn row_19b_a_join_of_nobody_keeps_what_is_held() {
    let mut f = Fixture::in_order();
    let first = f.send(copy(1)).run();
    f.send(copy(2));
    f.detach();
    f.complete(first, b"one");
    assert_eq!(f.turn(), vec![], "nobody is there");
    assert_eq!(f.join(SECOND).1.report(2), CellReport::Running);
    let held = f.table.next_held(f.session, f.now).unwrap();
    assert_eq!(held.connection(), SECOND, "its own connection is gone");
}

#[test]
fn row_12b_a_held_call_is_refused_by_the_connection_it_came_by() {
    let mut f = Fixture::in_order();
    f.join(SECOND);
    f.send(copy(2).on(FIRST));
    f.send(copy(3).on(SECOND));
    let refused = f.pass(f.table.limits.hole_age_max);
    assert_eq!(refused, [(Some(FIRST), 2, Code::Deadline), (Some(SECOND), 3, Code::Deadline)]);
    f.send(copy(2).on(FIRST));
    f.send(copy(3).on(SECOND));
    f.table.detach(f.session, FIRST, f.now);
    let refused = f.pass(f.table.limits.hole_age_max);
    assert_eq!(refused, [(None, 2, Code::Deadline), (Some(SECOND), 3, Code::Deadline)]);
}

/// Whoever sent two copies waits for two answers: nothing else tells what became of the second.
#[test]
fn row_9_a_copy_of_what_is_refused_after_all_is_refused_with_it() {
    // Held, and its hole grows old.
    let mut f = Fixture::in_order();
    f.join(SECOND);
    f.send(copy(2).on(FIRST));
    assert_eq!(f.send(copy(2).on(SECOND)), Found::Wait);
    let refused = f.pass(f.table.limits.hole_age_max);
    assert_eq!(refused, [(Some(FIRST), 2, Code::Deadline), (Some(SECOND), 2, Code::Deadline)]);
    // Held, and begun, and not to be had: its arguments do not fit, or its handler wants it later.
    f.send(copy(2).on(SECOND));
    f.send(copy(2).on(FIRST));
    f.run(copy(1), b"one");
    let held = f.table.next_held(f.session, f.now).unwrap();
    assert_eq!((held.connection(), held.joined()), (SECOND, Some(FIRST)));
    let call = f.send(copy(2).on(SECOND)).run();
    let refusal = Refusal::new(Code::BadArguments, "they do not fit");
    assert_eq!(to(f.table.withdraw(call, &refusal, f.now)), [SECOND, FIRST]);
    assert!(f.report(2) == CellReport::Vacant);
    // Running.
    let call = f.send(copy(2).on(FIRST)).run();
    f.send(copy(2).on(SECOND));
    let delivery = f.table.retry_later(call, &Refusal::retry_later(70), f.now);
    assert_eq!(to(delivery), [FIRST, SECOND]);
    // Without a copy, by its own connection only.
    let call = f.send(copy(2).on(SECOND)).run();
    let delivery = f.table.retry_later(call, &Refusal::retry_later(70), f.now);
    assert_eq!(to(delivery), [SECOND]);
}

#[test]
fn row_4c_a_held_call_is_cancelled_on_the_connection_it_came_by() {
    let mut f = Fixture::in_order();
    f.join(SECOND);
    f.send(copy(2).on(FIRST));
    assert_eq!(f.send(copy(2).on(SECOND)), Found::Wait);
    let found = f.table.cancel(f.session, 2);
    assert!(matches!(found, Cancelled::Held { connection: FIRST, .. }), "{found:?}");
}

#[test]
fn row_9_a_server_may_say_that_a_call_is_in_progress() {
    let mut f = Fixture::in_order();
    f.table.answer_in_progress(250);
    let call = f.send(copy(1)).run();
    assert_eq!(f.send(copy(2)), Found::Wait, "held: nothing is in progress twice");
    for seq in [1, 2] {
        let refusal = f.send(copy(seq)).refused();
        assert_eq!((refusal.code, refusal.retry_after_ms), (Code::InProgress, Some(250)));
        assert_eq!(refusal.code.class(), crate::error::Class::InProgress, "never N");
    }
    assert_eq!(f.table.counters().joined, 2);
    assert_eq!(to(f.complete(call, b"one")), [FIRST], "the one reply comes all the same");
    assert_eq!(f.send(copy(1)), Found::Again(b"one".to_vec()));
}

#[test]
fn row_4b_an_unprotected_reply_goes_only_where_its_call_came_from() {
    let mut f = joined();
    let call = f.send(copy(1).unprotected().on(SECOND)).run();
    assert_eq!(to(f.complete(call, b"out")), [SECOND]);
}
