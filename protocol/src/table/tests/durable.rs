//! The rows of a durable table: what waits until it is safe, and what a crash leaves.

mod crashes;
mod doubt;
mod later;

use super::*;
use crate::table::store::{Entry, Log};
use crate::table::{Cancelled, Released};

const WINDOW: u32 = 4;

/// A server with a durable table, whose commits are safe when the test says so.
struct Durable {
    table: Table<Log>,
    limits: Limits,
    session: SessionKey,
    sid: Sid,
    connection: u64,
    attachment: u32,
    now: Instant,
}

/// What was released, in short.
#[derive(Clone, Debug, PartialEq)]
enum Out {
    Close(u64, Code),
    Resumed(u64, Vec<(u64, CellReport)>),
    Run(u64, CallKey),
    Send(Vec<u64>, Vec<u8>),
    Welcome(u64),
}

fn durable() -> Durable {
    Durable::of(hello(WINDOW, Order::Unordered))
}

impl Durable {
    /// A server with one session, which is safe.
    fn of(hello: Hello) -> Durable {
        let limits = Limits::default();
        let now = Instant::now();
        let mut table = Table::recover(limits.clone(), [7; 16], Log::new(), now).unwrap();
        let (session, welcome) = table.open(&hello, SECRET, FIRST, Principal::ANYONE, now).unwrap();
        assert_eq!(welcome, None, "it waits until the session is safe");
        let sid = Sid { place: session.to_bits(), secret: SECRET };
        let (connection, attachment) = (FIRST, 0);
        let mut d = Durable { table, limits, session, sid, connection, attachment, now };
        assert_eq!(d.released(), [], "nothing is safe");
        assert_eq!(d.safe(), [Out::Welcome(FIRST)]);
        d
    }

    fn request(&mut self, copy: &Copy, is_transactional: bool) -> Found {
        let header = Header {
            kind: Kind::Request,
            flags: copy.flags,
            seq: copy.seq,
            ack: copy.ack,
            method: MethodId::of(copy.method),
            time_left_ms: copy.time_left_ms,
        };
        let request = Request {
            frame: &Frame { header, body: &copy.body },
            connection: copy.connection.unwrap_or(self.connection),
            digest: self.table.digest(header.method, &copy.body),
            is_idempotent: copy.is_idempotent,
            is_transactional,
            refusal: copy.refusal,
        };
        let found = match self.table.admit(self.session, &request, self.now) {
            Admission::Again(answer) => Found::Again(answer.to_vec()),
            Admission::Close(refusal) => Found::Close(refusal),
            Admission::Refuse(refusal) => Found::Refuse(refusal),
            Admission::Run(call) => Found::Run(call),
            Admission::Wait => Found::Wait,
        };
        self.table.check_invariants();
        found
    }

    /// Sends a call whose handler writes through the table.
    fn send(&mut self, copy: Copy) -> Found {
        self.request(&copy, true)
    }

    /// Sends a call of any other method.
    fn send_plain(&mut self, copy: Copy) -> Found {
        self.request(&copy, false)
    }

    /// Runs a transactional handler that adds one to the value at `key`.
    fn add(&mut self, seq: u64, key: &[u8]) {
        let call = self.send(copy(seq)).run();
        self.table.begin(call);
        let value = self.table.read(key).map_or(0, |value| value[0]) + 1;
        self.table.write(key, Some(&[value]));
        assert_eq!(self.complete(call, &[value]), []);
    }

    fn complete(&mut self, call: CallKey, answer: &[u8]) -> Vec<u64> {
        let delivery = self.table.complete(call, Answer::Copied(answer), self.now);
        self.table.check_invariants();
        delivery.connections().collect()
    }

    fn acknowledge(&mut self, ack: u64) {
        self.table.acknowledge(self.session, ack).unwrap();
        self.table.check_invariants();
    }

    /// What is released as things are.
    fn released(&mut self) -> Vec<Out> {
        let mut released = Vec::new();
        while let Some(next) = self.table.poll_released(self.now).unwrap() {
            self.table.check_invariants();
            released.push(match next {
                Released::Close { connection, refusal } => Out::Close(connection, refusal.code),
                Released::Resumed { connection, session, resumed } => {
                    assert_eq!(session, self.session);
                    let seqs = resumed.floor + 1..=resumed.floor + u64::from(resumed.window);
                    let reports = seqs.map(|seq| (seq, resumed.report(seq)));
                    let occupied = reports.filter(|&(_, report)| report != CellReport::Vacant);
                    Out::Resumed(connection, occupied.collect())
                }
                Released::Run { call, request, .. } => Out::Run(request.frame().header.seq, call),
                Released::Send { delivery, frame } => {
                    Out::Send(delivery.connections().collect(), frame.to_vec())
                }
                Released::Welcome { connection, .. } => Out::Welcome(connection),
            });
        }
        released
    }

    /// All that was committed becomes safe.
    fn safe(&mut self) -> Vec<Out> {
        let mut released = Vec::new();
        while self.unsafe_commits() > 0 {
            self.sync(self.unsafe_commits());
            released.extend(self.released());
        }
        released
    }

    fn unsafe_commits(&self) -> usize {
        self.table.store().unsafe_commits()
    }

    /// The next `count` commits become safe.
    fn sync(&mut self, count: usize) {
        self.table.store_mut().make_safe(count);
    }

    /// What the program has at `key`, as far as it is safe.
    fn read(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.table.store().get_safe(key).map(<[u8]>::to_vec)
    }

    /// The seq and the key of the call that was released to be run.
    #[track_caller]
    fn started(&mut self, seq: u64) -> CallKey {
        let released = self.safe();
        let [Out::Run(ran, call)] = released[..] else { panic!("not started: {released:?}") };
        assert_eq!(ran, seq);
        call
    }

    /// The server crashes; of the commits not yet safe the first `keep` are there. Another one
    /// starts on the disk.
    fn crash(&mut self, keep: usize) {
        let mut log = self.table.store().clone();
        log.crash(keep);
        self.table = Table::recover(self.limits.clone(), [9; 16], log, self.now).unwrap();
        self.table.check_invariants();
    }

    fn message(&self) -> Resume {
        Resume {
            version: 1,
            features: 0,
            sid: self.sid,
            incarnation: 0,
            attachment: self.attachment + 1,
            ack: 0,
            join: false,
            token: None,
        }
    }

    fn resume_with(&mut self, connection: u64, message: &Resume) -> Option<Resumed> {
        let principal = Principal::ANYONE;
        let resumption = self.table.resume(message, connection, principal, self.now).unwrap();
        self.session = resumption.session;
        self.attachment = message.attachment;
        self.connection = connection;
        self.table.check_invariants();
        resumption.resumed
    }

    fn resume(&mut self, connection: u64) -> Option<Resumed> {
        self.resume_with(connection, &self.message())
    }

    /// What is sent after RESUMED.
    fn finished(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.table.append_finished(self.session, &mut out);
        out
    }

    fn facts(&self) -> crate::table::store::RecoveredSession {
        self.table.store().ledger().session(self.sid.secret).unwrap().clone()
    }
}

#[test]
fn row_13_a_handler_starts_when_its_start_is_safe() {
    let mut d = durable();
    assert_eq!(d.send_plain(copy(1).time_left(5_000)), Found::Wait);
    assert_eq!(d.released(), []);
    assert_eq!(d.send_plain(copy(1)), Found::Wait, "a copy waits for it");
    assert_eq!(d.facts().entries.len(), 0);
    d.now += Duration::from_secs(2);
    d.sync(1);
    let Some(Released::Run { call, request, .. }) = d.table.poll_released(d.now).unwrap() else {
        panic!("it starts")
    };
    assert_eq!(request.frame().header.time_left_ms, 3_000, "its time went on");
    assert!(matches!(d.facts().entries[&1], Entry::Started { attempt: 1, .. }));
    assert_eq!(d.complete(call, b"one"), []);
    assert_eq!(d.safe(), [Out::Send(vec![FIRST], b"one".to_vec())]);
    assert_eq!(d.send_plain(copy(1)), Found::Again(b"one".to_vec()));
}

#[test]
fn row_13_a_transactional_handler_starts_at_once() {
    let mut d = durable();
    d.send(copy(1)).run();
    assert_eq!(d.unsafe_commits(), 0, "it has no START");
}

#[test]
fn row_13_a_call_that_waits_for_its_start_runs_after_a_resume_and_a_cancel() {
    let mut d = durable();
    d.send_plain(copy(1));
    let Cancelled::Running(call) = d.table.cancel(d.session, 1) else { panic!("it is pending") };
    let resumed = d.resume(SECOND).expect("no record is new");
    assert_eq!(resumed.report(1), CellReport::Running);
    assert_eq!(d.started(1), call);
    assert!(!d.table.is_awaited(call));
    d.complete(call, b"one");
    assert_eq!(d.safe(), [Out::Send(vec![SECOND], b"one".to_vec())]);
}

#[test]
fn row_15_no_reply_leaves_before_its_commit_is_safe() {
    let mut d = durable();
    d.add(1, b"sum");
    assert_eq!(d.released(), []);
    assert_eq!(d.send(copy(1)), Found::Wait, "committing: a copy waits");
    assert_eq!(d.table.peek(d.session, 1), Some(CellReport::Running));
    assert_eq!((d.finished(), d.read(b"sum")), (vec![], None));
    assert_eq!(d.safe(), [Out::Send(vec![FIRST], vec![1])]);
    assert_eq!(d.send(copy(1)), Found::Again(vec![1]));
    assert_eq!(d.read(b"sum"), Some(vec![1]));
}

#[test]
fn row_15_effects_and_answer_survive_a_crash_together_or_not_at_all() {
    for keep in [0, 1] {
        let mut d = durable();
        d.add(1, b"sum");
        d.crash(keep);
        let resumed = d.resume(SECOND).unwrap();
        if keep == 1 {
            assert_eq!(resumed.report(1), CellReport::Finished);
            assert_eq!((d.finished(), d.read(b"sum")), (vec![1], Some(vec![1])));
            assert_eq!(d.send(copy(1)), Found::Again(vec![1]));
        } else {
            assert_eq!(resumed.report(1), CellReport::Vacant);
            d.add(1, b"sum");
            assert_eq!(d.safe(), [Out::Send(vec![SECOND], vec![1])]);
        }
        assert_eq!(d.read(b"sum"), Some(vec![1]), "once");
    }
}

#[test]
fn row_15_of_a_reply_too_large_to_keep_the_fact_survives() {
    let mut d = durable();
    let large = vec![7; d.limits.kept_reply_bytes_per_session_max + 1];
    let call = d.send(copy(1)).run();
    d.complete(call, &large);
    assert_eq!(d.safe(), [Out::Send(vec![FIRST], large)], "it is sent once");
    assert_eq!(d.send(copy(1)).code(), Code::NotRetained);
    d.crash(0);
    assert_eq!(d.resume(SECOND).unwrap().report(1), CellReport::Finished);
    assert_eq!(errors(&d.finished()), [(1, Code::NotRetained)]);
}

#[test]
fn row_15_replies_leave_in_the_order_of_their_commits() {
    let mut d = durable();
    for seq in 1..=3 {
        d.add(seq, b"sum");
    }
    d.sync(2);
    let sent = d.released();
    assert_eq!(sent, [1, 2].map(|sum| Out::Send(vec![FIRST], vec![sum])));
    assert_eq!(d.safe(), [Out::Send(vec![FIRST], vec![3])]);
}

#[test]
fn row_15_an_answer_that_saw_what_is_not_safe_waits_for_it() {
    let mut d = durable();
    let read = d.send(copy(9).unprotected()).run();
    assert_eq!(d.complete(read, b"before"), [FIRST], "all is safe");
    d.add(1, b"sum");
    let read = d.send(copy(9).unprotected()).run();
    assert_eq!(d.table.read(b"sum"), Some(vec![1]), "a handler sees the last commit");
    assert_eq!(d.complete(read, b"after"), []);
    assert_eq!(d.released(), []);
    let sent = [Out::Send(vec![FIRST], vec![1]), Out::Send(vec![FIRST], b"after".to_vec())];
    assert_eq!(d.safe(), sent);
}

#[test]
fn row_15_an_unprotected_handler_commits_what_it_writes() {
    let mut d = durable();
    let call = d.send(copy(9).unprotected()).run();
    d.table.begin(call);
    d.table.write(b"sum", Some(b"x"));
    assert_eq!(d.complete(call, b"out"), []);
    assert_eq!(d.safe(), [Out::Send(vec![FIRST], b"out".to_vec())]);
    assert_eq!((d.read(b"sum"), d.facts().entries.len()), (Some(b"x".to_vec()), 0));
}

/// Nothing else bounds them: an unprotected call takes no cell, and what is too large to keep is not
/// counted among what is kept.
#[test]
fn row_15_what_waits_for_a_slow_store_is_bounded() {
    for is_protected in [false, true] {
        let mut d = Durable::of(hello(1_024, Order::Unordered));
        d.table.limits.kept_reply_bytes_max = 1024 * 1024;
        d.table.limits.kept_reply_bytes_per_session_max = 64 * 1024;
        d.add(1, b"sum");
        let large = vec![7; 100_000];
        let refusal = (2..1_000).find_map(|seq| {
            let copy = if is_protected { copy(seq) } else { copy(9).unprotected() };
            match d.send(copy) {
                Found::Run(call) => assert_eq!(d.complete(call, &large), []),
                found => return Some((seq, found.refused())),
            }
            None
        });
        let (seq, refusal) = refusal.expect("some are refused");
        assert_eq!(refusal.code, Code::Busy);
        assert!(seq > 2 && d.table.waiting() < 16, "{seq}: {}", d.table.waiting());
        // The store goes on, and so do the calls.
        d.safe();
        d.send(copy(1_000).ack(1)).run();
    }
}

#[test]
fn row_21_durable_sessions_whose_end_is_not_safe_are_bounded() {
    let mut d = durable();
    d.table.limits.sessions_max = 4;
    let opened = (10..100).find_map(|secret| {
        let hello = hello(0, Order::Unordered);
        match d.table.open(&hello, secret, 7, Principal::ANYONE, d.now) {
            Ok((session, _)) => d.table.close(session, d.now),
            Err(refusal) => return Some((secret, refusal.code)),
        };
        None
    });
    assert_eq!(opened, Some((14, Code::Busy)));
    d.table.check_invariants();
    d.safe();
    d.table.open(&hello(0, Order::Unordered), 5, 7, Principal::ANYONE, d.now).unwrap();
}

#[test]
fn row_15_a_transaction_is_not_committed_by_another_call() {
    let mut d = durable();
    let other = {
        d.send_plain(copy(1));
        d.started(1)
    };
    let call = d.send(copy(2)).run();
    d.table.begin(call);
    d.table.write(b"half", Some(b"x"));
    d.complete(other, b"one");
    assert_eq!(d.safe(), [Out::Send(vec![FIRST], b"one".to_vec())]);
    assert_eq!(d.read(b"half"), None);
    d.table.write(b"whole", Some(b"y"));
    d.complete(call, b"two");
    d.safe();
    assert!(d.read(b"half").is_some() && d.read(b"whole").is_some());
}

#[test]
fn row_15_in_order_the_next_call_runs_before_the_last_one_is_safe() {
    let mut d = Durable::of(hello(WINDOW, Order::InOrder));
    let first = d.send(copy(1)).run();
    assert_eq!(d.send(copy(2)), Found::Wait);
    let delivery = d.table.complete(first, Answer::Copied(b"one"), d.now);
    assert_eq!(delivery.unblocks, Some(d.session));
    assert!(d.table.next_held(d.session, d.now).is_some());
}

#[test]
fn row_12_arguments_that_do_not_fit_leave_no_start() {
    let mut d = durable();
    d.send_plain(copy(1));
    let call = d.started(1);
    let refusal = Refusal::new(Code::BadArguments, "no");
    assert_eq!(d.table.withdraw(call, &refusal, d.now), Delivery::NOBODY);
    let released = d.safe();
    assert!(matches!(&released[..], [Out::Send(to, _)] if to[..] == [FIRST]), "{released:?}");
    assert_eq!(d.facts().entries.len(), 0);
}

#[test]
fn row_18_an_abandoned_handler_ends_with_a_floor_that_covers_it() {
    for is_transactional in [true, false] {
        let mut d = durable();
        let call = match d.request(&copy(1), is_transactional) {
            Found::Run(call) => call,
            _ => d.started(1),
        };
        d.acknowledge(1);
        d.table.begin(call);
        d.table.write(b"sum", Some(b"x"));
        assert_eq!(d.complete(call, b"late"), []);
        assert_eq!(d.unsafe_commits(), 1, "in one commit");
        assert_eq!(d.safe(), [], "the reply is dropped");
        assert_eq!((d.facts().floor, d.facts().entries.len()), (1, 0));
        d.crash(0);
        d.resume(SECOND);
        assert_eq!(d.send(copy(1)).code(), Code::Stale, "it does not run again");
        assert_eq!(d.read(b"sum"), Some(b"x".to_vec()), "its effects stand");
    }
}

#[test]
fn row_18_an_answer_acknowledged_before_it_is_safe_is_dropped() {
    let mut d = durable();
    d.add(1, b"sum");
    d.acknowledge(1);
    assert_eq!((d.table.kept(), d.safe()), ((0, 0), vec![]));
    assert_eq!(d.read(b"sum"), Some(vec![1]));
}

#[test]
fn row_19b_a_raised_incarnation_is_safe_before_resumed_leaves() {
    let mut d = durable();
    d.add(1, b"sum");
    let message = Resume { incarnation: 1, ..d.message() };
    assert_eq!(d.resume_with(SECOND, &message), None);
    assert_eq!(d.released(), []);
    // An answer that becomes safe before goes into RESUMED, not in front of it.
    let finished = vec![(1, CellReport::Finished)];
    d.sync(1);
    assert_eq!(d.released(), [Out::Send(vec![], vec![1])], "nobody was told yet");
    assert_eq!(d.safe(), [Out::Resumed(SECOND, finished)]);
    assert_eq!(d.finished(), [1]);
    d.crash(0);
    let old = Resume { attachment: 9, ..d.message() };
    let found = d.table.resume(&old, 5, Principal::ANYONE, d.now);
    assert_eq!(found.unwrap_err().code, Code::Fenced, "the old incarnation, for ever");
}

#[test]
fn row_19b_an_incarnation_that_was_not_safe_was_not_told() {
    let mut d = durable();
    let message = Resume { incarnation: 1, ..d.message() };
    d.resume_with(SECOND, &message);
    d.crash(0);
    assert!(d.resume(3).is_some(), "the old one is the newest there is");
    let mut d = durable();
    d.resume_with(SECOND, &Resume { incarnation: 1, ..d.message() });
    d.table.detach(d.session, SECOND, d.now);
    d.table.check_invariants();
    assert_eq!(d.safe(), [], "who is gone is not told");
}

#[test]
fn row_19b_a_client_that_comes_back_twice_before_it_is_told_is_told_once() {
    let mut d = durable();
    d.resume_with(SECOND, &Resume { incarnation: 1, ..d.message() });
    assert_eq!(d.resume_with(3, &Resume { incarnation: 1, ..d.message() }), None);
    assert_eq!(d.safe(), [Out::Resumed(3, vec![])]);
    // Nor is one told beside whom the session has ended.
    d.resume_with(4, &Resume { incarnation: 2, ..d.message() });
    d.resume_with(5, &Resume { incarnation: 2, join: true, ..d.message() });
    d.table.close(d.session, d.now);
    d.table.check_invariants();
    assert_eq!(d.safe(), []);
}
