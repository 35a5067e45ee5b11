//! Each peer as the bench starts it: a server and a load, each a process, told in JSON.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use onceloop_benches::harness::{self, LoadKind, LoadOptions, Rate, ServerKind, ServerOptions};
use serde::Serialize;
use serde_json::Value;

const CONNECTIONS: u32 = 20;
const IDLE: u32 = 3;

/// A process of the bench. Its input closes when it is dropped, which ends it.
struct Part {
    process: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Part {
    fn start(peer: ServerKind, role: &str, options: &impl Serialize) -> Part {
        let mut process = Command::new(env!("CARGO_BIN_EXE_onceloop-peers"))
            .args([&peer.to_string(), role, &serde_json::to_string(options).expect("plain data")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let input = process.stdin.take();
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        Part { process, input, lines }
    }

    fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?.expect("text");
        Some(serde_json::from_str(&line).expect("JSON"))
    }

    fn tell(&mut self) {
        self.input.as_mut().expect("it is open").write_all(b"\n").expect("it listens");
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.input.take());
        self.process.wait().expect("a child");
    }
}

fn options(in_flight: u32, payload: u64, rate: Rate) -> LoadOptions {
    LoadOptions {
        kind: LoadKind::Own,
        core: None,
        port: 0,
        connections: CONNECTIONS,
        idle: IDLE,
        first: 5,
        in_flight,
        window: in_flight,
        payload,
        slow: None,
        large: None,
        seconds: 0.3,
        rate,
        spin_us: 0,
        hgrm: None,
    }
}

/// Loads a peer's server; returns the report, and the server's samples when all connections stood
/// and at the end. `None` if the machine lacks the peer.
fn measure(peer: ServerKind, mut options: LoadOptions) -> Option<(Value, [Value; 2])> {
    if let Some(missing) = harness::missing(peer) {
        eprintln!("{peer} is not tested: {missing}");
        return None;
    }
    let connections = options.connections + options.idle;
    let serving =
        ServerOptions { kind: peer, core: None, spin_us: 0, connections, offload_threads: None };
    let mut server = Part::start(peer, "serve", &serving);
    let listening = server.next().expect("where it listens");
    options.port = serde_json::from_value(listening["listening"]["port"].clone()).expect("a port");
    let mut load = Part::start(peer, "load", &options);
    let mut samples = [Value::Null, Value::Null];
    let mut sample = |index: usize| {
        server.tell();
        samples[index] = server.next().expect("a sample")["sample"].clone();
    };
    while let Some(mut line) = load.next() {
        if line.get("ready").is_some() {
            sample(0);
            load.tell();
        } else if line == "end" {
            sample(1);
            load.tell();
        } else if line.get("report").is_some() {
            return Some((line["report"].take(), samples));
        }
    }
    panic!("{peer}: no report");
}

fn check(peer: ServerKind, in_flight: u32, payload: u64, rate: Rate) {
    let Some((report, samples)) = measure(peer, options(in_flight, payload, rate)) else { return };
    assert_eq!((&report["errors"], &report["first_error"]), (&0.into(), &Value::Null), "{peer}");
    let number = |of: &Value, key: &str| of[key].as_f64().unwrap_or_else(|| panic!("{key}: {of}"));
    assert!(number(&report, "requests") > 0.0, "{peer}: {report}");
    assert!(number(&report, "cpu_us") > 0.0, "{peer}: {report}");
    assert!(number(&report["latency_us"], "p50") > 0.0, "{peer}: {report}");
    let [before, after] = &samples;
    assert!(number(after, "cpu_us") > number(before, "cpu_us"), "{peer}: {samples:?}");
    assert!(number(after, "rss_anon_bytes") > 0.0, "{peer}: {samples:?}");
    assert!(number(after, "threads") >= 1.0, "{peer}: {samples:?}");
}

/// What every peer is to do.
fn check_all(peer: ServerKind) {
    check(peer, 2, 16, Rate::Max);
    check(peer, 2, 100_000, Rate::Max);
    if peer != ServerKind::Go {
        check(peer, 2, 16, Rate::PerSecond(1_000.0));
    }
}

#[test]
fn tarpc_answers_every_call() {
    check_all(ServerKind::Tarpc);
}

#[test]
fn tonic_answers_every_call() {
    check_all(ServerKind::Tonic);
}

#[test]
fn capnp_answers_every_call() {
    check_all(ServerKind::Capnp);
}

#[test]
fn redis_answers_every_call() {
    check_all(ServerKind::Redis);
}

#[test]
fn go_answers_every_call() {
    check_all(ServerKind::Go);
}

#[test]
fn a_server_of_tarpc_has_one_thread() {
    let (_, [sample, _]) = measure(ServerKind::Tarpc, options(2, 16, Rate::Max)).expect("built in");
    assert_eq!(sample["threads"], 1);
}

#[test]
fn a_server_that_does_not_answer_is_an_error() {
    // It takes connections and closes them: no client gets an answer.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for peer in [ServerKind::Tarpc, ServerKind::Redis] {
        let mut options = options(1, 16, Rate::Max);
        options.port = port;
        let mut load = Part::start(peer, "load", &options);
        let mut report = Value::Null;
        while let Some(mut line) = load.next() {
            if line.get("ready").is_some() || line == "end" {
                load.tell();
            }
            report = line.get_mut("report").map_or(Value::Null, Value::take);
        }
        assert_eq!(report["requests"], 0, "{peer}: {report}");
        assert!(report["errors"].as_u64() >= Some(u64::from(CONNECTIONS)), "{peer}: {report}");
        assert!(report["first_error"].is_string(), "{peer}: {report}");
    }
}
