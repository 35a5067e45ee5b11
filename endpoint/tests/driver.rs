//! The driver of a connection, with a role that only echoes.
#![allow(missing_docs)]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use onceloop_endpoint::{Closed, close, finish};
use onceloop_protocol::frame::{Header, Kind};
use onceloop_protocol::limits::Limits;
use onceloop_reactor::Config;
use support::{
    CLOSE, FINISH, LARGE, LARGE_BYTES, PANIC, World, answer_bytes, read, request, write,
};

#[test]
fn at_rest_a_connection_holds_no_buffer() {
    let mut world = World::new();
    let (id, mut peer) = world.connect();
    for body_bytes in [10, 5_000, 100_000] {
        let bytes = request(1, body_bytes);
        // In two pieces: a tail is kept in between.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        peer.write_all(first).expect("there is room");
        world.turns(3);
        assert!(world.buffer_bytes(id) > 0);
        peer.write_all(second).expect("there is room");
        let mut answer = 0;
        world.until(|_| {
            answer += read(&mut peer).expect("open").len();
            answer == answer_bytes(body_bytes)
        });
        world.turns(3);
        assert_eq!(world.buffer_bytes(id), 0);
    }
}

#[test]
fn half_a_frame_takes_memory_for_what_came_not_for_what_was_announced() {
    let mut world = World::new();
    // Large spare buffers lie about.
    for _ in 0..10 {
        let spare = vec![0; 60_000];
        world.reactor.registry().give_buffer(spare);
    }
    let (id, mut peer) = world.connect();
    let bytes = request(1, 1_000_000);
    let mut sent = 0;
    for piece in [20, 30, 100, 1_000, 10_000, 50_000] {
        peer.write_all(&bytes[sent..sent + piece]).expect("there is room");
        sent += piece;
        world.turns(3);
        let held = world.buffer_bytes(id);
        assert!(held >= sent && held <= 4 * sent + 8 * 1024, "{held} for {sent}");
    }
}

/// Long ones are read into a buffer of the connection's own, short ones behind them, too.
#[test]
fn frames_of_all_lengths_come_whole_however_they_are_cut() {
    const LENGTHS: [usize; 12] =
        [200_000, 10, 300_000, 150_000, 5, 0, 70_000, 65_536, 900_000, 1, 20_000, 400_000];
    let (mut script, mut expected) = (Vec::new(), Vec::new());
    for (seq, length) in (1..).zip(LENGTHS) {
        let mut frame = request(seq, length);
        let begin = frame.len() - length;
        for (i, byte) in (seq..).zip(&mut frame[begin..]) {
            *byte = u8::try_from(i % 251).expect("below 251");
        }
        let mut answer = Vec::new();
        Header::new(Kind::Reply, seq).append(&frame[begin - 5..], &mut answer);
        script.extend(frame);
        expected.extend(answer);
    }
    for pieces in [&[1_usize, 100_000, 3, 33_000][..], &[65_536], &[1_000, 9], &[usize::MAX]] {
        let mut world = World::new();
        let (id, mut peer) = world.connect();
        let (mut rest, mut got) = (&script[..], Vec::new());
        for &piece in pieces.iter().cycle() {
            let n = peer.write(&rest[..piece.min(rest.len())]).unwrap_or(0);
            rest = &rest[n..];
            world.turn();
            got.extend(read(&mut peer).expect("open"));
            if rest.is_empty() {
                break;
            }
        }
        world.until(|_| {
            got.extend(read(&mut peer).expect("open"));
            got.len() == expected.len()
        });
        assert!(got == expected, "in pieces of {pieces:?}");
        world.turns(3);
        assert_eq!(world.buffer_bytes(id), 0);
    }
}

#[test]
fn after_a_long_frame_a_few_bytes_take_little_memory() {
    let mut world = World::new();
    let (id, mut peer) = world.connect();
    let long = request(1, 200_000);
    for _ in 0..3 {
        write(&mut world, &mut peer, &long);
        let mut answer = 0;
        world.until(|_| {
            answer += read(&mut peer).expect("open").len();
            answer == answer_bytes(200_000)
        });
    }
    for sent in 1..100 {
        peer.write_all(&long[sent - 1..sent]).expect("there is room");
        world.turns(2);
        let held = world.buffer_bytes(id);
        assert!(held < 8 * 1024, "{held} for {sent}");
    }
}

#[test]
fn a_peer_that_always_leaves_something_unread_does_not_make_the_output_grow() {
    let mut world = World::new();
    let (id, mut peer) = world.connect();
    let ask = request(1, 30_000);
    let mut asked = 0;
    // As much as the socket takes, and then some.
    while world.buffer_bytes(id) < 100_000 {
        peer.write_all(&ask).expect("there is room");
        asked += 1;
        world.until(|world| world.app.frames.len() == asked);
        world.turns(2);
    }
    let mut most = 0;
    for _ in 0..500 {
        let mut answer = vec![0; answer_bytes(30_000)];
        let mut filled = 0;
        while filled < answer.len() {
            match peer.read(&mut answer[filled..]) {
                Ok(n) => filled += n,
                Err(_) => world.turn(),
            }
        }
        peer.write_all(&ask).expect("there is room");
        asked += 1;
        world.until(|world| world.app.frames.len() == asked);
        most = most.max(world.buffer_bytes(id));
    }
    assert!(most < 1_000_000, "{most}");
}

#[test]
fn a_frame_that_panics_loses_no_other() {
    let mut world = World::new();
    let (_, mut peer) = world.connect();
    let mut script = Vec::new();
    for seq in [1, PANIC, 2, PANIC, 3] {
        script.extend(request(seq, 5));
    }
    script.extend(&request(4, 5)[..10]);
    peer.write_all(&script).expect("there is room");
    let mut panics = 0;
    for _ in 0..20 {
        panics += usize::from(catch_unwind(AssertUnwindSafe(|| world.turn())).is_err());
    }
    assert_eq!((panics, &world.app.frames[..]), (2, &[1, PANIC, 2, PANIC, 3][..]));
    peer.write_all(&request(4, 5)[10..]).expect("there is room");
    world.turns(5);
    assert_eq!(world.app.frames.last(), Some(&4));
    let answers = read(&mut peer).expect("open");
    assert_eq!(answers.len(), 4 * answer_bytes(5), "each that did not panic is answered");
}

#[test]
fn small_budgets_do_not_starve_two_tails() {
    let mut config = Config::default();
    config.read_bytes_per_turn = 4 * 1024;
    let mut world = World::with(Limits::default(), config);
    let mut ends: Vec<_> = (0..3).map(|_| world.connect()).collect();
    // Frames longer than a turn's budget and short enough to be copied in front of the next read.
    let bytes = request(1, 15_000);
    for (_, peer) in &mut ends {
        peer.write_all(&bytes).expect("there is room");
    }
    world.until(|world| world.app.frames.len() == 3);
}

#[test]
fn the_last_words_reach_a_peer_that_has_said_its_own() {
    let mut world = World::new();
    let (_, mut peer) = world.connect();
    // More than a socket takes, and the FIN behind it.
    let mut script = request(LARGE, 0).repeat(15);
    script.extend(request(FINISH, 5));
    script.extend(request(1, 5));
    peer.write_all(&script).expect("there is room");
    peer.shutdown(Shutdown::Write).expect("a FIN");
    world.turns(20);
    let mut got = 0;
    world.until(|_| match read(&mut peer) {
        Some(bytes) => {
            got += bytes.len();
            false
        }
        None => true,
    });
    assert_eq!(got, 15 * (LARGE_BYTES + 16) + answer_bytes(5));
    assert!(!world.app.frames.contains(&1), "nothing is looked at after the last word");
    world.until(|world| !world.app.closed.is_empty());
}

#[test]
fn a_connection_ends_once_in_every_way() {
    let mut limits = Limits::default();
    limits.half_close_timeout = Duration::from_millis(30);
    (limits.frame_timeout, limits.frame_bytes_per_second_min) =
        (Duration::from_millis(30), 1 << 20);
    let mut world = World::with(limits, Config::default());
    let mut ends: Vec<_> = (0..8).map(|_| world.connect()).collect();
    ends[0].1.write_all(&request(CLOSE, 5)).expect("there is room");
    ends[1].1.write_all(&request(FINISH, 5)).expect("there is room");
    ends[2].1.write_all(&request(FINISH, 5)).expect("there is room");
    ends[2].1.shutdown(Shutdown::Both).expect("a FIN");
    ends[3].1.shutdown(Shutdown::Write).expect("a FIN");
    ends[4].1.write_all(&[0, 0, 0, 12, 99, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).expect("room");
    ends[5].1.write_all(&request(1, 5)[..10]).expect("there is room");
    let large = request(LARGE, 5).repeat(20);
    write(&mut world, &mut ends[6].1, &large);
    ends[6].1.shutdown(Shutdown::Both).expect("a FIN");
    let last = ends[7].0;
    world.reactor.registry().defer(move |cx| {
        finish(cx.registry, last, Closed::Local("asked"));
        finish(cx.registry, last, Closed::Local("asked again"));
        close(cx.registry, last, Closed::Local("at once"));
        finish(cx.registry, last, Closed::Local("too late"));
    });
    world.until(|world| world.app.closed.len() == 8);
    world.turns(50);
    let mut ids: Vec<u64> = world.app.closed.iter().map(|&(id, _)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8, "{:?}", world.app.closed);
    assert!(ends.iter().all(|(id, _)| !world.reactor.registry().contains(*id)));
}

#[test]
fn a_large_answer_is_written_in_shares_and_small_ones_go_between() {
    const SHARE: usize = 8 * 1024;
    let mut config = Config::default();
    config.write_bytes_per_turn = SHARE;
    let mut world = World::with(Limits::default(), config);
    let (_, mut bulk) = world.connect();
    let (_, mut small) = world.connect();
    // Two in one batch: what is shared and what is copied are of one queue.
    bulk.write_all(&[request(LARGE, 0), request(1, 5)].concat()).expect("there is room");
    let all = LARGE_BYTES + 16 + answer_bytes(5);
    let mut got = 0;
    while got < all {
        small.write_all(&request(2, 5)).expect("there is room");
        world.turn();
        let part = read(&mut bulk).expect("open").len();
        assert_eq!(part, SHARE.min(all - got));
        got += part;
        assert_eq!(read(&mut small).expect("open").len(), answer_bytes(5), "in the same turn");
    }
    assert!(got == all && read(&mut bulk).expect("open").is_empty());
}

/// In company, too, and with what stands around the payload.
#[test]
fn a_frame_with_64_kib_of_payload_comes_in_one_read() {
    let mut world = World::new();
    let mut ends: Vec<_> = (0..2).map(|_| world.connect()).collect();
    world.turns(2);
    for (_, peer) in &mut ends {
        peer.write_all(&request(1, 64 * 1024)).expect("there is room");
    }
    world.turn();
    assert_eq!(world.app.frames, [1, 1]);
}

#[test]
fn a_large_frame_is_read_in_shares_while_another_is_ready() {
    const SHARE: usize = 4 * 1024;
    const SHARES: usize = 10;
    let mut config = Config::default();
    (config.read_bytes_per_turn, config.write_bytes_per_turn) = (SHARE, SHARE);
    let mut world = World::with(Limits::default(), config);
    let mut ends: Vec<_> = (0..2).map(|_| world.connect()).collect();
    let bytes = request(1, SHARES * SHARE - 100);
    for (_, peer) in &mut ends {
        peer.write_all(&bytes).expect("there is room");
    }
    world.turns(SHARES - 1);
    assert_eq!(world.app.frames, [], "it has not all been read");
    world.turns(2);
    assert_eq!(world.app.frames, [1, 1]);
}
