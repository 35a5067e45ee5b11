//! What a client might try: far numbers, floods, and the edges of a u64.

use super::*;
use crate::frame::SEQ_MAX;

#[test]
fn an_ack_far_ahead_costs_no_more_than_the_ring() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    f.run(copy(64), b"sixty-four");
    // A loop over the distance would not end in a lifetime.
    f.acknowledge(SEQ_MAX - 2);
    assert_eq!(f.kept(), (1, 0, (0, 0)));
    f.run(copy(SEQ_MAX).ack(SEQ_MAX - 1), b"last");
    assert_eq!(f.send(copy(SEQ_MAX).ack(SEQ_MAX - 1)), Found::Again(b"last".to_vec()));
}

#[test]
fn a_session_at_the_last_seq_gives_everything_back_at_its_end() {
    for expires in [false, true] {
        let mut f = Fixture::new();
        let pending = f.send(copy(SEQ_MAX - 1).ack(SEQ_MAX - 2)).run();
        f.run(copy(SEQ_MAX).ack(SEQ_MAX - 2), b"last");
        if expires {
            f.complete(pending, b"last but one");
            f.detach();
            f.pass(f.table.limits.lease);
        } else {
            f.close(f.session);
            f.table.check_invariants();
            assert!(!f.table.is_awaited(pending));
        }
        assert_eq!((f.table.sessions(), f.table.kept()), (0, (0, 0)));
    }
}

#[test]
fn the_last_ack_leaves_a_session_that_refuses_and_never_panics() {
    let mut f = Fixture::in_order();
    f.run(copy(1), b"one");
    f.acknowledge(SEQ_MAX);
    for seq in [0, 1, SEQ_MAX] {
        assert_eq!(f.send(copy(seq)).code(), Code::Stale);
    }
    let call = f.send(copy(0).ack(SEQ_MAX).unprotected()).run();
    f.complete(call, b"");
    assert_eq!(f.turn(), vec![]);
    let (_, resumed) = f.resume(SECOND, SEQ_MAX);
    assert_eq!((resumed.floor, resumed.report(u64::MAX)), (SEQ_MAX, CellReport::Vacant));
    f.table.append_finished(f.session, &mut Vec::new());
    f.close(f.session);
    f.table.check_invariants();
}

#[test]
fn a_ring_grows_no_further_than_the_window() {
    let mut f = Fixture::new();
    for far in [129, 1_000, SEQ_MAX] {
        assert_eq!(f.send(copy(far)).code(), Code::Window);
        assert_eq!(f.kept().0, 1, "what is refused grows nothing");
    }
    f.run(copy(128), b"edge");
    assert_eq!(f.kept().0, 128);
    for floor in (0..10_000).step_by(127) {
        f.run(copy(floor + 256).ack(floor + 128), b"edge");
        assert_eq!(f.kept().0, 128);
    }
}

#[test]
fn attach_and_detach_floods_leave_one_deadline() {
    let mut f = Fixture::new();
    f.run(copy(1), b"one");
    for connection in 2..1_000 {
        f.now += Duration::from_millis(1);
        f.detach();
        f.resume(connection, 0);
        assert_eq!(f.table.leases.len(), 0);
    }
    f.detach();
    assert_eq!(f.table.leases.len(), 1);
}

#[test]
fn hold_and_cancel_floods_leave_one_deadline() {
    let mut f = Fixture::in_order();
    for _ in 0..1_000 {
        f.now += Duration::from_millis(1);
        assert_eq!(f.send(copy(2)), Found::Wait);
        f.table.cancel(f.session, 2);
        f.table.check_invariants();
    }
    assert_eq!((f.table.leases.len(), f.table.held_bytes), (1, 0));
    assert_eq!(f.pass(Duration::from_secs(10)), []);
    assert_eq!(f.table.leases.len(), 0);
}

#[test]
fn sessions_that_hold_and_end_leave_nothing() {
    let mut f = Fixture::new();
    for secret in 0..100 {
        let (key, _) = f.open(&hello(0, Order::InOrder), secret, SECOND).unwrap();
        assert_eq!(f.send_to(key, copy(2).on(SECOND)), Found::Wait);
        f.close(key);
        f.table.check_invariants();
    }
    assert_eq!((f.table.leases.len(), f.table.held_bytes), (0, 0));
}

#[test]
fn a_lease_that_ends_with_requests_held_gives_them_up() {
    let mut f = Fixture::in_order();
    f.send(copy(2).body(&[0; 1_000]));
    f.detach();
    let refused = f.pass(f.table.limits.lease);
    assert_eq!(refused, [(None, 2, Code::Deadline)], "nobody is there to be told");
    f.pass(f.table.limits.lease);
    assert_eq!((f.table.sessions(), f.table.leases.len(), f.table.held_bytes), (0, 0, 0));
}

#[test]
fn limits_of_zero_end_too() {
    let limits = Limits {
        lease: Duration::ZERO,
        unused_lease: Duration::ZERO,
        hole_age_max: Duration::ZERO,
        ..Limits::default()
    };
    let mut f = Fixture::with(limits, Order::InOrder);
    let call = f.send(copy(1)).run();
    f.send(copy(2));
    f.detach();
    for _ in 0..3 {
        f.pass(Duration::from_secs(1));
        assert_eq!(f.table.sessions(), 1, "what runs keeps its session");
    }
    f.complete(call, b"one");
    for _ in 0..2 {
        f.pass(Duration::from_secs(1));
    }
    assert_eq!((f.table.sessions(), f.table.leases.len()), (0, 0));
}

#[test]
fn a_body_without_bytes_is_still_counted_by_the_window() {
    let mut f = Fixture::in_order();
    for seq in 2..=128 {
        assert_eq!(f.send(copy(seq).body(&[])), Found::Wait);
    }
    assert_eq!(f.send(copy(129).body(&[])).code(), Code::Window);
    f.resume(SECOND, 0);
    assert!(f.table.sessions.get(f.session).unwrap().is_vacant());
}
