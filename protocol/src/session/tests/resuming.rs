//! What a lost connection, and a lost session, mean for each call.

use super::*;
use CellReport::{Finished, Running, Vacant};

#[test]
fn vacant_cells_are_sent_again_in_their_order_with_the_same_bytes() {
    let mut bench = Bench::ready();
    for attached in 1..=5 {
        bench.call(attached);
    }
    let first: Vec<_> = bench.sent().into_iter().map(|sent| sent.bytes).collect();
    bench.resume(0, &[Vacant, Running, Vacant, Finished]);
    let again = bench.sent();
    assert_eq!(again.len(), 2);
    assert_eq!((&again[0].bytes, &again[1].bytes), (&first[0], &first[2]));
    for seq in [4, 2, 1, 3] {
        assert_eq!(ending(bench.reply(seq)).1, "reply");
    }
    assert_eq!(bench.requested(), [5]);
}

#[test]
fn sends_after_a_resume_are_free() {
    let mut bench = Bench::new(Limits {
        retries_per_second: 0,
        retries_per_hundred_calls: 0,
        ..Limits::default()
    });
    bench.welcome();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    for _ in 0..20 {
        bench.resume(0, &[Vacant]);
        assert_eq!(bench.requested(), [1]);
    }
}

#[test]
fn at_most_once_is_never_sent_again() {
    let mut bench = Bench::ready();
    for attached in 1..=3 {
        bench.call_with(attached, bench.spec(Semantics::AtMostOnce));
    }
    assert_eq!(bench.requested(), [1, 2, 3]);
    bench.call_with(4, bench.spec(Semantics::AtMostOnce));
    bench.disconnect();
    bench.call_with(5, bench.spec(Semantics::AtMostOnce));
    bench.resume(0, &[Vacant, Running, Finished]);
    assert_eq!(bench.ended(), [(1, "not executed", Some(Code::Cancelled))]);
    let sent = bench.sent();
    let seqs: Vec<_> = sent.iter().map(|sent| (sent.header.seq, sent.header.ack)).collect();
    assert_eq!(seqs, [(4, 1), (5, 1)], "what never left leaves now; 1 is burnt");
    assert_eq!(ending(bench.reply(3)), (3, "reply", None));
    assert_eq!(ending(bench.reply(2)), (2, "reply", None));
}

#[test]
fn each_connection_raises_the_attachment_and_says_the_floor() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.requested();
    bench.reply(1).unwrap();
    for attachment in [2, 3, 4] {
        bench.disconnect();
        bench.session.on_connected(bench.now, &mut bench.out);
        let sent = bench.sent();
        let resume: crate::handshake::Resume = crate::codec::decode_whole(&sent[0].body).unwrap();
        assert_eq!((resume.sid, resume.attachment, resume.ack), (SID, attachment, 1));
        assert!(!resume.join);
    }
}

#[test]
fn a_running_cell_may_still_be_refused() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    bench.resume(0, &[Running]);
    assert_eq!(bench.error(1, Code::Busy, Some(10)), Ok(None));
    bench.wait(millis(20));
    assert_eq!(bench.requested(), [1]);
    bench.resume(0, &[Running]);
    let code = Code::Deadline;
    assert_eq!(ending(bench.error(1, code, None)), (1, "not executed", Some(code)));
}

#[test]
fn a_call_that_waits_for_its_time_goes_on_waiting() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    assert_eq!(bench.error(1, Code::Busy, Some(1_000)), Ok(None));
    bench.resume(0, &[Vacant]);
    assert_eq!(bench.requested(), []);
    bench.wait(millis(1_200));
    assert_eq!(bench.requested(), [1]);

    assert_eq!(bench.error(1, Code::Busy, Some(100)), Ok(None));
    bench.disconnect();
    bench.wait(millis(200));
    bench.resume(0, &[Vacant]);
    assert_eq!(bench.requested(), [1], "its time passed while there was no connection");
}

#[test]
fn a_caller_that_gave_up_without_a_connection_is_told_later() {
    let mut bench = Bench::ready();
    bench.call(1);
    let second = bench.call(2);
    let third = bench.call(3);
    assert_eq!(bench.requested(), [1, 2, 3]);
    bench.disconnect();
    bench.session.cancel(second);
    bench.session.cancel(third);
    assert_eq!(bench.ended().len(), 2);
    bench.resume(0, &[Running, Running, Finished]);
    let sent = bench.sent();
    let frames: Vec<_> = sent.iter().map(|sent| (sent.header.kind, sent.header.seq)).collect();
    assert_eq!(frames, [(Kind::Cancel, 2)]);
}

#[test]
fn a_server_that_acknowledges_more_than_it_was_told_is_not_believed() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.requested();
    bench.disconnect();
    bench.session.on_connected(bench.now, &mut bench.out);
    let limits = ServerLimits::of(&Limits::default());
    let cells = Bytes::new();
    let resumed = Resumed { version: 1, features: 0, floor: 1, window: 4, cells, limits };
    let fault = bench.frame(Kind::Resumed, 0, &encode(&resumed).unwrap()).unwrap_err();
    assert_eq!(fault.code, Some(Code::Protocol));
    assert_eq!(bench.ended(), []);
}

#[test]
fn a_lost_session_ends_only_what_may_have_run() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.call(2);
    bench.call_with(3, bench.spec(Semantics::AtMostOnce));
    bench.call_with(4, bench.spec(Semantics::AtLeastOnce));
    bench.call(5);
    let label = bench.requested()[3];
    assert_eq!(bench.error(1, Code::Busy, Some(60_000)), Ok(None));
    assert_eq!(bench.error(4, Code::Busy, Some(60_000)), Ok(None));
    bench.call(6);
    bench.disconnect();
    bench.session.on_connected(bench.now, &mut bench.out);
    assert_eq!(bench.kinds(), [Kind::Resume]);
    assert!(bench.error(0, Code::SessionUnknown, None).is_err());
    let code = Some(Code::SessionUnknown);
    assert_eq!(bench.ended(), [(2, "indeterminate", code), (3, "indeterminate", code)]);
    bench.disconnect();
    assert_eq!(bench.session.connect_at(), Some(bench.now), "the server is there: no pause");

    bench.welcome();
    let sent = bench.sent();
    assert_eq!(sent[0].header.seq, label, "it belongs to no session");
    let moved: Vec<_> = sent[1..].iter().map(|sent| (sent.header.seq, sent.body.clone())).collect();
    let body = |attached: u32| encode(&(attached,)).unwrap();
    assert_eq!(moved, [(1, body(1)), (2, body(5)), (3, body(6))]);
    assert_eq!(ending(bench.reply(2)), (5, "reply", None));
    let events: Vec<_> = std::iter::from_fn(|| bench.session.next_event()).collect();
    let ready = Event::Ready { resumed: false };
    assert_eq!(events, [ready.clone(), Event::SessionLost, ready]);
}

#[test]
fn a_moved_call_is_not_sent_by_its_old_alarm() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    assert_eq!(bench.error(1, Code::Busy, Some(1_000)), Ok(None));
    bench.disconnect();
    bench.session.on_connected(bench.now, &mut bench.out);
    assert_eq!(bench.kinds(), [Kind::Resume]);
    assert!(bench.error(0, Code::SessionUnknown, None).is_err());
    bench.disconnect();
    bench.welcome();
    assert_eq!(bench.requested(), [1]);
    bench.wait(millis(1_500));
    assert_eq!(bench.requested(), [], "it is out");
}

#[test]
fn a_fenced_session_is_lost() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    assert!(bench.error(0, Code::Fenced, None).is_err());
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::Fenced))]);
    bench.disconnect();
    bench.now += millis(200);
    bench.welcome();
}
