//! Every state of a connection has a deadline. One timer serves them all: what happens is only
//! noted, and the timer looks at it when it fires.

use std::time::Duration;

use onceloop_protocol::frame::{Header, Kind};
use onceloop_reactor::{Cx, Id, Registry};

use crate::connection::{Phase, close};
use crate::{Closed, Connection, Role};

/// The deadline that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
            Phase::Open if !self.role.is_established() => {
                return (left(self.began_at, limits.handshake_timeout), Next::Handshake);
            }
            Phase::Open => {}
        }
        let patience = limits.idle_ping * (u32::from(self.pings_missed) + 1);
        let mut next = (left(self.received_at, patience), Next::Idle);
        if !self.tail.is_empty() && !self.has_backlog {
            let rate = limits.frame_bytes_per_second_min.max(1);
            let lasts = limits.frame_timeout + Duration::from_secs((self.tail_needs / rate).into());
            next = next.min_by_time((left(self.frame_began_at, lasts), Next::Frame));
        }
        if !self.output.is_empty() {
            let stalled = left(self.written_at, limits.output_stall_max);
            next = next.min_by_time((stalled, Next::Output));
        }
        next
    }
}

trait Earlier {
    fn min_by_time(self, other: Self) -> Self;
}

impl Earlier for (Duration, Next) {
    fn min_by_time(self, other: Self) -> Self {
        if other.0 < self.0 { other } else { self }
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
    let now = cx.registry.now();
    let Some(connection) = cx.registry.get_mut(id) else { return };
    let (left, next) = connection.next_deadline::<S>(connection.settings.ticks(now));
    if left > Duration::ZERO {
        return cx.registry.set_deadline(id, Some(now + left));
    }
    let why = match next {
        Next::Connect => Closed::ConnectFailed(std::io::ErrorKind::TimedOut.into()),
        Next::Frame => Closed::TimedOut("a frame came too slowly"),
        Next::Handshake => Closed::TimedOut("no handshake"),
        Next::Idle => match connection.ping() {
            true => {
                cx.registry.touch(id);
                return arm(cx.registry, id);
            }
            false => Closed::TimedOut("the peer no longer answers"),
        },
        Next::LastWords => match connection.ended.take() {
            Some(why) => *why,
            None => Closed::Eof,
        },
        Next::Output => Closed::TimedOut("the peer does not read its answers"),
    };
    close(cx.registry, id, why);
}

impl<R> Connection<R> {
    /// Queues a PING; `false` if too many went unanswered already.
    fn ping(&mut self) -> bool {
        if u32::from(self.pings_missed) >= self.settings.limits.pings_missed_max {
            return false;
        }
        self.pings_missed += 1;
        Header::new(Kind::Ping, 0).append(&[], self.out());
        true
    }
}
