//! Arguments and replies, between Rust values and bytes.
//!
//! Everything goes through two traits, [`Encode`] and [`Decode`]. Every type with serde's traits has
//! them; so do [`Raw`] and [`Value`](crate::value::Value), for what serde's model cannot carry (a str
//! that is not UTF-8, an extension, a float32 that stays one). [`EncodeArgs`] and [`DecodeArgs`] put
//! several of them side by side: the arguments of a call.
//!
//! How things look in bytes, for every peer of every language:
//!
//! * arguments: an array, one element an argument;
//! * a struct: a map from field names, so that it may gain an optional field without breaking older
//!   peers;
//! * an enum: its variant's name, or a map of one entry from that name to what the variant holds;
//! * bytes: a bin. In Rust that is [`Bin`] (which [`service!`](crate::service) puts in the place of
//!   `&[u8]`) or [`bytes::Bytes`]; serde's `Vec<u8>` is a list of numbers, good for short ones.
//!
//! A decoder here follows no value deeper than the scan does, whatever bytes it is given; but it does
//! not count elements, so bytes of a stranger go through [`scan()`] first. [`decode_scanned`] does
//! both.

use serde::{Deserialize, Serialize};

use crate::scan::{ScanLimits, scan, value_len};

mod args;
mod borrowed;
mod error;

#[cfg(test)]
mod tests;

pub use args::{DecodeArgs, EncodeArgs};
pub use borrowed::{Bin, OwnedRaw, Raw};
pub use error::CodecError;

/// Nesting that rmp-serde may follow. It refuses the level at which its count reaches zero, hence
/// one more than the 32 the scan lets through.
const SERDE_DEPTH: usize = crate::scan::SCAN_DEPTH_CAPACITY + 1;

/// A value that can be written as MessagePack.
pub trait Encode {
    /// Appends the value to `out`.
    ///
    /// # Errors
    /// If the value has no form in MessagePack, or its own `Serialize` fails. What was appended
    /// until then is of no use.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;
}

/// A value that can be read from MessagePack, borrowing from it for as long as `'a`.
pub trait Decode<'a>: Sized {
    /// Takes one value off the front of `input`.
    ///
    /// # Errors
    /// If there is no whole value or it is not of this type.
    fn decode(input: &mut &'a [u8]) -> Result<Self, CodecError>;
}

impl<T: Serialize + ?Sized> Encode for T {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let mut serializer = rmp_serde::Serializer::new(out).with_struct_map();
        self.serialize(&mut serializer).map_err(|error| CodecError::unencodable(&error))
    }
}

impl<'a, T: Deserialize<'a>> Decode<'a> for T {
    #[inline]
    fn decode(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        let value = take_value(input)?;
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(value);
        deserializer.set_max_depth(SERDE_DEPTH);
        T::deserialize(&mut deserializer).map_err(|error| CodecError::undecodable(&error))
    }
}

/// Returns the MessagePack form of `value`.
///
/// # Errors
/// If it has none.
pub fn encode<T: Encode + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    value.encode(&mut out)?;
    Ok(out)
}

/// Reads `body`, all of it, as one value.
///
/// # Errors
/// If it is not of this type, or there are bytes after it.
#[inline]
pub fn decode_whole<'a, T: Decode<'a>>(body: &'a [u8]) -> Result<T, CodecError> {
    let mut input = body;
    let value = T::decode(&mut input)?;
    match input.len() {
        0 => Ok(value),
        bytes => Err(CodecError::Trailing { bytes }),
    }
}

/// Scans `body` and reads it, all of it, as one value.
///
/// # Errors
/// If the scan refuses it or it is not of this type.
pub fn decode_scanned<'a, T: Decode<'a>>(
    body: &'a [u8],
    limits: &ScanLimits,
) -> Result<T, CodecError> {
    scan(body, limits).map_err(CodecError::Scan)?;
    decode_whole(body)
}

/// Takes the bytes of one value off the front of `input`.
#[inline]
fn take_value<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], CodecError> {
    let (value, rest) = input.split_at(value_len(input).map_err(CodecError::Scan)?);
    *input = rest;
    Ok(value)
}
