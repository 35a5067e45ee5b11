//! System calls of server and client for a round of requests.

use anyhow::{Context, Result};

use super::answerer::Answerer;
use super::bounds::{self, CallBounds};
use super::caller::{CallerOptions, Done};
use super::tracer::{Calls, Tracer};
use super::{Count, Outcome};
use crate::child::Part;
use crate::options::{ServerKind, ServerOptions};
use crate::run::listening;
use crate::stats::count as number;
use crate::traffic::{Kind, Traffic};

/// Bytes of a call's argument.
const PAYLOAD: u64 = 16;
/// Connections that have made a call and are silent while others are counted.
const IDLE: u32 = 300;
/// Rounds before anything is counted: buffers grow in the first ones.
const ROUNDS_WARM: u32 = 100;
/// Rounds that are counted.
const ROUNDS: u32 = 20;
/// What Linux calls the process that is started from this program's file, and its first thread.
const PROGRAM: &str = "c10k";
/// The thread of a server's process that serves.
const SERVER_THREAD: &str = "server";

/// Counts all.
pub(super) fn count() -> Result<Outcome> {
    let mut counts = Vec::new();
    for bounds in &bounds::SYSTEM_CALLS {
        let CallBounds { is_client, connections, in_flight, .. } = *bounds;
        let calls = match is_client {
            true => of_client(connections, in_flight).context("the client")?,
            false => of_server(connections, in_flight).context("the server")?,
        };
        let Some(calls) = calls else {
            let why = "this process may not trace others (ptrace is not permitted)";
            return Ok(Outcome::Skipped(why.to_owned()));
        };
        for call in calls.others.keys() {
            eprintln!("guards: system call {call}, which is none of the hot path's");
        }
        counts.extend(bounds.counts(&calls));
    }
    Ok(Outcome::Counted(counts))
}

/// Counts the calls of a server for one request on each of `connections` times `in_flight`.
fn of_server(connections: u32, in_flight: u32) -> Result<Option<Calls>> {
    let options = ServerOptions::quiet(ServerKind::Event, connections + IDLE);
    let (server, port) = listening(Part::start("serve", "the server".to_owned(), &options))?;
    let open = |in_flight| {
        let mut traffic = Traffic::open(Kind::Protected, port, in_flight, PAYLOAD)?;
        traffic.rounds(1)?;
        anyhow::Ok(traffic)
    };
    let _idle = (0..IDLE).map(|_| open(1)).collect::<Result<Vec<_>>>()?;
    let mut busy = (0..connections).map(|_| open(in_flight)).collect::<Result<Vec<_>>>()?;
    let Some(tracer) = Tracer::attach(server.process_id(), SERVER_THREAD)? else {
        return Ok(None);
    };
    let round = || {
        busy.iter_mut().try_for_each(Traffic::begin_round)?;
        tracer.run_until(|| {
            busy.iter_mut().try_fold(true, |all, traffic| Ok(traffic.is_round_over()? && all))
        })
    };
    count_rounds(round).map(Some)
}

/// Counts the calls of a client's process for `in_flight` calls on each of `connections`.
fn of_client(connections: u32, in_flight: u32) -> Result<Option<Calls>> {
    let mut server = Answerer::listen()?;
    let (port, rounds) = (server.port()?, None);
    let options = CallerOptions { port, connections, in_flight, payload: PAYLOAD, rounds };
    let client: Part<Done> = Part::start("call", "the client".to_owned(), &options)?;
    server.accept(connections)?;
    let Some(tracer) = Tracer::attach(client.process_id(), PROGRAM)? else { return Ok(None) };
    let requests = u64::from(connections) * u64::from(in_flight);
    // Of the first round there may be anything between nothing and all.
    if server.requests()? < requests {
        tracer.run_until(|| Ok(server.requests()? == requests))?;
    }
    let round = || {
        server.answer()?;
        tracer.run_until(|| Ok(server.requests()? == requests))
    };
    count_rounds(round).map(Some)
}

/// Returns what all counted rounds take.
fn count_rounds(mut round: impl FnMut() -> Result<Calls>) -> Result<Calls> {
    for _ in 0..ROUNDS_WARM {
        round()?;
    }
    let mut sum = Calls::default();
    for _ in 0..ROUNDS {
        sum += round()?;
    }
    Ok(sum)
}

impl CallBounds {
    /// Returns what a round of `ROUNDS` that took `calls` is on average.
    fn counts(&'static self, calls: &Calls) -> [Count; 4] {
        let [reads, writes, waits, others] = &self.bounds;
        let of = |bound, calls| Count { bound, number: number(calls) / f64::from(ROUNDS) };
        [
            of(reads, calls.reads),
            of(writes, calls.writes),
            of(waits, calls.waits),
            of(others, calls.others.values().sum()),
        ]
    }
}
