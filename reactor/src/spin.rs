//! Asking again and again before blocking.

use std::io;
use std::time::{Duration, Instant};

/// Asks `poll`, which does not block, until it says that something is there, or until the clock has
/// gone on by `length`; returns whether anything is. Asks once at least.
pub(crate) fn spin(
    length: Duration,
    mut now: impl FnMut() -> Instant,
    mut poll: impl FnMut() -> io::Result<bool>,
) -> io::Result<bool> {
    let until = now() + length;
    loop {
        if poll()? {
            return Ok(true);
        }
        if now() >= until {
            return Ok(false);
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spins for 100 us on a clock that goes on by one each time it is read. Returns what came of it
    /// and how often was asked.
    fn spun(mut poll: impl FnMut(u32) -> io::Result<bool>) -> (io::Result<bool>, u32) {
        let mut now = Instant::now();
        let mut polls = 0;
        let clock = || {
            now += Duration::from_micros(1);
            now
        };
        let outcome = spin(Duration::from_micros(100), clock, || {
            polls += 1;
            poll(polls)
        });
        (outcome, polls)
    }

    #[test]
    fn a_spin_ends_with_the_first_poll_that_brings_something() {
        assert!(matches!(spun(|_| Ok(true)), (Ok(true), 1)));
        assert!(matches!(spun(|polls| Ok(polls == 40)), (Ok(true), 40)));
    }

    #[test]
    fn a_spin_ends_with_its_time() {
        assert!(matches!(spun(|_| Ok(false)), (Ok(false), 100)));
        let clock = Instant::now();
        let mut polls = 0;
        let outcome = spin(
            Duration::ZERO,
            || clock,
            || {
                polls += 1;
                Ok(false)
            },
        );
        assert!(matches!((outcome, polls), (Ok(false), 1)));
    }

    #[test]
    fn a_spin_ends_with_an_error() {
        let failing = |polls| if polls < 3 { Ok(false) } else { Err(io::Error::other("broken")) };
        assert!(matches!(spun(failing), (Err(_), 3)));
    }
}
