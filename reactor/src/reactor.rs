//! The turn.
//!
//! Everything that a turn has still to do lives in fields (queues, batches, what is left of
//! each), and is taken out just before it is done. So a callback that panics loses its own call
//! and nothing else: the next turn goes on where this one stopped.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::id::RawId;
use crate::poll::Poll;
use crate::registry::{Action, Queues, WAKER_TOKEN};
use crate::sim::{Host, Seat};
use crate::source::Asked;
use crate::spin;
use crate::{Config, Cx, Input, Io, Registry};

/// An event loop over a state of type `S`.
///
/// [`run`](Reactor::run) makes it the main loop of a thread. To run it inside a loop of the host,
/// poll its descriptor ([`AsFd`]) for reading, for no longer than until
/// [`next_deadline`](Reactor::next_deadline), and then call [`turn`](Reactor::turn) with a
/// timeout of zero.
///
/// Not `Send`: a reactor and all that is on it stay on one thread. Others reach it by a
/// [`Remote`](crate::Remote).
///
/// ```compile_fail
/// fn is_send<T: Send>() {}
/// is_send::<onceloop_reactor::Reactor<()>>();
/// ```
///
/// Dropped, it drops its sources and every continuation that has not run, without running it.
pub struct Reactor<S: 'static> {
    config: Config,
    events: mio::Events,
    turn_buffer: Vec<u8>,
    /// Bytes of the turn buffer that batches take.
    filled: usize,
    /// Bytes that were read elsewhere in this turn: as many fewer go into the turn buffer.
    spent: usize,
    batches: VecDeque<Batch>,
    registry: Registry<S>,
}

/// What a source is to be dispatched with: a range, perhaps empty, of the turn buffer.
#[derive(Debug)]
struct Batch {
    source: RawId,
    start: usize,
    end: usize,
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// Events that the poll brought.
    pub events: usize,
    /// Callbacks that ran: timers, tasks, continuations of jobs, dispatches.
    pub tasks: usize,
    /// [`Registry::stop`] was called, in this turn or before it; reported once.
    pub stopped: bool,
}

impl<S> Reactor<S> {
    /// Makes a reactor with the bounds of [`Config::default`].
    ///
    /// # Errors
    ///
    /// If the system has no descriptor left for the poll or its waker.
    pub fn new() -> io::Result<Self> {
        Self::with_config(Config::default())
    }

    /// Makes a reactor with bounds of its own.
    ///
    /// # Errors
    ///
    /// As [`Reactor::new`].
    pub fn with_config(config: Config) -> io::Result<Self> {
        let config = config.clamped(false);
        Ok(Self {
            events: mio::Events::with_capacity(config.events),
            turn_buffer: vec![0; config.turn_buffer_bytes],
            filled: 0,
            spent: 0,
            batches: VecDeque::new(),
            registry: Registry::new(&config)?,
            config,
        })
    }

    /// Makes a reactor that sits on a host of a [simulated world](crate::sim). It takes no
    /// descriptor, and its time is the host's.
    ///
    /// A [`Simulation`](crate::sim::Simulation) makes its turns. [`Config::simulated`] has bounds
    /// that suit it.
    pub fn simulated(host: &Host, config: Config) -> Self {
        let config = config.clamped(true);
        Self {
            events: mio::Events::with_capacity(0),
            turn_buffer: vec![0; config.turn_buffer_bytes],
            filled: 0,
            spent: 0,
            batches: VecDeque::new(),
            registry: Registry::over(Poll::Sim(Seat::new(host)), None, &config),
            config,
        }
    }

    /// Runs turns until [`Registry::stop`] is called. May be called again afterwards.
    ///
    /// With nothing to wait for it waits all the same: another thread may post a task.
    ///
    /// # Errors
    ///
    /// As [`Reactor::turn`].
    ///
    /// # Panics
    ///
    /// As [`Reactor::turn`], and if the reactor is [simulated](crate::sim): its time passes in
    /// [`Simulation::step`](crate::sim::Simulation::step) only.
    pub fn run(&mut self, state: &mut S) -> io::Result<()> {
        let is_simulated = matches!(self.registry.poll, Poll::Sim(_));
        assert!(!is_simulated, "a simulated reactor is run by its Simulation");
        while !self.turn(state, None)?.stopped {}
        Ok(())
    }

    /// Makes one turn; see the [crate's documentation](crate) for what that is.
    ///
    /// It blocks until something happens, a timer is due or `timeout` has passed (`None`: for
    /// ever); not at all if anything is runnable already, or the reactor is
    /// [simulated](crate::sim).
    ///
    /// # Errors
    ///
    /// What the poll says. An interruption by a signal is no error: the turn goes on.
    ///
    /// # Panics
    ///
    /// If a callback does: its panic passes through. The reactor stays whole. The next turn runs
    /// what this one left undone, and none of what it did.
    pub fn turn(&mut self, state: &mut S, timeout: Option<Duration>) -> io::Result<Turn> {
        // What callbacks of this turn defer or wake is for the next one: count first.
        let deferred = self.registry.deferred.len();
        let woken = self.registry.woken.len();

        self.poll(timeout)?;
        self.registry.now = self.registry.poll.now();
        let events = self.take_events();
        // After a panic, batches of the last turn are still in the turn buffer. They go first.
        if self.batches.is_empty() {
            (self.filled, self.spent) = (0, 0);
            self.read_ready();
        }
        // Sources that go on with what they could not write before; answers of this turn go first.
        let going_on = self.registry.touched.len();
        self.batch_woken(woken);
        self.registry.timers.collect_due(self.registry.now);

        let timers = self.run_timers(state);
        let posted = self.run_posted(state);
        let deferred = self.run_deferred(state, deferred);
        let completed = self.run_completed(state);
        if posted < self.config.posted_per_turn && completed < self.config.completions_per_turn {
            self.registry.has_more_from_threads = false;
        }
        let dispatched = self.run_batches(state, timers == 0);
        self.flush_touched(going_on);
        let tasks = timers + posted + deferred + completed + dispatched;
        Ok(Turn { events, tasks, stopped: mem::take(&mut self.registry.is_stopping) })
    }

    /// Lends the registry between turns, with the clock read afresh.
    pub fn registry(&mut self) -> &mut Registry<S> {
        self.registry.now = self.registry.poll.now();
        &mut self.registry
    }

    /// Returns when the next turn has to be made even if no descriptor is ready: now, while
    /// anything is runnable; never (`None`), if no timer is armed.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_runnable() {
            return Some(self.registry.poll.now());
        }
        self.registry.timers.next_deadline()
    }

    fn is_runnable(&self) -> bool {
        !self.batches.is_empty() || self.registry.is_runnable()
    }
}

/// The descriptor of the poll: readable while the reactor has events to take.
///
/// It says nothing of timers and tasks: [`Reactor::next_deadline`] does.
///
/// # Panics
///
/// A [simulated](crate::sim) reactor has no descriptor.
impl<S> AsFd for Reactor<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.registry.poll {
            Poll::Mio(poll) => poll.registry().as_fd(),
            Poll::Sim(_) => panic!("a simulated reactor has no descriptor"),
        }
    }
}

impl<S> fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("config", &self.config)
            .field("batches", &self.batches.len())
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// Steps 1 to 4: no user code is reached from here.
impl<S> Reactor<S> {
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if let Poll::Sim(_) = self.registry.poll {
            return Ok(());
        }
        let mut wait = self.wait(timeout);
        if self.config.spin_us > 0 && wait != Some(Duration::ZERO) {
            if self.spin(wait)? {
                return Ok(());
            }
            let spun = Duration::from_micros(self.config.spin_us);
            wait = self.wait(timeout.map(|timeout| timeout.saturating_sub(spun)));
        }
        self.poll_once(wait)
    }

    /// How long the poll may block. mio rounds up to what the system counts in, so a timer is
    /// never early, and the turn before it never busy.
    fn wait(&self, timeout: Option<Duration>) -> Option<Duration> {
        if self.is_runnable() || timeout == Some(Duration::ZERO) {
            return Some(Duration::ZERO);
        }
        let Some(deadline) = self.registry.timers.next_deadline() else { return timeout };
        // The time of the last turn will not do: its callbacks took some since. This is the one
        // other reading of the clock, paid only when there is a timer and time to block.
        let until = deadline.saturating_duration_since(Instant::now());
        Some(timeout.map_or(until, |timeout| timeout.min(until)))
    }

    /// Polls without blocking for `spin_us`, or `wait` if that is less. Returns whether anything
    /// came of it.
    fn spin(&mut self, wait: Option<Duration>) -> io::Result<bool> {
        let spin = Duration::from_micros(self.config.spin_us);
        spin::spin(wait.map_or(spin, |wait| wait.min(spin)), Instant::now, || {
            self.poll_once(Some(Duration::ZERO))?;
            // Whoever rings makes an event, too, but a little later.
            Ok(!self.events.is_empty() || self.registry.bell.is_rung())
        })
    }

    fn poll_once(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let Poll::Mio(poll) = &mut self.registry.poll else { return Ok(()) };
        match poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves the sources of all events to the ready queue.
    fn take_events(&mut self) -> usize {
        let mut count = 0;
        for event in &self.events {
            count += 1;
            if event.token() == WAKER_TOKEN {
                self.registry.has_more_from_threads = true;
            } else {
                self.registry.note_event(event);
            }
        }
        while let Poll::Sim(seat) = &self.registry.poll
            && let Some((source, readiness)) = seat.next_event()
        {
            count += 1;
            self.registry.note_simulated(source, readiness);
        }
        count
    }

    /// The I/O phase: each ready source, once, while there is room in the turn buffer. The rest
    /// stay ready.
    fn read_ready(&mut self) {
        let alone = self.is_alone_for_reading();
        for _ in 0..self.registry.ready.len() {
            let free = self.turn_buffer.len() - self.filled - self.spent;
            if free < Config::TURN_BUFFER_FREE_BYTES_MIN {
                break;
            }
            let Some(source) = self.registry.ready.pop_front() else { break };
            let share = if alone { free } else { self.config.read_bytes_per_turn };
            self.read_source(source, share);
        }
    }

    /// Whether nothing but one source has anything to do, which may then go on for longer.
    fn is_alone_for_reading(&self) -> bool {
        let Registry { ready, woken, timers, now, .. } = &self.registry;
        ready.len() == 1
            && woken.iter().all(|source| *source == ready[0])
            && !timers.has_due()
            && timers.next_deadline().is_none_or(|deadline| deadline > *now)
    }

    fn read_source(&mut self, source: RawId, read_share: usize) {
        let Registry { slots, buffers, now, .. } = &mut self.registry;
        let slot = slots.get_mut(source.index as usize);
        let Some(slot) = slot.filter(|slot| slot.is(source)) else { return };
        let was_ready = slot.queues.leave(Queues::READY);
        debug_assert!(was_ready, "a source in the ready queue knows that it is there");
        let is_asked = slot.queues.leave(Queues::ASKED);
        let readiness = mem::take(&mut slot.readiness);

        let start = self.filled;
        let end = self.turn_buffer.len() - self.spent;
        let space = &mut self.turn_buffer[start..end];
        let write_share = self.config.write_bytes_per_turn;
        let mut io = Io::new(space, read_share, write_share, *now, buffers);
        let became_writable = slot.source.handle_event(readiness, is_asked, &mut io);
        let Asked { bytes, spent, again, flush, dispatch } = io.asked();

        self.spent += spent;
        if dispatch {
            let is_new = slot.queues.enter(Queues::BATCHED);
            debug_assert!(is_new, "one batch a turn");
            self.filled += bytes;
            self.batches.push_back(Batch { source, start, end: self.filled });
        }
        if again {
            self.registry.again_raw(source);
        }
        if became_writable || flush {
            self.registry.touch_raw(source);
        }
    }

    /// Gives an empty batch to each source woken before this turn that has none of its own.
    fn batch_woken(&mut self, count: usize) {
        for _ in 0..count {
            let Some(source) = self.registry.woken.pop_front() else { break };
            let Some(slot) = self.registry.slot_mut(source) else { continue };
            slot.queues.leave(Queues::WOKEN);
            if slot.queues.enter(Queues::BATCHED) {
                self.batches.push_back(Batch { source, start: self.filled, end: self.filled });
            }
        }
    }
}

/// Steps 6 and 7. Whatever is run is taken out of its queue first.
impl<S> Reactor<S> {
    fn run_timers(&mut self, state: &mut S) -> usize {
        let mut count = 0;
        while let Some(action) = self.registry.timers.pop_due() {
            let registry = &mut self.registry;
            match action {
                Action::Call(task) => task(&mut Cx { state, registry }),
                Action::Deadline(source) => {
                    // A removed source has taken its deadline with it, so this one is here.
                    let Some(slot) = registry.slot_mut(source) else { continue };
                    slot.deadline = None;
                    let call = slot.source.deadline_call();
                    call(&mut Cx { state, registry }, source);
                }
            }
            count += 1;
        }
        count
    }

    fn run_posted(&mut self, state: &mut S) -> usize {
        if !self.registry.has_more_from_threads && !self.registry.bell.is_rung() {
            return 0;
        }
        // Should a task panic, the flag brings us back.
        self.registry.has_more_from_threads = true;
        self.registry.bell.answer();
        let mut count = 0;
        while count < self.config.posted_per_turn {
            let Ok(task) = self.registry.posted.try_recv() else { break };
            task(&mut Cx { state, registry: &mut self.registry });
            count += 1;
        }
        count
    }

    fn run_deferred(&mut self, state: &mut S, limit: usize) -> usize {
        let mut count = 0;
        while count < limit {
            let Some(task) = self.registry.deferred.pop_front() else { break };
            task(&mut Cx { state, registry: &mut self.registry });
            count += 1;
        }
        count
    }

    fn run_completed(&mut self, state: &mut S) -> usize {
        if !self.registry.has_more_from_threads {
            return 0;
        }
        let mut count = 0;
        while count < self.config.completions_per_turn {
            let Some((done, result)) = self.registry.offload.pop_completed() else { break };
            done(result, &mut Cx { state, registry: &mut self.registry });
            count += 1;
        }
        count
    }

    fn run_batches(&mut self, state: &mut S, no_timers: bool) -> usize {
        let mut count = 0;
        let ready = &self.registry.ready;
        // A source that waits to read more is no company to itself.
        let alone = no_timers
            && self.batches.len() == 1
            && ready.iter().all(|source| *source == self.batches[0].source);
        while let Some(batch) = self.batches.front_mut() {
            let source = batch.source;
            let Some(slot) = self.registry.slot_mut(source) else {
                self.batches.pop_front();
                continue;
            };
            slot.queues.leave(Queues::BATCHED);
            let dispatch = slot.dispatch;
            let requests_max = if alone {
                self.config.requests_per_turn_alone
            } else {
                self.config.requests_per_turn
            };
            let unread = &self.turn_buffer[batch.start..batch.end];
            let mut input = Input::new(unread, &mut batch.start, requests_max);
            dispatch(&mut Cx { state, registry: &mut self.registry }, source, &mut input);
            self.batches.pop_front();
            count += 1;
        }
        count
    }

    /// Flushes each touched source once: those that go on, the first `going_on` ones, after the others.
    fn flush_touched(&mut self, going_on: usize) {
        self.registry.touched.rotate_left(going_on);
        for _ in 0..self.registry.touched.len() {
            let Some(source) = self.registry.touched.pop_front() else { break };
            let Registry { slots, buffers, now, .. } = &mut self.registry;
            let slot = slots.get_mut(source.index as usize);
            let Some(slot) = slot.filter(|slot| slot.is(source)) else { continue };
            slot.queues.leave(Queues::TOUCHED);
            let share = self.config.write_bytes_per_turn;
            let mut io = Io::new(&mut [], 0, share, *now, buffers);
            slot.source.handle_flush(&mut io);
            let Asked { again, dispatch, flush, .. } = io.asked();
            if again {
                self.registry.again_raw(source);
            }
            if flush {
                self.registry.touch_raw(source);
            }
            if dispatch {
                self.registry.wake_raw(source);
            }
        }
    }
}
