//! Processes of their own, to be killed: this test's program is run again, as one of its own tests.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Says to a program that runs again which part it plays; unset, it is a test run like any other.
const PART: &str = "ONCELOOP_TEST_PART";

/// A process that is killed when this is dropped, at the latest.
pub(crate) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Runs the test called `name` of this program in a process of its own, where [`part`] returns
    /// `part`.
    pub(crate) fn start(name: &str, part: &str) -> Process {
        let program = std::env::current_exe().expect("a test has a path");
        let mut child = Command::new(program)
            .args([name, "--exact", "--nocapture"])
            .env(PART, part)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts again");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Process { child, output }
    }

    /// Waits for a line with `key: value` in it and returns the value.
    pub(crate) fn told(&mut self, key: &str) -> String {
        let key = format!("{key}: ");
        loop {
            let mut line = String::new();
            let bytes = self.output.read_line(&mut line).expect("its output is text");
            assert!(bytes > 0, "the process ended and never told its {key:?}");
            // The test harness may have begun the line.
            if let Some((_, value)) = line.split_once(&key) {
                return value.trim().to_owned();
            }
        }
    }

    /// Ends the process at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the part that this process plays, if another has started it.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Tells the process that started this one something.
pub(crate) fn tell(key: &str, value: &str) {
    use std::io::Write;
    // Not println!, which a test harness may keep to itself.
    let mut out = std::io::stdout().lock();
    writeln!(out, "{key}: {value}").and_then(|()| out.flush()).expect("somebody reads it");
}
