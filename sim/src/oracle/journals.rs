//! Clients that are killed and come back under the same name.

use std::collections::BTreeSet;

use super::{Kind, Oracle, Outcome, Process, Semantics};

impl Oracle {
    /// A client comes back, with a journal in which these calls were safe and not finished. It hears
    /// of them again; of the others that waited none was sent.
    pub(crate) fn recovers(&mut self, client: Process, link: usize, ids: &BTreeSet<u32>) {
        self.note(client.host, format_args!("finds calls in its journal: {ids:?}"));
        for id in 0..u32::try_from(self.calls.len()).expect("a few hundred calls") {
            let call = &mut self.calls[id as usize];
            let is_its = call.client.host == client.host && call.link == link;
            let is_protected = call.is_protected() && call.draft.semantics != Semantics::Notify;
            if ids.contains(&id) {
                self.recovered += 1;
                call.client = client;
                self.open.insert(id);
            } else if is_its && is_protected && call.outcome.is_none() && !call.is_cancelled {
                // C1: what was not safe had not left.
                call.outcome = Some(Outcome::NotExecuted(None));
                if self.effects(id) > 0 {
                    let what = format!("C1: it ran and was not in the journal: {}", self.tell(id));
                    self.fail(Kind::WrongReply, what);
                }
            }
        }
    }

    /// Returns what is to be remembered of a call that ends again: an answer that an earlier process
    /// had, and did not come to finish with, is told to the next one, too.
    pub(super) fn reconcile(&mut self, id: u32, now: Outcome) -> Option<Outcome> {
        let Some(before) = self.calls[id as usize].outcome.take() else { return Some(now) };
        let is_wrong = match (&before, &now) {
            (Outcome::NotExecuted(_), _) => true,
            (Outcome::Executed(_) | Outcome::Receipt(_), Outcome::NotExecuted(_)) => true,
            (Outcome::Receipt(before), Outcome::Receipt(now)) => before != now,
            _ => false,
        };
        if is_wrong {
            let what = format!("first {before:?}, then {now:?}: {}", self.tell(id));
            self.fail(Kind::WrongReply, what);
        }
        // What was certain stays so.
        match before {
            Outcome::Indeterminate(_) => Some(now),
            before => {
                self.calls[id as usize].outcome = Some(before);
                None
            }
        }
    }
}
