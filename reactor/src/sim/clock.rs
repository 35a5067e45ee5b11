//! The clock of a host: true time, less what is wrong with it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::random::nanos;

/// Rates are counted in billionths.
const BILLION: u128 = 1_000_000_000;

/// A clock that runs at a rate of its own and may leap forward, never back.
#[derive(Debug)]
pub(crate) struct Clock {
    /// What the clock showed when the rate last changed, in nanoseconds since the base...
    shown: u64,
    /// ... and when that was, in true time.
    at: u64,
    /// Billionths of a true second that a second of this clock differs by.
    drift_ppb: i64,
}

impl Clock {
    /// A clock that shows `shown` nanoseconds at true time 0.
    pub(crate) fn new(shown: u64) -> Self {
        Self { shown, at: 0, drift_ppb: 0 }
    }

    /// What the clock shows at true time `now`.
    pub(crate) fn show(&self, now: u64) -> Instant {
        base() + Duration::from_nanos(self.shown_at(now))
    }

    /// The first true time at which the clock shows `instant` or later; 0 if that is long past.
    pub(crate) fn when(&self, instant: Instant) -> u64 {
        let shown = nanos(instant.saturating_duration_since(base()));
        let ahead = u128::from(shown.saturating_sub(self.shown));
        let passed = (ahead * BILLION).div_ceil(self.rate());
        self.at.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Lets the clock run faster (or slower) from `now` on.
    pub(crate) fn drift(&mut self, now: u64, drift_ppm: i32) {
        self.shown = self.shown_at(now);
        self.at = now;
        self.drift_ppb = i64::from(drift_ppm.clamp(-500_000, 500_000)) * 1_000;
    }

    /// Puts the clock forward.
    pub(crate) fn leap(&mut self, by: Duration) {
        self.shown = self.shown.saturating_add(nanos(by));
    }

    fn shown_at(&self, now: u64) -> u64 {
        let passed = u128::from(now.saturating_sub(self.at)) * self.rate() / BILLION;
        self.shown.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    fn rate(&self) -> u128 {
        u128::try_from(1_000_000_000 + self.drift_ppb).expect("at most half of it is taken off")
    }
}

/// The instant that all simulated clocks count from, the one reading of a real clock: an `Instant`
/// can be made in no other way. It lies ahead, so that what a program subtracts from the time never
/// reaches below the beginning of the machine's own clock, on one machine and not on another.
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(|| Instant::now() + Duration::from_secs(10 * 365 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_reaches_each_of_its_instants_and_not_earlier() {
        for drift_ppm in [-20_000, -300, 0, 1, 300, 50_000] {
            let mut clock = Clock::new(5_000);
            clock.drift(1_000, drift_ppm);
            for ahead in [0, 1, 999, 1_000_003, 123_456_789_012] {
                let instant = clock.show(1_000) + Duration::from_nanos(ahead);
                let when = clock.when(instant);
                assert!(clock.show(when) >= instant, "{drift_ppm} {ahead}");
                assert!(ahead == 0 || clock.show(when - 1) < instant, "{drift_ppm} {ahead}");
            }
        }
    }

    #[test]
    fn a_clock_never_goes_back() {
        let mut clock = Clock::new(0);
        let mut last = clock.show(0);
        for now in 1..1_000 {
            match now % 10 {
                3 => clock.drift(now, -500_000),
                6 => clock.leap(Duration::from_nanos(40)),
                9 => clock.drift(now, 500_000),
                _ => {}
            }
            let shown = clock.show(now);
            assert!(shown >= last);
            last = shown;
        }
    }
}
