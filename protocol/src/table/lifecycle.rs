//! Sessions open, resume, detach and end: rows 3 and 19 to 21.

use std::time::{Duration, Instant};

use super::admit::{fenced, not_retained, unknown_session};
use super::cell::Cell;
use super::session::Session;
use super::{Refusal, SessionKey, Table};
use crate::arena::Key;
use crate::error::Code;
use crate::frame::{SEQ_MAX, VERSION};
use crate::handshake::{
    CellReport, FEATURES, Hello, Order, Resume, Resumed, ServerLimits, Welcome,
};

/// Milliseconds after which a client that found no room for a session may try again.
const NO_ROOM_RETRY_AFTER_MS: u32 = 1_000;

/// How long after its lease a session is looked at again whose handlers still run.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a RESUME led to.
#[derive(Debug)]
pub struct Resumption {
    /// The session.
    pub session: SessionKey,
    /// Its other connection: close it and drop all that came by it and has not been admitted,
    /// before anything else is done.
    pub replaced: Option<u64>,
    /// What to tell the client, after which [`Table::append_finished`] is to be sent.
    pub resumed: Resumed,
}

impl Table {
    /// HELLO: opens a session and attaches `connection` to it. `secret` is 128 random bits of the
    /// operating system.
    ///
    /// # Errors
    /// A refusal to send before the connection is closed.
    pub fn open(
        &mut self,
        hello: &Hello,
        secret: u128,
        connection: u64,
    ) -> Result<(SessionKey, Welcome), Refusal> {
        check_version(hello.version)?;
        if self.is_draining {
            return Err(Refusal::new(Code::Draining, "the server is shutting down"));
        }
        if self.sessions.len() >= self.limits.sessions_max {
            let refusal = Refusal::new(Code::Busy, "the server has no room for another session");
            return Err(refusal.retry_after_ms(NO_ROOM_RETRY_AFTER_MS));
        }
        let window = self.grant_window(hello.window);
        let in_order = hello.order == Order::InOrder;
        let key = self.sessions.insert(Session::new(window, secret, connection, in_order));
        self.counters.opened += 1;
        let session = self.sessions.get(key).expect("inserted above");
        let welcome = Welcome {
            version: VERSION.min(hello.version),
            features: hello.features & FEATURES,
            sid: session.sid(key.to_bits()),
            window: window.into(),
            limits: ServerLimits::of(&self.limits),
        };
        Ok((key, welcome))
    }

    /// RESUME (row 19b): attaches `connection` to the session instead of the one it had.
    ///
    /// What the replaced connection brought and was not admitted is never admitted: a cell reported
    /// vacant stays so until the client sends the call again.
    ///
    /// # Errors
    /// A refusal to send before the connection is closed; nothing has changed then.
    pub fn resume(&mut self, resume: &Resume, connection: u64) -> Result<Resumption, Refusal> {
        check_version(resume.version)?;
        if resume.join {
            return Err(Refusal::new(Code::Unsupported, "this server attaches one connection"));
        }
        let key = SessionKey::from_bits(resume.sid.place);
        let Some(session) = self.sessions.get_mut(key) else { return Err(unknown_session()) };
        // Another's session gets the same answer as none, in the same time.
        if !session.sid(resume.sid.place).is_same_secret(&resume.sid) {
            return Err(unknown_session());
        }
        // Row 3.
        let newest = (session.incarnation, session.attachment);
        if (resume.incarnation, resume.attachment) <= newest {
            return Err(fenced());
        }
        if resume.ack > SEQ_MAX {
            return Err(super::admit::bad_numbers(0, resume.ack));
        }
        (session.incarnation, session.attachment) = (resume.incarnation, resume.attachment);
        let replaced = session.connection();
        if let Some(expires) = session.expires() {
            self.leases.remove(&(expires, key.to_bits()));
        }
        session.attach(connection);
        if resume.ack > session.floor {
            self.raise_floor(key, resume.ack);
        }
        self.drop_held(key);
        self.counters.resumed += 1;
        Ok(Resumption { session: key, replaced, resumed: self.report(key, resume) })
    }

    /// Appends what rows 10 and 11 answer for each finished call of the session.
    pub fn append_finished(&mut self, key: SessionKey, out: &mut Vec<u8>) {
        let Some(session) = self.sessions.get(key) else { return };
        for seq in session.floor + 1..=session.floor + session.ring.capacity() as u64 {
            match session.ring.get(session.floor, seq) {
                Cell::Done { reply, .. } => out.extend_from_slice(self.replies.get(reply)),
                Cell::DoneNoReply { .. } => not_retained().append(seq, out),
                Cell::Vacant | Cell::Held { .. } | Cell::Pending { .. } => continue,
            }
            self.counters.replayed += 1;
        }
    }

    /// Row 19: the connection is lost. Nothing is cancelled; the lease begins. A connection that was
    /// replaced changes nothing.
    pub fn detach(&mut self, key: SessionKey, connection: u64, now: Instant) {
        let limits = &self.limits;
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.is_attached_to(connection) {
            return;
        }
        let lease = if session.was_used() { limits.lease } else { limits.unused_lease };
        session.ring.shrink();
        session.detach(now + lease);
        self.leases.insert((now + lease, key.to_bits()));
    }

    /// BYE: the client has consumed everything and will not come back. What still runs ends without
    /// an answer.
    pub fn close(&mut self, key: SessionKey) {
        self.remove(key);
    }

    /// Row 20: deletes sessions whose lease is over, and gives up requests that wait too long for
    /// an earlier one, which `refuse` is told with their connection and seq.
    pub fn expire(&mut self, now: Instant, mut refuse: impl FnMut(Option<u64>, u64, &Refusal)) {
        while let Some(&(due, bits)) = self.leases.first()
            && due <= now
        {
            self.leases.pop_first();
            let key = SessionKey::from_bits(bits);
            self.expire_held(key, due, now, &mut refuse);
            let Some(session) = self.sessions.get_mut(key) else { continue };
            match session.expires() {
                Some(expires) if expires <= now && session.in_flight == 0 => {
                    self.remove(key);
                    self.counters.expired += 1;
                }
                // What runs keeps its session alive: look again later.
                Some(expires) if expires <= now => {
                    let later = now + LOOK_AGAIN;
                    session.detach(later);
                    self.leases.insert((later, bits));
                }
                _ => {}
            }
        }
    }

    /// Returns when [`Table::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.leases.first().map(|&(due, _)| due)
    }

    fn report(&self, key: SessionKey, resume: &Resume) -> Resumed {
        let session = self.sessions.get(key).expect("the caller has found it");
        let floor = session.floor;
        let reports = (floor + 1..=floor + session.ring.capacity() as u64).map(|seq| match session
            .ring
            .get(floor, seq)
        {
            Cell::Vacant => CellReport::Vacant,
            Cell::Held { .. } | Cell::Pending { .. } => CellReport::Running,
            Cell::Done { .. } | Cell::DoneNoReply { .. } => CellReport::Finished,
        });
        Resumed {
            version: VERSION.min(resume.version),
            features: resume.features & FEATURES,
            floor,
            window: session.window.into(),
            cells: Resumed::pack(reports),
            limits: ServerLimits::of(&self.limits),
        }
    }

    /// Returns the largest power of two that was asked for and is allowed.
    fn grant_window(&self, asked: u32) -> u16 {
        let asked = if asked == 0 { self.limits.window } else { asked };
        let most = self.limits.window_max.clamp(1, u16::MAX.into());
        1 << asked.clamp(1, most).ilog2()
    }

    /// Ends the session and gives back all that is kept of it.
    fn remove(&mut self, key: SessionKey) {
        if self.sessions.get(key).is_none() {
            return;
        }
        self.drop_held(key);
        self.raise_floor(key, SEQ_MAX);
        if let Some(session) = self.sessions.remove(key)
            && let Some(expires) = session.expires()
        {
            self.leases.remove(&(expires, key.to_bits()));
        }
    }
}

fn check_version(version: u16) -> Result<(), Refusal> {
    if version >= VERSION {
        return Ok(());
    }
    let message = format!("version {version} is not spoken here: version {VERSION} is");
    Err(Refusal::new(Code::Unsupported, message))
}

const _: () = assert!(size_of::<Key<Session>>() == 8);
