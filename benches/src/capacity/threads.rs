//! What bounds the threads of a process. Each bound is a file of the kernel's or of its control
//! groups; one that is not there does not bound.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::Bound;
use crate::machine;

/// Threads kept for the other parts of the bench and what else starts meanwhile.
const THREADS_RESERVED: u64 = 100;

/// Returns what bounds connections that have a thread each.
pub(super) fn bounds() -> Vec<Bound> {
    let mut bounds = Vec::new();
    let running = tasks().unwrap_or(0);
    for (file, name) in [
        ("/proc/sys/kernel/pid_max", "sysctl kernel.pid_max"),
        ("/proc/sys/kernel/threads-max", "sysctl kernel.threads-max"),
    ] {
        bounds.extend(machine::number(file).map(|most| threads(most, running, name)));
    }
    if let Some(most) = getrlimit(Resource::Nproc).current {
        // Those of this user alone count here; all are taken to be this user's.
        bounds.push(threads(most, running, "ulimit -u"));
    }
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for folder in groups.lines().filter_map(pids_folder) {
        let number = |name| machine::number(&format!("{folder}/{name}"));
        if let Some(most) = number("pids.max") {
            bounds.push(threads(
                most,
                number("pids.current").unwrap_or(0),
                "pids.max of the cgroup",
            ));
        }
    }
    bounds
}

fn threads(most: u64, running: u64, name: &str) -> Bound {
    Bound {
        connections: most.saturating_sub(running + THREADS_RESERVED),
        what: format!("there may be {most} threads (`{name}`), and {running} run already"),
    }
}

/// Returns how many threads the machine runs: the number behind the slash in the load averages.
fn tasks() -> Option<u64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// Returns the folder of the group that a line of `/proc/self/cgroup` names, if it counts threads:
/// `0::/path` in version 2 of control groups, `8:pids:/path` in version 1.
fn pids_folder(line: &str) -> Option<String> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    if controllers.is_empty() {
        return Some(format!("/sys/fs/cgroup{path}"));
    }
    let counts_threads = controllers.split(',').any(|controller| controller == "pids");
    counts_threads.then(|| format!("/sys/fs/cgroup/pids{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_counts_threads_is_found() {
        assert_eq!(pids_folder("0::/user.slice"), Some("/sys/fs/cgroup/user.slice".to_owned()));
        assert_eq!(pids_folder("8:pids:/a"), Some("/sys/fs/cgroup/pids/a".to_owned()));
        assert_eq!(pids_folder("4:memory:/a"), None);
        assert_eq!(pids_folder(""), None);
    }

    #[test]
    fn this_machine_has_bounds_and_room_for_some_threads() {
        let bounds = bounds();
        assert!(!bounds.is_empty());
        assert!(bounds.iter().all(|bound| bound.connections > 0), "{bounds:?}");
    }
}
