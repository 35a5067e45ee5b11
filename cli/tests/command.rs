//! The command as a person meets it: real processes, their output and their exit statuses.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use onceloop::{Builder, Reactor, Responder};

/// No test waits longer than this for a process to end.
const PATIENCE: Duration = Duration::from_secs(20);

const OK: i32 = 0;
const FAILED: i32 = 1;
const DID_NOT_RUN: i32 = 2;
const MAY_HAVE_RUN: i32 = 3;

fn onceloop(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onceloop"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// A server in a process of its own.
struct Served {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

impl Served {
    fn start(arguments: &[&str]) -> Served {
        let mut child = onceloop(&[&["serve"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().expect("piped");
        Served { child, stdout, stderr }
    }

    /// Returns the address that the next line tells of.
    fn address(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        let address = line.trim().strip_prefix("listening on ");
        address.unwrap_or_else(|| panic!("not where it listens: {line:?}")).to_owned()
    }

    fn signal(&self, name: &str) {
        // The shell has it built in, wherever there is a shell.
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Waits until the process has ended, and returns its status and what it complained of.
    fn end(mut self) -> (Option<i32>, String) {
        let give_up_at = Instant::now() + PATIENCE;
        // Its standard output ends with it.
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        let mut complaints = String::new();
        self.stderr.read_to_string(&mut complaints).expect("text");
        let status = self.child.wait().expect("it has ended");
        assert!(Instant::now() < give_up_at, "it took its time: {complaints}");
        (status.code(), complaints)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str]) -> Ended {
    let Output { status, stdout, stderr } = onceloop(arguments).output().expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// Calls, and returns the reply as it was printed.
#[track_caller]
fn call(address: &str, arguments: &[&str]) -> String {
    let ended = run(&[&["call", address], arguments].concat());
    assert_eq!((ended.status, &*ended.stderr), (Some(OK), ""), "{arguments:?}");
    ended.stdout.trim_end().to_owned()
}

/// Calls, and returns the exit status and the complaint.
#[track_caller]
fn fail(address: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let ended = run(&[&["call", address], arguments].concat());
    assert_eq!(ended.stdout, "", "{arguments:?}");
    assert!(ended.stderr.starts_with("onceloop: "), "{}", ended.stderr);
    (ended.status, ended.stderr)
}

fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("onceloop-command-{}-{name}.sock", std::process::id()))
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

#[test]
fn values_go_in_as_json_and_come_out_as_json() {
    let mut server = Served::start(&["--listen", "127.0.0.1:0"]);
    let address = server.address();
    assert!(!address.ends_with(":0"), "the port that the system chose: {address}");
    assert_eq!(call(&address, &["calc.add", "3", "4"]), "7");
    assert_eq!(call(&address, &["calc.add", "-3", "-4"]), "-7");
    let counts = call(&address, &["word_count.compute", "a rose is a rose"]);
    let counts: serde_json::Value = serde_json::from_str(&counts).expect("JSON");
    assert_eq!(counts, serde_json::json!({"a": 2, "is": 1, "rose": 2}));
    for value in [
        "null",
        "true",
        "0.5",
        "18446744073709551615",
        "-9223372036854775808",
        r#""ein Wörtchen""#,
        r#"[1,[2,{"three":[]}]]"#,
        r#"{"$bin":"00ff"}"#,
        r#"{"z":1,"a":2}"#,
    ] {
        let reply = call(&address, &["echo.echo", value]);
        let compact: serde_json::Value = serde_json::from_str(&reply).expect("JSON");
        assert_eq!(compact.to_string(), value);
    }
    assert_eq!(call(&address, &["echo.echo", "a bare word"]), r#""a bare word""#);
    assert_eq!(call(&address, &["--at-most-once", "calc.add", "1", "1"]), "2");
    let methods = call(&address, &["onceloop.methods"]);
    assert!(methods.contains("calc.divide") && methods.contains("onceloop.stats"), "{methods}");
}

#[test]
fn the_exit_status_tells_whether_the_call_ran() {
    let mut server = Served::start(&["--listen", "127.0.0.1:0"]);
    let address = server.address();
    let (status, complaint) = fail(&address, &["calc.divide", "1", "0"]);
    assert_eq!(status, Some(FAILED));
    assert!(complaint.contains("DivisionByZero") || complaint.contains("division by zero"));
    let (status, complaint) = fail(&address, &["calc.multiply", "1", "0"]);
    assert_eq!(status, Some(DID_NOT_RUN));
    assert!(complaint.contains("NO_METHOD") && complaint.contains("onceloop.methods"));
    let (status, complaint) = fail(&address, &["calc.add", "one", "two"]);
    assert_eq!(status, Some(DID_NOT_RUN), "{complaint}");
    assert!(complaint.contains("BAD_ARGUMENTS") && complaint.contains("calc.add"), "{complaint}");
    let (status, complaint) = fail(&address, &["calc.add", "1"]);
    assert_eq!(status, Some(DID_NOT_RUN), "{complaint}");
    // What looks like JSON and is none is a word, and no number.
    let (status, complaint) = fail(&address, &["calc.add", "[1", "2"]);
    assert_eq!(status, Some(DID_NOT_RUN), "{complaint}");

    // Somebody takes the connection and never answers: nothing has left but the handshake.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let (status, complaint) = fail(&address, &["--timeout", "0.2", "calc.add", "1", "2"]);
    assert_eq!(status, Some(DID_NOT_RUN), "{complaint}");
    assert!(complaint.contains("DEADLINE"), "{complaint}");
}

onceloop::service! {
    /// Takes calls and never answers them.
    pub(crate) mod hole {
        /// Is never answered.
        fn fall();
    }
}

/// The calls that were never answered.
#[derive(Default)]
struct Fallen(Vec<Responder<Fallen, hole::fall>>);

#[test]
fn a_call_that_left_and_was_not_answered_may_have_run() {
    let (tell, told) = mpsc::channel();
    let server = thread::spawn(move || {
        let mut reactor = Reactor::<Fallen>::new().expect("a reactor");
        let server = Builder::<Fallen>::new()
            .deferred(hole::fall, |(), responder, cx| cx.state.0.push(responder))
            .listen(reactor.registry(), "127.0.0.1:0")
            .expect("a server");
        let address = server.local_addresses(reactor.registry()).remove(0);
        tell.send((address, reactor.registry().remote())).expect("the test waits");
        reactor.run(&mut Fallen::default()).expect("a loop");
    });
    let (address, remote) = told.recv().expect("it listens");
    let (status, complaint) = fail(&address.to_string(), &["--timeout", "0.2", "hole.fall"]);
    assert_eq!(status, Some(MAY_HAVE_RUN), "{complaint}");
    assert!(complaint.contains("may or may not have run"), "{complaint}");
    remote.post(|cx| cx.registry.stop()).expect("it runs");
    server.join().expect("it does not panic");
}

#[test]
fn a_server_that_is_stopped_is_not_told_of_the_call() {
    let mut server = Served::start(&["--listen", "127.0.0.1:0"]);
    let address = server.address();
    server.signal("STOP");
    // Its kernel takes the connection; no WELCOME comes, so that no call leaves.
    let (status, complaint) = fail(&address, &["--timeout", "0.2", "calc.add", "1", "2"]);
    assert_eq!(status, Some(DID_NOT_RUN), "{complaint}");
    server.signal("CONT");
    assert_eq!(call(&address, &["calc.add", "1", "2"]), "3", "it goes on as if nothing had been");
}

#[test]
fn an_address_nobody_listens_at_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("one").port();
    let address = format!("127.0.0.1:{port}");
    let (status, complaint) = fail(&address, &["--timeout", "0.2", "calc.add", "1", "2"]);
    assert_eq!(status, Some(DID_NOT_RUN));
    assert!(complaint.contains("could not connect"), "{complaint}");
    let nowhere = unix(&socket_path("nowhere"));
    let (status, complaint) = fail(&nowhere, &["--timeout", "0.2", "calc.add", "1", "2"]);
    assert_eq!(status, Some(DID_NOT_RUN));
    assert!(complaint.contains("No such file"), "{complaint}");
    for wrong in ["", "localhost", "1.2.3.4", "unix:", "host:port"] {
        let (status, complaint) = fail(wrong, &["calc.add", "1", "2"]);
        assert_eq!(status, Some(DID_NOT_RUN), "{wrong:?}: {complaint}");
        assert!(complaint.contains("host:port") && complaint.contains("unix:/path"), "{complaint}");
    }
    for wrong in ["-1", "NaN", "soon", "inf"] {
        let ended = run(&["call", "127.0.0.1:1", "calc.add", &format!("--timeout={wrong}")]);
        assert_eq!(ended.status, Some(DID_NOT_RUN), "{wrong}: {}", ended.stderr);
        assert!(ended.stderr.contains("timeout"), "{}", ended.stderr);
    }
    assert_eq!(run(&["call", &address]).status, Some(DID_NOT_RUN), "no method is named");
}

#[test]
fn a_server_listens_wherever_it_is_told_to_and_drains_at_a_signal() {
    let path = socket_path("drain");
    let place = unix(&path);
    let mut server = Served::start(&["--listen", &place, "--listen", "127.0.0.1:0"]);
    let addresses = [server.address(), server.address()];
    assert_eq!(addresses[0], place);
    for address in &addresses {
        assert_eq!(call(address, &["calc.add", "1", "2"]), "3");
    }
    let (status, complaint) = Served::start(&["--listen", &place]).end();
    assert_eq!(status, Some(FAILED));
    assert!(complaint.contains("another process listens"), "{complaint}");
    let (status, complaint) = Served::start(&["--listen", &addresses[1]]).end();
    assert_eq!(status, Some(FAILED));
    assert!(complaint.contains(&addresses[1]), "{complaint}");

    assert!(path.exists());
    server.signal("TERM");
    assert_eq!(server.end(), (Some(OK), String::new()));
    assert!(!path.exists(), "the socket file is removed");
}

#[test]
fn an_interrupt_ends_a_server_whose_clients_stay() {
    let mut server = Served::start(&["--listen", "127.0.0.1:0"]);
    let address = server.address();
    // One that says nothing, as a port scanner does.
    let _stranger = std::net::TcpStream::connect(&address).expect("it listens");
    assert_eq!(call(&address, &["calc.add", "1", "2"]), "3");
    let begin = Instant::now();
    server.signal("INT");
    assert_eq!(server.end().0, Some(OK));
    assert!(begin.elapsed() < Duration::from_secs(3), "it did not wait for the stranger");
}

#[test]
fn a_killed_server_leaves_a_socket_file_that_the_next_one_replaces() {
    let path = socket_path("killed");
    let place = unix(&path);
    let mut first = Served::start(&["--listen", &place]);
    first.address();
    first.signal("KILL");
    drop(first);
    assert!(path.exists());
    let mut second = Served::start(&["--listen", &place]);
    assert_eq!(second.address(), place);
    assert_eq!(call(&place, &["calc.add", "1", "2"]), "3");
    second.signal("TERM");
    assert_eq!(second.end().0, Some(OK));
    assert!(!path.exists());
}

#[test]
fn wrong_usage_is_said_to_be() {
    let ended = run(&[]);
    assert_ne!(ended.status, Some(OK));
    assert!(ended.stderr.contains("Usage"), "{}", ended.stderr);
    let (status, complaint) = Served::start(&["--listen", "nowhere"]).end();
    assert_eq!(status, Some(FAILED));
    assert!(complaint.contains("`nowhere` is no address"), "{complaint}");
    assert_eq!(run(&["--version"]).status, Some(OK));
    assert!(run(&["--help"]).stdout.contains("serve"));
}
