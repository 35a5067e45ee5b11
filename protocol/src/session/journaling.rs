//! The session's side of its journal: what waits for what to be safe.
//!
//! A call is numbered, written and safe before it is sent (C1). A call that has ended is written as
//! ended when the program has had its answer; only when *that* is safe does the floor pass it (C2).
//!
//! `NotExecuted` waits, too: a program that is told so may make another call in its place, and a
//! later incarnation that found the first unfinished would send it. So it is told when the end of the
//! call is safe, and where that cannot be had any more the answer is `Indeterminate`.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use super::acks::Ring;
use super::calls::{CallKey, Stage};
use super::journal::{Journal, JournalError, Record, RecoveredCall};
use super::link::{Identity, Link};
use super::{Answer, CallSpec, Ended, Session};
use crate::error::{Class, Code, Fault};
use crate::frame::MethodId;
use crate::table::store::Lsn;

/// A journal, and what waits for it.
///
/// What waits is named by the commit that it is in, counted from 1; the first that is open then.
pub(super) struct Journaling<T> {
    journal: Box<dyn Journal>,
    /// The commit that is open.
    open: u64,
    /// Whether something waits for it.
    is_dirty: bool,
    /// Commits that are not safe, and their positions.
    commits: VecDeque<(u64, Lsn)>,
    /// All commits up to this one are safe.
    safe: u64,
    failure: Option<String>,
    /// The commit of this incarnation: nothing is resumed before it is safe.
    incarnation_in: u64,
    /// Calls to be sent when they are safe.
    calls: VecDeque<(u64, CallKey)>,
    /// Seqs that the floor may pass when their end is safe, and whether they are burnt.
    ended: VecDeque<(u64, u64, bool)>,
    /// Calls that were not executed, to be told when their end is safe.
    proofs: VecDeque<(u64, T, Fault)>,
    /// Seqs whose answers were handed out, and whether they are burnt; the program may not have
    /// returned from them.
    handed: Vec<(u64, bool)>,
}

impl<T> Journaling<T> {
    fn append(&mut self, record: &Record<'_>) {
        self.journal.append(record);
        self.is_dirty = true;
    }

    fn end(&mut self, seq: u64, burnt: bool) {
        self.append(&Record::Ended { seq });
        self.ended.push_back((self.open, seq, burnt));
    }

    fn commit(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_dirty) {
            let lsn = self.journal.commit(now);
            self.commits.push_back((self.open, lsn));
            self.open += 1;
        }
    }

    fn poll(&mut self, now: Instant) -> Result<(), JournalError> {
        let safe = self.journal.poll_safe(now)?;
        while let Some(&(commit, lsn)) = self.commits.front()
            && lsn <= safe
        {
            self.safe = commit;
            self.commits.pop_front();
        }
        Ok(())
    }

    /// Returns whether the session may say who it is.
    pub(super) fn may_connect(&self) -> bool {
        self.incarnation_in <= self.safe
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    pub(super) fn wants_commit(&self) -> bool {
        self.is_dirty && !self.has_failed()
    }

    /// Returns whether a call has become safe that is to be sent.
    pub(super) fn has_calls(&self) -> bool {
        self.calls.front().is_some_and(|(commit, _)| *commit <= self.safe)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waits = !self.commits.is_empty() && !self.has_failed();
        waits.then(|| self.journal.next_deadline()).flatten()
    }
}

impl<T> fmt::Debug for Journaling<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journaling")
            .field("open", &self.open)
            .field("safe", &self.safe)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl<T> Session<T> {
    /// Gives a new session its journal, and takes up what an earlier incarnation left in it.
    ///
    /// `attach` says what is attached to each call that was not finished. Such a call has no deadline
    /// and no bound of attempts: its time was another process's.
    ///
    /// # Errors
    /// The journal is in use, or cannot be read.
    pub fn with_journal(
        mut self,
        mut journal: Box<dyn Journal>,
        mut attach: impl FnMut(RecoveredCall) -> T,
        now: Instant,
    ) -> Result<Session<T>, JournalError> {
        let recovered = journal.recover()?;
        if !recovered.is_sound(self.limits.window_max) {
            let why = "what is in it is not of one session of these limits".to_owned();
            return Err(JournalError::Failed(why));
        }
        let mut journaling = Journaling {
            journal,
            open: 1,
            is_dirty: false,
            commits: VecDeque::new(),
            safe: 0,
            failure: None,
            incarnation_in: 0,
            calls: VecDeque::new(),
            ended: VecDeque::new(),
            proofs: VecDeque::new(),
            handed: Vec::new(),
        };
        if let Some(opened) = recovered.session() {
            let incarnation = recovered.incarnation().saturating_add(1);
            journaling.append(&Record::Incarnation(incarnation));
            journaling.incarnation_in = journaling.open;
            self.identity = Some(Identity::recovered(opened.sid, incarnation));
            self.take_lease(opened.lease_ms);
            let last_seq = recovered.last_seq();
            let calls: Vec<_> = recovered
                .into_calls()
                .into_iter()
                .map(|(seq, kept)| {
                    let attached = attach(RecoveredCall::of(&kept));
                    let spec = CallSpec {
                        semantics: kept.semantics,
                        tag: kept.tag,
                        ..CallSpec::new(MethodId(0)) // which its frame names
                    };
                    let (key, call) = self.calls.insert(&spec, kept.request);
                    call.attached = Some(attached);
                    call.seq = seq;
                    // It may have been sent, or not.
                    call.copies = 1;
                    call.transmissions = 1;
                    call.sent_at = Some(now);
                    call.has_record = true;
                    call.stage = Stage::Lost;
                    (seq, key.index)
                })
                .collect();
            self.ring = Ring::recovered(opened.window, last_seq, &calls);
        }
        self.journaling = Some(Box::new(journaling));
        self.drive_journal(now);
        Ok(self)
    }

    /// Returns whether the session has a journal.
    #[inline]
    pub fn is_journaled(&self) -> bool {
        self.journaling.is_some()
    }

    /// Commits what was written, and does what waited for it to be safe. To be called when there is
    /// a journal, once a turn and at [`Session::next_deadline`].
    pub fn drive_journal(&mut self, now: Instant) {
        let Some(journaling) = &mut self.journaling else { return };
        if journaling.has_failed() {
            return;
        }
        journaling.commit(now);
        match journaling.poll(now) {
            Ok(()) => self.release(),
            Err(error) => self.fail_journal(&error),
        }
    }

    /// Notes that the program has had every answer that was given out so far, and will not need them
    /// again: only then is their consumption written. Without a journal, this does nothing.
    pub fn on_consumed(&mut self) {
        let Some(journaling) = &mut self.journaling else { return };
        let handed = std::mem::take(&mut journaling.handed);
        if journaling.has_failed() {
            return;
        }
        for &(seq, burnt) in &handed {
            journaling.end(seq, burnt);
        }
        journaling.handed = handed;
        journaling.handed.clear();
    }

    /// Writes a session that the server has opened.
    pub(super) fn record_session(&mut self, opened: super::journal::Opened) {
        if let Some(journaling) = &mut self.journaling {
            journaling.append(&Record::Session(opened));
        }
    }

    /// Writes that the session is given up. What was to be written of its calls is of no use.
    pub(super) fn record_loss(&mut self) {
        let Some(journaling) = &mut self.journaling else { return };
        journaling.append(&Record::Lost);
        journaling.calls.clear();
        journaling.ended.clear();
        journaling.handed.clear();
        journaling.incarnation_in = 0;
        for ended in &mut self.ended {
            ended.seq = 0;
        }
    }

    /// Writes a call that was just numbered, to be sent when that is safe.
    pub(super) fn record_call(&mut self, key: CallKey) {
        let Some(journaling) = &mut self.journaling else { return };
        let call = self.calls.at_mut(key.index);
        journaling.append(&Record::Call {
            seq: call.seq,
            semantics: call.semantics,
            tag: call.tag,
            request: call.request.as_slice().into(),
        });
        call.has_record = true;
        call.stage = Stage::Journaling;
        journaling.calls.push_back((journaling.open, key));
    }

    /// Returns the next call whose record is safe.
    pub(super) fn next_safe_call(&mut self) -> Option<CallKey> {
        let journaling = self.journaling.as_mut()?;
        while journaling.has_calls() {
            let (_, key) = journaling.calls.pop_front()?;
            if self.calls.get(key).is_some_and(|call| call.stage == Stage::Journaling) {
                return Some(key);
            }
        }
        None
    }

    /// Notes that the answer of a call with this seq is being handed out.
    pub(super) fn note_handed(&mut self, seq: u64, burnt: bool) {
        if let Some(journaling) = &mut self.journaling
            && seq != 0
        {
            journaling.handed.push((seq, burnt));
        }
    }

    /// Ends a call that is in the journal.
    pub(super) fn end_recorded(&mut self, index: u32, answer: Answer<'static>) {
        let seq = self.calls.at(index).seq;
        let Some(attached) = self.finish(index, true) else { return };
        let is_closed = matches!(self.link, Link::Closed);
        let journaling = self.journaling.as_mut();
        match (answer, journaling.filter(|journaling| !is_closed && !journaling.has_failed())) {
            (Answer::NotExecuted(fault), Some(journaling)) => {
                if seq != 0 {
                    journaling.end(seq, true);
                }
                // Also if there is nothing to write: that its session is lost has to be safe.
                journaling.is_dirty = true;
                journaling.proofs.push_back((journaling.open, attached, fault));
            }
            (Answer::NotExecuted(fault), None) => {
                let answer = Answer::Indeterminate(unproved(fault));
                self.ended.push_back(Ended { attached, answer, seq });
            }
            (answer, _) => self.ended.push_back(Ended { attached, answer, seq }),
        }
    }

    /// Writes that a session which was closed is over. Nothing more can be proved of its calls.
    pub(super) fn close_journal(&mut self) {
        self.record_loss();
        self.give_up_proofs();
    }

    /// Does what waited for the commits that are safe now.
    fn release(&mut self) {
        let Some(journaling) = &mut self.journaling else { return };
        while let Some(&(commit, seq, burnt)) = journaling.ended.front()
            && commit <= journaling.safe
        {
            journaling.ended.pop_front();
            if self.ring.end(seq, burnt) {
                self.acks.hurry();
            }
        }
        while let Some((commit, ..)) = journaling.proofs.front()
            && *commit <= journaling.safe
            && let Some((_, attached, fault)) = journaling.proofs.pop_front()
        {
            self.ended.push_back(Ended { attached, answer: Answer::NotExecuted(fault), seq: 0 });
        }
    }

    /// Goes on without the journal as far as may be: calls that are safe in it are still answered,
    /// but nothing new is taken and nothing acknowledged.
    fn fail_journal(&mut self, error: &JournalError) {
        let Some(journaling) = &mut self.journaling else { return };
        journaling.failure = Some(error.to_string());
        journaling.calls.clear();
        let can_resume = journaling.may_connect();
        self.give_up_proofs();
        for index in self.calls.indices() {
            let call = self.calls.at(index);
            let fault = Fault::new(Code::Cancelled, error.to_string());
            let is_unsafe = matches!(call.stage, Stage::Journaling | Stage::Queued);
            if call.has_record && (is_unsafe || !can_resume) {
                // It may be found in the journal after all, and sent.
                self.end(index, Answer::Indeterminate(fault));
            } else if call.stage == Stage::Queued {
                self.end(index, Answer::NotExecuted(fault));
            }
        }
    }

    fn give_up_proofs(&mut self) {
        let Some(journaling) = &mut self.journaling else { return };
        for (_, attached, fault) in journaling.proofs.drain(..) {
            let answer = Answer::Indeterminate(unproved(fault));
            self.ended.push_back(Ended { attached, answer, seq: 0 });
        }
    }

    /// Says why no call is taken any more, if the journal has failed.
    pub(super) fn journal_fault(&self) -> Option<Fault> {
        let failure = self.journaling.as_ref()?.failure.as_ref()?;
        Some(Fault::new(Code::Cancelled, failure.clone()))
    }
}

/// What is left of a proof that could not be made to last.
fn unproved(mut fault: Fault) -> Fault {
    fault.class = Class::Unknown;
    fault.message.push_str("; but an end that is not in the journal does not outlive a crash");
    fault
}
