//! Is this body well-formed MessagePack within the limits?
//!
//! The connection asks before anything else looks at a body, and everything after relies on the
//! answer: no recursion and no allocation is bounded by what a stranger wrote, only by what was
//! scanned. The scan goes from element to element through a table of 256 entries, without
//! recursion; it costs about a nanosecond an element and reads no payload.
//!
//! [`scan`] is for framed bodies, where everything is there and a value that goes beyond the end is
//! a refusal. [`Scanner`] is for a stream without frames: it stops where the bytes end and goes on
//! there, so that a message cut at every byte costs as much as one that comes whole.
//!
//! It does not look into strings: whether they are UTF-8 is the decoder's business.

use std::fmt;

use crate::limits::Limits;

#[cfg(test)]
mod tests;

/// Containers in each other that the scan can keep track of. A higher limit is taken as this: the
/// room is part of every [`Scanner`], and no decoder behind it is safe for much deeper values.
pub const SCAN_DEPTH_CAPACITY: usize = 32;

/// What one body may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// Containers in each other; at most [`SCAN_DEPTH_CAPACITY`] counts.
    pub depth_max: usize,
    /// Elements through all levels: each value in an array, each key and each value in a map.
    pub elements_max: usize,
    /// Bytes of a value without a frame; a framed one is bounded by its frame.
    pub bytes_max: usize,
}

impl ScanLimits {
    /// Returns the part of `limits` that bounds a body.
    pub const fn of(limits: &Limits) -> ScanLimits {
        ScanLimits {
            depth_max: limits.depth_max,
            elements_max: limits.elements_max,
            bytes_max: limits.body_bytes_max,
        }
    }
}

impl Default for ScanLimits {
    fn default() -> Self {
        ScanLimits::of(&Limits::default())
    }
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanError {
    /// It is nested too deeply.
    Depth {
        /// Containers in each other that are allowed.
        max: usize,
    },
    /// It has too many elements.
    Elements {
        /// How many it declares up to where the scan stopped.
        count: u64,
        /// How many are allowed.
        max: usize,
    },
    /// It is too long.
    Length {
        /// How many bytes it needs up to where the scan stopped.
        bytes: u64,
        /// How many are allowed.
        max: usize,
    },
    /// There is a byte that begins no value (0xc1).
    Reserved {
        /// Where.
        at: usize,
    },
    /// There are bytes after the value.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The value needs more bytes than there are.
    Truncated {
        /// How many there are.
        bytes: usize,
    },
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ScanError::Depth { max } => {
                write!(f, "nested too deeply: at most {max} arrays and maps in each other")
            }
            ScanError::Elements { count, max } => write!(
                f,
                "{} elements; at most {}: send bytes as bin, not as an array of numbers",
                Grouped(count),
                Grouped(max as u64)
            ),
            ScanError::Length { bytes, max } => {
                write!(f, "{} bytes; at most {}", Grouped(bytes), Grouped(max as u64))
            }
            ScanError::Reserved { at } => {
                write!(f, "byte {at} is 0xc1, which begins no MessagePack value")
            }
            ScanError::Trailing { bytes } => {
                write!(f, "{} bytes after the value", Grouped(bytes as u64))
            }
            ScanError::Truncated { bytes } => {
                write!(f, "the value goes on beyond the {} bytes there are", Grouped(bytes as u64))
            }
        }
    }
}

impl std::error::Error for ScanError {}

/// Checks that `body` is exactly one MessagePack value within `limits`.
///
/// # Errors
/// What is wrong with it first, from its beginning. It is never "wait for more": a framed body is
/// whole.
#[inline]
pub fn scan(body: &[u8], limits: &ScanLimits) -> Result<(), ScanError> {
    match body.len() - framed_len(body, limits)? {
        0 => Ok(()),
        bytes => Err(ScanError::Trailing { bytes }),
    }
}

/// Returns how many bytes the MessagePack value at the front of `bytes` takes.
///
/// # Errors
/// If there is no whole value, or one nested deeper than [`SCAN_DEPTH_CAPACITY`].
#[inline]
pub fn value_len(bytes: &[u8]) -> Result<usize, ScanError> {
    match plain_len(bytes, 0) {
        Some(length) if length <= bytes.len() => Ok(length),
        _ => unbounded_len(bytes),
    }
}

/// Returns what [`value_len`] does of a value that is not plain, or not whole.
fn unbounded_len(bytes: &[u8]) -> Result<usize, ScanError> {
    let unbounded = ScanLimits {
        depth_max: SCAN_DEPTH_CAPACITY,
        elements_max: usize::MAX,
        bytes_max: usize::MAX,
    };
    framed_len(bytes, &unbounded)
}

/// Returns the length of the value at the front of `bytes`, which has nothing to wait for.
#[inline]
fn framed_len(bytes: &[u8], limits: &ScanLimits) -> Result<usize, ScanError> {
    match short_len(bytes) {
        Some(length) if limits.depth_max > 0 && limits.elements_max >= SHORT_ELEMENTS_MAX => {
            Ok(length)
        }
        _ => long_len(bytes, limits),
    }
}

/// The most elements of a value that [`short_len`] knows.
const SHORT_ELEMENTS_MAX: usize = 0x0f;

/// Returns the length of the value at the front of `bytes` if it is plain, or a short array of plain
/// ones, as most arguments are. Then there is nothing to keep track of.
#[inline]
fn short_len(bytes: &[u8]) -> Option<usize> {
    let marker = *bytes.first()?;
    let (elements, mut position) = match marker {
        0x90..=0x9f => (usize::from(marker) & SHORT_ELEMENTS_MAX, 1),
        _ => (1, 0),
    };
    for _ in 0..elements {
        position += plain_len(bytes, position)?;
    }
    (position <= bytes.len()).then_some(position)
}

/// Returns the length of the value at `position` if it is a plain one, whole or not: neither an array
/// nor a map, nor long.
#[inline]
fn plain_len(bytes: &[u8], position: usize) -> Option<usize> {
    let marker = *bytes.get(position)?;
    let class = TABLE[usize::from(marker)];
    match class {
        1..=FIXED_BYTES_MAX => Some(usize::from(class)),
        BYTES_8 => Some(2 + usize::from(*bytes.get(position + 1)?)),
        _ => None,
    }
}

/// Returns the length of any value at the front of `bytes`.
fn long_len(bytes: &[u8], limits: &ScanLimits) -> Result<usize, ScanError> {
    match Scanner::new().advance::<true>(bytes, limits) {
        Progress::Done(length) => Ok(length),
        Progress::NeedMore => Err(ScanError::Truncated { bytes: bytes.len() }),
        Progress::Refused(error) => Err(error),
    }
}

/// What a [`Scanner`] says. Exhaustive: these three are all there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The value is whole and takes this many bytes; what comes after is another.
    Done(usize),
    /// It is not whole yet: ask again when there are more bytes.
    NeedMore,
    /// It will never be accepted.
    Refused(ScanError),
}

/// A scan that can stop where the bytes end and go on when there are more.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// Where the next element begins; it may lie beyond the bytes there are.
    position: usize,
    /// Elements declared so far.
    elements: u32,
    /// Values that must still come, through all levels.
    pending: u32,
    /// For each open container, what `pending` is when it is complete.
    floors: [u32; SCAN_DEPTH_CAPACITY],
    depth: usize,
    /// Elements looked at; a test holds it against the length of the input.
    #[cfg(test)]
    steps: usize,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner::new()
    }
}

impl Scanner {
    /// Returns a scanner at the beginning of a value.
    pub const fn new() -> Scanner {
        Scanner {
            position: 0,
            elements: 0,
            pending: 1,
            floors: [0; SCAN_DEPTH_CAPACITY],
            depth: 0,
            #[cfg(test)]
            steps: 0,
        }
    }

    /// Goes on with the value that begins at `bytes[0]`.
    ///
    /// `bytes` holds what it held before, and more behind it. After `Done` or `Refused` the scanner
    /// is of no further use; the next value takes a new one.
    pub fn resume(&mut self, bytes: &[u8], limits: &ScanLimits) -> Progress {
        self.advance::<false>(bytes, limits)
    }

    /// Returns how many bytes the whole value takes at least, as far as it was seen: a hint of how
    /// much to read.
    pub fn bytes_min(&self) -> usize {
        self.position.saturating_add(self.pending as usize)
    }
}

impl Scanner {
    /// Looks at elements until the value ends, the bytes end, or a limit is passed.
    ///
    /// `FRAMED`: there will be no more bytes, so what is declared must fit into those there are.
    #[inline]
    fn advance<const FRAMED: bool>(&mut self, bytes: &[u8], limits: &ScanLimits) -> Progress {
        loop {
            let floor = if self.depth == 0 { 0 } else { self.floors[self.depth - 1] };
            while self.pending > floor {
                let Some(class) = self.pass_fixed(bytes, floor) else { break };
                match class {
                    None => return Progress::NeedMore,
                    Some(RESERVED) => {
                        return Progress::Refused(ScanError::Reserved { at: self.position });
                    }
                    Some(class) => match self.open::<FRAMED>(class, bytes, limits) {
                        Ok(true) => break,
                        Ok(false) => {}
                        Err(progress) => return progress,
                    },
                }
            }
            while self.depth > 0 && self.pending == self.floors[self.depth - 1] {
                self.depth -= 1;
            }
            if self.pending == 0 {
                // The last payload may still be on its way.
                return match self.position <= bytes.len() {
                    true => Progress::Done(self.position),
                    false => Progress::NeedMore,
                };
            }
        }
    }

    /// Goes past the elements of one container for as long as their first byte tells their length.
    /// They need no look at the limits: that there is room for one byte of each was checked when the
    /// container was opened. Returns the class of the element it stops at, `Some(None)` where the
    /// bytes end, or `None` at the end of the container.
    #[inline]
    fn pass_fixed(&mut self, bytes: &[u8], floor: u32) -> Option<Option<u8>> {
        // In registers: through memory each element would wait for the one before.
        let (mut position, mut pending) = (self.position, self.pending);
        let stop = loop {
            if pending == floor {
                break None;
            }
            let Some(&marker) = bytes.get(position) else { break Some(None) };
            #[cfg(test)]
            {
                self.steps += 1;
            }
            match marker {
                // Small numbers and short strings, the most frequent. The table would do, but the
                // next element waits for it, and does not wait for a branch that is foreseen.
                0x00..=0x7f => position += 1,
                0xa0..=0xbf => position += 1 + usize::from(marker & 0x1f),
                _ => match TABLE[usize::from(marker)] {
                    class @ 1..=FIXED_BYTES_MAX => position += usize::from(class),
                    class => break Some(Some(class)),
                },
            }
            pending -= 1;
        };
        (self.position, self.pending) = (position, pending);
        stop
    }

    /// Takes an element that says how long it is or how many it holds; tells whether a container
    /// with something in it has begun. Changes nothing if the element's own header is cut.
    #[inline]
    fn open<const FRAMED: bool>(
        &mut self,
        class: u8,
        bytes: &[u8],
        limits: &ScanLimits,
    ) -> Result<bool, Progress> {
        let header = 1 + usize::from(class & SIZE_BITS);
        let Some(header) = bytes.get(self.position..self.position + header) else {
            return Err(Progress::NeedMore);
        };
        let number = match *header {
            [marker] => u64::from(marker & 0x0f),
            [_, a] => u64::from(a),
            [_, a, b] => u64::from(u16::from_be_bytes([a, b])),
            [_, a, b, c, d] => u64::from(u32::from_be_bytes([a, b, c, d])),
            _ => unreachable!("SIZE_BITS of the table are 0, 1, 2 or 4"),
        };
        let begins = if class & CONTAINER == 0 {
            let payload = number + u64::from(class & EXTENSION != 0);
            self.skip(header.len() as u64 + payload);
            false
        } else {
            let count = self.enter(number << u32::from(class & MAP == MAP), limits)?;
            self.skip(header.len() as u64);
            self.pending += count;
            count > 0
        };
        let needed = self.position as u64 + u64::from(self.pending);
        if FRAMED {
            if needed > bytes.len() as u64 {
                return Err(Progress::Refused(ScanError::Truncated { bytes: bytes.len() }));
            }
        } else if needed > limits.bytes_max as u64 {
            let error = ScanError::Length { bytes: needed, max: limits.bytes_max };
            return Err(Progress::Refused(error));
        }
        Ok(begins)
    }

    /// Counts one element and goes past it.
    #[inline]
    fn skip(&mut self, bytes: u64) {
        self.pending -= 1;
        // On a 32-bit machine 4 GiB do not fit; the caller refuses such a position at once.
        self.position = self.position.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Goes one level down, into a container of `count` elements, and returns their number.
    #[inline]
    fn enter(&mut self, count: u64, limits: &ScanLimits) -> Result<u32, Progress> {
        let depth_max = limits.depth_max.min(SCAN_DEPTH_CAPACITY);
        if self.depth >= depth_max {
            return Err(Progress::Refused(ScanError::Depth { max: depth_max }));
        }
        let elements = u64::from(self.elements) + count;
        // `pending` is at most one more than `elements`.
        let elements_max = limits.elements_max.min(ELEMENTS_CAPACITY as usize);
        if elements > elements_max as u64 {
            let error = ScanError::Elements { count: elements, max: elements_max };
            return Err(Progress::Refused(error));
        }
        let count = u32::try_from(count).expect("not more than the elements in all");
        self.elements += count;
        if count > 0 {
            self.floors[self.depth] = self.pending - 1;
            self.depth += 1;
        }
        Ok(count)
    }
}

/// Elements that the scan can count, more than a frame has bytes.
const ELEMENTS_CAPACITY: u32 = u32::MAX - 1;
/// The longest element whose length its first byte tells: a str of 31 bytes.
const FIXED_BYTES_MAX: u8 = 32;
/// The class of the byte that begins no value.
const RESERVED: u8 = 0;
/// In a class: how many bytes the number after the marker takes.
const SIZE_BITS: u8 = 0x07;
/// In a class: one byte more than the number says, an extension's type.
const EXTENSION: u8 = 0x08;
/// In a class: neither of the two below.
const PAYLOAD: u8 = 0x40;
/// The class of a str or bin with a length of one byte.
const BYTES_8: u8 = PAYLOAD | 1;
/// In a class: this bit stands for arrays and maps.
const CONTAINER: u8 = 0x80;
/// In a class: the container is a map, of twice as many elements.
const MAP: u8 = 0xc0;

/// For each first byte: 0 if it is reserved, the length of the whole element if the byte tells it
/// (1 to 32), or the bits above.
static TABLE: [u8; 256] = {
    let mut table = [1; 256];
    let mut marker = 0;
    while marker < 256 {
        table[marker] = class_of(marker);
        marker += 1;
    }
    table
};

#[expect(clippy::cast_possible_truncation, reason = "a fixstr is at most 32 bytes long")]
const fn class_of(marker: usize) -> u8 {
    match marker {
        0x80..=0x8f => MAP,
        0x90..=0x9f => CONTAINER,
        0xa0..=0xbf => 1 + (marker - 0xa0) as u8,
        0xc1 => RESERVED,
        0xc4 | 0xd9 => BYTES_8,
        0xc5 | 0xda => PAYLOAD | 2,
        0xc6 | 0xdb => PAYLOAD | 4,
        0xc7 => PAYLOAD | EXTENSION | 1,
        0xc8 => PAYLOAD | EXTENSION | 2,
        0xc9 => PAYLOAD | EXTENSION | 4,
        0xcc | 0xd0 => 2,
        0xcd | 0xd1 | 0xd4 => 3,
        0xce | 0xd2 | 0xca => 5,
        0xcf | 0xd3 | 0xcb => 9,
        0xd5 => 4,
        0xd6 => 6,
        0xd7 => 10,
        0xd8 => 18,
        0xdc => CONTAINER | 2,
        0xdd => CONTAINER | 4,
        0xde => MAP | 2,
        0xdf => MAP | 4,
        _ => 1,
    }
}

/// A number with a space between its thousands.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.char_indices() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_str(" ")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}
