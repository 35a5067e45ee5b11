//! C5: a client that was away for too long does not ask for what is gone.

use super::*;
use CellReport::Vacant;

/// The server's lease of 600 s, less a tenth and 5 s.
const LEASE: Duration = Duration::from_secs(535);

#[test]
fn c5_a_session_is_given_up_when_its_lease_is_over_by_the_clients_count() {
    let mut bench = Bench::ready();
    let spec = CallSpec { deadline: None, ..bench.spec(Semantics::ExactlyOnce) };
    bench.call_with(1, spec);
    assert_eq!(bench.requested(), [1]);
    assert_eq!(bench.error(1, Code::Busy, Some(3_600_000)), Ok(None));
    bench.call_with(2, spec);
    assert_eq!(bench.requested(), [2]);
    bench.disconnect();
    assert_eq!(bench.session.next_deadline(), Some(bench.now + LEASE));
    bench.wait(LEASE - millis(1));
    assert_eq!(bench.ended(), []);
    bench.wait(millis(1));
    let code = Some(Code::SessionUnknown);
    assert_eq!(bench.ended(), [(2, "indeterminate", code)], "C4: it may have run");
    bench.welcome();
    assert_eq!(bench.requested(), [1], "C4: it has not, and goes on");
}

#[test]
fn c5_within_the_lease_the_session_is_resumed() {
    let mut bench = Bench::ready();
    bench.call_with(1, CallSpec { deadline: None, ..bench.spec(Semantics::ExactlyOnce) });
    assert_eq!(bench.requested(), [1]);
    bench.disconnect();
    bench.now += LEASE - millis(1);
    bench.session.on_connected(bench.now, &mut bench.out);
    assert_eq!(bench.kinds(), [Kind::Resume]);
    bench.resumed(0, &[Vacant]);
    assert_eq!(bench.requested(), [1]);
    bench.disconnect();
    bench.now += LEASE - millis(1);
    bench.session.on_connected(bench.now, &mut bench.out);
    assert_eq!(bench.kinds(), [Kind::Resume], "RESUMED was a new proof");
}

#[test]
fn c5_the_lease_is_over_also_for_a_driver_that_looks_at_no_deadline() {
    let mut bench = Bench::ready();
    bench.disconnect();
    bench.now += LEASE;
    bench.session.on_connected(bench.now, &mut bench.out);
    assert_eq!(bench.kinds(), [Kind::Hello]);
}

#[test]
fn c5_attempts_that_fail_do_not_prolong_the_lease() {
    let mut bench = Bench::ready();
    bench.disconnect();
    bench.now += LEASE / 2;
    bench.session.on_connected(bench.now, &mut bench.out);
    assert_eq!(bench.kinds(), [Kind::Resume]);
    assert!(bench.error(0, Code::Busy, None).is_err(), "no proof that it is attached");
    bench.disconnect();
    bench.now += LEASE / 2;
    bench.session.on_connected(bench.now, &mut bench.out);
    assert_eq!(bench.kinds(), [Kind::Hello]);
}

#[test]
fn c5_the_lease_counts_from_what_was_heard_last_not_from_the_loss() {
    let mut bench = Bench::ready();
    bench.call_with(1, CallSpec { deadline: None, ..bench.spec(Semantics::ExactlyOnce) });
    assert_eq!(bench.requested(), [1]);
    let heard_at = bench.now + millis(1_000);
    bench.session.on_bytes(heard_at);
    bench.now += millis(60_000);
    bench.disconnect();
    assert_eq!(bench.session.next_deadline(), Some(heard_at + LEASE));
}

#[test]
fn c5_a_short_lease_keeps_half() {
    let mut bench = Bench::new(Limits::default());
    bench.session.on_connected(bench.now, &mut bench.out);
    bench.out.clear();
    let limits = ServerLimits { lease_ms: 4_000, ..ServerLimits::of(&Limits::default()) };
    let welcome = Welcome { version: 1, features: 0, sid: SID, window: 4, limits };
    bench.frame(Kind::Welcome, 0, &encode(&welcome).unwrap()).unwrap();
    bench.disconnect();
    assert_eq!(bench.session.next_deadline(), Some(bench.now + millis(2_000)));
}
