//! Values to bytes, each in the shortest form of its family.

use super::Value;
use crate::codec::{CodecError, Encode};
use crate::scan::SCAN_DEPTH_CAPACITY;

/// Appends an array of `elements`.
pub(crate) fn encode_array(elements: &[Value], out: &mut Vec<u8>) -> Result<(), CodecError> {
    array(elements, out, SCAN_DEPTH_CAPACITY)
}

pub(super) fn value(value: &Value, out: &mut Vec<u8>, depth_left: usize) -> Result<(), CodecError> {
    match value {
        Value::Array(elements) => array(elements, out, depth_left)?,
        Value::Binary(bytes) => {
            header(out, &BINARY, bytes.len())?;
            out.extend_from_slice(bytes);
        }
        Value::Boolean(truth) => out.push(if *truth { 0xc3 } else { 0xc2 }),
        Value::Extension(number, bytes) => extension(*number, bytes, out)?,
        // The numbers as serde writes them, which is the shortest form.
        Value::Float32(number) => number.encode(out)?,
        Value::Float64(number) => number.encode(out)?,
        Value::Integer(number) => number.encode(out)?,
        Value::Map(entries) => map(entries, out, depth_left)?,
        Value::Nil => out.push(0xc0),
        Value::String(text) => {
            header(out, &STRING, text.as_bytes().len())?;
            out.extend_from_slice(text.as_bytes());
        }
        Value::Unsigned(number) => number.encode(out)?,
    }
    Ok(())
}

fn array(elements: &[Value], out: &mut Vec<u8>, depth_left: usize) -> Result<(), CodecError> {
    let depth_left = depth_left.checked_sub(1).ok_or(CodecError::Depth)?;
    header(out, &ARRAY, elements.len())?;
    elements.iter().try_for_each(|element| value(element, out, depth_left))
}

fn map(entries: &[(Value, Value)], out: &mut Vec<u8>, depth_left: usize) -> Result<(), CodecError> {
    let depth_left = depth_left.checked_sub(1).ok_or(CodecError::Depth)?;
    header(out, &MAP, entries.len())?;
    entries.iter().try_for_each(|(key, held)| {
        value(key, out, depth_left)?;
        value(held, out, depth_left)
    })
}

fn extension(number: i8, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    match bytes.len() {
        1 => out.push(0xd4),
        2 => out.push(0xd5),
        4 => out.push(0xd6),
        8 => out.push(0xd7),
        16 => out.push(0xd8),
        length => header(out, &EXTENSION, length)?,
    }
    out.push(number.cast_unsigned());
    out.extend_from_slice(bytes);
    Ok(())
}

/// The first bytes of one family, by how long a value is.
struct Family {
    /// Of the values whose length stands in the first byte: that byte for the length 0, and how
    /// many lengths there are.
    fixed: (u8, u8),
    /// With a length of one byte.
    one: Option<u8>,
    /// With a length of two bytes.
    two: u8,
    /// With a length of four bytes.
    four: u8,
}

const ARRAY: Family = Family { fixed: (0x90, 16), one: None, two: 0xdc, four: 0xdd };
const BINARY: Family = Family { fixed: (0, 0), one: Some(0xc4), two: 0xc5, four: 0xc6 };
const EXTENSION: Family = Family { fixed: (0, 0), one: Some(0xc7), two: 0xc8, four: 0xc9 };
const MAP: Family = Family { fixed: (0x80, 16), one: None, two: 0xde, four: 0xdf };
const STRING: Family = Family { fixed: (0xa0, 32), one: Some(0xd9), two: 0xda, four: 0xdb };

fn header(out: &mut Vec<u8>, family: &Family, length: usize) -> Result<(), CodecError> {
    let length = u32::try_from(length).map_err(|_| {
        CodecError::Unencodable("MessagePack has no lengths of 4 GiB and more".into())
    })?;
    match (u8::try_from(length), family.one, u16::try_from(length)) {
        (Ok(short), ..) if short < family.fixed.1 => out.push(family.fixed.0 | short),
        (Ok(short), Some(one), _) => out.extend([one, short]),
        (_, _, Ok(middle)) => {
            out.push(family.two);
            out.extend(middle.to_be_bytes());
        }
        _ => {
            out.push(family.four);
            out.extend(length.to_be_bytes());
        }
    }
    Ok(())
}
