//! The arguments of a call: an array, one element an argument.

use super::{CodecError, Decode, Encode};
use crate::value::Value;

/// Arguments that can be written: a tuple of up to twelve [`Encode`] values, or a list of [`Value`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tuple of arguments that can be sent",
    label = "not a tuple of up to twelve values that can be encoded",
    note = "the arguments of a call are a tuple, also a single one: `(text,)`",
    note = "each of them implements `serde::Serialize`, or is a `Raw` or a `Value`"
)]
pub trait EncodeArgs {
    /// Appends the arguments to `out`.
    ///
    /// # Errors
    /// If one has no form in MessagePack; the error tells which.
    fn encode_args(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;
}

/// Arguments that can be read: a tuple of up to twelve [`Decode`] values, or a list of [`Value`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tuple of arguments that can be received",
    label = "not a tuple of up to twelve values that can be decoded",
    note = "each argument implements `serde::Deserialize`, or is a `Raw` or a `Value`"
)]
pub trait DecodeArgs<'a>: Sized {
    /// Reads the arguments that are the whole of `body`; nil is an empty array.
    ///
    /// # Errors
    /// If there are more or fewer, or one is not of its type; the error tells which.
    fn decode_args(body: &'a [u8]) -> Result<Self, CodecError>;
}

/// Takes the header of the array of arguments off the front of `input`.
#[inline]
fn count(input: &mut &[u8]) -> Result<usize, CodecError> {
    let (count, rest) = match **input {
        [marker @ 0x90..=0x9f, ref rest @ ..] => (usize::from(marker & 0x0f), rest),
        [0xc0, ref rest @ ..] => (0, rest),
        [0xdc, a, b, ref rest @ ..] => (usize::from(u16::from_be_bytes([a, b])), rest),
        [0xdd, a, b, c, d, ref rest @ ..] => {
            // What does not fit is more than any method takes.
            (usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX), rest)
        }
        _ => return Err(CodecError::NotAnArray),
    };
    *input = rest;
    Ok(count)
}

/// Refuses bytes after the last argument.
#[inline]
fn end<T>(args: T, rest: &[u8]) -> Result<T, CodecError> {
    match rest.len() {
        0 => Ok(args),
        bytes => Err(CodecError::Trailing { bytes }),
    }
}

macro_rules! tuples {
    ($($length:literal: $($name:ident $index:tt)*;)*) => {$(
        impl<$($name: Encode),*> EncodeArgs for ($($name,)*) {
            #[inline]
            fn encode_args(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.push(0x90 | $length);
                $(self.$index.encode(out).map_err(|error| CodecError::of_argument($index, error))?;)*
                Ok(())
            }
        }

        impl<'a, $($name: Decode<'a>),*> DecodeArgs<'a> for ($($name,)*) {
            #[inline]
            fn decode_args(body: &'a [u8]) -> Result<Self, CodecError> {
                let mut input = body;
                let got = count(&mut input)?;
                if got != $length {
                    return Err(CodecError::ArgumentCount { takes: $length, got });
                }
                // Fields of a tuple are evaluated from left to right.
                let args = ($(
                    $name::decode(&mut input)
                        .map_err(|error| CodecError::of_argument($index, error))?,
                )*);
                end(args, input)
            }
        }
    )*};
}

tuples! {
    0:;
    1: A 0;
    2: A 0 B 1;
    3: A 0 B 1 C 2;
    4: A 0 B 1 C 2 D 3;
    5: A 0 B 1 C 2 D 3 E 4;
    6: A 0 B 1 C 2 D 3 E 4 F 5;
    7: A 0 B 1 C 2 D 3 E 4 F 5 G 6;
    8: A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7;
    9: A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8;
    10: A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9;
    11: A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10;
    12: A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11;
}

impl EncodeArgs for [Value] {
    fn encode_args(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        crate::value::encode_array(self, out)
    }
}

impl EncodeArgs for &[Value] {
    fn encode_args(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        (**self).encode_args(out)
    }
}

impl EncodeArgs for Vec<Value> {
    fn encode_args(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.as_slice().encode_args(out)
    }
}

impl<'a> DecodeArgs<'a> for Vec<Value> {
    fn decode_args(body: &'a [u8]) -> Result<Self, CodecError> {
        let mut input = body;
        let got = count(&mut input)?;
        // Every argument takes a byte at least.
        let mut args = Vec::with_capacity(got.min(input.len()));
        for index in 0..got {
            let arg = Value::decode(&mut input);
            args.push(arg.map_err(|error| CodecError::of_argument(index, error))?);
        }
        end(args, input)
    }
}
