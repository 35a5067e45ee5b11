//! The system calls of one thread of another process, counted with ptrace.
//!
//! The thread is stopped as it is about to wait for events: whoever traces it then gives it its
//! events, all of them, and lets it go on to its next wait. So both sides work in turn, nothing is a
//! race, and the counts are the same in every run.

use std::collections::BTreeMap;
use std::fs;
use std::ops::AddAssign;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long all that is traced may take: it is some milliseconds. After that the process is ended,
/// or its tracer would wait for ever.
const TRACE_MAX: Duration = Duration::from_secs(60);

/// How often each kind of system call was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) reads: u64,
    pub(super) writes: u64,
    /// Waits for events.
    pub(super) waits: u64,
    /// All others, by their numbers.
    pub(super) others: BTreeMap<i64, u64>,
}

impl Calls {
    fn note(&mut self, call: i64) {
        match call {
            libc::SYS_read | libc::SYS_readv | libc::SYS_recvfrom | libc::SYS_recvmsg => {
                self.reads += 1;
            }
            libc::SYS_write | libc::SYS_writev | libc::SYS_sendto | libc::SYS_sendmsg => {
                self.writes += 1;
            }
            call if is_wait(call) => self.waits += 1,
            call => *self.others.entry(call).or_default() += 1,
        }
    }
}

impl AddAssign for Calls {
    fn add_assign(&mut self, more: Calls) {
        self.reads += more.reads;
        self.writes += more.writes;
        self.waits += more.waits;
        for (call, count) in more.others {
            *self.others.entry(call).or_default() += count;
        }
    }
}

fn is_wait(call: i64) -> bool {
    #[cfg(target_arch = "x86_64")]
    if call == libc::SYS_epoll_wait {
        return true;
    }
    call == libc::SYS_epoll_pwait || call == libc::SYS_epoll_pwait2
}

/// A traced thread, stopped before a wait. Let go when dropped.
pub(super) struct Tracer {
    thread: Pid,
    /// Dropped, it calls the watchdog off.
    _watchdog: Sender<()>,
}

impl Tracer {
    /// Stops the thread called `name` of a process before its next wait; `None` if the system does
    /// not permit it.
    pub(super) fn attach(process: u32, name: &str) -> Result<Option<Tracer>> {
        let thread = find(process, name)?;
        match ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD) {
            Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) => return Ok(None),
            seized => seized.context("tracing the thread")?,
        }
        let process = i32::try_from(process).context("the number of a process")?;
        let tracer = Tracer { thread, _watchdog: watchdog(Pid::from_raw(process)) };
        ptrace::interrupt(thread).context("stopping the thread")?;
        tracer.wait()?;
        tracer.run_to_wait(&mut Calls::default())?;
        Ok(Some(tracer))
    }

    /// Lets the thread go on from wait to wait until `is_over`, asked at each, and returns what it
    /// called meanwhile. The wait that it stands before is counted, the one it is left at is not.
    pub(super) fn run_until(&self, mut is_over: impl FnMut() -> Result<bool>) -> Result<Calls> {
        let mut calls = Calls::default();
        loop {
            self.run_to_wait(&mut calls)?;
            if is_over()? {
                return Ok(calls);
            }
        }
    }

    /// Lets the thread go on to its next wait.
    fn run_to_wait(&self, calls: &mut Calls) -> Result<()> {
        loop {
            ptrace::syscall(self.thread, None).context("letting the thread go on")?;
            let Some(call) = self.next_call()? else { continue };
            calls.note(call);
            if is_wait(call) {
                return Ok(());
            }
        }
    }

    /// Returns the system call that the thread begins, if that is why it stops.
    fn next_call(&self) -> Result<Option<i64>> {
        if !matches!(self.wait()?, WaitStatus::PtraceSyscall(_)) {
            return Ok(None);
        }
        let stop = ptrace::syscall_info(self.thread).context("asking where the thread is")?;
        if stop.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(None);
        }
        // The number is in a union of C's in `stop`, and here as text.
        let path = format!("/proc/{}/syscall", self.thread);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let number = text.split_whitespace().next().and_then(|number| number.parse().ok());
        Ok(Some(number.with_context(|| format!("reading {text:?}"))?))
    }

    /// Waits until the thread stops.
    fn wait(&self) -> Result<WaitStatus> {
        let status = waitpid(self.thread, Some(WaitPidFlag::__WALL)).context("waiting for it")?;
        if let WaitStatus::Exited(..) | WaitStatus::Signaled(..) = status {
            bail!("the traced process has ended: {status:?}");
        }
        Ok(status)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // A process that has ended in between needs no letting go.
        _ = ptrace::detach(self.thread, None);
    }
}

fn find(process: u32, name: &str) -> Result<Pid> {
    let folder = format!("/proc/{process}/task");
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {folder}"))? {
        let entry = entry.context("reading the threads")?;
        let comm = fs::read_to_string(entry.path().join("comm")).context("reading a name")?;
        if comm.trim_end() == name {
            let number =
                entry.file_name().to_string_lossy().parse().context("a thread's number")?;
            return Ok(Pid::from_raw(number));
        }
    }
    bail!("process {process} has no thread called {name}")
}

/// Ends `process` if what is returned is not dropped in time.
fn watchdog(process: Pid) -> Sender<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        if receiver.recv_timeout(TRACE_MAX) == Err(RecvTimeoutError::Timeout) {
            eprintln!("guards: no end after {} s: the process is ended", TRACE_MAX.as_secs());
            // Its tracer then learns that it has ended, and says so.
            _ = kill(process, Signal::SIGKILL);
        }
    });
    sender
}
