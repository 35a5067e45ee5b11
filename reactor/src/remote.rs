//! Tasks from other threads.
//!
//! A channel of std carries the tasks, mio's waker ends the poll. The wake is coalesced: of the
//! posts between two turns only the first makes a system call.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use crate::Cx;

/// A task that may cross threads.
pub(crate) type PostedTask<S> = Box<dyn FnOnce(&mut Cx<'_, S>) + Send>;

/// Posts tasks to a reactor from any thread.
///
/// `Clone`, `Send` and `Sync`, even if the state `S` is none of these: the state never leaves the
/// loop, only the task goes there.
pub struct Remote<S: 'static> {
    tasks: Sender<PostedTask<S>>,
    bell: Arc<Bell>,
}

impl<S> Remote<S> {
    /// Has `task` run in the task phase of a coming turn of the reactor.
    ///
    /// Tasks of one thread run in the order of posting. A turn runs a bounded number of them; the
    /// rest wait for the next, none is lost. Never blocks, and may be called on the loop too.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the reactor is gone; the task is dropped. A reactor that is dropped later
    /// drops the tasks it has not run.
    pub fn post(&self, task: impl FnOnce(&mut Cx<'_, S>) + Send + 'static) -> Result<(), Closed> {
        self.tasks.send(Box::new(task)).map_err(|_| Closed)?;
        self.bell.ring();
        Ok(())
    }

    pub(crate) fn new(tasks: Sender<PostedTask<S>>, bell: Arc<Bell>) -> Self {
        Self { tasks, bell }
    }
}

// Derived, these would ask the same of `S`.
impl<S> Clone for Remote<S> {
    fn clone(&self) -> Self {
        Self { tasks: self.tasks.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<S> fmt::Debug for Remote<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

/// The reactor to which a task was posted is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reactor is gone")
    }
}

impl Error for Closed {}

/// Tells the loop that another thread has left something for it.
#[derive(Debug)]
pub(crate) struct Bell {
    /// None in simulation, where nobody sleeps.
    waker: Option<mio::Waker>,
    /// Set by whoever rings, cleared by the loop before it looks.
    rung: AtomicBool,
}

impl Bell {
    pub(crate) fn new(waker: Option<mio::Waker>) -> Self {
        Self { waker, rung: AtomicBool::new(false) }
    }

    /// Wakes the loop, unless someone has done so since it last looked.
    ///
    /// The swaps on both sides are acquire and release: if this one finds the bell rung, the
    /// loop's next swap comes after it and sees what was left before it.
    pub(crate) fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(waker) = &self.waker
            && let Err(error) = waker.wake()
        {
            // The eventfd belongs to us and cannot be closed under us; should the kernel refuse
            // all the same, the task runs in the next turn that something else brings about.
            log::error!("waking the reactor failed: {error}");
        }
    }

    /// Answers the bell: whoever leaves something after this rings again. Before looking, not
    /// after.
    pub(crate) fn answer(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }

    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn remote_is_send_and_sync_even_if_the_state_is_neither() {
        fn is_send_and_sync<T: Send + Sync + Clone>() {}
        is_send_and_sync::<Remote<Rc<RefCell<u8>>>>();
    }
}
