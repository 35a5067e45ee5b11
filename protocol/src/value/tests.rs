use super::*;
use crate::codec::{decode_whole, encode};
use crate::scan::{ScanError, scan};

/// One of everything, and all of the lengths at which the form changes.
fn specimens() -> Vec<Value> {
    let mut all = vec![
        Value::Nil,
        true.into(),
        false.into(),
        1.5_f32.into(),
        f32::NEG_INFINITY.into(),
        0.1_f64.into(),
        "".into(),
        "grüße".into(),
        Value::String(StrBytes::new([0xff, 0, 0xfe])),
        Value::Extension(-1, vec![1, 2, 3, 4]),
        Value::Extension(127, vec![]),
    ];
    let powers = (0..64).map(|bit| 1_u64 << bit);
    all.extend(powers.flat_map(|n| [n - 1, n, n + 1]).chain([u64::MAX]).map(Value::from));
    let powers = (0..63).map(|bit| -1_i64 << bit);
    all.extend(powers.flat_map(|n| [n - 1, n, n + 1]).chain([i64::MIN]).map(Value::from));
    for length in [0, 1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 255, 256, 65_535, 65_536] {
        all.push(Value::Binary(vec![7; length]));
        all.push(Value::String(StrBytes::new(vec![b'x'; length])));
        all.push(Value::Extension(5, vec![7; length]));
        all.push(vec![1; length].into());
        all.push((0..length as u64).map(|n| (n, "v")).collect());
    }
    all
}

#[test]
fn every_value_comes_back() {
    let limits = crate::scan::ScanLimits { elements_max: usize::MAX, ..Default::default() };
    for value in specimens() {
        let bytes = encode(&value).expect("encodes");
        assert_eq!(scan(&bytes, &limits), Ok(()), "{value:?}");
        assert_eq!(decode_whole::<Value>(&bytes), Ok(value));
    }
}

#[test]
fn numbers_are_written_in_their_shortest_form() {
    let cases: [(&[u8], &[u8]); 6] = [
        (&[0xcf, 0, 0, 0, 0, 0, 0, 0, 5], &[5]),
        (&[0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0xff]),
        (&[0xd1, 0, 200], &[0xcc, 200]),
        (&[0xd9, 1, b'a'], &[0xa1, b'a']),
        (&[0xdd, 0, 0, 0, 1, 0xc0], &[0x91, 0xc0]),
        (&[0xc8, 0, 4, 9, 1, 2, 3, 4], &[0xd6, 9, 1, 2, 3, 4]),
    ];
    for (long, short) in cases {
        let value: Value = decode_whole(long).expect("decodes");
        assert_eq!(encode(&value).as_deref(), Ok(short), "{value}");
    }
}

#[test]
fn families_are_kept() {
    for bytes in [
        vec![0xca, 0x3f, 0x80, 0, 0],
        vec![0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
        vec![0xa2, 0xc3, 0x28],
        vec![0xc4, 2, 0xc3, 0x28],
        vec![0xca, 0x7f, 0xc0, 0, 1],
        vec![0xd4, 0x80, 1],
        vec![0x82, 0xc0, 1, 0xc0, 0x91, 2],
    ] {
        let value: Value = decode_whole(&bytes).expect("decodes");
        assert_eq!(encode(&value), Ok(bytes));
    }
}

#[test]
fn depth_is_bounded_both_ways() {
    let nested = |depth| (0..depth).fold(Value::Nil, |value, _| Value::Array(vec![value]));
    let deepest = encode(&nested(32)).expect("32 levels");
    assert_eq!(decode_whole(&deepest), Ok(nested(32)));
    assert_eq!(encode(&nested(33)), Err(CodecError::Depth));
    assert_eq!(decode_whole::<Value>(&[0x91; 5_000]), Err(CodecError::Depth));
    assert_eq!(decode_whole::<Value>(&[0x81; 5_000]), Err(CodecError::Depth));
}

#[test]
fn what_is_cut_is_refused() {
    for value in specimens().iter().filter(|value| !matches!(value, Value::Map(_))) {
        let bytes = encode(value).expect("encodes");
        for cut in (0..bytes.len()).rev().take(20).chain([0]) {
            let error = Value::decode(&mut &bytes[..cut]).expect_err("cut");
            assert!(matches!(error, CodecError::Scan(ScanError::Truncated { .. })), "{error:?}");
        }
    }
    assert!(Value::decode(&mut &[0xdd, 0xff, 0xff, 0xff, 0xff][..]).is_err());
    assert!(Value::decode(&mut &[0xc1][..]).is_err());
}

#[test]
fn a_value_reads_like_json() {
    let value: Value = [
        (Value::from("text"), Value::from("a \"b\"\n\u{1}")),
        (Value::from("list"), Value::from(vec![Value::Nil, 1.into(), 1.0.into(), true.into()])),
        (Value::from(2), Value::from(&[0, 255][..])),
        (Value::from(-3), Value::Extension(5, vec![16])),
        (Value::from("max"), Value::from(u64::MAX)),
    ]
    .into_iter()
    .collect();
    assert_eq!(
        value.to_string(),
        r#"{"text": "a \"b\"\n\u0001", "list": [null, 1, 1.0, true], 2: bin"00ff", "#.to_owned()
            + r#"-3: ext(5, "10"), "max": 18446744073709551615}"#
    );
    assert_eq!(value.field("max").and_then(Value::as_u64), Some(u64::MAX));
    assert_eq!(value.field("none"), None);
}

#[test]
fn integers_are_read_in_any_width() {
    assert_eq!(Value::from(5_u64), Value::from(5_i8));
    assert_eq!(Value::Unsigned(5).as_i64(), Some(5));
    assert_eq!(Value::from(-1).as_u64(), None);
    assert_eq!(Value::from(u64::MAX).as_i64(), None);
    assert_eq!(Value::from("1").as_i64(), None);
}
