//! The simulator as a person meets it.
#![allow(missing_docs)]

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onceloop"));
    command.arg("sim").args(arguments).env_remove("RUST_LOG");
    command.output().expect("it starts")
}

fn stdout(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn totals_are_printed_and_written_as_json() {
    let name = format!("onceloop-test-{}-totals.json", std::process::id());
    let file = std::env::temp_dir().join(name);
    let path = file.to_str().expect("a path of text");
    let output = sim(&["--seeds", "10..16", "--twice", "--jobs", "2", "--json", path]);
    let told = stdout(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.starts_with("6 seeds, "), "{told}");
    assert!(told.contains("the traces are the same"), "{told}");
    let json = std::fs::read_to_string(&file).expect("it was written");
    std::fs::remove_file(&file).expect("it is there");
    let totals: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(totals["seeds"], 6);
    assert!(totals["calls"].as_u64() >= Some(600), "{totals}");
    assert!(totals["faults"]["cut"].is_u64(), "{totals}");
    for promise in ["double_executions", "lost", "wrong_replies", "unresolved"] {
        assert_eq!(totals[promise], 0, "{promise}");
    }
    assert!(totals["seconds"].is_f64(), "{totals}");
}

#[test]
fn a_trace_shows_what_happened_in_a_seed_and_is_the_same_each_time() {
    let first = stdout(&sim(&["--seed", "12", "--trace"]));
    assert!(first.contains("server-1") && first.contains("call 0 ended"), "{first}");
    assert_eq!(first, stdout(&sim(&["--seed", "12", "--trace"])));
}

#[test]
fn wrong_seeds_are_refused() {
    for wrong in ["5", "7..7", "a..b", "9..3"] {
        let output = sim(&["--seeds", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
    assert_eq!(sim(&["--trace"]).status.code(), Some(2), "which seed?");
}
