//! Between JSON, which a person types, and MessagePack, which travels.
//!
//! MessagePack can say more: what JSON has no form for is written as an object with one key that
//! begins with `$`, and such an object is read back as what it says.

use onceloop::Value;
use serde_json::{Map, Number, Value as Json};

/// The keys of what JSON has no form for.
const BINARY: &str = "$bin";
const EXTENSION: &str = "$ext";
const NUMBER: &str = "$float";

/// Reads one argument; a text that is no JSON is a string, so that quotes may be left out.
pub(crate) fn argument(text: &str) -> Value {
    serde_json::from_str(text).map_or_else(|_| Value::from(text), |json| to_value(&json))
}

fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(boolean) => Value::Boolean(*boolean),
        Json::Number(number) => to_number(number),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::Array(items.iter().map(to_value).collect()),
        Json::Object(map) => bytes_of(map).map_or_else(
            || {
                Value::Map(
                    map.iter().map(|(key, value)| (key.as_str().into(), to_value(value))).collect(),
                )
            },
            Value::Binary,
        ),
    }
}

fn to_number(number: &Number) -> Value {
    if let Some(number) = number.as_i64() {
        return Value::Integer(number);
    }
    number.as_u64().map_or_else(
        || Value::Float64(number.as_f64().expect("every JSON number has a nearest f64")),
        Value::Unsigned,
    )
}

/// Reads `{"$bin": "00ff"}`.
fn bytes_of(map: &Map<String, Json>) -> Option<Vec<u8>> {
    let hex = (map.len() == 1).then(|| map.get(BINARY))??.as_str()?;
    if !hex.is_ascii() || hex.len() % 2 != 0 {
        return None;
    }
    let digits = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).ok();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// Writes a reply.
pub(crate) fn from_value(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Boolean(boolean) => Json::Bool(*boolean),
        Value::Integer(number) => Json::from(*number),
        Value::Unsigned(number) => Json::from(*number),
        Value::Float32(number) => from_float(f64::from(*number)),
        Value::Float64(number) => from_float(*number),
        Value::String(text) => match text.as_str() {
            Some(text) => Json::from(text),
            None => special(BINARY, Json::from(hex(text.as_bytes()))),
        },
        Value::Binary(bytes) => special(BINARY, Json::from(hex(bytes))),
        Value::Extension(code, bytes) => {
            special(EXTENSION, Json::from(vec![Json::from(*code), Json::from(hex(bytes))]))
        }
        Value::Array(items) => Json::Array(items.iter().map(from_value).collect()),
        Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| (key_text(key), from_value(value)));
            Json::Object(pairs.collect())
        }
    }
}

fn from_float(number: f64) -> Json {
    // JSON has no infinities and no NaN.
    Number::from_f64(number)
        .map_or_else(|| special(NUMBER, number.to_string().into()), Json::Number)
}

fn key_text(key: &Value) -> String {
    key.as_str().map_or_else(|| key.to_string(), str::to_owned)
}

fn special(key: &str, value: Json) -> Json {
    Json::Object(Map::from_iter([(key.to_owned(), value)]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_can_say_comes_back() {
        for text in
            ["null", "true", "-3", "18446744073709551615", "0.5", r#""a""#, r#"[1,{"k":[]}]"#]
        {
            assert_eq!(from_value(&argument(text)).to_string(), text);
        }
    }

    #[test]
    fn a_bare_word_is_a_string() {
        assert_eq!(argument("hello world"), Value::from("hello world"));
    }

    #[test]
    fn bytes_have_a_form_of_their_own() {
        assert_eq!(argument(r#"{"$bin":"00ff"}"#), Value::Binary(vec![0, 255]));
        assert_eq!(from_value(&Value::Binary(vec![0, 255])).to_string(), r#"{"$bin":"00ff"}"#);
        let no_hex = argument(r#"{"$bin":"0x"}"#);
        assert!(matches!(no_hex, Value::Map(_)), "{no_hex:?}");
    }

    #[test]
    fn what_json_cannot_say_is_still_said() {
        let nan = from_value(&Value::Float64(f64::NAN));
        assert_eq!(nan.to_string(), r#"{"$float":"NaN"}"#);
        let extension = from_value(&Value::Extension(-1, vec![1]));
        assert_eq!(extension.to_string(), r#"{"$ext":[-1,"01"]}"#);
    }
}
