//! C1 and C2 with a journal: nothing leaves, and nothing is acknowledged, before it is safe.

use super::*;
use CellReport::{Finished, Running, Vacant};

/// Attached to what an earlier incarnation left: a hundred and its tag.
const RECOVERED: u32 = 100;

const SLOW: Duration = Duration::from_millis(10);

impl Bench {
    fn try_journaled(disk: &JournalDisk, now: Instant) -> Result<Bench, JournalError> {
        let limits = Limits { window: 4, ..Limits::default() };
        let session = Session::new(limits, Order::Unordered, None, 7, now);
        let journal = Box::new(ModelledJournal::new(disk));
        let attach = |call: RecoveredCall| RECOVERED + u32::try_from(call.tag).unwrap();
        let session = session.with_journal(journal, attach, now)?;
        Ok(Bench { session, now, out: Vec::new() })
    }

    /// Returns a bench on a disk that takes 10 ms for a commit.
    fn journaled(disk: &JournalDisk) -> Bench {
        disk.set_delays(SLOW..SLOW);
        let mut bench = Bench::try_journaled(disk, Instant::now()).unwrap();
        bench.welcome();
        bench.sent();
        bench.wait(SLOW);
        bench
    }

    /// Crashes, keeping what is safe and by chance some of the rest, and comes back.
    fn restart(self, disk: &JournalDisk) -> Bench {
        disk.crash();
        Bench::try_journaled(disk, self.now).unwrap()
    }

    fn resume_recovered(&mut self, reports: &[CellReport]) -> crate::handshake::Resume {
        self.session.on_connected(self.now, &mut self.out);
        let sent = self.sent();
        assert_eq!(sent[0].header.kind, Kind::Resume);
        let resume: crate::handshake::Resume = decode_whole(&sent[0].body).unwrap();
        self.resumed(resume.ack, reports);
        resume
    }

    fn tagged(&mut self, tag: u32) -> CallKey {
        let spec = CallSpec { tag: tag.into(), ..self.spec(Semantics::ExactlyOnce) };
        self.call_with(tag, spec)
    }
}

#[test]
fn c1_nothing_is_sent_before_it_is_safe() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    bench.tagged(1);
    assert_eq!(bench.requested(), []);
    assert_eq!(bench.session.next_deadline(), Some(bench.now + SLOW));
    bench.wait(SLOW - millis(1));
    assert_eq!(bench.requested(), []);
    bench.wait(millis(1));
    assert!(bench.session.wants_transmit(bench.now));
    assert_eq!(bench.requested(), [1]);
    assert_eq!(disk.safe().len(), 1);
}

#[test]
fn c1_a_journal_that_takes_no_time_costs_no_turn() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::try_journaled(&disk, Instant::now()).unwrap();
    bench.welcome();
    bench.tagged(1);
    assert_eq!(bench.requested(), [1]);
    assert!(!bench.session.wants_transmit(bench.now));
}

#[test]
fn c1_a_restarted_client_resumes_as_a_new_incarnation_with_the_same_bytes() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    for tag in 1..=3 {
        bench.tagged(tag);
    }
    bench.sent();
    bench.wait(SLOW);
    let first = bench.sent();
    assert_eq!(first.len(), 3);

    let mut bench = bench.restart(&disk);
    assert_eq!(bench.session.connect_at(), None, "the incarnation is not safe yet");
    assert_eq!(bench.session.next_deadline(), Some(bench.now + SLOW));
    bench.wait(SLOW);
    assert!(bench.session.connect_at().is_some());
    let resume = bench.resume_recovered(&[Vacant, Running, Finished]);
    assert_eq!((resume.incarnation, resume.attachment, resume.ack, resume.sid), (1, 1, 0, SID));
    let again = bench.sent();
    assert_eq!(again.len(), 1);
    let mut bytes = first[0].bytes.clone();
    frame::restamp(&mut bytes, 0, again[0].header.time_left_ms);
    assert_eq!(again[0].bytes, bytes);
    assert_eq!(again[0].header.time_left_ms, frame::NO_DEADLINE_MS);
    for seq in [3, 2, 1] {
        let tag = u32::try_from(seq).unwrap();
        assert_eq!(ending(bench.reply(seq)), (RECOVERED + tag, "reply", None));
    }
    bench.tagged(9);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [4], "no seq comes twice");

    let bench = bench.restart(&disk);
    assert_eq!(bench.session.len(), 4, "answers that were not consumed come again");
}

#[test]
fn c1_what_was_not_safe_was_not_sent_and_its_seq_is_free() {
    let disk = JournalDisk::new(4);
    let mut bench = Bench::journaled(&disk);
    bench.tagged(1);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1]);
    bench.tagged(2);
    assert_eq!(bench.requested(), []);
    // Chance decides whether it survives; if it does, it is sent now.
    let mut bench = bench.restart(&disk);
    bench.wait(SLOW);
    let has_survived = bench.session.len() == 2;
    bench.resume_recovered(&[Running]);
    bench.tagged(3);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), if has_survived { vec![3] } else { vec![2] });
}

#[test]
fn c1_a_journal_in_use_is_refused() {
    let disk = JournalDisk::new(1);
    let bench = Bench::journaled(&disk);
    let error = Bench::try_journaled(&disk, bench.now).err();
    assert_eq!(error, Some(JournalError::InUse));
    drop(bench);
    assert!(Bench::try_journaled(&disk, Instant::now()).is_ok());
}

#[test]
fn c2_nothing_is_acknowledged_before_its_consumption_is_safe() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    bench.tagged(1);
    bench.tagged(2);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1, 2]);
    bench.reply(1).unwrap();
    bench.wait(millis(1_500));
    assert_eq!(bench.kinds(), [], "the program has not said that it has it");
    bench.session.on_consumed();
    assert_eq!(bench.kinds(), []);
    bench.wait(SLOW - millis(1));
    assert_eq!(bench.kinds(), []);
    bench.wait(millis(1));
    let sent = bench.sent();
    assert_eq!((sent[0].header.kind, sent[0].header.seq), (Kind::Ack, 1));
    assert_eq!(disk.safe().len(), 1);
}

#[test]
fn c2_the_window_moves_with_what_is_safe() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    for tag in 1..=5 {
        bench.tagged(tag);
    }
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1, 2, 3, 4]);
    bench.reply(1).unwrap();
    bench.session.on_consumed();
    bench.sent();
    bench.wait(SLOW);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [5]);
}

#[test]
fn c2_a_burn_is_acknowledged_when_it_is_safe() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    let key = bench.tagged(1);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1]);
    bench.session.cancel(key);
    assert_eq!(bench.kinds(), [Kind::Cancel]);
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::Cancelled))]);
    bench.session.on_consumed();
    assert_eq!(bench.kinds(), []);
    bench.wait(SLOW);
    assert_eq!(bench.kinds(), [Kind::Ack], "at once, as it passes a burnt seq");
}

#[test]
fn not_executed_is_told_when_no_later_incarnation_can_send_the_call() {
    let code = Some(Code::NoMethod);
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    bench.tagged(1);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1]);
    assert_eq!(bench.error(1, Code::NoMethod, None), Ok(None));
    bench.sent();
    assert_eq!(bench.ended(), []);
    bench.wait(SLOW);
    assert_eq!(bench.ended(), [(1, "not executed", code)]);
    assert_eq!(bench.restart(&disk).session.len(), 0);

    // A call that was written and never sent, given up before it was safe.
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    let key = bench.tagged(1);
    assert_eq!(bench.requested(), []);
    bench.session.cancel(key);
    bench.sent();
    assert_eq!(bench.ended(), []);
    bench.wait(SLOW);
    assert_eq!(bench.ended(), [(1, "not executed", Some(Code::Cancelled))]);
    assert_eq!(bench.kinds(), [Kind::Ack], "its seq is burnt");

    // One that was never written.
    let key = bench.call(2);
    bench.session.cancel(key);
    assert_eq!(bench.ended(), [(2, "not executed", Some(Code::Cancelled))]);
}

#[test]
fn an_at_most_once_call_is_not_sent_by_a_later_incarnation() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    let spec = CallSpec { tag: 1, ..bench.spec(Semantics::AtMostOnce) };
    bench.call_with(1, spec);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1]);
    let mut bench = bench.restart(&disk);
    bench.wait(SLOW);
    bench.resume_recovered(&[Vacant]);
    assert_eq!(bench.requested(), []);
    bench.wait(SLOW);
    assert_eq!(bench.ended(), [(RECOVERED + 1, "not executed", Some(Code::Cancelled))]);
}

#[test]
fn calls_outside_the_table_are_not_journaled() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    bench.call_with(1, bench.spec(Semantics::AtLeastOnce));
    bench.session.notify(METHOD, None, |_| Ok::<(), Infallible>(())).unwrap();
    assert_eq!(bench.kinds(), [Kind::Request, Kind::Notify]);
    assert!(disk.safe().is_empty());
}

#[test]
fn a_journal_that_fails_ends_what_is_not_safe_in_it_and_takes_nothing_more() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    bench.tagged(1);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1]);
    bench.tagged(2);
    assert_eq!(bench.requested(), [], "written, and not safe");
    bench.tagged(3);
    disk.fail("no space left");
    bench.wait(SLOW);
    let code = Some(Code::Cancelled);
    let answers: Vec<_> = std::iter::from_fn(|| bench.session.next_ended()).collect();
    assert!(
        matches!(&answers[0], (2, Answer::Indeterminate(fault)) if
        fault.message.contains("no space left")),
        "it may be found there: {answers:?}"
    );
    assert_eq!(outcome(answers[1].0, &answers[1].1), (3, "not executed", code));
    assert_eq!(answers.len(), 2);
    let (_, fault) = bench.try_call(4, 1).unwrap_err();
    assert!(fault.message.contains("no space left"));
    // What was safe goes on.
    bench.resume(0, &[Vacant]);
    assert_eq!(bench.requested(), [1]);
    assert_eq!(ending(bench.reply(1)), (1, "reply", None));
    bench.session.on_consumed();
    bench.wait(millis(2_000));
    assert_eq!(bench.kinds(), [], "its consumption cannot be written, so it is not acknowledged");
}

#[test]
fn a_journal_that_fails_takes_the_proofs_with_it() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    bench.tagged(1);
    bench.tagged(2);
    bench.sent();
    bench.wait(SLOW);
    bench.sent();
    assert_eq!(bench.error(1, Code::NoMethod, None), Ok(None));
    bench.sent();
    disk.fail("no space left");
    bench.wait(SLOW);
    let code = Some(Code::NoMethod);
    assert_eq!(bench.ended(), [(1, "indeterminate", code)]);
    assert_eq!(bench.error(2, Code::NoMethod, None), Ok(None));
    assert_eq!(bench.ended(), [(2, "indeterminate", code)], "a later incarnation may send it");
}

#[test]
fn a_session_that_is_lost_after_its_journal_leaves_no_call_behind() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    bench.tagged(1);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1]);
    assert_eq!(bench.error(1, Code::Busy, Some(60_000)), Ok(None));
    disk.fail("no space left");
    bench.tagged(2);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.ended().len(), 1, "the other goes on");
    bench.disconnect();
    bench.session.on_connected(bench.now, &mut bench.out);
    assert!(bench.error(0, Code::SessionUnknown, None).is_err());
    // It has not run, but cannot be written down again, and so not be sent.
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::SessionUnknown))]);
    assert!(bench.session.is_empty());
}

#[test]
fn a_session_that_is_lost_is_lost_in_the_journal_too() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    bench.tagged(1);
    bench.tagged(2);
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1, 2]);
    assert_eq!(bench.error(2, Code::Busy, Some(60_000)), Ok(None));
    bench.disconnect();
    bench.session.on_connected(bench.now, &mut bench.out);
    assert_eq!(bench.kinds(), [Kind::Resume]);
    assert!(bench.error(0, Code::SessionUnknown, None).is_err());
    assert_eq!(bench.ended(), [(1, "indeterminate", Some(Code::SessionUnknown))]);
    bench.session.on_consumed();
    bench.disconnect();
    bench.welcome();
    bench.sent();
    bench.wait(SLOW);
    assert_eq!(bench.requested(), [1], "the call that had not run, in the new session");
    assert_eq!(disk.safe().len(), 1);
    let mut bench = bench.restart(&disk);
    bench.wait(SLOW);
    let resume = bench.resume_recovered(&[Finished]);
    assert_eq!(resume.incarnation, 1);
    assert_eq!(ending(bench.reply(1)), (RECOVERED + 2, "reply", None));
}

#[test]
fn a_closed_client_leaves_nothing_in_its_journal() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::journaled(&disk);
    bench.tagged(1);
    bench.sent();
    bench.wait(SLOW);
    bench.sent();
    bench.tagged(2);
    bench.sent();
    bench.session.close(&mut bench.out);
    let code = Some(Code::Cancelled);
    // The second was not sent, but it may be in the journal when the end of the session is not.
    assert_eq!(bench.ended(), [(1, "indeterminate", code), (2, "indeterminate", code)]);
    bench.session.drive_journal(bench.now);
    bench.wait(SLOW);
    assert_eq!(disk.safe(), Recovered::default());
}

#[test]
fn a_journal_of_something_else_is_refused() {
    let disk = JournalDisk::new(1);
    let mut journal = ModelledJournal::new(&disk);
    journal.recover().unwrap();
    let opened = Opened { sid: SID, window: u32::MAX, lease_ms: 0 };
    journal.append(&Record::Session(opened));
    journal.commit(Instant::now());
    drop(journal);
    let error = Bench::try_journaled(&disk, Instant::now()).err();
    assert!(matches!(error, Some(JournalError::Failed(_))), "{error:?}");
}

#[test]
fn hello_says_that_there_is_a_journal() {
    let disk = JournalDisk::new(1);
    let mut bench = Bench::try_journaled(&disk, Instant::now()).unwrap();
    bench.session.on_connected(bench.now, &mut bench.out);
    let hello: Hello = decode_whole(&bench.sent()[0].body).unwrap();
    assert_eq!(hello.features, crate::handshake::JOURNAL);
    let mut bench = Bench::new(Limits::default());
    bench.session.on_connected(bench.now, &mut bench.out);
    let hello: Hello = decode_whole(&bench.sent()[0].body).unwrap();
    assert_eq!(hello.features, 0);
}
