//! The task phase of a connection: its frames run, one after the other, with nothing borrowed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use onceloop_protocol::cutter::Cut;
use onceloop_protocol::error::Code;
use onceloop_protocol::frame::{Frame, Header, Kind};
use onceloop_protocol::table::Refusal;
use onceloop_reactor::{Cx, Id, Input, SPARE_BUFFER_BYTES_MAX};

use crate::connection::{Phase, close, finish};
use crate::tail::Tail;
use crate::{Closed, Connection, Frames, Role, deadlines};

/// Why a batch stopped.
enum Stop {
    /// The turn's budget is used up; the rest runs in the next.
    Budget,
    /// Too much output is queued; the rest waits until the peer has read some.
    Congested,
    /// The connection is gone, or takes no more input.
    Gone,
    /// Framing is lost: what came is not our protocol.
    Lost(String),
    /// The rest is part of a frame of this many bytes.
    Partial(usize),
}

impl Stop {
    /// Returns how long the frame is that was left unfinished; 0 if it is not that.
    fn needs(&self) -> usize {
        if let Stop::Partial(bytes) = self { *bytes } else { 0 }
    }

    /// Returns whether what comes is not looked at any more.
    fn is_end(&self) -> bool {
        matches!(self, Stop::Gone | Stop::Lost(_))
    }
}

pub(crate) fn run<S: 'static, R: Role<S>>(
    cx: &mut Cx<'_, S>,
    id: Id<Connection<R>>,
    input: &mut Input<'_>,
) {
    let mut out = cx.registry.take_buffer();
    let Some(connection) = cx.registry.get_mut(id) else { return };
    if connection.phase == Phase::Connected {
        connection.phase = Phase::Open;
        R::on_open(cx, id, &mut out);
    }
    let Some(connection) = cx.registry.get_mut(id) else { return };
    // Either the batch is in the turn buffer, with the tail in front of it, or it is the tail.
    let is_own = input.unread().is_empty() && connection.has_backlog;
    let mut own = if is_own { connection.take_tail() } else { Tail::default() };
    let was_skipping = connection.cutter.is_skipping();
    let requests_max = input.requests_max();
    let unread = if is_own { own.bytes() } else { input.unread() };
    let mut frames = Frames::new(unread, requests_max, id.to_bits());
    if !unread.is_empty() {
        // A callback that panics ends this turn for the program, not this connection: what was not
        // yet run and what was already answered are put back first.
        let result = catch_unwind(AssertUnwindSafe(|| run_frames(cx, id, &mut frames, &mut out)));
        let stop = match &result {
            Ok(stop) => stop,
            Err(_) => &Stop::Budget,
        };
        let skips = frames.skips;
        let rest_bytes = if stop.is_end() { 0 } else { frames.unread.len() };
        let tail = match (is_own, rest_bytes) {
            (false, 0) => Tail::default(),
            (false, _) => copy_tail(cx, frames.unread, stop.needs()),
            (true, len) => {
                own.keep_last(len);
                fit_tail(cx, own, stop.needs())
            }
        };
        keep_rest(cx, id, tail, skips, was_skipping, stop);
        input.advance(input.unread().len());
        if let Err(panic) = result {
            after_batch(cx, id, out);
            resume_unwind(panic);
        }
    }
    run_waiting(cx, id, requests_max, &mut out);
    after_batch(cx, id, out);
}

fn run_frames<S: 'static, R: Role<S>>(
    cx: &mut Cx<'_, S>,
    id: Id<Connection<R>>,
    frames: &mut Frames<'_>,
    out: &mut Vec<u8>,
) -> Stop {
    while frames.left > 0 {
        let Some(connection) = cx.registry.get_mut(id) else { return Stop::Gone };
        if connection.phase == Phase::Finishing {
            return Stop::Gone;
        }
        if !connection.has_room_beside(out.len()) {
            return Stop::Congested;
        }
        let limits = &connection.settings.limits;
        let role = connection.role;
        let is_established = role.is_established();
        let body_bytes_max =
            if is_established { limits.body_bytes_max } else { limits.handshake_body_bytes_max };
        frames.left -= 1;
        // Looked at where it is: a frame is large enough for a copy of it to be waited for.
        match &frames.cut(connection, body_bytes_max) {
            Cut::Frame(frame) => {
                frames.skips = Some(0);
                match frames.check(frame) {
                    Ok(()) => run_frame(cx, id, role, frame, frames, out),
                    Err(fault) => R::on_refused(cx, id, frame.header, fault.refusal(), out),
                }
            }
            Cut::NeedMore(bytes) => return Stop::Partial(*bytes),
            &Cut::Refused { header, length } => {
                frames.skips = Some(length);
                let refusal = too_large(length, body_bytes_max);
                R::on_refused(cx, id, header, refusal, out);
            }
            Cut::Lost(error) => {
                R::on_lost(cx, id, error, out);
                return Stop::Lost(error.to_string());
            }
        }
    }
    Stop::Budget
}

fn too_large(length: usize, body_bytes_max: usize) -> Refusal {
    let message = format!("a body of {length} bytes: at most {body_bytes_max}");
    Refusal::new(Code::TooLarge, message)
}

#[inline]
fn run_frame<S: 'static, R: Role<S>>(
    cx: &mut Cx<'_, S>,
    id: Id<Connection<R>>,
    role: R,
    frame: &Frame<'_>,
    frames: &mut Frames<'_>,
    out: &mut Vec<u8>,
) {
    frames.trace(frame);
    match frame.header.kind {
        Kind::Ping if role.is_established() => {
            Header::new(Kind::Pong, frame.header.seq).append(&[], out);
        }
        Kind::Pong if role.is_established() => {}
        _ => {
            cx.registry.watch(id);
            role.on_frame(cx, id, frame, frames, out);
        }
    }
}

/// Keeps what the batch has left for a later turn, if that is anything; `skips` as in [`Frames`].
fn keep_rest<S: 'static, R: Role<S>>(
    cx: &mut Cx<'_, S>,
    id: Id<Connection<R>>,
    tail: Tail,
    skips: Option<usize>,
    was_skipping: bool,
    stop: &Stop,
) {
    let now = cx.registry.now();
    let keeps = !tail.is_empty();
    let Some(connection) = cx.registry.get_mut(id) else { return };
    connection.has_backlog = keeps && matches!(stop, Stop::Budget | Stop::Congested);
    let is_skipping = connection.cutter.is_skipping();
    let needs = match stop {
        Stop::Gone | Stop::Lost(_) => 0,
        Stop::Partial(bytes) if keeps => *bytes,
        _ if is_skipping => skips.unwrap_or(connection.tail_needs as usize),
        _ => 0,
    };
    let is_next = skips.is_some() || was_skipping && !is_skipping;
    connection.await_frame(needs, is_next, now);
    let unused = match keeps {
        true => std::mem::replace(&mut connection.work().tail, tail),
        false => tail,
    };
    cx.registry.give_buffer(unused.into_buffer());
    match stop {
        Stop::Budget => cx.registry.wake(id),
        Stop::Lost(what) => finish(cx.registry, id, Closed::Protocol(what.clone())),
        Stop::Congested | Stop::Gone | Stop::Partial(_) => {}
    }
    if needs > 0 {
        deadlines::arm(cx.registry, id);
    }
}

/// Returns what is left of a tail, in a buffer that is not much too large for it.
fn fit_tail<S: 'static>(cx: &mut Cx<'_, S>, tail: Tail, needs: usize) -> Tail {
    if tail.is_empty() || !tail.is_too_large(needs) {
        return tail;
    }
    let smaller = copy_tail(cx, tail.bytes(), needs);
    cx.registry.give_buffer(tail.into_buffer());
    smaller
}

/// Copies what a batch has left, at least a byte.
#[inline(never)]
fn copy_tail<S: 'static>(cx: &mut Cx<'_, S>, rest: &[u8], needs: usize) -> Tail {
    let spare = match needs.max(rest.len()) > SPARE_BUFFER_BYTES_MAX {
        true => cx.registry.take_large_buffer(),
        false => cx.registry.take_buffer(),
    };
    let (tail, unused) = Tail::copy(rest, needs, spare);
    cx.registry.give_buffer(unused);
    tail
}

/// Runs what the role has kept back until now, as far as the turn's budget and the output allow.
fn run_waiting<S: 'static, R: Role<S>>(
    cx: &mut Cx<'_, S>,
    id: Id<Connection<R>>,
    count_max: usize,
    out: &mut Vec<u8>,
) {
    let Some(connection) = cx.registry.get(id) else { return };
    if matches!(connection.phase, Phase::Open | Phase::HalfClosed)
        && connection.role.run_waiting(cx, id, count_max, out)
    {
        cx.registry.wake(id);
    }
}

/// Hands the answers over to the connection, and ends it if it has nothing left to do.
fn after_batch<S: 'static, R: Role<S>>(cx: &mut Cx<'_, S>, id: Id<Connection<R>>, out: Vec<u8>) {
    let Some(connection) = cx.registry.get_mut(id) else { return cx.registry.give_buffer(out) };
    let has_out = !out.is_empty();
    let spare = if has_out { connection.work().output.append(out) } else { out };
    let reads_again = connection.take_paused();
    let is_over = connection.phase == Phase::Over;
    // Not merely queued: what a callback has put there is written at the end of this turn.
    let is_blocked = !has_out && connection.output_waits_since().is_some();
    let is_half_closed = connection.phase == Phase::HalfClosed && !connection.has_backlog;
    connection.rest();
    cx.registry.give_buffer(spare);
    if has_out {
        cx.registry.touch(id);
    }
    if reads_again {
        cx.registry.again(id);
    }
    if is_over {
        return close_ended(cx, id);
    }
    if is_half_closed {
        return half_closed(cx, id);
    }
    if is_blocked {
        deadlines::arm(cx.registry, id);
    }
}

pub(crate) fn close_ended<S: 'static, R: Role<S>>(cx: &mut Cx<'_, S>, id: Id<Connection<R>>) {
    let ended = cx.registry.get_mut(id).and_then(|connection| connection.take_ended());
    close(cx.registry, id, ended.unwrap_or(Closed::Eof));
}

/// After the peer's FIN: closes the connection once all that is owed is written.
fn half_closed<S: 'static, R: Role<S>>(cx: &mut Cx<'_, S>, id: Id<Connection<R>>) {
    let owes = R::is_owing(cx, id);
    let Some(connection) = cx.registry.get_mut(id) else { return };
    if !owes && connection.output_len() == 0 {
        return close(cx.registry, id, Closed::Eof);
    }
    deadlines::arm(cx.registry, id);
}
