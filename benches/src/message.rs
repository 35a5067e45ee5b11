//! What the processes tell each other, one JSON object a line.

use serde::{Deserialize, Serialize};

use crate::options::{LargeCalls, LoadKind, Rate, ServerKind, SlowCalls};

/// A server's lines to the parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServerLine {
    /// It listens on this port of 127.0.0.1.
    Listening { port: u16 },
    /// What it has used so far; sent for each line it is given.
    Sample(Sample),
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The system's monotonic clock, in nanoseconds: the same for every process.
    pub at_ns: u64,
    /// User and system time of all threads, in microseconds.
    pub cpu_us: f64,
    /// Voluntary and involuntary, of all threads.
    pub context_switches: u64,
    /// `RssAnon`.
    pub rss_anon_bytes: u64,
    /// Without the one that answers the parent.
    pub threads: u64,
    /// Kernel stacks of the whole machine: a thread has one beside its `RssAnon`.
    pub kernel_stack_bytes: u64,
}

/// The load's lines to the parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoadLine {
    /// So many connections have shaken hands.
    Connected { connections: u32 },
    /// So many connections have made an acknowledged call; the load waits for a line.
    Ready { connections: u32 },
    /// The warm-up is over: the measured time begins.
    Begin,
    /// It ends; the load goes on until it is given a line.
    End,
    /// All is done.
    Report(Box<Report>),
}

/// What the load has seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Calls answered in the measured time.
    pub(crate) requests: u64,
    /// The measured time.
    pub(crate) seconds: f64,
    /// The load's own CPU time in it, in microseconds.
    pub(crate) cpu_us: f64,
    /// Of calls whose handler did not block.
    pub(crate) latency_us: Latency,
    /// The others of `requests`.
    pub(crate) slow: Answers,
    /// Answers to large calls, which are not among `requests`.
    pub(crate) large: Answers,
    /// How late the load sent calls that were due and had room; `None` in a closed loop.
    pub(crate) send_lag_us: Option<Latency>,
    /// From the first `connect` to the last WELCOME, without the calls between.
    pub(crate) connect_seconds: f64,
    pub(crate) errors: u64,
    /// The first of them, for a person.
    pub(crate) first_error: Option<String>,
    /// What the server granted.
    pub(crate) window: u32,
    /// Calls in flight that the window allowed.
    pub(crate) in_flight: u32,
}

/// Answers to one kind of calls.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answers {
    pub(crate) requests: u64,
    pub(crate) latency_us: Latency,
}

/// Latency in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// One run of one server, as the JSON file tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) server: ServerKind,
    pub(crate) workload: String,
    /// Those that called; `workload` names those that were silent.
    pub(crate) connections: u32,
    pub(crate) in_flight: u32,
    pub(crate) payload: u64,
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) requests_per_second: f64,
    pub(crate) server_cpu_us_per_request: f64,
    pub(crate) client_cpu_us_per_request: f64,
    /// Of the fast calls.
    pub(crate) latency_us: Latency,
    /// Null where every call is fast.
    pub(crate) slow: Option<SlowRow>,
    /// Null where there are none.
    pub(crate) large: Option<LargeRow>,
    /// How late the load itself was; null in a closed loop.
    pub(crate) send_lag_us: Option<Latency>,
    /// Why the row should not be trusted; empty if nothing speaks against it.
    pub(crate) warnings: Vec<String>,
    /// Null where there are too few connections for a slope.
    pub(crate) rss_bytes_per_connection: Option<f64>,
    pub(crate) context_switches: u64,
    pub(crate) threads: u64,
    pub(crate) connect_seconds: f64,
    pub(crate) errors: u64,
    pub(crate) load: LoadKind,
    pub(crate) rate: Rate,
    pub(crate) spin_us: u64,
    pub(crate) window: u32,
    pub(crate) run: u32,
}

/// The slow calls of a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SlowRow {
    /// What was asked for.
    #[serde(flatten)]
    pub(crate) calls: SlowCalls,
    /// Threads that waited for them; null where the handlers waited themselves.
    pub(crate) offload_threads: Option<u32>,
    /// What came of it; they are among the row's requests.
    #[serde(flatten)]
    pub(crate) answers: Answers,
}

/// The large calls of a run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct LargeRow {
    /// What was asked for.
    #[serde(flatten)]
    pub(crate) calls: LargeCalls,
    /// What came of it; they are not among the row's requests.
    #[serde(flatten)]
    pub(crate) answers: Answers,
    pub(crate) requests_per_second: f64,
}
