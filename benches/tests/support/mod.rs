//! What the tests share: the program, and a folder that goes away.
#![allow(dead_code, reason = "no test uses all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_c10k");

/// A folder for one test, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("onceloop-benches-{}-{next}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("the temporary folder can be written");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is small, and in the temporary folder.
        _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the program, with these flags.
pub(crate) fn bench(flags: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(flags).stdin(Stdio::null());
    command
}

/// Returns what the program has written to a file.
pub(crate) fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("the program has written its JSON");
    serde_json::from_str(&text).expect("JSON")
}
