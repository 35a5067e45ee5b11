//! Frames out of a stream of bytes, wherever it is cut.
//!
//! A [`Cutter`] is given what has arrived and takes whole frames off its front, in place; it copies
//! nothing. Of a frame too large to be taken it remembers only how many bytes are still to be
//! skipped.

use std::fmt;

use crate::frame::{Frame, HEADER_BYTES, Header, Kind, LENGTH_BYTES, MAGIC};

#[cfg(test)]
mod tests;

/// A longer frame is not skipped: the connection cannot be told from one that has lost its framing.
pub const FRAME_SKIP_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where a stream of frames stands.
#[derive(Clone, Copy, Debug)]
pub struct Cutter {
    /// Bytes of a refused frame that are still to come; or [`NOT_BEGUN`].
    skip: u32,
}

/// The magic has not been read. (No frame is so long that as many bytes of it were skipped.)
const NOT_BEGUN: u32 = u32::MAX;

impl Default for Cutter {
    fn default() -> Self {
        Cutter::new()
    }
}

/// What stands at the front of the input.
///
/// Exhaustive: there is no fifth case.
#[derive(Clone, Copy, Debug)]
pub enum Cut<'a> {
    /// A whole frame; the input is past it.
    Frame(Frame<'a>),
    /// What came is not our protocol: nothing that follows means anything.
    Lost(FramingError),
    /// Part of a frame, or of the magic, that will have so many bytes. Ask again with at least that
    /// many, the same ones in front.
    NeedMore(usize),
    /// A frame whose body, of `length` bytes, is larger than allowed. Its body is skipped, now and
    /// in the following calls.
    Refused {
        /// Its header.
        header: Header,
        /// Bytes of its body.
        length: usize,
    },
}

impl Cutter {
    /// Returns a cutter for a stream that begins with the magic.
    pub const fn new() -> Cutter {
        Cutter { skip: NOT_BEGUN }
    }

    /// Returns a cutter that stands at the beginning of a frame, as every one does behind a whole
    /// frame.
    pub const fn between_frames() -> Cutter {
        Cutter { skip: 0 }
    }

    /// Returns whether a refused frame is being skipped, whose end has not come.
    pub const fn is_skipping(&self) -> bool {
        self.skip > 0 && self.skip != NOT_BEGUN
    }

    /// Takes the next frame off the front of `input`.
    // Where only REQUESTs are taken, most of it is decided when it is compiled.
    #[inline(always)]
    pub fn next<'a>(&mut self, input: &mut &'a [u8], body_bytes_max: usize) -> Cut<'a> {
        if self.skip > 0
            && let Some(cut) = self.begin(input)
        {
            return cut;
        }
        let Some(length) = input.first_chunk::<LENGTH_BYTES>() else {
            return Cut::NeedMore(LENGTH_BYTES);
        };
        // On a 32-bit machine 4 GiB do not fit; what is lost thereby is far beyond any limit.
        let total = LENGTH_BYTES.saturating_add(u32::from_be_bytes(*length) as usize);
        let Some(fixed) = input.first_chunk::<HEADER_BYTES>() else {
            return match total {
                0..HEADER_BYTES => Cut::Lost(FramingError::TooShort { bytes: total }),
                _ => Cut::NeedMore(HEADER_BYTES),
            };
        };
        let Some(kind) = Kind::from_wire(fixed[4]) else {
            return Cut::Lost(FramingError::UnknownKind { kind: fixed[4] });
        };
        if fixed[5] != 0 {
            return Cut::Lost(FramingError::Reserved { byte: fixed[5] });
        }
        let header_bytes = kind.header_bytes();
        if total < header_bytes {
            return Cut::Lost(FramingError::TooShort { bytes: total });
        }
        let is_whole = input.len() >= total;
        if total - header_bytes > body_bytes_max {
            return self.refuse(input, header_bytes, total);
        }
        if !is_whole {
            return Cut::NeedMore(total);
        }
        let (frame, rest) = input.split_at(total);
        *input = rest;
        let header = Header::read_of(kind, frame).expect("it has a header's bytes");
        Cut::Frame(Frame { header, body: &frame[header_bytes..] })
    }

    /// Reads the magic, or skips what is left of a refused frame. `None` when that is done.
    #[cold]
    fn begin<'a>(&mut self, input: &mut &'a [u8]) -> Option<Cut<'a>> {
        if self.skip != NOT_BEGUN {
            let skipped = input.len().min(self.skip as usize);
            *input = &input[skipped..];
            self.skip -= u32::try_from(skipped).expect("no more than the u32 it was bounded by");
            return (self.skip > 0).then_some(Cut::NeedMore(1));
        }
        let seen = input.len().min(MAGIC.len());
        if input[..seen] != MAGIC[..seen] {
            return Some(Cut::Lost(FramingError::Stranger(Stranger::of(input))));
        }
        if seen < MAGIC.len() {
            return Some(Cut::NeedMore(MAGIC.len()));
        }
        *input = &input[seen..];
        self.skip = 0;
        None
    }

    #[cold]
    fn refuse<'a>(&mut self, input: &mut &'a [u8], header_bytes: usize, total: usize) -> Cut<'a> {
        if total > FRAME_SKIP_BYTES_MAX {
            return Cut::Lost(FramingError::TooLong { bytes: total });
        }
        if input.len() < header_bytes {
            return Cut::NeedMore(header_bytes);
        }
        let header = Header::read(input).expect("its kind is known and it has a header's bytes");
        *input = &input[header_bytes..];
        let length = total - header_bytes;
        self.skip = u32::try_from(length).expect("bounded by FRAME_SKIP_BYTES_MAX");
        let skipped = input.len().min(length);
        *input = &input[skipped..];
        self.skip -= u32::try_from(skipped).expect("no more than `length`");
        Cut::Refused { header, length }
    }
}

/// Why framing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FramingError {
    /// The reserved byte of a header is not zero.
    Reserved {
        /// What it is.
        byte: u8,
    },
    /// The stream does not begin with our magic.
    Stranger(Stranger),
    /// A frame too long to be skipped.
    TooLong {
        /// Its length, with its length field.
        bytes: usize,
    },
    /// A frame shorter than its header.
    TooShort {
        /// Its length, with its length field.
        bytes: usize,
    },
    /// A frame of a kind that this version does not know.
    UnknownKind {
        /// The number of the kind.
        kind: u8,
    },
}

impl FramingError {
    /// Returns what to write to a peer that does not speak our protocol, in its own if we can tell.
    pub fn refusal_for_strangers(&self) -> &'static [u8] {
        match self {
            FramingError::Stranger(Stranger::Http) => {
                b"HTTP/1.0 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
                  This port speaks Onceloop RPC, not HTTP.\n"
            }
            _ => b"This port speaks Onceloop RPC: a connection begins with `onceloop`.\n",
        }
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FramingError::Reserved { byte } => {
                write!(f, "the reserved byte of a header is {byte:#04x}, not zero")
            }
            FramingError::Stranger(stranger) => write!(f, "not Onceloop, but {stranger}"),
            FramingError::TooLong { bytes } => {
                write!(f, "a frame of {bytes} bytes: at most {FRAME_SKIP_BYTES_MAX} are skipped")
            }
            FramingError::TooShort { bytes } => {
                write!(f, "a frame of {bytes} bytes: shorter than its header")
            }
            FramingError::UnknownKind { kind } => {
                write!(f, "a frame of kind {kind}, which this version does not know")
            }
        }
    }
}

impl std::error::Error for FramingError {}

/// What a stream that is not ours looks like, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stranger {
    /// An HTTP request.
    Http,
    /// A MessagePack array: MessagePack-RPC.
    MessagePackRpc,
    /// Something else, which begins with this byte.
    Other(u8),
    /// The hello of a TLS client.
    Tls,
}

impl Stranger {
    fn of(input: &[u8]) -> Stranger {
        // `PRI` begins HTTP/2, `HTTP` a server's answer.
        const VERBS: [&[u8]; 11] = [
            b"CONNECT ",
            b"DELETE ",
            b"GET ",
            b"HEAD ",
            b"HTTP/",
            b"OPTIONS ",
            b"PATCH ",
            b"POST ",
            b"PRI ",
            b"PUT ",
            b"TRACE ",
        ];
        match input {
            [0x16, ..] => Stranger::Tls,
            [0x93 | 0x94 | 0xdc | 0xdd, ..] => Stranger::MessagePackRpc,
            input
                if VERBS
                    .iter()
                    .any(|verb| input.starts_with(&verb[..verb.len().min(input.len())])) =>
            {
                Stranger::Http
            }
            [byte, ..] => Stranger::Other(*byte),
            [] => unreachable!("an empty input is no stranger"),
        }
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stranger::Http => f.write_str("HTTP"),
            Stranger::MessagePackRpc => {
                f.write_str("MessagePack-RPC, which this version does not serve")
            }
            Stranger::Other(byte) => write!(f, "something that begins with {byte:#04x}"),
            Stranger::Tls => f.write_str("TLS, which is not configured here"),
        }
    }
}
