//! Every example runs, and prints what it promises.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A text of this repository: long enough for several pieces when written many times over.
const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ARCHITECTURE.md");

/// Cargo builds the examples beside the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("it is in target/<profile>/deps");
    let path = folder.join("examples").join(name);
    let hint = "`cargo test` builds it; before `cargo test --test examples` build it yourself: \
                `cargo build --examples`";
    assert!(path.exists(), "the example {name} is not built: {hint}");
    Command::new(path)
}

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the example starts");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{status}: {stderr}");
    assert_eq!(stderr, "", "an example has nothing to complain of");
    String::from_utf8(stdout).expect("it prints text")
}

fn line<'a>(output: &'a str, start: &str) -> &'a str {
    let found = output.lines().find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no line starts with {start:?}:\n{output}"))
}

/// Counts words by sorting, as the example does not.
fn count_independently(text: &str) -> BTreeMap<String, u64> {
    let mut words: Vec<&str> =
        text.split(char::is_whitespace).filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words.chunk_by(|a, b| a == b).map(|same| (same[0].to_owned(), same.len() as u64)).collect()
}

fn counted_by_the_example(file: &Path) -> BTreeMap<String, u64> {
    let output = run(example("word_count").arg(file));
    let pairs =
        output.lines().map(|line| line.trim_start().split_once(' ').expect("a count and a word"));
    pairs.map(|(n, word)| (word.to_owned(), n.parse().expect("a count"))).collect()
}

#[test]
fn word_count_agrees_with_an_independent_count() {
    let text = std::fs::read_to_string(TEXT).expect("the page is there");
    let counts = counted_by_the_example(Path::new(TEXT));
    assert!(counts.len() > 100, "a real text");
    assert_eq!(counts, count_independently(&text));
}

#[test]
fn word_count_takes_a_large_file_in_pieces_and_its_answer_in_pages() {
    // Three megabytes with 30 000 different words: larger than any one message may be.
    let text = std::fs::read_to_string(TEXT).expect("the page is there");
    let mut large = text.repeat(1 + 2_500_000 / text.len());
    for n in 0..30_000 {
        large.push_str(&format!("wörd-{n}\n"));
    }
    let file = scratch("large.txt");
    std::fs::write(&file, &large).expect("the file is written");
    assert_eq!(counted_by_the_example(&file), count_independently(&large));
    std::fs::remove_file(file).expect("it was there");
}

#[test]
fn word_count_says_what_is_wrong_with_a_file_that_is_not_there() {
    let output = example("word_count").arg("no-such-file").output().expect("it starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-file"));
}

#[test]
fn calc_answers_in_three_ways_and_fails_with_its_own_error() {
    let output = run(&mut example("calc"));
    for expected in [
        "ping: the server is there",
        "8 / 0: division by zero",
        "1 + 2 = 3, by a handle",
        "3 + 4 = 7, by a blocking client",
    ] {
        assert_eq!(line(&output, expected), expected);
    }
}

#[test]
fn master_worker_does_every_task_and_the_slow_worker_holds_nobody_up() {
    let output = run(&mut example("master_worker"));
    let sum: u64 = (0..40).map(|n: u64| (0..n).map(|i| i * i).sum::<u64>()).sum();
    let expected = format!("40 tasks by 4 workers, in sum {sum}; 0 failed");
    assert_eq!(line(&output, "40 tasks"), expected);
    let done = |worker: usize| -> u64 {
        let start = format!("worker {worker} did ");
        let number = line(&output, &start)[start.len()..].split(' ').next();
        number.and_then(|n| n.parse().ok()).expect("a number")
    };
    assert_eq!((0..4).map(done).sum::<u64>(), 40);
    // It has time for one or two while the others do the rest; on a busy machine for a few more.
    assert!(done(0) < 10, "the slow one does less than its share:\n{output}");
}

#[test]
fn map_reduce_counts_each_word_once_though_workers_crash_and_are_slow() {
    let pages = ["README.md", "docs/ARCHITECTURE.md", "docs/PROTOCOL.md"];
    let paths = pages.map(|page| Path::new(env!("CARGO_MANIFEST_DIR")).join(page));
    let output = run(example("map_reduce").args(&paths));
    let text = paths.map(|path| std::fs::read_to_string(path).expect("the page is there"));
    let counts = count_independently(&text.join("\n"));

    let (words, different) = (counts.values().sum::<u64>(), counts.len());
    let start = format!("{words} words, {different} different");
    let mut most_frequent: Vec<_> = counts.iter().map(|(word, n)| (*n, word.as_str())).collect();
    most_frequent.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let printed = output.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
    let printed: Vec<(u64, &str)> = printed
        .map(|line| line.trim_start().split_once(' ').expect("a count and a word"))
        .map(|(n, word)| (n.parse().expect("a count"), word))
        .collect();
    assert_eq!(printed, most_frequent[..10], "{output}");

    let tally = |what: &str| -> u64 {
        let start = format!("{what}: ");
        line(&output, &start)[start.len()..].parse().expect("a number")
    };
    assert_eq!(tally("crashes"), 2, "one as it maps, one as it reduces:\n{output}");
    // The task at which the first crashed, and at least one that the second had mapped.
    assert!(tally("tasks given again") >= 2, "{output}");
    assert!(tally("of them mapped before, and lost") >= 1, "{output}");
    assert!(tally("backup tasks") >= 1, "of what the slow one is at:\n{output}");
    assert!(tally("duplicates refused") >= 1, "what the slow one brings late:\n{output}");
}

#[test]
fn map_reduce_says_what_is_wrong_with_a_file_that_is_not_there() {
    let output = example("map_reduce").arg("no-such-file").output().expect("it starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-file"));
}

/// The lines of a story's part, from below its heading to the next one.
fn part<'a>(output: &'a str, heading: &str) -> Vec<&'a str> {
    let below = output.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    below.take_while(|line| line.starts_with("  ")).map(str::trim).collect()
}

#[test]
fn bank_takes_the_money_once_and_blind_retry_does_not() {
    let output = run(&mut example("bank"));
    let debits = |heading: &str| -> Vec<String> {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        part(&output, heading).into_iter().map(words).collect()
    };
    assert_eq!(
        debits("the request is lost"),
        [
            "blind retry the caller is told Ok(90) ran 1 times, $90 left",
            "at most once the caller is told NotExecuted ran 0 times, $100 left",
            "exactly once the caller is told Ok(90) ran 1 times, $90 left",
        ]
    );
    assert_eq!(
        debits("the reply is lost alone"),
        [
            "blind retry the caller is told Ok(80) ran 2 times, $80 left",
            "at most once the caller is told Ok(90) ran 1 times, $90 left",
            "exactly once the caller is told Ok(90) ran 1 times, $90 left",
        ]
    );
    assert_eq!(
        debits("the reply is lost, and the server"),
        [
            "blind retry the caller is told Ok(80) ran 2 times, $80 left",
            "at most once the caller is told Indeterminate ran 1 times, $90 left",
            "exactly once the caller is told Indeterminate ran 1 times, $90 left",
        ]
    );
    assert_eq!(
        debits("the same, and the table is on a disk"),
        ["exactly once the caller is told Ok(90) ran 1 times, $90 left"]
    );
    assert_eq!(
        debits("40 transfers"),
        [
            "blind retry 80 calls ran 90 times; $1000 became $961: NOT conserved",
            "at most once 80 calls ran 80 times; $1000 became $1000: conserved",
            "exactly once 80 calls ran 80 times; $1000 became $1000: conserved",
        ]
    );
}

#[test]
fn kv_reads_what_was_put_last_and_blind_retry_does_not() {
    let output = run(&mut example("kv"));
    let reads = |heading: &str| -> Vec<&str> {
        let lines = part(&output, heading).into_iter();
        let values = lines.map(|line| line.split_once("get returns ").expect("what it returns").1);
        values.map(|rest| rest.split(' ').next().expect("a value")).collect()
    };
    // Each time: blind retry, exactly once, exactly once in order; then, exactly once hedged.
    let late = "put 10, put 20, and a copy";
    assert_eq!(reads(late), ["10", "20", "20", "20"]);
    assert!(part(&output, late)[3].ends_with("2 writes ran; the late copy came, and did not run"));
    let appended = reads("append a, append b");
    assert!(appended[0].starts_with("aa"), "the first one twice at least: {appended:?}");
    assert_eq!(appended[1..], ["ab", "ab"]);
    // Without waiting: exactly once does not order calls, a session in order does.
    assert_eq!(reads("put 10 and put 20 without waiting"), ["10", "20"]);
}

#[test]
fn simulate_conserves_money_in_every_world_and_blind_retry_does_not() {
    let output = run(&mut example("simulate"));
    let worlds = |name: &str| -> u64 {
        let start = format!("{name}: money conserved in ");
        let number = line(&output, &start)[start.len()..].split(' ').next();
        number.and_then(|n| n.parse().ok()).expect("a number")
    };
    assert_eq!(worlds("exactly once"), 100, "{output}");
    assert!(worlds("blind retry") < 100, "{output}");
    assert_eq!(output, run(&mut example("simulate")), "seeds tell all that happens");
    let trace = run(example("simulate").arg("3"));
    assert!(trace.lines().count() > 100 && trace.contains("$1000 became "), "{trace}");
}

#[test]
fn time_sync_finds_the_offset_within_its_own_bound() {
    let output = run(&mut example("time_sync"));
    let seconds = |start: &str| -> f64 {
        let number = line(&output, start)[start.len()..].trim_end_matches(" s").trim();
        number.parse().expect("seconds")
    };
    let (offset, bound) = (seconds("this clock is to be set by"), seconds("the error is at most"));
    // The printed figures are rounded to a microsecond.
    assert!((offset - 90.0).abs() <= bound + 2e-6, "{output}");
}

#[test]
fn offload_answers_fast_calls_while_the_slow_one_runs() {
    let output = run(&mut example("offload"));
    assert_eq!(line(&output, "the slow call"), "the slow call: Ok(42)");
    let before = line(&output, "1000 of 1000");
    assert_eq!(before, "1000 of 1000 fast calls were answered before it");
}

#[test]
fn embed_goes_on_with_the_hosts_own_events() {
    let output = run(&mut example("embed"));
    assert_eq!(line(&output, "20 calls"), "20 calls in the host's loop, the count is 20");
    assert_eq!(line(&output, "the host's timer"), "the host's timer ticked meanwhile");
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}
