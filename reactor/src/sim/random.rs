//! Chance from a seed.

use std::ops::Range;
use std::time::Duration;

/// A source of numbers that looks random and is the same for the same seed, for ever and on every
/// machine.
///
/// The generator is xoshiro256\*\* 1.0, its state filled by SplitMix64 (David Blackman and
/// Sebastiano Vigna, <https://prng.di.unimi.it>, both in the public domain). Not fit for secrets.
///
/// Give each part of a workload a [fork](Random::fork) of its own: then a draw that is added in
/// one part leaves those of all others as they were.
///
/// ```
/// use onceloop_reactor::sim::Random;
///
/// let mut random = Random::new(7);
/// let mut arrivals = random.fork("arrivals");
/// random.below(6);
/// assert_eq!(arrivals.next_u64(), Random::new(7).fork("arrivals").next_u64());
/// ```
#[derive(Clone, Debug)]
pub struct Random {
    seed: u64,
    state: [u64; 4],
}

impl Random {
    /// Returns the generator of a seed; any seed is as good as another.
    pub fn new(seed: u64) -> Self {
        let mut mixer = seed;
        Self { seed, state: std::array::from_fn(|_| split_mix(&mut mixer)) }
    }

    /// Returns a generator that depends on this one's seed and on `label`, not on what was drawn
    /// here. The same label gives the same fork.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        // FNV-1a; what it lacks in mixing, SplitMix64 adds.
        let hash = label.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.fork_by(hash)
    }

    /// Returns a fork as by [`Random::fork`], for parts that have numbers and not names.
    #[must_use]
    pub fn fork_by(&self, number: u64) -> Self {
        let mut mixer = self.seed;
        let mixed = split_mix(&mut mixer) ^ number;
        Self::new(split_mix(&mut { mixed }))
    }

    /// Returns 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Returns a number from 0 to `n - 1`, each as likely as the others (to within n / 2⁶⁴).
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "no number is below 0");
        let wide = u128::from(self.next_u64()) * u128::from(n);
        u64::try_from(wide >> 64).expect("the upper half of 128 bits")
    }

    /// Returns a number of the range.
    ///
    /// # Panics
    ///
    /// If the range is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "no number is in an empty range");
        range.start + self.below(range.end - range.start)
    }

    /// Returns a number from `least` to `most`, small ones as likely as large ones: each doubling
    /// has the same share. For sizes and times of which the order of magnitude is to vary.
    ///
    /// # Panics
    ///
    /// If `least` is 0 or above `most`.
    pub fn spread(&mut self, least: u64, most: u64) -> u64 {
        assert!(0 < least && least <= most, "from {least} to {most}");
        let (from, to) = (least.ilog2(), most.ilog2());
        let doubling = 1_u64 << self.range(u64::from(from)..u64::from(to) + 1);
        let top = most.min(doubling - 1 + doubling);
        let bottom = least.max(doubling);
        bottom + self.below((top - bottom).saturating_add(1))
    }

    /// Returns true so many times in a million.
    pub fn chance(&mut self, per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(per_million)
    }

    /// Returns a time of the range, to the nanosecond.
    ///
    /// # Panics
    ///
    /// If the range is empty.
    pub fn duration(&mut self, range: Range<Duration>) -> Duration {
        Duration::from_nanos(self.range(nanos(range.start)..nanos(range.end)))
    }

    /// Returns one of the items.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// Returns a place in a list of so many.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("less than a usize")
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}

/// Nanoseconds in 64 bits: 584 years fit, and what is longer is cut to that.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A step of SplitMix64.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_is_the_generator_that_it_says() {
        // SplitMix64 from 1234567: the reference values of its authors' C code.
        let mut state = 1_234_567;
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([split_mix(&mut state), split_mix(&mut state)], expected);
        // xoshiro256** from the state 1, 2, 3, 4: likewise.
        let mut random = Random { seed: 0, state: [1, 2, 3, 4] };
        let expected = [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240];
        assert_eq!(std::array::from_fn(|_| random.next_u64()), expected);
    }

    #[test]
    fn forks_differ_by_label_and_not_by_what_was_drawn() {
        let mut random = Random::new(1);
        let before = random.fork("a").next_u64();
        random.next_u64();
        assert_eq!(random.fork("a").next_u64(), before);
        assert_ne!(random.fork("b").next_u64(), before);
        assert_ne!(Random::new(2).fork("a").next_u64(), before);
    }

    #[test]
    fn draws_stay_in_their_range_and_reach_all_of_it() {
        let mut random = Random::new(3);
        let mut seen = [0; 6];
        for _ in 0..6_000 {
            seen[random.index(6)] += 1;
            assert!((5..9).contains(&random.range(5..9)));
            assert!((3..=1_000).contains(&random.spread(3, 1_000)));
        }
        assert!(seen.iter().all(|&count| (800..1_200).contains(&count)), "{seen:?}");
        assert_eq!(random.spread(4, 4), 4);
        assert_eq!(random.spread(u64::MAX, u64::MAX), u64::MAX);
        let hits = (0..10_000).filter(|_| random.chance(250_000)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        let mut bytes = [0; 19];
        random.fill(&mut bytes);
        assert!(bytes[16..].iter().any(|&byte| byte != 0));
    }
}
