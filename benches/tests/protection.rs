//! The cost of protection, measured small: the server has counted what was sent, or the program
//! fails.
#![cfg(target_os = "linux")]

mod support;

use serde_json::Value;
use support::{Folder, bench, json};

#[test]
fn every_kind_of_call_is_answered_and_told() {
    let folder = Folder::new();
    let path = folder.0.join("slices.json");
    let flags = ["protection", "--runs", "2", "--slices", "1", "--seconds", "0.1", "-P", "100"];
    let output = bench(&flags).arg("--json").arg(&path).output().expect("the bench starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report = json(&path);
    assert_eq!((&report["in_flight"], &report["window"]), (&100.into(), &128.into()));
    assert_eq!(report["instructions"], Value::Null);
    let slices = report["slices"].as_array().expect("an array");
    assert_eq!(slices.len(), 2);
    let number = |value: &Value| value.as_f64().expect("a number");
    for kind in ["protected_ns", "unprotected_ns", "duplicate_ns"] {
        for slice in slices {
            assert!(number(&slice[kind]) > 0.0, "{report:#}");
        }
        let spread = &report[kind];
        assert!(number(&spread["least"]) <= number(&spread["median"]), "{report:#}");
        assert!(number(&spread["median"]) <= number(&spread["greatest"]), "{report:#}");
    }
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(table.contains(" protection ") && table.contains(" duplicate answered "), "{table}");
}
