//! What a person sees while it runs: a line that moves on a terminal, plain lines elsewhere. All on
//! standard error, so that standard output is the result alone.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TICK: Duration = Duration::from_millis(250);
/// The share of the connections between two plain lines, in hundredths.
const PLAIN_LINE_PERCENT: u64 = 25;

/// The progress of one run of one server.
pub(crate) struct Progress {
    name: String,
    bar: Option<ProgressBar>,
    /// The hundredths of the connections that the next plain line waits for.
    next_percent: u64,
    /// Whether nothing but notes is said where there is no line that moves.
    is_quiet: bool,
}

impl Progress {
    /// Begins to show the run called `name`, which opens `connections`; if it `is_quiet`, on a terminal
    /// only.
    pub(crate) fn begin(name: String, connections: u64, is_quiet: bool) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(connections), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix:>14} {bar:30} {msg} {elapsed}");
            bar.set_style(style.expect("the template is a constant and right"));
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(TICK);
            bar
        });
        Progress { name, bar, next_percent: PLAIN_LINE_PERCENT, is_quiet }
    }

    /// Shows that `connected` of `connections` stand.
    pub(crate) fn connected(&mut self, connected: u64, connections: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(connected);
            bar.set_message(format!("{connected} of {connections} connections"));
            return;
        }
        let percent = connected * 100 / connections.max(1);
        if percent >= self.next_percent && !self.is_quiet {
            eprintln!("{}: {connected} of {connections} connections", self.name);
            self.next_percent = (percent / PLAIN_LINE_PERCENT + 1) * PLAIN_LINE_PERCENT;
        }
    }

    /// Shows what is done now.
    pub(crate) fn stage(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None if self.is_quiet => {}
            None => eprintln!("{}: {what}", self.name),
        }
    }

    /// Says something that is to stay on the screen.
    pub(crate) fn note(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{}: {what}", self.name)),
            None => eprintln!("{}: {what}", self.name),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
