//! Sessions open, resume, detach and end: rows 3 and 19 to 21.

use std::time::{Duration, Instant};

use super::cell::Cell;
use super::durable::{DurableSession, What};
use super::principal::Principal;
use super::refusal::{bad_numbers, fenced, in_doubt, not_retained, poisoned, unknown_session};
use super::session::{Lease, Session};
use super::store::Store;
use super::{Refusal, SessionKey, Table};
use crate::arena::Key;
use crate::error::Code;
use crate::frame::{SEQ_MAX, VERSION};
use crate::handshake::{
    FEATURES, Features, Hello, JOURNAL, Order, Resume, Resumed, ServerLimits, Welcome,
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
    /// Its connections that are not its own any more, two at most: close them and drop all that came
    /// by them and has not been admitted, before anything else is done.
    pub replaced: Vec<u64>,
    /// What to tell the client, after which [`Table::append_finished`] is to be sent; `None` if that
    /// must be safe first ([`Released::Resumed`](super::Released::Resumed)): until then nothing is
    /// said on the connection.
    pub resumed: Option<Resumed>,
}

impl<St: Store> Table<St> {
    /// HELLO: opens a session of `principal` and attaches `connection` to it. `secret` is 128 random
    /// bits of the operating system.
    ///
    /// Where there are as many sessions as allowed, an idle one gives way (row 21). A durable table
    /// gives no WELCOME: it leaves when the session is safe
    /// ([`Released::Welcome`](super::Released::Welcome)), and nothing is said on the connection
    /// before.
    ///
    /// # Errors
    /// A refusal to send before the connection is closed.
    pub fn open(
        &mut self,
        hello: &Hello,
        secret: u128,
        connection: u64,
        principal: Principal,
        now: Instant,
    ) -> Result<(SessionKey, Option<Welcome>), Refusal> {
        check_version(hello.version)?;
        if self.is_draining {
            return Err(Refusal::new(Code::Draining, "the server is shutting down"));
        }
        self.make_room(principal, now)?;
        let window = self.grant_window(hello.window);
        let account = self.accounts.add_session(principal);
        let mut session = Session::new(window, secret, connection, account);
        if hello.order == Order::InOrder {
            session.set_in_order();
        }
        let is_durable = self.store.is_durable();
        let has_journal = is_durable && hello.features & JOURNAL != 0;
        if is_durable {
            let untold = vec![connection];
            session.set_durable(DurableSession { untold, has_journal, ..Default::default() });
        }
        let key = self.sessions.insert(session);
        self.counters.opened += 1;
        let session = self.sessions.get(key).expect("inserted above");
        let welcome = Welcome {
            version: VERSION.min(hello.version),
            features: hello.features & FEATURES,
            sid: session.sid(key.to_bits()),
            window: window.into(),
            limits: self.server_limits(has_journal),
        };
        if is_durable {
            self.record(key, now);
            let welcome = Box::new(welcome);
            self.wait(What::Welcome { connection, session: key, welcome });
            return Ok((key, None));
        }
        Ok((key, Some(welcome)))
    }

    fn server_limits(&self, has_journal: bool) -> ServerLimits {
        let lease = if has_journal { Lease::Journaled } else { Lease::Used };
        let lease_ms = u64::try_from(lease.time(&self.limits).as_millis()).unwrap_or(u64::MAX);
        ServerLimits { lease_ms, ..ServerLimits::of(&self.limits) }
    }

    /// Row 21: has a session give way to a new one of `principal` if there are as many as allowed.
    fn make_room(&mut self, principal: Principal, now: Instant) -> Result<(), Refusal> {
        if self.durability.ending >= self.limits.sessions_max {
            // They are in the table until that is safe: a slow store must not make it grow.
            return Err(no_room());
        }
        let (account, has_room) = self.accounts.room(principal);
        let from = if !has_room {
            account
        } else if self.sessions() >= self.limits.sessions_max {
            self.accounts.largest()
        } else {
            return Ok(());
        };
        let oldest = from.and_then(|account| self.accounts.get(account).clean.first().copied());
        match oldest {
            Some((since, key)) if since + self.limits.evictable_after <= now => {
                self.remove(SessionKey::from_bits(key), now);
                self.counters.evicted += 1;
                Ok(())
            }
            _ => Err(no_room()),
        }
    }

    /// RESUME (row 19b): attaches `connection` to the session of `principal`, instead of those it
    /// has or, with `join`, beside the one it has.
    ///
    /// Without `join`, what the replaced connections brought and was not admitted is never admitted:
    /// a cell reported vacant stays so until the client sends the call again. With `join` nothing is
    /// dropped, and vacant proves nothing.
    ///
    /// # Errors
    /// A refusal to send before the connection is closed; nothing has changed then.
    pub fn resume(
        &mut self,
        resume: &Resume,
        connection: u64,
        principal: Principal,
        now: Instant,
    ) -> Result<Resumption, Refusal> {
        check_version(resume.version)?;
        let key = self.find(resume, principal).ok_or_else(unknown_session)?;
        let session = self.sessions.get(key).expect("found");
        if session.is_ending() {
            // It is unknown once that is safe.
            self.wait(What::Close { connection });
            return Ok(Resumption { session: key, replaced: Vec::new(), resumed: None });
        }
        // Row 3.
        let newest = (session.incarnation, session.attachment);
        if (resume.incarnation, resume.attachment) <= newest {
            return Err(fenced());
        }
        if resume.ack > SEQ_MAX {
            return Err(bad_numbers(0, resume.ack));
        }
        self.forget_lease(key);
        let session = self.sessions.get_mut(key).expect("found");
        // What another incarnation of the client has sent is fenced: it is not joined.
        let is_raised = resume.incarnation > session.incarnation;
        let joins = resume.join && !is_raised;
        (session.incarnation, session.attachment) = (resume.incarnation, resume.attachment);
        let replaced: Vec<_> = if joins {
            session.join(connection).into_iter().collect()
        } else {
            session.attach(connection)
        };
        if let Some(durable) = session.durable_mut() {
            durable.untold.retain(|untold| !replaced.contains(untold));
        }
        if resume.ack > session.floor {
            self.raise_floor(key, resume.ack);
        }
        if !joins {
            self.drop_held(key);
        }
        self.counters.resumed += 1;
        if self.store.is_durable() {
            if is_raised {
                self.record(key, now);
            }
            if self.resumes_later(key, connection, resume) {
                return Ok(Resumption { session: key, replaced, resumed: None });
            }
        }
        let resumed = self.report(key, resume.version, resume.features);
        Ok(Resumption { session: key, replaced, resumed: Some(resumed) })
    }

    /// Returns the session that a RESUME names, if it is there, is `principal`'s, and the secret is
    /// its own. All three are compared in a time that does not tell which one failed.
    fn find(&self, resume: &Resume, principal: Principal) -> Option<SessionKey> {
        let key = SessionKey::from_bits(resume.sid.place);
        let session = self.sessions.get(key);
        let (secret, owner) = session.map_or((0, Principal::ANYONE), |session| {
            (session.sid(0).secret, self.accounts.get(session.account).principal)
        });
        let differing = (secret ^ resume.sid.secret)
            | u128::from(owner.0 ^ principal.0)
            | u128::from(session.is_none());
        (std::hint::black_box(differing) == 0).then_some(key)
    }

    /// Appends what rows 10 and 11 answer for each finished call of the session.
    pub fn append_finished(&mut self, key: SessionKey, out: &mut Vec<u8>) {
        let Some(session) = self.sessions.get(key) else { return };
        for seq in session.seqs() {
            match session.cell(seq) {
                Cell::Done { reply, .. } => out.extend_from_slice(self.replies.get(reply)),
                Cell::DoneNoReply { .. } => not_retained().append(seq, out),
                Cell::InDoubt { .. } => in_doubt().append(seq, out),
                Cell::Poisoned { .. } => poisoned().append(seq, out),
                _ => continue,
            }
            self.counters.replayed += 1;
        }
    }

    /// Row 19: the connection is lost, and leaves its session. With the last one the lease begins;
    /// nothing is cancelled. A connection that was replaced changes nothing.
    pub fn detach(&mut self, key: SessionKey, connection: u64, now: Instant) {
        let limits = &self.limits;
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.is_attached_to(connection) {
            return;
        }
        session.lease = session.lease();
        let expires = now + session.lease.time(limits);
        if let Some(durable) = session.durable_mut() {
            durable.untold.retain(|&untold| untold != connection);
        }
        if session.leave(connection, expires) {
            session.shrink();
            self.leases.insert((expires, key.to_bits()));
            self.note_if_clean(key);
        }
    }

    /// Notes that a detached session may give way to another one, if nothing would be lost with it.
    #[inline]
    pub(super) fn note_if_clean(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.is_clean()
            && let Some(since) = session.detached_since(&self.limits)
        {
            self.accounts.add_clean(session.account, since, key.to_bits());
        }
    }

    /// Takes a detached session off the lists of those whose lease ends and that may give way.
    fn forget_lease(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else { return };
        if let Some(expires) = session.expires() {
            self.leases.remove(&(expires, key.to_bits()));
            if let Some(since) = session.detached_since(&self.limits) {
                self.accounts.remove_clean(session.account, since, key.to_bits());
            }
        }
    }

    /// BYE: the client has consumed everything and will not come back. What still runs ends without
    /// an answer. Returns the connections that were attached.
    pub fn close(&mut self, key: SessionKey, now: Instant) -> Vec<u64> {
        let attached = self.sessions.get(key).map(Session::connections);
        self.remove(key, now);
        attached.unwrap_or_default()
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
            let is_quiet = session.in_flight == 0 && session.committing() == 0;
            match session.expires() {
                Some(expires) if expires <= now && is_quiet => {
                    self.remove(key, now);
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

    /// Returns when [`Table::expire`] has something to do, or [`Table::poll_released`].
    pub fn next_deadline(&self) -> Option<Instant> {
        let lease = self.leases.first().map(|&(due, _)| due);
        if !self.store.is_durable() || !self.is_waiting() {
            return lease;
        }
        [lease, self.store.next_deadline()].into_iter().flatten().min()
    }

    pub(super) fn report(&self, key: SessionKey, version: u16, features: Features) -> Resumed {
        let session = self.sessions.get(key).expect("the caller has found it");
        let floor = session.floor;
        let seqs = session.seqs();
        let reports = seqs.map(|seq| session.cell(seq).report());
        Resumed {
            version: VERSION.min(version),
            features: features & FEATURES,
            floor,
            window: session.window().into(),
            cells: Resumed::pack(reports),
            limits: self
                .server_limits(session.durable().is_some_and(|durable| durable.has_journal)),
        }
    }

    /// Returns the largest power of two that was asked for and is allowed.
    fn grant_window(&self, asked: u32) -> u16 {
        let asked = if asked == 0 { self.limits.window } else { asked };
        let most = self.limits.window_max.clamp(1, u16::MAX.into());
        1 << asked.clamp(1, most).ilog2()
    }

    /// Ends the session and gives back all that is kept of it.
    fn remove(&mut self, key: SessionKey, now: Instant) {
        if self.sessions.get(key).is_none_or(Session::is_ending) {
            return;
        }
        self.forget_lease(key);
        self.drop_held(key);
        self.raise_floor(key, SEQ_MAX);
        let session = self.sessions.get_mut(key).expect("found above");
        self.accounts.remove_session(session.account);
        session.end();
        session.shrink();
        if self.store.is_durable() {
            self.end(key, now);
        } else {
            self.sessions.remove(key);
        }
    }
}

fn no_room() -> Refusal {
    let message = "there is no room for another session";
    Refusal::new(Code::Busy, message).retry_after_ms(NO_ROOM_RETRY_AFTER_MS)
}

fn check_version(version: u16) -> Result<(), Refusal> {
    if version >= VERSION {
        return Ok(());
    }
    let message = format!("version {version} is not spoken here: version {VERSION} is");
    Err(Refusal::new(Code::Unsupported, message))
}

const _: () = assert!(size_of::<Key<Session>>() == 8);
