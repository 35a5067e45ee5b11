//! `slo`: the highest rate at which a server keeps the 99.9th percentile of latency below a bound.
//!
//! Latency in an open loop, from when each call was due. The rates between 0 and what the closed loop
//! reaches are halved again and again, each tried for a short while, and the result has to hold a
//! second time.

use anyhow::{Context, Result};
use clap::{Args, value_parser};
use serde::{Deserialize, Serialize};

use crate::options::{Options as BenchOptions, Rate, ServerKind, seconds, servers};
use crate::run::Bench;
use crate::show::{digits, grouped};
use crate::warnings::ANSWERED_SHARE_MIN;

/// How exactly the rate is found: in parts of the closed loop's.
const RESOLUTION: f64 = 0.02;
/// An end of the search, should nothing hold twice.
const TRIES_MAX: usize = 24;
/// Runs that this makes, with the closed loop's.
const RUNS_MAX: usize = TRIES_MAX + 1;
/// Calls that may be missing all the same: those on their way where the measured time begins and ends.
const CALLS_AT_ENDS: f64 = 2.0;

/// Finds the highest rate with p99.9 of latency below a bound
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The bound: microseconds from when a call was due to its answer, which 99.9 % must not exceed
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    p999_us: u64,
    /// Connections that call
    #[arg(long, short = 'c', default_value_t = 10_000, value_parser = value_parser!(u32).range(1..))]
    connections: u32,
    /// Calls that each of them may have in flight
    #[arg(long, short = 'P', default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Seconds to measure each rate, after the warm-up
    #[arg(long, default_value_t = 1.5, value_parser = seconds)]
    seconds: f64,
    /// Which servers, in which order
    #[arg(long, value_name = "LIST", default_value = "raw,event,threads", value_parser = servers)]
    // Spelt so that clap takes it for one value.
    servers: std::vec::Vec<ServerKind>,
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) p999_us: u64,
    pub(crate) connections: u32,
    pub(crate) in_flight: u32,
    pub(crate) seconds: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) server: ServerKind,
    pub(crate) question: Question,
    /// What the closed loop reaches, where the search begins.
    pub(crate) ceiling: f64,
    /// The highest rate that held twice; `None`: none did.
    pub(crate) rate: Option<f64>,
    /// Every rate that was tried, in order.
    pub(crate) tried: Vec<Try>,
    /// Why there is no answer.
    pub(crate) failure: Option<String>,
}

/// One rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Try {
    pub(crate) rate: f64,
    pub(crate) p999_us: f64,
    /// Answers a second in the measured time.
    pub(crate) answered: f64,
    pub(crate) holds: bool,
}

/// Answers the question for all servers that `options` name, and prints it.
pub(crate) fn bench(options: &Options) -> Result<bool> {
    let bench = Bench::begin()?.quiet();
    let Options { p999_us, connections, in_flight, seconds, .. } = *options;
    let question = Question { p999_us, connections, in_flight, seconds };
    let mut is_clean = true;
    for &server in &options.servers {
        let answer = ask(&bench, server, &question);
        is_clean &= answer.failure.is_none();
        println!("{}", answer.sentence());
        for tried in &answer.tried {
            println!("  {}", tried.sentence());
        }
    }
    Ok(is_clean)
}

/// Searches for the highest rate of one server.
pub(crate) fn ask(bench: &Bench, server: ServerKind, question: &Question) -> Answer {
    let mut answer = Answer {
        server,
        question: *question,
        ceiling: 0.0,
        rate: None,
        tried: Vec::new(),
        failure: None,
    };
    if let Err(error) = search_for(bench, server, question, &mut answer) {
        eprintln!("{server}: slo failed: {error:#}");
        answer.failure = Some(format!("{error:#}"));
    }
    answer
}

fn search_for(
    bench: &Bench,
    server: ServerKind,
    question: &Question,
    answer: &mut Answer,
) -> Result<()> {
    let mut run = 0;
    let mut measure = |rate: Rate| {
        let flags = format!(
            "-c {} -P {} --seconds {} --rate {rate} --runs {RUNS_MAX}",
            question.connections, question.in_flight, question.seconds
        );
        let options = BenchOptions::of(flags.split(' ').map(str::to_owned))?;
        run += 1;
        let row = bench.measure(&options, server, run).with_context(|| format!("rate {rate}"))?.row;
        // A run without any answer counts as an error; here it is a rate that does not hold.
        let errors = row.errors - u64::from(row.requests == 0);
        anyhow::ensure!(errors == 0, "{errors} errors at rate {rate}");
        anyhow::Ok(row)
    };
    answer.ceiling = measure(Rate::Max)?.requests_per_second;
    let tried = &mut answer.tried;
    answer.rate = search(answer.ceiling, |rate| {
        let row = measure(Rate::PerSecond(rate))?;
        let (p999_us, answered) = (row.latency_us.p999, row.requests_per_second);
        #[expect(clippy::cast_precision_loss, reason = "a bound is far below 2^53 us")]
        let is_below = p999_us <= question.p999_us as f64;
        // A server that falls behind does not hold a rate, however soon it answered what it did.
        let answered_min = ANSWERED_SHARE_MIN * rate - CALLS_AT_ENDS / question.seconds;
        let holds = is_below && answered >= answered_min;
        let now = Try { rate, p999_us, answered, holds };
        eprintln!("slo: {server}: {}", now.sentence());
        tried.push(now);
        Ok(holds)
    })?;
    Ok(())
}

/// Returns the highest rate up to `ceiling` that holds twice, as `holds` tells; `None` if none does.
///
/// A rate that holds once and not again counts as one that does not, and the search goes on below.
fn search(ceiling: f64, mut holds: impl FnMut(f64) -> Result<bool>) -> Result<Option<f64>> {
    let resolution = ceiling * RESOLUTION;
    // Those that have held once, rising.
    let mut held: Vec<f64> = Vec::new();
    let mut above = ceiling + resolution;
    let mut next = ceiling.round();
    for _ in 0..TRIES_MAX {
        let best = held.last().copied();
        let is_second = best.is_some_and(|best| (best - next).abs() < 0.5);
        match (holds(next)?, is_second) {
            (true, true) => return Ok(best),
            (true, false) => held.push(next),
            (false, _) => {
                above = next;
                held.retain(|rate| *rate < above);
            }
        }
        let best = held.last().copied();
        next = if above - best.unwrap_or(0.0) > resolution {
            f64::midpoint(best.unwrap_or(0.0), above).round()
        } else if let Some(best) = best {
            best
        } else {
            return Ok(None);
        };
    }
    Ok(None)
}

impl Answer {
    /// Returns the answer in one sentence.
    pub(crate) fn sentence(&self) -> String {
        let Question { p999_us, connections, in_flight, .. } = self.question;
        let load = format!("{} connections x {in_flight}", grouped(connections.into()));
        let bound = format!("p99.9 <= {} us", grouped(p999_us));
        match (&self.failure, self.rate) {
            (Some(why), _) => format!("{}: {load}, {bound}: no answer: {why}", self.server),
            (None, Some(rate)) => format!(
                "{}: {load}, {bound}: {} calls/s, {:.0} % of the closed loop's {}; {} rates tried",
                self.server,
                digits(rate),
                rate * 100.0 / self.ceiling,
                digits(self.ceiling),
                self.tried.len()
            ),
            (None, None) => format!(
                "{}: {load}, {bound}: no rate held twice of the {} tried below the closed loop's {}",
                self.server,
                self.tried.len(),
                digits(self.ceiling)
            ),
        }
    }
}

impl Try {
    /// Returns what was tried and what came of it.
    pub(crate) fn sentence(&self) -> String {
        format!(
            "{} calls/s: p99.9 {} us, {} answered a second: {}",
            digits(self.rate),
            digits(self.p999_us),
            digits(self.answered),
            if self.holds { "holds" } else { "does not hold" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latency rises without end towards a rate of 100 000, as in a queue.
    fn latency_us(rate: f64) -> f64 {
        if rate < 100_000.0 { 50.0 / (1.0 - rate / 100_000.0) } else { f64::INFINITY }
    }

    fn tries(ceiling: f64, mut holds: impl FnMut(f64) -> bool) -> (Option<f64>, Vec<f64>) {
        let mut tried = Vec::new();
        let found = search(ceiling, |rate| {
            tried.push(rate);
            Ok(holds(rate))
        });
        (found.expect("nothing fails"), tried)
    }

    #[test]
    fn the_rate_is_where_latency_meets_the_bound() {
        for bound_us in [60.0, 100.0, 500.0, 5_000.0] {
            let (found, tried) = tries(95_000.0, |rate| latency_us(rate) <= bound_us);
            let found = found.expect("low rates hold");
            let exact = f64::min(100_000.0 * (1.0 - 50.0 / bound_us), 95_000.0);
            assert!((exact - found).abs() <= 95_000.0 * RESOLUTION, "{bound_us}: {found}");
            assert!(latency_us(found) <= bound_us);
            assert_eq!(tried.iter().filter(|rate| **rate == found).count(), 2, "{tried:?}");
            assert!(tried.len() <= 10, "{tried:?}");
        }
    }

    #[test]
    fn a_bound_that_nothing_keeps_has_no_rate() {
        let (found, tried) = tries(95_000.0, |rate| latency_us(rate) <= 40.0);
        assert_eq!(found, None);
        assert!(tried.len() <= 8 && tried.iter().all(|rate| *rate > 0.0), "{tried:?}");
    }

    #[test]
    fn a_rate_that_does_not_hold_again_does_not_count() {
        // 45 000 is where the search ends; there it holds but once.
        let (first, _) = tries(90_000.0, |rate| rate <= 45_000.0);
        let lucky = first.expect("it holds");
        let mut seen = 0;
        let (found, tried) = tries(90_000.0, |rate| {
            seen += u32::from(rate == lucky);
            rate < lucky || (rate == lucky && seen < 2)
        });
        let found = found.expect("lower ones hold");
        assert!(found < lucky && found > lucky - 2.0 * 90_000.0 * RESOLUTION, "{tried:?}");
        assert!(latency_us(found).is_finite());
    }

    #[test]
    fn a_search_among_chances_ends() {
        let mut turn = 0;
        let (found, tried) = tries(90_000.0, |_| {
            turn += 1;
            turn % 2 == 1
        });
        assert!(tried.len() <= TRIES_MAX && found.is_none_or(|rate| rate <= 90_000.0), "{tried:?}");
    }
}
