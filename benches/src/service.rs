//! The one method of every server here, and what ours tells of itself.

use onceloop::Stats;

onceloop::service! {
    pub(crate) mod bench {
        /// Returns what it is given.
        #[idempotent]
        fn echo(payload: &[u8]) -> &[u8];
    }

    /// The same as a caller sees it who does not know which server it has: the bare one sends the
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
