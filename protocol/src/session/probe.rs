//! Is the peer still there? Silence, asked into, and given up.

use std::time::{Duration, Instant};

use crate::limits::Limits;

/// What is known of a connection's silence.
#[derive(Debug)]
pub(super) struct Probe {
    /// Since when an answer could have come and nothing has.
    silent_since: Instant,
    /// PINGs sent since something was heard.
    pings: u32,
    /// Whether another is to be sent.
    wants_ping: bool,
}

impl Probe {
    pub(super) fn new(now: Instant) -> Probe {
        Probe { silent_since: now, pings: 0, wants_ping: false }
    }

    /// Notes that something was received.
    pub(super) fn heard(&mut self, now: Instant) {
        *self = Probe::new(now);
    }

    /// Notes that calls are out, when before there were none.
    pub(super) fn expect(&mut self, now: Instant) {
        self.silent_since = now;
    }

    /// Returns when the silence has lasted long enough to do something about it.
    pub(super) fn next_deadline(&self, waiting: bool, limits: &Limits) -> Instant {
        self.silent_since + interval(waiting, limits)
    }

    /// Asks the peer if it is time to, and returns whether it is to be given up instead.
    ///
    /// With calls outstanding one PING is asked, else as many as `Limits` says may be missed.
    pub(super) fn is_dead(&mut self, waiting: bool, limits: &Limits, now: Instant) -> bool {
        if self.wants_ping || now < self.next_deadline(waiting, limits) {
            return false;
        }
        let pings_max = if waiting { 1 } else { limits.pings_missed_max };
        if self.pings >= pings_max {
            return true;
        }
        self.wants_ping = true;
        self.pings += 1;
        self.silent_since = now;
        false
    }

    /// Returns the label of a PING that is to be sent now.
    pub(super) fn take_ping(&mut self) -> Option<u64> {
        std::mem::take(&mut self.wants_ping).then_some(u64::from(self.pings))
    }
}

fn interval(waiting: bool, limits: &Limits) -> Duration {
    if waiting { limits.retransmit_timeout } else { limits.idle_ping }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_calls_outstanding_one_ping_is_asked() {
        let limits = Limits::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut probe = Probe::new(start);
        probe.expect(at(10));
        assert!(!probe.is_dead(true, &limits, at(11)));
        assert_eq!(probe.take_ping(), None);
        assert!(!probe.is_dead(true, &limits, at(12)));
        assert_eq!(probe.take_ping(), Some(1));
        assert_eq!(probe.next_deadline(true, &limits), at(14));
        assert!(probe.is_dead(true, &limits, at(14)));
        probe.heard(at(14));
        assert!(!probe.is_dead(true, &limits, at(14)));
    }

    #[test]
    fn an_idle_connection_may_miss_two() {
        let limits = Limits::default();
        let start = Instant::now();
        let mut probe = Probe::new(start);
        let mut now = start;
        for label in 1..=2 {
            now = probe.next_deadline(false, &limits);
            assert!(!probe.is_dead(false, &limits, now));
            assert_eq!(probe.take_ping(), Some(label));
        }
        assert_eq!(now - start, 2 * limits.idle_ping);
        assert!(probe.is_dead(false, &limits, probe.next_deadline(false, &limits)));
    }

    #[test]
    fn a_ping_that_could_not_leave_is_not_missed() {
        let limits = Limits::default();
        let start = Instant::now();
        let mut probe = Probe::new(start);
        probe.expect(start);
        assert!(!probe.is_dead(true, &limits, start + Duration::from_secs(2)));
        assert!(!probe.is_dead(true, &limits, start + Duration::from_secs(60)));
        assert_eq!(probe.take_ping(), Some(1));
    }
}
