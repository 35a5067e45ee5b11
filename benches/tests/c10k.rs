//! The whole bench, small: every part as a process of its own, real sockets, the JSON at the end.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Folder, PROGRAM, bench};

/// What one object of the JSON holds, no more and no less.
const KEYS: [&str; 25] = [
    "client_cpu_us_per_request",
    "connect_seconds",
    "connections",
    "context_switches",
    "errors",
    "in_flight",
    "large",
    "latency_us",
    "load",
    "payload",
    "rate",
    "requests",
    "requests_per_second",
    "rss_bytes_per_connection",
    "run",
    "seconds",
    "send_lag_us",
    "server",
    "server_cpu_us_per_request",
    "slow",
    "spin_us",
    "threads",
    "warnings",
    "window",
    "workload",
];

/// Runs the bench and returns what it said and the rows of its JSON.
fn run(command: &mut Command, folder: &Folder) -> (Output, Vec<Value>) {
    let json = folder.0.join("rows.json");
    let output = command.arg("--json").arg(&json).output().expect("the bench starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let rows = support::json(&json).as_array().expect("one array").clone();
    (output, rows)
}

fn check_row(row: &Value, server: &str) {
    let keys: BTreeSet<&str> =
        row.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(KEYS));
    assert_eq!(row["server"], server);
    assert_eq!(row["errors"], 0, "{row}");
    let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
    assert!(number("requests") > 0.0);
    let rate = number("requests") / number("seconds");
    assert!((number("requests_per_second") / rate - 1.0).abs() < 1e-6, "{row}");
    assert!(number("client_cpu_us_per_request") > 0.0);
    assert!(number("server_cpu_us_per_request") > 0.0);
    let latency = |key: &str| row["latency_us"][key].as_f64().expect("a number");
    assert!(0.0 < latency("p50") && latency("p50") <= latency("p99"), "{row}");
    assert!(latency("p99") <= latency("p999") && latency("p999") <= latency("max"), "{row}");
}

#[test]
fn every_server_answers_every_call() {
    let folder = Folder::new();
    let flags = ["--connections", "50", "--in-flight", "3", "--seconds", "0.3"];
    let (output, rows) = run(&mut bench(&flags), &folder);
    let servers = ["raw", "event", "threads"];
    assert_eq!(rows.len(), servers.len());
    for (row, server) in rows.iter().zip(servers) {
        check_row(row, server);
        assert_eq!((&row["connections"], &row["in_flight"]), (&50.into(), &3.into()));
        assert_eq!((&row["rate"], &row["load"]), (&"max".into(), &"bare".into()));
        assert_eq!((&row["send_lag_us"], &row["warnings"]), (&Value::Null, &Value::Array(vec![])));
        assert_eq!((&row["workload"], &row["run"]), (&"50x3".into(), &1.into()));
        // A window is a power of two; the bare server grants its own.
        assert!(row["window"].as_u64() >= Some(3), "{row}");
    }
    assert_eq!(rows[0]["threads"], 1);
    assert_eq!(rows[1]["threads"], 1);
    assert_eq!(rows[2]["threads"], 51, "one a connection, and one that accepts");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("event/raw: ") && said.contains("event/threads: "), "{said}");
}

#[test]
fn our_client_library_gets_every_answer() {
    let folder = Folder::new();
    let flags = ["--load", "client", "-c", "10", "-P", "4", "--idle", "5", "--seconds", "0.2"];
    let (_, rows) = run(&mut bench(&flags), &folder);
    for (row, server) in rows.iter().zip(["raw", "event", "threads"]) {
        check_row(row, server);
        assert_eq!((&row["load"], &row["window"]), (&"client".into(), &4.into()));
    }
}

#[test]
fn a_rate_is_kept_and_latencies_are_written() {
    let folder = Folder::new();
    let flags = ["--servers", "raw", "-c", "20", "--seconds", "0.5", "--rate", "2000"];
    let hgrm = folder.0.join("hgrm");
    let (_, rows) = run(bench(&flags).arg("--idle").arg("5").arg("--hgrm").arg(&hgrm), &folder);
    check_row(&rows[0], "raw");
    assert_eq!(rows[0]["rate"], 2000.0);
    assert_eq!(rows[0]["workload"], "20x1+5");
    let rate = rows[0]["requests_per_second"].as_f64().expect("a number");
    assert!(rows[0]["send_lag_us"]["p50"].as_f64() > Some(0.0), "{}", rows[0]);
    // A busy machine delays calls; what is not kept is said.
    assert!(rate > 0.99 * 2_000.0 || rows[0]["warnings"][0].is_string(), "{}", rows[0]);
    let text =
        fs::read_to_string(hgrm.join("raw-20x1+5-rate2000-1.hgrm")).expect("the percentiles");
    let total = format!("Total count    = {:>12}]", rows[0]["requests"].as_u64().expect("a count"));
    assert!(text.contains(&total), "{text}");
}

#[test]
fn a_rate_that_is_not_kept_is_said() {
    let folder = Folder::new();
    for load in ["bare", "client"] {
        // One call in flight on two connections: no machine has round trips of 20 ns.
        let flags = ["--servers", "event", "-c", "2", "--seconds", "0.2", "--rate", "1e8"];
        let (output, rows) = run(bench(&flags).args(["--load", load]), &folder);
        let warning = rows[0]["warnings"][0].as_str().expect("a warning");
        assert!(warning.contains("of 100000000 that were asked for"), "{warning}");
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(said.contains(&format!("WARNING: event, run 1: {warning}")), "{said}");
    }
}

#[test]
fn large_payloads_come_back() {
    let folder = Folder::new();
    let flags = ["-c", "3", "-P", "4", "-d", "300000", "--seconds", "0.3"];
    let (_, rows) = run(&mut bench(&flags), &folder);
    assert_eq!(rows.len(), 3);
    for (row, server) in rows.iter().zip(["raw", "event", "threads"]) {
        check_row(row, server);
    }
}

#[test]
fn slow_handlers_block_a_loop_and_not_a_pool() {
    const SLOW_US: f64 = 20e3;
    let folder = Folder::new();
    let flags = ["-c", "10", "-P", "4", "--window", "64", "--seconds", "0.5"];
    let slow = ["--slow-percent", "5", "--slow-us", "20000"];
    let hgrm = folder.0.join("hgrm");
    let mut command = bench(&flags);
    let (output, rows) = run(command.args(slow).arg("--hgrm").arg(&hgrm), &folder);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("raw: left out: it runs no handlers"), "{said}");
    let (_, pooled) = run(bench(&flags).args(slow).args(["--offload=7"]), &folder);
    assert_eq!((&rows[0]["threads"], &rows[1]["threads"]), (&1.into(), &11.into()));
    assert_eq!(pooled[0]["threads"], 8, "a loop and its pool");
    for (row, server) in rows.iter().chain(&pooled).zip(["event", "threads", "event", "threads"]) {
        check_row(row, server);
        assert_eq!((&row["window"], &row["in_flight"]), (&64.into(), &4.into()));
        let slow = &row["slow"];
        assert_eq!((&slow["percent"], &slow["us"]), (&5.0.into(), &20_000.into()));
        assert!(Some(0) < slow["requests"].as_u64(), "{row}");
        assert!(slow["requests"].as_u64() < row["requests"].as_u64(), "{row}");
        assert!(slow["latency_us"]["p50"].as_f64() >= Some(SLOW_US), "{row}");
    }
    assert_eq!(
        (&rows[0]["slow"]["offload_threads"], &pooled[0]["slow"]["offload_threads"]),
        (&Value::Null, &7.into())
    );
    assert_eq!(pooled[1]["slow"]["offload_threads"], Value::Null, "threads wait themselves");
    // A loop that waits answers nobody meanwhile.
    assert!(rows[0]["latency_us"]["max"].as_f64() >= Some(SLOW_US), "{}", rows[0]);
    let slow = fs::read_to_string(hgrm.join("event-10x4-slow5x20000-w64-1-slow.hgrm"));
    let slow = slow.expect("the percentiles");
    let count = rows[0]["slow"]["requests"].as_u64().expect("a count");
    let total = format!("Total count    = {count:>12}]");
    assert!(slow.contains(&total), "{slow}");
}

#[test]
fn large_calls_go_beside_small_ones() {
    let folder = Folder::new();
    let large = ["--large-connections", "2", "--large-bytes", "700000"];
    for rate in ["max", "500"] {
        let flags = ["-c", "5", "-P", "2", "--idle", "3", "--seconds", "0.3", "--rate", rate];
        let (output, rows) = run(bench(&flags).args(large), &folder);
        assert_eq!(rows.len(), 3);
        for (row, server) in rows.iter().zip(["raw", "event", "threads"]) {
            check_row(row, server);
            let large = &row["large"];
            assert_eq!((&large["connections"], &large["bytes"]), (&2.into(), &700_000.into()));
            assert!(large["requests"].as_u64() > Some(0), "{row}");
            assert!(large["latency_us"]["p50"].as_f64() > Some(0.0), "{row}");
        }
        let said = String::from_utf8(output.stdout).expect("text");
        assert!(said.contains("on 2 connections, calls of 700000 bytes each way"), "{said}");
    }
}

#[test]
fn what_cannot_be_slow_is_said() {
    let refused = |flags: &[&str]| {
        let output = bench(flags).args(["--slow-percent", "1"]).output().expect("it starts");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("text")
    };
    let said = refused(&["--servers", "raw"]);
    assert!(said.contains("no server is left"), "{said}");
    let said = refused(&["--load", "client"]);
    assert!(said.contains("only the bare load makes slow or large calls"), "{said}");
}

#[test]
fn every_run_is_told() {
    let folder = Folder::new();
    let flags = ["-c", "2", "--servers", "raw,event", "--seconds", "0.1", "--runs", "2"];
    let (_, rows) = run(&mut bench(&flags), &folder);
    let told: Vec<_> =
        rows.iter().map(|row| (row["server"].as_str(), row["run"].as_u64())).collect();
    let [raw, event] = [Some("raw"), Some("event")];
    assert_eq!(told, [(raw, Some(1)), (event, Some(1)), (raw, Some(2)), (event, Some(2))]);
}

#[test]
fn a_slope_of_memory_is_told_where_there_is_one() {
    let folder = Folder::new();
    let flags = ["--servers", "raw,threads", "-c", "300", "--seconds", "0.2"];
    let (_, rows) = run(&mut bench(&flags), &folder);
    let slope = |row: &Value| row["rss_bytes_per_connection"].as_f64().expect("a number");
    assert!(slope(&rows[0]) < 1_000.0, "a bare connection has next to nothing: {}", rows[0]);
    assert!(slope(&rows[1]) > 4_000.0, "a thread has a page of stack at least: {}", rows[1]);
}

#[test]
fn what_does_not_fit_is_said_and_cut() {
    let folder = Folder::new();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\"", PROGRAM]).stdin(Stdio::null());
    command.args(["--servers", "raw", "-c", "160", "--idle", "500", "--seconds", "0.2"]);
    let (output, rows) = run(&mut command, &folder);
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("160 connections and 500 idle ones do not fit"), "{said}");
    assert!(said.contains("may open 200 files"), "{said}");
    check_row(&rows[0], "raw");
    assert_eq!(rows[0]["workload"], "160x1+8", "32 of 200 are kept in reserve");
}

#[test]
fn a_window_that_is_too_small_is_said() {
    let folder = Folder::new();
    let flags = ["--servers", "raw", "-c", "1", "-P", "1500", "--seconds", "0.2"];
    let (output, rows) = run(&mut bench(&flags), &folder);
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("the window is 1024: 1024 calls in flight on a connection, not 1500"));
    assert_eq!((&rows[0]["in_flight"], &rows[0]["window"]), (&1024.into(), &1024.into()));
}

#[test]
fn a_peer_that_is_not_installed_is_said_and_left_out() {
    let folder = Folder::new();
    let flags = ["--servers", "raw,redis,go", "-c", "2", "--seconds", "0.1"];
    let (output, rows) = run(bench(&flags).env("PATH", &folder.0), &folder);
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("redis: left out: there is no `redis-server`"), "{said}");
    assert!(said.contains("go: left out: there is no `go`"), "{said}");
    assert_eq!(rows.len(), 1);
    check_row(&rows[0], "raw");
}

#[test]
fn a_part_ends_with_its_parent() {
    let options = r#"{"kind":"raw","core":null,"spin_us":0,"connections":1}"#;
    let mut server = Command::new(PROGRAM)
        .args(["serve", options])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut lines = BufReader::new(server.stdout.take().expect("a pipe")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains("listening"), "{first}");
    drop(server.stdin.take());
    // Its output ends when the process does; the clock only keeps the test from waiting for ever.
    let began = Instant::now();
    assert!(lines.next().is_none());
    assert!(server.wait().expect("a child").success());
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_server_that_is_not_one_is_an_error() {
    // A listener that never answers: every handshake fails, and the load says so.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let clients = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().expect("the load connects");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it listens");
        // Dropped with the test's end: the load has given up by then.
        stream
    });
    let options = format!(
        r#"{{"kind":"bare","core":null,"port":{port},"connections":1,"idle":0,"first":1,
            "in_flight":1,"window":1,"payload":16,"seconds":0.1,"rate":"max","spin_us":0,
            "hgrm":null}}"#
    );
    let mut load = Command::new(PROGRAM)
        .args(["load", &options])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the load starts");
    let mut input = load.stdin.take().expect("a pipe");
    let mut report = None;
    for line in BufReader::new(load.stdout.take().expect("a pipe")).lines() {
        let line: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        if line.get("ready").is_some() || line == "end" {
            std::io::Write::write_all(&mut input, b"\n").expect("the load listens");
        }
        report = line.get("report").cloned().or(report);
    }
    let report = report.expect("a report in any case");
    assert_eq!((&report["errors"], &report["requests"]), (&1.into(), &0.into()));
    let why = report["first_error"].as_str().expect("a reason");
    assert!(why.contains("another protocol"), "{why}");
    load.wait().expect("a child");
    drop(clients.join().expect("it was asked once"));
}
