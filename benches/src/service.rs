//! The one method of every server here.

onceloop_protocol::service! {
    pub(crate) mod bench {
        /// Returns what it is given.
        fn echo(payload: &[u8]) -> &[u8];
    }
}
