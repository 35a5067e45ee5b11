//! A slab whose keys remember which occupant they were made for.

use std::fmt;
use std::marker::PhantomData;

use slab::Slab;

/// Where a value of type `T` is, and which occupant of that place it is: a key that outlives its
/// value finds nothing, never the newcomer.
pub struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Returns where the value is, whoever it is by now.
    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// Returns the key as one number, to be carried where types are not.
    pub fn to_bits(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    /// Returns the key that [`Key::to_bits`] made this number of. Any other number gives a key that
    /// finds nothing or some other value: it grants no access to anything by itself.
    pub fn from_bits(bits: u64) -> Self {
        let (index, generation) = ((bits >> 32) as u32, (bits & 0xffff_ffff) as u32);
        Key { index, generation, of: PhantomData }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}
impl<T> Eq for Key<T> {}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}

#[derive(Clone)]
struct Slot<T> {
    generation: u32,
    value: T,
}

/// A slab with generation-checked keys. Generations wrap after 2³² insertions.
#[derive(Clone)]
pub(crate) struct Arena<T> {
    slots: Slab<Slot<T>>,
    generation: u32,
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Arena { slots: Slab::new(), generation: 0 }
    }

    /// Returns an arena with these values at these keys: what another one held.
    pub(crate) fn restore(values: impl IntoIterator<Item = (Key<T>, T)>) -> Self {
        let mut generation = 0;
        let slots = values.into_iter().map(|(key, value)| {
            generation = generation.max(key.generation);
            (key.index as usize, Slot { generation: key.generation, value })
        });
        let slots = slots.collect();
        Arena { slots, generation }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// # Panics
    /// If there are 2³² values.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Key<T> {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let index = self.slots.insert(Slot { generation, value });
        let index = u32::try_from(index).expect("limits keep arenas far below 2^32 values");
        Key { index, generation, of: PhantomData }
    }

    /// Returns the value that is at `index` now, whoever it is.
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize).map(|slot| &slot.value)
    }

    /// Returns the value that is at `index` now, whoever it is, and its key.
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<(Key<T>, &mut T)> {
        let slot = self.slots.get_mut(index as usize)?;
        Some((Key { index, generation: slot.generation, of: PhantomData }, &mut slot.value))
    }

    #[inline]
    pub(crate) fn get(&self, key: Key<T>) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        (slot.generation == key.generation).then_some(&slot.value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        (slot.generation == key.generation).then_some(&mut slot.value)
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        self.get(key)?;
        Some(self.slots.remove(key.index as usize).value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.slots.iter().map(|(index, slot)| {
            #[expect(clippy::cast_possible_truncation, reason = "insert checked it")]
            let index = index as u32;
            (Key { index, generation: slot.generation, of: PhantomData }, &slot.value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_find_the_newcomer_in_its_place() {
        let mut arena = Arena::new();
        let old = arena.insert("old");
        assert_eq!(arena.remove(old), Some("old"));
        let new = arena.insert("new");
        assert_eq!(new.index, old.index);
        assert_eq!(arena.get(old), None);
        assert_eq!(arena.get_mut(old), None);
        assert_eq!(arena.remove(old), None);
        assert_eq!(arena.get(Key::from_bits(new.to_bits())), Some(&"new"));
    }
}
