//! One cell for each seq that is not yet acknowledged, in a ring that holds no more than it must.

use crate::handshake::CellReport;

/// What the server knows of one xid. `digest` is that of the request that occupied the cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cell {
    /// Nothing came, or what came was refused.
    #[default]
    Vacant,
    /// In-order session: waits for a lower seq.
    Held { digest: u64 },
    /// Its handler has started and not ended; `call` is where among the calls. That one stays there
    /// as long as the cell is pending, so its place names it.
    Pending { digest: u64, call: u32 },
    /// Durable: its handler has ended, and what it has done is not safe yet.
    Committing { digest: u64, reply: u32 },
    /// The same; the answer was too large to keep.
    CommittingNoReply { digest: u64 },
    /// Its handler has ended; `reply` is where the answer is kept.
    Done { digest: u64, reply: u32 },
    /// Its handler has ended; the answer was too large to keep.
    DoneNoReply { digest: u64 },
    /// Durable: the server crashed while its handler ran, as often as `attempt` says.
    InDoubt { digest: u64, attempt: u32 },
    /// Durable: it crashed the server too often.
    Poisoned { digest: u64 },
}

impl Cell {
    /// Returns the digest of the request in this cell; `None` if it is vacant.
    #[inline]
    pub(super) fn digest(self) -> Option<u64> {
        match self {
            Cell::Vacant => None,
            Cell::Held { digest }
            | Cell::Pending { digest, .. }
            | Cell::Committing { digest, .. }
            | Cell::CommittingNoReply { digest }
            | Cell::InDoubt { digest, .. }
            | Cell::Poisoned { digest }
            | Cell::Done { digest, .. }
            | Cell::DoneNoReply { digest } => Some(digest),
        }
    }

    /// Returns what RESUMED tells of it: every occupied state is running or finished.
    pub(super) fn report(self) -> CellReport {
        match self {
            Cell::Vacant => CellReport::Vacant,
            Cell::Held { .. }
            | Cell::Pending { .. }
            | Cell::Committing { .. }
            | Cell::CommittingNoReply { .. } => CellReport::Running,
            Cell::Done { .. }
            | Cell::DoneNoReply { .. }
            | Cell::InDoubt { .. }
            | Cell::Poisoned { .. } => CellReport::Finished,
        }
    }

    /// Returns whether its handler has ended: an in-order session waits for it no more.
    #[inline]
    pub(super) fn has_ended(self) -> bool {
        !matches!(self, Cell::Vacant | Cell::Held { .. } | Cell::Pending { .. })
    }
}

/// The cells of the seqs in (floor, floor + capacity], each at `seq & (capacity - 1)`.
///
/// The first cell is inline: a client with one call at a time never needs another. More are
/// allocated by powers of two, as seqs come in, never beyond the session's window.
#[derive(Clone, Debug)]
pub(super) enum Ring {
    One(Cell),
    Many(Box<[Cell]>),
}

impl Ring {
    pub(super) fn new() -> Self {
        Ring::One(Cell::Vacant)
    }

    pub(super) fn capacity(&self) -> usize {
        self.cells().len()
    }

    /// Returns the cell of `seq`, which must be above `floor`; a seq the ring does not reach is
    /// vacant.
    #[inline]
    pub(super) fn get(&self, floor: u64, seq: u64) -> Cell {
        debug_assert!(seq > floor);
        match self {
            Ring::One(cell) if seq == floor + 1 => *cell,
            Ring::Many(cells) if seq - floor <= cells.len() as u64 => cells[slot(cells, seq)],
            _ => Cell::Vacant,
        }
    }

    /// Returns the digest in the cell of `seq`; `None` if it is vacant.
    #[inline]
    pub(super) fn digest(&self, floor: u64, seq: u64) -> Option<u64> {
        debug_assert!(seq > floor);
        match self {
            Ring::One(cell) if seq == floor + 1 => cell.digest(),
            Ring::Many(cells) if seq - floor <= cells.len() as u64 => {
                cells[slot(cells, seq)].digest()
            }
            _ => None,
        }
    }

    /// Returns the cell of `seq`, if the ring reaches that far.
    #[inline]
    pub(super) fn get_mut(&mut self, floor: u64, seq: u64) -> Option<&mut Cell> {
        debug_assert!(seq > floor);
        match self {
            Ring::One(cell) if seq == floor + 1 => Some(cell),
            Ring::Many(cells) if seq - floor <= cells.len() as u64 => {
                let slot = slot(cells, seq);
                Some(&mut cells[slot])
            }
            _ => None,
        }
    }

    /// Puts `cell` at `seq`, growing the ring if it does not reach that far. The caller has checked
    /// `seq` against the window, which bounds the growth.
    #[inline]
    pub(super) fn set(&mut self, floor: u64, seq: u64, cell: Cell) {
        if let Some(place) = self.get_mut(floor, seq) {
            *place = cell;
        } else {
            self.grow(floor, seq);
            *self.get_mut(floor, seq).expect("it has grown that far") = cell;
        }
    }

    /// Empties the cell of `seq`, and returns what was in it.
    #[inline]
    pub(super) fn take(&mut self, floor: u64, seq: u64) -> Cell {
        self.get_mut(floor, seq).map_or(Cell::Vacant, std::mem::take)
    }

    /// Empties the cells of the seqs in (floor, last], tells `each` what was in those that were not
    /// vacant, and returns how many these were. The ring reaches as far as `last`.
    #[inline(always)]
    pub(super) fn take_all(&mut self, floor: u64, last: u64, mut each: impl FnMut(Cell)) -> u16 {
        let cells = match self {
            Ring::One(cell) => std::slice::from_mut(cell),
            Ring::Many(cells) => cells,
        };
        debug_assert!(last - floor <= cells.len() as u64);
        #[expect(clippy::cast_possible_truncation, reason = "no more than there are cells")]
        let count = (last - floor) as usize;
        // They lie side by side, but for those that begin again at the ring's front.
        let first = slot(cells, floor + 1);
        let (front, back) = cells.split_at_mut(first);
        let at_back = count.min(back.len());
        let mut taken = 0;
        for cells in [&mut back[..at_back], &mut front[..count - at_back]] {
            for cell in cells {
                let cell = std::mem::take(cell);
                if cell != Cell::Vacant {
                    taken += 1;
                    each(cell);
                }
            }
        }
        taken
    }

    /// Returns the cells, in the order of their places.
    pub(super) fn cells(&self) -> &[Cell] {
        match self {
            Ring::One(cell) => std::slice::from_ref(cell),
            Ring::Many(cells) => cells,
        }
    }

    #[cold]
    fn grow(&mut self, floor: u64, seq: u64) {
        let span = usize::try_from(seq - floor).expect("the caller checked it against the window");
        let mut cells = vec![Cell::Vacant; span.next_power_of_two()].into_boxed_slice();
        for seq in floor + 1..=floor + self.capacity() as u64 {
            cells[slot(&cells, seq)] = self.get(floor, seq);
        }
        *self = Ring::Many(cells);
    }
}

/// Capacities are powers of two, so that the low bits of a seq are its place.
#[inline]
fn slot(cells: &[Cell], seq: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are all that is used")]
    let low = seq as usize;
    low & (cells.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Cell = Cell::Done { digest: 7, reply: 1 };

    #[test]
    fn a_cell_is_no_larger_than_it_was_designed() {
        assert!(size_of::<Cell>() <= 16);
        assert!(size_of::<Ring>() <= 24);
    }

    #[test]
    fn one_call_at_a_time_never_allocates() {
        let mut ring = Ring::new();
        for seq in 1..100 {
            let floor = seq - 1;
            assert_eq!(ring.get(floor, seq), Cell::Vacant);
            ring.set(floor, seq, DONE);
            assert_eq!(ring.take(floor, seq), DONE);
        }
        assert_eq!(ring.capacity(), 1);
    }

    #[test]
    fn growing_keeps_every_cell_at_its_seq() {
        let mut ring = Ring::new();
        let floor = 1_000;
        for (i, seq) in [1_001, 1_003, 1_002, 1_020, 1_064].into_iter().enumerate() {
            ring.set(floor, seq, Cell::DoneNoReply { digest: i as u64 });
        }
        assert_eq!(ring.capacity(), 64);
        assert_eq!(ring.get(floor, 1_001), Cell::DoneNoReply { digest: 0 });
        assert_eq!(ring.get(floor, 1_064), Cell::DoneNoReply { digest: 4 });
        assert_eq!(ring.get(floor, 1_004), Cell::Vacant);
        assert_eq!(ring.get(floor, 1_065), Cell::Vacant, "beyond the ring");
    }
}
