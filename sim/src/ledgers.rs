//! Where the servers' ledgers are: outside of every process.

use std::cell::RefCell;
use std::rc::Rc;

use onceloop::protocol::table::store::Disk;

use crate::data::{self, Key, Memory};
use crate::oracle::Space;

/// What a server's processes leave to each other.
#[derive(Debug, Default)]
struct Ledger {
    memory: RefCell<Memory>,
    disk: Option<Disk>,
}

/// The ledgers of all servers. A clone is the same ledgers.
#[derive(Clone, Debug)]
pub(crate) struct Ledgers(Rc<Vec<Ledger>>);

impl Ledgers {
    /// Makes a ledger for each server, with a disk for those that are durable.
    pub(crate) fn new(disks: impl Iterator<Item = Option<Disk>>) -> Ledgers {
        Ledgers(Rc::new(disks.map(|disk| Ledger { disk, ..Ledger::default() }).collect()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the ledger that outlives a server without its doing.
    pub(crate) fn memory(&self, server: usize) -> &RefCell<Memory> {
        &self.0[server].memory
    }

    /// Returns the disk of a durable server.
    pub(crate) fn disk(&self, server: usize) -> Option<&Disk> {
        self.0[server].disk.as_ref()
    }

    /// Returns how often a call took effect, as far as that is safe.
    pub(crate) fn runs(&self, server: usize, space: Space, call: u32) -> u64 {
        let key = Key::Runs(call);
        match (space, &self.0[server].disk) {
            (Space::Memory, _) => data::number(&mut *self.memory(server).borrow_mut(), key, 0),
            (Space::Store, Some(disk)) => {
                data::number_of(disk.log().get_safe(&key.bytes())).unwrap_or(0)
            }
            (Space::Store, None) => 0,
        }
    }

    /// Returns what a ledger holds, as far as it is safe.
    pub(crate) fn snapshot(&self, server: usize, space: Space) -> Option<Memory> {
        match space {
            Space::Memory => Some(self.memory(server).borrow().clone()),
            Space::Store => self.disk(server).map(|disk| disk.log().data().collect()),
        }
    }
}
