//! Is a history of operations on one object linearizable?
//!
//! It is if the operations can be put in one order, each at some moment between its call and its
//! return, in which every output is what the object would have answered. The search is that of Wing
//! and Gong (*Testing and Verifying Concurrent Objects*, 1993) with the memory of Lowe (*Testing for
//! Linearizability*, 2017), as the checker porcupine has it: which operations are placed, and the
//! state they lead to, is looked at once.
//!
//! An operation without a return may take effect at any time after its call, or never.

use std::collections::HashSet;
use std::hash::Hash;

/// An object that runs one operation at a time.
pub trait Model {
    /// What may be asked of it.
    type Operation;
    /// What it answers.
    type Output;
    /// What it remembers.
    type State: Clone + Eq + Hash;

    /// Returns the state before the first operation.
    fn initial(&self) -> Self::State;

    /// Returns the state after an operation; `None` if it would not have answered `output`. An
    /// output of `None` is one that nobody saw: any will do.
    fn apply(
        &self,
        state: &Self::State,
        operation: &Self::Operation,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;
}

/// An operation as its caller saw it. Times are of one clock for the whole history, and no two are
/// equal.
#[derive(Clone, Debug)]
pub struct Entry<Operation, Output> {
    /// When it was called.
    pub called: u64,
    /// When it returned; `None` if nobody knows whether it took effect.
    pub returned: Option<u64>,
    /// What was asked.
    pub operation: Operation,
    /// What was answered; `None` if that is not known.
    pub output: Option<Output>,
}

/// What the checker found. Exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none.
    NotLinearizable,
    /// The search was given up.
    Undecided,
}

/// Which operations are placed: a bit each.
type Placed = Box<[u64]>;

/// Looks for an order, in at most `looks_max` combinations of placed operations and state.
pub fn check<M: Model>(
    model: &M,
    history: &[Entry<M::Operation, M::Output>],
    looks_max: usize,
) -> Verdict {
    // What returned early is tried first: it is the most likely to be next.
    let mut order: Vec<usize> = (0..history.len()).collect();
    order
        .sort_by_key(|&place| (history[place].returned.unwrap_or(u64::MAX), history[place].called));
    let entries: Vec<_> = order.iter().map(|&place| &history[place]).collect();

    let nothing: Placed = vec![0; entries.len().div_ceil(64)].into();
    let mut seen = HashSet::from([(nothing.clone(), model.initial())]);
    let mut open = vec![(nothing, model.initial())];
    while let Some((placed, state)) = open.pop() {
        // Nothing can come after the first return of what is not placed.
        let first_return = entries
            .iter()
            .enumerate()
            .filter(|&(place, _)| !is_placed(&placed, place))
            .filter_map(|(_, entry)| entry.returned)
            .min();
        let Some(first_return) = first_return else { return Verdict::Linearizable };
        // From the back: what is pushed last is looked at first.
        for (place, entry) in entries.iter().enumerate().rev() {
            if is_placed(&placed, place) || entry.called > first_return {
                continue;
            }
            let next = model.apply(&state, &entry.operation, entry.output.as_ref());
            let Some(next) = next else { continue };
            let mut placed = placed.clone();
            placed[place / 64] |= 1 << (place % 64);
            if seen.insert((placed.clone(), next.clone())) {
                open.push((placed, next));
            }
        }
        if seen.len() > looks_max {
            return Verdict::Undecided;
        }
    }
    Verdict::NotLinearizable
}

fn is_placed(placed: &Placed, place: usize) -> bool {
    placed[place / 64] >> (place % 64) & 1 == 1
}

#[cfg(test)]
mod tests;
