//! A scale: where a value stands on it, and which values are written beside it.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::show;

/// Steps within a decade, for a scale of less than one decade, of up to three, and of more.
const FINE: [f64; 12] = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
const USUAL: [f64; 3] = [1.0, 2.0, 5.0];
const COARSE: [f64; 1] = [1.0];
/// About so many steps on a scale that is not logarithmic.
const LINEAR_STEPS: f64 = 5.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
    /// A share of all, in the logarithm of what is missing to all: 90 %, 99 %, 99.9 % stand equally
    /// far apart.
    Nines,
}

/// One of a panel's two scales.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    scale: Scale,
    /// The values at both ends.
    low: f64,
    high: f64,
    /// What is written beside which value.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Returns a logarithmic scale that holds all of `values` above 0.
    pub(crate) fn log(label: &str, values: impl Iterator<Item = f64>) -> Axis {
        let places = values.filter(|value| *value > 0.0 && value.is_finite()).map(f64::log10);
        let (low, high) = ends(places).unwrap_or((0.0, 1.0));
        let steps: &[f64] = match high - low {
            ..0.9 => &FINE,
            0.9..3.2 => &USUAL,
            _ => &COARSE,
        };
        #[expect(clippy::cast_possible_truncation, reason = "an exponent")]
        let decades = (low.floor() as i32 - 1)..=(high.ceil() as i32);
        let marks: Vec<f64> = decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
            .collect();
        // From the last mark below all values to the first above them.
        let is_below = |mark: &&f64| mark.log10() <= low + 1e-9;
        let is_above = |mark: &&f64| mark.log10() >= high - 1e-9 && mark.log10() > low + 1e-9;
        let first = marks.iter().rfind(is_below).copied().unwrap_or(0.1);
        let last = marks.iter().find(is_above).copied().unwrap_or(first * 10.0);
        let is_inside = |mark: &f64| (first..=last).contains(mark);
        let ticks = marks.into_iter().filter(is_inside).map(|mark| (mark, show::short(mark)));
        Axis::with(label, Scale::Log, ticks.collect(), [first, last])
    }

    /// Returns a logarithmic scale that holds all of `values` and on which only `ticks` are written.
    pub(crate) fn log_at(
        label: &str,
        ticks: Vec<(f64, String)>,
        values: impl Iterator<Item = f64>,
    ) -> Axis {
        let (low, high) = ends(values.map(f64::log10)).unwrap_or((0.0, 1.0));
        let room = ((high - low) * 0.04).max(0.1);
        let ends = [10_f64.powf(low - room), 10_f64.powf(high + room)];
        Axis::with(label, Scale::Log, ticks, ends)
    }

    /// Returns a scale from 0 on that holds all of `values`.
    pub(crate) fn linear(label: &str, values: impl Iterator<Item = f64>) -> Axis {
        let high = values.filter(|value| value.is_finite()).fold(0.0, f64::max).max(1e-9);
        let rough = high / LINEAR_STEPS;
        let decade = 10_f64.powf(rough.log10().floor());
        let step = decade
            * [1.0, 2.0, 5.0, 10.0].into_iter().find(|s| s * decade >= rough).unwrap_or(10.0);
        let mut ticks = vec![0.0];
        while ticks.last().is_some_and(|last| last + 1e-9 * step < high) {
            ticks.push(ticks.len() as f64 * step);
        }
        let last = *ticks.last().unwrap_or(&step);
        let ticks = ticks.into_iter().map(|value| (value, show::short(value))).collect();
        Axis::with(label, Scale::Linear, ticks, [0.0, last])
    }

    /// Returns a scale of nines up to the share `greatest`.
    pub(crate) fn nines(label: &str, greatest: f64) -> Axis {
        let shares = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999];
        let mut ticks: Vec<(f64, String)> = Vec::new();
        for share in shares {
            ticks.push((share, format!("{} %", (share * 1e8_f64).round() / 1e6)));
            if share >= greatest {
                break;
            }
        }
        let last = ticks.last().map_or(0.9, |(share, _)| *share);
        Axis::with(label, Scale::Nines, ticks, [0.0, last])
    }

    fn with(label: &str, scale: Scale, ticks: Vec<(f64, String)>, [low, high]: [f64; 2]) -> Axis {
        Axis { label: label.to_owned(), scale, low, high, ticks }
    }

    /// Returns how many values are written beside it.
    pub(super) fn labels(&self) -> usize {
        self.ticks.len()
    }

    /// Returns the value in the middle of it.
    pub(super) fn middle(&self) -> f64 {
        let place = f64::midpoint(self.place(self.low), self.place(self.high));
        match self.scale {
            Scale::Linear => place,
            Scale::Log => 10_f64.powf(place),
            Scale::Nines => 1.0 - 10_f64.powf(-place),
        }
    }

    /// Returns whether a value can stand on it.
    pub(super) fn holds(&self, value: f64) -> bool {
        let place = self.place(value);
        let is_inside =
            place >= self.place(self.low) - 1e-9 && place <= self.place(self.high) + 1e-9;
        value.is_finite() && is_inside
    }

    /// Returns where a value stands, in no particular unit.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Nines => -(1.0 - value).max(f64::EPSILON).log10(),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    #[expect(clippy::cast_possible_truncation, reason = "pixels of a chart")]
    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let (low, high) = (self.place(self.low), self.place(self.high));
        let share = (self.place(*value) - low) / (high - low);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(value, _)| *value).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        // The values come from `key_points`, unchanged.
        let tick = self.ticks.iter().find(|(at, _)| at == value);
        tick.map_or_else(String::new, |(_, text)| text.clone())
    }
}

fn ends(places: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    places.fold(None, |ends, place| match ends {
        None => Some((place, place)),
        Some((low, high)) => Some((place.min(low), place.max(high))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn a_logarithmic_scale_begins_and_ends_with_a_mark() {
        let axis = Axis::log("", [3.0, 40.0].into_iter());
        assert_eq!(texts(&axis), ["2", "5", "10", "20", "50"]);
        let axis = Axis::log("", [70e3, 149e3].into_iter());
        assert_eq!(texts(&axis).first(), Some(&"70 k"));
        assert_eq!(texts(&axis).last(), Some(&"150 k"));
        let axis = Axis::log("", [0.04, 30.0].into_iter());
        assert_eq!(
            texts(&axis),
            ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"]
        );
        assert!(axis.holds(0.04) && axis.holds(50.0) && !axis.holds(51.0) && !axis.holds(0.0));
    }

    #[test]
    fn one_value_has_a_scale_too() {
        for axis in [Axis::log("", [5.0].into_iter()), Axis::linear("", [5.0].into_iter())] {
            assert!(axis.low < axis.high && axis.holds(5.0), "{axis:?}");
            assert!(axis.ticks.len() >= 2, "{axis:?}");
        }
        let axis = Axis::log("", [].into_iter());
        assert!(axis.low < axis.high);
    }

    #[test]
    fn nines_stand_equally_far_apart() {
        let axis = Axis::nines("", 0.9991);
        assert_eq!(texts(&axis), ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        let pixels = [0.9, 0.99, 0.999].map(|share| axis.map(&share, (0, 4_000)));
        assert_eq!(pixels, [1_000, 2_000, 3_000]);
    }

    #[test]
    fn a_linear_scale_ends_above_all_values() {
        assert_eq!(
            texts(&Axis::linear("", [97.0].into_iter())),
            ["0", "20", "40", "60", "80", "100"]
        );
        assert_eq!(
            texts(&Axis::linear("", [2.1].into_iter())),
            ["0", "0.5", "1", "1.5", "2", "2.5"]
        );
    }
}
