//! Latencies by how many calls were faster, from the percentile files of the runs.

use std::path::Path;

use super::HGRM;
use super::view::View;
use crate::hgrm;
use crate::stats::{count, median};

/// Steps from one nine to the next.
const STEPS_PER_NINE: u32 = 10;
const PERCENT: u32 = 100;
/// Calls beyond the last share that is told: fewer would be chance.
const CALLS_BEYOND_MIN: f64 = 5.0;
/// The shares that a person looks for.
pub(super) const NINES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];

/// The runs' latencies of one trial.
pub(super) struct Spectrum {
    runs: Vec<Vec<hgrm::Step>>,
    /// The greatest share that there are calls enough for.
    greatest: f64,
}

impl Spectrum {
    /// Reads those of the runs that `view` shows. A file that is gone is left out, and told.
    pub(super) fn read(view: &View<'_>, folder: &Path) -> Spectrum {
        let read = |name: &String| match hgrm::read(&folder.join(HGRM).join(name)) {
            Ok(steps) => Some(steps),
            Err(error) => {
                eprintln!("report: {error:#}");
                None
            }
        };
        let runs = view.entries().filter_map(|entry| entry.hgrm.as_ref().and_then(read)).collect();
        let calls = view.median(|row| count(row.requests)).unwrap_or(0.0);
        Spectrum { runs, greatest: 1.0 - CALLS_BEYOND_MIN / calls.max(CALLS_BEYOND_MIN) }
    }

    /// Returns the latency in ms that a share of the calls did not exceed: the median of the runs.
    pub(super) fn at(&self, share: f64) -> Option<f64> {
        let of_run = |steps: &Vec<hgrm::Step>| {
            let next = steps.iter().position(|step| step.share >= share)?;
            let step = steps[next];
            // The file's steps are some per cent apart below the median: between two of them latency
            // is taken to rise evenly.
            let Some(last) = next.checked_sub(1).map(|last| steps[last]) else {
                return Some(step.latency_ms);
            };
            let way = (share - last.share) / (step.share - last.share).max(f64::EPSILON);
            Some(last.latency_ms + way.clamp(0.0, 1.0) * (step.latency_ms - last.latency_ms))
        };
        median(self.runs.iter().filter_map(of_run))
    }

    /// Returns the latencies at shares that are equally far apart in nines.
    pub(super) fn points(&self) -> Vec<(f64, f64)> {
        let share = |step: u32| 1.0 - 10_f64.powf(-f64::from(step) / f64::from(STEPS_PER_NINE));
        // Not from the fastest call on: that one is far from all others, and would stretch the scale.
        let shares = (1..).map(share).take_while(|share| *share <= self.greatest);
        shares.filter_map(|share| Some((share, self.at(share)?))).collect()
    }

    /// Returns the latencies at shares that are equally far apart, and the shares: a CDF.
    pub(super) fn distribution(&self) -> Vec<(f64, f64)> {
        let shares = (1..=PERCENT).map(|percent| f64::from(percent) / f64::from(PERCENT));
        shares
            .filter_map(|share| Some((self.at(share.min(self.greatest))?, share * 100.0)))
            .collect()
    }

    /// Returns those at the nines.
    pub(super) fn marks(&self) -> Vec<(f64, f64)> {
        let shares = NINES.into_iter().filter(|share| *share <= self.greatest);
        shares.filter_map(|share| Some((share, self.at(share)?))).collect()
    }
}
