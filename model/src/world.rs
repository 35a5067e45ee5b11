//! The whole: a client, the network and a server, and every step that any of them may take next.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::client::{Client, Outcome, Semantics, Stage};
use crate::network::{CallIndex, End, Pipe, PipeIndex, ToClient, ToServer};
use crate::search::System;
use crate::server::Server;

/// What there is to explore, and how much of it.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The calls, each with how it may be sent.
    pub calls: Vec<Semantics>,
    /// Connections there may ever be.
    pub connections: usize,
    /// How often the server may crash.
    pub server_crashes: u8,
    /// How often the client may crash.
    pub client_crashes: u8,
    /// How often all leases may end.
    pub expiries: u8,
    /// How often the client may look, unprotected, whether a call took effect.
    pub looks: u8,
    /// How often the server may refuse a call.
    pub refusals: u8,
    /// How many calls the client may give up.
    pub given_up: u8,
    /// Whether the server's table survives its crashes.
    pub is_durable: bool,
    /// Whether a handler's effect is in the transaction that records its reply.
    pub is_transactional: bool,
    /// Whether the methods are declared idempotent.
    pub is_idempotent: bool,
    /// Whether the client's journal survives its crashes.
    pub has_journal: bool,
    /// Whether the client may send copies by a second connection.
    pub joins: bool,
    /// Whether the session's calls run in order.
    pub in_order: bool,
    /// Calls that may be unacknowledged.
    pub window: u32,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The client acknowledges on its own.
    Ack,
    /// The client opens a connection: for HELLO or RESUME, or to join.
    Connect {
        /// Beside the one it has.
        join: bool,
    },
    /// The client dies and is started anew.
    CrashClient,
    /// The server dies and is started anew; so many of the commits not yet safe have survived.
    CrashServer {
        /// How many.
        kept: usize,
    },
    /// The next frame of a connection arrives at the client.
    DeliverToClient(PipeIndex),
    /// The next frame of a connection arrives at the server, which has room or has not.
    DeliverToServer {
        /// By which connection.
        pipe: PipeIndex,
        /// Whether it is refused for want of room.
        is_busy: bool,
    },
    /// The client notices that its connections are lost, or gives them up.
    Disconnect,
    /// A handler ends, or (row 16) asks that its call come again.
    EndHandler {
        /// Which of those that run.
        place: usize,
        /// Whether it asks that its call come again.
        retries: bool,
    },
    /// All leases end.
    Expire,
    /// The client gives a call up.
    GiveUp(CallIndex),
    /// The client sends a copy by its second connection.
    Hedge(CallIndex),
    /// The client looks, unprotected, whether a call took effect.
    Look(CallIndex),
    /// The server notices that a connection is lost, and all that was on its way there.
    Lose(PipeIndex),
    /// One more commit of the server is safe.
    MakeSafe,
    /// The client sends a call, for the first time or again after a refusal.
    Send(CallIndex),
}

/// All there is.
#[derive(Clone)]
pub struct World {
    bounds: Arc<Bounds>,
    client: Client,
    pipes: Vec<Pipe>,
    server: Server,
    server_crashes: u8,
    client_crashes: u8,
    expiries: u8,
    looks: u8,
    refusals: u8,
    given_up: u8,
}

impl World {
    /// Returns the world before anything has happened.
    pub fn new(bounds: Bounds) -> World {
        let server = Server::new(&bounds);
        World {
            client: Client::new(&bounds.calls, bounds.is_idempotent),
            bounds: Arc::new(bounds),
            pipes: Vec::new(),
            server,
            server_crashes: 0,
            client_crashes: 0,
            expiries: 0,
            looks: 0,
            refusals: 0,
            given_up: 0,
        }
    }

    fn client_actions(&self, out: &mut Vec<Action>) {
        let (bounds, client) = (&*self.bounds, &self.client);
        let has_room = self.pipes.len() < bounds.connections;
        let is_up = client.primary.is_some_and(|link| link.is_up);
        if client.primary.is_none() && has_room {
            out.push(Action::Connect { join: false });
        }
        if client.primary.is_some() {
            out.push(Action::Disconnect);
        }
        if bounds.joins && is_up && client.joined.is_none() && has_room {
            out.push(Action::Connect { join: true });
        }
        if is_up && client.owes_ack() {
            out.push(Action::Ack);
        }
        let may_hedge = client.joined.is_some_and(|link| link.is_up);
        let has_window = client.next - client.floor <= u64::from(bounds.window);
        let mut is_first_queued = true;
        for (index, call) in (0..).zip(&client.calls) {
            let is_hedged = call.is_hedged || call.semantics != Semantics::ExactlyOnce;
            match call.stage {
                // Calls are alike: they are made in their order.
                Stage::Queued => {
                    if is_up && has_window && is_first_queued {
                        out.push(Action::Send(index));
                    }
                    is_first_queued = false;
                    continue;
                }
                Stage::Refused if is_up => out.push(Action::Send(index)),
                Stage::Out if may_hedge && !is_hedged => out.push(Action::Hedge(index)),
                Stage::Ended(_) => continue,
                Stage::Lost | Stage::Out | Stage::Refused => {}
            }
            if self.given_up < bounds.given_up {
                out.push(Action::GiveUp(index));
            }
        }
        if is_up && self.looks < bounds.looks {
            out.extend((0..).take(client.calls.len()).map(Action::Look));
        }
        if self.client_crashes < bounds.client_crashes && client.identity.is_some() {
            out.push(Action::CrashClient);
        }
    }

    fn network_actions(&self, out: &mut Vec<Action>) {
        for (index, pipe) in (0..).zip(&self.pipes) {
            if let Some(frame) = pipe.to_server.front() {
                out.push(Action::DeliverToServer { pipe: index, is_busy: false });
                let is_request = matches!(frame, ToServer::Request { .. });
                if is_request && self.refusals < self.bounds.refusals {
                    out.push(Action::DeliverToServer { pipe: index, is_busy: true });
                }
            }
            if !pipe.to_client.is_empty() {
                out.push(Action::DeliverToClient(index));
            }
            if matches!(pipe.server, End::Open | End::Attached(_)) {
                out.push(Action::Lose(index));
            }
        }
    }

    fn server_actions(&self, out: &mut Vec<Action>) {
        for place in 0..self.server.running() {
            out.push(Action::EndHandler { place, retries: false });
            if self.refusals < self.bounds.refusals {
                out.push(Action::EndHandler { place, retries: true });
            }
        }
        if self.server.unsafe_commits() > 0 {
            out.push(Action::MakeSafe);
        }
        if self.expiries < self.bounds.expiries && self.server.has_sessions() {
            out.push(Action::Expire);
        }
        if self.server_crashes < self.bounds.server_crashes {
            for kept in 0..=self.server.unsafe_commits() {
                out.push(Action::CrashServer { kept });
            }
        }
    }

    fn connect(&mut self, join: bool) {
        let index = PipeIndex::try_from(self.pipes.len()).expect("few connections are allowed");
        // A RESUME that is no second one leaves the others behind.
        if !join {
            self.leave();
        }
        let mut pipe = Pipe::new();
        pipe.to_server.push_back(self.client.connect(index, join));
        self.pipes.push(pipe);
    }

    /// The client hears nobody any more.
    fn leave(&mut self) {
        for pipe in &mut self.pipes {
            pipe.leave();
        }
    }

    /// Puts a frame on the client's first connection, or on its second.
    fn put(&mut self, frame: ToServer, on_second: bool) {
        let link = if on_second { self.client.joined } else { self.client.primary };
        let Some(link) = link else { return };
        let pipe = &mut self.pipes[usize::from(link.pipe)];
        if pipe.server != End::Closed {
            pipe.to_server.push_back(frame);
        }
    }

    fn deliver_to_client(&mut self, index: PipeIndex) -> Result<(), String> {
        let Some(frame) = self.pipes[usize::from(index)].to_client.pop_front() else {
            return Ok(());
        };
        match frame {
            ToClient::Reply { call, .. } => self.server.check_visible(call)?,
            ToClient::Looked { call, effects } if effects > 0 => self.server.check_visible(call)?,
            _ => {}
        }
        for sent in self.client.receive(index, &frame)? {
            self.put(sent, false);
        }
        // Whom the client has left it does not hear.
        for (index, pipe) in (0..).zip(&mut self.pipes) {
            if pipe.is_heard && self.client.link(index).is_none() {
                pipe.leave();
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        self.server.check()?;
        for (index, call) in (0..).zip(&self.client.calls) {
            let effects = self.server.effects(index);
            // From doubt an idempotent method is run again (row 23), once for each crash.
            let again = if self.bounds.is_idempotent { self.server_crashes } else { 0 };
            if effects > 1 + again {
                return Err(format!("I1: call {index} took effect {effects} times"));
            }
            if call.stage == Stage::Ended(Outcome::NotExecuted) && effects > 0 {
                return Err(format!("I9: call {index} was said not to run, and has run"));
            }
        }
        Ok(())
    }
}

impl System for World {
    type Action = Action;

    fn actions(&self, out: &mut Vec<Action>) {
        self.client_actions(out);
        self.network_actions(out);
        self.server_actions(out);
    }

    fn apply(&mut self, action: &Action) -> Result<(), String> {
        match *action {
            Action::Ack => {
                self.client.acked = self.client.floor;
                self.put(ToServer::Ack(self.client.floor), false);
            }
            Action::Connect { join } => self.connect(join),
            Action::CrashClient => {
                self.client_crashes += 1;
                self.leave();
                self.client.crash(self.bounds.has_journal);
            }
            Action::CrashServer { kept } => {
                self.server_crashes += 1;
                self.server.crash(kept, &mut self.pipes);
            }
            Action::DeliverToClient(index) => self.deliver_to_client(index)?,
            Action::DeliverToServer { pipe, is_busy } => {
                self.refusals += u8::from(is_busy);
                self.server.receive(pipe, is_busy, &mut self.pipes);
            }
            Action::Disconnect => {
                self.leave();
                self.client.disconnect();
            }
            Action::EndHandler { place, retries } => {
                self.refusals += u8::from(retries);
                self.server.end_handler(place, retries, &mut self.pipes);
            }
            Action::Expire => {
                self.expiries += 1;
                self.server.expire(&mut self.pipes);
            }
            Action::GiveUp(index) => {
                self.given_up += 1;
                if let Some(cancel) = self.client.give_up(index) {
                    self.put(cancel, false);
                }
            }
            Action::Hedge(index) => {
                let copy = self.client.hedge(index);
                self.put(copy, true);
            }
            Action::Look(index) => {
                self.looks += 1;
                self.put(ToServer::Look(index), false);
            }
            Action::Lose(index) => self.server.lose(index, &mut self.pipes),
            Action::MakeSafe => self.server.make_safe(&mut self.pipes),
            Action::Send(index) => {
                let request = self.client.send(index);
                self.put(request, false);
            }
        }
        self.check()
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.client.hash(&mut hasher);
        self.pipes.hash(&mut hasher);
        self.server.fingerprint(&mut hasher);
        let counts = [self.server_crashes, self.client_crashes, self.expiries];
        (counts, self.looks, self.refusals, self.given_up).hash(&mut hasher);
        hasher.finish()
    }
}
