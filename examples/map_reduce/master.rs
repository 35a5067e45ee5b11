//! The master: it gives tasks, gives them again, and takes each result once.

use std::error::Error;
use std::time::{Duration, Instant};

use onceloop::{CallError, Client, Cx, Reactor, State};

use crate::process::Process;
use crate::worker::Temper;
use crate::worker_service::{map, reduce};
use crate::{Counts, Mapped};

/// How long a worker may be away. A connection that is lost is no crash: the client connects again,
/// and no call is lost. A process that is gone does not come back.
const AWAY_MAX: Duration = Duration::from_millis(250);
/// How long a task runs before an idle worker gets it, too.
const BACKUP_AFTER: Duration = Duration::from_millis(300);
/// How often the master looks for tasks that take long.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The time for all.
const ALL_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Map(usize),
    Reduce(usize),
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Task::Map(part) => write!(f, "map {part}"),
            Task::Reduce(partition) => write!(f, "reduce {partition}"),
        }
    }
}

/// How far a task is.
#[derive(Default)]
struct Progress {
    /// The result that was accepted: there is one, or none.
    accepted: Option<Accepted>,
    /// The workers that are at it.
    running: Vec<usize>,
    /// When it was given the last time.
    given: Option<Instant>,
    times_given: u32,
}

struct Accepted {
    /// Who gave it; for a map task, who has the counts.
    worker: usize,
    /// Of a reduce task; a map task's stay with its worker.
    counts: Counts,
}

struct Worker {
    client: Client<Master>,
    address: String,
    is_busy: bool,
    is_alive: bool,
    /// Ends the process, when the master ends.
    _process: Process,
}

struct Master {
    workers: Vec<Worker>,
    parts: Vec<String>,
    maps: Vec<Progress>,
    reduces: Vec<Progress>,
    tally: Tally,
    failure: Option<String>,
}

/// What happened.
#[derive(Debug, Default)]
struct Tally {
    crashes: u64,
    /// Tasks given again because the worker that was at it crashed, or what it needed was lost.
    given_again: u64,
    /// Map tasks that were done, and are done again: the worker that had the counts crashed.
    mapped_again: u64,
    backups: u64,
    duplicates_refused: u64,
}

/// Has the parts counted by workers of these tempers.
pub(crate) fn run(
    parts: Vec<String>,
    partitions: usize,
    tempers: &[Temper],
) -> Result<Counts, Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let mut processes = Vec::new();
    for &temper in tempers {
        processes.push(Process::start(temper)?);
    }
    let mut workers = Vec::new();
    for (number, mut process) in processes.into_iter().enumerate() {
        let address = process.address()?;
        let client = Client::builder()
            .on_state(move |state, cx: &mut Cx<'_, Master>| watch(number, state, cx))
            .connect(reactor.registry(), address.as_str())?;
        let worker = Worker { client, address, is_busy: false, is_alive: true, _process: process };
        workers.push(worker);
    }
    let mut master = Master {
        maps: parts.iter().map(|_| Progress::default()).collect(),
        reduces: (0..partitions).map(|_| Progress::default()).collect(),
        workers,
        parts,
        tally: Tally::default(),
        failure: None,
    };
    reactor.registry().defer(look);
    reactor.registry().after(ALL_WITHIN, |cx| fail("it takes too long".into(), cx));
    reactor.run(&mut master)?;
    if let Some(failure) = master.failure {
        return Err(failure.into());
    }
    master.tally.print(master.parts.len(), partitions, tempers.len());
    // Each word is in one partition: nothing is added up here.
    Ok(master
        .reduces
        .into_iter()
        .filter_map(|task| task.accepted)
        .flat_map(|it| it.counts)
        .collect())
}

impl Master {
    fn progress(&mut self, task: Task) -> &mut Progress {
        match task {
            Task::Map(part) => &mut self.maps[part],
            Task::Reduce(partition) => &mut self.reduces[partition],
        }
    }

    fn is_done(&self) -> bool {
        self.reduces.iter().all(|task| task.accepted.is_some())
    }

    /// Returns what a worker is to do next.
    fn next_task(&self, now: Instant) -> Option<Task> {
        let is_mapped = self.maps.iter().all(|task| task.accepted.is_some());
        // The barrier. A part that has to be mapped again closes it.
        let (tasks, task): (_, fn(usize) -> Task) =
            if is_mapped { (&self.reduces, Task::Reduce) } else { (&self.maps, Task::Map) };
        let open = || tasks.iter().enumerate().filter(|(_, task)| task.accepted.is_none());
        let waits = open().find(|(_, task)| task.running.is_empty());
        // If all are given: the one that takes longest, unless it is given twice already.
        let takes_long = || {
            let once = open().filter(|(_, task)| task.running.len() == 1);
            let oldest = once.min_by_key(|(_, task)| task.given);
            oldest.filter(|(_, task)| task.given.is_some_and(|given| now >= given + BACKUP_AFTER))
        };
        waits.or_else(takes_long).map(|(index, _)| task(index))
    }
}

/// Looks for work for everybody, now and again.
fn look(cx: &mut Cx<'_, Master>) {
    give_tasks(cx);
    cx.registry.after(LOOK_EVERY, look);
}

/// Gives every idle worker a task, while there are any.
fn give_tasks(cx: &mut Cx<'_, Master>) {
    for worker in 0..cx.state.workers.len() {
        let it = &cx.state.workers[worker];
        if !it.is_alive || it.is_busy {
            continue;
        }
        let Some(task) = cx.state.next_task(cx.registry.now()) else { break };
        give(task, worker, cx);
    }
    let is_idle = |worker: &Worker| !worker.is_alive || !worker.is_busy;
    if cx.state.workers.iter().all(|worker| !worker.is_alive) {
        fail("every worker has crashed".into(), cx);
    } else if cx.state.is_done() && cx.state.workers.iter().all(is_idle) {
        // The slow ones are waited for, only to show that what they bring is refused.
        cx.registry.stop();
    }
}

fn give(task: Task, worker: usize, cx: &mut Cx<'_, Master>) {
    let now = cx.registry.now();
    let progress = cx.state.progress(task);
    if !progress.running.is_empty() {
        println!("{task} takes long: worker {worker} gets it, too");
        cx.state.tally.backups += 1;
    } else if progress.times_given > 0 {
        println!("{task} is given again, to worker {worker}");
        cx.state.tally.given_again += 1;
    }
    let progress = cx.state.progress(task);
    progress.running.push(worker);
    progress.given = Some(now);
    progress.times_given += 1;
    cx.state.workers[worker].is_busy = true;
    let client = cx.state.workers[worker].client;
    let partitions = cx.state.reduces.len();
    match task {
        Task::Map(part) => {
            let text = cx.state.parts[part].as_str();
            client.call(cx.registry, map, (part, text, partitions), move |reply, cx| {
                let counts = reply.map(|()| Counts::new());
                ended(task, worker, counts.map_err(|error| failure(&error)), cx);
            });
        }
        Task::Reduce(partition) => {
            let mapped = cx.state.maps.iter().enumerate();
            let sources = mapped.filter_map(|(part, task)| {
                let worker = &cx.state.workers[task.accepted.as_ref()?.worker];
                Some(Mapped { part, worker: worker.address.clone() })
            });
            let sources = sources.collect();
            client.call(cx.registry, reduce, (partition, sources), move |reply, cx| {
                ended(task, worker, reply.map_err(|error| failure(&error)), cx);
            });
        }
    }
}

/// Why a worker did not do a task. That it ran, did not run, or may have run (`error.ran()`) is all
/// the same to a master: no task has an effect that a second run would repeat.
fn failure<E: std::fmt::Display>(error: &CallError<E>) -> String {
    error.to_string()
}

/// A call has ended: its result is accepted if it is the first, and refused if not.
fn ended(task: Task, worker: usize, result: Result<Counts, String>, cx: &mut Cx<'_, Master>) {
    let is_alive = cx.state.workers[worker].is_alive;
    cx.state.workers[worker].is_busy = false;
    let progress = cx.state.progress(task);
    progress.running.retain(|&it| it != worker);
    match result {
        Ok(_) if progress.accepted.is_some() => {
            println!("{task} by worker {worker} is refused: it is done already");
            cx.state.tally.duplicates_refused += 1;
        }
        // Of a worker that is given up, nothing counts: its counts could not be fetched.
        Ok(counts) if is_alive => progress.accepted = Some(Accepted { worker, counts }),
        Ok(_) => {}
        Err(error) => println!("{task} by worker {worker}: {error}"),
    }
    give_tasks(cx);
}

/// Notices a worker that goes and does not come back.
fn watch(worker: usize, state: &State, cx: &mut Cx<'_, Master>) {
    if !matches!(state, State::Disconnected { .. }) {
        return;
    }
    cx.registry.after(AWAY_MAX, move |cx| {
        let client = cx.state.workers[worker].client;
        if !matches!(client.state(cx.registry), State::Connected { .. }) {
            give_up(worker, cx);
        }
    });
}

/// Counts on a worker no more. Its task is given to another, and so is what it had mapped, if that
/// is still needed.
fn give_up(worker: usize, cx: &mut Cx<'_, Master>) {
    if !std::mem::replace(&mut cx.state.workers[worker].is_alive, false) {
        return;
    }
    println!("worker {worker} has crashed");
    cx.state.tally.crashes += 1;
    if !cx.state.is_done() {
        let by_it = |task: &&mut Progress| {
            task.accepted.as_ref().is_some_and(|accepted| accepted.worker == worker)
        };
        let lost: Vec<_> = cx.state.maps.iter_mut().filter(by_it).collect();
        cx.state.tally.mapped_again += lost.len() as u64;
        for task in lost {
            task.accepted = None;
        }
    }
    // Its call ends by this: not executed, or indeterminate. Its continuation gives the task again.
    cx.state.workers[worker].client.close(cx.registry);
    give_tasks(cx);
}

fn fail(why: String, cx: &mut Cx<'_, Master>) {
    cx.state.failure.get_or_insert(why);
    cx.registry.stop();
}

impl Tally {
    fn print(&self, maps: usize, reduces: usize, workers: usize) {
        println!("{maps} map tasks and {reduces} reduce tasks by {workers} workers");
        println!("crashes: {}", self.crashes);
        println!("tasks given again: {}", self.given_again);
        println!("of them mapped before, and lost: {}", self.mapped_again);
        println!("backup tasks: {}", self.backups);
        println!("duplicates refused: {}", self.duplicates_refused);
    }
}
