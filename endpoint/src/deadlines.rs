//! Every state of a connection has a deadline. One timer serves them all: what happens is only
//! noted, and the timer looks at it when it fires.

use std::time::{Duration, Instant};

use onceloop_protocol::frame::{Header, Kind};
use onceloop_reactor::{Cx, Id, Registry};

use crate::connection::{Phase, close};
use crate::dispatch::close_ended;
use crate::{Closed, Connection, Role};

/// The deadline that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Connect,
    Frame,
    Handshake,
    Idle,
    LastWords,
    Output,
}

impl<R> Connection<R> {
    /// Returns the deadline that comes next, and how long it is until then; zero if it has passed.
    fn next_deadline<S: 'static>(&self, now: u32) -> (Duration, Next)
    where
        R: Role<S>,
    {
        let limits = &self.settings.limits;
        let left = |since: u32, lasts: Duration| {
            lasts.saturating_sub(Duration::from_millis(now.wrapping_sub(since).into()))
        };
        match self.phase {
            Phase::Connecting => {
                return (left(self.began_at, limits.connect_timeout), Next::Connect);
            }
            Phase::HalfClosed | Phase::Finishing => {
                return (left(self.began_at, limits.half_close_timeout), Next::LastWords);
            }
            Phase::Over => return (Duration::ZERO, Next::LastWords),
            Phase::Connected | Phase::Open if !self.role.is_established() => {
                return (left(self.began_at, limits.handshake_timeout), Next::Handshake);
            }
            Phase::Connected | Phase::Open => {}
        }
        let is_within_frame = self.tail_needs > 0 && !self.has_backlog;
        let rate = limits.frame_bytes_per_second_min.max(1);
        let lasts = limits.frame_timeout + Duration::from_secs((self.tail_needs / rate).into());
        let frame = (left(self.began_at, lasts), Next::Frame);
        if let Some(since) = self.output_waits_since() {
            // A peer that takes its answers is alive; and above the mark it is not read, so that it
            // can neither answer a PING nor end its frame.
            let stall = (left(since, limits.output_stall_max), Next::Output);
            return if is_within_frame && !self.is_congested() { frame.min(stall) } else { stall };
        }
        if is_within_frame {
            // A peer that falls silent within a frame is not asked whether it is there.
            let patience = limits.idle_ping * (limits.pings_missed_max + 1);
            return frame.min((left(self.received_at, patience), Next::Frame));
        }
        let since = if self.pings_missed == 0 { self.received_at } else { self.began_at };
        (left(since, limits.idle_ping), Next::Idle)
    }
}

/// Arms the timer for the deadline that comes next.
pub(crate) fn arm<S: 'static, R: Role<S>>(registry: &mut Registry<S>, id: Id<Connection<R>>) {
    let now = registry.now();
    let Some(connection) = registry.get(id) else { return };
    let (left, _) = connection.next_deadline::<S>(connection.settings.ticks(now));
    registry.set_deadline(id, Some(now + left));
}

/// The timer fired: acts on a deadline that has passed, or waits for the next.
pub(crate) fn check<S: 'static, R: Role<S>>(cx: &mut Cx<'_, S>, id: Id<Connection<R>>) {
    let Some(next) = passed(cx, id) else { return };
    match next {
        // Perhaps the bytes came in this very turn, after a loop that was held up: they are looked
        // at before anybody is blamed.
        Next::Frame | Next::Handshake => cx.registry.defer(move |cx| {
            if let Some(next) = passed(cx, id) {
                act(cx, id, next);
            }
        }),
        next => act(cx, id, next),
    }
}

/// Returns which deadline has passed; if none has, the timer is armed for the next.
fn passed<S: 'static, R: Role<S>>(cx: &mut Cx<'_, S>, id: Id<Connection<R>>) -> Option<Next> {
    let now = cx.registry.now();
    let connection = cx.registry.get(id)?;
    let (left, next) = connection.next_deadline::<S>(connection.settings.ticks(now));
    if left > Duration::ZERO {
        cx.registry.set_deadline(id, Some(now + left));
        return None;
    }
    Some(next)
}

fn act<S: 'static, R: Role<S>>(cx: &mut Cx<'_, S>, id: Id<Connection<R>>, next: Next) {
    let now = cx.registry.now();
    let Some(connection) = cx.registry.get_mut(id) else { return };
    let why = match next {
        Next::Connect => Closed::ConnectFailed(std::io::ErrorKind::TimedOut.into()),
        Next::Frame => Closed::TimedOut("a frame came too slowly"),
        Next::Handshake => Closed::TimedOut("no handshake"),
        Next::Idle => match connection.ping(now) {
            true => {
                cx.registry.touch(id);
                return arm(cx.registry, id);
            }
            false => Closed::TimedOut("the peer no longer answers"),
        },
        Next::LastWords => return close_ended(cx, id),
        Next::Output => Closed::TimedOut("the peer does not read its answers"),
    };
    close(cx.registry, id, why);
}

impl<R> Connection<R> {
    /// Queues a PING; `false` if too many went unanswered already.
    fn ping(&mut self, now: Instant) -> bool {
        if u32::from(self.pings_missed) >= self.settings.limits.pings_missed_max {
            return false;
        }
        self.pings_missed += 1;
        self.began_at = self.settings.ticks(now);
        Header::new(Kind::Ping, 0).append(&[], self.out());
        true
    }
}
