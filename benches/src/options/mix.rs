//! Flags for a load whose calls are not all alike.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{PAYLOAD_BYTES_MAX, ServerKind};

/// Threads that wait for slow handlers where nobody says how many.
const OFFLOAD_THREADS: &str = "64";
/// The largest window that a server grants.
pub(crate) const WINDOW_MAX: u32 = 1024;

/// What a load may have beside its small and fast calls.
#[derive(Args, Clone, Debug)]
pub(crate) struct MixOptions {
    /// Percent of the calls whose handler blocks, spread evenly (`raw` has no handlers: left out)
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = percent)]
    pub(crate) slow_percent: f64,
    /// Microseconds that such a handler blocks, as on a disk or another server
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub(crate) slow_us: u32,
    /// `event` and `tokio`: slow handlers wait on a pool of so many threads, not on the loop
    #[arg(long, value_name = "THREADS", num_args = 0..=1, require_equals = true, default_missing_value = OFFLOAD_THREADS, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) offload: Option<u32>,
    /// The window to ask for: how far the calls of a connection may be ahead of the oldest one that is
    /// unanswered [default: the next power of two from the calls in flight on]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(1..=i64::from(WINDOW_MAX)))]
    pub(crate) window: Option<u32>,
    /// Further connections, each with one large call in flight; latencies are those of the others
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) large_connections: u32,
    /// Bytes that such a call sends and gets back
    #[arg(long, value_name = "BYTES", default_value_t = PAYLOAD_BYTES_MAX, value_parser = clap::value_parser!(u64).range(..=PAYLOAD_BYTES_MAX))]
    pub(crate) large_bytes: u64,
}

/// Calls whose handler blocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowCalls {
    /// Their share of all calls.
    pub percent: f64,
    /// How long each blocks.
    pub us: u32,
}

/// Large calls beside the others.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LargeCalls {
    /// Connections that make them, one at a time.
    pub connections: u32,
    /// Bytes sent and returned by each.
    pub bytes: u64,
}

impl MixOptions {
    /// Returns the large calls, if there are to be any.
    pub(crate) fn large(&self) -> Option<LargeCalls> {
        let large = LargeCalls { connections: self.large_connections, bytes: self.large_bytes };
        (large.connections > 0).then_some(large)
    }

    /// Returns whether all calls are of one kind.
    pub(crate) fn is_uniform(&self) -> bool {
        self.slow().is_none() && self.large().is_none()
    }

    /// Returns the slow calls, if there are to be any.
    pub(crate) fn slow(&self) -> Option<SlowCalls> {
        let slow = SlowCalls { percent: self.slow_percent, us: self.slow_us };
        (slow.percent > 0.0).then_some(slow)
    }

    /// Returns how many threads of `server` wait for slow handlers; `None` where the handlers wait
    /// themselves.
    pub(crate) fn offload_threads(&self, server: ServerKind) -> Option<u32> {
        let has_pool = matches!(server, ServerKind::Event | ServerKind::Tokio);
        self.offload.filter(|_| has_pool && self.slow().is_some())
    }

    /// Returns why `server` cannot be loaded so, if it cannot.
    pub(crate) fn excludes(&self, server: ServerKind) -> Option<&'static str> {
        match server {
            ServerKind::Raw if self.slow().is_some() => {
                Some("it runs no handlers, so none of its calls can be slow")
            }
            peer if peer.is_peer() && !self.is_uniform() => {
                Some("the loads of the peers make calls of one kind")
            }
            _ => None,
        }
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("a number from 0 to 100".to_owned()),
    }
}
