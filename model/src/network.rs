//! The connections there ever were, and the frames on their way.
//!
//! Within a connection frames keep their order, as TCP does; between connections anything may
//! overtake anything, and what the client has written to a connection may arrive long after it has
//! gone on to another. A frame is lost only with all that follows it on its connection.

use std::collections::VecDeque;

use onceloop_protocol::error::Code;
use onceloop_protocol::handshake::CellReport;

/// Which call; the client has few.
pub(crate) type CallIndex = u8;
/// Which of the sessions that were ever opened.
pub(crate) type SessionIndex = u8;
/// Which of the connections that were ever made.
pub(crate) type PipeIndex = u8;

/// A frame from the client.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) enum ToServer {
    /// ACK: all up to this seq is consumed or burnt.
    Ack(u64),
    /// CANCEL of this seq.
    Cancel(u64),
    /// HELLO.
    Hello,
    /// An unprotected REQUEST that reads how often a call took effect.
    Look(CallIndex),
    /// REQUEST.
    Request { seq: u64, call: CallIndex, ack: u64 },
    /// RESUME.
    Resume { session: SessionIndex, incarnation: u32, attachment: u32, ack: u64, join: bool },
}

/// A frame from the server.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) enum ToClient {
    /// ERROR for a seq, or (0) for the connection.
    Error { seq: u64, code: u16 },
    /// REPLY to [`ToServer::Look`]: how often the call took effect.
    Looked { call: CallIndex, effects: u8 },
    /// REPLY with the number of the call it answers.
    Reply { seq: u64, call: CallIndex },
    /// RESUMED.
    Resumed { floor: u64, cells: Vec<Report> },
    /// WELCOME.
    Welcome(SessionIndex),
}

/// [`CellReport`], hashable.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Report {
    /// Nobody has it.
    Vacant,
    /// It runs or has ended.
    Occupied,
}

impl From<CellReport> for Report {
    fn from(report: CellReport) -> Report {
        match report {
            CellReport::Vacant => Report::Vacant,
            CellReport::Running | CellReport::Finished => Report::Occupied,
        }
    }
}

impl ToClient {
    /// Returns the frame of an error with this code.
    pub(crate) fn error(seq: u64, code: Code) -> ToClient {
        ToClient::Error { seq, code: code as u16 }
    }
}

/// How far the server is with a connection.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum End {
    /// It has not been accepted: a server that is started anew may still accept it.
    Waiting,
    /// It is open; its first frame has not come or was refused.
    Open,
    /// It is attached to a session.
    Attached(SessionIndex),
    /// It was closed.
    Closed,
}

/// One connection.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Pipe {
    /// Frames on their way to the server.
    pub(crate) to_server: VecDeque<ToServer>,
    /// Frames on their way to the client.
    pub(crate) to_client: VecDeque<ToClient>,
    /// The server's end.
    pub(crate) server: End,
    /// Whether the client still listens.
    pub(crate) is_heard: bool,
}

impl Pipe {
    /// Returns a connection that the client has just made.
    pub(crate) fn new() -> Pipe {
        Pipe {
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            server: End::Waiting,
            is_heard: true,
        }
    }

    /// The server closes its end: what has not been read is lost.
    pub(crate) fn close_at_server(&mut self) {
        self.server = End::Closed;
        self.to_server.clear();
    }

    /// The client goes away; what it has written is still on its way.
    pub(crate) fn leave(&mut self) {
        self.is_heard = false;
        self.to_client.clear();
    }

    /// Queues a frame for the client, if anybody hears it.
    pub(crate) fn tell(&mut self, frame: ToClient) {
        if self.is_heard && self.server != End::Closed {
            self.to_client.push_back(frame);
        }
    }
}

impl Default for Pipe {
    fn default() -> Pipe {
        Pipe::new()
    }
}
