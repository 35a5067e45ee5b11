//! Names of sources: an index into the registry and a generation.
//!
//! The index is used again as soon as a source is removed; the generation is not, so an id that
//! outlived its source resolves to nothing, never to the newcomer in its place.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Names a source of type `T` in a [`Registry`](crate::Registry).
///
/// Eight bytes, `Copy`, and `Send` whatever `T` is: an id may be kept anywhere and is checked at
/// each use. An id whose source was removed resolves to nothing, as does an id of another
/// reactor whose generation happens not to match; the type is checked as well, so the worst that
/// a foreign id can do is name another source of the same type.
///
/// Generations are 32 bits of one counter per reactor: an id could be mistaken only after
/// 2³² insertions, and only if the very last of them took the same index.
pub struct Id<T> {
    raw: RawId,
    source: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// Returns the id as a number, for a log line or for a table that is not typed.
    pub fn to_bits(self) -> u64 {
        self.raw.to_bits()
    }

    /// Makes an id of the number that [`Id::to_bits`] gave.
    ///
    /// Any number is allowed: one that names no source of type `T` resolves to nothing.
    pub fn from_bits(bits: u64) -> Self {
        Self::from_raw(RawId::from_bits(bits))
    }

    pub(crate) fn from_raw(raw: RawId) -> Self {
        Self { raw, source: PhantomData }
    }

    pub(crate) fn raw(self) -> RawId {
        self.raw
    }
}

// Derived, these would ask the same of `T`.
impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl<T> Eq for Id<T> {}

impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw.to_bits().hash(state);
    }
}

impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({}v{})", self.raw.index, self.raw.generation)
    }
}

/// An id without its type, as the queues hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl RawId {
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the halves are taken apart on purpose")]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }

    /// The token under which the source's descriptor is registered.
    ///
    /// Where `usize` has 32 bits the generation is lost. That is harmless: all events of a poll
    /// are taken in before any user code runs, so no slot can change hands between the two.
    #[allow(clippy::cast_possible_truncation, reason = "see above")]
    pub(crate) fn token(self) -> mio::Token {
        mio::Token(self.to_bits() as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn id_is_eight_bytes_and_send_whatever_it_names() {
        fn is_send_and_sync<T: Send + Sync + Copy>() {}
        is_send_and_sync::<Id<Rc<String>>>();
        assert_eq!(size_of::<Id<Rc<String>>>(), 8);
    }

    #[test]
    fn id_round_trips_through_bits() {
        let id = Id::<()>::from_raw(RawId { index: 7, generation: u32::MAX });
        assert_eq!(Id::from_bits(id.to_bits()), id);
        assert_eq!(format!("{id:?}"), "Id(7v4294967295)");
    }
}
