//! Values for people: JSON, and beside it what JSON cannot say.

use std::fmt::{self, Write};

use super::{StrBytes, Value};

/// Writes JSON where the value has a JSON form. Beyond it: `bin"00ff"` for bytes, `ext(5, "00ff")`
/// for an extension, keys of any type in a map, `NaN` and `inf`. A float keeps its point, so that it
/// is told from an integer.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Array(elements) => {
                f.write_str("[")?;
                for (i, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Binary(bytes) => write!(f, "bin\"{}\"", Hex(bytes)),
            Value::Boolean(truth) => write!(f, "{truth}"),
            Value::Extension(number, bytes) => write!(f, "ext({number}, \"{}\")", Hex(bytes)),
            // `Debug` writes 1.0 where `Display` writes 1.
            Value::Float32(number) => write!(f, "{number:?}"),
            Value::Float64(number) => write!(f, "{number:?}"),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Map(entries) => {
                f.write_str("{")?;
                for (i, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Value::Nil => f.write_str("null"),
            Value::String(text) => write!(f, "{text}"),
            Value::Unsigned(number) => write!(f, "{number}"),
        }
    }
}

/// Writes the text as a JSON string; bytes that are not UTF-8 become U+FFFD.
impl fmt::Display for StrBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in String::from_utf8_lossy(&self.0).chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                control if control.is_control() => write!(f, "\\u{:04x}", u32::from(control))?,
                plain => f.write_char(plain)?,
            }
        }
        f.write_char('"')
    }
}

impl fmt::Debug for StrBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
