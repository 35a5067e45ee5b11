//! What each answer means for its call.

use super::*;

#[test]
fn each_class_has_its_outcome() {
    let cases = [
        (Code::BadArguments, "not executed"),
        (Code::Deadline, "not executed"),
        (Code::NoMethod, "not executed"),
        (Code::NotAuthorized, "not executed"),
        (Code::TooLarge, "not executed"),
        (Code::ApplicationError, "executed"),
        (Code::NotRetained, "executed"),
        (Code::Poisoned, "indeterminate"),
        (Code::XidReused, "indeterminate"),
        (Code::Stale, "indeterminate"),
    ];
    let mut bench = Bench::ready();
    for (seq, (code, outcome)) in (1..).zip(cases) {
        bench.call(1);
        bench.sent();
        assert_eq!(ending(bench.error(seq, code, None)), (1, outcome, Some(code)));
    }
}

#[test]
fn an_application_error_brings_its_details() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.sent();
    let mut body = ErrorBody::new(Code::ApplicationError, "no such account");
    body.details = Some(b"\xc3".into());
    let ended = bench.frame(Kind::Error, 1, &encode(&body).unwrap()).unwrap();
    assert_eq!(ended, Some((1, Answer::Application(b"\xc3".into()))));
}

#[test]
fn codes_of_a_newer_peer_are_read_by_their_class() {
    let mut bench = Bench::ready();
    for (seq, (class, outcome)) in (1..).zip([
        (Class::NotExecuted as u8, "not executed"),
        (Class::Executed as u8, "executed"),
        (99, "indeterminate"),
    ]) {
        bench.call(1);
        bench.sent();
        let mut body = ErrorBody::new(Code::Busy, "something new");
        (body.class, body.code) = (class, 999);
        let ended = bench.frame(Kind::Error, seq, &encode(&body).unwrap());
        assert_eq!(ending(ended), (1, outcome, None));
    }
}

#[test]
fn in_progress_resolves_nothing() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.requested();
    assert_eq!(bench.error(1, Code::InProgress, Some(5)), Ok(None));
    bench.wait(millis(1_000));
    assert_eq!(bench.requested(), []);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
}

#[test]
fn an_answer_that_cannot_be_read_still_ran() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.call(2);
    bench.requested();
    let fault = || Fault::new(Code::TooLarge, "2 MiB");
    let mut refuse = |kind, seq| {
        let header = Header::new(kind, seq);
        let ended = bench.session.on_refused(&header, fault(), bench.now).unwrap().unwrap();
        outcome(ended.0, &ended.1)
    };
    assert_eq!(refuse(Kind::Reply, 1), (1, "executed", Some(Code::TooLarge)));
    assert_eq!(refuse(Kind::Error, 2), (2, "indeterminate", Some(Code::TooLarge)));
    let header = Header::new(Kind::GoAway, 0);
    assert!(bench.session.on_refused(&header, fault(), bench.now).is_err());
}

#[test]
fn busy_is_tried_again_with_the_same_bytes_when_the_server_says() {
    let mut bench = Bench::ready();
    bench.call(1);
    let first = bench.sent().remove(0).bytes;
    assert_eq!(bench.error(1, Code::Busy, Some(500)), Ok(None));
    bench.wait(millis(499));
    assert_eq!(bench.kinds(), []);
    bench.wait(millis(200));
    let mut second = bench.sent().remove(0).bytes;
    assert_ne!(first, second, "less time is left");
    frame::restamp(&mut second, 0, 30_000);
    assert_eq!(first, second);
    assert_eq!(bench.error(1, Code::Busy, Some(500)), Ok(None));
    assert_eq!(bench.error(1, Code::Busy, Some(500)), Ok(None), "a second answer to one copy");
    bench.wait(millis(600));
    assert_eq!(bench.requested(), [1]);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
    assert_eq!(bench.session.counters().resends, 2);
}

#[test]
fn without_a_word_from_the_server_the_pause_doubles() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    for shortest in [80, 160, 320, 640] {
        assert_eq!(bench.error(1, Code::Busy, None), Ok(None));
        bench.wait(millis(shortest - 1));
        assert_eq!(bench.requested(), []);
        bench.wait(millis(shortest / 2 + 1));
        assert_eq!(bench.requested(), [1]);
    }
}

#[test]
fn window_makes_the_client_say_its_floor() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.call(2);
    bench.requested();
    bench.reply(1).unwrap();
    assert_eq!(bench.kinds(), []);
    assert_eq!(bench.error(2, Code::Window, None), Ok(None));
    assert_eq!(bench.kinds(), [Kind::Ack]);
}

#[test]
fn a_refused_call_whose_time_is_over_has_not_run() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    assert_eq!(bench.error(1, Code::Draining, Some(60_000)), Ok(None));
    bench.wait(millis(30_000));
    assert_eq!(bench.ended(), [(1, "not executed", Some(Code::Deadline))]);
    assert_eq!(bench.kinds(), [Kind::Ack], "burnt; there is nothing to cancel");
}

#[test]
fn a_call_that_is_out_when_its_time_is_over_is_indeterminate() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    for _ in 0..20 {
        bench.frame(Kind::Pong, 0, &[]).unwrap();
        bench.wait(millis(1_500));
    }
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::Deadline))]);
    assert_eq!(bench.kinds(), [Kind::Cancel, Kind::Ack]);
    assert_eq!(bench.reply(1), Ok(None));
}

#[test]
fn a_call_that_could_not_be_sent_in_time_says_why() {
    let mut bench = Bench::new(Limits::default());
    bench.call(1);
    bench.session.on_disconnected("connection refused", bench.now);
    bench.wait(millis(30_000));
    let (1, Answer::NotExecuted(fault)) = bench.session.next_ended().unwrap() else { panic!() };
    assert_eq!(fault.code, Some(Code::Deadline));
    assert!(fault.message.contains("connection refused"), "{fault}");
}

#[test]
fn at_most_once_is_not_tried_again() {
    let mut bench = Bench::ready();
    bench.call_with(1, bench.spec(Semantics::AtMostOnce));
    assert_eq!(bench.requested(), [1]);
    assert_eq!(ending(bench.error(1, Code::Busy, Some(5))), (1, "not executed", Some(Code::Busy)));
}

#[test]
fn one_refusal_of_two_copies_proves_nothing() {
    let mut bench = Bench::ready();
    bench.call_with(1, bench.spec(Semantics::AtLeastOnce));
    let label = bench.requested()[0];
    bench.resume(0, &[]);
    assert_eq!(bench.requested(), [label]);
    let code = Code::NoMethod;
    assert_eq!(ending(bench.error(label, code, None)), (1, "indeterminate", Some(code)));

    bench.call_with(2, bench.spec(Semantics::AtLeastOnce));
    let label = bench.requested()[0];
    assert_eq!(ending(bench.error(label, code, None)), (2, "not executed", Some(code)));
}

#[test]
fn unprotected_calls_take_no_seq() {
    let mut bench = Bench::ready();
    bench.call_with(1, bench.spec(Semantics::AtLeastOnce));
    bench.call(2);
    let sent = bench.sent();
    assert!(sent[0].header.flags.contains(Flags::UNPROTECTED));
    assert!(sent[0].header.seq > u64::from(u32::MAX));
    assert_eq!((sent[1].header.seq, sent[1].header.flags), (1, Flags::NONE));
    let label = sent[0].header.seq;
    assert_eq!(bench.error(label, Code::Busy, Some(10)), Ok(None));
    bench.wait(millis(20));
    assert_eq!(bench.requested(), [label]);
    assert_eq!(ending(bench.reply(label)), (1, "reply", None));
    assert_eq!(bench.reply(label), Ok(None));
}

#[test]
fn an_empty_budget_delays_and_never_ends() {
    let mut bench = Bench::new(Limits {
        retries_per_second: 1,
        retries_per_hundred_calls: 0,
        ..Limits::default()
    });
    bench.welcome();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    for _ in 0..10 {
        assert_eq!(bench.error(1, Code::Busy, Some(0)), Ok(None));
        bench.wait(Duration::ZERO);
        bench.wait(millis(1));
        assert_eq!(bench.requested(), [1]);
    }
    assert_eq!(bench.error(1, Code::Busy, Some(0)), Ok(None));
    bench.wait(millis(200));
    assert_eq!(bench.requested(), [], "ten seconds' worth is used up");
    let deadline = bench.session.next_deadline().unwrap();
    assert!(deadline > bench.now && deadline <= bench.now + millis(1_000));
    bench.now = deadline;
    bench.session.on_deadline(bench.now).unwrap();
    assert_eq!(bench.requested(), [1]);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
}

#[test]
fn flags_that_are_not_understood_end_the_connection() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.requested();
    let mut header = Header::new(Kind::Reply, 1);
    header.flags = Flags::CHUNKED;
    let frame = Frame { header, body: &[0xc0] };
    let fault = bench.session.on_frame(&frame, bench.now, &mut bench.out).unwrap_err();
    assert_eq!(fault.code, Some(Code::Unsupported));
    header.flags = Flags(0x8000);
    let frame = Frame { header, body: &[0xc0] };
    assert!(bench.session.on_frame(&frame, bench.now, &mut bench.out).unwrap().is_some());
}
