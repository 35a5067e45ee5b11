//! When each call is due.

use crate::options::Rate;

const NANOSECONDS_PER_SECOND: f64 = 1e9;

/// The plan of an open loop: call `n` of all is due at `start + n / rate`, on connection
/// `n % connections`, whether earlier ones are answered or not.
///
/// Latency is counted from that moment. A server that stalls then pays for every call that would
/// have been made meanwhile, not only for the one that happened to be waiting.
///
/// Source: G. Tene, *How NOT to Measure Latency* (coordinated omission); wrk2.
pub struct Pace {
    start_ns: u64,
    interval_ns: f64,
    connections: u64,
    /// Calls that have fallen due.
    due: u64,
}

impl Pace {
    /// Returns the plan of `rate` over `connections` from `start_ns` on; `None` in a closed loop.
    pub fn new(rate: Rate, connections: u32, start_ns: u64) -> Option<Pace> {
        let Rate::PerSecond(rate) = rate else { return None };
        let interval_ns = NANOSECONDS_PER_SECOND / rate;
        Some(Pace { start_ns, interval_ns, connections: u64::from(connections), due: 0 })
    }

    /// Returns the connection whose next call has fallen due by `now_ns`, if any has.
    pub fn next_due(&mut self, now_ns: u64) -> Option<u64> {
        if self.next_at() > now_ns {
            return None;
        }
        self.due += 1;
        Some((self.due - 1) % self.connections)
    }

    /// Returns when the next call falls due.
    pub fn next_at(&self) -> u64 {
        self.at(self.due)
    }

    /// Returns when call `n` of one connection, counted from 0, is due.
    pub fn due_at(&self, connection: u64, n: u64) -> u64 {
        self.at(n * self.connections + connection)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "exact up to 2^53 ns, which is 104 days"
    )]
    fn at(&self, n: u64) -> u64 {
        self.start_ns + (n as f64 * self.interval_ns) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_loop_has_no_plan() {
        assert!(Pace::new(Rate::Max, 3, 0).is_none());
    }

    #[test]
    fn calls_fall_due_evenly_and_in_turn() {
        let mut pace = Pace::new(Rate::PerSecond(1e6), 3, 5_000).expect("an open loop");
        assert_eq!(pace.next_due(4_999), None);
        assert_eq!(pace.next_at(), 5_000);
        let due: Vec<u64> = std::iter::from_fn(|| pace.next_due(8_500)).collect();
        assert_eq!(due, [0, 1, 2, 0], "at 5, 6, 7 and 8 us");
        assert_eq!(pace.next_at(), 9_000);
        assert_eq!(pace.due_at(0, 1), 8_000, "the second call of the first connection");
        assert_eq!(pace.due_at(2, 0), 7_000);
    }
}
