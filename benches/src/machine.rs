//! What this process may use, where it runs and what it has used: the kernel's numbers.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::message::Sample;

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Raises this process's limit of descriptors as far as it may and returns it.
pub fn raise_descriptor_limit() -> u64 {
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
///
/// # Errors
///
/// There is no such core, or this process may not use it.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("staying on core {core}"))
}

/// Keeps the calling thread off `core`, if there is another.
///
/// # Errors
///
/// The system does not say which cores there are.
pub fn avoid(core: usize) -> Result<()> {
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
    let status = read("/proc/self/status")?;
    let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    Ok(Sample {
        at_ns: monotonic_ns(),
        cpu_us: microseconds(usage.user_time()) + microseconds(usage.system_time()),
        context_switches: u64::try_from(switches).unwrap_or(0),
        rss_anon_bytes: field(&status, "RssAnon:").unwrap_or(0) * 1024,
        // Without the one that answers the parent.
        threads: field(&status, "Threads:").unwrap_or(0).saturating_sub(1),
        kernel_stack_bytes: kernel_stack_bytes()?,
    })
}

/// Returns what the process `id`, another program, has used so far.
///
/// Of its CPU time and its context switches, those of threads that have ended are missing.
///
/// # Errors
///
/// There is no such process, or the kernel does not count (`CONFIG_SCHED_INFO`).
pub fn sample_of(id: u32) -> Result<Sample> {
    let status = read(&format!("/proc/{id}/status"))?;
    let (mut cpu_ns, mut context_switches) = (0, 0);
    let tasks = format!("/proc/{id}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("listing {tasks}"))? {
        let task = task.with_context(|| format!("listing {tasks}"))?.path();
        let task = task.display();
        let times = read(&format!("{task}/schedstat"))?;
        let ran_ns: Option<u64> = times.split(' ').next().and_then(|first| first.parse().ok());
        cpu_ns += ran_ns.with_context(|| format!("reading {task}/schedstat"))?;
        let status = read(&format!("{task}/status"))?;
        for name in ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"] {
            context_switches += field(&status, name).unwrap_or(0);
        }
    }
    Ok(Sample {
        at_ns: monotonic_ns(),
        cpu_us: Duration::from_nanos(cpu_ns).as_secs_f64() * 1e6,
        context_switches,
        rss_anon_bytes: field(&status, "RssAnon:").unwrap_or(0) * 1024,
        threads: field(&status, "Threads:").unwrap_or(0),
        kernel_stack_bytes: kernel_stack_bytes()?,
    })
}

/// Returns the kernel stacks of the whole machine.
fn kernel_stack_bytes() -> Result<u64> {
    Ok(field(&read("/proc/meminfo")?, "KernelStack:").unwrap_or(0) * 1024)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

/// Returns the memory that programs may still be given without swapping.
pub(crate) fn available_bytes() -> Option<u64> {
    Some(field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")? * 1024)
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
        let outside = || sample_of(std::process::id()).expect("this process is one");
        let before_outside = outside();
        let mut heap = vec![0_u8; 8 << 20];
        for page in heap.chunks_mut(4096) {
            page[0] = 1;
        }
        let after = sample().expect("Linux has them");
        assert!(after.rss_anon_bytes >= before.rss_anon_bytes + (4 << 20), "{before:?} {after:?}");
        assert!(after.cpu_us >= before.cpu_us && after.cpu_us > 0.0);
        assert!(after.at_ns > before.at_ns);
        assert!(after.threads >= 1 && after.kernel_stack_bytes > 0);
        let after_outside = outside();
        assert!(after_outside.rss_anon_bytes >= before_outside.rss_anon_bytes + (4 << 20));
        assert!(after_outside.cpu_us > 0.0 && after_outside.at_ns > after.at_ns);
        assert!(after_outside.threads > after.threads, "nobody in there answers a parent");
        assert_eq!(heap[0], 1);
    }
}
