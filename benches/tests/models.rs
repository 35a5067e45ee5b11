//! The ways of serving that are compared: each does what the others do, in its own way.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use onceloop_protocol::frame::{HEADER_BYTES, Header, Kind, MAGIC, MethodId, VERSION};
use onceloop_protocol::handshake::{Hello, Order};
use serde_json::{Value, json};
use support::{Folder, PROGRAM, bench};

/// The servers with a flow of control for each connection.
const MODELS: [&str; 3] = ["threads", "tokio", "fibers"];

/// A server's process, which ends with this.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(kind: &str) -> Server {
        Server::with(&json!({ "kind": kind, "core": null, "spin_us": 0, "connections": 1000 }))
    }

    fn with(options: &Value) -> Server {
        let mut process = Command::new(PROGRAM)
            .args(["serve", &options.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let line = lines.next().expect("a line").expect("text");
        let line: Value = serde_json::from_str(&line).expect("JSON");
        let port = line["listening"]["port"].as_u64().expect("where it listens");
        Server { process, port: u16::try_from(port).expect("a port") }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).expect("it listens")
    }

    /// Returns a connection that has shaken hands.
    fn greet(&self) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(&hello(Order::Unordered)).expect("it reads");
        let mut magic = [0; MAGIC.len()];
        stream.read_exact(&mut magic).expect("its magic");
        assert_eq!(magic, MAGIC);
        assert_eq!(next_frame(&mut stream).kind, Kind::Welcome);
        stream
    }

    fn maps(&self) -> usize {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.process.id()));
        maps.expect("it lives").lines().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let ended = self.process.wait().expect("a child");
        if !std::thread::panicking() {
            assert!(ended.success(), "{ended}");
        }
    }
}

fn hello(order: Order) -> Vec<u8> {
    let hello = Hello { version: VERSION, features: 0, window: 8, order, token: None };
    let mut bytes = MAGIC.to_vec();
    let body = rmp_serde::to_vec_named(&hello).expect("plain data is encoded");
    Header::new(Kind::Hello, 0).append(&body, &mut bytes);
    bytes
}

fn next_frame(stream: &mut TcpStream) -> Header {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).expect("a frame");
    let header_and_body = Header::read(&header).expect("a header");
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let mut body = vec![0; length + 4 - HEADER_BYTES];
    stream.read_exact(&mut body).expect("the frame's body");
    header_and_body
}

/// Returns what the server sends before it closes.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("it closes");
    rest
}

/// Runs all servers that have models of concurrency and returns their rows.
fn rows(flags: &[&str], folder: &Folder) -> Vec<Value> {
    let json = folder.0.join("rows.json");
    let output = bench(flags).arg("--json").arg(&json).output().expect("the bench starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = support::json(&json).as_array().expect("one array").clone();
    for row in &rows {
        assert_eq!(row["errors"], 0, "{row}");
        assert!(row["requests"].as_u64() > Some(0), "{row}");
    }
    rows
}

#[test]
fn all_servers_answer_every_call() {
    let folder = Folder::new();
    let flags = ["--servers", "all", "-c", "50", "-P", "3", "--seconds", "0.3"];
    let rows = rows(&flags, &folder);
    let threads: Vec<_> =
        rows.iter().map(|row| (row["server"].as_str(), row["threads"].as_u64())).collect();
    let expected = [
        ("raw", 1),
        ("event", 1),
        ("threads", 51),
        ("tokio", 1),
        // One that serves, one for timers, and the one that started them.
        ("fibers", 3),
    ];
    assert_eq!(threads, expected.map(|(server, threads)| (Some(server), Some(threads))));
}

#[test]
fn whole_windows_are_answered() {
    let folder = Folder::new();
    let flags = ["--servers", "all", "-c", "2", "-P", "1024", "--seconds", "0.3"];
    assert_eq!(rows(&flags, &folder).len(), 5);
}

#[test]
fn large_payloads_come_back() {
    let folder = Folder::new();
    let servers = MODELS.join(",");
    let flags = ["--servers", &servers, "-c", "3", "-P", "4", "-d", "300000", "--seconds", "0.3"];
    assert_eq!(rows(&flags, &folder).len(), MODELS.len());
}

#[test]
fn slow_handlers_wait_in_each_way() {
    const SLOW_US: f64 = 20e3;
    let folder = Folder::new();
    let servers = MODELS.join(",");
    let mut flags = vec!["--servers", &servers, "-c", "10", "-P", "4", "--window", "64"];
    flags.extend(["--seconds", "0.5", "--slow-percent", "5", "--slow-us", "20000"]);
    let waiting = rows(&flags, &folder);
    flags.push("--offload=7");
    let offloading = rows(&flags, &folder);
    for row in waiting.iter().chain(&offloading) {
        assert!(row["slow"]["requests"].as_u64() > Some(0), "{row}");
        assert!(row["slow"]["latency_us"]["p50"].as_f64() >= Some(SLOW_US), "{row}");
    }
    let threads = |rows: &[Value]| -> Vec<_> {
        rows.iter().map(|row| row["threads"].as_u64().expect("a number")).collect()
    };
    assert_eq!(threads(&waiting), [11, 1, 3], "a fiber that sleeps has no thread");
    // tokio starts the threads of its pool as it needs them.
    let [11, 2..=8, 3] = threads(&offloading)[..] else { panic!("{offloading:?}") };
    let [_, tokio, _] = &waiting[..] else { panic!("{waiting:?}") };
    // Where the one thread of all tasks sleeps, nobody is answered.
    assert!(tokio["latency_us"]["max"].as_f64() >= Some(SLOW_US), "{tokio}");
}

#[test]
fn strangers_are_refused() {
    for model in MODELS {
        let server = Server::start(model);
        let kept = server.greet();

        let mut stranger = server.connect();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
        assert_eq!(rest(stranger), b"", "{model}");

        let mut in_order = server.connect();
        in_order.write_all(&hello(Order::InOrder)).expect("it reads");
        let said = rest(in_order);
        assert_eq!(said[..MAGIC.len()], MAGIC, "{model}");
        let error = Header::read(&said[MAGIC.len()..]).expect("a header");
        assert_eq!((error.kind, error.seq), (Kind::Error, 0), "{model}");

        let mut half = server.connect();
        half.write_all(&hello(Order::Unordered)[..20]).expect("it reads");
        drop(half);

        let mut resuming = server.greet();
        let mut frames = Vec::new();
        Header::new(Kind::Ping, 7).append(&[], &mut frames);
        Header::new(Kind::Resume, 0).append(&[], &mut frames);
        resuming.write_all(&frames).expect("it reads");
        assert_eq!(next_frame(&mut resuming).kind, Kind::Pong);
        assert_eq!(next_frame(&mut resuming).kind, Kind::Error);
        assert_eq!(rest(resuming), b"", "{model}");

        // None of this is any other connection's affair.
        let mut kept = kept;
        let mut ping = Vec::new();
        Header::new(Kind::Ping, 8).append(&[], &mut ping);
        kept.write_all(&ping).expect("it reads");
        let pong = next_frame(&mut kept);
        assert_eq!((pong.kind, pong.seq), (Kind::Pong, 8), "{model}");
    }
}

#[test]
fn bytes_may_come_one_by_one() {
    for model in MODELS {
        let server = Server::start(model);
        let mut stream = server.connect();
        stream.set_nodelay(true).expect("a socket");
        let mut bytes = hello(Order::Unordered);
        for seq in [7, 8] {
            Header::new(Kind::Ping, seq).append(&[], &mut bytes);
        }
        Header::new(Kind::Bye, 0).append(&[], &mut bytes);
        for byte in bytes.chunks(1) {
            stream.write_all(byte).expect("it reads");
        }
        let said = rest(stream);
        assert_eq!(said[..MAGIC.len()], MAGIC, "{model}");
        let pongs = &said[said.len() - 2 * HEADER_BYTES..];
        let seqs = pongs.chunks(HEADER_BYTES).map(|pong| Header::read(pong).expect("PONG").seq);
        assert_eq!(seqs.collect::<Vec<_>>(), [7, 8], "{model}");
    }
}

/// Returns the cores that a task of `/proc` may run on, in the kernel's words.
fn cores(task: &str) -> String {
    let status = fs::read_to_string(format!("{task}/status")).expect("it lives");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.expect("Linux has it").trim().to_owned()
}

#[test]
fn every_thread_stays_on_the_servers_core() {
    let own = cores("/proc/self");
    let core = own.split([',', '-']).next().expect("a core");
    let number: usize = core.parse().expect("a number");
    let mut slow = Header::new(Kind::Request, 1);
    slow.method = MethodId::of("bench.slow");
    let payload = bytes::Bytes::from_static(b"payload");
    let mut call = Vec::new();
    slow.append(&rmp_serde::to_vec(&(1_u32, payload)).expect("plain data"), &mut call);
    // The threads of a model, without the one that answers the parent.
    for (model, threads) in [("threads", 4), ("tokio", 2), ("fibers", 3)] {
        let server = Server::with(&json!({
            "kind": model, "core": number, "spin_us": 0, "connections": 10, "offload_threads": 7
        }));
        let mut connections = [server.greet(), server.greet(), server.greet()];
        // tokio has a thread for this one, fibers have their timers'.
        connections[0].write_all(&call).expect("it reads");
        assert_eq!(next_frame(&mut connections[0]).kind, Kind::Reply, "{model}");
        let id = server.process.id();
        let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("it lives");
        let tasks = tasks.map(|task| task.expect("a task").path().display().to_string());
        let serving: Vec<_> =
            tasks.filter(|task| !task.ends_with(&format!("/task/{id}"))).collect();
        assert_eq!(serving.len(), threads, "{model}");
        for task in serving {
            assert_eq!(cores(&task), core, "{model}");
        }
    }
}

/// What bounds how many connections there can be.
#[test]
fn a_connection_takes_as_many_memory_maps_as_is_said() {
    const COUNT: usize = 64;
    for (model, maps_each) in [("threads", 4), ("tokio", 0), ("fibers", 2)] {
        let server = Server::start(model);
        // The first fibers come from a pool.
        let mut connections: Vec<_> = (0..100).map(|_| server.greet()).collect();
        let before = server.maps();
        connections.extend((0..COUNT).map(|_| server.greet()));
        let during = server.maps();
        // The allocator's arenas come and go beside these.
        assert!(during <= before + maps_each * COUNT + 40, "{model}: {before} {during}");
    }
}
