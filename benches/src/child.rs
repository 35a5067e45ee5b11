//! A part of the bench in a process of its own, as its parent sees it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a part may take to end once its standard input is closed.
const END_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often to look whether it has.
const END_POLL: Duration = Duration::from_millis(2);

/// A running part that says `L`s. Ended when dropped.
pub(crate) struct Part<L> {
    name: String,
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Result<L>>,
}

impl<L: DeserializeOwned + Send + 'static> Part<L> {
    /// Starts this program again in the role `role`, told `options`.
    pub(crate) fn start(role: &str, name: String, options: &impl Serialize) -> Result<Part<L>> {
        let program = std::env::current_exe().context("finding this program's own file")?;
        Part::start_as(Command::new(program), role, name, options)
    }

    /// As [`Part::start`], by a command that ends in this program's file.
    pub(crate) fn start_as(
        mut command: Command,
        role: &str,
        name: String,
        options: &impl Serialize,
    ) -> Result<Part<L>> {
        let mut process = command
            .arg(role)
            .arg(serde_json::to_string(options).context("writing the options of a part")?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let output = process.stdout.take().context("the pipe asked for")?;
        let input = process.stdin.take();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let line = line.context("reading a line").and_then(|line| {
                    serde_json::from_str(&line).with_context(|| format!("reading {line:?}"))
                });
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Part { name, process, input, lines })
    }

    /// Waits for the part's next line, at most `wait_max`.
    pub(crate) fn next(&self, wait_max: Duration) -> Result<L> {
        match self.lines.recv_timeout(wait_max) {
            Ok(line) => line.with_context(|| format!("{} said something odd", self.name)),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{} said nothing for {:.0} s", self.name, wait_max.as_secs_f64())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{} ended before its time", self.name),
        }
    }

    /// Returns the number of its process.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Sends the part a line: what it means depends on where the part is.
    pub(crate) fn tell(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("the pipe is open until the part is dropped")?;
        input.write_all(b"\n").with_context(|| format!("telling {} to go on", self.name))
    }
}

impl<L> Drop for Part<L> {
    fn drop(&mut self) {
        drop(self.input.take());
        let deadline = Instant::now() + END_WAIT_MAX;
        while let Ok(None) = self.process.try_wait() {
            if Instant::now() > deadline {
                // It did not end by itself; the outcome of a kill cannot be helped either.
                drop(self.process.kill());
                drop(self.process.wait());
                return;
            }
            thread::sleep(END_POLL);
        }
    }
}
