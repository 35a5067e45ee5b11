//! What every load goes through, whoever makes its calls.

use std::ops::DerefMut;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::tally::Tally;
use super::{nanoseconds, warm_up};
use crate::control::{self, Control};
use crate::machine;
use crate::message::{Answers, Latency, LoadLine, Report};
use crate::options::LoadOptions;

/// How long to go on calling after the measured time if the parent does not say stop.
const GO_ON_MAX: Duration = Duration::from_secs(5);
/// How often to look whether it has.
const GO_ON_POLL: Duration = Duration::from_millis(1);

/// Something that makes connections and calls. It counts what happens in its tally.
pub trait Generator {
    /// Opens connections until there are `until`.
    fn open(&mut self, until: u32) -> Result<()>;

    /// Makes one acknowledged call on each of the connections `from..until`.
    fn settle(&mut self, from: u32, until: u32) -> Result<()>;

    /// Begins to call as fast as was asked for.
    fn begin_calls(&mut self);

    /// Goes on until `now` reaches `end_ns`.
    fn call_until(&mut self, end_ns: u64) -> Result<()>;

    /// Makes no more calls and waits for the missing answers. A call that gets none is an error.
    fn drain(&mut self) -> Result<()>;

    /// Closes the connections.
    fn close(&mut self) -> Result<()>;

    /// Returns the nanoseconds since it was made; never 0.
    fn now(&self) -> u64;

    /// Returns the window of the connections, and the calls in flight that it allows.
    fn granted(&self) -> (u32, u32);

    /// Returns what it has counted.
    fn tally(&mut self) -> impl DerefMut<Target = Tally>;

    /// Begins or ends the measured time: only answers within it are counted.
    fn set_recording(&mut self, is_recording: bool) {
        self.tally().set_recording(is_recording);
    }

    /// Returns the CPU time of the process that calls, in microseconds.
    fn cpu_us(&self) -> Result<f64> {
        machine::cpu_us()
    }
}

/// Opens the connections in two steps, loads the server and closes the connections again.
pub(super) fn run(
    generator: &mut impl Generator,
    options: &LoadOptions,
    control: &Control,
) -> Result<Report> {
    let total = options.total();
    let mut connecting = Duration::ZERO;
    let mut opened = 0;
    for until in [options.first, total] {
        let begin = Instant::now();
        generator.open(until)?;
        connecting += begin.elapsed();
        generator.settle(opened, until)?;
        opened = until;
        control::say(&LoadLine::Ready { connections: until });
        control.wait()?;
    }
    let (seconds, cpu_us) = measure(generator, options, control)?;
    generator.drain()?;
    generator.close()?;
    let (window, in_flight) = generator.granted();
    let mut report = Report {
        requests: 0,
        seconds,
        cpu_us,
        latency_us: Latency::default(),
        slow: Answers::default(),
        large: Answers::default(),
        send_lag_us: None,
        connect_seconds: connecting.as_secs_f64(),
        errors: 0,
        first_error: None,
        window,
        in_flight,
    };
    generator.tally().fill(&mut report);
    Ok(report)
}

/// Calls for the warm-up, the measured time, and until the parent has taken its last sample.
/// Returns how long the measured time was, in seconds, and this process's CPU time in it.
fn measure(
    generator: &mut impl Generator,
    options: &LoadOptions,
    control: &Control,
) -> Result<(f64, f64)> {
    generator.begin_calls();
    generator.call_until(generator.now() + nanoseconds(warm_up(options.seconds)))?;

    control::say(&LoadLine::Begin);
    generator.set_recording(true);
    let (begin, cpu_before) = (Instant::now(), generator.cpu_us()?);
    let measured = Duration::from_secs_f64(options.seconds);
    generator.call_until(generator.now() + nanoseconds(measured))?;
    let (seconds, cpu_after) = (begin.elapsed().as_secs_f64(), generator.cpu_us()?);
    generator.set_recording(false);
    control::say(&LoadLine::End);

    let end = Instant::now();
    while !control.is_told() && end.elapsed() < GO_ON_MAX {
        generator.call_until(generator.now() + nanoseconds(GO_ON_POLL))?;
    }
    Ok((seconds, cpu_after - cpu_before))
}

/// Tells the parent now and then how many connections there are, and how long nothing has moved.
pub struct Watch {
    told: Instant,
    moved: Instant,
}

impl Watch {
    /// How often the parent is told; wait no longer than that for events.
    pub const TELL_INTERVAL: Duration = Duration::from_millis(100);

    /// Begins to watch.
    pub fn begin() -> Watch {
        let now = Instant::now();
        Watch { told: now, moved: now }
    }

    /// Notes that something has happened.
    pub fn on_progress(&mut self) {
        self.moved = Instant::now();
    }

    /// Returns whether nothing has happened for longer than `patience`.
    pub fn is_stalled(&self, patience: Duration) -> bool {
        self.moved.elapsed() > patience
    }

    /// Tells the parent that there are `connections`, if it is time.
    pub fn tell(&mut self, connections: usize) {
        if self.told.elapsed() >= Watch::TELL_INTERVAL {
            self.told = Instant::now();
            let connections = u32::try_from(connections).unwrap_or(u32::MAX);
            control::say(&LoadLine::Connected { connections });
        }
    }
}
