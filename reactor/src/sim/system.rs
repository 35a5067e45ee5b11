//! What the system of a host does for its sockets: takes what is written, closes, tells of readiness.

use std::io;

use super::What;
use super::connection::{CLIENT, Key, Listening, SERVER, Stage, Watch};
use super::pipe::{End, Flow};
use super::queue::Event;
use super::world::{Inner, Ready};
use crate::source::Readiness;

impl Inner {
    /// Takes what there is room for.
    pub(crate) fn write(&mut self, key: Key, side: usize, bytes: &[u8]) -> io::Result<usize> {
        let connection = self.connection(key).ok_or(io::ErrorKind::NotConnected)?;
        let this = &mut connection.sides[side];
        if let Some(kind) = this.error.take() {
            return Err(kind.into());
        }
        let pipe = &mut connection.pipes[side];
        if this.is_broken || pipe.is_shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if this.stage != Stage::Open {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(pipe.room());
        let drips = pipe.drip_writes > 0 && n > 0;
        if drips {
            pipe.drip_writes -= 1;
        }
        if n < bytes.len() {
            pipe.was_full = true;
            if drips && !pipe.tells_room {
                pipe.tells_room = true;
                let at = connection.random.range(2_000..40_000);
                let at = self.now + at;
                self.queue.push(at, Event::Room { side, key });
            }
        }
        if n == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.trace.bytes(&bytes[..n]);
        let mut segment = self.spare.pop().unwrap_or_default();
        segment.extend_from_slice(&bytes[..n]);
        self.send(key, side, segment, None);
        Ok(n)
    }

    /// Puts a segment, or the end, on its way.
    pub(crate) fn send(&mut self, key: Key, side: usize, segment: Vec<u8>, end: Option<End>) {
        let arrives = self.arrival(key, side);
        let Some(connection) = self.connection(key) else { return };
        let host = connection.sides[side].host;
        let pipe = &mut connection.pipes[side];
        let bytes = segment.len();
        pipe.send(arrives, segment, end);
        let flow = pipe.flow;
        if flow != Flow::Runs {
            let Self { connections, spare, .. } = self;
            connections[key.index].pipes[side].lose(flow, spare);
            self.tell_room(key, side);
        }
        if end.is_none() {
            self.line(host, What::Wrote { connection: key.number, bytes });
        }
        self.schedule(key, 1 - side);
    }

    /// There is room again for this side to write.
    pub(crate) fn has_room(&mut self, key: Key, side: usize) {
        let Some(connection) = self.connection(key) else { return };
        let pipe = &mut connection.pipes[side];
        pipe.tells_room = false;
        if pipe.room() > 0 {
            pipe.was_full = false;
            self.raise(key, side, Readiness::WRITABLE);
        }
    }

    /// Closes a socket as the system does for a process: what was written still arrives, then the
    /// end, or a reset if something was left unread. A dead machine closes nothing.
    pub(crate) fn close(&mut self, key: Key, side: usize) {
        let Some(connection) = self.connection(key) else { return };
        let (this, other) = (&connection.sides[side], &connection.sides[1 - side]);
        let (host, stage, other_stage) = (this.host, this.stage, other.stage);
        if stage == Stage::Closed {
            return;
        }
        let is_broken = this.is_broken;
        let unread = connection.pipes[1 - side].has_unread();
        let is_shut = connection.pipes[side].is_shut;
        let is_late = connection.is_late;
        let side_state = &mut connection.sides[side];
        side_state.stage = Stage::Closed;
        side_state.watch = Watch::default();
        connection.pipes[1 - side].forget_unread();
        self.line(host, What::Closed { connection: key.number });
        let nobody_is_coming =
            other_stage == Stage::Unborn && stage == Stage::Connecting && !is_late;
        let was_refused = other_stage == Stage::Unborn && is_broken;
        if other_stage == Stage::Closed || nobody_is_coming || was_refused {
            return self.free(key);
        }
        if is_broken || self.hosts[host].is_dark {
            return;
        }
        if stage == Stage::Connecting || unread {
            self.send(key, side, Vec::new(), Some(End::Reset));
        } else if !is_shut {
            self.send(key, side, Vec::new(), Some(End::Fin));
        }
    }

    pub(crate) fn close_listener(&mut self, key: Key) {
        if self.listening(key).is_none() {
            return;
        }
        for waiting in self.listeners.remove(key.index).backlog {
            // Its bytes were never read: the peer is reset.
            if self.connection(waiting).is_some() {
                self.close_unaccepted(waiting);
            }
        }
    }

    fn close_unaccepted(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let client = connection.sides[CLIENT].stage;
        let server = &mut connection.sides[SERVER];
        server.stage = Stage::Closed;
        let (host, is_broken) = (server.host, server.is_broken);
        if client == Stage::Closed {
            return self.free(key);
        }
        if !is_broken && !self.hosts[host].is_dark {
            self.send(key, SERVER, Vec::new(), Some(End::Reset));
        }
    }

    pub(crate) fn listening(&mut self, key: Key) -> Option<&mut Listening> {
        self.listeners.get_mut(key.index).filter(|listening| listening.number == key.number)
    }

    /// Tells the reactor of a socket of its readiness, as an edge-triggered poll does: with each
    /// news of one kind it says again that the other holds.
    pub(crate) fn raise(&mut self, key: Key, side: usize, mut readiness: u8) {
        let Some(connection) = self.connection(key) else { return };
        let is_open = connection.sides[side].stage == Stage::Open;
        if is_open && !connection.pipes[side].was_full {
            readiness |= Readiness::WRITABLE;
        }
        let watch = &mut connection.sides[side].watch;
        let Some((seat, _)) = watch.seat else { return };
        watch.readiness |= readiness;
        if !std::mem::replace(&mut watch.is_queued, true) {
            self.push_ready(seat, Ready::Socket(key, side));
        }
    }

    pub(crate) fn raise_listener(&mut self, key: Key) {
        let Some(listening) = self.listening(key) else { return };
        let Some((seat, _)) = listening.watch.seat else { return };
        listening.watch.readiness |= Readiness::READABLE;
        if !std::mem::replace(&mut listening.watch.is_queued, true) {
            self.push_ready(seat, Ready::Listener(key));
        }
    }

    /// Closes all that a host has still open, whoever holds it.
    pub(crate) fn close_all(&mut self, host: usize) {
        let listeners: Vec<Key> = (self.listeners.iter())
            .filter(|(_, listening)| listening.host == host)
            .map(|(index, listening)| Key { index, number: listening.number })
            .collect();
        for key in listeners {
            self.close_listener(key);
        }
        for side in [CLIENT, SERVER] {
            let open: Vec<Key> = (self.connections.iter())
                .filter(|(_, connection)| {
                    let side = &connection.sides[side];
                    side.host == host && !matches!(side.stage, Stage::Closed | Stage::Unborn)
                })
                .map(|(index, connection)| Key { index, number: connection.number })
                .collect();
            for key in open {
                self.close(key, side);
            }
        }
    }
}
