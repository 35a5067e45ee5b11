//! The bare load's frames of the real protocol: requests, ready-made, and what comes back.

use std::io;
use std::ops::Range;

use onceloop_protocol::error::{Code, ErrorBody};
use onceloop_protocol::frame::{Flags, HEADER_BYTES, Kind, MAGIC};
use onceloop_protocol::handshake::Welcome;

use super::index;
use super::tally::Class;
use super::wire::{Front, Notice, Wire};
use crate::frames;
use crate::options::{LoadOptions, SlowCalls};

/// An answer from this length on is not kept until it is whole: its bytes are counted.
const SKIPPED_BYTES_MIN: usize = 16 * 1024;

/// Requests to be stamped and sent.
pub(super) struct Calls {
    /// The window to ask for.
    window: u32,
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
    /// Returns those that `options` ask for, at most a window of them at once.
    pub(super) fn new(options: &LoadOptions) -> Calls {
        let payload = index(options.payload);
        let fast = frames::request(payload, Flags::NONE);
        Calls {
            window: options.window,
            fast: fast.repeat(index(options.window.into())),
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
}

impl Wire for Calls {
    fn hello(&self) -> Vec<u8> {
        frames::hello(self.window)
    }

    fn welcome(&self, bytes: &[u8]) -> io::Result<Option<(usize, u32)>> {
        if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
            return Err(io::Error::other("the server speaks another protocol"));
        }
        let Some(rest) = bytes.get(MAGIC.len()..) else { return Ok(None) };
        match frames::front(rest) {
            frames::Front::Part => Ok(None),
            frames::Front::Frame(header, length) if header[4] == Kind::Welcome as u8 => {
                let welcome: Welcome = rmp_serde::from_slice(&rest[HEADER_BYTES..length])
                    .map_err(|error| io::Error::other(format!("WELCOME: {error}")))?;
                Ok(Some((MAGIC.len() + length, welcome.window)))
            }
            _ => Err(io::Error::other("the server answered HELLO with something else")),
        }
    }

    #[inline]
    fn requests(&mut self, seqs: Range<u64>, ack: u64, mut tell: impl FnMut(u64, Class)) -> &[u8] {
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

    fn large_request(&mut self, seq: u64, ack: u64) -> &[u8] {
        frames::stamp(&mut self.large, seq, ack);
        &self.large
    }

    #[inline]
    fn front(&self, bytes: &[u8]) -> Front {
        match frames::front(bytes) {
            frames::Front::Frame(header, length) if header[4] == Kind::Reply as u8 => {
                Front::Answer(Some(frames::seq(header)), length)
            }
            frames::Front::Frame(_, length) => Front::Other(length),
            frames::Front::Part => front_of_part(bytes),
            frames::Front::Broken => Front::Other(bytes.len()),
        }
    }

    fn notice(&self, frame: &[u8]) -> io::Result<Notice> {
        let frames::Front::Frame(header, _) = frames::front(frame) else {
            return Err(io::Error::other("the server sent a broken frame"));
        };
        let seq = frames::seq(header);
        Ok(match Kind::from_wire(header[4]) {
            Some(Kind::Pong) => Notice::Acknowledged,
            Some(Kind::Ping) => Notice::Asks(frames::bare(Kind::Pong, seq)),
            Some(Kind::Error) => Notice::Failed(seq, explain(&frame[HEADER_BYTES..])),
            kind => Notice::Unknown(format!("a frame of kind {kind:?}")),
        })
    }

    /// ACK, and a PING behind it.
    fn acknowledge(&self, ack: u64) -> Vec<u8> {
        let mut out = frames::bare(Kind::Ack, ack);
        out.extend(frames::bare(Kind::Ping, 0));
        out
    }

    fn bye(&self, ack: u64) -> Vec<u8> {
        frames::bare(Kind::Bye, ack)
    }
}

/// Returns what the beginning of a frame is: a long answer's is as good as all of it.
fn front_of_part(bytes: &[u8]) -> Front {
    match frames::announced(bytes) {
        Some((header, length)) if header[4] == Kind::Reply as u8 && length >= SKIPPED_BYTES_MIN => {
            Front::Begun(Some(frames::seq(header)), length)
        }
        _ => Front::Part,
    }
}

/// Returns what an ERROR frame says, for a person.
fn explain(body: &[u8]) -> String {
    match rmp_serde::from_slice::<ErrorBody<'_>>(body) {
        Ok(error) => {
            let name = Code::from_wire(error.code).map_or("an unknown code", Code::name);
            format!("{name}: {}", error.message)
        }
        Err(_) => "an error that does not decode".to_owned(),
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
