//! How often a call is sent: attempts, timeouts, and what an answer in progress means.

use super::*;
use CellReport::Vacant;

#[test]
fn an_at_least_once_call_is_sent_again_after_each_timeout_which_doubles() {
    let mut bench = Bench::ready();
    let spec = CallSpec { deadline: None, ..bench.spec(Semantics::AtLeastOnce) };
    bench.call_with(1, spec);
    let label = bench.requested()[0];
    for seconds in [2, 4, 8, 16, 32, 64, 64] {
        let early = Duration::from_secs(seconds) * 79 / 100;
        let late = Duration::from_secs(seconds) * 121 / 100;
        bench.alive(early);
        assert_eq!(bench.requested(), [], "before {seconds} s");
        bench.alive(late - early);
        assert_eq!(bench.requested(), [label], "after {seconds} s");
    }
    assert_eq!(ending(bench.reply(label)), (1, "reply", None));
    assert_eq!(bench.reply(label), Ok(None), "another copy ran, too");
}

#[test]
fn retransmissions_come_out_of_the_budget_which_delays_and_never_ends_them() {
    let limits =
        Limits { retries_per_second: 0, retries_per_hundred_calls: 0, ..Limits::default() };
    let mut bench = Bench::new(limits);
    bench.welcome();
    let spec = CallSpec { deadline: None, ..bench.spec(Semantics::AtLeastOnce) };
    for attached in 1..=3 {
        bench.call_with(attached, spec);
    }
    let labels = bench.requested();
    bench.alive(millis(2_500));
    assert_eq!(bench.requested().len(), 1, "one is all that was saved up");
    bench.alive(millis(60_000));
    assert_eq!(bench.requested(), []);
    for label in labels {
        assert_eq!(ending(bench.reply(label)).1, "reply");
    }
}

#[test]
fn protected_calls_are_not_sent_again_by_a_timeout() {
    let mut bench = Bench::ready();
    for semantics in [Semantics::ExactlyOnce, Semantics::AtMostOnce] {
        bench.call_with(1, CallSpec { deadline: None, ..bench.spec(semantics) });
    }
    assert_eq!(bench.requested(), [1, 2]);
    bench.alive(Duration::from_secs(600));
    assert_eq!(bench.requested(), []);
}

#[test]
fn attempts_end_an_at_least_once_call_that_nobody_answers() {
    let mut bench = Bench::ready();
    let spec = CallSpec { attempts: 2, deadline: None, ..bench.spec(Semantics::AtLeastOnce) };
    bench.call_with(1, spec);
    assert_eq!(bench.requested().len(), 1);
    bench.alive(millis(2_500));
    assert_eq!(bench.requested().len(), 1);
    bench.alive(millis(4_900));
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::Deadline))]);
}

#[test]
fn attempts_end_an_at_least_once_call_whose_last_copy_is_lost() {
    let mut bench = Bench::ready();
    bench.call_with(1, CallSpec { attempts: 2, ..bench.spec(Semantics::AtLeastOnce) });
    assert_eq!(bench.requested().len(), 1);
    bench.resume(0, &[]);
    assert_eq!(bench.requested().len(), 1);
    bench.disconnect();
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::Deadline))]);
}

#[test]
fn attempts_that_were_all_refused_end_not_executed() {
    for semantics in [Semantics::AtLeastOnce, Semantics::ExactlyOnce] {
        let mut bench = Bench::ready();
        bench.call_with(1, CallSpec { attempts: 2, ..bench.spec(semantics) });
        let seq = bench.requested()[0];
        assert_eq!(bench.error(seq, Code::Busy, Some(10)), Ok(None));
        bench.wait(millis(20));
        assert_eq!(bench.requested(), [seq]);
        let answer = bench.error(seq, Code::Busy, Some(10));
        assert_eq!(ending(answer), (1, "not executed", Some(Code::Busy)));
    }
}

#[test]
fn attempts_of_a_call_that_the_server_has_not_end_not_executed() {
    let mut bench = Bench::ready();
    bench.call_with(1, CallSpec { attempts: 2, ..bench.spec(Semantics::ExactlyOnce) });
    bench.call(2);
    assert_eq!(bench.requested(), [1, 2]);
    bench.resume(0, &[Vacant, Vacant]);
    assert_eq!(bench.requested(), [1, 2]);
    bench.resume(0, &[Vacant, Vacant]);
    assert_eq!(bench.ended(), [(1, "not executed", Some(Code::Deadline))]);
    assert_eq!(bench.requested(), [2], "without a bound it goes on");
}

#[test]
fn attempts_used_up_end_no_call_that_may_still_be_answered() {
    let mut bench = Bench::ready();
    let spec = CallSpec { attempts: 1, deadline: None, ..bench.spec(Semantics::ExactlyOnce) };
    bench.call_with(1, spec);
    assert_eq!(bench.requested(), [1]);
    bench.alive(Duration::from_secs(3_600));
    bench.resume(0, &[CellReport::Running]);
    bench.alive(Duration::from_secs(3_600));
    assert_eq!(bench.ended(), []);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
}

#[test]
fn one_refusal_of_an_at_least_once_call_does_not_end_it_while_another_copy_is_out() {
    let mut bench = Bench::ready();
    bench.call_with(1, CallSpec { attempts: 2, ..bench.spec(Semantics::AtLeastOnce) });
    let label = bench.requested()[0];
    bench.alive(millis(2_500));
    assert_eq!(bench.requested(), [label]);
    assert_eq!(bench.error(label, Code::Busy, None), Ok(None));
    assert_eq!(ending(bench.reply(label)), (1, "reply", None));
}

#[test]
fn p_an_answer_in_progress_resolves_nothing() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.call_with(2, bench.spec(Semantics::AtMostOnce));
    assert_eq!(bench.requested(), [1, 2]);
    for seq in [1, 2] {
        assert_eq!(bench.error(seq, Code::InProgress, Some(10)), Ok(None));
    }
    bench.wait(millis(1_000));
    assert_eq!(bench.requested(), [], "nothing is sent for it, and nothing acknowledged");
    assert_eq!(bench.ended(), []);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
    bench.wait(Duration::from_secs(29));
    assert_eq!(bench.ended(), [(2, "indeterminate", Some(Code::Deadline))]);
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let mut bench = Bench::new(Limits { queued_bytes_max: 1_000, ..Limits::default() });
    assert!(bench.try_call(1, 5_000).is_ok(), "alone, it is taken whatever its size");
    let (attached, fault) = bench.try_call(2, 1).unwrap_err();
    assert_eq!((attached, fault.code), (2, Some(Code::Busy)));
    bench.welcome();
    assert_eq!(bench.requested(), [1]);
    assert!(bench.try_call(3, 400).is_ok() && bench.try_call(4, 400).is_ok());
    assert!(bench.try_call(5, 400).is_err());
    assert_eq!(bench.requested(), [2, 3]);
    assert!(bench.try_call(6, 400).is_ok());
}
