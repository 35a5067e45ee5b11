//! Seqs, the window, acknowledgements, and what may not be taken.

use super::*;

#[test]
fn seqs_rise_within_the_window_and_carry_the_floor() {
    let mut bench = Bench::ready();
    for attached in 1..=6 {
        bench.call(attached);
    }
    assert_eq!(bench.requested(), [1, 2, 3, 4], "a window of 4");
    assert_eq!(ending(bench.reply(2)), (2, "reply", None));
    assert_eq!(bench.requested(), [], "the floor waits for 1");
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
    let sent = bench.sent();
    let seqs: Vec<_> = sent.iter().map(|sent| (sent.header.seq, sent.header.ack)).collect();
    assert_eq!(seqs, [(5, 2), (6, 2)]);
    assert_eq!(sent[0].header.method, METHOD);
    assert_eq!(sent[0].body, encode(&(5,)).unwrap());
}

#[test]
fn the_time_left_is_stamped_when_a_copy_leaves() {
    let mut bench = Bench::ready();
    for attached in 1..=5 {
        bench.call(attached);
    }
    assert!(bench.sent().iter().all(|sent| sent.header.time_left_ms == 30_000));
    bench.now += millis(10) + Duration::from_micros(1);
    bench.reply(1).unwrap();
    assert_eq!(bench.sent()[0].header.time_left_ms, 29_990, "rounded up");
    let spec = CallSpec::new(METHOD);
    bench.call_with(6, spec);
    bench.reply(2).unwrap();
    assert_eq!(bench.sent()[0].header.time_left_ms, frame::NO_DEADLINE_MS);
}

#[test]
fn an_idle_client_acknowledges_after_a_second() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.requested();
    bench.reply(1).unwrap();
    assert_eq!(bench.kinds(), []);
    assert_eq!(bench.session.next_deadline(), Some(bench.now + millis(1_000)));
    bench.wait(millis(999));
    assert_eq!(bench.kinds(), []);
    bench.wait(millis(1));
    let sent = bench.sent();
    assert_eq!((sent[0].header.kind, sent[0].header.seq), (Kind::Ack, 1));
    assert_eq!(bench.kinds(), []);
}

#[test]
fn half_a_window_is_acknowledged_at_once() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.call(2);
    bench.requested();
    bench.reply(1).unwrap();
    bench.reply(2).unwrap();
    assert_eq!(bench.kinds(), [Kind::Ack]);
}

#[test]
fn many_bytes_are_acknowledged_at_once() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.requested();
    bench.frame(Kind::Reply, 1, &vec![0xc0; 64 * 1024]).unwrap();
    assert_eq!(bench.kinds(), [Kind::Ack]);
}

#[test]
fn a_burnt_seq_is_acknowledged_as_soon_as_it_is_passed() {
    let mut bench = Bench::ready();
    bench.call(1);
    let second = bench.call(2);
    bench.requested();
    assert!(bench.session.cancel(second));
    assert!(!bench.session.cancel(second), "it is closed");
    assert_eq!(bench.ended(), [(2, "indeterminate", Some(Code::Cancelled))]);
    let sent = bench.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].header.kind, sent[0].header.seq), (Kind::Cancel, 2));
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
    let sent = bench.sent();
    assert_eq!((sent[0].header.kind, sent[0].header.seq), (Kind::Ack, 2));
    assert_eq!(bench.reply(2), Ok(None), "late, and nobody's");
    assert_eq!(bench.session.counters().answers_ignored, 1);
}

#[test]
fn a_call_that_never_left_takes_no_seq() {
    let mut bench = Bench::ready();
    let first = bench.call(1);
    bench.call(2);
    assert!(bench.session.cancel(first));
    assert_eq!(bench.ended(), [(1, "not executed", Some(Code::Cancelled))]);
    let sent = bench.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].header.seq, &sent[0].body), (1, &encode(&(2,)).unwrap()));
}

#[test]
fn an_answer_to_what_was_never_asked_is_a_fault() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.requested();
    assert_eq!(bench.reply(2).unwrap_err().code, Some(Code::Protocol));
    assert_eq!(bench.reply(0).unwrap_err().code, Some(Code::Protocol));
    assert!(bench.error(2, Code::Busy, None).is_err());
    assert!(bench.frame(Kind::Request, 1, &[0x90]).is_err());
    assert!(bench.frame(Kind::Welcome, 0, &[0x80]).is_err(), "a second WELCOME");
    assert!(bench.frame(Kind::Error, 1, &[0xc1]).is_err());
    assert_eq!(ending(bench.reply(1)), (1, "reply", None), "and the call is still open");
}

#[test]
fn what_cannot_be_taken_is_given_back() {
    let mut bench = Bench::new(Limits { queued_calls_max: 2, ..Limits::default() });
    let (attached, fault) = bench.try_call(1, 2 << 20).unwrap_err();
    assert_eq!((attached, fault.code), (1, Some(Code::TooLarge)));
    bench.call(2);
    bench.call(3);
    let (attached, fault) = bench.try_call(4, 1).unwrap_err();
    assert_eq!((attached, fault.code), (4, Some(Code::Busy)));
    assert_eq!(bench.session.len(), 2);

    let mut bench = Bench::ready();
    let mut spec = bench.spec(Semantics::AtLeastOnce);
    spec.idempotent = false;
    let nothing = |_: &mut Vec<u8>| Ok::<(), Infallible>(());
    let (_, fault) = bench.session.call(spec, 5, nothing).unwrap_err();
    assert_eq!(fault.code, Some(Code::NotProtected));
    let spec = bench.spec(Semantics::ExactlyOnce);
    let (_, fault) = bench.session.call(spec, 6, |_| Err("a map has no end")).unwrap_err();
    assert_eq!(fault, Fault::new(Code::BadArguments, "a map has no end"));
    assert!(bench.session.is_empty());
}

#[test]
fn a_server_that_takes_less_is_not_sent_more() {
    let mut bench = Bench::new(Limits::default());
    bench.try_call(1, 100).unwrap();
    bench.try_call(2, 50).unwrap();
    bench.session.on_connected(bench.now, &mut bench.out);
    bench.kinds();
    let mut limits = ServerLimits::of(&Limits::default());
    limits.body_bytes_max = 60;
    let welcome = Welcome { version: 1, features: 0, sid: SID, window: 4, limits };
    bench.frame(Kind::Welcome, 0, &encode(&welcome).unwrap()).unwrap();
    assert_eq!(bench.requested(), [1]);
    assert_eq!(bench.ended(), [(1, "not executed", Some(Code::TooLarge))]);
    assert_eq!(bench.try_call(3, 61).unwrap_err().1.code, Some(Code::TooLarge));
}

#[test]
fn above_the_output_mark_calls_wait() {
    let mut bench = Bench::new(Limits { output_bytes_mark: 1_000, ..Limits::default() });
    bench.welcome();
    for attached in 1..=4 {
        bench.try_call(attached, 600).unwrap();
    }
    assert_eq!(bench.requested(), [1, 2]);
    assert!(bench.session.wants_transmit(bench.now));
    assert_eq!(bench.requested(), [3, 4]);
    assert!(!bench.session.wants_transmit(bench.now));
}

#[test]
fn a_notification_leaves_once_in_its_turn() {
    let mut bench = Bench::ready();
    let body = |out: &mut Vec<u8>| {
        out.push(0x90);
        Ok::<(), Infallible>(())
    };
    bench.call(1);
    bench.session.notify(METHOD, None, body).unwrap();
    bench.call(2);
    let kinds = [Kind::Request, Kind::Notify, Kind::Request];
    assert_eq!(bench.kinds(), kinds);
    assert_eq!(bench.session.len(), 2);
    bench.resume(0, &[CellReport::Running; 2]);
    assert_eq!(bench.kinds(), []);

    bench.disconnect();
    bench.session.notify(METHOD, Some(bench.now + millis(10)), body).unwrap();
    bench.wait(millis(10));
    assert_eq!(bench.session.counters().notifications_dropped, 1);
    assert_eq!(bench.session.counters().notifications, 1);
    assert_eq!(bench.ended(), []);
}

#[test]
fn a_busy_session_keeps_no_more_than_it_needs() {
    let mut bench = Bench::ready();
    for attached in 0..10_000 {
        bench.call(attached);
        let seqs = bench.requested();
        assert_eq!(ending(bench.reply(seqs[0])).0, attached);
        let key = bench.call(attached);
        assert!(bench.session.cancel(key));
        assert_eq!(bench.ended().len(), 1);
        assert!(bench.session.timers.len() < 100);
        assert!(bench.session.queue.len() < 100);
    }
    assert!(bench.session.is_empty());
}
