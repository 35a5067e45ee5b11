//! Row 23: a call in doubt may have had its effect. Nothing that comes after says that it had not.

use super::*;
use crate::error::Class;

/// A server that crashed while it ran the call 1, and whose client is back.
fn in_doubt(order: Order) -> Durable {
    let mut d = Durable::of(hello(WINDOW, order));
    d.send_plain(copy(1));
    d.started(1);
    d.crash(0);
    d.resume(SECOND);
    d
}

fn again() -> Copy {
    copy(1).idempotent(true)
}

#[test]
fn row_23_a_call_in_doubt_is_never_refused_as_not_executed() {
    let mut d = in_doubt(Order::Unordered);
    for code in [Code::NoMethod, Code::NotAuthorized] {
        assert_eq!(d.send_plain(again().refused(code)).code(), Code::InDoubt);
    }
    let refusal = d.send_plain(again().time_left(0)).refused();
    assert_eq!((refusal.code, refusal.retry_after_ms), (Code::InDoubt, None));
    d.table.drain();
    let refusal = d.send_plain(again()).refused();
    assert_eq!(refusal.code.class(), Class::Unknown);
    assert!(refusal.retry_after_ms.is_some(), "it may run elsewhere, or later");
    assert_eq!(d.table.peek(d.session, 1), Some(CellReport::Finished), "still in doubt");
}

#[test]
fn row_23_a_call_in_doubt_that_asks_for_another_time_is_in_doubt_again() {
    for (is_transactional, is_withdrawn) in [(false, false), (true, false), (false, true)] {
        let mut d = in_doubt(Order::Unordered);
        let call = match d.request(&again(), is_transactional) {
            Found::Run(call) => call,
            _ => d.started(1),
        };
        if is_withdrawn {
            d.table.withdraw(call, &Refusal::new(Code::BadArguments, "no"), d.now);
        } else {
            d.table.retry_later(call, &Refusal::retry_later(70), d.now);
        }
        let mut released = d.safe();
        released.extend(d.released());
        let [Out::Send(to, frame)] = &released[..] else { panic!("{released:?}") };
        assert_eq!((&to[..], errors(frame)), (&[SECOND][..], vec![(1, Code::InDoubt)]));
        d.table.check_invariants();
        assert_eq!(d.table.peek(d.session, 1), Some(CellReport::Finished));
        let entry = d.facts().entries[&1].clone();
        assert!(
            matches!(entry, Entry::Started { attempt: 1, .. }),
            "as if it had not run: {entry:?}"
        );
        d.crash(0);
        assert_eq!(d.resume(3).unwrap().report(1), CellReport::Finished);
        d.send_plain(again());
        let call = d.started(1);
        d.complete(call, b"one");
        assert_eq!(d.safe(), [Out::Send(vec![3], b"one".to_vec())]);
    }
}

#[test]
fn row_23_in_order_a_call_in_doubt_is_not_held() {
    let mut d = in_doubt(Order::InOrder);
    d.send_plain(copy(2));
    d.started(2);
    d.crash(0);
    d.resume(3);
    assert_eq!(d.send_plain(again()), Found::Wait);
    // Held, it would be vacant after the next RESUME.
    let refusal = d.send_plain(copy(2).idempotent(true)).refused();
    assert_eq!(refusal.code, Code::InDoubt);
    assert!(refusal.retry_after_ms.is_some());
    assert_eq!(d.resume(4).unwrap().report(2), CellReport::Finished);
}
