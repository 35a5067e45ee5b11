//! The load's process: opens the connections in two steps (so that the parent can take the
//! server's memory at each), drives them, and reports.

pub(crate) mod bare;
mod calls;
mod client;
mod connection;
pub(crate) mod pace;
pub(crate) mod sequence;
pub(crate) mod sources;
pub(crate) mod tally;
pub(crate) mod wire;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::control::{self, Control};
use crate::machine;
use crate::message::{LoadLine, Report};
use crate::options::{LoadKind, LoadOptions};
use sequence::Generator;
pub(crate) use sources::ports_per_address;

/// The share of the measured time that is spent on warming up, and its least length.
const WARM_UP_SHARE: f64 = 0.2;
const WARM_UP_MIN: Duration = Duration::from_millis(500);
/// How long to wait for calls that are still unanswered at the end.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Calls that fall due at one look at the plan: with more than that the load would do nothing but look.
const DUE_PER_LOOK_MAX: usize = 1024;
/// Time without any progress after which a server is given up.
pub const STALL_MAX: Duration = Duration::from_secs(15);

/// Loads the server as `options` say, reporting to the parent.
pub(crate) fn drive(options: &LoadOptions) -> Result<()> {
    match options.kind {
        LoadKind::Bare => drive_with(options, || {
            bare::Load::new(options, options.window, calls::Calls::new(options))
        }),
        LoadKind::Client if options.slow.is_some() || options.large.is_some() => {
            bail!("the client library's load makes calls of one kind")
        }
        LoadKind::Client => drive_with(options, || client::Load::new(options)),
        LoadKind::Own => bail!("the peers' program has the clients of the peers"),
    }
}

/// Loads the server by what `make` returns, reporting to the parent. It is made on the load's core.
///
/// # Errors
///
/// The process cannot be kept on its core, `make` or the generator fails, the parent is stuck or
/// the percentiles cannot be written. What goes wrong with a call is counted instead.
pub fn drive_with<G: Generator>(
    options: &LoadOptions,
    make: impl FnOnce() -> Result<G>,
) -> Result<()> {
    machine::raise_descriptor_limit();
    let control = Control::start();
    if let Some(core) = options.core {
        machine::pin(core)?;
    }
    // The default of 50 us would be charged to the latency of every call at a fixed rate.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))
        .context("asking for exact timers")?;
    run(make()?, options, &control)
}

fn run(mut generator: impl Generator, options: &LoadOptions, control: &Control) -> Result<()> {
    let report: Report = sequence::run(&mut generator, options, control)?;
    if let Some(path) = &options.hgrm {
        crate::hgrm::write(generator.tally().fast(), path)?;
        if options.slow.is_some() {
            crate::hgrm::write(generator.tally().slow(), &slow_path(path))?;
        }
    }
    control::say(&LoadLine::Report(Box::new(report)));
    Ok(())
}

/// Returns where the slow calls' percentiles go, beside those of the fast ones.
fn slow_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("-slow.hgrm");
    path.with_file_name(name)
}

/// Returns how long to warm up before measuring for `seconds`.
fn warm_up(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds * WARM_UP_SHARE).max(WARM_UP_MIN)
}

/// Returns how long warm-up and measured time are together.
pub(crate) fn takes(seconds: f64) -> Duration {
    warm_up(seconds) + Duration::from_secs_f64(seconds)
}

/// Returns the longest the load says nothing.
pub(crate) fn silence_max(seconds: f64) -> Duration {
    takes(seconds) + DRAIN_MAX + 2 * STALL_MAX
}

/// Returns until when to wait for events if the next call is due at `next_at`, at most until `end_ns`.
///
/// On a core of its own the load asks again and again rather than sleep until a call is due: it would
/// wake up too late.
fn wake_at(next_at: Option<u64>, options: &LoadOptions, now: u64, end_ns: u64) -> u64 {
    match next_at {
        Some(_) if options.core.is_some() => now,
        Some(next_at) => next_at.min(end_ns),
        None => end_ns,
    }
}

/// Returns the whole nanoseconds of `duration`.
#[inline]
pub fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000_000 + u64::from(duration.subsec_nanos())
}

/// Returns a number that indexes something in memory.
#[inline]
pub fn index(number: u64) -> usize {
    usize::try_from(number).expect("what is in memory can be indexed")
}
