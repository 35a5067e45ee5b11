//! Latencies in HdrHistogram's percentile text format (`.hgrm`), as its plotters read it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

/// Steps for each halving of the distance to 100 %; what the other tools use.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
const NANOSECONDS_PER_MILLISECOND: f64 = 1e6;

/// Writes `histogram`, which is in nanoseconds, to `path` in milliseconds.
pub(crate) fn write(histogram: &Histogram<u64>, path: &Path) -> Result<()> {
    let save = || -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        print(histogram, &mut out)?;
        out.flush()
    };
    save().with_context(|| format!("writing {}", path.display()))
}

/// One line of a file: a share of the calls did not take longer than this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) share: f64,
    pub(crate) latency_ms: f64,
}

/// Reads what [`write`] has written.
pub(crate) fn read(path: &Path) -> Result<Vec<Step>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(steps(&text))
}

fn steps(text: &str) -> Vec<Step> {
    let step = |line: &str| {
        let mut words = line.split_whitespace();
        let mut number = || words.next()?.parse().ok();
        Some(Step { latency_ms: number()?, share: number()? })
    };
    // The header and the remarks at the end do not begin with numbers.
    text.lines().filter_map(step).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a latency is far below 2^53 ns")]
fn print(histogram: &Histogram<u64>, out: &mut impl Write) -> std::io::Result<()> {
    let milliseconds = |value: u64| value as f64 / NANOSECONDS_PER_MILLISECOND;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let value = milliseconds(step.value_iterated_to());
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.3} {quantile:2.12} {count:10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    let mean = histogram.mean() / NANOSECONDS_PER_MILLISECOND;
    let deviation = histogram.stdev() / NANOSECONDS_PER_MILLISECOND;
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    let max = milliseconds(histogram.max());
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {:12}]", histogram.len())?;
    let buckets = histogram.buckets();
    // What the format calls sub-buckets: the power of two that holds twice 10^digits values.
    let sub_buckets = (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two();
    writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_plotters_read() {
        let mut histogram = Histogram::<u64>::new(3).expect("three digits are allowed");
        for millisecond in 1..=100 {
            histogram.record(millisecond * 1_000_000).expect("it grows");
        }
        let mut out = Vec::new();
        print(&histogram, &mut out).expect("a vector takes all");
        let text = String::from_utf8(out).expect("numbers");
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        assert_eq!(lines[1], [""; 0]);
        let median = lines.iter().find(|line| line.get(1) == Some(&"0.500000000000"));
        let median = median.expect("the median is a step");
        assert!((median[0].parse::<f64>().expect("a number") - 50.0).abs() < 0.1, "{median:?}");
        assert_eq!(median[2..], ["50", "2.00"]);
        let last = lines.iter().rev().find(|line| !line.is_empty() && !line[0].starts_with('#'));
        assert_eq!(last.expect("a last step")[1..], ["1.000000000000", "100"]);
        assert!(text.contains("Total count    =          100]"), "{text}");
        let steps = steps(&text);
        let at = |share| steps.iter().find(|step| step.share >= share).expect("a step").latency_ms;
        assert!((at(0.5) - 50.0).abs() < 0.1 && (at(1.0) - 100.0).abs() < 0.1, "{steps:?}");
    }
}
