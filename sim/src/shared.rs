//! What the processes of one seed share, and none of them could: it outlives each.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use onceloop::protocol::session::JournalDisk;

use crate::Work;
use crate::ledgers::Ledgers;
use crate::oracle::{Oracle, Process};
use crate::plan::Plan;
use crate::workload::Numbers;

/// See the [module](self).
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) oracle: RefCell<Oracle>,
    pub(crate) ledgers: Ledgers,
    pub(crate) numbers: Numbers,
    /// What the servers did.
    pub(crate) work: RefCell<Work>,
    /// Servers that are being drained.
    pub(crate) draining: Cell<u32>,
    /// Nothing fails any more, and nobody is drained.
    pub(crate) is_healed: Cell<bool>,
    /// The disks with the clients' journals, by client and link.
    journals: RefCell<BTreeMap<(usize, usize), JournalDisk>>,
    /// How often each host was started: servers first, then clients.
    boots: Vec<Cell<u32>>,
    /// Calls that each client has still to make.
    calls_left: Vec<Cell<u32>>,
}

impl Shared {
    pub(crate) fn new(plan: Plan, oracle: Oracle, ledgers: Ledgers) -> Shared {
        let hosts = plan.servers.len() + plan.clients.len();
        Shared {
            calls_left: plan.clients.iter().map(|client| Cell::new(client.calls)).collect(),
            boots: vec![Cell::new(0); hosts],
            numbers: Numbers::default(),
            work: RefCell::default(),
            draining: Cell::new(0),
            journals: RefCell::default(),
            is_healed: Cell::new(false),
            oracle: RefCell::new(oracle),
            ledgers,
            plan,
        }
    }

    /// Returns the host of a client.
    pub(crate) fn host_of_client(&self, client: usize) -> usize {
        self.plan.servers.len() + client
    }

    /// Names the next process of a host.
    pub(crate) fn boot(&self, host: usize) -> Process {
        self.boots[host].set(self.boots[host].get() + 1);
        Process { host, boot: self.boots[host].get() }
    }

    /// Returns the disk with a client's journal.
    pub(crate) fn journal(&self, client: usize, link: usize) -> JournalDisk {
        let mut journals = self.journals.borrow_mut();
        let disk = journals.entry((client, link)).or_insert_with(|| {
            let random = self.plan.random.fork("journals").fork_by(client as u64);
            let mut random = random.fork_by(link as u64);
            let disk = JournalDisk::new(random.next_u64());
            // Some are so slow that much is said and done before it is safe.
            let is_slow = random.chance(500_000);
            let slowest_us =
                if is_slow { random.spread(50_000, 2_000_000) } else { random.spread(1, 50_000) };
            let slowest = Duration::from_micros(slowest_us);
            disk.set_delays(slowest / 10..slowest);
            disk
        });
        disk.clone()
    }

    /// Gives a client's journal up: its next one begins empty.
    pub(crate) fn drop_journal(&self, client: usize, link: usize) {
        self.journals.borrow_mut().remove(&(client, link));
    }

    /// Takes one of the calls that a client has to make; returns whether there was one.
    pub(crate) fn take_call(&self, client: usize) -> bool {
        let left = self.calls_left[client].get();
        self.calls_left[client].set(left.saturating_sub(1));
        left > 0
    }

    /// Returns whether a client has calls to make.
    pub(crate) fn has_calls_left(&self, client: usize) -> bool {
        self.calls_left[client].get() > 0
    }
}
