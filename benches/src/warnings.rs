//! What speaks against a run at a fixed rate.
//!
//! A plan that was not kept measures something else than was asked for, whoever did not keep it.

use crate::message::Report;
use crate::options::{Options, Rate};

/// The least share of the asked rate that must be answered, if all of it was sent: below it calls pile
/// up, and latencies tell how long the run was.
pub(crate) const ANSWERED_SHARE_MIN: f64 = 0.99;
/// The greatest lag of the load itself, at its 99th percentile. It is part of every latency that is
/// counted from when a call was due.
const SEND_LAG_P99_US_MAX: f64 = 100.0;

/// Returns why the plan that `options` ask for was not kept; nothing if it was, or there is none.
pub(crate) fn of(options: &Options, report: &Report) -> Vec<String> {
    let Rate::PerSecond(asked) = options.rate else { return Vec::new() };
    let mut warnings = Vec::new();
    #[expect(clippy::cast_precision_loss, reason = "a count is far below 2^53")]
    let answered = report.requests as f64 / report.seconds;
    if answered < ANSWERED_SHARE_MIN * asked {
        warnings.push(format!(
            "{answered:.0} calls a second were answered, of {asked} that were asked for"
        ));
    }
    if let Some(lag) = report.send_lag_us.filter(|lag| lag.p99 > SEND_LAG_P99_US_MAX) {
        warnings
            .push(format!("the load itself was late: by {:.0} us at the 99th percentile", lag.p99));
    }
    warnings
}
