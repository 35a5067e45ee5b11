//! Row 16: handlers that ask to be called again later.

use super::*;

#[test]
fn row_16_a_call_to_be_made_later_leaves_no_effect_and_no_start() {
    for is_transactional in [true, false] {
        let mut d = durable();
        let call = match d.request(&copy(1), is_transactional) {
            Found::Run(call) => call,
            _ => d.started(1),
        };
        d.table.begin(call);
        d.table.write(b"sum", Some(b"x"));
        let refusal = Refusal::retry_later(70);
        assert_eq!(d.table.retry_later(call, &refusal, d.now), Delivery::NOBODY);
        d.table.check_invariants();
        if !is_transactional {
            assert_eq!(d.released(), []);
            assert_eq!(d.request(&copy(1), false), Found::Wait, "until that is safe");
        }
        d.sync(1);
        let released = d.released();
        let [Out::Send(to, frame)] = &released[..] else { panic!("{released:?}") };
        assert_eq!((&to[..], errors(frame)), (&[FIRST][..], vec![(1, Code::Busy)]));
        assert_eq!(d.table.peek(d.session, 1), Some(CellReport::Vacant));
        assert_eq!((d.facts().entries.len(), d.read(b"sum")), (0, None));
        assert_eq!(d.complete(call, b"late"), [], "it has ended");
        d.crash(0);
        assert_eq!(d.resume(SECOND).unwrap().report(1), CellReport::Vacant, "not in doubt");
        d.add(1, b"sum");
    }
}

#[test]
fn row_16_volatile_the_xid_is_not_consumed() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    let refusal = Refusal::retry_later(70);
    let delivery = f.table.retry_later(call, &refusal, f.now);
    f.table.check_invariants();
    assert_eq!((delivery.connection, f.report(1)), (Some(FIRST), CellReport::Vacant));
    assert_eq!(f.table.retry_later(call, &refusal, f.now), Delivery::NOBODY, "once");
    f.run(copy(1).body(&[0xc0]), b"one");
}

#[test]
fn row_16_the_refusal_goes_where_the_copies_came_from_and_nowhere_else() {
    let mut f = Fixture::new();
    f.join(SECOND);
    let call = f.send(copy(1).on(FIRST)).run();
    let delivery = f.table.retry_later(call, &Refusal::retry_later(70), f.now);
    assert_eq!(delivery.connections().collect::<Vec<_>>(), [FIRST]);
    let call = f.send(copy(1).on(FIRST)).run();
    assert_eq!(f.send(copy(1).on(SECOND)), Found::Wait);
    let delivery = f.table.retry_later(call, &Refusal::retry_later(70), f.now);
    assert_eq!(delivery.connections().collect::<Vec<_>>(), [FIRST, SECOND]);
}

/// RESUMED has said that the call is running, and so nobody sends it again by itself.
#[test]
fn row_16_who_came_back_in_the_meantime_is_told() {
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    assert_eq!(f.resume(SECOND, 0).1.report(1), CellReport::Running);
    let delivery = f.table.retry_later(call, &Refusal::retry_later(70), f.now);
    assert_eq!(delivery.connections().collect::<Vec<_>>(), [SECOND]);

    let mut d = durable();
    d.send_plain(copy(1));
    let call = d.started(1);
    d.table.retry_later(call, &Refusal::retry_later(70), d.now);
    assert_eq!(
        d.resume(SECOND).unwrap().report(1),
        CellReport::Running,
        "still, until that is safe"
    );
    let told = d.safe();
    assert!(matches!(&told[..], [Out::Send(to, _)] if *to == [SECOND]), "{told:?}");
}

/// Told that its call runs, a client waits for what comes by the connection it is back by.
#[test]
fn row_16_the_refusal_goes_to_a_client_that_came_back_meanwhile() {
    let refusal = Refusal::retry_later(70);
    let mut f = Fixture::new();
    let call = f.send(copy(1)).run();
    f.resume(SECOND, 0);
    let delivery = f.table.retry_later(call, &refusal, f.now);
    assert_eq!(delivery.connections().collect::<Vec<_>>(), [SECOND]);
    // A hedge's copy came after that.
    let call = f.send(copy(1)).run();
    f.resume(3, 0);
    f.join(4);
    assert_eq!(f.send(copy(1).on(4)), Found::Wait);
    let delivery = f.table.retry_later(call, &refusal, f.now);
    assert_eq!(delivery.connections().collect::<Vec<_>>(), [3, 4]);
    // An unprotected call is not asked for again.
    let call = f.send(copy(9).on(4).unprotected()).run();
    f.resume(5, 0);
    assert_eq!(f.table.retry_later(call, &refusal, f.now), Delivery::NOBODY);
    // Whoever has not been told that it is back reads it in RESUMED.
    let mut d = durable();
    let call = d.send(copy(1)).run();
    d.resume_with(SECOND, &Resume { incarnation: 1, ..d.message() });
    d.table.retry_later(call, &refusal, d.now);
    let released = d.safe();
    assert!(
        matches!(&released[..], [Out::Resumed(SECOND, _), Out::Send(to, _)] if to[..] == [SECOND])
    );
}

#[test]
fn row_16_an_abandoned_call_to_be_made_later_is_just_over() {
    let mut d = durable();
    let call = d.send(copy(1)).run();
    d.acknowledge(1);
    d.table.retry_later(call, &Refusal::retry_later(1), d.now);
    assert_eq!((d.safe(), d.table.in_flight(), d.facts().floor), (vec![], 0, 1));
}
