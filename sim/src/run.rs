//! One seed, from the beginning to the verdict.

use std::rc::Rc;
use std::time::Duration;

use onceloop::protocol::table::store::Disk;
use onceloop::reactor::sim::{Faults, Host, Line, Simulation, Step, Tally};

use crate::ledgers::Ledgers;
use crate::oracle::{Kind, Oracle, Violation};
use crate::plan::Plan;
use crate::shared::Shared;
use crate::{Sabotage, Work, client, panics, server};

/// How long any call may take once nothing fails: two hundred, one after the other, each by the
/// slowest handler (3 s) and with two commits of the slowest journal (2 s each). A call whose handler
/// has ended is judged by [`Plan::patience`].
const PATIENCE_MOST: Duration = Duration::from_secs(1_400);
/// How long copies on their way may still take effect, when every call has ended.
const AFTERMATH: Duration = Duration::from_secs(5);

/// What became of a seed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Calls made.
    pub calls: u64,
    /// How often each fault struck.
    pub faults: Tally,
    /// What was found wrong; the seed ends with the step that brought it about.
    pub violations: Vec<Violation>,
    /// A hash of all that happened.
    pub trace_hash: u64,
    /// How many steps it took.
    pub steps: u64,
    /// How long it was, for those in it.
    pub time: Duration,
    /// What was done in it.
    pub work: Work,
}

impl Verdict {
    /// Returns the verdict on a seed that does not end.
    pub(crate) fn endless(seed: u64) -> Verdict {
        let what = "it does not end: one step takes for ever".to_owned();
        let violations = vec![Violation { kind: Kind::Broken, what }];
        Verdict { seed, violations, ..Verdict::default() }
    }
}

/// Runs a seed. Each line of its trace is given to `on_line`.
///
/// A panic, of the library or of the simulation, is a violation like any other.
pub fn run(seed: u64, sabotage: Sabotage, on_line: Option<OnLine>) -> Verdict {
    let mut run = Run::new(seed, sabotage);
    if let Some(on_line) = on_line {
        run.simulation.world().trace(on_line);
    }
    if let Err(what) = panics::quietly(|| run.all()) {
        run.shared.oracle.borrow_mut().fail(Kind::Broken, what);
    }
    run.verdict(seed)
}

/// What is given each line of a trace.
pub type OnLine = Box<dyn FnMut(&Line<'_>)>;

struct Run {
    simulation: Simulation,
    shared: Rc<Shared>,
    hosts: Vec<Host>,
    steps: u64,
}

impl Run {
    fn new(seed: u64, sabotage: Sabotage) -> Run {
        let plan = Plan::drawn(seed, sabotage);
        let simulation = Simulation::new(seed, plan.faults.clone());
        let world = simulation.world().clone();
        let servers = (1..=plan.servers.len()).map(|number| format!("server-{number}"));
        let clients = (1..=plan.clients.len()).map(|number| format!("client-{number}"));
        let names = servers.chain(clients);
        let ledgers = Ledgers::new(disks(&plan));
        let oracle = Oracle::new(world, names.collect(), ledgers.clone(), &plan);
        let shared = Rc::new(Shared::new(plan, oracle, ledgers));
        Run { simulation, shared, hosts: Vec::new(), steps: 0 }
    }

    /// Puts servers and clients on their hosts.
    fn populate(&mut self) {
        for place in 0..self.shared.plan.servers.len() {
            let host = self.simulation.world().host(&format!("server-{}", place + 1));
            let shared = Rc::clone(&self.shared);
            self.hosts.push(host.clone());
            self.simulation.add(host, move |host| server::boot(&shared, place, host));
        }
        for place in 0..self.shared.plan.clients.len() {
            let host = self.simulation.world().host(&format!("client-{}", place + 1));
            let shared = Rc::clone(&self.shared);
            self.hosts.push(host.clone());
            self.simulation.add(host, move |host| client::boot(&shared, place, host));
        }
    }

    fn all(&mut self) {
        self.populate();
        let end = self.shared.plan.fault_time;
        while self.now() < end && self.is_busy() && self.step() {}
        self.simulation.world().set_faults(Faults::none());
        self.simulation.world().heal();
        // A drain takes its time, and its server takes no calls meanwhile: that is no failure.
        self.shared.is_healed.set(true);
        while self.shared.draining.get() > 0 && self.step() {}
        let patience = self.shared.plan.patience;
        self.shared.oracle.borrow_mut().healed(patience, PATIENCE_MOST);
        while self.is_busy() && self.step() {}
        let end = self.now() + AFTERMATH;
        while self.now() < end && self.step() {}
        if self.is_well() {
            self.shared.oracle.borrow_mut().finish();
        }
    }

    fn now(&self) -> Duration {
        self.simulation.world().now()
    }

    fn is_well(&self) -> bool {
        self.shared.oracle.borrow().violations().is_empty()
    }

    fn is_busy(&self) -> bool {
        let mut clients = 0..self.shared.plan.clients.len();
        clients.any(|client| self.shared.has_calls_left(client))
            || self.shared.oracle.borrow().has_open_calls()
            // A client that comes back may find calls in its journal.
            || self.hosts.iter().any(|host| !host.is_up())
    }

    /// Lets one thing happen; returns whether the seed goes on.
    fn step(&mut self) -> bool {
        if !self.is_well() {
            return false;
        }
        match self.simulation.step() {
            Step::Idle => return false,
            // A server whose store has failed.
            Step::Exited(host) => self.simulation.restart(&host),
            _ => {}
        }
        self.steps += 1;
        self.shared.oracle.borrow_mut().check();
        true
    }

    fn verdict(self, seed: u64) -> Verdict {
        let world = self.simulation.world();
        let oracle = self.shared.oracle.borrow();
        let mut work = self.shared.work.borrow().clone();
        oracle.count(&mut work);
        Verdict {
            seed,
            calls: oracle.calls.len() as u64,
            faults: world.tally(),
            violations: oracle.violations().to_vec(),
            trace_hash: world.trace_hash(),
            steps: self.steps,
            time: world.now(),
            work,
        }
    }
}

/// Makes the disks of the durable servers.
fn disks(plan: &Plan) -> impl Iterator<Item = Option<Disk>> {
    plan.servers.iter().enumerate().map(|(place, server)| {
        let mut random = plan.random.fork("disks").fork_by(place as u64);
        let slowest = u64::try_from(server.commit_max.as_micros()).expect("less than a second");
        let delay = move || Duration::from_micros(random.spread(1, slowest));
        server.is_durable.then(|| Disk::new(delay))
    })
}
