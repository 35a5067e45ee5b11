//! What clients want, one call after the other.

use std::cell::Cell;
use std::rc::Rc;

use onceloop::Order;
use onceloop::reactor::sim::Random;

use crate::data::{ACCOUNTS, DEPOSIT, PURSE};
use crate::oracle::Outcome;
use crate::parcel::Parcel;
use crate::service::{Operation, Value};

/// Lists that all clients share.
const LISTS: u64 = 4;
/// Debits of one story.
const DEBITS: u64 = 6;
/// What a debit takes, as in the lecture.
const DEBIT: u64 = 10;

/// The longest parcel.
const PARCEL_BYTES_MAX: u64 = 300 * 1_024;
/// Lengths at which something changes: what is copied in front of the next read, what is long, and
/// what is read and written in a turn.
const PARCEL_KIBS: [u64; 4] = [16, 64, 68, 260];

/// How a wish may be fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// In any way that there is.
    Any,
    /// At least once, whatever the operation.
    Blind,
    /// Exactly once, however long it takes.
    Exact,
}

/// An operation that a client wants.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) operation: Operation,
    pub(crate) care: Care,
}

fn wish(operation: Operation, care: Care) -> Option<Wish> {
    Some(Wish { operation, care })
}

/// A client's reason to call.
pub(crate) trait Workload {
    /// Returns what it wants now; nothing if it waits for an answer.
    fn next(&mut self, random: &mut Random) -> Option<Wish>;

    /// Hears how an operation ended.
    ///
    /// # Errors
    /// If that cannot be, by what it knows.
    fn answered(&mut self, operation: &Operation, outcome: &Outcome) -> Result<(), String>;
}

/// Numbers that nobody else has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers(Rc<Cell<u32>>);

impl Numbers {
    fn next(&self) -> u32 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
}

/// Returns the workloads of one client.
pub(crate) fn all(numbers: &Numbers, order: Order, has_parcels: bool) -> Vec<Box<dyn Workload>> {
    let puts: Box<dyn Workload> = match order {
        Order::InOrder => Box::new(PutsAtOnce::new(numbers)),
        Order::Unordered => Box::new(PutsInTurn::new(numbers)),
    };
    let mut all: Vec<Box<dyn Workload>> = vec![
        Box::new(Bank),
        Box::new(Counter),
        Box::new(Debits::new(numbers, Care::Exact)),
        Box::new(Debits::new(numbers, Care::Blind)),
        Box::new(Lists(numbers.clone())),
        puts,
    ];
    if has_parcels {
        all.push(Box::new(Parcels(numbers.clone())));
    }
    all
}

/// Adds to the counter.
struct Counter;

impl Workload for Counter {
    fn next(&mut self, random: &mut Random) -> Option<Wish> {
        wish(Operation::Add(random.range(1..10)), Care::Any)
    }

    fn answered(&mut self, _: &Operation, _: &Outcome) -> Result<(), String> {
        Ok(())
    }
}

/// Moves money between accounts, of which the sum stays the same.
struct Bank;

impl Workload for Bank {
    fn next(&mut self, random: &mut Random) -> Option<Wish> {
        if random.chance(200_000) {
            return wish(Operation::Sum, Care::Any);
        }
        let mut account = || u32::try_from(random.below(ACCOUNTS.into())).expect("a few");
        let (from, to) = (account(), account());
        wish(Operation::Transfer { from, to, amount: random.spread(1, DEPOSIT) }, Care::Any)
    }

    fn answered(&mut self, operation: &Operation, outcome: &Outcome) -> Result<(), String> {
        let Outcome::Receipt(receipt) = outcome else { return Ok(()) };
        let all = Value::Number(u64::from(ACCOUNTS) * DEPOSIT);
        if *operation == Operation::Sum && receipt.value != all {
            return Err(format!("money came or went: {receipt:?}"));
        }
        Ok(())
    }
}

/// Puts, appends and gets on lists that other clients change, too.
struct Lists(Numbers);

impl Workload for Lists {
    fn next(&mut self, random: &mut Random) -> Option<Wish> {
        let list = u32::try_from(random.below(LISTS)).expect("a few");
        let operation = match random.below(5) {
            0 => Operation::Put(list, self.0.next()),
            1 | 2 => Operation::Append(list, self.0.next()),
            _ => Operation::Get(list),
        };
        wish(operation, Care::Any)
    }

    fn answered(&mut self, _: &Operation, _: &Outcome) -> Result<(), String> {
        Ok(())
    }
}

/// Sends parcels, and asks for such. Many are longer than what a turn reads or writes.
struct Parcels(Numbers);

impl Parcels {
    /// Draws a length: often about one at which something changes, as much less as stands around it.
    fn bytes(random: &mut Random) -> u32 {
        let bytes = match random.below(6) {
            0 => 0,
            1 => random.spread(1, PARCEL_BYTES_MAX),
            place => {
                PARCEL_KIBS[usize::try_from(place).expect("below 6") - 2] * 1_024
                    + random.below(512)
                    - 384
            }
        };
        u32::try_from(bytes).expect("bounded above")
    }
}

impl Workload for Parcels {
    fn next(&mut self, random: &mut Random) -> Option<Wish> {
        let parcel = Parcel { of: self.0.next(), bytes: Parcels::bytes(random) };
        wish(Operation::Parcel(parcel, Parcels::bytes(random)), Care::Any)
    }

    fn answered(&mut self, _: &Operation, _: &Outcome) -> Result<(), String> {
        Ok(())
    }
}

/// The lecture's first story: a client takes 10 from its purse, hears nothing, and asks again. At
/// the end it looks what is left.
struct Debits {
    numbers: Numbers,
    care: Care,
    purse: u32,
    asked: u64,
    /// Debits that were answered, and those of which nobody knows.
    done: u64,
    doubtful: u64,
    waits: bool,
}

impl Debits {
    fn new(numbers: &Numbers, care: Care) -> Debits {
        let purse = numbers.next();
        Debits {
            numbers: numbers.clone(),
            care,
            purse,
            asked: 0,
            done: 0,
            doubtful: 0,
            waits: false,
        }
    }
}

impl Workload for Debits {
    fn next(&mut self, _: &mut Random) -> Option<Wish> {
        if std::mem::replace(&mut self.waits, true) {
            return None;
        }
        self.asked += 1;
        match self.asked {
            ..=DEBITS => wish(Operation::Debit(self.purse, DEBIT), self.care),
            _ => wish(Operation::Balance(self.purse), Care::Exact),
        }
    }

    fn answered(&mut self, operation: &Operation, outcome: &Outcome) -> Result<(), String> {
        self.waits = false;
        if matches!(operation, Operation::Debit(..)) {
            match outcome {
                Outcome::Receipt(_) => self.done += 1,
                Outcome::Executed(_) | Outcome::Indeterminate(_) => self.doubtful += 1,
                Outcome::NotExecuted(_) => {}
            }
            return Ok(());
        }
        let most = PURSE - DEBIT * self.done;
        let least = most - DEBIT * self.doubtful;
        let story = std::mem::replace(self, Debits::new(&self.numbers.clone(), self.care));
        match outcome {
            Outcome::Receipt(receipt) if story.care == Care::Exact => match receipt.value {
                Value::Number(left) if (least..=most).contains(&left) => Ok(()),
                _ => Err(format!("{receipt:?}: {least} to {most} should be left")),
            },
            _ => Ok(()),
        }
    }
}

/// The lecture's second story: put(x, 10) is lost or late, put(x, 20) follows, and get(x) is not to
/// find 10. Here each call waits for the one before.
struct PutsInTurn {
    numbers: Numbers,
    list: u32,
    asked: u32,
    are_known: bool,
    waits: bool,
}

impl PutsInTurn {
    fn new(numbers: &Numbers) -> PutsInTurn {
        let list = 1_000 + numbers.next();
        PutsInTurn { numbers: numbers.clone(), list, asked: 0, are_known: true, waits: false }
    }
}

/// Returns the calls of the second story.
fn put_story(list: u32, step: u32) -> Operation {
    match step {
        1 => Operation::Put(list, 10),
        2 => Operation::Put(list, 20),
        _ => Operation::Get(list),
    }
}

/// Returns what get(x) has to find if both puts have been answered.
fn check_puts(outcome: &Outcome) -> Result<(), String> {
    match outcome {
        Outcome::Receipt(receipt) if receipt.value != Value::List(vec![20]) => {
            Err(format!("put(x, 10), put(x, 20), and get(x) finds {receipt:?}"))
        }
        _ => Ok(()),
    }
}

impl Workload for PutsInTurn {
    fn next(&mut self, _: &mut Random) -> Option<Wish> {
        if std::mem::replace(&mut self.waits, true) {
            return None;
        }
        self.asked += 1;
        wish(put_story(self.list, self.asked), Care::Exact)
    }

    fn answered(&mut self, operation: &Operation, outcome: &Outcome) -> Result<(), String> {
        self.waits = false;
        if matches!(operation, Operation::Put(..)) {
            self.are_known &= matches!(outcome, Outcome::Receipt(_));
            return Ok(());
        }
        let are_known = self.are_known;
        *self = PutsInTurn::new(&self.numbers.clone());
        if are_known { check_puts(outcome) } else { Ok(()) }
    }
}

/// The same over an in-order session, which lets all three go out at once.
struct PutsAtOnce {
    numbers: Numbers,
    list: u32,
    asked: u32,
    answered: u32,
    are_known: bool,
    found: Option<Outcome>,
}

impl PutsAtOnce {
    fn new(numbers: &Numbers) -> PutsAtOnce {
        PutsAtOnce {
            numbers: numbers.clone(),
            list: 1_000 + numbers.next(),
            asked: 0,
            answered: 0,
            are_known: true,
            found: None,
        }
    }
}

impl Workload for PutsAtOnce {
    fn next(&mut self, _: &mut Random) -> Option<Wish> {
        if self.asked == 3 {
            return None;
        }
        self.asked += 1;
        wish(put_story(self.list, self.asked), Care::Exact)
    }

    fn answered(&mut self, operation: &Operation, outcome: &Outcome) -> Result<(), String> {
        self.answered += 1;
        if matches!(operation, Operation::Put(..)) {
            self.are_known &= matches!(outcome, Outcome::Receipt(_));
        } else {
            self.found = Some(outcome.clone());
        }
        if self.answered < 3 {
            return Ok(());
        }
        let story = std::mem::replace(self, PutsAtOnce::new(&self.numbers.clone()));
        match story.found {
            Some(found) if story.are_known => check_puts(&found),
            _ => Ok(()),
        }
    }
}
