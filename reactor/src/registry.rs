//! The registry: all that a callback may change while the loop runs.
//!
//! It holds the sources, the timers and the queues. The reactor, which runs them, holds the turn
//! buffer and the batches in it; so a batch and the registry can be borrowed side by side.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::buffers::Buffers;
use crate::id::RawId;
use crate::offload::Offload;
use crate::poll::Poll;
use crate::remote::{Bell, PostedTask};
use crate::source::{AnySource, DispatchCall, Readiness};
use crate::timers::Timers;
use crate::{Config, Id, Input, JobPanicked, OffloadFull, Remote, Source, TimerId};

/// What every callback is given: the program's state and the registry, two disjoint borrows.
#[derive(Debug)]
pub struct Cx<'a, S: 'static> {
    /// The state that was handed to [`Reactor::run`](crate::Reactor::run) or
    /// [`Reactor::turn`](crate::Reactor::turn).
    pub state: &'a mut S,
    /// The sources, timers and queues of the reactor.
    pub registry: &'a mut Registry<S>,
}

/// A task of the loop's own thread.
pub(crate) type Task<S> = Box<dyn FnOnce(&mut Cx<'_, S>)>;

/// The token of the waker; no source has it, since no index reaches `u32::MAX`.
pub(crate) const WAKER_TOKEN: mio::Token = mio::Token(usize::MAX);

/// The sources, timers and queues of a reactor.
///
/// A callback finds it in its [`Cx`]; outside a turn [`Reactor::registry`] lends it. Nothing here
/// runs a callback: what is armed, deferred or woken runs in a task phase, later.
///
/// [`Reactor::registry`]: crate::Reactor::registry
pub struct Registry<S: 'static> {
    pub(crate) poll: Poll,
    pub(crate) slots: Slab<Slot<S>>,
    generation: u32,
    /// Sources that [`Source::handle_io`] is owed, because of an event or because they asked.
    pub(crate) ready: VecDeque<RawId>,
    /// Sources that [`Source::dispatch`] is owed, because they were woken.
    pub(crate) woken: VecDeque<RawId>,
    /// Sources that [`Source::flush`] is owed.
    pub(crate) touched: VecDeque<RawId>,
    pub(crate) timers: Timers<Action<S>>,
    pub(crate) deferred: VecDeque<Task<S>>,
    pub(crate) posted: Receiver<PostedTask<S>>,
    pub(crate) offload: Offload<S>,
    pub(crate) bell: Arc<Bell>,
    /// The bell's event came, or it was answered and more was there than a turn may run.
    pub(crate) has_more_from_threads: bool,
    remote: Remote<S>,
    pub(crate) buffers: Buffers,
    events: usize,
    pub(crate) now: Instant,
    pub(crate) is_stopping: bool,
}

/// What a timer does.
pub(crate) enum Action<S: 'static> {
    Call(Task<S>),
    /// [`Source::on_deadline`] of this source.
    Deadline(RawId),
}

/// A place for a source.
pub(crate) struct Slot<S: 'static> {
    pub(crate) source: Box<dyn AnySource<S>>,
    pub(crate) dispatch: DispatchCall<S>,
    /// Armed exactly while this names a timer whose action is the deadline of this source.
    pub(crate) deadline: Option<TimerId>,
    generation: u32,
    /// What events said since the last [`Source::handle_io`].
    pub(crate) readiness: Readiness,
    /// Queues that the source is in, a bit for each: it is in none of them twice.
    pub(crate) queues: Queues,
    /// Not lent for changing since [`Registry::watch`].
    is_unchanged: bool,
}

/// A set of queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queues(u8);

impl Queues {
    /// In `Registry::ready`.
    pub(crate) const READY: Self = Self(1);
    /// In `Registry::ready` not (only) because of an event, but because it was asked for.
    pub(crate) const ASKED: Self = Self(2);
    /// In `Registry::woken`.
    pub(crate) const WOKEN: Self = Self(4);
    /// In `Registry::touched`.
    pub(crate) const TOUCHED: Self = Self(8);
    /// Has a batch in this turn that is not dispatched yet.
    pub(crate) const BATCHED: Self = Self(16);

    /// Adds a queue; returns whether it was not in the set before.
    pub(crate) fn enter(&mut self, queue: Self) -> bool {
        let is_new = self.0 & queue.0 == 0;
        self.0 |= queue.0;
        is_new
    }

    /// Takes a queue out; returns whether it was in the set.
    pub(crate) fn leave(&mut self, queue: Self) -> bool {
        let was_in = self.0 & queue.0 != 0;
        self.0 &= !queue.0;
        was_in
    }
}

impl<S> Slot<S> {
    /// Whether the source in here is the one that `raw` names.
    pub(crate) fn is(&self, raw: RawId) -> bool {
        self.generation == raw.generation
    }

    /// The source, if it is a `T`.
    fn as_source<T: Source<S>>(&self) -> Option<&T> {
        let source: &dyn Any = &*self.source;
        source.downcast_ref()
    }

    fn as_source_mut<T: Source<S>>(&mut self) -> Option<&mut T> {
        self.is_unchanged = false;
        let source: &mut dyn Any = &mut *self.source;
        source.downcast_mut()
    }
}

/// Sources.
impl<S> Registry<S> {
    /// Takes a source in and registers its descriptor, if it has one.
    ///
    /// # Errors
    ///
    /// What the system says to the registration; the source is dropped then.
    pub fn insert<T: Source<S>>(&mut self, source: T) -> io::Result<Id<T>> {
        let entry = self.slots.vacant_entry();
        let index = u32::try_from(entry.key()).ok().filter(|&index| index < u32::MAX);
        let index = index.ok_or_else(|| io::Error::other("2^32 sources are too many"))?;
        self.generation = self.generation.wrapping_add(1);
        let raw = RawId { index, generation: self.generation };
        let mut source: Box<dyn AnySource<S>> = Box::new(source);
        source.register(&self.poll, raw)?;
        entry.insert(Slot {
            source,
            dispatch: |cx, raw, input: &mut Input<'_>| T::dispatch(cx, Id::from_raw(raw), input),
            deadline: None,
            generation: raw.generation,
            readiness: Readiness::default(),
            queues: Queues::default(),
            is_unchanged: false,
        });
        Ok(Id::from_raw(raw))
    }

    /// Lends a source, if it is still here.
    pub fn get<T: Source<S>>(&self, id: Id<T>) -> Option<&T> {
        let slot = self.slots.get(id.raw().index as usize)?;
        if !slot.is(id.raw()) {
            return None;
        }
        slot.as_source()
    }

    /// Lends a source for changing, if it is still here.
    pub fn get_mut<T: Source<S>>(&mut self, id: Id<T>) -> Option<&mut T> {
        self.slot_mut(id.raw())?.as_source_mut()
    }

    /// Lends two sources at once; nothing if one is gone, or if both ids name the same one.
    pub fn get2_mut<A: Source<S>, B: Source<S>>(
        &mut self,
        a: Id<A>,
        b: Id<B>,
    ) -> Option<(&mut A, &mut B)> {
        if a.raw().index == b.raw().index {
            return None;
        }
        let (a_index, b_index) = (a.raw().index as usize, b.raw().index as usize);
        let (a_slot, b_slot) = self.slots.get2_mut(a_index, b_index)?;
        if !a_slot.is(a.raw()) || !b_slot.is(b.raw()) {
            return None;
        }
        Some((a_slot.as_source_mut()?, b_slot.as_source_mut()?))
    }

    /// Begins to watch a source for [`Registry::is_unchanged`].
    pub fn watch<T>(&mut self, id: Id<T>) {
        if let Some(slot) = self.slot_mut(id.raw()) {
            slot.is_unchanged = true;
        }
    }

    /// Whether a source is still here and nobody was lent it for changing since it was last
    /// [watched](Registry::watch).
    ///
    /// For a source's own dispatch, which runs callbacks in between: what it remembers of itself
    /// still holds then. That costs less than another look at itself, for which its type has to be
    /// asked.
    #[inline]
    pub fn is_unchanged<T>(&self, id: Id<T>) -> bool {
        let slot = self.slots.get(id.raw().index as usize);
        slot.is_some_and(|slot| slot.is(id.raw()) && slot.is_unchanged)
    }

    /// Returns the sources of one type, each with its id.
    ///
    /// It goes over all sources: for what happens seldom and concerns all of them, as a shutdown.
    pub fn iter<T: Source<S>>(&self) -> impl Iterator<Item = (Id<T>, &T)> {
        self.slots.iter().filter_map(|(index, slot)| {
            let index = u32::try_from(index).expect("checked when it was inserted");
            let raw = RawId { index, generation: slot.generation };
            Some((Id::from_raw(raw), slot.as_source()?))
        })
    }

    /// Whether a source is still here.
    pub fn contains<T: Source<S>>(&self, id: Id<T>) -> bool {
        self.get(id).is_some()
    }

    /// Takes a source out and hands it back; its descriptor is no longer polled.
    ///
    /// From here on the id resolves to nothing. A batch that was read for it in this turn, its
    /// deadline, and pending wakes and touches die with it. What is to be written on the way out
    /// has to be written by the caller.
    pub fn remove<T: Source<S>>(&mut self, id: Id<T>) -> Option<T> {
        self.get(id)?;
        let mut slot = self.slots.remove(id.raw().index as usize);
        if let Some(deadline) = slot.deadline.take() {
            self.timers.remove(deadline);
        }
        if let Err(error) = slot.source.deregister(&self.poll) {
            log::warn!("{id:?} could not be deregistered: {error}");
        }
        let source: Box<dyn Any> = slot.source;
        source.downcast().ok().map(|source| *source)
    }

    /// Has a source dispatched in the task phase of the next turn, even if nothing was read.
    ///
    /// While a source is woken, the poll does not block. Called again before that, it does
    /// nothing more. (Outside a turn, "next" is the turn that comes.)
    pub fn wake<T>(&mut self, id: Id<T>) {
        self.wake_raw(id.raw());
    }

    /// Has [`Source::handle_io`] called in the next turn, though no event came; for a source that
    /// did not want to read when it could have.
    pub fn again<T>(&mut self, id: Id<T>) {
        self.again_raw(id.raw());
    }

    /// Has a source flushed at the end of this turn, or of the next if called outside one.
    pub fn touch<T>(&mut self, id: Id<T>) {
        self.touch_raw(id.raw());
    }

    /// Arms, moves or (with `None`) disarms the deadline of a source; each has one.
    ///
    /// Costs O(log n) of all timers. To move a deadline with each request, store the time of the
    /// last activity instead and look at it when the deadline comes.
    pub fn set_deadline<T>(&mut self, id: Id<T>, deadline: Option<Instant>) {
        let raw = id.raw();
        let slot = self.slots.get_mut(raw.index as usize);
        let Some(slot) = slot.filter(|slot| slot.is(raw)) else { return };
        slot.deadline = match (slot.deadline, deadline) {
            (None, None) => None,
            (None, Some(at)) => Some(self.timers.insert(at, Action::Deadline(raw))),
            (Some(timer), Some(at)) => self.timers.rearm(timer, at),
            (Some(timer), None) => {
                self.timers.remove(timer);
                None
            }
        };
    }

    pub(crate) fn slot_mut(&mut self, raw: RawId) -> Option<&mut Slot<S>> {
        self.slots.get_mut(raw.index as usize).filter(|slot| slot.is(raw))
    }

    /// Puts the source of an event on the ready queue, if it is still here.
    pub(crate) fn note_event(&mut self, event: &mio::event::Event) {
        let token = event.token();
        let index = token.0 & u32::MAX as usize;
        let Some(slot) = self.slots.get_mut(index) else { return };
        #[allow(clippy::cast_possible_truncation, reason = "masked above")]
        let raw = RawId { index: index as u32, generation: slot.generation };
        if raw.token() != token {
            return;
        }
        slot.readiness.merge(Readiness::of(event));
        if slot.queues.enter(Queues::READY) {
            self.ready.push_back(raw);
        }
    }

    /// Does the same with an event of the simulated world.
    pub(crate) fn note_simulated(&mut self, raw: RawId, readiness: Readiness) {
        let Some(slot) = self.slot_mut(raw) else { return };
        slot.readiness.merge(readiness);
        if slot.queues.enter(Queues::READY) {
            self.ready.push_back(raw);
        }
    }

    pub(crate) fn wake_raw(&mut self, raw: RawId) {
        if self.slot_mut(raw).is_some_and(|slot| slot.queues.enter(Queues::WOKEN)) {
            self.woken.push_back(raw);
        }
    }

    pub(crate) fn again_raw(&mut self, raw: RawId) {
        let Some(slot) = self.slot_mut(raw) else { return };
        slot.queues.enter(Queues::ASKED);
        if slot.queues.enter(Queues::READY) {
            self.ready.push_back(raw);
        }
    }

    pub(crate) fn touch_raw(&mut self, raw: RawId) {
        if self.slot_mut(raw).is_some_and(|slot| slot.queues.enter(Queues::TOUCHED)) {
            self.touched.push_back(raw);
        }
    }
}

/// Time, tasks and threads.
impl<S> Registry<S> {
    /// Runs `task` in the task phase of the next turn, which does not block.
    ///
    /// Deferred tasks run in order. One that is deferred by another runs a turn later, so a chain
    /// of them does not keep sources from being served.
    pub fn defer(&mut self, task: impl FnOnce(&mut Cx<'_, S>) + 'static) {
        self.deferred.push_back(Box::new(task));
    }

    /// Runs `task` when `delay` has passed since [`Registry::now`]; see [`Registry::at`].
    pub fn after(
        &mut self,
        delay: Duration,
        task: impl FnOnce(&mut Cx<'_, S>) + 'static,
    ) -> TimerId {
        // Beyond what the clock can say is beyond what a process lives: 30 years.
        let far = Duration::from_secs(30 * 365 * 24 * 3600);
        let deadline = self.now.checked_add(delay).unwrap_or_else(|| self.now + far);
        self.at(deadline, task)
    }

    /// Runs `task` in the task phase of the first turn whose time is `deadline` or later.
    ///
    /// Never early; late by the work of the turn before it and by the clock of the poll (a
    /// millisecond with epoll). Timers of one instant run in the order of arming. A deadline in
    /// the past is due in the next turn, never inside this call.
    pub fn at(
        &mut self,
        deadline: Instant,
        task: impl FnOnce(&mut Cx<'_, S>) + 'static,
    ) -> TimerId {
        self.timers.insert(deadline, Action::Call(Box::new(task)))
    }

    /// Cancels a timer. Returns whether it had not run: if so, it never will.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.timers.remove(timer).is_some()
    }

    /// Runs `job` on a thread of the pool, then `done` with its result on the loop.
    ///
    /// The pool and its queue are bounded ([`Config`]); its threads are started when first
    /// needed. `done` need not be `Send`: it stays on the loop. It runs exactly once, in a task
    /// phase, with [`JobPanicked`] if the job panicked; not at all if the reactor is dropped
    /// first.
    ///
    /// In [simulation](crate::sim) the job runs inside this call, and `done` after a drawn time.
    ///
    /// # Errors
    ///
    /// [`OffloadFull`] if too many jobs wait; neither `job` nor `done` runs.
    pub fn offload<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, JobPanicked>, &mut Cx<'_, S>) + 'static,
    ) -> Result<(), OffloadFull> {
        let Poll::Sim(seat) = &self.poll else { return self.offload.start(job, done) };
        let delay = seat.job_delay();
        let result = self.offload.run(job)?;
        self.after(delay, move |cx| {
            cx.registry.offload.ran();
            done(result, cx);
        });
        Ok(())
    }

    /// Returns a handle by which other threads post tasks.
    pub fn remote(&self) -> Remote<S> {
        self.remote.clone()
    }

    /// Returns the time of this turn, which is read once, after the poll.
    ///
    /// Outside a turn: the time at which [`Reactor::registry`](crate::Reactor::registry) was
    /// called.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Ends [`Reactor::run`](crate::Reactor::run) after this turn, which is completed.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Takes a spare buffer: empty, perhaps with some capacity.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.buffers.take()
    }

    /// Takes a spare buffer of more than 64 KiB, or a new one without capacity.
    ///
    /// What was in it when it was given back still is, and means nothing: so it can be read into
    /// without being written first.
    pub fn take_large_buffer(&mut self) -> Vec<u8> {
        self.buffers.take_large()
    }

    /// Gives a buffer to the bounded pool of spare ones, for the next [`Registry::take_buffer`] or,
    /// with a capacity of more than 64 KiB, [`Registry::take_large_buffer`]. It is dropped if the
    /// pool is full: at 4 MiB, or at two buffers for each event of a poll.
    pub fn give_buffer(&mut self, buffer: Vec<u8>) {
        self.buffers.give(buffer);
    }

    /// Returns how many events one poll brings at most, [`Config::events`](crate::Config::events): so
    /// many sources are in one turn together. Who keeps something spare for each of them needs no more
    /// than a small multiple.
    pub fn events(&self) -> usize {
        self.events
    }

    pub(crate) fn new(config: &Config) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER_TOKEN)?;
        Ok(Self::over(Poll::Mio(poll), Some(waker), config))
    }

    /// Makes the registry of a back end.
    pub(crate) fn over(poll: Poll, waker: Option<mio::Waker>, config: &Config) -> Self {
        let bell = Arc::new(Bell::new(waker));
        let (sender, posted) = mpsc::channel();
        let now = poll.now();
        Self {
            poll,
            slots: Slab::new(),
            generation: 0,
            ready: VecDeque::new(),
            woken: VecDeque::new(),
            touched: VecDeque::new(),
            timers: Timers::new(now),
            deferred: VecDeque::new(),
            posted,
            offload: Offload::new(config.offload_threads, config.offload_queue, Arc::clone(&bell)),
            remote: Remote::new(sender, Arc::clone(&bell)),
            bell,
            has_more_from_threads: false,
            buffers: Buffers::new(config.events),
            events: config.events,
            now,
            is_stopping: false,
        }
    }

    /// Whether the next turn has something to do whatever the poll brings.
    pub(crate) fn is_runnable(&self) -> bool {
        self.is_stopping
            || self.has_more_from_threads
            || !self.ready.is_empty()
            || !self.woken.is_empty()
            || !self.touched.is_empty()
            || !self.deferred.is_empty()
            || self.timers.has_due()
            || self.bell.is_rung()
            || self.poll.has_events()
    }
}

impl<S> fmt::Debug for Registry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("sources", &self.slots.len())
            .field("next_deadline", &self.timers.next_deadline())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reactor;

    /// A source that is nothing but of its type.
    struct Inert<const KIND: u8>;

    impl<const KIND: u8> Source<()> for Inert<KIND> {
        fn pollable(&mut self) -> crate::Pollable<'_> {
            crate::Pollable::Nothing
        }

        fn handle_io(&mut self, _: &mut crate::Io<'_>) {}

        fn dispatch(_: &mut Cx<'_, ()>, _: Id<Self>, _: &mut Input<'_>) {}
    }

    #[test]
    fn sources_of_a_type_are_found() {
        let mut reactor = Reactor::<()>::new().unwrap();
        let registry = reactor.registry();
        let first = registry.insert(Inert::<1>).unwrap();
        let other = registry.insert(Inert::<2>).unwrap();
        let second = registry.insert(Inert::<1>).unwrap();
        let found = |registry: &Registry<()>| {
            registry.iter::<Inert<1>>().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(found(registry), [first, second]);
        registry.remove(first);
        assert_eq!(found(registry), [second]);
        assert_eq!(registry.iter::<Inert<2>>().map(|(id, _)| id).collect::<Vec<_>>(), [other]);
    }

    #[test]
    fn slot_stays_small() {
        assert!(size_of::<Slot<()>>() <= 40, "{}", size_of::<Slot<()>>());
    }

    /// Refused by the compiler, as ambiguous, if `T` is `Send`.
    trait NotSend<Marker> {
        fn holds() {}
    }
    impl<T: ?Sized> NotSend<()> for T {}
    impl<T: ?Sized + Send> NotSend<u8> for T {}

    #[test]
    fn what_is_on_the_loop_is_not_send() {
        <Reactor<()> as NotSend<_>>::holds();
        <Registry<()> as NotSend<_>>::holds();
        <Cx<'static, ()> as NotSend<_>>::holds();
    }
}
