//! What a connection has only while it has something to do. Most have nothing to do most of the time:
//! at rest they hold a pointer to nothing.

use std::cell::RefCell;

use bytes::Bytes;

use crate::output::Output;
use crate::tail::Tail;
use crate::{Closed, Connection};

/// Input that is not run yet, output that is not written yet, and how the connection is to end.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) tail: Tail,
    pub(crate) output: Output,
    /// Why the connection ends.
    pub(crate) ended: Option<Closed>,
}

impl Work {
    /// Returns how many bytes of memory this takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.tail.capacity() + self.output.capacity()
    }

    /// Returns whether nothing would be lost with it. (A buffer may be left that nothing was put in.)
    fn is_done(&self) -> bool {
        self.tail.is_empty() && self.output.is_empty() && self.ended.is_none()
    }
}

/// What a spare one may hold beside itself: the first places for large frames, but no buffer.
const SPARE_HELD_BYTES_MAX: usize = 4 * size_of::<Bytes>();

/// Those that no connection needs now, of all connections with the same settings.
#[derive(Debug)]
#[expect(clippy::vec_box, reason = "they are taken and given in their boxes")]
pub(crate) struct Spare {
    works: RefCell<Vec<Box<Work>>>,
    works_max: usize,
}

impl Spare {
    /// Keeps spare ones for a loop whose poll brings so many events.
    ///
    /// A turn takes and gives back one for each socket that has an event or goes on from the turn
    /// before: with room for fewer, it would allocate the rest.
    pub(crate) fn new(events: usize) -> Spare {
        Spare { works: RefCell::default(), works_max: 2 * events }
    }

    fn take(&self) -> Box<Work> {
        self.works.borrow_mut().pop().unwrap_or_default()
    }

    fn give(&self, mut work: Box<Work>) {
        let mut works = self.works.borrow_mut();
        if works.len() < self.works_max {
            if work.bytes() > size_of::<Work>() + SPARE_HELD_BYTES_MAX {
                *work = Work::default();
            }
            works.push(work);
        }
    }
}

impl<R> Connection<R> {
    /// Returns what the connection has to do, to have it do more.
    #[inline]
    pub(crate) fn work(&mut self) -> &mut Work {
        let settings = &self.settings;
        self.work.get_or_insert_with(|| settings.spare.take())
    }

    /// Gives back what the connection does not need any more, if it has nothing to do.
    pub(crate) fn rest(&mut self) {
        if let Some(work) = self.work.take_if(|work| work.is_done()) {
            self.settings.spare.give(work);
        }
    }

    /// Returns the bytes of output that are not written yet.
    #[inline]
    pub(crate) fn output_len(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.output.len())
    }

    /// Returns since when the socket takes nothing; `None` if it is not full.
    pub(crate) fn output_waits_since(&self) -> Option<u32> {
        self.work.as_ref()?.output.waits_since()
    }

    /// Returns the bytes of input that are kept.
    pub(crate) fn tail_len(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.tail.len())
    }

    /// Takes the input that is kept.
    pub(crate) fn take_tail(&mut self) -> Tail {
        self.work.as_mut().map(|work| std::mem::take(&mut work.tail)).unwrap_or_default()
    }

    /// Takes the reason why the connection ends.
    pub(crate) fn take_ended(&mut self) -> Option<Closed> {
        self.work.as_mut()?.ended.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_taken_again_and_holds_no_buffer() {
        let spare = Spare::new(16);
        let mut work = spare.take();
        work.tail = Tail::copy(&[], 0, Vec::with_capacity(200)).0;
        work.output.buffer().reserve(200);
        let place: *const Work = &*work;
        spare.give(work);
        let work = spare.take();
        assert!(std::ptr::eq(place, &*work), "no new one is made");
        assert_eq!(work.bytes(), size_of::<Work>());
    }

    #[test]
    fn as_many_are_kept_as_a_turn_takes() {
        let spare = Spare::new(16);
        let taken: Vec<_> = (0..100).map(|_| spare.take()).collect();
        for work in taken {
            spare.give(work);
        }
        assert_eq!(spare.works.borrow().len(), 32);
    }
}
