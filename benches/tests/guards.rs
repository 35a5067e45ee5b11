//! The guards that a build without optimisation can hold: system calls.
#![cfg(target_os = "linux")]

mod support;

use support::bench;

#[test]
fn a_request_takes_as_few_system_calls_as_there_can_be() {
    let output = bench(&["guards", "--only", "system-calls"]).output().expect("the bench starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{said}{table}");
    if table.contains("SKIPPED: system calls: this process may not trace others") {
        eprintln!("{table}");
        return;
    }
    let counted = |what: &str| {
        let line = table.lines().find(|line| line.contains(what)).expect("a line of the table");
        line.split_whitespace().nth_back(2).map(str::to_owned)
    };
    // Not only no more than the bound: what is not counted at all would be none.
    let (busy, one) = ("server, 200 connections x 1 beside", "server, 1 connection x 128 beside");
    for (what, count) in [(busy, "200"), (one, "1")] {
        for kind in ["reads", "writes"] {
            let what = format!("{what} 300 idle: {kind}");
            assert_eq!(counted(&what).as_deref(), Some(count), "{what}\n{table}");
        }
    }
}
