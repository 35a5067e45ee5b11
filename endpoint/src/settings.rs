//! What all connections of one server or client have in common.

use std::time::Instant;

use onceloop_protocol::limits::Limits;
use onceloop_protocol::scan::ScanLimits;
use onceloop_reactor::Registry;

use crate::work::Spare;

/// The limits in force, and the instant from which the connections count their time. Shared, so
/// that a connection carries one pointer.
#[derive(Debug)]
pub struct Settings {
    /// The limits in force.
    pub limits: Limits,
    /// The part of them that bounds a body.
    pub(crate) scan_limits: ScanLimits,
    /// What their connections need only now and then.
    pub(crate) spare: Spare,
    epoch: Instant,
}

impl Settings {
    /// Returns settings with these limits, for connections of this loop.
    pub fn new<S>(limits: Limits, registry: &Registry<S>) -> Self {
        let scan_limits = ScanLimits::of(&limits);
        let spare = Spare::new(registry.events());
        Settings { limits, scan_limits, spare, epoch: registry.now() }
    }

    /// Returns `now` in milliseconds, modulo 2³²: differences below 49 days are right.
    pub(crate) fn ticks(&self, now: Instant) -> u32 {
        let ms = now.saturating_duration_since(self.epoch).as_millis();
        (ms & 0xffff_ffff) as u32
    }
}
