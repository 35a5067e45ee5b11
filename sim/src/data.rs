//! The ledger, over any place that keeps bytes by key: the program's memory, or a store.

use std::collections::BTreeMap;

use crate::service::{Operation, Value};

/// Accounts between which money is moved.
pub(crate) const ACCOUNTS: u32 = 6;
/// What each account holds at first.
pub(crate) const DEPOSIT: u64 = 1_000;
/// What a purse holds at first.
pub(crate) const PURSE: u64 = 10_000;

/// A thing of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Account(u32),
    Counter,
    List(u32),
    /// Bytes of all parcels.
    Parcels,
    Purse(u32),
    /// How often a call took effect, written with the effect.
    Runs(u32),
}

impl Key {
    /// Returns the key as a store has it.
    pub(crate) fn bytes(self) -> [u8; 5] {
        let (kind, number) = match self {
            Key::Account(number) => (b'a', number),
            Key::Counter => (b'c', 0),
            Key::List(number) => (b'l', number),
            Key::Parcels => (b'b', 0),
            Key::Purse(number) => (b'p', number),
            Key::Runs(number) => (b'r', number),
        };
        let [a, b, c, d] = number.to_be_bytes();
        [kind, a, b, c, d]
    }
}

/// A place that keeps bytes by key.
pub(crate) trait Data {
    fn read(&mut self, key: Key) -> Option<Vec<u8>>;
    fn write(&mut self, key: Key, value: Vec<u8>);
}

/// The program's own memory, or a database somewhere else that never fails: what is written is safe
/// at once, whatever becomes of the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(BTreeMap<[u8; 5], Vec<u8>>);

impl<'a> FromIterator<(&'a [u8], &'a [u8])> for Memory {
    fn from_iter<T: IntoIterator<Item = (&'a [u8], &'a [u8])>>(entries: T) -> Memory {
        let entries = entries.into_iter().map(|(key, value)| {
            (key.try_into().expect("only the ledger's keys are written"), value.to_vec())
        });
        Memory(entries.collect())
    }
}

impl Data for Memory {
    fn read(&mut self, key: Key) -> Option<Vec<u8>> {
        self.0.get(&key.bytes()).cloned()
    }

    fn write(&mut self, key: Key, value: Vec<u8>) {
        self.0.insert(key.bytes(), value);
    }
}

/// Reads a number; `absent` if nobody has written it.
pub(crate) fn number(data: &mut dyn Data, key: Key, absent: u64) -> u64 {
    number_of(data.read(key).as_deref()).unwrap_or(absent)
}

/// Returns the number that a value is.
pub(crate) fn number_of(value: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_le_bytes(value?.try_into().expect("a number has eight bytes")))
}

fn set(data: &mut dyn Data, key: Key, number: u64) {
    data.write(key, number.to_le_bytes().to_vec());
}

fn list(data: &mut dyn Data, key: u32) -> Vec<u32> {
    let bytes = data.read(Key::List(key)).unwrap_or_default();
    bytes
        .chunks_exact(4)
        .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect()
}

fn set_list(data: &mut dyn Data, key: u32, list: &[u32]) {
    data.write(Key::List(key), list.iter().flat_map(|number| number.to_le_bytes()).collect());
}

/// Does what is asked, and notes that it was done for this call. Returns what it came to, and how
/// often it was done before.
pub(crate) fn apply(data: &mut dyn Data, call: u32, operation: &Operation) -> (Value, u64) {
    let runs = number(data, Key::Runs(call), 0);
    set(data, Key::Runs(call), runs + 1);
    let value = match *operation {
        Operation::Add(amount) => {
            let sum = number(data, Key::Counter, 0) + amount;
            set(data, Key::Counter, sum);
            Value::Number(sum)
        }
        Operation::Append(key, number) => {
            let mut numbers = list(data, key);
            numbers.push(number);
            set_list(data, key, &numbers);
            Value::Done
        }
        Operation::Balance(purse) => Value::Number(number(data, Key::Purse(purse), PURSE)),
        Operation::Debit(purse, amount) => {
            let left = number(data, Key::Purse(purse), PURSE).checked_sub(amount);
            let left = left.expect("a purse holds enough for its story");
            set(data, Key::Purse(purse), left);
            Value::Number(left)
        }
        Operation::Get(key) => Value::List(list(data, key)),
        Operation::Parcel(parcel, _) => {
            let sum = number(data, Key::Parcels, 0) + u64::from(parcel.bytes);
            set(data, Key::Parcels, sum);
            Value::Number(sum)
        }
        Operation::Put(key, number) => {
            set_list(data, key, &[number]);
            Value::Done
        }
        Operation::Sum => Value::Number(sum(data)),
        Operation::Transfer { from, to, amount } => match take(data, from, amount) {
            true => {
                let balance = number(data, Key::Account(to), DEPOSIT);
                set(data, Key::Account(to), balance + amount);
                Value::Done
            }
            false => Value::Refused,
        },
    };
    (value, runs)
}

/// Takes money from an account, if there is as much: the first half of a transfer.
pub(crate) fn take(data: &mut dyn Data, from: u32, amount: u64) -> bool {
    let left = number(data, Key::Account(from), DEPOSIT).checked_sub(amount);
    if let Some(left) = left {
        set(data, Key::Account(from), left);
    }
    left.is_some()
}

/// Returns the sum over all accounts. No transfer changes it.
pub(crate) fn sum(data: &mut dyn Data) -> u64 {
    (0..ACCOUNTS).map(|account| number(data, Key::Account(account), DEPOSIT)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_moves_what_is_there() {
        let mut data = Memory::default();
        let all = u64::from(ACCOUNTS) * DEPOSIT;
        let transfer = |amount| Operation::Transfer { from: 1, to: 2, amount };
        assert_eq!(apply(&mut data, 1, &transfer(DEPOSIT)), (Value::Done, 0));
        assert_eq!(apply(&mut data, 2, &transfer(1)), (Value::Refused, 0));
        assert_eq!(number(&mut data, Key::Account(2), 0), 2 * DEPOSIT);
        assert_eq!(sum(&mut data), all);
        assert!(take(&mut data, 2, 5));
        assert_eq!(sum(&mut data), all - 5, "half a transfer is seen in the sum");
    }

    #[test]
    fn lists_counters_and_purses_answer() {
        let mut data = Memory::default();
        let mut run = |operation| apply(&mut data, 0, &operation).0;
        run(Operation::Put(3, 10));
        run(Operation::Append(3, 20));
        assert_eq!(run(Operation::Get(3)), Value::List(vec![10, 20]));
        run(Operation::Put(3, 30));
        assert_eq!(run(Operation::Get(3)), Value::List(vec![30]));
        assert_eq!(run(Operation::Get(4)), Value::List(vec![]));
        run(Operation::Add(2));
        assert_eq!(run(Operation::Add(3)), Value::Number(5));
        run(Operation::Debit(1, 10));
        assert_eq!(run(Operation::Balance(1)), Value::Number(PURSE - 10));
    }

    #[test]
    fn a_second_run_is_told() {
        let mut data = Memory::default();
        assert_eq!(apply(&mut data, 7, &Operation::Add(1)).1, 0);
        assert_eq!(apply(&mut data, 7, &Operation::Add(1)).1, 1);
    }
}
