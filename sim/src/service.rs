//! What the simulated servers serve: operations on one ledger, and the many ways of serving one.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::parcel::Parcel;

onceloop::service! {
    /// Operations on the ledger. Each names its call, and has that call's receipt for an answer.
    pub(crate) mod ledger {
        /// At once.
        fn apply(call: u32, operation: Operation) -> Receipt;
        /// Takes effect some time after its handler began.
        fn apply_after(call: u32, operation: Operation, delay_ms: u32) -> Receipt;
        /// Takes effect, then panics.
        fn apply_badly(call: u32, operation: Operation) -> Receipt;
        /// Claims that a second run does no harm. For an operation that changes something this is
        /// the mistake of the lecture.
        #[idempotent]
        fn apply_blindly(call: u32, operation: Operation) -> Receipt;
        /// Takes effect at once, and is answered some time later.
        fn apply_late(call: u32, operation: Operation, delay_ms: u32) -> Receipt;
        /// The receipt is large.
        fn apply_largely(call: u32, operation: Operation, bytes: u32) -> Receipt;
        /// Takes effect when a slow job on another thread has ended.
        fn apply_offloaded(call: u32, operation: Operation, delay_ms: u32) -> Receipt;
        /// Never ends by an answer: the responder is dropped.
        fn apply_silently(call: u32, operation: Operation) -> Receipt;
        /// Asks to be called again later, some times; then it takes effect.
        fn apply_when_ready(call: u32, operation: Operation, refusals: u32) -> Receipt;
        /// Takes effect in the server's store, in one commit with its answer.
        fn commit(call: u32, operation: Operation) -> Receipt;
        /// Takes half of its effect, then panics: all of it is undone.
        fn commit_badly(call: u32, operation: Operation) -> Receipt;
        /// The same as `apply_when_ready`, in the store. What it does before it asks is undone.
        fn commit_when_ready(call: u32, operation: Operation, refusals: u32) -> Receipt;
        /// Reads from the server's store.
        #[idempotent]
        fn look(call: u32, operation: Operation) -> Receipt;
        /// Served by nobody.
        fn missing(call: u32, operation: Operation) -> Receipt;
        /// Reads.
        #[idempotent]
        fn read(call: u32, operation: Operation) -> Receipt;
        /// A notification.
        fn tell(call: u32, operation: Operation);
    }

    /// Methods as a client has them that was built of something else.
    pub(crate) mod mistaken {
        /// Gives it more than it takes.
        #[name = "ledger.apply"]
        fn apply(call: u32, operation: Operation, too_many: u32) -> Receipt;
    }
}

/// What is asked of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Operation {
    /// Adds to the counter.
    Add(u64),
    /// Appends a number to a list.
    Append(u32, u32),
    /// Returns what is left of a purse.
    Balance(u32),
    /// Takes from a purse.
    Debit(u32, u64),
    /// Returns a list.
    Get(u32),
    /// Takes a parcel, which counts, and asks for one of so many bytes.
    Parcel(Parcel, u32),
    /// Makes a list of one number.
    Put(u32, u32),
    /// Returns the sum over all accounts.
    Sum,
    /// Moves money between two accounts.
    Transfer {
        /// From which account.
        from: u32,
        /// To which one.
        to: u32,
        /// How much.
        amount: u64,
    },
}

impl Operation {
    /// Returns whether it changes nothing.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self, Operation::Balance(_) | Operation::Get(_) | Operation::Sum)
    }

    /// Returns how many bytes are sent with it, and how many are asked for, at least.
    pub(crate) fn parcel_bytes(&self) -> (u32, u32) {
        match *self {
            Operation::Parcel(parcel, asked) => (parcel.bytes, asked),
            _ => (0, 0),
        }
    }
}

/// What an operation came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Value {
    /// It is done.
    Done,
    /// The list.
    List(Vec<u32>),
    /// The counter, the purse, the sum, or the bytes of all parcels.
    Number(u64),
    /// There is not enough money; nothing is changed.
    Refused,
}

/// The answer to one call and no other.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// Whose answer it is.
    pub(crate) call: u32,
    /// Made of the call's arguments: those of another call make another one.
    pub(crate) token: u64,
    /// What the operation came to.
    pub(crate) value: Value,
    /// What makes a receipt large.
    pub(crate) padding: Parcel,
}

impl Receipt {
    pub(crate) fn new(call: u32, operation: &Operation, value: Value) -> Receipt {
        let padding = Parcel { of: call, bytes: operation.parcel_bytes().1 };
        Receipt { call, token: token(call, operation), value, padding }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for call {}", self.value, self.call)?;
        match self.padding {
            Parcel { bytes: 0, .. } => Ok(()),
            Parcel { of, bytes } if of == self.call => write!(f, " and {bytes} bytes"),
            padding => write!(f, " and {padding:?}"),
        }
    }
}

/// Returns what the receipt of a call with these arguments carries.
pub(crate) fn token(call: u32, operation: &Operation) -> u64 {
    // Its keys are fixed: the same in every run.
    let mut hasher = DefaultHasher::new();
    (call, operation).hash(&mut hasher);
    hasher.finish()
}
