//! Which seqs are out, up to where they are consumed or burnt, and when to say so.

use std::time::{Duration, Instant};

use crate::limits::Limits;

/// A slot whose call was answered.
const CONSUMED: u32 = u32::MAX;
/// A slot whose call ended without its answer.
const BURNT: u32 = u32::MAX - 1;

/// Seqs below which half a window is not acknowledged on its own: in a window of one or two it would
/// double the frames, and the next request says the same.
const HALF_WINDOW_MIN: u64 = 2;

/// A slot whose call ended, which the journal does not know for certain.
const ENDING: u32 = u32::MAX - 2;

/// What became of a seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    /// Open: the call at this index.
    Call(u32),
    /// Ended without its answer, and not acknowledged yet.
    Burnt,
    /// Ended.
    Ended,
    /// Not given out.
    Never,
}

/// The seqs in (floor, next), each at `seq & mask`.
#[derive(Debug)]
pub(super) struct Ring {
    slots: Box<[u32]>,
    /// Every seq up to this one is consumed or burnt.
    floor: u64,
    /// The seq given out next.
    next: u64,
    /// How many seqs may be out.
    window: u32,
}

impl Ring {
    /// Returns a ring without a window: nothing can be given out.
    pub(super) fn new() -> Ring {
        Ring { slots: Box::new([]), floor: 0, next: 1, window: 0 }
    }

    /// Begins the seqs of a new session.
    pub(super) fn reset(&mut self, window: u32) {
        *self = Ring {
            slots: vec![CONSUMED; window.next_power_of_two() as usize].into(),
            floor: 0,
            next: 1,
            window,
        };
    }

    /// Returns the seqs of a session that an earlier incarnation had: those up to `last` were given
    /// out, and of these `open` have not ended.
    pub(super) fn recovered(window: u32, last: u64, open: &[(u64, u32)]) -> Ring {
        let mut ring = Ring::new();
        let oldest = open.first().map_or(last + 1, |&(seq, _)| seq);
        debug_assert!(last + 1 - oldest <= u64::from(window));
        ring.reset(window);
        ring.floor = oldest - 1;
        ring.next = last + 1;
        for &(seq, index) in open {
            let slot = ring.slot(seq);
            ring.slots[slot] = index;
        }
        ring
    }

    /// Takes the window that a resumed session has; it never grows.
    pub(super) fn narrow(&mut self, window: u32) {
        self.window = self.window.min(window);
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn window(&self) -> u32 {
        self.window
    }

    /// Returns whether another seq may be given out: the floor goes along with it, so it is this
    /// floor, not the last one acknowledged, that counts.
    pub(super) fn has_room(&self) -> bool {
        self.next - self.floor <= u64::from(self.window)
    }

    /// Gives out the next seq to the call at `index`.
    pub(super) fn assign(&mut self, index: u32) -> u64 {
        debug_assert!(self.has_room());
        let seq = self.next;
        self.next += 1;
        let slot = self.slot(seq);
        self.slots[slot] = index;
        seq
    }

    pub(super) fn occupant(&self, seq: u64) -> Occupant {
        if seq >= self.next || seq == 0 {
            return Occupant::Never;
        }
        if seq <= self.floor {
            return Occupant::Ended;
        }
        match self.slots[self.slot(seq)] {
            CONSUMED | ENDING => Occupant::Ended,
            BURNT => Occupant::Burnt,
            index => Occupant::Call(index),
        }
    }

    /// Notes that a call has ended, which the floor must not pass yet.
    pub(super) fn hold(&mut self, seq: u64) {
        let slot = self.slot(seq);
        self.slots[slot] = ENDING;
    }

    /// Ends a seq, and returns whether the floor passed a burnt one.
    pub(super) fn end(&mut self, seq: u64, burnt: bool) -> bool {
        debug_assert!(seq > self.floor && seq < self.next);
        let slot = self.slot(seq);
        self.slots[slot] = if burnt { BURNT } else { CONSUMED };
        let mut passed_burnt = false;
        while self.floor + 1 < self.next {
            match self.slots[self.slot(self.floor + 1)] {
                CONSUMED => {}
                BURNT => passed_burnt = true,
                _ => break,
            }
            self.floor += 1;
        }
        passed_burnt
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to the length of the ring")]
    fn slot(&self, seq: u64) -> usize {
        seq as usize & (self.slots.len() - 1)
    }
}

/// When an acknowledgement has to travel without a request.
#[derive(Debug)]
pub(super) struct Acks {
    /// The last one sent.
    sent: u64,
    /// Reply bytes consumed since.
    bytes: usize,
    /// Whether the server waits for this one.
    hurry: bool,
    /// When something was last consumed or sent.
    active_at: Instant,
}

impl Acks {
    pub(super) fn new(now: Instant) -> Acks {
        Acks { sent: 0, bytes: 0, hurry: false, active_at: now }
    }

    pub(super) fn consumed(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes;
        self.active_at = now;
    }

    /// Begins the acknowledgements of a new session.
    pub(super) fn reset(&mut self) {
        *self = Acks::new(self.active_at);
    }

    /// Makes the next acknowledgement due at once.
    pub(super) fn hurry(&mut self) {
        self.hurry = true;
    }

    /// Notes that a frame carries `floor`.
    pub(super) fn sent(&mut self, floor: u64, now: Instant) {
        self.sent = floor;
        self.bytes = 0;
        self.hurry = false;
        self.active_at = now;
    }

    /// Returns whether one is due now.
    pub(super) fn is_due(&self, ring: &Ring, limits: &Limits, now: Instant) -> bool {
        let behind = ring.floor - self.sent;
        behind > 0
            && (self.hurry
                || behind >= u64::from(ring.window / 2).max(HALF_WINDOW_MIN)
                || self.bytes >= limits.ack_bytes
                || now.saturating_duration_since(self.active_at) >= limits.ack_delay)
    }

    /// Returns when one will be due if nothing more happens.
    pub(super) fn next_deadline(&self, ring: &Ring, ack_delay: Duration) -> Option<Instant> {
        (ring.floor > self.sent).then(|| self.active_at + ack_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_waits_for_the_oldest() {
        let mut ring = Ring::new();
        assert!(!ring.has_room(), "no window before the handshake");
        ring.reset(4);
        for index in 0..4 {
            assert_eq!(ring.assign(index), u64::from(index) + 1);
        }
        assert!(!ring.has_room());
        assert!(!ring.end(3, true));
        assert!(!ring.end(2, false));
        assert_eq!(ring.floor(), 0);
        assert_eq!(ring.occupant(3), Occupant::Burnt);
        assert_eq!(ring.occupant(4), Occupant::Call(3));
        assert!(ring.end(1, false), "the floor goes past 3, which is burnt");
        assert_eq!(ring.floor(), 3);
        assert_eq!(ring.occupant(3), Occupant::Ended);
        assert_eq!(ring.occupant(5), Occupant::Never);
        assert_eq!(ring.assign(9), 5);
        assert_eq!(ring.occupant(5), Occupant::Call(9));
    }

    #[test]
    fn an_acknowledgement_is_due_for_four_reasons() {
        let now = Instant::now();
        let limits = Limits::default();
        let mut ring = Ring::new();
        ring.reset(8);
        for index in 0..8 {
            ring.assign(index);
        }
        let mut acks = Acks::new(now);
        assert!(!acks.is_due(&ring, &limits, now + limits.ack_delay), "there is nothing to say");
        assert_eq!(acks.next_deadline(&ring, limits.ack_delay), None);

        ring.end(1, false);
        acks.consumed(1, now);
        assert!(!acks.is_due(&ring, &limits, now));
        assert_eq!(acks.next_deadline(&ring, limits.ack_delay), Some(now + limits.ack_delay));
        assert!(acks.is_due(&ring, &limits, now + limits.ack_delay), "idle");

        acks.consumed(limits.ack_bytes, now);
        assert!(acks.is_due(&ring, &limits, now), "many bytes");
        acks.sent(1, now);

        ring.end(2, true);
        assert!(!acks.is_due(&ring, &limits, now));
        acks.hurry();
        assert!(acks.is_due(&ring, &limits, now), "a burnt seq");
        acks.sent(2, now);

        for seq in 3..6 {
            ring.end(seq, false);
            assert!(!acks.is_due(&ring, &limits, now));
        }
        ring.end(6, false);
        assert!(acks.is_due(&ring, &limits, now), "half a window");
    }
}
