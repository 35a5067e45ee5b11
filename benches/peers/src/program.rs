//! A peer that is another program.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use onceloop_benches::harness::{self, Sample, ServerKind};

/// A running program. Ended when dropped.
pub(crate) struct Program {
    process: Child,
    output: BufReader<ChildStdout>,
    input: ChildStdin,
}

impl Program {
    /// Starts `command` on `core`; its standard input and output are pipes.
    pub(crate) fn start(command: &mut Command, core: Option<usize>) -> Result<Program> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let start = || -> Result<Child> {
            if let Some(core) = core {
                harness::pin(core)?;
            }
            command.spawn().with_context(|| format!("starting {:?}", command.get_program()))
        };
        // A process begins on the cores of the thread that starts it, and this one stays where it is.
        let started = thread::scope(|scope| scope.spawn(start).join());
        let mut process = started.map_err(|_| anyhow!("the thread that starts it panicked"))??;
        let output = process.stdout.take().context("the pipe asked for")?;
        let input = process.stdin.take().context("the pipe asked for")?;
        Ok(Program { process, output: BufReader::new(output), input })
    }

    /// Waits for its next line.
    pub(crate) fn next_line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).context("reading its output")?;
        ensure!(read > 0, "it ended before its time");
        Ok(line)
    }

    /// Returns what it reads.
    pub(crate) fn input(&mut self) -> &mut ChildStdin {
        &mut self.input
    }

    /// Returns what it has used so far.
    pub(crate) fn sample(&self) -> Result<Sample> {
        harness::sample_of(self.process.id())
    }

    /// Tells the parent where it listens, and what it has used when asked; until the parent's line
    /// closes. What it still writes is not read.
    pub(crate) fn answer_parent(self, port: u16, core: Option<usize>) -> Result<()> {
        if let Some(core) = core {
            harness::avoid(core)?;
        }
        harness::answer_parent(port, || self.sample());
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already, and has nothing to lose.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Fails if this machine lacks what runs `peer`.
pub(crate) fn ensure_there(peer: ServerKind) -> Result<()> {
    harness::missing(peer).map_or(Ok(()), |missing| Err(anyhow!(missing)))
}
