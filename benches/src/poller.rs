//! The kernel's readiness list, edge-triggered, for the bare server and the bare load: nothing
//! between them and `epoll`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Events taken by one call: 12 KiB of them.
const EVENTS_PER_WAIT_MAX: usize = 1024;
const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// An `epoll` instance and the events it told of last.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
    spin: Duration,
}

impl Poller {
    /// Makes one that asks for `spin` before it blocks.
    pub(crate) fn new(spin: Duration) -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Poller { epoll, events: Vec::with_capacity(EVENTS_PER_WAIT_MAX), spin })
    }

    /// Adds a socket, for both directions and for good: closing it removes it.
    pub(crate) fn add(&self, socket: impl AsFd, id: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(id), flags)?)
    }

    /// Waits until something is ready or `timeout` has passed; returns how many events there are.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        if !self.spin.is_zero() {
            let until =
                Instant::now() + timeout.map_or(self.spin, |timeout| timeout.min(self.spin));
            loop {
                let count = self.ask(Some(&NO_WAIT))?;
                if count > 0 {
                    return Ok(count);
                }
                if Instant::now() >= until {
                    break;
                }
            }
        }
        let timeout = timeout.map(|timeout| timeout.saturating_sub(self.spin));
        // A timeout too long for the system's type is as good as none.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        self.ask(timeout.as_ref())
    }

    /// Returns the id of the socket that the event at `index` is about.
    pub(crate) fn id(&self, index: usize) -> u64 {
        let Event { data, .. } = self.events[index];
        data.u64()
    }

    fn ask(&mut self, timeout: Option<&Timespec>) -> io::Result<usize> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout) {
            Ok(count) => Ok(count),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
