//! Clients leave, come back and end.

use super::*;

impl World {
    /// One of the session's connections is lost.
    pub(super) fn lose(&mut self, i: usize) {
        let session = &mut self.sessions[i];
        if !session.connections.is_empty() {
            let which = self.dice.below(session.connections.len());
            let connection = session.connections.remove(which);
            self.table.detach(session.key, connection, self.now);
            self.old.push((i, connection));
        }
    }

    /// A client comes back, or comes by a second connection.
    pub(super) fn resume(&mut self, i: usize) {
        let connection = self.connection();
        let session = &mut self.sessions[i];
        let is_restart = self.dice.below(3) == 0;
        if is_restart {
            session.incarnation += 1;
        } else {
            session.attachment += 1;
        }
        let ack = session.floor + u64::from(self.dice.below(6) == 0);
        let mut message = resume(session.sid, session.incarnation, session.attachment, ack);
        message.join = self.dice.below(2) == 0;
        let resumption = self
            .table
            .resume(&message, connection, Principal::ANYONE, self.now)
            .expect("it is newer");
        session.raise_floor(ack, &mut self.tally);
        let joins = message.join && !is_restart;
        if !joins {
            session.held.clear();
        }
        let stay = if joins { session.connections.len().min(1) } else { 0 };
        let replaced = session.connections.split_off(stay);
        assert_eq!(resumption.replaced, replaced, "of two the first stays");
        session.connections.push(connection);
        self.tally.joins += u32::from(session.connections.len() == 2);
        self.old.extend(replaced.into_iter().map(|old| (i, old)));
        self.check_resumed(i, &resumption.resumed.expect("nothing is to be waited for"));
        self.take_turns(i);
    }

    /// RESUMED tells what became of every call, and what is finished follows in the order of seqs.
    pub(super) fn check_resumed(&mut self, i: usize, resumed: &Resumed) {
        let floor = self.sessions[i].floor;
        assert_eq!(resumed.floor, floor);
        let mut owed = Vec::new();
        for seq in floor + 1..=floor + u64::from(WINDOW) + 2 {
            let session = &self.sessions[i];
            assert_eq!(resumed.report(seq), session.report(seq), "seq {seq}");
            self.tally.reports[resumed.report(seq) as usize] += 1;
            let Some(xid) = session.ran.get(&seq).filter(|xid| xid.has_ended) else { continue };
            match &xid.answer {
                Some(answer) => owed.extend_from_slice(answer),
                None => owed.extend_from_slice(&self.not_retained(i, seq)),
            }
        }
        let mut out = Vec::new();
        self.table.append_finished(self.sessions[i].key, &mut out);
        assert_eq!(out, owed);
    }

    /// The frame that a retry of a call too large to keep gets.
    pub(super) fn not_retained(&mut self, i: usize, seq: u64) -> Vec<u8> {
        let session = &self.sessions[i];
        let body = [session.ran[&seq].body];
        let mut header = Header::new(Kind::Request, seq);
        header.method = METHOD;
        let request = Request {
            frame: &Frame { header, body: &body },
            connection: *session.connections.last().expect("it has just been attached"),
            digest: self.table.digest(METHOD, &body),
            is_idempotent: false,
            is_transactional: false,
            refusal: None,
        };
        let Admission::Refuse(refusal) = self.table.admit(session.key, &request, self.now) else {
            panic!("seq {seq} was not kept")
        };
        assert_eq!(refusal.code, Code::NotRetained);
        let mut frame = Vec::new();
        refusal.append(seq, &mut frame);
        frame
    }

    /// BYE, and another client in its place.
    pub(super) fn bye(&mut self, i: usize) {
        self.table.close(self.sessions[i].key, self.now);
        self.forget(i);
    }

    /// The model forgets session `i`, which the table has deleted.
    pub(super) fn forget(&mut self, i: usize) {
        self.tally.sessions_ended += 1;
        self.gone.push((self.sessions[i].key, self.sessions[i].sid));
        self.old.retain(|&(of, _)| of != i);
        for running in &mut self.running {
            if running.xid.is_some_and(|(of, _)| of == i) {
                running.xid = None;
                assert!(!self.table.is_awaited(running.call));
            }
        }
        self.open(i);
    }
}
