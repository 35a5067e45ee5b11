//! A worker: a server of the master, and client and server of the other workers, on one loop.

use std::collections::HashMap;
use std::error::Error;
use std::process;
use std::thread;
use std::time::Duration;

use onceloop::{Builder, CallOptions, Client, Context, Cx, Reactor, Responder};

use crate::process::{end_with_the_master, tell};
use crate::worker_service::{self, fetch, map, reduce};
use crate::{Counts, Lost, Mapped, partition_of};

/// How long a slow worker takes for a task that others do in a millisecond.
const SLOW: Duration = Duration::from_millis(1_000);
/// How long a reduce task waits for what another worker has mapped.
const FETCH_WITHIN: Duration = Duration::from_millis(500);
/// A worker that the master has forgotten ends by itself.
const LIFE_MAX: Duration = Duration::from_secs(120);

/// What goes wrong with a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    /// It crashes in the middle of its first map task.
    CrashesAsItMaps,
    /// It crashes as soon as a reduce task needs it: its own or another worker's.
    CrashesAsItReduces,
    /// It is a straggler.
    Slow,
    Steady,
}

impl Temper {
    const ALL: [Temper; 4] =
        [Temper::CrashesAsItMaps, Temper::CrashesAsItReduces, Temper::Slow, Temper::Steady];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Temper::CrashesAsItMaps => "crashes-as-it-maps",
            Temper::CrashesAsItReduces => "crashes-as-it-reduces",
            Temper::Slow => "slow",
            Temper::Steady => "steady",
        }
    }

    pub(crate) fn named(name: &str) -> Result<Temper, String> {
        let found = Temper::ALL.into_iter().find(|temper| temper.name() == name);
        found.ok_or_else(|| format!("no such worker: {name}"))
    }
}

struct Worker {
    temper: Temper,
    /// What was mapped here: of each part its counts by partition.
    mapped: HashMap<usize, Vec<Counts>>,
    /// The workers from which something was fetched, by address.
    others: HashMap<String, Client<Worker>>,
    /// Reduce tasks under way, by number.
    reducing: HashMap<u64, Reducing>,
    reduces_begun: u64,
}

/// A reduce task that waits for other workers.
struct Reducing {
    responder: Responder<Worker, reduce>,
    sources_left: usize,
    counts: Counts,
}

/// Serves until the master ends, or `LIFE_MAX` has passed.
pub(crate) fn run(temper: Temper) -> Result<(), Box<dyn Error>> {
    end_with_the_master();
    let mut reactor = Reactor::new()?;
    let server = Builder::<Worker>::new()
        .service(worker_service::METHODS)
        .deferred(map, |(part, text, partitions), responder, cx| {
            map_part(part, text.to_owned(), partitions, responder, cx);
        })
        .deferred(reduce, |(partition, sources), responder, cx| {
            begin_to_reduce(partition, sources, responder, cx);
        })
        .method(fetch, |(part, partition), cx| {
            if cx.state.temper == Temper::CrashesAsItReduces {
                process::abort();
            }
            let mapped = cx.state.mapped.get(&part).and_then(|counts| counts.get(partition));
            Ok(mapped.ok_or("that part was not mapped here")?.clone())
        })
        .listen(reactor.registry(), "127.0.0.1:0")?;
    tell(&server.local_addresses(reactor.registry())[0].to_string())?;
    reactor.registry().after(LIFE_MAX, |cx| cx.registry.stop());
    let mut worker = Worker {
        temper,
        mapped: HashMap::new(),
        others: HashMap::new(),
        reducing: HashMap::new(),
        reduces_begun: 0,
    };
    Ok(reactor.run(&mut worker)?)
}

/// Counts on a thread of the pool: meanwhile the loop answers other workers.
fn map_part(
    part: usize,
    text: String,
    partitions: usize,
    responder: Responder<Worker, map>,
    cx: &mut Context<'_, Worker>,
) {
    let temper = cx.state.temper;
    let job = move || {
        if temper == Temper::Slow {
            thread::sleep(SLOW);
        }
        let mut counts = vec![Counts::new(); partitions];
        for (at, word) in text.split_whitespace().enumerate() {
            if temper == Temper::CrashesAsItMaps && at > 0 {
                process::abort();
            }
            *counts[partition_of(word, partitions)].entry(word.to_owned()).or_default() += 1;
        }
        counts
    };
    let offloaded = cx.registry.offload(job, move |counts, cx| match counts {
        Ok(counts) => {
            // A part that comes again is counted to the same: nothing is added to what was there.
            cx.state.mapped.insert(part, counts);
            responder.respond(cx, Ok(()));
        }
        Err(panic) => responder.respond(cx, Err(panic.to_string().into())),
    });
    if let Err(full) = offloaded {
        eprintln!("{full}"); // and the responder, dropped, has answered with an error
    }
}

/// Asks every source for its counts of the partition; the last answer ends the task.
fn begin_to_reduce(
    partition: usize,
    sources: Vec<Mapped>,
    responder: Responder<Worker, reduce>,
    cx: &mut Context<'_, Worker>,
) {
    if cx.state.temper == Temper::CrashesAsItReduces {
        process::abort();
    }
    cx.state.reduces_begun += 1;
    let number = cx.state.reduces_begun;
    let reducing = Reducing { responder, sources_left: sources.len(), counts: Counts::new() };
    cx.state.reducing.insert(number, reducing);
    let mut cx = cx.as_cx();
    for Mapped { part, worker } in sources {
        // To itself, too: that is a call like any other.
        let client = match client_of(&worker, &mut cx) {
            Ok(client) => client,
            Err(error) => {
                eprintln!("{worker}: {error}");
                return end_reduce(number, Err(Lost { part }), &mut cx);
            }
        };
        // It may be asked twice without harm, and the answer need not be kept for a second time.
        let options = CallOptions::new().at_least_once().deadline(FETCH_WITHIN);
        client.call_with(cx.registry, options, fetch, (part, partition), move |reply, cx| {
            match reply {
                Ok(counts) => collect(number, counts, cx),
                Err(_) => end_reduce(number, Err(Lost { part }), cx),
            }
        });
    }
}

fn client_of(worker: &str, cx: &mut Cx<'_, Worker>) -> std::io::Result<Client<Worker>> {
    if let Some(client) = cx.state.others.get(worker) {
        return Ok(*client);
    }
    let client = Client::connect(cx.registry, worker)?;
    cx.state.others.insert(worker.to_owned(), client);
    Ok(client)
}

fn collect(number: u64, counts: Counts, cx: &mut Cx<'_, Worker>) {
    // Gone, if another source of it was lost.
    let Some(reducing) = cx.state.reducing.get_mut(&number) else { return };
    for (word, n) in counts {
        *reducing.counts.entry(word).or_default() += n;
    }
    reducing.sources_left -= 1;
    if reducing.sources_left > 0 {
        return;
    }
    let counts = std::mem::take(&mut reducing.counts);
    if cx.state.temper == Temper::Slow {
        cx.registry.after(SLOW, move |cx| end_reduce(number, Ok(counts), cx));
    } else {
        end_reduce(number, Ok(counts), cx);
    }
}

fn end_reduce(number: u64, result: Result<Counts, Lost>, cx: &mut Cx<'_, Worker>) {
    if let Some(reducing) = cx.state.reducing.remove(&number) {
        reducing.responder.respond(cx, result);
    }
}
