//! Row 12: a call that nobody has run is refused, and its xid is not consumed.

use super::*;
use crate::error::Class;

/// Sends what must be refused with `code`, then what must run under the same seq.
#[track_caller]
fn refused_then_runs(f: &mut Fixture, refused: Copy, code: Code) {
    let seq = refused.seq;
    let refusal = f.send(refused).refused();
    assert_eq!((refusal.code, refusal.code.class()), (code, Class::NotExecuted));
    assert_eq!(f.report(seq), CellReport::Vacant);
    // Other bytes than those refused: nothing at all is remembered of them.
    f.run(copy(seq).body(&[0xc3]), b"ran");
    assert_eq!(f.send(copy(seq).body(&[0xc3])), Found::Again(b"ran".to_vec()));
}

#[test]
fn row_12_a_refusal_does_not_consume_the_xid() {
    let mut f = Fixture::new();
    refused_then_runs(&mut f, copy(1).refused(Code::NoMethod), Code::NoMethod);
    refused_then_runs(&mut f, copy(2).refused(Code::NotAuthorized), Code::NotAuthorized);
    refused_then_runs(&mut f, copy(3).time_left(0), Code::Deadline);
    assert_eq!(f.table.counters().refused, 3);
}

#[test]
fn row_12_a_refusal_changes_nothing_but_the_floor() {
    let mut f = Fixture::new();
    for seq in 1..=3 {
        f.run(copy(seq), b"answer");
    }
    assert_eq!(f.send(copy(5).ack(2).time_left(0)).code(), Code::Deadline);
    assert_eq!((f.floor(), f.table.kept()), (2, (1, 6)));
    assert_eq!(f.send(copy(500).ack(3)).code(), Code::Window);
    assert_eq!((f.floor(), f.table.kept()), (3, (0, 0)));
}

#[test]
fn row_12_a_draining_server_refuses_new_calls_and_sessions_and_ends_what_runs() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    f.table.drain();
    assert_eq!(f.send(copy(2)).code(), Code::Draining);
    let refusal = f.open(&hello(0, Order::Unordered), 5, SECOND).unwrap_err();
    assert_eq!(refusal.code, Code::Draining);
    assert_eq!(f.resume(SECOND, 0).1.report(1), CellReport::Running, "what is owed can be fetched");
    assert_eq!(f.complete(call, b"one").connection, Some(SECOND));
    assert_eq!(f.send(copy(1)), Found::Again(b"one".to_vec()));
}

#[test]
fn row_12_a_session_runs_only_so_many_calls() {
    let limits = Limits { window: 4, in_flight_per_session_max: 8, ..Limits::default() };
    let mut f = Fixture::with(limits, Order::Unordered);
    let mut calls: Vec<_> = (1..=4).map(|seq| f.send(copy(seq)).run()).collect();
    calls.extend((0..4).map(|_| f.send(copy(0).unprotected()).run()));
    let refusal = f.send(copy(0).unprotected()).refused();
    assert_eq!(refusal.code, Code::Busy);
    assert!(refusal.retry_after_ms.is_some(), "it says when to come back");
    f.acknowledge(4);
    assert_eq!(f.send(copy(5)).code(), Code::Busy, "an abandoned handler still runs");
    f.complete(calls[0], b"");
    f.send(copy(5)).run();
}

#[test]
fn row_12_a_window_larger_than_the_quota_counts_instead() {
    let limits = Limits { in_flight_per_session_max: 2, window: 4, ..Limits::default() };
    let mut f = Fixture::with(limits, Order::Unordered);
    for seq in 1..=4 {
        f.send(copy(seq)).run();
    }
    assert_eq!(f.send(copy(0).unprotected()).code(), Code::Busy);
}

#[test]
fn row_12_a_server_runs_only_so_many_calls() {
    let mut f = Fixture::with(Limits { in_flight_max: 2, ..Limits::default() }, Order::Unordered);
    let call = f.send(copy(1)).run();
    f.send(copy(2)).run();
    assert_eq!(f.send(copy(3)).code(), Code::Busy);
    assert_eq!(f.report(3), CellReport::Vacant, "BUSY does not consume the xid");
    f.complete(call, b"one");
    f.send(copy(3).body(&[0xc0])).run();
}

#[test]
fn row_12_the_arguments_of_running_calls_are_bounded() {
    let limits = Limits { in_flight_bytes_max: 100, ..Limits::default() };
    let mut f = Fixture::with(limits, Order::Unordered);
    let call = f.send(copy(1).body(&[0; 60])).run();
    f.send(copy(2).body(&[0; 40])).run();
    assert_eq!(f.send(copy(3).body(&[0; 1])).code(), Code::Busy);
    f.complete(call, b"");
    f.send(copy(3).body(&[0; 60])).run();
}

#[test]
fn row_12_a_session_of_an_ended_client_keeps_its_calls_in_the_count() {
    let mut f = Fixture::with(Limits { in_flight_max: 1, ..Limits::default() }, Order::Unordered);
    let call = f.send(copy(1)).run();
    f.close(f.session);
    let (next, _) = f.open(&hello(0, Order::Unordered), 5, SECOND).unwrap();
    assert_eq!(f.send_to(next, copy(1).on(SECOND)).code(), Code::Busy);
    f.complete(call, b"");
    f.send_to(next, copy(1).on(SECOND)).run();
}

#[test]
fn row_12_unacknowledged_replies_are_never_evicted_new_calls_are_refused() {
    let limits = Limits {
        kept_reply_bytes_per_session_max: 1_000,
        reply_reservation_bytes: 100,
        ..Limits::default()
    };
    let mut f = Fixture::with(limits, Order::Unordered);
    for seq in 1..=9 {
        f.run(copy(seq), &[u8::try_from(seq).unwrap(); 100]);
    }
    assert_eq!(f.send(copy(10)).code(), Code::Busy, "what is left is the oldest call's");
    for seq in 1..=9 {
        let kept = vec![u8::try_from(seq).unwrap(); 100];
        assert_eq!(f.send(copy(seq)), Found::Again(kept), "seq {seq}");
    }
    f.send(copy(11).ack(1)).run();
    assert_eq!(f.send(copy(12).ack(1)).code(), Code::Busy, "its room is reserved");
}

/// The acknowledgement of all that came after it waits for the oldest call: refused for want of room
/// for its reply, it would be refused for ever.
#[test]
fn row_12_the_oldest_call_runs_however_many_replies_wait_for_it() {
    let limits = Limits {
        kept_reply_bytes_per_session_max: 1_000,
        kept_reply_bytes_max: 1_500,
        reply_reservation_bytes: 100,
        ..Limits::default()
    };
    let mut f = Fixture::with(limits, Order::Unordered);
    let (other, _) = f.open(&hello(0, Order::Unordered), 5, SECOND).unwrap();
    // The first and the third were refused for another reason, or lost.
    f.run(copy(2), &[2; 20]);
    f.run(copy(4), &[4; 880]);
    assert_eq!(f.send(copy(5)).code(), Code::Busy);
    f.run(copy(1), &[1; 100]);
    assert_eq!(f.send(copy(1)), Found::Again(vec![1; 100]), "its room was left to it");
    f.run(copy(3).ack(2), &[3; 100]);
    // No session's, and yet all sessions' room is taken.
    for seq in 2..=6 {
        let call = f.send_to(other, copy(seq).on(SECOND)).run();
        f.complete(call, &[0; 100]);
    }
    assert_eq!(f.send_to(other, copy(7).on(SECOND)).code(), Code::Busy);
    let call = f.send_to(other, copy(1).on(SECOND)).run();
    f.complete(call, &[0; 100]);
    assert_eq!(f.send_to(other, copy(1).on(SECOND)).code(), Code::NotRetained);
}

#[test]
fn row_13_replies_of_all_sessions_are_bounded() {
    let limits =
        Limits { kept_reply_bytes_max: 1_000, reply_reservation_bytes: 100, ..Limits::default() };
    let mut f = Fixture::with(limits, Order::Unordered);
    let (other, _) = f.open(&hello(0, Order::Unordered), 5, SECOND).unwrap();
    f.run(copy(1), &[1; 900]);
    let call = f.send_to(other, copy(1).on(SECOND)).run();
    assert_eq!(f.send(copy(2)).code(), Code::Busy);
    f.complete(call, &[2; 101]);
    let found = f.send_to(other, copy(1).on(SECOND)).code();
    assert_eq!(found, Code::NotRetained, "over the cap, the fact is kept");
    f.acknowledge(1);
    f.run(copy(2), &[3; 1_000]);
    assert_eq!(f.send(copy(2)), Found::Again(vec![3; 1_000]));
}

#[test]
fn row_13_a_large_reply_does_not_take_what_another_call_has_reserved() {
    let limits = Limits {
        kept_reply_bytes_per_session_max: 1_000,
        reply_reservation_bytes: 100,
        ..Limits::default()
    };
    let mut f = Fixture::with(limits, Order::Unordered);
    let small = f.send(copy(1)).run();
    let large = f.send(copy(2)).run();
    f.complete(large, &[2; 901]);
    assert_eq!(f.send(copy(2)).code(), Code::NotRetained);
    f.complete(small, &[1; 100]);
    assert_eq!(f.send(copy(1)), Found::Again(vec![1; 100]), "a reserved reply is always kept");
}

#[test]
fn row_21_a_server_opens_only_so_many_sessions() {
    let mut f = Fixture::with(Limits { sessions_max: 1, ..Limits::default() }, Order::Unordered);
    let refusal = f.open(&hello(0, Order::Unordered), 5, SECOND).unwrap_err();
    assert_eq!((refusal.code, f.table.sessions()), (Code::Busy, 1));
    assert!(refusal.retry_after_ms.is_some());
    f.close(f.session);
    f.open(&hello(0, Order::Unordered), 5, SECOND).unwrap();
}
