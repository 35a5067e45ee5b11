//! The methods of the servers here, and what ours tells of itself.

use std::thread;
use std::time::Duration;

use onceloop::Stats;

onceloop::service! {
    pub(crate) mod bench {
        /// Returns what it is given.
        #[idempotent]
        fn echo(payload: &[u8]) -> &[u8];
        /// Returns `payload` after so many microseconds ([`wait`](super::wait)).
        #[idempotent]
        fn slow(time_us: u32, payload: &[u8]) -> &[u8];
    }

    /// The first one as a caller sees it who does not know which server it has: the bare one sends the
    /// arguments back as they are, an array of one.
    pub(crate) mod any_server {
        #[name = "bench.echo"]
        #[idempotent]
        fn echo(payload: &[u8]) -> Raw;
    }

    pub(crate) mod server {
        /// What our server has counted.
        #[name = "onceloop.stats"]
        #[idempotent]
        fn stats() -> Stats;
    }
}

/// Blocks the thread: what stands for a disk or for another server in a slow handler.
pub(crate) fn wait(time_us: u32) {
    thread::sleep(Duration::from_micros(time_us.into()));
}
