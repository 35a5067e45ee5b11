//! Bytes to values. Nested calls are bounded by depth, allocations by the bytes that are left.

use super::{StrBytes, Value};
use crate::codec::CodecError;
use crate::scan::ScanError;

pub(super) fn value(input: &mut &[u8], depth_left: usize) -> Result<Value, CodecError> {
    let [marker] = take(input)?;
    Ok(match marker {
        0x00..=0x7f => Value::Integer(i64::from(marker)),
        0x80..=0x8f => map(input, usize::from(marker & 0x0f), depth_left)?,
        0x90..=0x9f => array(input, usize::from(marker & 0x0f), depth_left)?,
        0xa0..=0xbf => string(input, usize::from(marker & 0x1f))?,
        0xc0 => Value::Nil,
        0xc2 => Value::Boolean(false),
        0xc3 => Value::Boolean(true),
        0xc4..=0xc6 => {
            let length = length(input, 1 << (marker - 0xc4))?;
            Value::Binary(bytes(input, length)?)
        }
        0xc7..=0xc9 => {
            let length = length(input, 1 << (marker - 0xc7))?;
            extension(input, length)?
        }
        0xca => Value::Float32(f32::from_be_bytes(take(input)?)),
        0xcb => Value::Float64(f64::from_be_bytes(take(input)?)),
        0xcc => Value::from(u8::from_be_bytes(take(input)?)),
        0xcd => Value::from(u16::from_be_bytes(take(input)?)),
        0xce => Value::from(u32::from_be_bytes(take(input)?)),
        0xcf => Value::from(u64::from_be_bytes(take(input)?)),
        0xd0 => Value::from(i8::from_be_bytes(take(input)?)),
        0xd1 => Value::from(i16::from_be_bytes(take(input)?)),
        0xd2 => Value::from(i32::from_be_bytes(take(input)?)),
        0xd3 => Value::from(i64::from_be_bytes(take(input)?)),
        0xd4..=0xd8 => extension(input, 1 << (marker - 0xd4))?,
        0xd9..=0xdb => {
            let length = length(input, 1 << (marker - 0xd9))?;
            string(input, length)?
        }
        0xdc | 0xdd => {
            let count = length(input, 2 << (marker - 0xdc))?;
            array(input, count, depth_left)?
        }
        0xde | 0xdf => {
            let count = length(input, 2 << (marker - 0xde))?;
            map(input, count, depth_left)?
        }
        0xe0..=0xff => Value::Integer(i64::from(marker.cast_signed())),
        0xc1 => return Err(CodecError::Scan(ScanError::Reserved { at: 0 })),
    })
}

fn truncated(input: &[u8]) -> CodecError {
    CodecError::Scan(ScanError::Truncated { bytes: input.len() })
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (taken, rest) = input.split_first_chunk().ok_or_else(|| truncated(input))?;
    *input = rest;
    Ok(*taken)
}

fn bytes(input: &mut &[u8], length: usize) -> Result<Vec<u8>, CodecError> {
    let (taken, rest) = input.split_at_checked(length).ok_or_else(|| truncated(input))?;
    *input = rest;
    Ok(taken.to_vec())
}

/// Takes a big-endian number of `size` bytes: 1, 2 or 4.
fn length(input: &mut &[u8], size: usize) -> Result<usize, CodecError> {
    let (number, rest) = input.split_at_checked(size).ok_or_else(|| truncated(input))?;
    *input = rest;
    Ok(number.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

fn string(input: &mut &[u8], length: usize) -> Result<Value, CodecError> {
    Ok(Value::String(StrBytes(bytes(input, length)?)))
}

fn extension(input: &mut &[u8], length: usize) -> Result<Value, CodecError> {
    let [number] = take(input)?;
    Ok(Value::Extension(number.cast_signed(), bytes(input, length)?))
}

fn array(input: &mut &[u8], count: usize, depth_left: usize) -> Result<Value, CodecError> {
    let depth_left = depth_left.checked_sub(1).ok_or(CodecError::Depth)?;
    // Every element takes a byte: more than are left cannot come.
    let mut elements = Vec::with_capacity(count.min(input.len()));
    for _ in 0..count {
        elements.push(value(input, depth_left)?);
    }
    Ok(Value::Array(elements))
}

fn map(input: &mut &[u8], count: usize, depth_left: usize) -> Result<Value, CodecError> {
    let depth_left = depth_left.checked_sub(1).ok_or(CodecError::Depth)?;
    let mut entries = Vec::with_capacity(count.min(input.len() / 2));
    for _ in 0..count {
        entries.push((value(input, depth_left)?, value(input, depth_left)?));
    }
    Ok(Value::Map(entries))
}
