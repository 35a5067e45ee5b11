use serde::{Deserialize, Serialize};

use super::*;
use crate::value::Value;

fn args<A: EncodeArgs + ?Sized>(args: &A) -> Vec<u8> {
    let mut out = Vec::new();
    args.encode_args(&mut out).expect("encodes");
    out
}

fn refusal<'a, A: DecodeArgs<'a>>(body: &'a [u8]) -> String {
    A::decode_args(body).err().expect("refused").to_string()
}

#[test]
fn arguments_are_an_array() {
    assert_eq!(args(&()), [0x90]);
    assert_eq!(args(&(3, 4)), [0x92, 3, 4]);
    assert_eq!(args(&("a",)), [0x91, 0xa1, b'a']);
    assert_eq!(<(i32, i32)>::decode_args(&[0x92, 3, 4]), Ok((3, 4)));
    let body = args(&("text", Bin(b"bytes"), Raw::NIL));
    let (text, bytes, raw) = <(&str, Bin<'_>, Raw<'_>)>::decode_args(&body).expect("decodes");
    assert_eq!((text, &*bytes, raw), ("text", &b"bytes"[..], Raw::NIL));
}

#[test]
fn every_form_of_the_array_is_read() {
    for body in [&[0x92, 3, 4][..], &[0xdc, 0, 2, 3, 4], &[0xdd, 0, 0, 0, 2, 3, 4]] {
        assert_eq!(<(u8, u8)>::decode_args(body), Ok((3, 4)));
        assert_eq!(<Vec<Value>>::decode_args(body), Ok(vec![3.into(), 4.into()]));
    }
    for body in [&[0x90][..], &[0xc0], &[0xdc, 0, 0], &[0xdd, 0, 0, 0, 0]] {
        assert_eq!(<()>::decode_args(body), Ok(()));
        assert_eq!(<Vec<Value>>::decode_args(body), Ok(vec![]));
    }
}

#[test]
fn twelve_arguments_fit() {
    let twelve = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, "twelve");
    let body = args(&twelve);
    assert_eq!(body[0], 0x9c);
    assert_eq!(DecodeArgs::decode_args(&body), Ok(twelve));
}

#[test]
fn errors_name_the_argument() {
    assert_eq!(refusal::<(i32, i32)>(&[0x93, 1, 2, 3]), "takes 2 arguments, got 3");
    assert_eq!(refusal::<(i32,)>(&[0xc0]), "takes 1 argument, got 0");
    assert_eq!(refusal::<()>(&[0xdd, 0xff, 0xff, 0xff, 0xff]), "takes 0 arguments, got 4294967295");
    assert_eq!(refusal::<(i32,)>(&[0x80]), "the arguments are not an array");
    assert_eq!(refusal::<(i32,)>(&[]), "the arguments are not an array");
    assert_eq!(refusal::<(i32,)>(&[0x91, 1, 2]), "1 bytes after the value");
    assert_eq!(
        refusal::<(i32, i32)>(&[0x92, 1, 0xa1, b'x']),
        "argument 2: a value of another type (FixStr(1))"
    );
    assert_eq!(
        refusal::<(&str,)>(&[0x91, 7]),
        "argument 1: invalid type: integer `7`, expected a borrowed string"
    );
    assert_eq!(refusal::<(&str,)>(&[0x91, 0xa1, 0xff]), "argument 1: a string that is not UTF-8");
    assert!(refusal::<(u8,)>(&[0x91, 0xcd, 1, 0]).starts_with("argument 1: "));
    assert_eq!(
        refusal::<Vec<Value>>(&[0x92, 1]),
        "argument 2: the value goes on beyond the 0 bytes there are"
    );
}

#[test]
fn a_message_never_quotes_a_long_value_whole() {
    let body = args(&("x".repeat(100_000),));
    let message = refusal::<(bool,)>(&body);
    assert!(message.len() < 400, "{} bytes", message.len());
    let body = args(&("ü".repeat(1_000),));
    #[derive(Debug, Deserialize)]
    enum Color {
        Red,
    }
    let message = refusal::<(Color,)>(&body);
    assert!(message.len() < 400 && message.ends_with('…'), "{message}");
}

#[test]
fn a_struct_is_a_map_of_its_fields() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Point<'a> {
        x: i32,
        label: &'a str,
    }
    let bytes = encode(&Point { x: 1, label: "p" }).expect("encodes");
    assert_eq!(bytes, b"\x82\xa1x\x01\xa5label\xa1p");
    assert_eq!(decode_whole(&bytes), Ok(Point { x: 1, label: "p" }));
}

#[test]
fn bytes_travel_as_bin() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Blob<'a> {
        #[serde(borrow)]
        data: Bin<'a>,
        owned: bytes::Bytes,
    }
    let blob = Blob { data: Bin(&[1, 200]), owned: vec![3].into() };
    let bytes = encode(&blob).expect("encodes");
    assert_eq!(bytes, b"\x82\xa4data\xc4\x02\x01\xc8\xa5owned\xc4\x01\x03");
    assert_eq!(decode_whole(&bytes), Ok(blob));
    let from_an_old_dialect: Bin<'_> = decode_whole(b"\xa2ab").expect("a str");
    assert_eq!(from_an_old_dialect, Bin(b"ab"));
}

#[test]
fn raw_keeps_every_byte() {
    for bytes in [&[0xcf, 0, 0, 0, 0, 0, 0, 0, 5][..], &[0xa1, 0xff], &[0x91, 0xd4, 5, 6], &[0xc0]]
    {
        let raw: Raw<'_> = decode_whole(bytes).expect("one value");
        assert_eq!(raw.as_bytes(), bytes);
        assert_eq!(encode(&raw).as_deref(), Ok(bytes));
        assert_eq!(encode(&raw.to_owned().as_raw()).as_deref(), Ok(bytes));
    }
    assert_eq!(Raw::new(&[1, 2]), Err(CodecError::Trailing { bytes: 1 }));
    assert!(Raw::new(&[0x91]).is_err());
    assert_eq!(Raw::new(&[7]).and_then(Raw::read::<u8>), Ok(7));
}

#[test]
fn nothing_may_follow_the_value() {
    assert_eq!(decode_whole::<i32>(&[7]), Ok(7));
    assert_eq!(decode_whole::<i32>(&[7, 7]), Err(CodecError::Trailing { bytes: 1 }));
    assert!(decode_whole::<i32>(&[]).is_err());
}

#[test]
fn dynamic_arguments_are_those_of_a_tuple() {
    let values = [Value::from(3), Value::from("four")];
    assert_eq!(args(&values[..]), args(&(3, "four")));
    assert_eq!(args(&&values[..]), args(&(3, "four")));
    assert_eq!(args(&values.to_vec()), args(&(3, "four")));
}

#[test]
fn serde_follows_as_deep_as_the_scan() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Nest(Vec<Nest>);
    let nested = |depth: usize| [vec![0x91; depth - 1], vec![0x90]].concat();
    let limits = ScanLimits::default();
    assert!(decode_scanned::<Nest>(&nested(32), &limits).is_ok());
    assert!(matches!(decode_scanned::<Nest>(&nested(33), &limits), Err(CodecError::Scan(_))));
}
