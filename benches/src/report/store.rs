//! What a report has measured so far, in `rows.json` and `rows.csv`: written after every group, so
//! that a report that is broken off keeps what it has.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::machine::Machine;
use super::plan::{Part, Section, Trial};
use crate::message::Row;
use crate::slo;

pub(crate) const JSON: &str = "rows.json";
const CSV: &str = "rows.csv";

/// A report.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) sections: Vec<Made>,
    pub(crate) rows: Vec<Entry>,
    pub(crate) slo: Vec<slo::Answer>,
}

/// A section: what it was to measure, where, when and how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) part: Part,
    pub(crate) machine: Machine,
    /// As they are typed.
    pub(crate) servers: String,
    pub(crate) runs: u32,
    pub(crate) seconds: f64,
    /// Servers that were asked for and are not there, and why.
    pub(crate) left_out: Vec<String>,
    /// False until all of it was measured.
    pub(crate) is_complete: bool,
}

/// One run of one trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The sections that show it: the same work is done once.
    pub(crate) sections: Vec<Section>,
    pub(crate) asked: Trial,
    pub(crate) run: u32,
    /// Why there is no row.
    pub(crate) failure: Option<String>,
    /// Which limit of the machine cut the connections that were asked for.
    pub(crate) cut: Option<String>,
    pub(crate) kernel_stack_bytes_per_connection: Option<f64>,
    /// The latencies, in the folder `hgrm`.
    pub(crate) hgrm: Option<String>,
    pub(crate) row: Option<Row>,
}

impl Stored {
    /// Reads the report in `folder`; an empty one if there is none.
    pub(crate) fn load(folder: &Path) -> Result<Stored> {
        let path = folder.join(JSON);
        if !path.exists() {
            return Ok(Stored::default());
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
    }

    /// Writes all rows to `folder`.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("writing the rows as JSON")? + "\n";
        let csv = csv(&self.rows).context("writing the rows as CSV")?;
        for (name, text) in [(JSON, json.into_bytes()), (CSV, csv)] {
            // Beside the old file first: what was measured is not lost to a full disk or a power cut.
            let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
            fs::write(&new, text)
                .and_then(|()| fs::rename(&new, &path))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// Forgets what these sections showed.
    pub(crate) fn forget(&mut self, sections: &[Section]) {
        self.sections.retain(|made| !sections.contains(&made.part.section));
        for entry in &mut self.rows {
            entry.sections.retain(|section| !sections.contains(section));
        }
        self.rows.retain(|entry| !entry.sections.is_empty());
        if sections.contains(&Section::Slo) {
            self.slo.clear();
        }
    }

    /// Returns the runs of `trial` that `section` shows.
    pub(crate) fn of<'a>(
        &'a self,
        section: Section,
        trial: &'a Trial,
    ) -> impl Iterator<Item = &'a Entry> + Clone {
        self.rows
            .iter()
            .filter(move |entry| entry.sections.contains(&section) && entry.asked.is_same(trial))
    }
}

/// Returns the rows as CSV: the same as in the JSON, what is nested there named with `_`.
fn csv(rows: &[Entry]) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    let mut header: Vec<String> = Vec::new();
    for row in rows {
        let mut line = Map::new();
        flatten("", serde_json::to_value(row)?, &mut line);
        header.extend(line.keys().filter(|key| !header.contains(key)).cloned().collect::<Vec<_>>());
        lines.push(line);
    }
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(&header)?;
    for line in lines {
        out.write_record(header.iter().map(|key| line.get(key).map_or_else(String::new, text)))?;
    }
    Ok(out.into_inner()?)
}

fn flatten(prefix: &str, value: Value, line: &mut Map<String, Value>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                // What was measured is the row: its numbers need no word before them.
                let key = match prefix {
                    "" | "row" => key,
                    _ => format!("{prefix}_{key}"),
                };
                flatten(&key, value, line);
            }
        }
        // Where a run failed there is nothing, not a column of that name.
        Value::Null if prefix == "row" => {}
        value => _ = line.insert(prefix.to_owned(), value),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(";"),
        other => other.to_string(),
    }
}
