//! Values without a Rust type: whatever MessagePack can say.
//!
//! A value that was read comes back as it was: a float32 stays one, bytes in the str family stay in
//! it even if they are not UTF-8, an extension keeps its type. Only numbers and lengths are written
//! in their shortest form, whatever form they came in.

use crate::codec::{CodecError, Decode, Encode};
use crate::scan::SCAN_DEPTH_CAPACITY;

mod convert;
mod display;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use write::encode_array;

/// Any MessagePack value. Exhaustive: MessagePack has no other.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// An array.
    Array(Vec<Value>),
    /// Bytes.
    Binary(Vec<u8>),
    /// True or false.
    Boolean(bool),
    /// A value of a type that only its users know, by number; negative numbers are MessagePack's own.
    Extension(i8, Vec<u8>),
    /// A floating-point number of 32 bits.
    Float32(f32),
    /// A floating-point number of 64 bits.
    Float64(f64),
    /// An integer that fits an i64.
    Integer(i64),
    /// Pairs of a key and a value, in their order; nothing keeps a key from standing there twice.
    Map(Vec<(Value, Value)>),
    /// Nothing.
    #[default]
    Nil,
    /// Text.
    String(StrBytes),
    /// An integer beyond an i64. A smaller one should be an [`Value::Integer`], which is what it
    /// comes back as; `Value::from` chooses.
    Unsigned(u64),
}

impl Value {
    /// Returns the text, if it is a string and UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => text.as_str(),
            _ => None,
        }
    }

    /// Returns the number, if it is an integer that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::Integer(number) => Some(number),
            Value::Unsigned(number) => i64::try_from(number).ok(),
            _ => None,
        }
    }

    /// Returns the number, if it is an integer that fits.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::Integer(number) => u64::try_from(number).ok(),
            Value::Unsigned(number) => Some(number),
            _ => None,
        }
    }

    /// Returns what stands under the key `name`, if it is a map and has one; the first if several.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let Value::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    }
}

impl Encode for Value {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        write::value(self, out, SCAN_DEPTH_CAPACITY)
    }
}

impl<'a> Decode<'a> for Value {
    /// Takes one value off the front of `input`. It is nested at most 32 deep, whether the bytes
    /// were scanned or not.
    fn decode(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        read::value(input, SCAN_DEPTH_CAPACITY)
    }
}

/// The bytes of a string. MessagePack says UTF-8, but older peers put any bytes there, and they must
/// come back as they were.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StrBytes(Vec<u8>);

impl StrBytes {
    /// Returns a string of these bytes, UTF-8 or not.
    pub fn new(bytes: impl Into<Vec<u8>>) -> StrBytes {
        StrBytes(bytes.into())
    }

    /// Returns the text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the bytes back.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
