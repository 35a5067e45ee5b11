//! The load's process: opens the connections in two steps (so that the parent can take the
//! server's memory at each), drives them, and reports.

mod bare;
mod connection;
mod pace;
mod sources;
mod tally;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::control::{self, Control};
use crate::machine;
use crate::message::LoadLine;
use crate::options::{LoadKind, LoadOptions};

/// The share of the measured time that is spent on warming up, and its least length.
const WARM_UP_SHARE: f64 = 0.2;
const WARM_UP_MIN: Duration = Duration::from_millis(500);
/// How long to wait for calls that are still unanswered at the end.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// How often to tell the parent how many connections there are.
const TELL_INTERVAL: Duration = Duration::from_millis(100);
/// Time without any progress after which a server is given up.
const STALL_MAX: Duration = Duration::from_secs(15);

/// Loads the server as `options` say, reporting to the parent.
pub(crate) fn drive(options: &LoadOptions) -> Result<()> {
    machine::raise_descriptor_limit();
    let control = Control::start();
    if let Some(core) = options.core {
        machine::pin(core)?;
    }
    // The default of 50 us would be charged to the latency of every call at a fixed rate.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))
        .context("asking for exact timers")?;
    let (tally, mut report) = match options.kind {
        LoadKind::Bare => bare::Load::new(options, &control)?.drive()?,
    };
    tally.fill(&mut report);
    if let Some(path) = &options.hgrm {
        crate::hgrm::write(tally.histogram(), path)?;
    }
    control::say(&LoadLine::Report(report));
    Ok(())
}

/// Returns how long to warm up before measuring for `seconds`.
pub(crate) fn warm_up(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds * WARM_UP_SHARE).max(WARM_UP_MIN)
}

/// Returns the longest the load says nothing.
pub(crate) fn silence_max(seconds: f64) -> Duration {
    warm_up(seconds) + Duration::from_secs_f64(seconds) + DRAIN_MAX + 2 * STALL_MAX
}
