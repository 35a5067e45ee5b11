//! How often and how soon something is tried again.

use std::time::{Duration, Instant};

use crate::limits::Limits;

/// Jitter, in percent of a pause, to either side.
const JITTER_PERCENT: u32 = 20;
/// The shortest pause, whatever the limits say: without one, a driver whose attempts fail at once
/// would never come to anything else.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How often the wait before a retransmission doubles: from 2 s to 64 s.
const RETRANSMIT_DOUBLINGS_MAX: u32 = 5;
/// Seconds for which unused retries are saved up.
const BUDGET_SECONDS_MAX: u64 = 10;
/// The budget is counted in thousandths of a retry.
const RETRY: u64 = 1_000;

/// Numbers that spread clients over time; not for secrets.
///
/// Source: splitmix64, from Steele, Lea, Flood, *Fast Splittable Pseudorandom Number Generators*.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// Returns `pause`, longer or shorter by up to a fifth.
    pub(super) fn spread(&mut self, pause: Duration) -> Duration {
        let span = u64::from(2 * JITTER_PERCENT + 1);
        let percent = 100 - JITTER_PERCENT + u32::try_from(self.next() % span).unwrap_or(0);
        pause * percent / 100
    }

    /// Returns a number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// Returns the pause before the try that follows `failures` failed ones, without jitter.
pub(super) fn pause(failures: u32, limits: &Limits) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    limits.backoff_min.saturating_mul(1 << doublings).min(limits.backoff_max).max(PAUSE_MIN)
}

/// Returns how long the answer to an at-least-once call is awaited that was sent so often, before it
/// is sent again, without jitter.
pub(super) fn retransmit_pause(transmissions: u32, limits: &Limits) -> Duration {
    let doublings = transmissions.saturating_sub(1).min(RETRANSMIT_DOUBLINGS_MAX);
    limits.retransmit_timeout.saturating_mul(1 << doublings).max(PAUSE_MIN)
}

/// Failed attempts to have a connection, since one was last ready.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    last_failure: String,
    /// What the server asked for when it refused the handshake.
    asked: Duration,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { failures: 0, last_failure: String::new(), asked: Duration::ZERO }
    }

    /// Notes a failure and returns when to try again.
    pub(super) fn failed(
        &mut self,
        why: &str,
        limits: &Limits,
        jitter: &mut Jitter,
        now: Instant,
    ) -> Instant {
        self.failures = self.failures.saturating_add(1);
        why.clone_into(&mut self.last_failure);
        let asked = std::mem::take(&mut self.asked);
        now + jitter.spread(pause(self.failures, limits)).max(asked)
    }

    /// Makes the next pause at least this long.
    pub(super) fn ask(&mut self, pause: Duration) {
        self.asked = pause;
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.last_failure.clear();
    }

    /// Returns why there is no connection, in brackets, for the end of a message.
    pub(super) fn last_failure(&self) -> String {
        match self.last_failure.as_str() {
            "" => String::new(),
            why => format!(" ({why})"),
        }
    }
}

/// How many retries may be made: some for each call, and some for each second.
///
/// A retry that finds the budget empty waits; it is never given up for that.
#[derive(Debug)]
pub(super) struct Budget {
    thousandths: u64,
    max: u64,
    per_call: u64,
    per_second: u64,
    counted_at: Instant,
}

impl Budget {
    pub(super) fn new(limits: &Limits, now: Instant) -> Budget {
        let per_second = u64::from(limits.retries_per_second) * RETRY;
        let max = (per_second * BUDGET_SECONDS_MAX).max(RETRY);
        Budget {
            thousandths: max,
            max,
            per_call: u64::from(limits.retries_per_hundred_calls) * RETRY / 100,
            per_second: per_second.max(1),
            counted_at: now,
        }
    }

    /// Notes that a call was sent for the first time.
    pub(super) fn earn(&mut self) {
        self.thousandths = (self.thousandths + self.per_call).min(self.max);
    }

    /// Takes one retry out, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.count(now);
        let has_one = self.thousandths >= RETRY;
        if has_one {
            self.thousandths -= RETRY;
        }
        has_one
    }

    /// Returns when there will be one.
    pub(super) fn next_at(&self) -> Instant {
        let missing = RETRY.saturating_sub(self.thousandths);
        self.counted_at + Duration::from_millis((missing * 1_000).div_ceil(self.per_second))
    }

    fn count(&mut self, now: Instant) {
        let millis = now.saturating_duration_since(self.counted_at).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(self.per_second) / 1_000;
        if earned > 0 {
            self.thousandths = self.thousandths.saturating_add(earned).min(self.max);
            self.counted_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let limits = Limits::default();
        let millis: Vec<_> = (1..9).map(|n| pause(n, &limits).as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(pause(u32::MAX, &limits), limits.backoff_max);
    }

    #[test]
    fn jitter_stays_within_a_fifth_and_uses_it() {
        let mut jitter = Jitter::new(7);
        let millis: Vec<_> =
            (0..500).map(|_| jitter.spread(Duration::from_millis(100)).as_millis()).collect();
        assert_eq!((millis.iter().min(), millis.iter().max()), (Some(&80), Some(&120)));
    }

    #[test]
    fn a_server_that_asks_for_a_pause_gets_it_once() {
        let limits = Limits::default();
        let now = Instant::now();
        let mut backoff = Backoff::new();
        backoff.ask(Duration::from_secs(60));
        let mut jitter = Jitter::new(1);
        assert_eq!(
            backoff.failed("full", &limits, &mut jitter, now),
            now + Duration::from_secs(60)
        );
        assert_eq!(backoff.last_failure(), " (full)");
        let next = backoff.failed("full", &limits, &mut jitter, now);
        assert!(next <= now + Duration::from_millis(240), "doubled once, not asked again");
    }

    #[test]
    fn an_empty_budget_fills_by_time_and_by_calls() {
        let limits = Limits::default();
        let start = Instant::now();
        let mut budget = Budget::new(&limits, start);
        let mut taken = 0;
        while budget.take(start) {
            taken += 1;
        }
        assert_eq!(taken, 100, "ten seconds' worth");
        assert_eq!(budget.next_at(), start + Duration::from_millis(100));
        assert!(!budget.take(start + Duration::from_millis(99)));
        assert!(budget.take(start + Duration::from_millis(110)));
        let now = start + Duration::from_millis(110);
        for _ in 0..5 {
            assert!(!budget.take(now));
            budget.earn();
        }
        assert!(budget.take(now), "five calls earn one retry");
    }
}
