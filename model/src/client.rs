//! The client, reduced to what the rules ask of it (C0 to C4): it makes each call once, sends it
//! again when it may, and believes only what is proved.
//!
//! Its journal, where it has one, is always as far as the client itself: what a late journal does is
//! the simulator's to find out, with the real client.

use onceloop_protocol::error::{Class, Code};

use crate::network::{CallIndex, PipeIndex, Report, SessionIndex, ToClient, ToServer};

/// How a call may be sent.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Semantics {
    /// Once.
    AtMostOnce,
    /// Until it is answered.
    ExactlyOnce,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// By its reply.
    Replied,
    /// Proved not to have run.
    NotExecuted,
    /// Nobody knows.
    Indeterminate,
    /// The client crashed and does not know of it any more.
    Forgotten,
}

/// Where a call is.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not made yet.
    Queued,
    /// A copy is on a connection that the client has.
    Out,
    /// Every copy is refused: it may be sent again.
    Refused,
    /// Copies are on connections that are gone.
    Lost,
    /// Over.
    Ended(Outcome),
}

/// One call.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Call {
    /// How it may be sent.
    pub(crate) semantics: Semantics,
    /// Where it is.
    pub(crate) stage: Stage,
    /// Its seq; 0 before it is sent.
    pub(crate) seq: u64,
    /// Copies sent and not refused.
    pub(crate) copies: u8,
    /// Whether a copy went out by the joined connection.
    pub(crate) is_hedged: bool,
}

/// A connection the client has.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) struct Link {
    /// Which.
    pub(crate) pipe: PipeIndex,
    /// Whether the handshake is done.
    pub(crate) is_up: bool,
}

/// Who the client is.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its session.
    pub(crate) session: SessionIndex,
    /// The last attachment used in this incarnation.
    pub(crate) attachment: u32,
}

/// The client.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Client {
    /// Its calls, whether made or not.
    pub(crate) calls: Vec<Call>,
    /// Its session, once it has one.
    pub(crate) identity: Option<Identity>,
    /// Raised by each restart from the journal.
    pub(crate) incarnation: u32,
    /// The connection that proves things.
    pub(crate) primary: Option<Link>,
    /// The second one.
    pub(crate) joined: Option<Link>,
    /// The seq given out next.
    pub(crate) next: u64,
    /// All up to here is consumed or burnt.
    pub(crate) floor: u64,
    /// The highest ack sent on the primary connection.
    pub(crate) acked: u64,
    /// Whether a call that the server is in doubt of may be sent again: to run twice does no harm.
    pub(crate) is_idempotent: bool,
}

/// What a frame made the client send, on its primary connection.
pub(crate) type Sent = Vec<ToServer>;

impl Client {
    /// Returns a client that has done nothing yet.
    pub(crate) fn new(semantics: &[Semantics], is_idempotent: bool) -> Client {
        let call = |&semantics| Call {
            semantics,
            stage: Stage::Queued,
            seq: 0,
            copies: 0,
            is_hedged: false,
        };
        Client {
            calls: semantics.iter().map(call).collect(),
            identity: None,
            incarnation: 0,
            primary: None,
            joined: None,
            next: 1,
            floor: 0,
            acked: 0,
            is_idempotent,
        }
    }

    /// Returns which of the links a connection is.
    pub(crate) fn link(&mut self, pipe: PipeIndex) -> Option<&mut Link> {
        let links = [self.primary.as_mut(), self.joined.as_mut()];
        links.into_iter().flatten().find(|link| link.pipe == pipe)
    }

    /// Begins a connection; returns its first frame. One that is not a second one replaces both.
    pub(crate) fn connect(&mut self, pipe: PipeIndex, join: bool) -> ToServer {
        let link = Some(Link { pipe, is_up: false });
        if join {
            self.joined = link;
        } else {
            (self.primary, self.joined) = (link, None);
        }
        let Some(identity) = &mut self.identity else { return ToServer::Hello };
        identity.attachment += 1;
        ToServer::Resume {
            session: identity.session,
            incarnation: self.incarnation,
            attachment: identity.attachment,
            ack: self.floor,
            join,
        }
    }

    /// Gives up both connections. What was sent by them may or may not arrive.
    pub(crate) fn disconnect(&mut self) {
        (self.primary, self.joined) = (None, None);
        for call in &mut self.calls {
            if call.stage == Stage::Out {
                call.stage = Stage::Lost;
            }
        }
    }

    /// The process dies and is started anew.
    pub(crate) fn crash(&mut self, has_journal: bool) {
        self.disconnect();
        if has_journal {
            self.incarnation += 1;
            if let Some(identity) = &mut self.identity {
                identity.attachment = 0;
            }
            return;
        }
        for call in &mut self.calls {
            if !matches!(call.stage, Stage::Queued | Stage::Ended(_)) {
                call.stage = Stage::Ended(Outcome::Forgotten);
            }
        }
        self.forget_session();
    }

    /// Sends a call, for the first time or after it was refused.
    pub(crate) fn send(&mut self, index: CallIndex) -> ToServer {
        let call = &mut self.calls[usize::from(index)];
        if call.seq == 0 {
            call.seq = self.next;
            self.next += 1;
        }
        call.copies += 1;
        call.stage = Stage::Out;
        self.acked = self.acked.max(self.floor);
        ToServer::Request { seq: call.seq, call: index, ack: self.floor }
    }

    /// Sends a copy by the second connection.
    pub(crate) fn hedge(&mut self, index: CallIndex) -> ToServer {
        let call = &mut self.calls[usize::from(index)];
        call.copies += 1;
        call.is_hedged = true;
        ToServer::Request { seq: call.seq, call: index, ack: self.floor }
    }

    /// Gives a call up: its time is over.
    pub(crate) fn give_up(&mut self, index: CallIndex) -> Option<ToServer> {
        let call = self.calls[usize::from(index)];
        let outcome = if call.copies == 0 { Outcome::NotExecuted } else { Outcome::Indeterminate };
        self.end(index, outcome);
        (call.stage == Stage::Out).then_some(ToServer::Cancel(call.seq))
    }

    /// Returns whether there is an acknowledgement to send.
    pub(crate) fn owes_ack(&self) -> bool {
        self.floor > self.acked
    }

    /// Takes a frame that came by one of its connections.
    ///
    /// # Errors
    /// If the frame is one that a client which keeps the rules must never see.
    pub(crate) fn receive(&mut self, pipe: PipeIndex, frame: &ToClient) -> Result<Sent, String> {
        let is_primary = self.primary.is_some_and(|link| link.pipe == pipe);
        let Some(link) = self.link(pipe) else { return Ok(Sent::new()) };
        if link.is_up {
            return self.take_answer(is_primary, frame).map(|()| Sent::new());
        }
        match frame {
            ToClient::Welcome(session) => {
                link.is_up = true;
                self.identity = Some(Identity { session: *session, attachment: 1 });
                Ok(Sent::new())
            }
            ToClient::Resumed { floor, cells } => {
                link.is_up = true;
                Ok(if is_primary { self.settle(*floor, cells) } else { Sent::new() })
            }
            ToClient::Error { code, .. } => {
                self.refused(is_primary, *code);
                Ok(Sent::new())
            }
            ToClient::Looked { .. } | ToClient::Reply { .. } => {
                Err(format!("{frame:?} before the handshake was done"))
            }
        }
    }

    /// C3: decides by what the server has of each call.
    fn settle(&mut self, floor: u64, cells: &[Report]) -> Sent {
        self.acked = floor;
        let mut sent = Sent::new();
        let mut lost: Vec<CallIndex> = (0..).take(self.calls.len()).collect();
        lost.retain(|&index| self.calls[usize::from(index)].stage == Stage::Lost);
        lost.sort_by_key(|&index| self.calls[usize::from(index)].seq);
        for index in lost {
            let call = &mut self.calls[usize::from(index)];
            let place = usize::try_from(call.seq - floor - 1).unwrap_or(usize::MAX);
            let report = cells.get(place).copied().unwrap_or(Report::Vacant);
            call.is_hedged = false;
            match (report, call.semantics) {
                (Report::Occupied, _) => {
                    call.copies = 1;
                    call.stage = Stage::Out;
                }
                (Report::Vacant, Semantics::ExactlyOnce) => {
                    call.copies = 0;
                    sent.push(self.send(index));
                }
                (Report::Vacant, Semantics::AtMostOnce) => self.end(index, Outcome::NotExecuted),
            }
        }
        sent
    }

    /// The handshake was refused.
    fn refused(&mut self, is_primary: bool, code: u16) {
        if !is_primary {
            self.joined = None;
            return;
        }
        if matches!(Code::from_wire(code), Some(Code::SessionUnknown | Code::Fenced)) {
            return self.lose_session();
        }
        self.disconnect();
    }

    /// C4: what is proved not to have run goes on in a new session.
    fn lose_session(&mut self) {
        self.disconnect();
        for call in &mut self.calls {
            match call.stage {
                Stage::Queued | Stage::Ended(_) => {}
                _ if call.copies == 0 => {
                    (call.stage, call.seq) = (Stage::Queued, 0);
                }
                _ => call.stage = Stage::Ended(Outcome::Indeterminate),
            }
        }
        self.forget_session();
    }

    fn forget_session(&mut self) {
        self.identity = None;
        (self.next, self.floor, self.acked) = (1, 0, 0);
    }

    fn take_answer(&mut self, is_primary: bool, frame: &ToClient) -> Result<(), String> {
        match *frame {
            // Whether it may be seen is the world's to judge.
            ToClient::Looked { .. } => Ok(()),
            ToClient::Reply { seq, call } => self.replied(seq, call),
            ToClient::Error { seq: 0, code } => {
                match Code::from_wire(code) {
                    Some(Code::SessionUnknown | Code::Fenced) if is_primary => self.lose_session(),
                    Some(Code::Protocol) => {
                        return Err(format!("{frame:?} to a client that keeps it"));
                    }
                    _ if is_primary => self.disconnect(),
                    _ => self.joined = None,
                }
                Ok(())
            }
            ToClient::Error { seq, code } => self.failed(seq, code, is_primary),
            ToClient::Welcome(_) | ToClient::Resumed { .. } => Err(format!("{frame:?} twice")),
        }
    }

    fn open_call(&self, seq: u64) -> Option<CallIndex> {
        let is_it = |call: &Call| call.seq == seq && call.stage == Stage::Out;
        let place = self.calls.iter().position(is_it)?;
        u8::try_from(place).ok()
    }

    fn replied(&mut self, seq: u64, answered: CallIndex) -> Result<(), String> {
        let Some(index) = self.open_call(seq) else { return Ok(()) };
        if index != answered {
            return Err(format!("I2: call {index} got the reply of call {answered}"));
        }
        self.end(index, Outcome::Replied);
        Ok(())
    }

    fn failed(&mut self, seq: u64, code: u16, is_primary: bool) -> Result<(), String> {
        let Some(code) = Code::from_wire(code) else { return Err(format!("code {code}")) };
        if code == Code::SessionUnknown {
            if is_primary {
                self.lose_session();
            }
            return Ok(());
        }
        let Some(index) = self.open_call(seq) else { return Ok(()) };
        let call = &mut self.calls[usize::from(index)];
        match code.class() {
            Class::NotExecuted => {
                call.copies -= 1;
                if call.copies == 0 {
                    match call.semantics {
                        Semantics::ExactlyOnce => call.stage = Stage::Refused,
                        Semantics::AtMostOnce => self.end(index, Outcome::NotExecuted),
                    }
                }
            }
            Class::InProgress => {}
            Class::Executed => self.end(index, Outcome::Replied),
            // The copy still counts: nobody will prove any more that the call did not run.
            Class::Unknown
                if code == Code::InDoubt
                    && self.is_idempotent
                    && call.semantics == Semantics::ExactlyOnce =>
            {
                call.stage = Stage::Refused;
            }
            Class::Unknown => self.end(index, Outcome::Indeterminate),
            Class::ClientBug => return Err(format!("I4: call {index} waits and is told {code}")),
        }
        Ok(())
    }

    /// Ends a call; the floor goes on past all that have ended.
    fn end(&mut self, index: CallIndex, outcome: Outcome) {
        self.calls[usize::from(index)].stage = Stage::Ended(outcome);
        let is_open = |seq: u64| {
            let is_it = |call: &Call| call.seq == seq && !matches!(call.stage, Stage::Ended(_));
            self.calls.iter().any(is_it)
        };
        let mut floor = self.floor;
        while floor + 1 < self.next && !is_open(floor + 1) {
            floor += 1;
        }
        self.floor = floor;
    }
}
