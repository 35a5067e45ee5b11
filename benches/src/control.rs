//! A part's line to its parent: JSON lines out, single lines in, and an end when the parent is gone.

use std::io::{self, BufRead, Write};
use std::process;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes `line` to the parent as JSON.
///
/// Ends the process if the parent no longer reads: nobody would stop it otherwise.
pub(crate) fn say(line: &impl Serialize) {
    let mut text = serde_json::to_vec(line).expect("plain data becomes JSON");
    text.push(b'\n');
    let mut out = io::stdout().lock();
    if out.write_all(&text).and_then(|()| out.flush()).is_err() {
        process::exit(1);
    }
}

/// Calls `on_line` for each line of the parent until there are no more.
pub(crate) fn listen(mut on_line: impl FnMut()) {
    let mut input = io::stdin().lock();
    let mut line = String::new();
    while matches!(input.read_line(&mut line), Ok(1..)) {
        line.clear();
        on_line();
    }
}

/// The parent's lines, read by a thread that ends the process when they end.
pub(crate) struct Control(Receiver<()>);

impl Control {
    /// Starts to listen.
    pub(crate) fn start() -> Control {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            // The receiver may be gone while the process ends on its own: nothing to tell then.
            listen(|| _ = sender.send(()));
            process::exit(1);
        });
        Control(receiver)
    }

    /// Waits for a line.
    pub(crate) fn wait(&self) -> Result<()> {
        self.0.recv_timeout(PARENT_WAIT_MAX).context("waiting for the parent to go on")
    }

    /// Returns whether a line has come.
    pub(crate) fn is_told(&self) -> bool {
        self.0.try_recv().is_ok()
    }
}

/// The parent only takes a sample while a part waits for it: this is for a parent that is stuck.
const PARENT_WAIT_MAX: Duration = Duration::from_secs(60);
