//! MapReduce: counts the words of many files by workers of which some crash and some are slow.
//!
//! This program is the **master** (`master.rs`). It starts the **workers** (`worker.rs`), processes
//! of their own (`process.rs`), and calls them: each call is a task, given by a callback-style call
//! over a socket. A map task counts the words of one part of the text; a reduce task collects one
//! partition of the words from all the workers that have mapped.
//!
//! What fails, and who answers for it:
//!
//! * *A reply is lost, a connection breaks.* The library: the call goes on over the next connection,
//!   and the task runs once.
//! * *A worker crashes.* The master: a call ends with its worker, and the task is given to another
//!   worker. That is another call to another server, of which no table can know that it is the same
//!   task: safe here, since a task changes nothing but the memory of its worker.
//! * *A worker is slow.* The master again: it gives the last tasks of a phase twice (*backup tasks*),
//!   and takes the result that comes first. The second is refused: counted, it would double words.
//! * *A worker crashes after it has mapped.* What it had mapped lay in its memory, and is mapped
//!   again. The other choice is to write it to stable storage that all workers share: then no map
//!   task runs again, but each pays for the writing, and a task that runs twice must write so that
//!   nobody sees a half. Here a part is mapped in a millisecond: doing it again is cheaper.
//!
//! Reduce tasks begin when every part is mapped (the *barrier*), since each word may be in each part.
//! A part that has to be mapped again closes the barrier until it is.
//!
//! Source: Jeffrey Dean, Sanjay Ghemawat, *MapReduce: Simplified Data Processing on Large Clusters*,
//! OSDI '04.
//!
//! Run it: `cargo run --release --example map_reduce -- FILES`; without files it takes the pages of
//! this repository.

mod master;
mod process;
mod worker;

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use worker::Temper;

/// What is counted if no file is named.
const PAGES: [&str; 4] = [
    include_str!("../../README.md"),
    include_str!("../../docs/ARCHITECTURE.md"),
    include_str!("../../docs/PROTOCOL.md"),
    include_str!("../../docs/SEMANTICS.md"),
];
/// Who works.
const WORKERS: [Temper; 6] = [
    Temper::CrashesAsItMaps,
    Temper::Slow,
    Temper::Steady,
    Temper::Steady,
    Temper::Steady,
    Temper::CrashesAsItReduces,
];
/// Parts of a small text: enough that everybody gets some.
const PARTS_MIN: usize = 48;
/// Bytes of a part of a large one, if the words let it be cut there.
const PART_BYTES_MAX: usize = 64 * 1024;
/// Bytes of text for each partition, and the fewest partitions.
const PARTITION_BYTES: usize = 256 * 1024;
const PARTITIONS_MIN: usize = 8;
/// How many of the most frequent words are printed.
const SHOWN: usize = 10;

/// Words with how often each occurs.
type Counts = BTreeMap<String, u64>;

onceloop::service! {
    /// What the master asks of a worker, and one worker of another.
    pub mod worker_service {
        /// Counts the words of a part, and keeps the counts by partition.
        fn map(part: usize, text: &str, partitions: usize);
        /// Returns the counts of a partition, collected from where the parts were mapped.
        fn reduce(partition: usize, sources: Vec<Mapped>) -> Result<Counts, Lost>;
        /// Returns one partition of a part that was mapped here.
        #[idempotent]
        fn fetch(part: usize, partition: usize) -> Counts;
    }
}

/// Where the counts of a part are.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mapped {
    part: usize,
    worker: String,
}

/// A reduce task did not get what it needs: some mapped part is not to be had.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lost {
    part: usize,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the counts of part {} are lost", self.part)
    }
}

impl Error for Lost {}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, temper] = &arguments[..]
        && role == process::ROLE
    {
        return worker::run(Temper::named(temper)?);
    }
    let text = text(&arguments)?;
    let part_bytes = (text.len() / PARTS_MIN).clamp(1, PART_BYTES_MAX);
    let parts = cut(&text, part_bytes);
    let partitions = PARTITIONS_MIN.max(text.len() / PARTITION_BYTES);

    let counts = master::run(parts, partitions, &WORKERS)?;

    let alone = count_alone(&text);
    if counts != alone {
        return Err("the counts differ from those of one thread that counts alone".into());
    }
    let words: u64 = counts.values().sum();
    println!("{words} words, {} different: what one thread counts alone", counts.len());
    let mut words: Vec<_> = counts.iter().collect();
    words.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    for (word, n) in words.iter().take(SHOWN) {
        println!("{n:>8} {word}");
    }
    Ok(())
}

fn text(files: &[String]) -> Result<String, Box<dyn Error>> {
    if files.is_empty() {
        return Ok(PAGES.join("\n"));
    }
    let mut text = String::new();
    for file in files {
        let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        text.push_str(&String::from_utf8_lossy(&bytes));
        text.push('\n');
    }
    Ok(text)
}

/// Cuts a text between words into parts of at least so many bytes, but for the last.
fn cut(text: &str, part_bytes: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    for word in text.split_inclusive(char::is_whitespace) {
        match parts.last_mut() {
            Some(part) if part.len() < part_bytes => part.push_str(word),
            _ => parts.push(word.to_owned()),
        }
    }
    parts
}

/// Which partition a word belongs to: every process must agree.
fn partition_of(word: &str, partitions: usize) -> usize {
    let mut hasher = DefaultHasher::new(); // with the same keys in each process
    word.hash(&mut hasher);
    usize::try_from(hasher.finish() % partitions as u64).expect("less than `partitions`")
}

/// The same without parts, partitions, workers and sockets, and by sorting.
fn count_alone(text: &str) -> Counts {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words.chunk_by(|a, b| a == b).map(|same| (same[0].to_owned(), same.len() as u64)).collect()
}
