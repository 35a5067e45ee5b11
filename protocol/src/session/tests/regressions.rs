//! Each test is a mistake that was made here once.

use super::*;

#[test]
fn a_floor_that_rose_during_the_handshake_is_not_thought_to_be_told() {
    let mut bench = Bench::ready();
    let key = bench.call(1);
    assert_eq!(bench.requested(), [1]);
    bench.disconnect();
    bench.session.on_connected(bench.now, &mut bench.out);
    assert_eq!(bench.kinds(), [Kind::Resume], "which says that nothing is consumed");
    assert!(bench.session.cancel(key));
    bench.resumed(0, &[CellReport::Finished]);
    let sent = bench.sent();
    assert_eq!(sent.len(), 1, "a burnt seq is told of at once");
    assert_eq!((sent[0].header.kind, sent[0].header.seq), (Kind::Ack, 1));
}

#[test]
fn a_window_beyond_all_powers_of_two_is_asked_for_as_the_largest() {
    let mut bench = Bench::new(Limits { window: u32::MAX, ..Limits::default() });
    bench.session.on_connected(bench.now, &mut bench.out);
    let hello: Hello = decode_whole(&bench.sent()[0].body).unwrap();
    assert_eq!(hello.window, Limits::default().window_max);
}

#[test]
fn a_call_without_any_time_is_not_sent() {
    let mut bench = Bench::ready();
    for attached in 1..=2 {
        let deadline = Some(bench.now);
        let spec = CallSpec { deadline, ..bench.spec(Semantics::ExactlyOnce) };
        bench.call_with(attached, spec);
    }
    bench.call(3);
    assert_eq!(bench.requested(), [1], "the one that has time");
    let late = |attached| (attached, "not executed", Some(Code::Deadline));
    assert_eq!(bench.ended(), [late(1), late(2)]);
}

#[test]
fn refused_unprotected_calls_hold_the_later_ones_back() {
    let limits = Limits { window: 4, queued_calls_max: 8, ..Limits::default() };
    let mut bench = Bench::new(limits);
    bench.welcome();
    let spec = CallSpec { deadline: None, ..bench.spec(Semantics::AtLeastOnce) };
    let mut taken = 0;
    for attached in 0..1_000 {
        let body = |_: &mut Vec<u8>| Ok::<(), Infallible>(());
        taken += u32::from(bench.session.call(spec, attached, body).is_ok());
        for label in bench.requested() {
            assert_eq!(bench.error(label, Code::Busy, Some(3_600_000)), Ok(None));
        }
    }
    assert_eq!(taken, 12, "a window of refused ones, and a queue behind them");
    assert_eq!(bench.session.len(), 12);
}

#[test]
fn alarms_of_refused_calls_that_were_cancelled_do_not_pile_up() {
    let mut bench = Bench::ready();
    let spec = CallSpec { deadline: None, ..bench.spec(Semantics::ExactlyOnce) };
    for attached in 0..1_000 {
        let key = bench.call_with(attached, spec);
        let requests = bench.sent();
        let request = requests.iter().find(|sent| sent.header.kind == Kind::Request).unwrap();
        assert_eq!(bench.error(request.header.seq, Code::Busy, Some(3_600_000)), Ok(None));
        assert!(bench.session.cancel(key));
        bench.ended();
    }
    let alarms = bench.session.timers.len();
    assert!(alarms <= 2 * calls::COMPACT_ABOVE, "{alarms} alarms for no call");
}

#[test]
fn times_without_an_end_do_not_overflow_the_clock() {
    let limits = Limits {
        handshake_timeout: Duration::MAX,
        retransmit_timeout: Duration::MAX,
        ack_delay: Duration::MAX,
        backoff_min: Duration::MAX,
        backoff_max: Duration::MAX,
        lease: Duration::MAX,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits);
    bench.session.on_connected(bench.now, &mut bench.out);
    assert!(bench.session.next_deadline().is_some());
    bench.disconnect();
    bench.out.clear();
    bench.welcome();
    bench.call(1);
    bench.call(2);
    assert_eq!(bench.requested(), [1, 2]);
    assert_eq!(bench.error(1, Code::Busy, None), Ok(None));
    bench.wait(millis(1));
    assert!(bench.session.next_deadline().is_some());
    bench.reply(2).unwrap();
    bench.disconnect();
    assert!(bench.session.connect_at() > Some(bench.now));
}

#[test]
fn a_pause_is_never_nothing() {
    let limits =
        Limits { backoff_min: Duration::ZERO, backoff_max: Duration::ZERO, ..Limits::default() };
    let mut bench = Bench::new(limits);
    bench.disconnect();
    assert!(bench.session.connect_at() > Some(bench.now), "or a driver would try for ever");
}

#[test]
fn a_notification_acknowledges_nothing() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    bench.reply(1).unwrap();
    bench.session.notify(METHOD, None, |_| Ok::<(), Infallible>(())).unwrap();
    assert_eq!(bench.kinds(), [Kind::Notify], "whose ack no server reads");
    bench.wait(millis(1_000));
    assert_eq!(bench.kinds(), [Kind::Ack]);
}
