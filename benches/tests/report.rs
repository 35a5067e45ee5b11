//! A whole report, small: every file is there, the page and the tables name each section, and JSON and
//! CSV hold the same rows.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use support::{Folder, bench, json};

/// Makes a report of these sections in `folder`, of so few connections that each of them is answered
/// more than once, however busy the machine is.
fn report(folder: &Path, only: &str) -> Output {
    let flags = ["--runs", "1", "--seconds", "0.2", "--connections-max", "3"];
    let mut command = bench(&flags);
    command.args(["--servers", "raw,event", "--only", only, "--p999-us", "10000000"]);
    command.arg("--report").arg(folder).output().expect("the bench starts")
}

fn made(folder: &Path, only: &str) -> Value {
    let output = report(folder, only);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" in all\n"), "no estimate: {said}");
    json(&folder.join("rows.json"))
}

fn page(folder: &Path) -> String {
    fs::read_to_string(folder.join("index.html")).expect("the page")
}

/// Returns the tables as Markdown, and their headings.
fn tables(folder: &Path) -> (String, Vec<String>) {
    let text = fs::read_to_string(folder.join("tables.md")).expect("the tables");
    let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
    let headings = headings.map(str::to_owned).collect();
    (text, headings)
}

/// Holds every row of the CSV against that of the JSON.
fn check_csv(folder: &Path, rows: &[Value]) {
    let mut csv = csv::Reader::from_path(folder.join("rows.csv")).expect("the CSV");
    let header = csv.headers().expect("a header").clone();
    let lines: Vec<csv::StringRecord> = csv.records().map(|line| line.expect("a line")).collect();
    assert_eq!(lines.len(), rows.len());
    for (line, row) in lines.iter().zip(rows) {
        let cell = |name: &str| {
            let place = header.iter().position(|column| column == name);
            &line[place.unwrap_or_else(|| panic!("{name} in {header:?}"))]
        };
        let measured = &row["row"];
        assert_eq!(cell("asked_flags"), row["asked"]["flags"]);
        assert_eq!(cell("server"), measured["server"]);
        assert_eq!(cell("workload"), measured["workload"]);
        for (name, value) in [
            ("run", &row["run"]),
            ("requests_per_second", &measured["requests_per_second"]),
            ("server_cpu_us_per_request", &measured["server_cpu_us_per_request"]),
            ("latency_us_p99", &measured["latency_us"]["p99"]),
            ("window", &measured["window"]),
        ] {
            let (cell, value) = (cell(name).parse::<f64>(), value.as_f64().expect("a number"));
            // Reading JSON, the last bit of a number may be another.
            assert!(cell.is_ok_and(|cell| (cell - value).abs() <= value.abs() * 1e-12), "{name}");
        }
    }
}

/// Checks all files of a report: the rows in both forms, the latencies, the page and these plots.
fn check(folder: &Path, stored: &Value, sections: &[&str], plots: &[&str]) {
    let rows = stored["rows"].as_array().expect("an array");
    check_csv(folder, rows);
    for row in rows {
        assert_eq!((&row["failure"], &row["row"]["errors"]), (&Value::Null, &0.into()), "{row}");
        let name = row["hgrm"].as_str().expect("a file");
        let text = fs::read_to_string(folder.join("hgrm").join(name)).expect("the latencies");
        assert!(text.contains("Total count"), "{name}: {text}");
    }
    let page = page(folder);
    for id in sections {
        assert!(page.contains(&format!("<h2 id=\"{id}\">")), "{id}");
    }
    for name in plots {
        let svg = fs::read_to_string(folder.join(format!("{name}.svg"))).expect("a plot");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
        assert!(svg.contains("event") && page.contains(&svg), "{name}");
    }
    assert!(!page.contains("broken off") && !page.contains("failed:"), "{page}");
}

#[test]
fn a_report_is_a_page_with_plots_and_all_rows() {
    let folder = Folder::new();
    let sections = ["workloads", "client", "connections", "models"];
    let stored = made(&folder.0, &sections.join(","));
    check(&folder.0, &stored, &sections, &["throughput", "cpu", "memory", "models"]);
    let (text, headings) = tables(&folder.0);
    let connections = "From one connection to the most that the machine holds";
    // W4 is C10k only by name here; the servers side by side are in no table of the document.
    assert_eq!(headings, ["C10k", "Shapes", "The client", connections]);
    assert!(!text.contains("NaN") && text.contains("| W5b: `-c 3 -P 1` |"), "{text}");
    // No work is done twice: W4, cut to 3 connections, is what all of them show.
    let is_same =
        |row: &&Value| row["asked"]["flags"] == "-c 3 -P 1" && row["asked"]["server"] == "event";
    let rows = stored["rows"].as_array().expect("an array");
    let same: Vec<&Value> = rows.iter().filter(is_same).collect();
    assert_eq!(same.len(), 1);
    assert_eq!(same[0]["sections"], serde_json::json!(sections));
}

#[test]
fn latencies_and_rates_are_part_of_a_report() {
    let folder = Folder::new();
    let sections = ["payloads", "open-loop", "mix", "large", "slo"];
    let stored = made(&folder.0, &sections.join(","));
    let plots = [
        "payloads",
        "latency-w4",
        "latency-w5b",
        "mix-closed",
        "mix-rate",
        "mix-window",
        "large",
        "slo",
    ];
    check(&folder.0, &stored, &sections, &plots);
    check_rates(stored["rows"].as_array().expect("an array"));
    let (slow, large) = ("Slow handlers among fast ones", "Large messages beside small ones");
    assert_eq!(tables(&folder.0).1, ["Payloads", "At a fixed rate", slow, large]);
    let answers = stored["slo"].as_array().expect("an array");
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| answer["failure"].is_null()), "{answers:?}");
}

/// Holds each rate of an open loop against the share of the closed loop's that it is to be.
fn check_rates(rows: &[Value]) {
    let mut shares = Vec::new();
    for row in rows.iter().filter(|row| !row["asked"]["rate_percent"].is_null()) {
        let asked = &row["asked"];
        let closed = rows.iter().find(|other| {
            let other = &other["asked"];
            (&other["server"], &other["flags"]) == (&asked["server"], &asked["flags"])
                && other["rate_percent"].is_null()
        });
        let closed = &closed.expect("it was measured first")["row"]["requests_per_second"];
        let percent = asked["rate_percent"].as_f64().expect("a number");
        let due = closed.as_f64().expect("a number") * percent / 100.0;
        let rate = row["row"]["rate"].as_f64().expect("a number");
        assert!((rate - due).abs() <= 0.5 + 1e-6, "{rate} is not {percent} % of {closed}");
        shares.push(percent);
    }
    assert!([50.0, 80.0, 95.0].iter().all(|share| shares.contains(share)), "{shares:?}");
}

#[test]
fn sections_are_kept_replaced_and_rendered_again() {
    let folder = Folder::new();
    made(&folder.0, "models");
    let first = page(&folder.0);
    let stored = made(&folder.0, "client");
    let both = page(&folder.0);
    let sections = |stored: &Value| stored["sections"].as_array().expect("an array").len();
    assert_eq!(sections(&stored), 2);
    assert!(first.contains("<h2 id=\"models\">") && !first.contains("<h2 id=\"client\">"));
    assert!(both.contains("<h2 id=\"models\">") && both.contains("<h2 id=\"client\">"));

    let again = made(&folder.0, "client");
    assert_eq!(sections(&again), 2);
    assert_eq!(again["rows"].as_array().map(Vec::len), stored["rows"].as_array().map(Vec::len));

    let (page_before, tables_before) = (page(&folder.0), tables(&folder.0));
    fs::remove_file(folder.0.join("tables.md")).expect("it was there");
    fs::remove_file(folder.0.join("index.html")).expect("it was there");
    fs::remove_file(folder.0.join("models.svg")).expect("it was there");
    let output = bench(&["render"]).arg(&folder.0).output().expect("the bench starts");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(page(&folder.0), page_before);
    assert_eq!(tables(&folder.0), tables_before);
    assert!(folder.0.join("models.svg").exists());
}

#[test]
fn what_is_no_report_is_not_rendered() {
    let folder = Folder::new();
    let output = bench(&["render"]).arg(&folder.0).output().expect("the bench starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("there is no report in"), "{said}");
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let folder = Folder::new();
    let flags = ["--runs", "1", "--seconds", "0.1", "--connections-max", "20", "--only", "models"];
    let mut command = bench(&flags);
    command.args(["--servers", "raw,redis", "--report"]).arg(&folder.0);
    // Nothing is installed where there is nothing.
    let output = command.env("PATH", &folder.0).output().expect("the bench starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let why = "redis is left out: there is no `redis-server` in PATH";
    assert!(output.status.success() && said.contains(why), "{said}");
    assert!(page(&folder.0).contains(why));
}

#[test]
fn a_run_that_fails_is_told() {
    let folder = Folder::new();
    // The machine has no room for a single connection: every run fails, and the page still comes.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 32 && exec \"$0\" \"$@\"", support::PROGRAM]);
    command.args(["--runs", "1", "--seconds", "0.1", "--connections-max", "20"]);
    command.args(["--servers", "raw", "--only", "models", "--report"]).arg(&folder.0);
    let output = command.output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let why = "there is no room for a single connection";
    assert!(said.contains(&format!("run 1 failed: {why}")), "{said}");
    let page = page(&folder.0);
    assert!(page.contains(&format!("raw, run 1, failed: {why}")), "{page}");
    let stored = json(&folder.0.join("rows.json"));
    assert_eq!(stored["rows"][0]["failure"], why);
    let csv = fs::read_to_string(folder.0.join("rows.csv")).expect("the CSV");
    assert!(csv.contains(why), "{csv}");
}
