//! Buffers that no connection needs at the moment, for the servers whose idle connections have none.

use std::sync::{Mutex, PoisonError};

use super::session::Buffers;

/// Spare buffers are kept up to so many. One thread serves all connections, so more than one are out
/// at once only while connections wait for the rest of a frame or for room in their sockets.
const COUNT_MAX: usize = 16;

/// The spare buffers of a server.
#[expect(clippy::vec_box, reason = "a connection that has some holds a pointer, and hands it on")]
pub(super) struct Spares(Mutex<Vec<Box<Buffers>>>);

impl Spares {
    pub(super) fn new() -> Spares {
        Spares(Mutex::new(Vec::with_capacity(COUNT_MAX)))
    }

    /// Returns the buffers that were given back last, which the cache knows best; new ones if there
    /// are none.
    pub(super) fn take(&self) -> Box<Buffers> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Box::new(Buffers::new()))
    }

    /// Takes back buffers whose output is written; returns them if the beginning of a frame is left.
    pub(super) fn give(&self, buffers: Box<Buffers>) -> Option<Box<Buffers>> {
        if !buffers.input.filled().is_empty() {
            return Some(buffers);
        }
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < COUNT_MAX {
            spares.push(buffers);
        }
        None
    }
}
