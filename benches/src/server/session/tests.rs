//! A session, fed by hand.

use onceloop_protocol::frame::{Flags, LENGTH_BYTES};

use super::*;

fn session() -> Session {
    let shared = Shared::new(Limits::default()).expect("random bytes");
    Session::new(&Arc::new(shared))
}

fn echo(seq: u64, payload: usize) -> Vec<u8> {
    let mut frame = frames::request(payload, Flags::NONE);
    frames::stamp(&mut frame, seq, 0);
    frame
}

fn slow(seq: u64, time_us: u32) -> Vec<u8> {
    let mut frame = frames::slow_request(16, time_us);
    frames::stamp(&mut frame, seq, 0);
    frame
}

/// Reads `bytes` into the buffers and has the session take them.
fn feed(session: &mut Session, buffers: &mut Buffers, mut bytes: &[u8]) -> Next {
    loop {
        let room = buffers.input.room();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        buffers.input.fill(count);
        bytes = &bytes[count..];
        let next = session.take(buffers).expect("random bytes, for the greeting");
        if bytes.is_empty() || next != Next::Continue {
            return next;
        }
    }
}

/// Returns a session whose client has greeted.
fn greeted() -> (Session, Buffers) {
    let (mut session, mut buffers) = (session(), Buffers::new());
    assert_eq!(feed(&mut session, &mut buffers, &frames::hello(64)), Next::Continue);
    assert!(session.is_open());
    assert_eq!(buffers.output[..MAGIC.len()], MAGIC);
    assert_eq!(seen(&buffers.output[MAGIC.len()..]), [(Kind::Welcome, 0)]);
    buffers.output.clear();
    (session, buffers)
}

/// Returns the kinds and seqs of frames.
fn seen(mut bytes: &[u8]) -> Vec<(Kind, u64)> {
    let mut seen = Vec::new();
    while let Front::Frame(_, length) = frames::front(bytes) {
        let header = Header::read(&bytes[..length]).expect("a frame of ours");
        seen.push((header.kind, header.seq));
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty(), "whole frames alone");
    seen
}

#[test]
fn cuts_make_no_difference() {
    let calls = [
        echo(1, 16),
        echo(2, 500),
        frames::bare(Kind::Ping, 9),
        echo(1, 16),
        frames::bare(Kind::Ack, 2),
        echo(3, 0),
    ]
    .concat();
    let (mut session, mut whole) = greeted();
    assert_eq!(feed(&mut session, &mut whole, &calls), Next::Continue);
    // PING needs no table, so it is answered before the calls of its batch; so is a copy of a call
    // that has ended, but here the first one runs when the second comes: one answer for both.
    let reply = |seq| (Kind::Reply, seq);
    assert_eq!(seen(&whole.output), [(Kind::Pong, 9), reply(1), reply(2), reply(3)]);

    let (mut session, mut cut) = greeted();
    for byte in calls.chunks(1) {
        assert_eq!(feed(&mut session, &mut cut, byte), Next::Continue);
    }
    let one_by_one = [reply(1), reply(2), (Kind::Pong, 9), reply(1), reply(3)];
    assert_eq!(seen(&cut.output), one_by_one);
    assert_eq!(session.shared.table().counters().started, 3, "the copy did not run");
    assert!(whole.input.filled().is_empty() && cut.input.filled().is_empty());
}

#[test]
fn a_stranger_is_refused_without_a_word() {
    let no_hello = [&MAGIC[..], &frames::bare(Kind::Ping, 1)].concat();
    for stranger in [&b"GET / HTTP/1.1"[..], b"O", &no_hello, &[&MAGIC[..], &[0; 64]].concat()] {
        let (mut session, mut buffers) = (session(), Buffers::new());
        let next = feed(&mut session, &mut buffers, stranger);
        if MAGIC.starts_with(stranger) {
            assert_eq!(next, Next::Continue, "it may become a greeting");
        } else {
            assert_eq!(next, Next::Close, "{stranger:?}");
        }
        assert!(!session.is_open() && buffers.output.is_empty());
    }
}

#[test]
fn what_is_not_served_is_refused_in_words() {
    let (mut session, mut buffers) = (session(), Buffers::new());
    let mut hello = frames::hello(64);
    // The body's length is in the header: one byte less makes it no MessagePack.
    hello.pop();
    let length = u32::try_from(hello.len() - MAGIC.len() - LENGTH_BYTES).expect("a short frame");
    hello[MAGIC.len()..MAGIC.len() + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    assert_eq!(feed(&mut session, &mut buffers, &hello), Next::Close);
    assert_eq!(seen(&buffers.output[MAGIC.len()..]), [(Kind::Error, 0)]);

    let (mut session, mut buffers) = greeted();
    let mut unknown = echo(1, 16);
    unknown[24] ^= 1;
    let call_then_resume = [echo(2, 16), frames::bare(Kind::Resume, 0), echo(3, 16)].concat();
    assert_eq!(feed(&mut session, &mut buffers, &call_then_resume), Next::Close);
    assert_eq!(seen(&buffers.output), [(Kind::Error, 0), (Kind::Reply, 2)], "and no third call");
}

#[test]
fn what_waits_holds_up_what_comes_behind_it_and_nothing_else() {
    let (mut session, mut buffers) = greeted();
    let batch = [echo(1, 16), slow(2, 700), echo(3, 16), slow(4, 800)].concat();
    assert_eq!(feed(&mut session, &mut buffers, &batch), Next::Wait(700));
    assert_eq!(seen(&buffers.output), [(Kind::Reply, 1)]);
    assert_eq!(session.resume(&mut buffers), Next::Wait(800));
    assert_eq!(seen(&buffers.output), [(Kind::Reply, 1), (Kind::Reply, 2), (Kind::Reply, 3)]);
    buffers.output.clear();
    assert_eq!(session.resume(&mut buffers), Next::Continue);
    assert_eq!(seen(&buffers.output), [(Kind::Reply, 4)]);
    assert!(buffers.input.filled().is_empty());
    assert_eq!(session.shared.table().in_flight(), 0);
}

#[test]
fn what_is_set_aside_holds_up_nothing() {
    let (mut session, mut buffers) = greeted();
    let batch = [slow(1, 700), echo(2, 16), slow(3, 800), echo(4, 16)].concat();
    assert_eq!(feed(&mut session, &mut buffers, &batch), Next::Wait(700));
    let (first, next) = session.set_aside(&mut buffers);
    assert_eq!(next, Next::Wait(800));
    let (second, next) = session.set_aside(&mut buffers);
    assert_eq!(next, Next::Continue);
    assert_eq!(seen(&buffers.output), [(Kind::Reply, 2), (Kind::Reply, 4)]);
    assert!(buffers.input.filled().is_empty());
    buffers.output.clear();
    for aside in [second, first] {
        session.finish(aside, &mut buffers.output);
    }
    assert_eq!(seen(&buffers.output), [(Kind::Reply, 3), (Kind::Reply, 1)]);
    assert_eq!(session.shared.table().in_flight(), 0);
}

#[test]
fn a_session_ends_with_its_connection() {
    let (mut session, mut buffers) = greeted();
    let shared = session.shared.clone();
    assert_eq!(feed(&mut session, &mut buffers, &slow(1, 700)), Next::Wait(700));
    assert_eq!(shared.table().sessions(), 1);
    drop(session);
    assert_eq!(shared.table().sessions(), 0);
}
