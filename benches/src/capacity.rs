//! How many connections the machine can hold, and what says so.
//!
//! Nothing is cut in silence: whoever cuts says which limit did it.

mod stacks;
mod threads;

use std::fmt;

use crate::load;
use crate::options::{LoadKind, Options, ServerKind};

/// Descriptors kept for everything but connections: the listener, epoll, pipes, files.
const DESCRIPTORS_RESERVED: u64 = 32;

/// A limit of the machine and how many connections it leaves room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    connections: u64,
    what: String,
}

/// What is run of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// Connections that call.
    pub(crate) connections: u32,
    /// Connections that are silent.
    pub(crate) idle: u32,
    /// What was in the way, if anything was.
    pub(crate) cut: Option<Bound>,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is room for {}: {}", self.connections, self.what)
    }
}

/// Returns what this machine can run of what `options` ask for; a process may open `descriptors`.
pub(crate) fn fit(server: ServerKind, options: &Options, descriptors: u64) -> Fit {
    let mut bounds = vec![descriptor_bound(descriptors)];
    match server {
        ServerKind::Threads => {
            bounds.extend(stacks::bounds(&stacks::THREAD));
            bounds.extend(threads::bounds());
        }
        ServerKind::Fibers => bounds.extend(stacks::bounds(&stacks::FIBER)),
        // A descriptor and some memory on the heap are all that a connection takes.
        _ => {}
    }
    if has_one_address(server, options.load) {
        let ports = load::ports_per_address();
        bounds.push(Bound {
            connections: ports,
            what: format!(
                "the client connects from one address, which has {ports} ports \
                 (`sysctl net.ipv4.ip_local_port_range`)"
            ),
        });
    }
    // The large calls' connections have their places first.
    for bound in &mut bounds {
        bound.connections -= bound.connections.min(options.mix.large_connections.into());
    }
    cut(options.connections, options.idle, bounds)
}

/// Returns whether all connections come from one address.
fn has_one_address(server: ServerKind, load: LoadKind) -> bool {
    server == ServerKind::Go || (load == LoadKind::Client && !server.is_peer())
}

fn descriptor_bound(descriptors: u64) -> Bound {
    Bound {
        connections: descriptors.saturating_sub(DESCRIPTORS_RESERVED),
        what: format!(
            "a process may open {descriptors} files (`ulimit -Hn`), {DESCRIPTORS_RESERVED} of them \
             kept in reserve"
        ),
    }
}

/// Cuts to the tightest bound: the silent connections first, since the others are what is measured.
fn cut(connections: u32, idle: u32, bounds: Vec<Bound>) -> Fit {
    let wanted = u64::from(connections) + u64::from(idle);
    let tightest = bounds.into_iter().min_by_key(|bound| bound.connections);
    match tightest.filter(|bound| bound.connections < wanted) {
        None => Fit { connections, idle, cut: None },
        Some(bound) => {
            let room = u32::try_from(bound.connections).unwrap_or(u32::MAX);
            let connections = connections.min(room);
            Fit { connections, idle: idle.min(room - connections), cut: Some(bound) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(connections: u64) -> Bound {
        Bound { connections, what: "a wall".to_owned() }
    }

    #[test]
    fn what_fits_is_not_cut() {
        assert_eq!(cut(10, 5, vec![bound(15)]), Fit { connections: 10, idle: 5, cut: None });
    }

    #[test]
    fn the_tightest_bound_cuts_the_silent_ones_first() {
        let fit = cut(10, 5, vec![bound(14), bound(12), bound(13)]);
        assert_eq!(fit, Fit { connections: 10, idle: 2, cut: Some(bound(12)) });
        let fit = cut(10, 5, vec![bound(4)]);
        assert_eq!(fit, Fit { connections: 4, idle: 0, cut: Some(bound(4)) });
    }

    #[test]
    fn a_reserve_of_descriptors_is_kept() {
        let bound = descriptor_bound(200);
        assert_eq!(bound.connections, 200 - 32);
        assert!(bound.to_string().contains("may open 200 files"), "{bound}");
        assert_eq!(descriptor_bound(10).connections, 0);
    }
}
