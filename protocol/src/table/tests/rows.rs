//! Rows 2 to 11, 13, 14 and 18: one request, its copies, and its answer.

use super::*;
use crate::error::Class;
use crate::frame::SEQ_MAX;
use crate::table::Cancelled;

#[test]
fn row_2_an_unknown_session_is_refused_and_never_created() {
    let mut f = Fixture::new();
    let stranger = SessionKey::from_bits(99 << 32 | 1);
    assert_eq!(f.send_to(stranger, copy(1)).code(), Code::SessionUnknown);
    assert_eq!(f.send_to(stranger, copy(1).unprotected()).code(), Code::SessionUnknown);
    assert_eq!((f.table.sessions(), f.table.in_flight()), (1, 0));
}

#[test]
fn row_2_a_session_that_ended_is_not_created_again_by_a_request() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    f.close(f.session);
    assert_eq!(f.send(copy(1)).code(), Code::SessionUnknown);
    assert_eq!(f.send(copy(2)).code(), Code::SessionUnknown);
    assert_eq!((f.table.sessions(), f.table.in_flight()), (0, 0));
    // Nor does the next session in its place answer to its key.
    f.open(&hello(0, Order::Unordered), 5, SECOND).unwrap();
    assert_eq!(f.send(copy(2).on(SECOND)).code(), Code::SessionUnknown);
}

#[test]
fn row_3_a_request_by_a_replaced_connection_is_fenced() {
    let mut f = Fixture::new();
    f.resume(SECOND, 0);
    assert_eq!(f.send(copy(1).ack(0).on(FIRST)).closed(), Code::Fenced);
    assert_eq!(f.send(copy(1).unprotected().on(FIRST)).closed(), Code::Fenced);
    assert_eq!(f.report(1), CellReport::Vacant);
    f.send(copy(1)).run();
}

#[test]
fn row_3_a_fenced_request_does_not_even_move_the_floor() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    f.resume(SECOND, 0);
    assert_eq!(f.send(copy(9).ack(8).on(FIRST)).closed(), Code::Fenced);
    assert_eq!(f.floor(), 0);
    assert_eq!(f.send(copy(1)), Found::Again(b"one".to_vec()));
}

#[test]
fn row_4_numbers_no_client_may_send_close_the_connection_and_change_nothing() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    for (seq, ack) in [
        (SEQ_MAX + 1, 0),
        (u64::MAX, 0),
        (2, SEQ_MAX + 1),
        (0, SEQ_MAX + 1),
        (2, u64::MAX),
        (2, 2),
        (2, 3),
        (SEQ_MAX, SEQ_MAX),
    ] {
        assert_eq!(f.send(copy(seq).ack(ack)).closed(), Code::Protocol, "seq {seq} ack {ack}");
        let unprotected = copy(seq).ack(ack).unprotected();
        assert_eq!(f.send(unprotected).closed(), Code::Protocol, "seq {seq} ack {ack}");
    }
    assert_eq!(f.floor(), 0);
    assert_eq!(f.send(copy(1)), Found::Again(b"one".to_vec()));
}

#[test]
fn row_4_an_ack_frame_beyond_the_last_seq_is_refused() {
    let mut f = Fixture::new();
    for ack in [SEQ_MAX + 1, u64::MAX] {
        let refusal = f.table.acknowledge(f.session, ack).unwrap_err();
        assert_eq!(refusal.code, Code::Protocol);
    }
    assert_eq!(f.floor(), 0);
}

#[test]
fn row_4b_an_unprotected_call_runs_only_if_that_does_no_harm() {
    let mut f = Fixture::new();
    let harmful = copy(1).unprotected().idempotent(false);
    assert_eq!(f.send(harmful).code(), Code::NotProtected);
    assert_eq!(f.table.in_flight(), 0);
    let call = f.send(copy(1).unprotected()).run();
    assert_eq!(f.report(1), CellReport::Vacant, "its seq is a label only");
    assert_eq!(f.complete(call, b"out").connection, Some(FIRST));
    assert_eq!(f.table.kept(), (0, 0));
}

#[test]
fn row_4b_an_unprotected_call_keeps_to_rows_5_and_12() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    assert_eq!(f.send(copy(0).ack(1).unprotected().time_left(0)).code(), Code::Deadline);
    assert_eq!(f.floor(), 1, "its ack counts all the same");
    let unknown = copy(0).unprotected().refused(Code::NoMethod);
    assert_eq!(f.send(unknown).code(), Code::NoMethod);
    f.table.drain();
    assert_eq!(f.send(copy(0).unprotected()).code(), Code::Draining);
}

#[test]
fn row_4b_an_unprotected_reply_goes_where_its_call_came_from() {
    let mut f = Fixture::new();
    let call = f.send(copy(1).unprotected()).run();
    f.resume(SECOND, 0);
    assert_eq!(f.complete(call, b"out").connection, Some(FIRST));
}

#[test]
fn row_4c_a_cancel_tells_the_handler_and_changes_nothing_else() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    assert!(f.table.is_awaited(call));
    assert_eq!(f.table.cancel(f.session, 1), Cancelled::Running(call));
    assert!(!f.table.is_awaited(call));
    assert_eq!(f.report(1), CellReport::Running);
    assert_eq!(f.send(copy(1)), Found::Wait, "a second copy does not run");
    assert_eq!(f.complete(call, b"one").connection, Some(FIRST));
    assert_eq!(f.table.cancel(f.session, 1), Cancelled::Nothing);
    assert_eq!(f.send(copy(1)), Found::Again(b"one".to_vec()));
}

#[test]
fn row_4c_a_cancel_of_nothing_does_nothing() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    f.acknowledge(1);
    for seq in [0, 1, 2, 129, 130, SEQ_MAX, u64::MAX] {
        assert_eq!(f.table.cancel(f.session, seq), Cancelled::Nothing, "seq {seq}");
    }
    f.close(f.session);
    assert_eq!(f.table.cancel(f.session, 2), Cancelled::Nothing);
}

#[test]
fn row_5_an_ack_gives_back_what_it_covers_and_no_more() {
    let mut f = Fixture::new();
    for seq in 1..=4 {
        f.run(copy(seq), &[0x40 + u8::try_from(seq).unwrap(); 10]);
    }
    assert_eq!(f.table.kept(), (4, 40));
    f.acknowledge(2);
    assert_eq!(f.table.kept(), (2, 20));
    assert_eq!(f.send(copy(3)), Found::Again(vec![0x43; 10]));
    f.acknowledge(1);
    assert_eq!(f.floor(), 2, "the floor never falls");
    f.run(copy(5).ack(4), b"five");
    assert_eq!((f.floor(), f.table.kept()), (4, (1, 4)));
}

#[test]
fn row_5_an_ack_may_pass_seqs_never_seen() {
    let mut f = Fixture::new();
    let running = f.send(copy(3)).run();
    f.run(copy(1_000_001).ack(1_000_000), b"far");
    assert!(!f.table.is_awaited(running));
    assert_eq!(f.send(copy(1_000_001)), Found::Again(b"far".to_vec()));
    assert_eq!(f.send(copy(1_000_000)).code(), Code::Stale);
}

#[test]
fn row_18_an_abandoned_handler_ends_without_an_answer() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    f.acknowledge(1);
    assert!(!f.table.is_awaited(call));
    assert_eq!(f.table.in_flight(), 1, "it is still in flight, beside the ring");
    assert_eq!(f.send(copy(1)).code(), Code::Stale);
    let delivery = f.complete(call, b"late");
    assert_eq!((delivery.connection, f.table.kept()), (None, (0, 0)));
    assert_eq!(f.table.in_flight(), 0);
}

#[test]
fn row_18_an_abandoned_handler_does_not_answer_for_the_newcomer_in_its_cell() {
    let mut f = Fixture::new();
    let old = f.send(copy(1)).run();
    let new = f.send(copy(2).ack(1)).run();
    assert_eq!(f.complete(old, b"old").connection, None);
    assert_eq!(f.report(2), CellReport::Running);
    f.complete(new, b"new");
    assert_eq!(f.send(copy(2).ack(1)), Found::Again(b"new".to_vec()));
}

#[test]
fn row_6_a_seq_that_was_acknowledged_never_runs_again() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    f.acknowledge(1);
    assert_eq!(f.send(copy(1)).code(), Code::Stale);
    assert_eq!(f.send(copy(1).body(&[0xc0])).code(), Code::Stale);
    assert_eq!(f.send(copy(0)).code(), Code::Stale, "0 is below every floor");
    assert_eq!(f.table.counters().started, 1);
}

#[test]
fn row_7_a_seq_beyond_the_window_is_refused_with_the_floor() {
    let mut f = Fixture::new();
    f.acknowledge(10);
    let refusal = f.send(copy(10 + 129)).refused();
    assert_eq!((refusal.code, refusal.floor), (Code::Window, Some(10)));
    assert_eq!(refusal.code.class(), Class::NotExecuted);
    assert_eq!(f.send(copy(SEQ_MAX)).code(), Code::Window);
    f.send(copy(10 + 128)).run();
    f.send(copy(10 + 129).ack(11)).run();
}

#[test]
fn row_8_a_seq_with_other_bytes_is_refused_in_every_occupied_state() {
    let mut f = Fixture::with(
        Limits { kept_reply_bytes_per_session_max: 16 * 1024, ..Limits::default() },
        Order::InOrder,
    );
    f.run(copy(1), b"one");
    f.run(copy(2), &[0; 16 * 1024]);
    let call = f.send(copy(3)).run();
    assert_eq!(f.send(copy(4)), Found::Wait);
    for seq in 1..=4 {
        assert_eq!(f.send(copy(seq).body(&[0x92, 3, 5])).code(), Code::XidReused, "seq {seq}");
        assert_eq!(f.send(copy(seq).method("calc.sub")).code(), Code::XidReused, "seq {seq}");
    }
    f.complete(call, b"three");
    assert_eq!(f.send(copy(3)), Found::Again(b"three".to_vec()));
}

#[test]
fn row_10_ack_and_deadline_may_differ_between_two_copies() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    f.run(copy(2), b"two");
    assert_eq!(f.send(copy(2).ack(1).time_left(0)), Found::Again(b"two".to_vec()));
}

#[test]
fn row_9_a_copy_of_a_running_call_waits_and_does_not_run() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    for _ in 0..3 {
        assert_eq!(f.send(copy(1)), Found::Wait);
    }
    assert_eq!((f.table.in_flight(), f.table.counters().started), (1, 1));
    assert_eq!(f.table.counters().joined, 3);
    f.complete(call, b"one");
}

#[test]
fn row_10_a_finished_call_is_answered_again_with_the_same_bytes() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    let bytes = bytes::Bytes::from(vec![9; 3_000]);
    f.table.complete(call, Answer::Shared(bytes.clone()), f.now);
    f.run(copy(2), b"two");
    for _ in 0..2 {
        assert_eq!(f.send(copy(1)), Found::Again(bytes.to_vec()));
        assert_eq!(f.send(copy(2)), Found::Again(b"two".to_vec()));
    }
    assert_eq!((f.table.counters().started, f.table.counters().replayed), (2, 4));
}

#[test]
fn row_10_a_finished_call_is_answered_again_whatever_row_12_would_say() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    let running = f.send(copy(2)).run();
    f.table.drain();
    let again = Found::Again(b"one".to_vec());
    assert_eq!(f.send(copy(1)), again);
    assert_eq!(f.send(copy(1).refused(Code::NotAuthorized)), again);
    assert_eq!(f.send(copy(1).time_left(0)), again);
    assert_eq!(f.send(copy(2)), Found::Wait);
    f.complete(running, b"two");
}

#[test]
fn row_11_of_a_reply_too_large_to_keep_the_fact_is_kept() {
    let limits = Limits { kept_reply_bytes_per_session_max: 8 * 1024, ..Limits::default() };
    let mut f = Fixture::with(limits, Order::Unordered);
    let call = f.send(copy(1)).run();
    assert_eq!(f.complete(call, &[0; 8 * 1024 + 1]).connection, Some(FIRST), "still sent once");
    assert_eq!(f.table.kept(), (0, 0));
    let refusal = f.send(copy(1)).refused();
    assert_eq!((refusal.code, refusal.code.class()), (Code::NotRetained, Class::Executed));
    assert_eq!(f.report(1), CellReport::Finished);
    f.acknowledge(1);
    let call = f.send(copy(2)).run();
    f.complete(call, &[0; 8 * 1024]);
    assert_eq!(f.send(copy(2)), Found::Again(vec![0; 8 * 1024]), "exactly as much as fits");
}

#[test]
fn row_14_an_answer_is_found_by_its_call_and_never_by_its_place() {
    let mut f = Fixture::new();
    let first = f.send(copy(1)).run();
    f.complete(first, b"one");
    let second = f.send(copy(2)).run();
    let nothing = Delivery::NOBODY;
    assert_eq!(f.complete(first, b"again"), nothing, "a call ends once");
    assert!(f.table.is_awaited(second) && !f.table.is_awaited(first));
    f.withdraw(first);
    assert_eq!(f.send(copy(2)), Found::Wait);
    f.complete(second, b"two");
    assert_eq!(f.send(copy(1)), Found::Again(b"one".to_vec()));
    assert_eq!(f.send(copy(2)), Found::Again(b"two".to_vec()));
}

#[test]
fn row_12_a_call_whose_arguments_did_not_fit_was_never_there() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    f.withdraw(call);
    f.table.check_invariants();
    assert_eq!((f.report(1), f.table.in_flight()), (CellReport::Vacant, 0));
    f.send(copy(1).body(&[0x92, 1, 2])).run();
    let call = f.send(copy(2)).run();
    f.acknowledge(2);
    f.withdraw(call);
    f.table.check_invariants();
    let call = f.send(copy(3).unprotected()).run();
    f.withdraw(call);
    f.table.check_invariants();
    assert_eq!(f.table.in_flight(), 1);
}

#[test]
fn row_2_sessions_do_not_see_each_other() {
    let mut f = Fixture::new();
    let (other, _) = f.open(&hello(0, Order::Unordered), 5, SECOND).unwrap();
    f.run(copy(1), b"mine");
    let call = f.send_to(other, copy(1).on(SECOND)).run();
    assert_eq!(f.send_to(other, copy(1)).closed(), Code::Fenced, "by the first's connection");
    assert_eq!(f.complete(call, b"theirs").connection, Some(SECOND));
    assert_eq!(f.send(copy(1)), Found::Again(b"mine".to_vec()));
    assert_eq!(f.send_to(other, copy(1).on(SECOND)), Found::Again(b"theirs".to_vec()));
}
