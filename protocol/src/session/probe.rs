//! Is the server still there? Silence while calls are out, asked into, and given up.

use std::time::{Duration, Instant};

/// What is known of a connection's silence.
#[derive(Debug)]
pub(super) struct Probe {
    /// Since when an answer could have come and nothing has.
    silent_since: Instant,
    /// Whether a PING has been sent into the silence.
    has_asked: bool,
    /// Whether one is to be sent.
    wants_ping: bool,
    /// When something was last received.
    heard_at: Instant,
}

impl Probe {
    pub(super) fn new(now: Instant) -> Probe {
        Probe { silent_since: now, has_asked: false, wants_ping: false, heard_at: now }
    }

    /// Notes that something was received at this time.
    pub(super) fn heard(&mut self, at: Instant) {
        if at >= self.silent_since {
            *self = Probe::new(at);
        } else {
            self.heard_at = self.heard_at.max(at);
        }
    }

    /// Notes that a call is out, when before there was none.
    pub(super) fn expect(&mut self, now: Instant) {
        *self = Probe { heard_at: self.heard_at, ..Probe::new(now) };
    }

    /// Returns when something was last received, or the probe was made.
    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Returns when the silence has lasted long enough to do something about it.
    pub(super) fn next_deadline(&self, timeout: Duration) -> Instant {
        self.silent_since + timeout
    }

    /// Asks the server if it is time to, and returns whether it is to be given up instead.
    pub(super) fn is_dead(&mut self, timeout: Duration, now: Instant) -> bool {
        if self.wants_ping || now < self.next_deadline(timeout) {
            return false;
        }
        if self.has_asked {
            return true;
        }
        *self = Probe { silent_since: now, has_asked: true, wants_ping: true, ..*self };
        false
    }

    pub(super) fn wants_ping(&self) -> bool {
        self.wants_ping
    }

    /// Returns whether a PING is to be sent, which is then thought to be.
    pub(super) fn take_ping(&mut self) -> bool {
        std::mem::take(&mut self.wants_ping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    #[test]
    fn one_ping_is_asked() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut probe = Probe::new(start);
        probe.expect(at(10));
        assert!(!probe.is_dead(TIMEOUT, at(11)) && !probe.take_ping());
        assert!(!probe.is_dead(TIMEOUT, at(12)) && probe.take_ping());
        assert_eq!(probe.next_deadline(TIMEOUT), at(14));
        probe.heard(at(9));
        assert!(probe.is_dead(TIMEOUT, at(14)), "what came before is no answer");
        probe.heard(at(13));
        assert!(!probe.is_dead(TIMEOUT, at(14)));
    }

    #[test]
    fn a_ping_that_did_not_leave_is_not_missed() {
        let start = Instant::now();
        let mut probe = Probe::new(start);
        assert!(!probe.is_dead(TIMEOUT, start + TIMEOUT));
        assert!(!probe.is_dead(TIMEOUT, start + 30 * TIMEOUT));
        assert!(probe.take_ping());
    }
}
