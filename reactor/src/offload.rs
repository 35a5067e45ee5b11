//! Slow jobs, off the loop: a bounded pool of threads.
//!
//! The job crosses to a thread of the pool, its result comes back by a channel, and its
//! continuation, which need not be `Send`, waits on the loop in a slab. The mutex in here guards
//! the queue of jobs alone; the loop holds it for a push.

use std::any::Any;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use slab::Slab;

use crate::Cx;
use crate::remote::Bell;

/// The job panicked on its thread; its continuation learns of it by this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPanicked {
    message: String,
}

impl JobPanicked {
    /// Returns the message of the panic, if it was a string, as those of `panic!` are.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn from_payload(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self { message: text.unwrap_or("(not a string)").to_owned() }
    }
}

impl fmt::Display for JobPanicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the offloaded job panicked: {}", self.message)
    }
}

impl Error for JobPanicked {}

/// A job was refused: as many as allowed wait already, or there is no thread to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadFull {
    waiting: usize,
    threads: usize,
}

impl OffloadFull {
    /// Returns how many jobs were waiting for a thread.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns how many threads the pool had.
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl fmt::Display for OffloadFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.threads == 0 {
            return f.write_str("the offload pool has no thread and none could be started");
        }
        let Self { waiting, threads } = self;
        write!(f, "the offload queue is full: {waiting} jobs wait for {threads} threads")
    }
}

impl Error for OffloadFull {}

type Job = Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>;
type JobResult = Result<Box<dyn Any + Send>, JobPanicked>;
type Done<S> = Box<dyn FnOnce(JobResult, &mut Cx<'_, S>)>;

/// The loop's side of the pool.
pub(crate) struct Offload<S: 'static> {
    threads_max: usize,
    queue_max: usize,
    threads: usize,
    shared: Arc<Shared>,
    /// Continuations of the jobs under way; a job knows its key here.
    waiting: Slab<Done<S>>,
    /// Jobs of a simulated reactor whose continuations have not run.
    simulated: usize,
    completed: Receiver<(usize, JobResult)>,
    completed_sender: Sender<(usize, JobResult)>,
    bell: Arc<Bell>,
}

impl<S> Offload<S> {
    pub(crate) fn new(threads_max: usize, queue_max: usize, bell: Arc<Bell>) -> Self {
        let (completed_sender, completed) = mpsc::channel();
        Self {
            threads_max,
            queue_max,
            threads: 0,
            shared: Arc::default(),
            waiting: Slab::new(),
            simulated: 0,
            completed,
            completed_sender,
            bell,
        }
    }

    /// Runs a job of a simulated reactor here and now; its result is for the continuation, later.
    pub(crate) fn run<T>(
        &mut self,
        job: impl FnOnce() -> T,
    ) -> Result<Result<T, JobPanicked>, OffloadFull> {
        let waiting = self.simulated.saturating_sub(self.threads_max);
        if self.threads_max == 0 || waiting >= self.queue_max.max(1) {
            return Err(OffloadFull { waiting, threads: self.threads_max });
        }
        self.simulated += 1;
        Ok(run_job(job))
    }

    /// The continuation of a job of a simulated reactor runs.
    pub(crate) fn ran(&mut self) {
        self.simulated -= 1;
    }

    pub(crate) fn start<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, JobPanicked>, &mut Cx<'_, S>) + 'static,
    ) -> Result<(), OffloadFull> {
        self.make_room()?;
        let key = self.waiting.insert(Box::new(move |result, cx| {
            // The box holds what the job below put into it, a `T`.
            done(result.map(|value| *value.downcast().expect("the job's own type")), cx);
        }));
        let job: Job = Box::new(move || Box::new(job()));
        self.shared.lock().jobs.push_back((key, job));
        self.shared.wanted.notify_one();
        Ok(())
    }

    /// Takes a finished job's continuation and result.
    pub(crate) fn pop_completed(&mut self) -> Option<(Done<S>, JobResult)> {
        let (key, result) = self.completed.try_recv().ok()?;
        Some((self.waiting.remove(key), result))
    }

    /// Sees to it that one more job will find a place in the queue and a thread in the end.
    fn make_room(&mut self) -> Result<(), OffloadFull> {
        let queue = self.shared.lock();
        let (waiting, busy) = (queue.jobs.len(), queue.busy);
        drop(queue);
        // A job that a free thread is about to take does not wait.
        let free = self.threads - busy;
        if waiting >= free && self.threads < self.threads_max && self.start_thread() {
            return Ok(());
        }
        if self.threads == 0 || waiting >= self.queue_max.saturating_add(free) {
            return Err(OffloadFull { waiting, threads: self.threads });
        }
        Ok(())
    }

    /// Returns whether there is a thread more.
    fn start_thread(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let completed = self.completed_sender.clone();
        let bell = Arc::clone(&self.bell);
        let builder = thread::Builder::new().name("onceloop-offload".to_owned());
        match builder.spawn(move || shared.work(&completed, &bell)) {
            Ok(_) => {
                self.threads += 1;
                true
            }
            Err(error) => {
                log::warn!("an offload thread could not be started: {error}");
                false
            }
        }
    }
}

impl<S> Drop for Offload<S> {
    /// Drops the jobs that wait and lets the threads end, each after the job it is at. They are
    /// not waited for: a slow job must not hold up the loop, even at its end.
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        let jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        self.shared.wanted.notify_all();
        // Only now, without the lock: dropping a job runs its captures' destructors.
        drop(jobs);
    }
}

/// Runs a job, whatever it does.
fn run_job<T>(job: impl FnOnce() -> T) -> Result<T, JobPanicked> {
    panic::catch_unwind(AssertUnwindSafe(job)).map_err(|payload| {
        let panicked = JobPanicked::from_payload(&*payload);
        // A payload may panic as it is dropped, with another that may. That one is leaked: the job
        // must be reported and the thread live on.
        if let Err(nested) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(nested);
        }
        panicked
    })
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wanted: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(usize, Job)>,
    /// Threads that run a job.
    busy: usize,
    is_closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that can panic runs under the lock, so a poisoned one is whole all the same.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread of the pool.
    fn work(&self, completed: &Sender<(usize, JobResult)>, bell: &Bell) {
        while let Some((key, job)) = self.next_job() {
            let result = run_job(job);
            if completed.send((key, result)).is_err() {
                return;
            }
            self.lock().busy -= 1;
            bell.ring();
        }
    }

    fn next_job(&self) -> Option<(usize, Job)> {
        let mut queue = self.lock();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.busy += 1;
                return Some(job);
            }
            queue = self.wanted.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
