//! The keyed hash by which a resent call is told from another call under the same xid.
//!
//! The server's table keeps one digest per cell, of the method and the argument bytes; never of the
//! acknowledgement, the deadline or metadata, which may differ between two copies of one call. The
//! key is drawn when the server starts, so that nobody outside can look for two calls with one
//! digest. It is no cryptographic hash: the digest itself must not be shown to a peer.
//!
//! Source: the folded multiply of wyhash (Wang Yi) and rapidhash (Nicolas De Carli): the two halves
//! of a 64 × 64 → 128 bit product, xored. The reading of short inputs is theirs, too.

use crate::frame::MethodId;

/// Odd constants with half of their bits set: the first three of rapidhash's secret.
const SECRET: [u64; 3] = [0x2d35_8dcc_aa6c_78a5, 0x8bb8_4b93_962e_acc9, 0x4b33_a62e_d433_d4a3];

/// Bytes read per step of a lane.
const PAIR_BYTES: usize = 16;
/// Bytes per round: four lanes, because one multiplication takes longer than the next can wait.
const ROUND_BYTES: usize = 4 * PAIR_BYTES;

/// The secret of a table's digests.
#[derive(Clone)]
pub struct DigestKey {
    method: u64,
    args: u64,
}

impl DigestKey {
    /// Returns the key made of 16 random bytes.
    pub const fn new(random: [u8; 16]) -> DigestKey {
        let number = u128::from_le_bytes(random);
        let (low, high) = halves(number);
        DigestKey { method: low ^ SECRET[0], args: high ^ SECRET[1] }
    }

    /// Returns the digest of a call of `method` with the argument bytes `args`.
    #[inline]
    pub fn digest(&self, method: MethodId, args: &[u8]) -> u64 {
        let seed = method.0 ^ self.method;
        let length = args.len();
        let (state, low, high) = if length > PAIR_BYTES {
            let last = args.last_chunk::<PAIR_BYTES>().expect("it is longer");
            let state = if length > ROUND_BYTES { rounds(seed, args) } else { pairs(seed, args) };
            (state, word(last, 0), word(last, 8))
        } else if length >= 8 {
            (seed, word(args, 0), word(args, length - 8))
        } else if length >= 4 {
            (seed, half_word(args, 0), half_word(args, length - 4))
        } else if length > 0 {
            // One to three bytes: the first, the middle and the last cover them all.
            let ends = u64::from(args[0]) << 8 | u64::from(args[length - 1]);
            (seed, ends, u64::from(args[length / 2]))
        } else {
            (seed, 0, 0)
        };
        // The length goes in, or a zero byte at the end would change nothing.
        fold(fold(low ^ self.args, high ^ state) ^ SECRET[2], seed ^ length as u64)
    }
}

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(…)")
    }
}

/// Mixes what stands before the last 16 bytes of an input longer than a round.
fn rounds(seed: u64, args: &[u8]) -> u64 {
    let mut rest = args;
    let mut lanes = [seed, seed ^ SECRET[0], seed ^ SECRET[1], seed ^ SECRET[2]];
    while rest.len() > ROUND_BYTES {
        for (i, lane) in lanes.iter_mut().enumerate() {
            let at = i * PAIR_BYTES;
            *lane = fold(word(rest, at) ^ SECRET[0], word(rest, at + 8) ^ *lane);
        }
        rest = &rest[ROUND_BYTES..];
    }
    let state = fold(lanes[0] ^ lanes[1].rotate_left(17), lanes[2] ^ lanes[3].rotate_left(31));
    pairs(state ^ seed, rest)
}

/// Mixes what stands before the last 16 bytes, pair by pair.
#[inline]
fn pairs(seed: u64, args: &[u8]) -> u64 {
    let (mut state, mut rest) = (seed, args);
    while let Some((pair, tail)) = rest.split_first_chunk::<PAIR_BYTES>()
        && !tail.is_empty()
    {
        state = fold(word(pair, 0) ^ SECRET[2], word(pair, 8) ^ state);
        rest = tail;
    }
    state
}

/// The folded multiply: every bit of the result depends on every bit of both factors.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = halves(a as u128 * b as u128);
    low ^ high
}

#[expect(clippy::cast_possible_truncation, reason = "taking the halves apart is the point")]
#[inline]
const fn halves(number: u128) -> (u64, u64) {
    (number as u64, (number >> 64) as u64)
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline]
fn half_word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u64::from(u32::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ADD: MethodId = MethodId::of("calc.add");

    fn key(number: u8) -> DigestKey {
        DigestKey::new([number.wrapping_mul(37).wrapping_add(11); 16])
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| u8::try_from(i * 131 % 251).expect("below 251")).collect()
    }

    /// Lengths on both sides of every border in the code.
    const LENGTHS: [usize; 20] =
        [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 200, 1_000];

    #[test]
    fn the_same_call_has_the_same_digest() {
        for length in LENGTHS {
            let args = pattern(length);
            assert_eq!(key(1).digest(ADD, &args), key(1).digest(ADD, &args.clone()), "{length}");
        }
    }

    #[test]
    fn the_length_counts() {
        let key = key(1);
        for byte in [0, 0xff] {
            let zeros = vec![byte; 300];
            let digests: HashSet<u64> = (0..300).map(|n| key.digest(ADD, &zeros[..n])).collect();
            assert_eq!(digests.len(), 300);
        }
    }

    #[test]
    fn the_key_and_the_method_change_everything() {
        for length in LENGTHS {
            let args = pattern(length);
            let digests: HashSet<u64> = (0..200).map(|n| key(n).digest(ADD, &args)).collect();
            assert_eq!(digests.len(), 200, "keys at {length} bytes");
            let digests: HashSet<u64> =
                (0..200).map(|n| key(1).digest(MethodId(n), &args)).collect();
            assert_eq!(digests.len(), 200, "methods at {length} bytes");
        }
        let differing: u32 = (0..100)
            .map(|n| (key(n).digest(ADD, b"") ^ key(n + 1).digest(ADD, b"")).count_ones())
            .sum();
        assert!((2_700..=3_700).contains(&differing), "{differing} of 6 400 bits");
    }

    #[test]
    fn every_bit_of_the_input_flips_about_half_of_the_digest() {
        for length in LENGTHS {
            let args = pattern(length);
            let before: Vec<u64> = (0..16).map(|n| key(n).digest(ADD, &args)).collect();
            for bit in 0..length * 8 {
                let mut flipped = args.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let differing: u32 = before
                    .iter()
                    .zip(0..)
                    .map(|(digest, n)| (digest ^ key(n).digest(ADD, &flipped)).count_ones())
                    .sum();
                // 1 024 fair coins: the mean is 512, the standard deviation 16.
                assert!(
                    (400..=624).contains(&differing),
                    "bit {bit} of {length} bytes flips {differing} of 1 024"
                );
            }
        }
    }

    #[test]
    fn exchanged_blocks_are_seen() {
        let key = key(3);
        let args = pattern(512);
        let whole = key.digest(ADD, &args);
        for block in [8, 16, 64] {
            for i in 0..512 / block - 1 {
                let mut exchanged = args.clone();
                exchanged[i * block..(i + 2) * block].rotate_left(block);
                assert_ne!(exchanged, args);
                assert_ne!(key.digest(ADD, &exchanged), whole, "blocks of {block} at {i}");
            }
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", DigestKey::new([7; 16])), "DigestKey(…)");
    }
}
