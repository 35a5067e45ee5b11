//! What a report was made on.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::machine;

/// The machine and the program, as far as they say what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    /// The commit of the source tree; with `-dirty` if that has changes of its own.
    pub(crate) commit: String,
    /// When, in UTC.
    pub(crate) date: String,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    /// Asks this one.
    pub(crate) fn ask() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let kernel = read("/proc/sys/kernel/osrelease");
        let or_unknown = |text: &str| if text.is_empty() { UNKNOWN } else { text }.to_owned();
        Machine {
            cpu: or_unknown(model.map_or("", |(_, name)| name.trim())),
            cores: machine::cores().map_or(0, |cores| cores.len()),
            kernel: or_unknown(kernel.trim()),
            rustc: said("rustc", &["--version"]),
            commit: said(
                "git",
                &[
                    "-C",
                    env!("CARGO_MANIFEST_DIR"),
                    "describe",
                    "--always",
                    "--dirty",
                    "--exclude=*",
                ],
            ),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        }
    }

    /// Returns whether both are the same but for the time.
    pub(crate) fn is_same(&self, other: &Machine) -> bool {
        *self == Machine { date: self.date.clone(), ..other.clone() }
    }
}

/// Returns what a program says; "unknown" where there is none, or it fails.
fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().ok();
    let text = output.filter(|output| output.status.success()).map(|output| output.stdout);
    let text = text.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
    if text.trim().is_empty() { UNKNOWN.to_owned() } else { text.trim().to_owned() }
}
