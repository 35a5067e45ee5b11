//! The histories of the lists, each by itself.

use std::collections::BTreeMap;

use super::{Call, Ending, Kind, Oracle, Outcome, Semantics, Space};
use crate::linearizability::{Entry, Model, Verdict, check};
use crate::service::{Operation, Value};

/// How long an order is looked for. Few histories take a hundredth of it.
const LOOKS_MAX: usize = 50_000;

/// A list of numbers.
struct List;

impl Model for List {
    type Operation = Operation;
    type Output = Value;
    type State = Vec<u32>;

    fn initial(&self) -> Vec<u32> {
        Vec::new()
    }

    fn apply(
        &self,
        state: &Vec<u32>,
        operation: &Operation,
        output: Option<&Value>,
    ) -> Option<Vec<u32>> {
        let mut next = state.clone();
        let answer = match operation {
            Operation::Append(_, number) => {
                next.push(*number);
                Value::Done
            }
            Operation::Put(_, number) => {
                next = vec![*number];
                Value::Done
            }
            _ => Value::List(next.clone()),
        };
        output.is_none_or(|output| *output == answer).then_some(next)
    }
}

impl Oracle {
    pub(super) fn check_histories(&mut self, server: usize, space: Space) {
        let mut histories = BTreeMap::<u32, Vec<Entry<Operation, Value>>>::new();
        for call in &self.calls {
            let (Operation::Append(key, _) | Operation::Get(key) | Operation::Put(key, _)) =
                call.draft.operation
            else {
                continue;
            };
            if call.server == server
                && call.draft.space == space
                && let Some(entry) = entry(call)
            {
                histories.entry(key).or_default().push(entry);
            }
        }
        for (key, history) in histories {
            match check(&List, &history, LOOKS_MAX) {
                Verdict::Linearizable => {}
                Verdict::NotLinearizable => {
                    let what =
                        format!("list {key} of server {server}: not linearizable: {history:?}");
                    self.fail(Kind::WrongReply, what);
                }
                Verdict::Undecided => self.undecided += 1,
            }
        }
    }
}

/// Returns what a history says of a call; nothing if it is proved to have had no effect, or to have
/// seen none.
fn entry(call: &Call) -> Option<Entry<Operation, Value>> {
    let (returned, output) = match &call.outcome {
        Some(Outcome::Receipt(receipt)) => (call.returned, Some(receipt.value.clone())),
        Some(Outcome::Executed(_)) if call.draft.ending == Ending::RolledBack => return None,
        Some(Outcome::Executed(_)) => (call.returned, None),
        Some(Outcome::NotExecuted(_)) => return None,
        Some(Outcome::Indeterminate(_)) | None => (None, None),
    };
    let is_unseen_read = output.is_none() && call.draft.operation.is_read();
    let is_blind =
        call.draft.semantics == Semantics::AtLeastOnce && !call.draft.operation.is_read();
    // What runs as often as it likes may run after its caller was answered, too.
    debug_assert!(!is_blind, "lists are changed by protected calls");
    let operation = call.draft.operation.clone();
    (!is_unseen_read).then_some(Entry { called: call.called, returned, operation, output })
}
