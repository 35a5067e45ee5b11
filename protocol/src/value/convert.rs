//! Rust values to [`Value`].

use super::{StrBytes, Value};

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl From<$type> for Value {
            fn from(number: $type) -> Self {
                Value::Integer(i64::from(number))
            }
        }
    )*};
}

integers! { i8 i16 i32 i64 u8 u16 u32 }

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Value::Unsigned(number), Value::Integer)
    }
}

impl From<()> for Value {
    fn from((): ()) -> Self {
        Value::Nil
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Value::Boolean(truth)
    }
}

impl From<f32> for Value {
    fn from(number: f32) -> Self {
        Value::Float32(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Float64(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text.into())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Value::Binary(bytes.into())
    }
}

impl From<bytes::Bytes> for Value {
    fn from(bytes: bytes::Bytes) -> Self {
        Value::Binary(bytes.into())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(option: Option<T>) -> Self {
        option.map_or(Value::Nil, Into::into)
    }
}

/// A list becomes an array; bytes are a [`Value::Binary`], which `&[u8]` and `Bytes` become.
impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(elements: Vec<T>) -> Self {
        elements.into_iter().collect()
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Value::Array(elements.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<Value>, V: Into<Value>> FromIterator<(K, V)> for Value {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let entry = |(key, value): (K, V)| (key.into(), value.into());
        Value::Map(entries.into_iter().map(entry).collect())
    }
}

impl From<&str> for StrBytes {
    fn from(text: &str) -> Self {
        StrBytes(text.as_bytes().into())
    }
}

impl From<String> for StrBytes {
    fn from(text: String) -> Self {
        StrBytes(text.into_bytes())
    }
}
