//! The requests of the bare load, ready-made.

use std::ops::Range;

use onceloop_protocol::frame::Flags;

use super::index;
use super::tally::Class;
use crate::frames;
use crate::options::{LoadOptions, SlowCalls};

/// Bits of a time of sending, in nanoseconds, that no clock reaches: they say what class the call is of.
const CLASS_SHIFT: u32 = 62;

/// Returns a time of sending and a class as one number.
#[inline]
pub(super) fn mark(sent_at: u64, class: Class) -> u64 {
    sent_at | (class as u64) << CLASS_SHIFT
}

/// Returns the time of sending and the class that [`mark`] was given.
#[inline]
pub(super) fn unmark(marked: u64) -> (u64, Class) {
    let class = match marked >> CLASS_SHIFT {
        0 => Class::Fast,
        1 => Class::Slow,
        _ => Class::Large,
    };
    (marked & ((1 << CLASS_SHIFT) - 1), class)
}

/// Requests to be stamped and sent.
pub(super) struct Calls {
    /// As many fast ones as may be sent at once, one behind the other.
    fast: Vec<u8>,
    fast_bytes: usize,
    slow: Option<Slow>,
    large: Vec<u8>,
}

/// The slow ones among them, and room to put both kinds one behind the other.
struct Slow {
    request: Vec<u8>,
    spread: Spread,
    mixed: Vec<u8>,
}

impl Calls {
    /// Returns those that `options` ask for, at most `batch_max` at once.
    pub(super) fn new(options: &LoadOptions, batch_max: u64) -> Calls {
        let payload = index(options.payload);
        let fast = frames::request(payload, Flags::NONE);
        Calls {
            fast: fast.repeat(index(batch_max)),
            fast_bytes: fast.len(),
            large: options
                .large
                .map(|large| frames::request(index(large.bytes), Flags::NONE))
                .unwrap_or_default(),
            slow: options.slow.map(|slow| Slow {
                request: frames::slow_request(payload, slow.us),
                spread: Spread::new(slow),
                mixed: Vec::new(),
            }),
        }
    }

    /// Returns requests with these seqs, all with the acknowledgement `ack`, and tells of each
    /// whether it is fast or slow.
    #[inline]
    pub(super) fn make(
        &mut self,
        seqs: Range<u64>,
        ack: u64,
        mut tell: impl FnMut(u64, Class),
    ) -> &[u8] {
        let Some(slow) = &mut self.slow else {
            let bytes = index(seqs.end - seqs.start) * self.fast_bytes;
            for (request, seq) in self.fast[..bytes].chunks_exact_mut(self.fast_bytes).zip(seqs) {
                frames::stamp(request, seq, ack);
                tell(seq, Class::Fast);
            }
            return &self.fast[..bytes];
        };
        slow.mixed.clear();
        for seq in seqs {
            let is_slow = slow.spread.next();
            let start = slow.mixed.len();
            let request = if is_slow { &slow.request } else { &self.fast[..self.fast_bytes] };
            slow.mixed.extend_from_slice(request);
            frames::stamp(&mut slow.mixed[start..], seq, ack);
            tell(seq, if is_slow { Class::Slow } else { Class::Fast });
        }
        &slow.mixed
    }

    /// Returns a large request.
    pub(super) fn make_large(&mut self, seq: u64, ack: u64) -> &[u8] {
        frames::stamp(&mut self.large, seq, ack);
        &self.large
    }
}

/// Which calls are slow: as good as evenly many in every stretch of them, the same in every run, and
/// out of step with the order in which connections call, so that all have their share.
///
/// The additive recurrence with the golden ratio: call `n` is slow if the fractional part of
/// `n / phi` is below the share.
///
/// Source: H. Weyl, *Über die Gleichverteilung von Zahlen mod. Eins*, 1916; D. Knuth, *The Art of
/// Computer Programming* 3, section 6.4.
struct Spread {
    position: u64,
    /// Calls at positions below it are slow.
    end: u128,
}

impl Spread {
    /// 2^64 over the golden ratio.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^64")]
    fn new(slow: SlowCalls) -> Spread {
        let share = slow.percent / 100.0;
        Spread { position: 0, end: (share * 2_f64.powi(64)) as u128 }
    }

    fn next(&mut self) -> bool {
        self.position = self.position.wrapping_add(Spread::STEP);
        u128::from(self.position) < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_class() {
        for class in [Class::Fast, Class::Slow, Class::Large] {
            assert_eq!(unmark(mark(1_234, class)), (1_234, class));
        }
    }

    fn slow_of(percent: f64, calls: usize) -> Vec<usize> {
        let mut spread = Spread::new(SlowCalls { percent, us: 1 });
        (0..calls).filter(|_| spread.next()).collect()
    }

    #[test]
    fn every_stretch_has_its_share_of_slow_calls() {
        assert!(slow_of(0.0, 1_000).is_empty());
        assert_eq!(slow_of(100.0, 1_000).len(), 1_000);
        let slow = slow_of(1.0, 100_000);
        assert!((995..=1_005).contains(&slow.len()), "{}", slow.len());
        let gaps = slow.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().min() >= Some(50) && gaps.max() <= Some(250));
    }

    #[test]
    fn every_connection_has_its_share_of_slow_calls() {
        // A plan gives call n to connection n % connections.
        for connections in [2, 10, 100, 128] {
            let mut counts = vec![0; connections];
            for call in slow_of(1.0, 10_000 * connections) {
                counts[call % connections] += 1;
            }
            let share = counts.iter().min().zip(counts.iter().max()).expect("connections");
            assert!((80..=120).contains(share.0) && (80..=120).contains(share.1), "{counts:?}");
        }
    }
}
