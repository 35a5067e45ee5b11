//! Rows 19, 19b and 20, HELLO and BYE: sessions open, detach, come back and end.

use super::*;
use crate::frame::SEQ_MAX;
use crate::handshake::FEATURES;

#[test]
fn a_window_is_granted_by_powers_of_two() {
    let mut f = Fixture::new();
    let asked_and_granted =
        [(0, 128), (1, 1), (2, 2), (3, 2), (64, 64), (100, 64), (1_024, 1_024), (u32::MAX, 1_024)];
    for (asked, granted) in asked_and_granted {
        let (_, welcome) = f.open(&hello(asked, Order::Unordered), 5, 9).unwrap();
        assert_eq!(welcome.window, granted, "asked {asked}");
    }
}

#[test]
fn limits_that_are_no_powers_of_two_still_grant_one() {
    let limits = Limits { window: 100, window_max: 50, ..Limits::default() };
    let mut table = Table::new(limits, [7; 16]);
    for asked in [0, 40, 1_000] {
        let (_, welcome) = table
            .open(&hello(asked, Order::Unordered), 5, 9, Principal::ANYONE, Instant::now())
            .unwrap();
        assert_eq!(welcome.unwrap().window, 32, "asked {asked}");
    }
    let mut table = Table::new(Limits { window_max: 0, ..Limits::default() }, [7; 16]);
    assert_eq!(
        table
            .open(&hello(8, Order::Unordered), 5, 9, Principal::ANYONE, Instant::now())
            .unwrap()
            .1
            .unwrap()
            .window,
        1
    );
}

#[test]
fn a_window_of_one_takes_one_call_at_a_time() {
    let mut f = Fixture::with(Limits { window: 1, ..Limits::default() }, Order::Unordered);
    for seq in 1..=10 {
        f.run(copy(seq).ack(seq - 1), b"x");
        assert_eq!(f.send(copy(seq + 1).ack(seq - 1)).code(), Code::Window);
        assert_eq!(f.kept(), (1, 0, (1, 1)));
    }
}

#[test]
fn another_version_is_refused() {
    let mut f = Fixture::new();
    let old = Hello { version: 0, ..hello(0, Order::Unordered) };
    assert_eq!(f.open(&old, 5, SECOND).unwrap_err().code, Code::Unsupported);
    let old = Resume { version: 0, ..f.message() };
    assert_eq!(
        f.table.resume(&old, SECOND, Principal::ANYONE, f.now).unwrap_err().code,
        Code::Unsupported
    );
    let newer = Hello { version: 9, ..hello(0, Order::Unordered) };
    assert_eq!(f.open(&newer, 5, SECOND).unwrap().1.version, 1);
}

#[test]
fn row_2_a_wrong_secret_gets_the_same_answer_as_an_unknown_session() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    let Sid { place, secret } = f.sid;
    let mut answers = Vec::new();
    let others = [
        Sid { place, secret: secret ^ 1 },
        Sid { place, secret: secret ^ 1 << 127 },
        Sid { place, secret: 0 },
        Sid { place: place ^ 1, secret },
        Sid { place: place ^ 1 << 32, secret },
        Sid { place: u64::MAX, secret },
        Sid { place: 7 << 32, secret: 5 },
    ];
    for sid in others {
        let message = Resume { sid, attachment: 9, ack: 1, ..f.message() };
        let mut out = Vec::new();
        f.table.resume(&message, SECOND, Principal::ANYONE, f.now).unwrap_err().append(0, &mut out);
        answers.push(out);
    }
    assert_eq!(errors(&answers[0]), [(0, Code::SessionUnknown)]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "byte for byte");
    // And the session has not noticed: not even what would be fenced or what would be wrong.
    assert_eq!((f.floor(), f.table.sessions(), f.table.counters().resumed), (0, 1, 0));
    assert_eq!(f.send(copy(1)), Found::Again(b"one".to_vec()));
    let wrong = Sid { place, secret: secret ^ 1 };
    let fenced = Resume { sid: wrong, attachment: 0, ..f.message() };
    assert_eq!(
        f.table.resume(&fenced, SECOND, Principal::ANYONE, f.now).unwrap_err().code,
        Code::SessionUnknown
    );
    let beyond = Resume { sid: wrong, ack: u64::MAX, ..f.message() };
    assert_eq!(
        f.table.resume(&beyond, SECOND, Principal::ANYONE, f.now).unwrap_err().code,
        Code::SessionUnknown
    );
}

#[test]
fn row_3_an_old_incarnation_or_attachment_is_fenced_and_changes_nothing() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    let resume = |f: &mut Fixture, incarnation, attachment, ack, connection| {
        let message = Resume { incarnation, attachment, ack, ..f.message() };
        let found = f.table.resume(&message, connection, Principal::ANYONE, f.now);
        f.table.check_invariants();
        found.map(|resumption| resumption.replaced).map_err(|refusal| refusal.code)
    };
    assert_eq!(resume(&mut f, 0, 0, 0, 8), Err(Code::Fenced), "HELLO was 0, 0");
    assert_eq!(resume(&mut f, 0, 3, 0, 2), Ok(vec![1]));
    assert_eq!(resume(&mut f, 0, 3, 1, 8), Err(Code::Fenced), "the same once more");
    assert_eq!(resume(&mut f, 0, 2, 1, 8), Err(Code::Fenced));
    assert_eq!(resume(&mut f, 1, 0, 0, 3), Ok(vec![2]), "a restart counts attachments anew");
    assert_eq!(resume(&mut f, 0, 9, 1, 8), Err(Code::Fenced), "before the restart");
    assert_eq!(resume(&mut f, 1, 0, 1, 8), Err(Code::Fenced));
    assert_eq!(f.floor(), 0);
    assert_eq!(f.send(copy(1).on(3)), Found::Again(b"one".to_vec()), "the newest is attached");
    assert_eq!(resume(&mut f, u32::MAX, u32::MAX, 0, 4), Ok(vec![3]));
    assert_eq!(resume(&mut f, u32::MAX, u32::MAX, 0, 8), Err(Code::Fenced));
}

#[test]
fn row_4_a_resume_with_numbers_no_client_may_send_changes_nothing() {
    let mut f = Fixture::new();
    let message = Resume { ack: SEQ_MAX + 1, ..f.message() };
    assert_eq!(
        f.table.resume(&message, SECOND, Principal::ANYONE, f.now).unwrap_err().code,
        Code::Protocol
    );
    let message = Resume { ack: u64::MAX, join: true, ..f.message() };
    assert_eq!(
        f.table.resume(&message, SECOND, Principal::ANYONE, f.now).unwrap_err().code,
        Code::Protocol
    );
    f.send(copy(1).on(FIRST)).run();
    assert_eq!(f.resume(SECOND, 0).0, [FIRST], "the same attachment is still to be had");
}

#[test]
fn row_19b_resumed_tells_what_became_of_every_call() {
    let limits = Limits { kept_reply_bytes_per_session_max: 64 * 1024, ..Limits::default() };
    let mut f = Fixture::with(limits, Order::Unordered);
    f.run(copy(1), b"one");
    f.send(copy(2)).run();
    f.run(copy(4), b"four");
    f.run(copy(5), &[0; 64 * 1024]);
    let (_, resumed) = f.resume(SECOND, 1);
    assert_eq!((resumed.floor, resumed.window, resumed.version), (1, 128, 1));
    let reports = [2, 3, 4, 5, 6, 129].map(|seq| resumed.report(seq));
    use CellReport::{Finished, Running, Vacant};
    assert_eq!(reports, [Running, Vacant, Finished, Finished, Vacant, Vacant]);
    let mut out = Vec::new();
    f.table.append_finished(f.session, &mut out);
    assert_eq!(out[..4], *b"four");
    assert_eq!(errors(&out[4..]), [(5, Code::NotRetained)]);
}

#[test]
fn row_19b_a_cell_reported_vacant_stays_so_until_it_is_sent_again() {
    let mut f = Fixture::new();
    f.send(copy(1)).run();
    // Two requests are in a batch that is decoded and not yet run when the client is back.
    let batch = [copy(2).on(FIRST), copy(3).ack(1).on(FIRST)];
    let (replaced, resumed) = f.resume(SECOND, 0);
    assert_eq!((replaced, resumed.report(2)), (vec![FIRST], CellReport::Vacant));
    for late in batch {
        assert_eq!(f.send(late).closed(), Code::Fenced);
    }
    assert_eq!((f.report(2), f.floor(), f.table.counters().started), (CellReport::Vacant, 0, 1));
}

#[test]
fn row_19b_the_reply_of_a_running_call_goes_to_the_new_connection() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    f.detach();
    f.resume(SECOND, 0);
    assert_eq!(f.complete(call, b"one").connection, Some(SECOND));
    // Where it is lost again, it is still there to be asked for.
    f.detach();
    f.resume(3, 0);
    let mut out = Vec::new();
    f.table.append_finished(f.session, &mut out);
    assert_eq!(out, b"one");
}

#[test]
fn row_19_a_call_that_ends_while_nobody_is_there_is_answered_at_the_resume() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    f.detach();
    assert!(f.table.is_awaited(call), "nothing is cancelled");
    assert_eq!(f.complete(call, b"one").connection, None);
    let (replaced, resumed) = f.resume(SECOND, 0);
    assert_eq!((replaced, resumed.report(1)), (vec![], CellReport::Finished));
    let mut out = Vec::new();
    f.table.append_finished(f.session, &mut out);
    assert_eq!(out, b"one");
    assert_eq!(f.send(copy(1)), Found::Again(b"one".to_vec()));
}

#[test]
fn row_19b_an_ack_in_a_resume_counts() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    let running = f.send(copy(2)).run();
    assert_eq!(f.resume(SECOND, 2).1.floor, 2);
    assert_eq!(f.table.kept(), (0, 0));
    assert_eq!(f.complete(running, b"two").connection, None);
    assert_eq!(f.resume(3, 1).1.floor, 2, "an older one does not");
}

#[test]
fn row_19_losing_a_replaced_connection_changes_nothing() {
    let mut f = Fixture::new();
    f.resume(SECOND, 0);
    f.table.detach(f.session, FIRST, f.now);
    assert_eq!(f.table.next_deadline(), None);
    f.send(copy(1)).run();
}

#[test]
fn row_19_nothing_is_admitted_while_nobody_is_attached() {
    let mut f = Fixture::new();
    f.detach();
    assert_eq!(f.send(copy(1)).closed(), Code::Fenced);
    f.table.detach(f.session, FIRST, f.now + Duration::from_secs(5));
    assert_eq!(f.table.next_deadline(), Some(f.now + f.table.limits.unused_lease), "lost once");
}

#[test]
fn row_20_the_lease_counts_from_the_loss_of_the_connection() {
    let mut f = Fixture::new();
    let lease = f.table.limits.lease;
    f.run(copy(1), b"one");
    assert_eq!(f.table.next_deadline(), None);
    f.pass(lease * 3);
    assert_eq!(f.table.sessions(), 1, "not while it is attached");
    f.detach();
    assert_eq!(f.table.next_deadline(), Some(f.now + lease));
    f.pass(lease - Duration::from_millis(1));
    assert_eq!(f.table.sessions(), 1);
    f.pass(Duration::from_millis(1));
    assert_eq!((f.table.sessions(), f.table.kept(), f.table.counters().expired), (0, (0, 0), 1));
    let gone = f.table.resume(&f.message(), SECOND, Principal::ANYONE, f.now).unwrap_err();
    assert_eq!(gone.code, Code::SessionUnknown);
}

#[test]
fn row_20_coming_back_ends_the_lease_and_the_next_one_is_whole() {
    let mut f = Fixture::new();
    let lease = f.table.limits.lease;
    f.run(copy(1), b"one");
    for connection in 2..6 {
        f.detach();
        f.pass(lease - Duration::from_secs(1));
        f.resume(connection, 0);
        f.pass(lease * 2);
        assert_eq!((f.table.sessions(), f.table.next_deadline()), (1, None));
    }
    assert_eq!(f.send(copy(1)), Found::Again(b"one".to_vec()));
}

#[test]
fn row_20_a_session_that_never_had_a_call_does_not_stay() {
    let mut f = Fixture::new();
    f.detach();
    f.pass(f.table.limits.unused_lease);
    assert_eq!(f.table.sessions(), 0);
}

#[test]
fn row_20_what_runs_keeps_its_session() {
    let mut f = Fixture::new();
    let pending = f.send(copy(1)).run();
    let abandoned = f.send(copy(2)).run();
    f.acknowledge(1);
    f.detach();
    for call in [abandoned, pending] {
        for _ in 0..3 {
            f.pass(f.table.limits.lease);
            assert_eq!(f.table.sessions(), 1);
        }
        f.complete(call, b"at last");
    }
    assert_eq!(f.table.kept(), (1, 7), "its answer is there for who comes in time");
    f.pass(f.table.limits.lease);
    assert_eq!((f.table.sessions(), f.table.kept()), (0, (0, 0)));
}

#[test]
fn bye_ends_the_session_and_what_runs_ends_alone() {
    let mut f = Fixture::with(Limits::default(), Order::InOrder);
    f.run(copy(1), b"one");
    let running = f.send(copy(2)).run();
    let unprotected = f.send(copy(9).unprotected()).run();
    assert_eq!(f.send(copy(3)), Found::Wait);
    f.close(f.session);
    f.table.check_invariants();
    assert_eq!((f.table.sessions(), f.table.kept(), f.table.held_bytes), (0, (0, 0), 0));
    assert_eq!((f.table.in_flight(), f.table.next_deadline()), (2, None));
    // The next session takes its place, and none of its calls' ends.
    let (next, _) = f.open(&hello(0, Order::Unordered), 5, SECOND).unwrap();
    let newcomer = f.send_to(next, copy(2).on(SECOND)).run();
    for call in [running, unprotected] {
        assert!(!f.table.is_awaited(call));
        let nothing = Delivery::NOBODY;
        assert_eq!(f.complete(call, b"late"), nothing);
    }
    assert_eq!(f.send_to(next, copy(2).on(SECOND)), Found::Wait);
    assert!(f.table.is_awaited(newcomer));
    f.close(f.session);
    assert_eq!(f.table.sessions(), 1, "a stale key closes nobody");
}

#[test]
fn bye_of_a_detached_session_leaves_no_lease() {
    let mut f = Fixture::new();
    f.detach();
    f.close(f.session);
    f.table.check_invariants();
    assert_eq!(f.table.next_deadline(), None);
}

#[test]
fn an_acknowledged_idle_session_holds_no_ring_and_no_reply() {
    let mut f = Fixture::new();
    for seq in 1..=128 {
        f.run(copy(seq), b"answer");
    }
    assert_eq!(f.kept(), (128, 0, (128, 768)));
    f.acknowledge(127);
    assert_eq!(f.kept(), (128, 0, (1, 6)));
    f.acknowledge(128);
    assert_eq!(f.kept(), (1, 0, (0, 0)));
}

#[test]
fn an_idle_session_is_lean_even_if_its_last_ack_came_with_a_request() {
    let mut f = Fixture::new();
    f.run(copy(100), b"far");
    assert_eq!(f.kept().0, 128);
    assert_eq!(f.send(copy(101).ack(100).time_left(0)).code(), Code::Deadline);
    assert_eq!(f.kept(), (1, 0, (0, 0)));
    f.run(copy(200).ack(100), b"far");
    assert_eq!(f.kept().0, 128);
    let call = f.send(copy(0).ack(200).unprotected()).run();
    assert_eq!(f.kept(), (1, 0, (0, 0)));
    f.complete(call, b"");
}

#[test]
fn features_that_this_version_has_not_come_back_cleared() {
    let mut f = Fixture::new();
    let newer = Hello { features: u64::MAX, ..hello(8, Order::Unordered) };
    let (_, welcome) = f.open(&newer, 9, 9).unwrap();
    assert_eq!(welcome.features, FEATURES);
    let newer = Resume { features: u64::MAX, ..f.message() };
    assert_eq!(
        f.table.resume(&newer, 2, Principal::ANYONE, f.now).unwrap().resumed.unwrap().features,
        FEATURES
    );
}

#[test]
fn abandoning_everything_leaves_nothing_behind() {
    let mut f = Fixture::in_order();
    f.send(copy(1)).run();
    f.send(copy(3).body(b"held"));
    f.table.abandon();
    f.table.check_invariants();
    assert_eq!((f.table.sessions(), f.table.in_flight(), f.table.held_bytes), (0, 0, 0));
}
