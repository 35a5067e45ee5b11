//! Who is not a client: a refusal, one line in the log, and nothing of what was sent in it.
#![allow(missing_docs)]

mod common;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use common::{App, Wire, World, first_frame, frame, request};
use log::{Level, LevelFilter, Log, Metadata, Record};
use onceloop_protocol::codec;
use onceloop_protocol::frame::{Kind, MAGIC};
use onceloop_protocol::handshake::{Hello, Order};
use onceloop_server::Responder;

thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the lines of each thread: a test turns its loop on its own.
struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.args().to_string());
        LINES.with_borrow_mut(|lines| lines.push(line));
    }

    fn flush(&self) {}
}

fn take_lines() -> Vec<(Level, String)> {
    LINES.take()
}

fn listen_to_the_log() {
    let _ = log::set_logger(&Lines); // another test may have done so
    log::set_max_level(LevelFilter::Trace);
    take_lines();
}

/// A payload that belongs in no log.
const PAYLOAD: &str = "hunter2";

/// Sends these bytes to a server; returns what it answered before it closed, and the warnings.
fn visit(bytes: &[u8]) -> (Vec<u8>, Vec<String>) {
    listen_to_the_log();
    let mut world = World::new();
    let mut wire = Wire::open(&mut world);
    wire.stream.write_all(bytes).expect("the system takes it");
    world.settle();
    let mut answer = Vec::new();
    wire.stream.shutdown(Shutdown::Write).expect("a FIN");
    world.settle();
    wire.stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    wire.stream.read_to_end(&mut answer).expect("the server closes in an orderly way");
    world.until(|world| world.stats().connections == 0);
    let lines = take_lines();
    for (level, line) in &lines {
        assert!(!line.contains(PAYLOAD), "{level}: {line}");
    }
    let warnings = lines.into_iter().filter(|(level, _)| *level <= Level::Warn);
    (answer, warnings.map(|(_, line)| line).collect())
}

#[test]
fn strangers_get_a_sentence_and_one_line_in_the_log() {
    let http = format!("GET /{PAYLOAD} HTTP/1.1\r\nhost: {PAYLOAD}\r\n\r\n");
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let tls = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", PAYLOAD.as_bytes()].concat();
    let rpc = codec::encode(&(0u8, 1u8, PAYLOAD, (1u8, 2u8))).expect("it encodes");
    let redis = format!("*1\r\n$7\r\n{PAYLOAD}\r\n").into_bytes();
    let almost = b"oncelooq and more".to_vec();
    let cases = [
        (http.into_bytes(), "HTTP"),
        (http2, "HTTP"),
        (tls, "TLS"),
        (rpc, "MessagePack-RPC"),
        (redis, "0x2a"),
        (almost, "0x6f"),
        (vec![0; 4_096], "0x00"),
        (vec![0xff; 100_000], "0xff"),
    ];
    for (bytes, named) in cases {
        let (answer, warnings) = visit(&bytes);
        let answer = String::from_utf8(answer).expect("a sentence");
        assert!(answer.contains("Onceloop"), "{named}: {answer:?}");
        assert_eq!(answer.starts_with("HTTP/1.0 400"), named == "HTTP");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(named) && warnings[0].contains("127.0.0.1"), "{warnings:?}");
    }
}

#[test]
fn after_the_magic_the_answer_is_ours() {
    let unknown_kind = [&MAGIC[..], &[0, 0, 0, 12, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let endless = [&MAGIC[..], &[0xff, 0xff, 0xff, 0xff, 5, 0, 0, 0], &[0; 40]].concat();
    let too_short = [&MAGIC[..], &[0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let no_hello = [&MAGIC[..], &request(1, 0, "bank.debit", &(PAYLOAD,))].concat();
    let large = [&MAGIC[..], &frame(Kind::Hello, 0, &[0xc0; 20_000])].concat();
    let malformed = [&MAGIC[..], &frame(Kind::Hello, 0, &[0xc1])].concat();
    let ping = [&MAGIC[..], &frame(Kind::Ping, 0, &[])].concat();
    let no_map = first_frame(Kind::Hello, PAYLOAD);
    let odd_version = first_frame(Kind::Hello, &Odd { version: PAYLOAD });
    let resume = first_frame(Kind::Resume, &Odd { version: PAYLOAD });
    let visits = [
        unknown_kind,
        endless,
        too_short,
        no_hello,
        large,
        malformed,
        ping,
        no_map,
        odd_version,
        resume,
    ];
    for (i, bytes) in visits.into_iter().enumerate() {
        let (answer, warnings) = visit(&bytes);
        assert!(answer.starts_with(&MAGIC), "{i}: {answer:?}");
        assert_eq!(answer[MAGIC.len() + 4], Kind::Error as u8, "{i}");
        assert_eq!(warnings.len(), 1, "{i}: {warnings:?}");
    }
}

#[derive(serde::Serialize)]
struct Odd {
    version: &'static str,
}

#[test]
fn nothing_of_a_call_and_no_whole_session_id_is_logged() {
    listen_to_the_log();
    let mut world = World::new();
    let token = Some(bytes::Bytes::from_static(PAYLOAD.as_bytes()));
    let hello = Hello { token, order: Order::InOrder, ..common::plain_hello() };
    let (mut wire, welcome) = Wire::hello_of(&mut world, &hello);
    wire.call(&mut world, 1, 0, "bank.debit", &(PAYLOAD,));
    let mut notification = request(0, 0, "bank.debit", &(PAYLOAD,));
    notification[4] = Kind::Notify as u8;
    wire.send(&mut world, &notification);
    wire.call(&mut world, 1, 0, "bank.later", &(3u64,));
    let mut again = Wire::resume(&mut world, &welcome, 1, 0);
    assert_eq!(again.all(&mut world).len(), 1);
    again.send(&mut world, &frame(Kind::Bye, 1, &[]));
    drop::<Vec<(u64, Responder<App, common::bank::later>)>>(std::mem::take(&mut world.app.waiting));
    world.settle();
    let secret = welcome.sid.secret;
    let whole = [format!("{secret:x}"), format!("{secret}"), format!("{secret:?}")];
    let lines = take_lines();
    assert!(lines.len() > 5, "the log was listened to: {lines:?}");
    for (level, line) in lines {
        assert!(!line.contains(PAYLOAD), "{level}: {line}");
        assert!(!whole.iter().any(|whole| line.contains(whole)), "{level}: {line}");
    }
}
