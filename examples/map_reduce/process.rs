//! Workers as processes: this program, run again.
//!
//! A worker tells where it listens on its standard output. It ends when its standard input does,
//! which the master holds: so also if the master is killed.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::worker::Temper;

/// The first argument of a process that is to be a worker.
pub(crate) const ROLE: &str = "--worker";

/// A worker's process. It is ended when this is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn start(temper: Temper) -> io::Result<Process> {
        let child = Command::new(std::env::current_exe()?)
            .args([ROLE, temper.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Process { child })
    }

    /// Waits until the worker tells its address. Once.
    pub(crate) fn address(&mut self) -> Result<String, Box<dyn Error>> {
        let output = self.child.stdout.take().ok_or("it has told its address already")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        match line.trim_end() {
            "" => Err("a worker ended before it listened".into()),
            address => Ok(address.to_owned()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already: some crash.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a worker: tells the master the address.
pub(crate) fn tell(address: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{address}")?;
    output.flush()
}

/// In a worker: ends the process when the master is gone.
pub(crate) fn end_with_the_master() {
    thread::spawn(|| {
        // Nothing is ever written there: this returns at its end.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}
