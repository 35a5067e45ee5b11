//! Values that stay bytes: of one family ([`Bin`]) or of any ([`Raw`]).

use std::fmt;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::{CodecError, Decode, Encode, take_value};
use crate::scan::value_len;

/// Bytes that travel as a bin, borrowed from the frame they came in.
///
/// Serde takes a `&[u8]` for a list of numbers when it writes and for bytes when it reads, so it
/// would not come back. `service!` puts this type in the place of a `&[u8]`; in a struct, write
/// `#[serde(borrow)] data: Bin<'a>`, or `data: bytes::Bytes` to own them.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bin<'a>(pub &'a [u8]);

impl Deref for Bin<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl AsRef<[u8]> for Bin<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Bin<'a> {
    fn from(bytes: &'a T) -> Self {
        Bin(bytes.as_ref())
    }
}

impl fmt::Debug for Bin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bin({} bytes)", self.0.len())
    }
}

impl Serialize for Bin<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bin<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A str is taken, too: older dialects know one family for both.
        <&'a [u8]>::deserialize(deserializer).map(Bin)
    }
}

/// One MessagePack value as its bytes: passed on, byte for byte, without being understood.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Raw<'a>(&'a [u8]);

impl<'a> Raw<'a> {
    /// nil.
    pub const NIL: Raw<'static> = Raw(&[0xc0]);

    /// Returns `bytes` as one value.
    ///
    /// # Errors
    /// If they are not exactly one.
    pub fn new(bytes: &'a [u8]) -> Result<Raw<'a>, CodecError> {
        match bytes.len() - value_len(bytes).map_err(CodecError::Scan)? {
            0 => Ok(Raw(bytes)),
            bytes => Err(CodecError::Trailing { bytes }),
        }
    }

    /// Returns the value's bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Reads it as a value of type `T`.
    ///
    /// # Errors
    /// If it is of another type.
    pub fn read<T: Decode<'a>>(self) -> Result<T, CodecError> {
        super::decode_whole(self.0)
    }

    /// Returns a copy that lives on its own.
    pub fn to_owned(self) -> OwnedRaw {
        OwnedRaw(self.0.into())
    }
}

impl fmt::Debug for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({} bytes)", self.0.len())
    }
}

impl Encode for Raw<'_> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(self.0);
        Ok(())
    }
}

impl<'a> Decode<'a> for Raw<'a> {
    #[inline]
    fn decode(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        take_value(input).map(Raw)
    }
}

/// One MessagePack value as its bytes, owned: what a blocking caller of a `Raw` reply gets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OwnedRaw(Box<[u8]>);

impl OwnedRaw {
    /// Returns it borrowed.
    pub fn as_raw(&self) -> Raw<'_> {
        Raw(&self.0)
    }
}

impl fmt::Debug for OwnedRaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_raw(), f)
    }
}
