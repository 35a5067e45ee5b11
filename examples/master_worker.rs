//! A master that gives tasks to many workers by asynchronous calls and handles replies as they
//! come: whoever is done first gets the next task. One worker is slow, and holds nobody up.
//!
//! Master and workers are programs of their own on threads of their own, each with its own loop;
//! they share nothing but sockets.
//!
//! Run it: `cargo run --example master_worker`

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use onceloop::{Address, Builder, Client, Cx, Reactor};

const WORKERS: usize = 4;
const TASKS: usize = 40;
/// How long the slow worker takes for a task.
const SLOW: Duration = Duration::from_millis(200);

onceloop::service! {
    /// Does tasks.
    pub mod worker {
        /// Runs a task: sums the squares below `n`.
        fn run_task(n: usize) -> u64;
    }
}

/// What the master keeps.
struct Master {
    workers: Vec<Client<Master>>,
    tasks: std::ops::Range<usize>,
    /// Results by task.
    results: Vec<Option<u64>>,
    /// How many tasks each worker did.
    done_by: Vec<usize>,
    failures: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let mut master = Master {
        workers: Vec::new(),
        tasks: 0..TASKS,
        results: vec![None; TASKS],
        done_by: vec![0; WORKERS],
        failures: 0,
    };
    for worker in 0..WORKERS {
        let address = start_worker(worker)?;
        master.workers.push(Client::connect(reactor.registry(), address)?);
    }
    reactor.registry().defer(|cx| {
        for worker in 0..WORKERS {
            give_task(worker, cx);
        }
    });
    reactor.run(&mut master)?;

    let sum: u64 = master.results.iter().flatten().sum();
    println!("{TASKS} tasks by {WORKERS} workers, in sum {sum}; {} failed", master.failures);
    for (worker, done) in master.done_by.iter().enumerate() {
        println!("worker {worker} did {done}{}", if worker == 0 { " (the slow one)" } else { "" });
    }
    Ok(())
}

/// Gives a worker the next task; its reply asks for the one after.
fn give_task(worker: usize, cx: &mut Cx<'_, Master>) {
    let Some(task) = cx.state.tasks.next() else {
        if cx.state.results.iter().flatten().count() + cx.state.failures == TASKS {
            cx.registry.stop();
        }
        return;
    };
    let client = cx.state.workers[worker];
    client.call(cx.registry, worker::run_task, (task,), move |reply, cx| {
        match reply {
            Ok(result) => {
                cx.state.results[task] = Some(result);
                cx.state.done_by[worker] += 1;
            }
            // Whether it may be given to another worker is told by `error.ran()`.
            Err(error) => {
                eprintln!("task {task}: {error}");
                cx.state.failures += 1;
            }
        }
        give_task(worker, cx);
    });
}

/// Starts a worker and returns where it listens. It ends with the process.
fn start_worker(worker: usize) -> Result<Address, Box<dyn Error>> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        if let Err(error) = work(worker, &tell) {
            eprintln!("worker {worker}: {error}");
        }
    });
    Ok(told.recv()?)
}

fn work(worker: usize, tell: &mpsc::Sender<Address>) -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::<()>::new()?;
    let server = Builder::new()
        .deferred(worker::run_task, move |(n,), responder, cx| {
            let result = (0..n as u64).map(|i| i * i).sum();
            // A slow worker, not a blocked one: the answer waits in a timer.
            let delay = if worker == 0 { SLOW } else { Duration::ZERO };
            cx.registry.after(delay, move |cx| responder.respond(cx, Ok(result)));
        })
        .listen(reactor.registry(), "127.0.0.1:0")?;
    tell.send(server.local_addresses(reactor.registry()).remove(0))?;
    Ok(reactor.run(&mut ())?)
}
