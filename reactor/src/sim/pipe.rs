//! One direction of a connection: what is under way, what has arrived, and what becomes of it.

use std::collections::VecDeque;

/// The end of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// They arrive.
    Runs,
    /// They vanish, and the sender's buffers never empty.
    Hole,
    /// They vanish, and the sender's buffers empty.
    Swallows,
}

/// What strikes after so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doom {
    pub(crate) after: u64,
    pub(crate) kind: DoomKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DoomKind {
    BlackHole,
    Cut,
    HalfClose,
}

/// What was written at once, or the end.
#[derive(Debug)]
struct Segment {
    /// When it arrives.
    at: u64,
    bytes: Vec<u8>,
    /// So many of them have arrived.
    arrived: usize,
    end: Option<End>,
}

/// From one end to the other.
#[derive(Debug)]
pub(crate) struct Pipe {
    segments: VecDeque<Segment>,
    /// What has arrived; the first `read` bytes have been read.
    received: Vec<u8>,
    read: usize,
    /// Bytes that the sender's and the receiver's buffers hold, or would if they had not vanished.
    held_bytes: usize,
    /// Most of them.
    room_max: usize,
    /// When the last segment arrives: the next comes after it.
    last_at: u64,
    arrived_bytes: u64,
    /// A happening will deliver the first segment.
    pub(crate) is_scheduled: bool,
    /// The first segment waits for the end of a partition.
    pub(crate) is_held: bool,
    /// The end has arrived; it is read after the bytes.
    pub(crate) end: Option<End>,
    /// The sender has ended it.
    pub(crate) is_shut: bool,
    /// The sender was told that there is no room, and not yet that there is again.
    pub(crate) was_full: bool,
    /// A happening will tell it.
    pub(crate) tells_room: bool,
    pub(crate) flow: Flow,
    pub(crate) doom: Option<Doom>,
    /// So many bytes more arrive one by one.
    pub(crate) drip_reads: u32,
    /// So many bytes more are taken one by one.
    pub(crate) drip_writes: u32,
}

/// What came of looking at the first segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// So many bytes arrived.
    Bytes(usize),
    End(End),
    /// Nothing yet; the first segment arrives then.
    Later(u64),
    /// Nothing is under way.
    Nothing,
}

impl Pipe {
    pub(crate) fn new(room_max: usize) -> Self {
        Self {
            segments: VecDeque::new(),
            received: Vec::new(),
            read: 0,
            held_bytes: 0,
            room_max,
            last_at: 0,
            arrived_bytes: 0,
            is_scheduled: false,
            is_held: false,
            end: None,
            is_shut: false,
            was_full: false,
            tells_room: false,
            flow: Flow::Runs,
            doom: None,
            drip_reads: 0,
            drip_writes: 0,
        }
    }

    /// How many bytes the sender may write now.
    pub(crate) fn room(&self) -> usize {
        let room = self.room_max.saturating_sub(self.held_bytes);
        if self.drip_writes > 0 { room.min(1) } else { room }
    }

    /// Whether there is so much room again that a sender is told of it: a third, as on Linux.
    pub(crate) fn has_much_room(&self) -> bool {
        3 * self.held_bytes <= 2 * self.room_max
    }

    /// Takes bytes from the sender, which arrive at `at` or after what went before them. Returns
    /// when.
    pub(crate) fn send(&mut self, at: u64, bytes: Vec<u8>, end: Option<End>) -> u64 {
        self.held_bytes += bytes.len();
        self.last_at = self.last_at.max(at);
        self.is_shut |= end.is_some();
        self.segments.push_back(Segment { at: self.last_at, bytes, arrived: 0, end });
        self.last_at
    }

    /// When the first segment arrives.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.segments.front().map(|segment| segment.at)
    }

    /// Whether the first segment is nothing but the end.
    pub(crate) fn is_at_end(&self) -> bool {
        self.segments.front().is_some_and(|first| first.arrived == first.bytes.len())
    }

    /// Takes in what of the first segment has arrived by `now`: one byte if they drip, and none
    /// past the point where the doom strikes.
    pub(crate) fn arrive(&mut self, now: u64, spare: &mut Vec<Vec<u8>>) -> Arrival {
        let Some(first) = self.segments.front_mut() else { return Arrival::Nothing };
        if first.at > now {
            return Arrival::Later(first.at);
        }
        let rest = &first.bytes[first.arrived..];
        let mut n = rest.len();
        if self.drip_reads > 0 && n > 0 {
            self.drip_reads -= 1;
            n = 1;
        }
        if let Some(doom) = self.doom {
            let left = doom.after.saturating_sub(self.arrived_bytes);
            n = n.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.received.extend_from_slice(&rest[..n]);
        self.arrived_bytes += n as u64;
        first.arrived += n;
        let end = first.end;
        if n == 0 && first.arrived == first.bytes.len() {
            self.end = end;
            self.drop_first(spare);
            return end.map_or(Arrival::Bytes(0), Arrival::End);
        }
        if first.arrived == first.bytes.len() && end.is_none() {
            self.drop_first(spare);
        }
        Arrival::Bytes(n)
    }

    /// Takes the doom, if the bytes that have arrived bring it about.
    pub(crate) fn take_doom(&mut self) -> Option<DoomKind> {
        let is_due = self.doom.is_some_and(|doom| self.arrived_bytes >= doom.after);
        if is_due { self.doom.take().map(|doom| doom.kind) } else { None }
    }

    /// Reads what has arrived; 0 if there is nothing.
    pub(crate) fn read(&mut self, space: &mut [u8]) -> usize {
        let unread = &self.received[self.read..];
        let n = unread.len().min(space.len());
        space[..n].copy_from_slice(&unread[..n]);
        self.read += n;
        self.held_bytes -= n;
        if self.read == self.received.len() {
            self.received.clear();
            self.read = 0;
        } else if self.read >= 64 * 1024 {
            self.received.drain(..self.read);
            self.read = 0;
        }
        n
    }

    pub(crate) fn has_unread(&self) -> bool {
        self.read < self.received.len()
    }

    /// Whether a read would bring anything: bytes, or the end.
    pub(crate) fn is_readable(&self) -> bool {
        self.has_unread() || self.end.is_some()
    }

    /// Loses what is under way, and all that follows, as `flow` says.
    pub(crate) fn lose(&mut self, flow: Flow, spare: &mut Vec<Vec<u8>>) {
        self.flow = flow;
        while let Some(first) = self.segments.front() {
            if flow != Flow::Hole {
                self.held_bytes -= first.bytes.len() - first.arrived;
            }
            self.drop_first(spare);
        }
    }

    /// Loses what has arrived and was not read.
    pub(crate) fn forget_unread(&mut self) {
        self.held_bytes -= self.received.len() - self.read;
        self.received.clear();
        self.read = 0;
    }

    /// Gives back its memory.
    pub(crate) fn recycle(mut self, spare: &mut Vec<Vec<u8>>) {
        self.lose(Flow::Swallows, spare);
        give(std::mem::take(&mut self.received), spare);
    }

    fn drop_first(&mut self, spare: &mut Vec<Vec<u8>>) {
        if let Some(first) = self.segments.pop_front() {
            give(first.bytes, spare);
        }
    }
}

/// Keeps a buffer for the next segment.
fn give(mut buffer: Vec<u8>, spare: &mut Vec<Vec<u8>>) {
    if (1..=4096).contains(&buffer.capacity()) && spare.len() < 64 {
        buffer.clear();
        spare.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pipe: &mut Pipe) -> Vec<u8> {
        let mut space = [0; 100];
        let n = pipe.read(&mut space);
        space[..n].to_vec()
    }

    #[test]
    fn segments_arrive_in_order_each_at_its_time_and_the_end_after_them() {
        let mut spare = Vec::new();
        let mut pipe = Pipe::new(10);
        assert_eq!(pipe.send(20, b"abc".to_vec(), None), 20);
        assert_eq!(pipe.send(10, b"de".to_vec(), Some(End::Fin)), 20, "nothing overtakes");
        assert_eq!((pipe.room(), pipe.is_shut), (5, true));
        assert_eq!(pipe.arrive(19, &mut spare), Arrival::Later(20));
        assert_eq!(pipe.arrive(20, &mut spare), Arrival::Bytes(3));
        assert_eq!(pipe.room(), 5, "unread bytes take room");
        assert_eq!(read(&mut pipe), b"abc");
        assert_eq!(pipe.room(), 8);
        assert_eq!(pipe.arrive(20, &mut spare), Arrival::Bytes(2));
        assert_eq!(pipe.arrive(20, &mut spare), Arrival::End(End::Fin));
        assert_eq!(pipe.arrive(20, &mut spare), Arrival::Nothing);
        assert_eq!(read(&mut pipe), b"de");
        assert!(pipe.is_readable() && !pipe.has_unread(), "the end");
    }

    #[test]
    fn bytes_drip_and_stop_where_the_doom_strikes() {
        let mut spare = Vec::new();
        let mut pipe = Pipe::new(100);
        pipe.drip_reads = 2;
        pipe.doom = Some(Doom { after: 4, kind: DoomKind::Cut });
        pipe.send(0, b"abcdef".to_vec(), None);
        let mut arrivals = Vec::new();
        while pipe.take_doom().is_none() {
            arrivals.push(pipe.arrive(0, &mut spare));
        }
        assert_eq!(arrivals, [Arrival::Bytes(1), Arrival::Bytes(1), Arrival::Bytes(2)]);
        assert_eq!(read(&mut pipe), b"abcd");
        pipe.lose(Flow::Swallows, &mut spare);
        assert_eq!(pipe.room(), 100, "what was lost takes no room");
    }

    #[test]
    fn a_black_hole_fills_the_senders_buffers() {
        let mut pipe = Pipe::new(100);
        pipe.send(0, vec![0; 30], None);
        pipe.lose(Flow::Hole, &mut Vec::new());
        assert_eq!(pipe.room(), 70);
        pipe.drip_writes = 1;
        assert_eq!(pipe.room(), 1);
    }
}
