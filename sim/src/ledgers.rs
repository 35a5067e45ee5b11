//! Where the servers' ledgers are: outside of every process.

use std::cell::RefCell;
use std::rc::Rc;

use crate::data::{self, Key, Memory};
use crate::oracle::Space;

/// The ledgers of all servers. A clone is the same ledgers.
#[derive(Clone, Debug)]
pub(crate) struct Ledgers(Rc<Vec<RefCell<Memory>>>);

impl Ledgers {
    pub(crate) fn new(servers: usize) -> Ledgers {
        Ledgers(Rc::new((0..servers).map(|_| RefCell::default()).collect()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the ledger that outlives a server.
    pub(crate) fn memory(&self, server: usize) -> &RefCell<Memory> {
        &self.0[server]
    }

    /// Returns how often a call took effect, as far as that is safe.
    pub(crate) fn runs(&self, server: usize, space: Space, call: u32) -> u64 {
        match space {
            Space::Memory => data::number(&mut *self.0[server].borrow_mut(), Key::Runs(call), 0),
            Space::Store => 0,
        }
    }

    /// Returns what a ledger holds, as far as it is safe.
    pub(crate) fn snapshot(&self, server: usize, space: Space) -> Option<Memory> {
        match space {
            Space::Memory => Some(self.0[server].borrow().clone()),
            Space::Store => None,
        }
    }
}
