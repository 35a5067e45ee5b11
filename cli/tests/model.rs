//! `onceloop model`, as a person or a script meets it.
#![allow(missing_docs)]

use std::process::Command;

fn onceloop(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_onceloop")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_world_is_explored_to_its_end_and_told_as_json() {
    let file = std::env::temp_dir().join(format!("onceloop-model-{}.json", std::process::id()));
    let path = file.to_str().unwrap();
    let (is_well, out, _) = onceloop(&["model", "retry", "--states-max", "2000", "--json", path]);
    assert!(is_well && out.contains("retry") && out.contains("not to its end"), "{out}");
    let report = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["states"].as_u64().unwrap() >= 2_000, "{report}");
    assert!(report["violation"].is_null(), "{report}");
}

#[test]
fn a_world_that_is_not_there_is_said_not_to_be() {
    let (is_well, _, complaint) = onceloop(&["model", "nowhere"]);
    assert!(!is_well && complaint.contains("no world is called nowhere"), "{complaint}");
    let (is_well, out, _) = onceloop(&["model", "--list"]);
    assert!(is_well && out.contains("transaction"), "{out}");
}
