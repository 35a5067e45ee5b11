//! What was promised of every call, and what became of it.
//!
//! Servers and clients tell the oracle what they do; it holds that against the rules at once, and
//! again after every step and at the end. It knows more than any of them: which call an execution
//! belongs to, whatever session, connection or process it came by.

mod bodies;
mod end;
mod history;
mod journals;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use onceloop::reactor::sim::World;
use onceloop::{CallError, Code, Order};

use crate::ledgers::Ledgers;
use crate::plan::Plan;
use crate::service::{Operation, Receipt, token};
use runs::{Lane, XidKey};

/// How the reasons begin for which a connection may be lost: the network's faults, hosts that are
/// killed or stand still, and servers that are drained or have forgotten.
const CAUSES: [&str; 7] = [
    "could not connect: ",
    "closed by the peer",
    "DEADLINE: ",
    "lost: ",
    "SESSION_UNKNOWN: ",
    "the server is shutting down",
    "timed out: ",
];

/// What a promise was broken by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// An assertion of the library failed, or the simulation itself.
    Broken,
    /// A protected call took effect twice.
    DoubleExecution,
    /// A caller was told that its call ran and its effect is not there; or it was told nothing, and
    /// never will be.
    Lost,
    /// A caller was not told in time.
    Unresolved,
    /// A caller was told what is not so.
    WrongReply,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What it is counted as.
    pub kind: Kind,
    /// What happened, for a person.
    pub what: String,
}

/// How often a call may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Semantics {
    AtLeastOnce,
    AtMostOnce,
    ExactlyOnce,
    /// Sent once; nobody is answered.
    Notify,
}

/// Where a call's effect is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Space {
    /// In what outlives the server without its doing.
    Memory,
    /// In the server's store, in one commit with what the table remembers.
    Store,
}

/// What a method does beside applying its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It answers with a receipt.
    Receipt,
    /// It has an effect and answers with an error.
    Fails,
    /// It is rolled back and answers with an error.
    RolledBack,
    /// It does not run.
    Refused,
}

/// A call as it is made.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) operation: Operation,
    /// How it is served, for a person.
    pub(crate) way: &'static str,
    pub(crate) space: Space,
    pub(crate) ending: Ending,
    /// The service says that a second run does no harm.
    pub(crate) is_idempotent: bool,
    pub(crate) semantics: Semantics,
    pub(crate) order: Order,
    pub(crate) deadline: Option<Duration>,
    /// How often it may be sent, if that was limited.
    pub(crate) attempts: Option<u32>,
    /// After how long it is sent again on a second connection.
    pub(crate) hedge_after: Option<Duration>,
}

/// How a call ended for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Executed(Option<Code>),
    Indeterminate(Option<Code>),
    NotExecuted(Option<Code>),
    Receipt(Receipt),
}

impl Outcome {
    pub(crate) fn of<E>(result: Result<Receipt, CallError<E>>) -> Outcome {
        let error = match result {
            Ok(receipt) => return Outcome::Receipt(receipt),
            Err(error) => error,
        };
        let code = error.code();
        match error {
            CallError::Indeterminate(_) => Outcome::Indeterminate(code),
            CallError::NotExecuted(_) => Outcome::NotExecuted(code),
            _ => Outcome::Executed(code),
        }
    }
}

/// Which process of which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) host: usize,
    pub(crate) boot: u32,
}

/// A call and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) draft: Draft,
    pub(crate) client: Process,
    pub(crate) server: usize,
    /// By which of its program's clients.
    link: usize,
    /// When it was made and when it ended, by the count of what happened.
    pub(crate) called: u64,
    pub(crate) returned: Option<u64>,
    pub(crate) outcome: Option<Outcome>,
    /// Its caller gave it up, or closed the client.
    pub(crate) is_cancelled: bool,
    /// Handlers that began, and did not ask for the call to come again later.
    pub(crate) runs: u32,
    /// Handlers that did ask for it.
    pub(crate) refusals: u32,
    /// One for each time it took effect.
    pub(crate) receipts: Vec<Receipt>,
    /// When a handler last ended.
    pub(crate) ended_at: Option<Duration>,
}

impl Call {
    pub(crate) fn is_protected(&self) -> bool {
        self.draft.semantics != Semantics::AtLeastOnce
    }

    /// Returns whether a second effect is a mistake. A durable server that has crashed in a call runs
    /// it again if that does no harm.
    pub(crate) fn runs_once(&self) -> bool {
        self.is_protected() && !(self.draft.is_idempotent && self.draft.operation.is_read())
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}, {:?}", self.way, self.operation, self.semantics)?;
        if self.order == Order::InOrder {
            f.write_str(", in order")?;
        }
        if let Some(deadline) = self.deadline {
            write!(f, ", within {deadline:?}")?;
        }
        if let Some(attempts) = self.attempts {
            write!(f, ", in {attempts} attempts")?;
        }
        match self.hedge_after {
            Some(after) => write!(f, ", hedged after {after:?}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gave_up = if self.is_cancelled { ", given up" } else { "" };
        write!(f, "{}{gave_up}; it ran {} times: {:?}", self.draft, self.runs, self.receipts)?;
        match &self.outcome {
            Some(outcome) => write!(f, ", and ended: {outcome:?}"),
            None => f.write_str(", and has not ended"),
        }
    }
}

/// How long callers may wait once nothing fails any more.
#[derive(Clone, Copy, Debug)]
struct Liveness {
    healed_at: Duration,
    /// For a call whose handler has ended.
    patience: Duration,
    /// For any call.
    patience_most: Duration,
}

/// See the [module](self).
pub(crate) struct Oracle {
    world: World,
    names: Vec<String>,
    /// The largest body that each host takes: the least and the most of its processes.
    body_bytes_max: Vec<(usize, usize)>,
    /// Leases end while their clients are cut off.
    has_short_leases: bool,
    ledgers: Ledgers,
    pub(crate) calls: Vec<Call>,
    /// Counts what happened: the time by which one thing comes before another.
    tick: u64,
    open: BTreeSet<u32>,
    /// Calls whose continuations were dropped in this step.
    dropped: Vec<u32>,
    xids: HashMap<XidKey, u32>,
    lanes: HashMap<(Process, u64), Lane>,
    /// How often each server has begun anew: its sessions may be unknown.
    restarts: Vec<u32>,
    liveness: Option<Liveness>,
    violations: Vec<Violation>,
    /// Calls found in journals.
    recovered: u64,
    /// Histories for which no order was found or ruled out.
    pub(crate) undecided: u64,
}

impl Oracle {
    /// Makes an oracle for these hosts.
    pub(crate) fn new(world: World, names: Vec<String>, ledgers: Ledgers, plan: &Plan) -> Oracle {
        Oracle {
            world,
            restarts: vec![0; names.len()],
            names,
            body_bytes_max: plan.body_bytes_max(),
            has_short_leases: plan.has_short_leases,
            ledgers,
            calls: Vec::new(),
            tick: 0,
            open: BTreeSet::new(),
            dropped: Vec::new(),
            xids: HashMap::new(),
            lanes: HashMap::new(),
            liveness: None,
            violations: Vec::new(),
            recovered: 0,
            undecided: 0,
        }
    }

    /// A client makes a call.
    pub(crate) fn called(
        &mut self,
        client: Process,
        link: usize,
        server: usize,
        draft: Draft,
    ) -> u32 {
        let id = u32::try_from(self.calls.len()).expect("a few hundred calls");
        self.note(client.host, format_args!("call {id} of server {}: {draft}", server + 1));
        if draft.semantics != Semantics::Notify {
            self.open.insert(id);
        }
        let called = self.tick();
        self.calls.push(Call {
            draft,
            client,
            server,
            link,
            called,
            returned: None,
            outcome: None,
            is_cancelled: false,
            runs: 0,
            refusals: 0,
            receipts: Vec::new(),
            ended_at: None,
        });
        id
    }

    /// A client gives a call up.
    pub(crate) fn cancelled(&mut self, id: u32) {
        self.note(self.calls[id as usize].client.host, format_args!("call {id} is given up"));
        self.calls[id as usize].is_cancelled = true;
    }

    /// A program closes one of its clients, and so gives up all calls of that.
    pub(crate) fn closed(&mut self, client: Process, link: usize) {
        self.note(client.host, format_args!("client {link} is closed"));
        for &id in &self.open {
            let call = &mut self.calls[id as usize];
            call.is_cancelled |= call.client == client && call.link == link;
        }
    }

    /// A client has lost its connection. What a session mends is a mistake all the same: both ends
    /// speak the protocol, whatever befalls the network.
    pub(crate) fn disconnected(&mut self, client: Process, why: &str) {
        if !CAUSES.iter().any(|cause| why.starts_with(cause)) {
            let name = &self.names[client.host];
            self.fail(Kind::Broken, format!("{name} lost its connection for no reason: {why}"));
        }
    }

    /// The end of a call contradicts what its caller knows.
    pub(crate) fn contradicted(&mut self, id: u32, what: &str) {
        self.fail(Kind::WrongReply, format!("{what}: {}", self.tell(id)));
    }

    /// A call ends for its caller.
    pub(crate) fn answered(&mut self, id: u32, outcome: Outcome) {
        let host = self.calls[id as usize].client.host;
        self.note(host, format_args!("call {id} ended: {outcome:?}"));
        let returned = self.tick();
        self.open.remove(&id);
        if let Some((kind, why)) = self.judge(id, &outcome) {
            self.fail(kind, format!("{why}: {outcome:?} of {}", self.tell(id)));
        }
        if let Some(outcome) = self.reconcile(id, outcome) {
            let call = &mut self.calls[id as usize];
            call.returned = Some(returned);
            call.outcome = Some(outcome);
        }
    }

    /// Returns what is wrong about a call's end.
    fn judge(&self, id: u32, outcome: &Outcome) -> Option<(Kind, &'static str)> {
        let call = &self.calls[id as usize];
        let wrong = |why| Some((Kind::WrongReply, why));
        let has_run = self.effects(id) > 0;
        match outcome {
            Outcome::Receipt(receipt) => {
                if receipt.call != id || receipt.token != token(id, &call.draft.operation) {
                    return wrong("I2: the reply of another call");
                }
                if !call.receipts.contains(receipt) {
                    return wrong("I2: a reply that no execution gave");
                }
                if call.draft.ending != Ending::Receipt {
                    return wrong("a reply where there is none");
                }
                if !self.bodies(call).may_be_answered() {
                    return wrong("a reply that is larger than it may be");
                }
                (!has_run)
                    .then_some((Kind::Lost, "I3: a reply is visible and its effect is not safe"))
            }
            Outcome::Executed(code) => {
                let may_fail = call.draft.ending != Ending::Receipt;
                match code {
                    Some(Code::ApplicationError) if may_fail => {}
                    Some(Code::NotRetained) => {}
                    Some(code) if self.bodies(call).explain_executed(*code) => {}
                    _ => return wrong("an error that no execution gave"),
                }
                let is_absent = !has_run && call.draft.ending == Ending::Fails;
                is_absent
                    .then_some((Kind::Lost, "I3: an error is visible and its effect is not safe"))
            }
            Outcome::NotExecuted(code) => match code {
                _ if has_run => wrong("I9: not executed, and it has run"),
                Some(code) if self.is_explained(call, *code) => None,
                _ => wrong("not executed for no reason"),
            },
            Outcome::Indeterminate(code) => match code {
                Some(Code::Stale) => wrong("I4: STALE for a caller who waits"),
                // One copy was refused for good; the other one was put off, which says nothing for certain.
                Some(Code::Busy | Code::Window | Code::Draining)
                    if call.draft.hedge_after.is_some() =>
                {
                    None
                }
                Some(code) if self.is_explained(call, *code) => None,
                _ => wrong("in doubt for no reason"),
            },
        }
    }

    /// Returns whether something happened that makes such an end possible.
    fn is_explained(&self, call: &Call, code: Code) -> bool {
        let has_restarted = self.restarts[call.server] > 0;
        let semantics = call.draft.semantics;
        match code {
            Code::TooLarge => self.bodies(call).may_be_refused(),
            Code::BadArguments | Code::NoMethod => call.draft.ending == Ending::Refused,
            // What is sent again is sent until there is room.
            Code::Busy | Code::Window | Code::Draining => {
                semantics == Semantics::AtMostOnce || call.draft.attempts.is_some()
            }
            // What is sent once and was lost is said to be; and of two copies one may be refused, and
            // the other lost.
            Code::Cancelled => {
                call.is_cancelled
                    || semantics == Semantics::AtMostOnce
                    || call.draft.hedge_after.is_some()
            }
            // In an in-order session a hole has an age, too.
            Code::Deadline => {
                let is_bounded = call.draft.deadline.is_some() || call.draft.attempts.is_some();
                is_bounded || call.draft.order == Order::InOrder
            }
            Code::InDoubt | Code::Poisoned => has_restarted && self.is_durable(call.server),
            // What is durable outlives the server, if not the lease.
            Code::SessionUnknown => {
                self.has_short_leases || (has_restarted && !self.is_durable(call.server))
            }
            _ => false,
        }
    }

    /// A continuation was dropped without having run.
    pub(crate) fn dropped(&mut self, id: u32) {
        self.dropped.push(id);
    }

    /// A client's process is gone, and nobody waits for its calls any more.
    pub(crate) fn client_gone(&mut self, client: Process) {
        let calls = &self.calls;
        let is_gone = |id: u32| calls[id as usize].client == client;
        self.open.retain(|&id| !is_gone(id));
        self.dropped.retain(|&id| !is_gone(id));
    }

    /// A server's process began: not its first, or one without the sessions of the one before.
    pub(crate) fn server_restarted(&mut self, server: usize) {
        self.restarts[server] += 1;
    }

    /// Nothing fails from now on: a call whose handler has ended is to be resolved within
    /// `patience`, and any call within `patience_most`.
    pub(crate) fn healed(&mut self, patience: Duration, patience_most: Duration) {
        self.liveness = Some(Liveness { healed_at: self.world.now(), patience, patience_most });
    }

    /// Checks what must hold after every step.
    pub(crate) fn check(&mut self) {
        while let Some(id) = self.dropped.pop() {
            self.fail(Kind::Lost, format!("a continuation was dropped: {}", self.tell(id)));
        }
        let Some(liveness) = self.liveness else { return };
        let now = self.world.now();
        let late = self.open.iter().find(|&&id| {
            // Of an unprotected call nothing is kept: if its answer is lost, it has to run again.
            let call = &self.calls[id as usize];
            let ended_at = call.ended_at.filter(|_| call.is_protected());
            let ended_at = ended_at.map(|at| at.max(liveness.healed_at));
            now > liveness.healed_at + liveness.patience_most
                || ended_at.is_some_and(|at| now > at + liveness.patience)
        });
        if let Some(&id) = late {
            self.fail(Kind::Unresolved, format!("I8: not resolved in time: {}", self.tell(id)));
        }
    }

    /// Returns whether a caller still waits.
    pub(crate) fn has_open_calls(&self) -> bool {
        !self.open.is_empty()
    }

    /// Returns what was found wrong.
    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    pub(crate) fn fail(&mut self, kind: Kind, what: String) {
        self.world.note("", &format!("VIOLATION {kind:?}: {what}"));
        self.violations.push(Violation { kind, what });
    }

    fn is_durable(&self, server: usize) -> bool {
        self.ledgers.disk(server).is_some()
    }

    /// Returns how often a call took effect, as far as that is safe.
    fn effects(&self, id: u32) -> u64 {
        let call = &self.calls[id as usize];
        self.ledgers.runs(call.server, call.draft.space, id)
    }

    fn tell(&self, id: u32) -> String {
        let call = &self.calls[id as usize];
        let by = &self.names[call.client.host];
        format!("call {id} by {by} of server {}: {call}", call.server + 1)
    }

    fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    pub(crate) fn note(&self, host: usize, text: std::fmt::Arguments<'_>) {
        self.world.note(&self.names[host], &text.to_string());
    }
}
