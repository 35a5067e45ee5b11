//! What the load counts.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::message::{Answers, Latency, Report};

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;
/// The longest latency that is told apart: 100 s, in nanoseconds.
const LATENCY_NS_MAX: u64 = 100_000_000_000;

/// What a call is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Small, and its handler does not block.
    Fast,
    /// Its handler blocks.
    Slow,
    /// Large, on a connection of its own.
    Large,
}

/// Answers and their latencies within the measured time, and errors at any time.
pub struct Tally {
    fast: Histogram<u64>,
    slow: Histogram<u64>,
    large: Histogram<u64>,
    /// How late calls were sent that were to be sent by a plan.
    lag: Histogram<u64>,
    is_recording: bool,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    /// Returns one that does not record yet.
    pub fn new() -> Result<Tally> {
        let histogram =
            || Histogram::new_with_max(LATENCY_NS_MAX, DIGITS).context("making a histogram");
        Ok(Tally {
            fast: histogram()?,
            slow: histogram()?,
            large: histogram()?,
            lag: histogram()?,
            is_recording: false,
            errors: 0,
            first_error: None,
        })
    }

    /// Begins or ends the measured time.
    pub fn set_recording(&mut self, is_recording: bool) {
        self.is_recording = is_recording;
    }

    /// Counts `count` answers to fast calls that each took `latency_ns`.
    #[inline]
    pub fn record(&mut self, latency_ns: u64, count: u64) {
        self.record_as(Class::Fast, latency_ns, count);
    }

    /// Counts `count` answers to calls of one class that each took `latency_ns`.
    #[inline]
    pub fn record_as(&mut self, class: Class, latency_ns: u64, count: u64) {
        if !self.is_recording || count == 0 {
            return;
        }
        let histogram = match class {
            Class::Fast => &mut self.fast,
            Class::Slow => &mut self.slow,
            Class::Large => &mut self.large,
        };
        histogram.saturating_record_n(latency_ns, count);
    }

    /// Counts a call that was sent so long after it was due, for no fault of the server's.
    #[inline]
    pub fn record_lag(&mut self, lag_ns: u64) {
        if self.is_recording {
            self.lag.saturating_record(lag_ns);
        }
    }

    /// Counts an error; the first is kept for a person.
    #[cold]
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(why);
    }

    /// Returns the latencies of the fast calls.
    pub(crate) fn fast(&self) -> &Histogram<u64> {
        &self.fast
    }

    /// Returns the latencies of the slow calls.
    pub(crate) fn slow(&self) -> &Histogram<u64> {
        &self.slow
    }

    /// Writes what was counted into `report`.
    pub(crate) fn fill(&self, report: &mut Report) {
        report.requests = self.fast.len() + self.slow.len();
        report.latency_us = latency_us(&self.fast);
        report.slow = answers(&self.slow);
        report.large = answers(&self.large);
        report.send_lag_us = (!self.lag.is_empty()).then(|| latency_us(&self.lag));
        report.errors = self.errors;
        report.first_error.clone_from(&self.first_error);
    }
}

fn answers(histogram: &Histogram<u64>) -> Answers {
    Answers { requests: histogram.len(), latency_us: latency_us(histogram) }
}

#[expect(clippy::cast_precision_loss, reason = "a latency is far below 2^53 ns")]
fn latency_us(histogram: &Histogram<u64>) -> Latency {
    let microseconds = |value: u64| value as f64 / 1e3;
    let at = |quantile| microseconds(histogram.value_at_quantile(quantile));
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: microseconds(histogram.max()) }
}
