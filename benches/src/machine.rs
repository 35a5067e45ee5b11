//! What this process may use, where it runs and what it has used: the kernel's numbers.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::message::Sample;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Raises this process's limit of descriptors as far as it may and returns it.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Raising the soft limit to the hard one needs no privilege; should it fail all the same, the
    // soft one is what there is.
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    limit.current.unwrap_or(u64::MAX)
}

/// Returns the cores this process may run on.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None).context("asking which cores there are")?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Keeps the calling thread, and those it starts from here on, on `core`.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("staying on core {core}"))
}

/// Keeps the calling thread off `core`, if there is another.
pub(crate) fn avoid(core: usize) -> Result<()> {
    let mut set = sched_getaffinity(None).context("asking which cores there are")?;
    set.unset(core);
    if set.count() > 0 {
        sched_setaffinity(None, &set).with_context(|| format!("staying off core {core}"))?;
    }
    Ok(())
}

/// Returns this process's CPU time, in microseconds.
pub(crate) fn cpu_us() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("asking what was used")?;
    Ok(microseconds(usage.user_time()) + microseconds(usage.system_time()))
}

/// Returns what this process has used so far.
pub(crate) fn sample() -> Result<Sample> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("asking what was used")?;
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let memory = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    Ok(Sample {
        at_ns: monotonic_ns(),
        cpu_us: microseconds(usage.user_time()) + microseconds(usage.system_time()),
        context_switches: u64::try_from(switches).unwrap_or(0),
        rss_anon_bytes: field(&status, "RssAnon:").unwrap_or(0) * 1024,
        threads: field(&status, "Threads:").unwrap_or(0),
        kernel_stack_bytes: field(&memory, "KernelStack:").unwrap_or(0) * 1024,
    })
}

/// Returns the system's monotonic clock, which all processes share, in nanoseconds.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(now.tv_sec) * NANOSECONDS_PER_SECOND + part(now.tv_nsec)
}

#[expect(clippy::cast_precision_loss, reason = "CPU times are far below 2^53 us")]
fn microseconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64
}

/// Returns the number behind `name` in a file of `/proc` with one field a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the number that a file of `/proc` or `/sys` consists of; `None` where there is no such
/// file or no limit (`max`).
pub(crate) fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_every_number() {
        let before = sample().expect("Linux has them");
        let mut heap = vec![0_u8; 8 << 20];
        for page in heap.chunks_mut(4096) {
            page[0] = 1;
        }
        let after = sample().expect("Linux has them");
        assert!(after.rss_anon_bytes >= before.rss_anon_bytes + (4 << 20), "{before:?} {after:?}");
        assert!(after.cpu_us >= before.cpu_us && after.cpu_us > 0.0);
        assert!(after.at_ns > before.at_ns);
        assert!(after.threads >= 1 && after.kernel_stack_bytes > 0);
        assert_eq!(heap[0], 1);
    }
}
