use super::*;
use crate::message::{Answers, LargeRow, SlowRow};
use crate::options::{LargeCalls, Rate, SlowCalls};
use crate::report::machine::Machine;
use crate::report::plan::{Scope, plan};
use crate::report::store::{Entry, Made};

/// How many times as long as the bare server each takes.
fn cost(server: ServerKind) -> f64 {
    match server {
        ServerKind::Raw => 1.0,
        ServerKind::Event => 1.25,
        ServerKind::Redis => 2.0,
        _ => 25.0,
    }
}

/// A run in which the bare server takes `us` for a call.
fn row(asked: &Trial, run: u32, us: f64) -> Row {
    let options = asked.options(&[]).expect("flags");
    let us = us * cost(asked.server);
    let latency = Latency { p50: us * 9.9, p99: us * 200.0, p999: us * 200e3, max: us * 1e6 };
    let answers = Answers { requests: 5, latency_us: latency };
    let slow = |calls: SlowCalls| SlowRow { calls, offload_threads: None, answers };
    let large =
        |calls: LargeCalls| LargeRow { calls, answers, requests_per_second: 1e4 / us / 3.0 };
    Row {
        server: asked.server,
        workload: String::new(),
        connections: options.connections.min(15_000),
        in_flight: options.in_flight,
        payload: options.payload,
        requests: 500,
        seconds: 1.0,
        requests_per_second: 1e6 / us,
        server_cpu_us_per_request: us,
        client_cpu_us_per_request: if options.load == LoadKind::Client { 0.05 } else { us },
        latency_us: latency,
        slow: options.mix.slow().map(slow),
        large: options.mix.large().map(large),
        send_lag_us: None,
        warnings: Vec::new(),
        rss_bytes_per_connection: Some(12_739.6),
        context_switches: 7,
        threads: 1,
        connect_seconds: 0.5,
        errors: u64::from(run == 2),
        load: options.load,
        rate: Rate::Max,
        spin_us: options.spin_us,
        window: 1,
        run,
    }
}

/// A report of these sections, of two runs: in the second the machine is slower, for all servers.
fn stored(sections: &[Section]) -> Stored {
    use ServerKind::{Event, Go, Raw, Redis};
    let scope = Scope {
        // In the document, Redis stands before Go.
        servers: vec![Raw, Event, Go, Redis],
        connections_max: None,
        most: 20_000,
    };
    let unknown = || "unknown".to_owned();
    let machine = Machine {
        cpu: unknown(),
        cores: 2,
        kernel: unknown(),
        rustc: unknown(),
        commit: unknown(),
        date: unknown(),
    };
    let mut stored = Stored::default();
    for part in plan(sections, &scope) {
        for asked in part.groups.iter().flat_map(|group| &group.trials) {
            for (run, us) in [(1, 4.0), (2, 6.0)] {
                let row = row(asked, run, us);
                stored.rows.push(Entry {
                    sections: vec![part.section],
                    asked: asked.clone(),
                    run,
                    failure: None,
                    cut: None,
                    kernel_stack_bytes_per_connection: None,
                    hgrm: None,
                    row: Some(row),
                });
            }
        }
        stored.sections.push(Made {
            part,
            machine: machine.clone(),
            servers: "raw,event,go,redis".to_owned(),
            runs: 2,
            seconds: 1.0,
            left_out: Vec::new(),
            is_complete: true,
        });
    }
    stored
}

/// Holds the beginning of the text of these sections against what it should be.
fn begins(sections: &[Section], expected: &str) {
    let text = text(&stored(sections));
    let count = expected.lines().count();
    assert_eq!(text.lines().take(count).collect::<Vec<_>>().join("\n"), expected, "{text}");
}

fn contains(section: Section, line: &str) {
    let text = text(&stored(&[section]));
    assert!(text.lines().any(|other| other == line), "no line {line}\nin\n{text}");
}

#[test]
fn workloads_are_a_row_for_each_server_and_a_column_for_each() {
    begins(
        &[Section::Workloads],
        "## C10k\n\n\
         | server | requests/s | × raw | server µs/request | × raw | p50 / p99 / p99.9 | bytes a connection | errors |\n\
         |---|---|---|---|---|---|---|---|\n\
         | raw | 208 333 | 1.00 | 5.00 | 1.00 | 49.5 µs / 1.0 ms / 1.0 s | 12 740 | 1 |\n\
         | **event** | 166 667 | 0.80 | 6.25 | **1.25** | 61.9 µs / 1.2 ms / 1.2 s | 12 740 | 1 |\n\
         | go | 8 333 | 0.04 | 125.00 | 25.00 | 1.2 ms / 25.0 ms / 25.0 s | 12 740 | 1 |\n\
         | redis | 104 167 | 0.50 | 10.00 | 2.00 | 99.0 µs / 2.0 ms / 2.0 s | 12 740 | 1 |\n\
         \n\
         ## Shapes\n\n\
         | server CPU, µs/request (× raw) | raw | event | redis | go |\n\
         |---|---|---|---|---|\n\
         | W1: `-c 1 -P 1` | 5.00 | 6.25 (**1.25**) | 10.0 (2.00) | 125 (25) |\n\
         | W1, spinning: `-c 1 -P 1 --spin-us 100` | 5.00 | 6.25 (**1.25**) | – | – |",
    );
    contains(
        Section::Workloads,
        "| W2b | 208 k, 49.5 µs | 167 k, 61.9 µs | 104 k, 99.0 µs | 8.3 k, 1.2 ms |",
    );
    contains(Section::Workloads, "| W1, spinning | 208 k, 49.5 µs | 167 k, 61.9 µs | – | – |");
}

#[test]
fn the_client_stands_beside_the_bare_load_on_the_same_server() {
    begins(
        &[Section::Client],
        "## The client\n\n\
         | shape | server | requests/s | client µs/call | bare load's µs/call: ready-made frames |\n\
         |---|---|---|---|---|\n\
         | W4 | raw | 208 333 | 0.050 | 5.00 |\n\
         | W4 | event | 166 667 | 0.050 | 6.25 |",
    );
}

#[test]
fn fewer_connections_than_asked_for_are_told() {
    begins(
        &[Section::Connections],
        "## From one connection to the most that the machine holds\n\n\
         | connections, one in flight each | raw | event |\n\
         |---|---|---|\n\
         | 1 × 1 | 208 k | 167 k (1.25) |\n\
         | 100 × 1 | 208 k | 167 k (1.25) |\n\
         | 1 000 × 1 | 208 k | 167 k (1.25) |\n\
         | 10 000 × 1 | 208 k | 167 k (1.25) |\n\
         | 20 000 × 1 | 208 k (of 15 000) | 167 k (1.25) (of 15 000) |\n\
         \n\
         | connections, 10 000 in flight in all | raw | event |\n\
         |---|---|---|\n\
         | 1 × 1 024 | 208 k | 167 k (1.25) |",
    );
}

#[test]
fn payloads_count_both_ways() {
    begins(
        &[Section::Payloads],
        "## Payloads\n\n\
         | bytes each way | raw | event |\n\
         |---|---|---|\n\
         | 16 | 208.3 k, 7 MB/s | 166.7 k, 5 MB/s (1.25) |",
    );
    contains(Section::Payloads, "| 4 096 | 208.3 k, 1 707 MB/s | 166.7 k, 1 365 MB/s (1.25) |");
}

#[test]
fn the_highest_rates_stand_below_the_fixed_ones() {
    let mut stored = stored(&[Section::OpenLoop, Section::Slo]);
    let answer = |server, rate| slo::Answer {
        server,
        question: slo::Question { p999_us: 1, connections: 1, in_flight: 1, seconds: 1.0 },
        ceiling: 1e6,
        rate,
        tried: Vec::new(),
        failure: None,
    };
    stored.slo = vec![answer(ServerKind::Raw, Some(99_859.0)), answer(ServerKind::Event, None)];
    let row = "208 k/s: 49.5 µs / 1.0 ms / 1.0 s | 167 k/s: 61.9 µs / 1.2 ms / 1.2 s |\n";
    let shapes = ["W4", "W5b"]
        .into_iter()
        .flat_map(|name| [50, 80, 95].map(|percent| format!("| {name}, {percent} % | {row}")));
    let expected = format!(
        "## At a fixed rate\n\n\
         | shape, share of its own rate | raw | event |\n\
         |---|---|---|\n\
         {}\n\
         | raw | event |\n\
         |---|---|\n\
         | 99 859 calls/s | – |\n",
        shapes.collect::<String>()
    );
    assert_eq!(text(&stored), expected);
}

#[test]
fn slow_and_large_calls_have_columns_of_their_own() {
    begins(
        &[Section::Mix],
        "## Slow handlers among fast ones\n\n\
         | load | server | calls/s | fast p50 / p99 / p99.9 | slow p50 |\n\
         |---|---|---|---|---|\n\
         | `-c 100 -P 1` | event | 166 667 | 61.9 µs / 1.2 ms / 1.2 s | 61.9 µs |\n\
         | `-c 100 -P 1` | event, offloaded | 166 667 | 61.9 µs / 1.2 ms / 1.2 s | 61.9 µs |\n\
         | `-c 100 -P 1 --rate 10000` | event | 166 667 | 61.9 µs / 1.2 ms / 1.2 s | 61.9 µs |",
    );
    begins(
        &[Section::Large],
        "## Large messages beside small ones\n\n\
         | server | small calls/s | p50 / p99 / p99.9 of small calls | large calls/s |\n\
         |---|---|---|---|\n\
         | raw | 208 333 | 49.5 µs / 1.0 ms / 1.0 s | – |\n\
         | raw, beside large calls | 208 333 | 49.5 µs / 1.0 ms / 1.0 s | 694 |",
    );
}

#[test]
fn only_what_was_measured_has_a_heading() {
    assert_eq!(text(&stored(&[Section::Models, Section::Slo])), "");
    let mut failed = stored(&[Section::Payloads]);
    failed.rows.retain(|entry| entry.asked.server == ServerKind::Raw);
    let text = text(&failed);
    assert!(text.contains("| 16 | 208.3 k, 7 MB/s | – |\n"), "{text}");
    assert_eq!(text.matches("## ").count(), 1);
}
