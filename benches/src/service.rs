//! The one method of every server here.

onceloop::service! {
    pub(crate) mod bench {
        /// Returns what it is given.
        fn echo(payload: &[u8]) -> &[u8];
    }

    /// The same as a caller sees it who does not know which server it has: the bare one sends the
    /// arguments back as they are, an array of one.
    pub(crate) mod any_server {
        #[name = "bench.echo"]
        fn echo(payload: &[u8]) -> Raw;
    }
}
