//! Connections are cut under load: what the policies promise holds, and what blind retry does shows.
#![cfg(target_os = "linux")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Folder, bench, json};

#[test]
fn calls_run_as_often_as_each_policy_promises() {
    let folder = Folder::new();
    let path = folder.0.join("counts.json");
    let flags = ["cuts", "--calls", "600", "--cut-every", "none,30,10"];
    let mut command = bench(&flags);
    command.arg("--json").arg(&path).arg("--report").arg(&folder.0);
    let output = command.output().expect("the bench starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{table}");
    let report = json(&path);
    let rows = report["rows"].as_array().expect("an array");
    assert_eq!(rows.len(), 12);
    for row in rows {
        let count = |key: &str| row[key].as_u64().unwrap_or_else(|| panic!("{key} in {row}"));
        let lost = count("lost_not_run") + count("lost_unknown");
        assert_eq!(count("calls"), 600);
        assert_eq!(count("run_once") + count("run_twice") + lost, 600, "{row}");
        assert_eq!((count("wrong"), count("unanswered")), (0, 0), "{row}");
        if row["calls_per_cut"].is_null() {
            assert_eq!((count("cuts"), count("run_once")), (0, 600), "{row}");
            continue;
        }
        // 4 clients with 8 calls in flight: a cut takes some of them with it, all but surely.
        assert!(count("cuts") >= 5 && count("connections") > 4, "{row}");
        match row["policy"].as_str().expect("a name") {
            "exactly_once" => {
                assert_eq!((count("run_once"), count("run_untold")), (600, 0), "{row}")
            }
            "at_most_once" => {
                assert_eq!((count("run_twice"), count("lost_unknown")), (0, 0), "{row}");
                assert!(lost > 0, "{row}");
            }
            "blind_retry" => assert!(count("run_twice") > 0 && lost == 0, "{row}"),
            "no_retry" => {
                assert!(count("run_twice") == 0 && lost > 0 && count("run_untold") > 0, "{row}");
            }
            other => panic!("{other}"),
        }
    }
    check_page(&folder, &report);
}

fn check_page(folder: &Folder, report: &Value) {
    let svg = fs::read_to_string(folder.0.join("cuts.svg")).expect("the chart");
    assert!(svg.starts_with("<svg") && svg.contains("Blind retry"), "{svg}");
    let twice = report["rows"].as_array().expect("an array").iter();
    let most = twice.filter_map(|row| row["run_twice"].as_u64()).max().expect("a count");
    assert!(svg.lines().any(|line| line == most.to_string()), "{most} is not labelled");
    let page = fs::read_to_string(folder.0.join("index.html")).expect("the page");
    assert!(page.contains(&svg) && page.contains(&format!("<td>{most}</td>")), "{page}");
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_is_no_success() {
    let flags = ["cuts", "--calls", "1000000", "--cut-every", "none", "--seconds-max", "0.2"];
    let output = bench(&flags).arg("--policies").arg("exactly-once").output().expect("it starts");
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.contains("NOT AS PROMISED: exactly once, none"), "{table}");
}
