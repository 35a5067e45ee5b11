//! The bounds of a reactor.

use std::thread;

/// The bounds of a [`Reactor`](crate::Reactor), each with its reason.
///
/// Made with [`Config::default`] and changed field by field. Values outside what works are raised
/// or lowered to the nearest that does; each field says so.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Microseconds to poll without blocking before a turn blocks; 0 (the default) never spins.
    ///
    /// For round trips near the hardware's: between two machines or two cores that have nothing
    /// else to do, most of a round trip's time is the kernel's, to wake a thread that sleeps. A
    /// loop that asks again and again does not sleep. Set it somewhat above the usual time between
    /// two messages, on *both* sides: the one that still sleeps is waited for by the other.
    ///
    /// What happens while a turn spins is seen at once: sockets, tasks of a
    /// [`Remote`](crate::Remote), ends of offloaded jobs; and a timer to the microsecond, where a
    /// turn that blocks is late by up to a millisecond. A turn that finds something ready does not
    /// spin, so a busy loop pays one reading of the clock; nor does a turn with a timeout of zero.
    /// So inside a [host's loop](crate::Reactor) it has no effect: there
    /// the host spins, by calling [`turn`](crate::Reactor::turn) instead of blocking.
    ///
    /// The price: for this long after each event and each timer the thread has its core to itself,
    /// with some three million system calls a second; then it blocks as ever, and an idle process
    /// is idle. Never set it where both sides share a core: the peer that is waited for cannot run
    /// meanwhile, and a round trip takes both their spins.
    pub spin_us: u64,

    /// Bytes of the turn buffer, into which all sockets read (544 KiB; at least 136 KiB, in
    /// simulation 100 KiB).
    ///
    /// The I/O phase ends when less than 68 KiB of it is left, so this is also the most that a
    /// turn reads: eight such reads. Large enough to serve many sockets for one poll, small enough
    /// for the cache.
    pub turn_buffer_bytes: usize,

    /// Requests that a source may run in one dispatch while others are ready (128; at least 1).
    ///
    /// As many as a client's default window lets it send at once: what comes in one read is answered
    /// by one write.
    ///
    /// The reactor counts nothing: it hands the number on by
    /// [`Input::requests_max`](crate::Input::requests_max).
    pub requests_per_turn: usize,

    /// Requests that a source may run in one dispatch while nothing else is ready (512).
    ///
    /// Its peer is to have answers to look at while the rest is run: with 1 024 in flight on one
    /// connection, and all of them run before the first is answered, each end waits for the other, and
    /// there are a third fewer calls a second.
    ///
    /// Never less than [`Config::requests_per_turn`].
    pub requests_per_turn_alone: usize,

    /// Bytes that a source may read in one turn while others are ready (68 KiB; at least 4 KiB).
    ///
    /// 64 KiB, and 4 KiB for what stands around a payload of 64 KiB: such a one comes in one piece.
    /// Alone, a source may read what the turn buffer holds.
    pub read_bytes_per_turn: usize,

    /// Bytes that a source should write in one turn (260 KiB; at least 4 KiB), or read of a long
    /// message into a buffer of its own ([`Io::own_space`](crate::Io::own_space)).
    ///
    /// 256 KiB, and 4 KiB for what stands around a payload of 256 KiB. A long message that goes on
    /// from turn to turn leaves the cache, and so do the others that it takes turns with.
    ///
    /// The reactor hands the number on by [`Io::write_share`](crate::Io::write_share). It binds a
    /// source that is alone, too: a turn more for each share costs little, and whoever becomes ready
    /// meanwhile waits for no more than that.
    pub write_bytes_per_turn: usize,

    /// Tasks posted from other threads that are run in one turn (1024; at least 1).
    ///
    /// The rest wait for the next turn, which then does not block.
    pub posted_per_turn: usize,

    /// Finished jobs whose continuations are run in one turn (1024; at least 1).
    pub completions_per_turn: usize,

    /// Most threads of the offload pool (as many as there are processors, from 2 to 8).
    ///
    /// They are started when first needed. With 0, every offload is refused.
    pub offload_threads: usize,

    /// Most jobs that wait for a thread of the offload pool (1024).
    ///
    /// A longer queue hides that the pool is too slow; a full one refuses.
    pub offload_queue: usize,

    /// Most events taken from the kernel by one poll (128; 16 to 65 536). More are taken by the
    /// next one, which then does not block; the kernel hands them out in turn.
    ///
    /// A turn reads all its sockets and then writes to all of them: with many at once, the first
    /// ones have left the cache by then. With 10 000 busy connections 4 096 events cost a tenth
    /// more processor time a request than 128; with fewer than 64 the polls begin to show.
    pub events: usize,
}

impl Default for Config {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(2, usize::from);
        Self {
            spin_us: 0,
            turn_buffer_bytes: 8 * Self::TURN_BUFFER_FREE_BYTES_MIN,
            requests_per_turn: 128,
            requests_per_turn_alone: 512,
            read_bytes_per_turn: 68 * 1024,
            write_bytes_per_turn: 260 * 1024,
            posted_per_turn: 1024,
            completions_per_turn: 1024,
            offload_threads: processors.clamp(2, 8),
            offload_queue: 1024,
            events: 128,
        }
    }
}

impl Config {
    /// Returns bounds for a [simulated](crate::sim) reactor: a small turn buffer, since a world has
    /// many reactors and makes them anew often, and nothing that depends on this machine.
    pub fn simulated() -> Self {
        Self {
            spin_us: 0,
            turn_buffer_bytes: Self::SIMULATED_TURN_BUFFER_BYTES,
            requests_per_turn: 128,
            requests_per_turn_alone: 512,
            read_bytes_per_turn: 68 * 1024,
            write_bytes_per_turn: 260 * 1024,
            posted_per_turn: 1024,
            completions_per_turn: 1024,
            offload_threads: 4,
            offload_queue: 1024,
            events: 128,
        }
    }

    /// The least that an I/O phase can do with, and a few small reads more: too small for the
    /// allocator to ask the system for it.
    const SIMULATED_TURN_BUFFER_BYTES: usize = Self::TURN_BUFFER_FREE_BYTES_MIN + 32 * 1024;

    /// Free bytes of the turn buffer below which the I/O phase ends: a read with less room would
    /// cut large bodies to pieces, and each piece costs a copy.
    pub(crate) const TURN_BUFFER_FREE_BYTES_MIN: usize = 68 * 1024;

    /// Brings every field into the range that its documentation names.
    pub(crate) fn clamped(mut self, is_simulated: bool) -> Self {
        let turn_buffer_bytes_min = match is_simulated {
            true => Self::SIMULATED_TURN_BUFFER_BYTES,
            false => 2 * Self::TURN_BUFFER_FREE_BYTES_MIN,
        };
        self.turn_buffer_bytes =
            self.turn_buffer_bytes.clamp(turn_buffer_bytes_min, u32::MAX as usize);
        self.requests_per_turn = self.requests_per_turn.max(1);
        self.requests_per_turn_alone = self.requests_per_turn_alone.max(self.requests_per_turn);
        self.read_bytes_per_turn = self.read_bytes_per_turn.max(4 * 1024);
        self.write_bytes_per_turn = self.write_bytes_per_turn.max(4 * 1024);
        self.posted_per_turn = self.posted_per_turn.max(1);
        self.completions_per_turn = self.completions_per_turn.max(1);
        self.events = self.events.clamp(16, 65_536);
        self
    }
}
