//! The load of a peer whose client is asynchronous: on one thread, a task for each call that may be
//! in flight, which makes one call after the other.

use std::cell::{Cell, RefCell};
use std::ops::DerefMut;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use futures::stream::{self, StreamExt};
use onceloop_benches::harness::{
    DRAIN_MAX, Generator, LoadOptions, Pace, STALL_MAX, Sources, Tally, Watch, index, nanoseconds,
};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::peer::runtime;

/// Connections that may be on their way at once: half of the shortest backlog in use.
const CONNECTING_MAX: usize = 64;

/// A peer's client.
pub(crate) trait Client: 'static {
    type Caller: Caller;

    /// Makes a client of its own for a connection that stands.
    async fn connect(&self, stream: TcpStream) -> Result<Self::Caller>;
}

/// One connection's client; a clone of it calls on the same connection.
pub(crate) trait Caller: Clone + 'static {
    /// Makes one call; its answer is what was sent.
    async fn call(&mut self) -> Result<()>;
}

/// The whole load.
pub(crate) struct Load<'a, C: Client> {
    options: &'a LoadOptions,
    client: C,
    sources: Sources,
    // Before what drives them, so that they end first.
    connections: Vec<Connection<C::Caller>>,
    tasks: JoinSet<()>,
    shared: Rc<Shared>,
    local: LocalSet,
    runtime: Runtime,
}

struct Connection<C> {
    caller: C,
    plan: Rc<Plan>,
}

/// What the tasks of one connection share.
struct Plan {
    id: u64,
    /// A permit for each call that has fallen due; only in an open loop.
    due: Semaphore,
    /// Calls made by plan.
    paced: Cell<u64>,
}

/// What all tasks share.
struct Shared {
    started: Instant,
    tally: RefCell<Tally>,
    /// Only in an open loop.
    pace: RefCell<Option<Pace>>,
    is_draining: Cell<bool>,
}

impl Shared {
    /// Returns the nanoseconds since it was made; never 0.
    fn now(&self) -> u64 {
        nanoseconds(self.started.elapsed()) + 1
    }

    fn fail(&self, why: &anyhow::Error) {
        self.tally.borrow_mut().fail(|| format!("{why:#}"));
    }

    /// Makes one call after the other, each when it is due, until the load drains or one fails.
    async fn call_on(self: Rc<Shared>, mut caller: impl Caller, plan: Rc<Plan>) {
        let is_paced = self.pace.borrow().is_some();
        while !self.is_draining.get() {
            let mut from = self.now();
            if is_paced {
                let has_waited = plan.due.available_permits() > 0;
                let Ok(permit) = plan.due.acquire().await else { return };
                permit.forget();
                let pace = self.pace.borrow();
                let Some(pace) = pace.as_ref() else { return };
                from = pace.due_at(plan.id, plan.paced.replace(plan.paced.get() + 1));
                // A call that waited for room is not late for the load's sake.
                if !has_waited {
                    self.tally.borrow_mut().record_lag(self.now().saturating_sub(from));
                }
            }
            match caller.call().await {
                Ok(()) => {
                    let latency_ns = self.now().saturating_sub(from);
                    self.tally.borrow_mut().record(latency_ns, 1);
                }
                Err(error) => return self.fail(&error.context(format!("connection {}", plan.id))),
            }
        }
    }
}

impl<'a, C: Client> Load<'a, C> {
    pub(crate) fn new(options: &'a LoadOptions, client: C) -> Result<Load<'a, C>> {
        Ok(Load {
            options,
            client,
            sources: Sources::new(options.port),
            connections: Vec::new(),
            tasks: JoinSet::new(),
            shared: Rc::new(Shared {
                started: Instant::now(),
                tally: RefCell::new(Tally::new()?),
                pace: RefCell::new(None),
                is_draining: Cell::new(false),
            }),
            local: LocalSet::new(),
            runtime: runtime()?,
        })
    }

    /// Adds permits for the calls that fall due until `end_ns`. It spins: timers are about 1 ms
    /// coarse.
    async fn keep_pace(&self, end_ns: u64) {
        loop {
            let now = self.shared.now();
            if now >= end_ns {
                return;
            }
            while let Some(id) =
                self.shared.pace.borrow_mut().as_mut().and_then(|p| p.next_due(now))
            {
                if let Some(connection) = self.connections.get(index(id)) {
                    connection.plan.due.add_permits(1);
                }
            }
            yield_now().await;
        }
    }
}

/// Begins the connection with this number and waits until it stands.
async fn connect<C: Client>(client: &C, sources: &Sources, number: usize) -> Result<C::Caller> {
    let stream = sources.connect(number).context("connecting")?;
    let stream = TcpStream::from_std(stream).context("taking over a socket")?;
    stream.writable().await.context("connecting")?;
    if let Some(error) = stream.take_error().context("connecting")? {
        return Err(error).context("connecting");
    }
    client.connect(stream).await
}

/// Returns what `work` does, within the time that a server has for an answer.
async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(STALL_MAX, work).await.unwrap_or_else(|_| Err(anyhow!("the server does not answer")))
}

impl<C: Client> Generator for Load<'_, C> {
    fn open(&mut self, until: u32) -> Result<()> {
        let Load { client, sources, connections, shared, .. } = self;
        let (client, sources) = (&*client, &*sources);
        self.local.block_on(&self.runtime, async {
            let mut watch = Watch::begin();
            let numbers = connections.len()..index(u64::from(until));
            let attempts = numbers.map(|number| async move {
                (number, in_time(connect(client, sources, number)).await)
            });
            let mut attempts = stream::iter(attempts).buffer_unordered(CONNECTING_MAX);
            while let Some((number, attempt)) = attempts.next().await {
                match attempt {
                    Ok(caller) => {
                        let (id, due) = (connections.len() as u64, Semaphore::new(0));
                        let plan = Rc::new(Plan { id, due, paced: Cell::new(0) });
                        connections.push(Connection { caller, plan });
                    }
                    Err(error) => shared.fail(&error.context(format!("connection {number}"))),
                }
                watch.tell(connections.len());
            }
        });
        Ok(())
    }

    fn settle(&mut self, from: u32, until: u32) -> Result<()> {
        let shared = &self.shared;
        let connections = self.connections.iter().skip(index(u64::from(from)));
        let connections = connections.take(index(u64::from(until - from)));
        let first_calls = stream::iter(connections).for_each_concurrent(None, |connection| {
            let mut caller = connection.caller.clone();
            async move {
                if let Err(error) = in_time(caller.call()).await {
                    shared.fail(&error.context("the first call"));
                }
            }
        });
        self.local.block_on(&self.runtime, first_calls);
        Ok(())
    }

    fn begin_calls(&mut self) {
        let pace = Pace::new(self.options.rate, self.options.connections, self.shared.now());
        *self.shared.pace.borrow_mut() = pace;
        for connection in self.connections.iter().take(index(u64::from(self.options.connections))) {
            for _ in 0..self.options.in_flight {
                let shared = Rc::clone(&self.shared);
                let caller = connection.caller.clone();
                let calls = shared.call_on(caller, Rc::clone(&connection.plan));
                self.tasks.spawn_local_on(calls, &self.local);
            }
        }
    }

    fn call_until(&mut self, end_ns: u64) -> Result<()> {
        let is_paced = self.shared.pace.borrow().is_some();
        let end = self.shared.started + std::time::Duration::from_nanos(end_ns);
        self.local.block_on(&self.runtime, async {
            match is_paced {
                true => self.keep_pace(end_ns).await,
                false => sleep(end.saturating_duration_since(Instant::now())).await,
            }
        });
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        self.shared.is_draining.set(true);
        for connection in &self.connections {
            connection.plan.due.close();
        }
        let tasks = &mut self.tasks;
        let ended = self.local.block_on(&self.runtime, async {
            let all = async { while tasks.join_next().await.is_some() {} };
            timeout(DRAIN_MAX, all).await.is_ok()
        });
        if !ended {
            for _ in 0..self.tasks.len() {
                self.shared.fail(&anyhow!("a last call was not answered"));
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.tasks.abort_all();
        self.connections.clear();
        Ok(())
    }

    fn now(&self) -> u64 {
        self.shared.now()
    }

    fn granted(&self) -> (u32, u32) {
        (self.options.in_flight, self.options.in_flight)
    }

    fn tally(&mut self) -> impl DerefMut<Target = Tally> {
        self.shared.tally.borrow_mut()
    }
}
