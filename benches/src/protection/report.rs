//! What follows from the slices, as a table and as JSON.

use std::io::{self, Write};

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::{Instructions, Options, Slice};
use crate::stats::{Spread, median};

/// All that was measured.
#[derive(Serialize)]
pub(super) struct Report {
    in_flight: u32,
    window: u32,
    payload: u64,
    runs: u32,
    slices_per_run: u32,
    slice_seconds: f64,
    /// Server CPU time of a protected call less that of an unprotected one of the same slice.
    protection_ns: Spread,
    protected_ns: Spread,
    unprotected_ns: Spread,
    /// Server CPU time of a request that asks for the answer of a finished call.
    duplicate_ns: Spread,
    /// Null where callgrind was not asked for.
    instructions: Option<Instructions>,
    slices: Vec<Slice>,
}

/// Returns the median of the runs' medians, and the least and the greatest of these.
fn spread(slices: &[Slice], number: impl Fn(&Slice) -> f64) -> Spread {
    let runs = slices.chunk_by(|one, other| one.run == other.run);
    let medians = runs.filter_map(|run| median(run.iter().map(&number)));
    Spread::of(medians).expect("there is a run, and a slice in it")
}

impl Report {
    pub(super) fn new(
        options: &Options,
        slices: Vec<Slice>,
        instructions: Option<Instructions>,
    ) -> Report {
        Report {
            in_flight: options.in_flight,
            window: options.in_flight.next_power_of_two(),
            payload: options.payload,
            runs: options.runs,
            slices_per_run: options.slices,
            slice_seconds: options.seconds,
            protection_ns: spread(&slices, |slice| slice.protected_ns - slice.unprotected_ns),
            protected_ns: spread(&slices, |slice| slice.protected_ns),
            unprotected_ns: spread(&slices, |slice| slice.unprotected_ns),
            duplicate_ns: spread(&slices, |slice| slice.duplicate_ns),
            instructions,
            slices,
        }
    }

    /// Prints the table.
    pub(super) fn print(&self) -> Result<()> {
        io::stdout().lock().write_all(self.render().as_bytes()).context("printing the table")
    }

    fn render(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_header([
            "server",
            "CPU ns\nmedian",
            "least\nrun",
            "greatest\nrun",
            "instructions",
        ]);
        let counted = |number: fn(&Instructions) -> f64| {
            self.instructions
                .as_ref()
                .map_or_else(|| "-".to_owned(), |i| format!("{:.0}", number(i)))
        };
        let rows = [
            ("protected call", self.protected_ns, counted(|i| i.protected)),
            ("unprotected call", self.unprotected_ns, counted(|i| i.unprotected)),
            ("protection", self.protection_ns, counted(|i| i.protected - i.unprotected)),
            ("duplicate answered", self.duplicate_ns, counted(|i| i.duplicate)),
        ];
        for (name, spread, instructions) in rows {
            let ns = |number: f64| format!("{number:.1}");
            let (median, least, greatest) = (spread.median, spread.least, spread.greatest);
            table.add_row([name.to_owned(), ns(median), ns(least), ns(greatest), instructions]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!(
            "One connection with {} calls in flight, window {}, {} bytes each way; {} runs of {} \
             slices of {} s\n{table}\n",
            self.in_flight,
            self.window,
            self.payload,
            self.runs,
            self.slices_per_run,
            self.slice_seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(run: u32, protected_ns: f64, unprotected_ns: f64) -> Slice {
        Slice { run, protected_ns, unprotected_ns, duplicate_ns: 90.0 }
    }

    #[test]
    fn kinds_are_compared_within_a_slice() {
        // The machine slows down meanwhile, and is disturbed once.
        let slices = [
            slice(1, 100.0, 90.0),
            slice(1, 211.0, 200.0),
            slice(1, 950.0, 200.0),
            slice(2, 420.0, 400.0),
        ];
        let spread = spread(&slices, |slice| slice.protected_ns - slice.unprotected_ns);
        assert_eq!((spread.median, spread.least, spread.greatest), (15.5, 11.0, 20.0));
    }
}
