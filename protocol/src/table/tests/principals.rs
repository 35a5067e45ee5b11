//! Rows 2, 12 and 21: whose a session is, what one principal may have, and who gives way.

use super::*;

const ANN: Principal = Principal(1);
const BOB: Principal = Principal(2);
const UNORDERED: Order = Order::Unordered;

fn fixture(limits: Limits) -> Fixture {
    Fixture::with(limits, UNORDERED)
}

#[test]
fn row_2_anothers_session_is_no_session() {
    let mut f = Fixture::new();
    let (_, welcome) = f.open_as(&hello(0, UNORDERED), 5, 10, ANN).unwrap();
    let message = Resume { sid: welcome.sid, ..f.message() };
    let unknown = Resume { sid: Sid { place: 99, secret: 3 }, ..f.message() };
    let mut answers = Vec::new();
    for (message, principal) in [(&message, BOB), (&message, Principal::ANYONE), (&unknown, ANN)] {
        let mut answer = Vec::new();
        f.table.resume(message, 11, principal, f.now).unwrap_err().append(0, &mut answer);
        answers.push(answer);
    }
    assert_eq!(errors(&answers[0]), [(0, Code::SessionUnknown)]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "byte for byte");
    // Neither is it fenced or replaced.
    let old = Resume { attachment: 0, ..message.clone() };
    assert_eq!(f.table.resume(&old, 11, BOB, f.now).unwrap_err().code, Code::SessionUnknown);
    assert_eq!(f.table.resume(&message, 11, ANN, f.now).unwrap().replaced, [10]);
}

#[test]
fn row_12_one_principal_runs_only_so_many_calls() {
    let limits = Limits { in_flight_per_principal_max: 3, ..Limits::default() };
    let mut f = fixture(limits);
    let open = |f: &mut Fixture, connection, principal| {
        f.open_as(&hello(0, UNORDERED), 5, connection, principal).unwrap().0
    };
    let (ann, also_ann, bob) =
        (open(&mut f, 11, ANN), open(&mut f, 12, ANN), open(&mut f, 13, BOB));
    let first = f.send_to(ann, copy(1).on(11)).run();
    f.send_to(ann, copy(2).on(11)).run();
    f.send_to(also_ann, copy(1).on(12)).run();
    assert_eq!(f.send_to(also_ann, copy(2).on(12)).code(), Code::Busy);
    f.send_to(bob, copy(1).on(13)).run();
    for seq in 1..=4 {
        f.send(copy(seq)).run();
    }
    // What runs of a session that is gone still counts, and ends.
    f.close(ann);
    assert_eq!(f.send_to(also_ann, copy(2).on(12)).code(), Code::Busy);
    f.complete(first, b"");
    f.send_to(also_ann, copy(2).on(12)).run();
}

#[test]
fn row_12_one_principal_keeps_only_so_many_reply_bytes() {
    let limits = Limits {
        kept_reply_bytes_per_principal_max: 1_000,
        reply_reservation_bytes: 100,
        ..Limits::default()
    };
    let mut f = fixture(limits);
    let (ann, _) = f.open_as(&hello(0, UNORDERED), 5, 11, ANN).unwrap();
    let (also_ann, _) = f.open_as(&hello(0, UNORDERED), 6, 12, ANN).unwrap();
    let call = f.send_to(ann, copy(1).on(11)).run();
    f.complete(call, &[1; 901]);
    assert_eq!(f.send_to(also_ann, copy(2).on(12)).code(), Code::Busy);
    f.run(copy(1), &[0; 2_000]);
    f.table.acknowledge(ann, 1).unwrap();
    let call = f.send_to(also_ann, copy(1).on(12)).run();
    let other = f.send_to(also_ann, copy(2).on(12)).run();
    f.complete(call, &[1; 901]);
    assert_eq!(f.send_to(also_ann, copy(1).on(12)).code(), Code::NotRetained);
    f.complete(other, &[1; 100]);
    assert_eq!(f.table.kept(), (2, 2_100));
}

#[test]
fn row_12_unauthenticated_peers_get_half_where_others_are_known() {
    let limits = Limits {
        in_flight_max: 4,
        in_flight_bytes_max: 400,
        kept_reply_bytes_max: 4_000,
        reply_reservation_bytes: 10,
        sessions_max: 4,
        ..Limits::default()
    };
    let mut f = Fixture::authenticated(limits.clone(), UNORDERED);
    let running = [1, 2].map(|seq| f.send(copy(seq).body(&[0; 1])).run());
    assert_eq!(f.send(copy(3)).code(), Code::Busy, "half of the calls");
    f.complete(running[0], &[0; 1_989]);
    assert_eq!(f.send(copy(3)).code(), Code::Busy, "half of the reply bytes");
    f.acknowledge(1);
    assert_eq!(f.send(copy(3).body(&[0; 200])).code(), Code::Busy, "half of the argument bytes");
    f.send(copy(3).body(&[0; 199])).run();
    f.open(&hello(0, UNORDERED), 5, 10).unwrap();
    assert_eq!(f.open(&hello(0, UNORDERED), 6, 11).unwrap_err().code, Code::Busy, "of sessions");
    let (ann, _) = f.open_as(&hello(0, UNORDERED), 7, 12, ANN).unwrap();
    f.send_to(ann, copy(1).on(12).body(&[0; 200])).run();
    // Where nobody is asked there is nobody to share with.
    let mut alone = fixture(limits);
    for seq in 1..=4 {
        alone.send(copy(seq)).run();
    }
}

#[test]
fn row_12b_unauthenticated_peers_hold_half_of_what_may_be_held() {
    let limits = Limits { in_flight_bytes_max: 100, ..Limits::default() };
    let mut f = Fixture::authenticated(limits, Order::InOrder);
    assert_eq!(f.send(copy(2).body(&[0; 50])), Found::Wait);
    assert_eq!(f.send(copy(3).body(&[0; 1])).code(), Code::Busy);
    let (ann, _) = f.open_as(&hello(0, Order::InOrder), 7, 12, ANN).unwrap();
    assert_eq!(f.send_to(ann, copy(2).on(12).body(&[0; 50])), Found::Wait);
}

/// Opens a session by connection `number`, which is its secret, too, and has it detached clean.
fn left(f: &mut Fixture, number: u64, principal: Principal) -> SessionKey {
    let opened = f.open_as(&hello(0, UNORDERED), number.into(), number, principal);
    let session = opened.unwrap().0;
    let call = f.send_to(session, copy(1).on(number)).run();
    f.complete(call, b"");
    f.table.acknowledge(session, 1).unwrap();
    f.table.detach(session, number, f.now);
    f.table.check_invariants();
    session
}

fn is_there(f: &Fixture, session: SessionKey) -> bool {
    f.table.sessions.get(session).is_some()
}

#[test]
fn row_21_the_oldest_session_of_a_full_principal_gives_way() {
    let limits = Limits { sessions_per_principal_max: 2, ..Limits::default() };
    let mut f = fixture(limits);
    let bob = left(&mut f, 20, BOB);
    f.now += Duration::from_secs(1);
    let old = left(&mut f, 11, ANN);
    f.now += Duration::from_secs(1);
    let young = left(&mut f, 12, ANN);
    f.now += Duration::from_secs(58);
    let refused = f.open_as(&hello(0, UNORDERED), 13, 13, ANN).unwrap_err();
    assert_eq!(
        (refused.code, refused.code.class()),
        (Code::Busy, crate::error::Class::NotExecuted)
    );
    assert!(refused.retry_after_ms.is_some());
    f.now += Duration::from_secs(1);
    f.open_as(&hello(0, UNORDERED), 13, 13, ANN).unwrap();
    assert_eq!([old, young, bob].map(|session| is_there(&f, session)), [false, true, true]);
    assert_eq!(f.table.counters().evicted, 1);
    let message = Resume { sid: Sid { place: old.to_bits(), secret: 11 }, ..f.message() };
    assert_eq!(f.table.resume(&message, 30, ANN, f.now).unwrap_err().code, Code::SessionUnknown);
}

#[test]
fn row_21_the_principal_that_holds_most_gives_way_when_all_is_full() {
    let limits = Limits { sessions_max: 5, ..Limits::default() };
    let mut f = fixture(limits);
    let bobs = left(&mut f, 20, BOB);
    f.now += Duration::from_secs(1);
    let anns = [11, 12, 13].map(|number| left(&mut f, number, ANN));
    f.now += Duration::from_secs(60);
    f.open(&hello(0, UNORDERED), 30, 30).unwrap();
    let there = anns.map(|session| is_there(&f, session));
    assert_eq!((there, is_there(&f, bobs)), ([false, true, true], true), "not the oldest of all");
}

#[test]
fn row_21_what_is_attached_young_or_in_use_never_gives_way() {
    let limits = Limits { sessions_max: 1, ..Limits::default() };
    let open = |f: &mut Fixture| f.open(&hello(0, UNORDERED), 30, 30).map_err(|error| error.code);
    let hour = Duration::from_secs(300);
    // Attached.
    let mut f = fixture(limits.clone());
    f.now += hour;
    assert_eq!(open(&mut f), Err(Code::Busy));
    // An unacknowledged answer.
    let mut f = fixture(limits.clone());
    f.run(copy(1), b"kept");
    f.detach();
    f.now += hour;
    assert_eq!(open(&mut f), Err(Code::Busy));
    // A handler that runs.
    let mut f = fixture(limits.clone());
    f.send(copy(1)).run();
    f.detach();
    f.now += hour;
    assert_eq!(open(&mut f), Err(Code::Busy));
    // An abandoned one, until it ends.
    let mut f = fixture(limits.clone());
    let call = f.send(copy(1)).run();
    f.acknowledge(1);
    f.detach();
    f.now += hour;
    assert_eq!(open(&mut f), Err(Code::Busy));
    f.complete(call, b"");
    open(&mut f).unwrap();
    // One that has come back.
    let mut f = fixture(limits);
    f.run(copy(1), b"");
    f.acknowledge(1);
    f.detach();
    f.resume(SECOND, 0);
    f.now += hour;
    assert_eq!(open(&mut f), Err(Code::Busy));
    f.detach();
    f.now += Duration::from_secs(59);
    assert_eq!(open(&mut f), Err(Code::Busy));
    f.now += Duration::from_secs(1);
    open(&mut f).unwrap();
}

#[test]
fn row_21_many_principals_cost_no_walk_and_leave_nothing() {
    let limits = Limits { sessions_max: 1_000, ..Limits::default() };
    let mut f = fixture(limits);
    f.close(f.session);
    for number in 1..=3_000 {
        let opened =
            f.table.open(&hello(0, UNORDERED), number.into(), number, Principal(number), f.now);
        let session = opened.unwrap().0;
        f.table.acknowledge(session, 1).unwrap();
        f.table.detach(session, number, f.now);
        f.now += Duration::from_millis(100);
    }
    f.table.check_invariants();
    assert_eq!((f.table.sessions(), f.table.counters().evicted), (1_000, 2_000));
    f.pass(f.table.limits.lease);
    assert_eq!((f.table.sessions(), f.table.accounts.iter().count()), (0, 1));
}
