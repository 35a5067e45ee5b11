//! IN_DOUBT: the server crashed while the call ran. Of an idempotent method it is asked to run it again.

use super::*;
use CellReport::{Finished, Vacant};

impl Bench {
    /// A call whose server has crashed in it, and has said so.
    fn doubted(spec: impl FnOnce(CallSpec) -> CallSpec) -> (Bench, CallKey) {
        let mut bench = Bench::ready();
        let key = bench.call_with(1, spec(bench.spec(Semantics::ExactlyOnce)));
        assert_eq!(bench.requested(), [1]);
        bench.resume(0, &[Finished]);
        assert_eq!(bench.error(1, Code::InDoubt, None), Ok(None));
        assert_eq!(bench.requested(), [], "not at once");
        (bench, key)
    }

    /// Lets pass what a retry waits for.
    fn pause(&mut self) {
        self.alive(millis(500));
    }
}

#[test]
fn an_idempotent_call_in_doubt_is_sent_again() {
    let (mut bench, _) = Bench::doubted(|spec| spec);
    bench.pause();
    assert_eq!(bench.requested(), [1], "under the same xid");
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
}

#[test]
fn other_calls_in_doubt_are_not() {
    let specs: [fn(CallSpec) -> CallSpec; 3] = [
        |spec| CallSpec { idempotent: false, ..spec },
        |spec| CallSpec { semantics: Semantics::AtMostOnce, ..spec },
        |spec| CallSpec { attempts: 1, ..spec },
    ];
    for spec in specs {
        let mut bench = Bench::ready();
        bench.call_with(1, spec(bench.spec(Semantics::ExactlyOnce)));
        assert_eq!(bench.requested(), [1]);
        let answer = bench.error(1, Code::InDoubt, None);
        assert_eq!(ending(answer), (1, "indeterminate", Some(Code::InDoubt)));
    }
}

/// A put that ran again after a later one would undo it.
#[test]
fn in_order_nothing_runs_again_out_of_its_turn() {
    let mut bench = Bench::new(Limits::default());
    bench.session = Session::new(Limits::default(), Order::InOrder, None, 7, bench.now);
    bench.welcome();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    let answer = bench.error(1, Code::InDoubt, None);
    assert_eq!(ending(answer), (1, "indeterminate", Some(Code::InDoubt)));
}

#[test]
fn a_server_that_will_not_run_it_again_is_asked_once() {
    let (mut bench, _) = Bench::doubted(|spec| spec);
    bench.pause();
    assert_eq!(bench.requested(), [1]);
    // It says when, so it will.
    assert_eq!(bench.error(1, Code::InDoubt, Some(1_000)), Ok(None));
    bench.alive(millis(990));
    assert_eq!(bench.requested(), []);
    bench.pause();
    assert_eq!(bench.requested(), [1]);
    let answer = bench.error(1, Code::InDoubt, None);
    assert_eq!(ending(answer), (1, "indeterminate", Some(Code::InDoubt)));
}

#[test]
fn what_is_told_again_after_a_resume_is_no_refusal() {
    let (mut bench, _) = Bench::doubted(|spec| spec);
    bench.pause();
    assert_eq!(bench.requested(), [1]);
    // Lost on its way; RESUMED has the news of before.
    bench.resume(0, &[Finished]);
    assert_eq!(bench.error(1, Code::InDoubt, None), Ok(None));
    assert_eq!(bench.error(1, Code::InDoubt, None), Ok(None), "it waits");
    bench.pause();
    assert_eq!(bench.requested(), [1]);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
}

#[test]
fn a_call_that_was_in_doubt_never_ends_not_executed() {
    // Refused for good, though the server should say IN_DOUBT.
    let (mut bench, _) = Bench::doubted(|spec| spec);
    bench.pause();
    bench.sent();
    let answer = bench.error(1, Code::NoMethod, None);
    assert_eq!(ending(answer), (1, "indeterminate", Some(Code::NoMethod)));
    // Put off, and out of attempts.
    let (mut bench, _) = Bench::doubted(|spec| CallSpec { attempts: 2, ..spec });
    bench.pause();
    bench.sent();
    assert_eq!(ending(bench.error(1, Code::Busy, Some(1))).1, "indeterminate");
    // Given up while it waits.
    let (mut bench, key) = Bench::doubted(|spec| spec);
    bench.session.cancel(key);
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::Cancelled))]);
    // Reported vacant, and out of attempts.
    let (mut bench, _) = Bench::doubted(|spec| CallSpec { attempts: 2, ..spec });
    bench.pause();
    bench.sent();
    bench.resume(0, &[Vacant]);
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::Deadline))]);
    // Of a session that is unknown: it does not move to another one.
    let (mut bench, _) = Bench::doubted(|spec| spec);
    bench.disconnect();
    bench.session.on_connected(bench.now, &mut bench.out);
    assert!(bench.error(0, Code::SessionUnknown, None).is_err());
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::SessionUnknown))]);
    assert!(bench.session.is_empty());
    // Of a client that is refused for good.
    let (mut bench, _) = Bench::doubted(|spec| spec);
    bench.disconnect();
    bench.session.on_connected(bench.now, &mut bench.out);
    assert!(bench.error(0, Code::NotAuthorized, None).is_err());
    assert_eq!(bench.ended(), []);
}
