//! The second connection: what it may do, and what it may not prove.

use super::*;
use CellReport::{Finished, Running, Vacant};

const DELAY: Duration = Duration::from_millis(50);

impl Bench {
    fn hedged(&mut self, attached: u32) -> CallKey {
        let spec = CallSpec { hedge_after: Some(DELAY), ..self.spec(Semantics::ExactlyOnce) };
        self.call_with(attached, spec)
    }

    /// Opens the second connection that is wanted, and returns the RESUME it began with.
    #[track_caller]
    fn connect_second(&mut self) -> crate::handshake::Resume {
        assert!(self.session.wants_hedge());
        let mut out = Vec::new();
        self.session.on_hedge_connected(self.now, &mut out);
        assert!(self.session.has_hedge());
        let [sent] = &parse(&out)[..] else { panic!("one frame") };
        assert_eq!(sent.header.kind, Kind::Resume);
        decode_whole(&sent.body).unwrap()
    }

    fn join(&mut self, reports: &[CellReport]) {
        self.connect_second();
        let resumed = Resumed {
            version: 1,
            features: 0,
            floor: 0,
            window: 4,
            cells: Resumed::pack(reports.iter().copied()),
            limits: ServerLimits::of(&Limits::default()),
        };
        let body = encode(&resumed).unwrap();
        assert_eq!(self.second_frame(Kind::Resumed, 0, &body), Ok(None));
    }

    fn second_frame(&mut self, kind: Kind, seq: u64, body: &[u8]) -> Result<Ended, Fault> {
        let frame = Frame { header: Header::new(kind, seq), body };
        let ended = self.session.on_hedge_frame(&frame, self.now, &mut Vec::new())?;
        Ok(ended.map(|(attached, answer)| (attached, owned(answer))))
    }

    fn second_error(&mut self, seq: u64, code: Code) -> Result<Ended, Fault> {
        self.second_frame(Kind::Error, seq, &encode(&ErrorBody::new(code, "because")).unwrap())
    }

    fn second_sent(&mut self) -> Vec<Sent> {
        let mut out = Vec::new();
        self.session.transmit_hedge(self.now, &mut out);
        parse(&out)
    }

    /// Sends one call on both connections.
    fn on_both() -> Bench {
        let mut bench = Bench::ready();
        bench.hedged(1);
        assert_eq!(bench.requested(), [1]);
        bench.wait(DELAY);
        bench.join(&[]);
        assert_eq!(bench.second_sent().len(), 1);
        bench
    }
}

#[test]
fn an_unanswered_call_goes_over_a_second_connection_with_the_very_same_bytes() {
    let mut bench = Bench::ready();
    bench.hedged(1);
    let mut first = bench.sent().remove(0);
    bench.wait(DELAY - millis(1));
    assert!(!bench.session.wants_hedge());
    assert_eq!(bench.session.next_deadline(), Some(bench.now + millis(1)));
    bench.wait(millis(1));
    let resume = bench.connect_second();
    assert!(resume.join && resume.sid == SID && resume.attachment == 2);
    assert_eq!(bench.second_sent().len(), 0, "nothing leaves before RESUMED");
    let resumed = Resumed {
        version: 1,
        features: 0,
        floor: 0,
        window: 4,
        cells: Bytes::new(),
        limits: ServerLimits::of(&Limits::default()),
    };
    bench.second_frame(Kind::Resumed, 0, &encode(&resumed).unwrap()).unwrap();
    let second = bench.second_sent().remove(0);
    assert_eq!(second.header.time_left_ms, first.header.time_left_ms - 50);
    frame::restamp(&mut first.bytes, 0, second.header.time_left_ms);
    assert_eq!(first.bytes, second.bytes);
    assert_eq!(ending(bench.second_frame(Kind::Reply, 1, &[0xc0])), (1, "reply", None));
    assert_eq!(bench.reply(1), Ok(None), "the later one is a duplicate");
    assert_eq!(bench.session.counters().hedges, 1);
    assert_eq!(bench.session.counters().answers_ignored, 1);
}

#[test]
fn only_exactly_once_calls_are_hedged() {
    let mut bench = Bench::ready();
    for semantics in [Semantics::AtMostOnce, Semantics::AtLeastOnce] {
        let spec = CallSpec { hedge_after: Some(DELAY), ..bench.spec(semantics) };
        bench.call_with(1, spec);
    }
    bench.requested();
    bench.wait(millis(1_000));
    assert!(!bench.session.wants_hedge());
}

#[test]
fn a_refusal_of_one_copy_proves_nothing_while_another_is_out() {
    let mut bench = Bench::on_both();
    assert_eq!(bench.error(1, Code::NoMethod, None), Ok(None), "the second copy may run");
    assert_eq!(bench.ended(), []);
    let answer = bench.second_frame(Kind::Reply, 1, &[0xc0]);
    assert_eq!(ending(answer), (1, "reply", None));

    let mut bench = Bench::on_both();
    assert_eq!(bench.second_error(1, Code::NoMethod), Ok(None), "the first copy may run");
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
}

#[test]
fn refusals_of_all_copies_are_proof() {
    let code = Some(Code::NoMethod);
    let mut bench = Bench::on_both();
    assert_eq!(bench.error(1, Code::NoMethod, None), Ok(None));
    assert_eq!(ending(bench.second_error(1, Code::NoMethod)), (1, "not executed", code));

    let mut bench = Bench::on_both();
    assert_eq!(bench.second_error(1, Code::NoMethod), Ok(None));
    assert_eq!(ending(bench.error(1, Code::NoMethod, None)), (1, "not executed", code));
}

#[test]
fn a_copy_lost_with_its_connection_leaves_a_refusal_without_proof() {
    let code = Some(Code::Cancelled);
    let mut bench = Bench::on_both();
    assert_eq!(bench.error(1, Code::NoMethod, None), Ok(None));
    bench.session.on_hedge_disconnected("cut", bench.now);
    assert_eq!(bench.ended(), [(1, "indeterminate", code)]);

    let mut bench = Bench::on_both();
    bench.session.on_hedge_disconnected("cut", bench.now);
    let answer = bench.error(1, Code::NoMethod, None);
    assert_eq!(ending(answer), (1, "indeterminate", Some(Code::NoMethod)));
}

#[test]
fn a_busy_server_that_is_heard_on_both_connections_has_answered_one_copy() {
    let mut bench = Bench::on_both();
    assert_eq!(bench.error(1, Code::Busy, Some(60_000)), Ok(None));
    assert_eq!(bench.second_error(1, Code::Busy), Ok(None));
    bench.wait(Duration::from_secs(30));
    let code = Some(Code::Deadline);
    assert_eq!(bench.ended(), [(1, "indeterminate", code)], "the other may be on its way");
}

#[test]
fn a_joined_vacancy_is_no_proof_and_no_reason_to_send() {
    let mut bench = Bench::ready();
    bench.call_with(1, bench.spec(Semantics::AtMostOnce));
    bench.call(2);
    bench.hedged(3);
    assert_eq!(bench.requested(), [1, 2, 3]);
    bench.wait(DELAY);
    bench.join(&[Vacant, Vacant, Vacant]);
    assert_eq!(bench.ended(), [], "they may be on their way by the first connection");
    assert_eq!(bench.requested(), []);
    let seqs: Vec<_> = bench.second_sent().iter().map(|sent| sent.header.seq).collect();
    assert_eq!(seqs, [3], "the hedge and no more");
}

#[test]
fn a_join_that_is_refused_costs_the_hedge_and_nothing_else() {
    for (code, is_final) in [(Code::Unsupported, true), (Code::Busy, false), (Code::Fenced, false)]
    {
        let mut bench = Bench::ready();
        bench.hedged(1);
        assert_eq!(bench.requested(), [1]);
        bench.wait(DELAY);
        bench.connect_second();
        let fault = bench.second_error(0, code).unwrap_err();
        bench.session.on_hedge_disconnected(&fault.to_string(), bench.now);
        assert!(!bench.session.has_hedge() && !bench.session.wants_hedge());
        assert_eq!(bench.session.state(), State::Ready);
        assert_eq!(ending(bench.reply(1)), (1, "reply", None));
        bench.hedged(2);
        bench.requested();
        bench.wait(DELAY);
        assert!(!bench.session.wants_hedge(), "so soon after a refusal");
        bench.reply(2).unwrap();
        bench.wait(millis(1_000));
        bench.hedged(3);
        bench.sent();
        bench.wait(DELAY);
        assert_eq!(bench.session.wants_hedge(), !is_final, "{code}");
    }
}

#[test]
fn a_session_unknown_on_the_second_connection_is_not_believed() {
    let mut bench = Bench::ready();
    bench.hedged(1);
    assert_eq!(bench.requested(), [1]);
    bench.wait(DELAY);
    bench.connect_second();
    assert!(bench.second_error(0, Code::SessionUnknown).is_err());
    bench.session.on_hedge_disconnected("unknown", bench.now);
    assert_eq!(bench.ended(), []);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
}

#[test]
fn when_the_first_connection_dies_the_second_is_heard_until_a_resume_replaces_both() {
    let mut bench = Bench::on_both();
    bench.hedged(2);
    assert_eq!(bench.requested(), [2]);
    bench.disconnect();
    assert!(bench.session.has_hedge());
    bench.wait(DELAY);
    assert_eq!(bench.second_sent().len(), 0, "nothing is sent on the survivor");
    assert_eq!(ending(bench.second_frame(Kind::Reply, 1, &[0xc0])), (1, "reply", None));

    bench.session.on_connected(bench.now, &mut bench.out);
    assert!(!bench.session.has_hedge(), "the driver closes it");
    let sent = bench.sent();
    let resume: crate::handshake::Resume = decode_whole(&sent[0].body).unwrap();
    assert!(!resume.join && resume.attachment == 3 && resume.ack == 1);
    assert_eq!(bench.second_error(2, Code::NoMethod), Ok(None), "nobody listens");
    bench.resumed(0, &[Finished, Vacant]);
    assert_eq!(bench.requested(), [2]);
    assert_eq!(ending(bench.reply(2)), (2, "reply", None));
}

#[test]
fn a_resume_counts_the_copies_of_both_connections() {
    // Both copies lost and the cell vacant: that is proof.
    let mut bench = Bench::on_both();
    bench.resume(0, &[Vacant]);
    assert_eq!(bench.requested(), [1]);
    let code = Some(Code::NoMethod);
    assert_eq!(ending(bench.error(1, Code::NoMethod, None)), (1, "not executed", code));

    // A refused call whose other copy is what runs: its reply is awaited, and it is not sent again.
    let mut bench = Bench::on_both();
    assert_eq!(bench.error(1, Code::Busy, Some(100)), Ok(None));
    bench.resume(0, &[Running]);
    bench.wait(millis(500));
    assert_eq!(bench.requested(), []);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));

    // A refused call whose other copy was dropped: its pause goes on.
    let mut bench = Bench::on_both();
    assert_eq!(bench.error(1, Code::Busy, Some(100)), Ok(None));
    bench.resume(0, &[Vacant]);
    assert_eq!(bench.requested(), []);
    bench.wait(millis(500));
    assert_eq!(bench.requested(), [1]);
}

#[test]
fn a_refused_call_whose_copy_is_out_goes_on_after_a_reconnect() {
    let mut bench = Bench::on_both();
    assert_eq!(bench.error(1, Code::NoMethod, None), Ok(None));
    bench.resume(0, &[Vacant]);
    assert_eq!(bench.requested(), [1]);
    let code = Some(Code::NoMethod);
    assert_eq!(ending(bench.error(1, Code::NoMethod, None)), (1, "not executed", code));
}

#[test]
fn hedges_come_out_of_the_retry_budget() {
    let limits = Limits {
        retries_per_second: 0,
        retries_per_hundred_calls: 0,
        window: 4,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits);
    bench.welcome();
    for attached in 1..=3 {
        bench.hedged(attached);
    }
    assert_eq!(bench.requested(), [1, 2, 3]);
    bench.wait(DELAY);
    bench.join(&[]);
    let seqs: Vec<_> = bench.second_sent().iter().map(|sent| sent.header.seq).collect();
    assert_eq!(seqs, [1], "one is all that was saved up");
    assert!(!bench.session.wants_transmit_hedge(bench.now));
    for seq in 1..=3 {
        assert_eq!(ending(bench.reply(seq)).1, "reply", "an empty budget ends nothing");
    }
}

#[test]
fn a_hedge_is_an_attempt() {
    let mut bench = Bench::ready();
    let spec =
        CallSpec { hedge_after: Some(DELAY), attempts: 1, ..bench.spec(Semantics::ExactlyOnce) };
    bench.call_with(1, spec);
    bench.call_with(2, CallSpec { attempts: 2, ..spec });
    assert_eq!(bench.requested(), [1, 2]);
    bench.wait(DELAY);
    bench.join(&[]);
    let seqs: Vec<_> = bench.second_sent().iter().map(|sent| sent.header.seq).collect();
    assert_eq!(seqs, [2]);
}

#[test]
fn an_idle_second_connection_is_left() {
    let mut bench = Bench::on_both();
    bench.reply(1).unwrap();
    bench.wait(Limits::default().spare_idle - millis(1));
    assert!(bench.session.has_hedge());
    bench.wait(millis(1));
    assert!(!bench.session.has_hedge() && !bench.session.wants_hedge());
    assert_eq!(bench.session.state(), State::Ready);
}

#[test]
fn a_silent_second_connection_is_asked_and_left() {
    let mut bench = Bench::on_both();
    bench.wait(millis(2_000));
    bench.session.on_bytes(bench.now);
    assert_eq!(bench.second_sent()[0].header.kind, Kind::Ping);
    bench.wait(millis(1_999));
    bench.session.on_bytes(bench.now);
    assert!(bench.session.has_hedge());
    bench.wait(millis(1));
    assert!(!bench.session.has_hedge());
    assert_eq!(bench.ended(), []);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));

    bench.hedged(2);
    bench.sent();
    bench.wait(millis(500));
    bench.connect_second();
    bench.wait(Limits::default().handshake_timeout);
    assert!(!bench.session.has_hedge(), "a handshake that never ends");
}

#[test]
fn a_second_connection_that_drains_is_left_when_its_copies_are_answered() {
    let mut bench = Bench::on_both();
    bench.second_frame(Kind::GoAway, 0, &[]).unwrap();
    bench.hedged(2);
    assert_eq!(bench.requested(), [2]);
    bench.wait(DELAY);
    assert_eq!(bench.second_sent().len(), 0);
    assert!(bench.session.has_hedge());
    bench.reply(1).unwrap();
    bench.wait(millis(1));
    assert!(!bench.session.has_hedge());
}

#[test]
fn a_caller_that_gave_up_is_told_on_both_connections() {
    let mut bench = Bench::ready();
    let key = bench.hedged(1);
    bench.requested();
    bench.wait(DELAY);
    bench.join(&[]);
    bench.second_sent();
    bench.session.cancel(key);
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::Cancelled))]);
    let second: Vec<_> = bench.second_sent().iter().map(|sent| sent.header).collect();
    assert_eq!((second[0].kind, second[0].seq), (Kind::Cancel, 1));
    assert_eq!(bench.kinds(), [Kind::Cancel, Kind::Ack]);
}

#[test]
fn an_acknowledgement_on_the_second_connection_is_not_thought_to_be_told() {
    let mut bench = Bench::ready();
    bench.call(1);
    bench.hedged(2);
    assert_eq!(bench.requested(), [1, 2]);
    bench.wait(DELAY);
    bench.join(&[]);
    bench.reply(1).unwrap();
    assert_eq!(bench.second_sent()[0].header.ack, 1);
    bench.wait(millis(1_000));
    assert_eq!(bench.kinds(), [Kind::Ack]);
}

#[test]
fn a_hedge_without_a_budget_does_not_keep_the_driver_awake() {
    let limits = Limits {
        retries_per_second: 0,
        retries_per_hundred_calls: 0,
        window: 4,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits);
    bench.welcome();
    for attached in 1..=2 {
        bench.hedged(attached);
    }
    bench.requested();
    bench.wait(DELAY);
    bench.join(&[]);
    bench.second_sent();
    bench.wait(Duration::from_secs(1));
    assert!(bench.session.next_deadline() > Some(bench.now));
}

#[test]
fn what_a_second_connection_says_of_doubt_costs_its_copy() {
    let mut bench = Bench::on_both();
    // Said by the way, and of the copy: the first connection has the word.
    assert_eq!(bench.second_error(1, Code::InDoubt), Ok(None));
    assert_eq!(bench.second_error(1, Code::InDoubt), Ok(None));
    assert_eq!(bench.error(1, Code::InDoubt, None), Ok(None));
    bench.alive(millis(500));
    assert_eq!(bench.requested(), [1]);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
    // The last word.
    let mut bench = Bench::on_both();
    assert_eq!(bench.error(1, Code::NoMethod, None), Ok(None));
    let answer = bench.second_error(1, Code::InDoubt);
    assert_eq!(ending(answer), (1, "indeterminate", Some(Code::InDoubt)));
}
