//! Handshake, back-off, silence, and the end.

use super::*;

#[test]
fn nothing_leaves_before_welcome() {
    let mut bench = Bench::new(Limits::default());
    let key = bench.call(1);
    assert_eq!(bench.kinds(), []);
    bench.session.on_connected(bench.now, &mut bench.out);
    bench.call(2);
    assert_eq!(bench.kinds(), [Kind::Hello]);
    assert!(bench.session.cancel(key));
    assert_eq!(bench.kinds(), [], "no CANCEL, no ACK");
    assert_eq!(bench.ended(), [(1, "not executed", Some(Code::Cancelled))]);
    assert!(bench.frame(Kind::Ping, 1, &[]).is_err(), "the server speaks too soon, too");
}

#[test]
fn hello_asks_for_what_was_chosen() {
    let now = Instant::now();
    let limits = Limits { window: 100, ..Limits::default() };
    let token = Some(Bytes::from_static(b"secret"));
    let mut session: Session<u32> = Session::new(limits, Order::InOrder, token.clone(), 1, now);
    let mut out = Vec::new();
    session.on_connected(now, &mut out);
    assert_eq!(out[..MAGIC.len()], MAGIC);
    let hello: crate::handshake::Hello =
        crate::codec::decode_whole(&out[MAGIC.len() + frame::HEADER_BYTES..]).unwrap();
    assert_eq!((hello.version, hello.window), (1, 128));
    assert_eq!((hello.order, hello.token), (Order::InOrder, token));
}

#[test]
fn the_first_connection_is_wanted_at_once_and_later_ones_after_a_pause() {
    let mut bench = Bench::new(Limits::default());
    assert_eq!(bench.session.connect_at(), Some(bench.now));
    for shortest in [80, 160, 320, 640, 1_280, 2_560, 4_000, 4_000] {
        bench.session.on_disconnected("refused", bench.now);
        let pause = bench.session.connect_at().unwrap() - bench.now;
        assert!(pause >= millis(shortest) && pause <= millis(shortest * 3 / 2), "{pause:?}");
    }
    bench.welcome();
    assert_eq!(bench.session.connect_at(), None);
    bench.disconnect();
    let pause = bench.session.connect_at().unwrap() - bench.now;
    assert!(pause <= millis(120), "a handshake that was done begins the count anew");
}

#[test]
fn a_handshake_has_its_time() {
    let mut bench = Bench::new(Limits::default());
    bench.session.on_connected(bench.now, &mut bench.out);
    let deadline = bench.now + bench.session.limits.handshake_timeout;
    assert_eq!(bench.session.next_deadline(), Some(deadline));
    assert!(bench.session.on_deadline(deadline - millis(1)).is_ok());
    assert!(bench.session.on_deadline(deadline).is_err());
}

#[test]
fn a_server_without_room_is_left_alone_for_as_long_as_it_asks() {
    let mut bench = Bench::new(Limits::default());
    bench.call(1);
    bench.session.on_connected(bench.now, &mut bench.out);
    assert!(bench.error(0, Code::Busy, Some(3_000)).is_err());
    bench.disconnect();
    assert_eq!(bench.session.connect_at(), Some(bench.now + millis(3_000)));
    assert_eq!(bench.ended(), [], "the call waits");
}

#[test]
fn a_client_that_is_refused_for_good_ends_what_has_not_run() {
    let mut bench = Bench::new(Limits::default());
    bench.call(1);
    bench.session.on_connected(bench.now, &mut bench.out);
    assert!(bench.error(0, Code::NotAuthorized, None).is_err());
    assert_eq!(bench.ended(), [(1, "not executed", Some(Code::NotAuthorized))]);
}

#[test]
fn another_version_is_not_spoken_with() {
    let mut bench = Bench::new(Limits::default());
    bench.session.on_connected(bench.now, &mut bench.out);
    let limits = ServerLimits::of(&Limits::default());
    let welcome = Welcome { version: 2, features: 0, sid: SID, window: 4, limits };
    let fault = bench.frame(Kind::Welcome, 0, &encode(&welcome).unwrap()).unwrap_err();
    assert_eq!(fault.code, Some(Code::Unsupported));
}

#[test]
fn silence_is_asked_into_and_then_given_up() {
    let mut bench = Bench::ready();
    bench.wait(millis(10_000));
    bench.call(1);
    assert_eq!(bench.kinds(), [Kind::Request]);
    assert_eq!(bench.session.next_deadline(), Some(bench.now + millis(2_000)));
    bench.wait(millis(1_999));
    assert_eq!(bench.kinds(), []);
    bench.wait(millis(1));
    assert_eq!(bench.kinds(), [Kind::Ping]);
    bench.frame(Kind::Pong, 1, &[]).unwrap();
    bench.wait(millis(2_000));
    assert_eq!(bench.kinds(), [Kind::Ping], "it lives; ask again");
    bench.now += millis(2_000);
    let fault = bench.session.on_deadline(bench.now).unwrap_err();
    assert_eq!(fault.code, Some(Code::Deadline));
    assert_eq!(bench.ended(), [], "the call goes on");
    bench.resume(0, &[CellReport::Running]);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
}

#[test]
fn bytes_that_are_no_frame_yet_are_a_sign_of_life() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.kinds(), [Kind::Request]);
    for _ in 0..5 {
        bench.session.on_bytes(bench.now);
        bench.wait(millis(1_900));
        assert_eq!(bench.kinds(), []);
    }
}

#[test]
fn nobody_is_asked_while_nothing_is_out() {
    let mut bench = Bench::ready();
    assert_eq!(bench.session.next_deadline(), None);
    bench.wait(millis(600_000));
    assert_eq!(bench.kinds(), []);
}

#[test]
fn a_ping_is_answered() {
    let mut bench = Bench::ready();
    bench.frame(Kind::Ping, 77, &[]).unwrap();
    let sent = bench.sent();
    assert_eq!((sent[0].header.kind, sent[0].header.seq), (Kind::Pong, 77));
}

#[test]
fn after_goaway_what_runs_ends_and_nothing_new_begins() {
    let mut bench = Bench::ready();
    bench.call(1);
    assert_eq!(bench.requested(), [1]);
    bench.frame(Kind::GoAway, 0, &[]).unwrap();
    assert_eq!(bench.session.state(), State::Draining);
    bench.call(2);
    assert_eq!(bench.kinds(), []);
    assert!(!bench.session.is_drained());
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
    assert!(bench.session.is_drained());
    bench.resume(1, &[]);
    assert_eq!(bench.requested(), [2]);
    let events: Vec<_> = std::iter::from_fn(|| bench.session.next_event()).collect();
    let ready = |resumed| Event::Ready { resumed };
    assert_eq!(events, [ready(false), Event::Draining, ready(true)]);
}

#[test]
fn closing_says_bye_and_ends_every_call() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.call(2);
    assert_eq!(bench.requested(), [1, 2]);
    assert!(bench.error(2, Code::Busy, None).unwrap().is_none());
    for attached in 3..6 {
        bench.call(attached);
    }
    assert_eq!(bench.requested(), [3, 4]);
    bench.session.close(&mut bench.out);
    let sent = bench.sent();
    let [bye] = &sent[..] else { panic!("one frame") };
    assert_eq!((bye.header.kind, bye.header.seq), (Kind::Bye, 4));
    let code = Some(Code::Cancelled);
    let mut ended = bench.ended();
    ended.sort_unstable_by_key(|ended| ended.0);
    assert_eq!(
        ended,
        [
            (1, "indeterminate", code),
            (2, "not executed", code),
            (3, "indeterminate", code),
            (4, "indeterminate", code),
            (5, "not executed", code),
        ]
    );
    assert_eq!(bench.session.state(), State::Closed);
    assert_eq!(bench.try_call(6, 1).unwrap_err().1.code, code);
    bench.session.on_disconnected("closed", bench.now);
    assert_eq!((bench.session.connect_at(), bench.session.next_deadline()), (None, None));
}

#[test]
fn closing_during_the_handshake_says_nothing() {
    let mut bench = Bench::new(Limits::default());
    bench.session.on_connected(bench.now, &mut bench.out);
    bench.out.clear();
    bench.session.close(&mut bench.out);
    assert_eq!(bench.kinds(), []);
}
