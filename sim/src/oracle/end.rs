//! What must hold when all is over.

use super::{Call, Ending, Kind, Oracle, Outcome, Semantics, Space};
use crate::Work;
use crate::data::{self, ACCOUNTS, DEPOSIT, Key, PURSE};
use crate::service::Operation;

impl Oracle {
    /// Checks every call and every ledger, once nothing runs any more.
    pub(crate) fn finish(&mut self) {
        for id in 0..u32::try_from(self.calls.len()).expect("a few hundred calls") {
            if let Some((kind, why)) = self.judge_end(id) {
                self.fail(
                    kind,
                    format!("{why}: it took effect {} times: {}", self.effects(id), self.tell(id)),
                );
            }
        }
        for server in 0..self.ledgers.len() {
            for space in [Space::Memory, Space::Store] {
                self.check_ledger(server, space);
                self.check_histories(server, space);
            }
        }
    }

    fn judge_end(&self, id: u32) -> Option<(Kind, &'static str)> {
        let call = &self.calls[id as usize];
        let effects = self.effects(id);
        if call.runs_once() && effects > 1 {
            return Some((Kind::DoubleExecution, "I1: took effect more than once"));
        }
        if call.draft.ending == Ending::Refused && call.runs > 0 {
            return Some((Kind::WrongReply, "I9: it ran, and could not"));
        }
        match call.outcome {
            Some(Outcome::NotExecuted(_)) if effects > 0 => {
                Some((Kind::WrongReply, "I9: not executed, and it has run"))
            }
            Some(Outcome::Executed(_)) if call.draft.ending == Ending::RolledBack => {
                (effects > 0).then_some((Kind::WrongReply, "rolled back, and it took effect"))
            }
            Some(Outcome::Receipt(_) | Outcome::Executed(_)) if effects == 0 => {
                Some((Kind::Lost, "the caller was told that it ran"))
            }
            None if call.draft.semantics != Semantics::Notify && self.open.contains(&id) => {
                Some((Kind::Unresolved, "nobody was told"))
            }
            _ => None,
        }
    }

    /// A ledger is the sum of what took effect.
    fn check_ledger(&mut self, server: usize, space: Space) {
        let Some(mut ledger) = self.ledgers.snapshot(server, space) else { return };
        let sum = data::sum(&mut ledger);
        if sum != u64::from(ACCOUNTS) * DEPOSIT {
            self.fail(Kind::WrongReply, format!("the accounts of server {server} hold {sum}"));
        }
        let there = |call: &&Call| call.server == server && call.draft.space == space;
        let (mut count, mut bytes) = (0, 0);
        let mut debits = std::collections::BTreeMap::<u32, u64>::new();
        for (id, call) in (0..).zip(&self.calls).filter(|(_, call)| there(call)) {
            let effects = data::number(&mut ledger, Key::Runs(id), 0);
            match call.draft.operation {
                Operation::Add(amount) => count += amount * effects,
                Operation::Debit(purse, amount) => {
                    *debits.entry(purse).or_default() += amount * effects;
                }
                Operation::Parcel(parcel, _) => bytes += u64::from(parcel.bytes) * effects,
                _ => {}
            }
        }
        let counter = data::number(&mut ledger, Key::Counter, 0);
        if counter != count {
            let what =
                format!("the counter of server {server} is {counter}, and {count} was added");
            self.fail(Kind::Lost, what);
        }
        let parcels = data::number(&mut ledger, Key::Parcels, 0);
        if parcels != bytes {
            let what = format!("parcels of {parcels} bytes came, and {bytes} were sent");
            self.fail(Kind::Lost, what);
        }
        for (purse, debits) in debits {
            let left = data::number(&mut ledger, Key::Purse(purse), PURSE);
            if left != PURSE - debits {
                let what = format!("purse {purse} holds {left}, and {debits} was taken");
                self.fail(Kind::Lost, what);
            }
        }
    }

    /// Counts what became of the calls.
    pub(crate) fn count(&self, work: &mut Work) {
        work.undecided += self.undecided;
        work.recovered += self.recovered;
        for call in self.calls.iter().filter(|call| call.draft.semantics != Semantics::Notify) {
            *match call.outcome {
                Some(Outcome::Executed(_)) => &mut work.failed,
                Some(Outcome::Indeterminate(_)) => &mut work.indeterminate,
                Some(Outcome::NotExecuted(_)) => &mut work.not_executed,
                Some(Outcome::Receipt(_)) => &mut work.answered,
                None => &mut work.orphaned,
            } += 1;
            self.count_bodies(call, work);
            work.blind_doubles += u64::from(!call.is_protected() && call.runs > 1);
        }
    }
}
