//! Peers differ in word size, byte order, language and version. The encoding takes care of the first
//! three, named fields of the last.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use onceloop_protocol::codec::{
    Bin, Decode, DecodeArgs, Encode, EncodeArgs, decode_scanned, decode_whole, encode,
};
use onceloop_protocol::scan::ScanLimits;
use serde::{Deserialize, Serialize};

/// Sends a value as one argument among others and as a reply, and wants it back.
fn round_trip<T>(value: &T) -> Vec<u8>
where
    T: Encode + for<'a> Decode<'a> + PartialEq + Debug,
    for<'a> &'a T: Encode,
{
    let reply = encode(value).expect("encodes");
    let back: T = decode_scanned(&reply, &ScanLimits::default()).expect("decodes");
    assert_eq!(back, *value);
    let mut body = Vec::new();
    ("before", value, 7).encode_args(&mut body).expect("encodes");
    let (before, back, after) = <(String, T, i32)>::decode_args(&body).expect("decodes");
    assert_eq!((&*before, &back, after), ("before", value, 7));
    reply
}

macro_rules! integers {
    ($($type:ident)*) => {$(
        let edges = (0..<$type>::BITS).flat_map(|bit| {
            let power = <$type>::from(1_u8) << bit;
            [power.wrapping_sub(1), power, power.wrapping_add(1), <$type>::MAX ^ power]
        });
        for number in edges.chain([0, <$type>::MIN, <$type>::MAX]) {
            round_trip(&number);
        }
    )*};
}

#[test]
fn every_integer_width_comes_back() {
    integers! { u16 i16 u32 i32 u64 i64 u128 i128 }
    for number in u8::MIN..=u8::MAX {
        round_trip(&number);
        round_trip(&number.cast_signed());
    }
    round_trip(&usize::MAX);
    round_trip(&isize::MIN);
}

#[test]
fn an_integer_takes_its_shortest_form_whatever_its_type() {
    for (number, bytes) in [
        (0, &[0][..]),
        (127, &[0x7f]),
        (128, &[0xcc, 0x80]),
        (256, &[0xcd, 1, 0]),
        (65_536, &[0xce, 0, 1, 0, 0]),
        (1 << 32, &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
        (-1, &[0xff]),
        (-32, &[0xe0]),
        (-33, &[0xd0, 0xdf]),
        (-129, &[0xd1, 0xff, 0x7f]),
        (-32_769, &[0xd2, 0xff, 0xff, 0x7f, 0xff]),
        (i64::MIN, &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!(round_trip(&number), bytes);
    }
    assert_eq!(round_trip(&200_u8), round_trip(&200_i64));
    assert_eq!(round_trip(&5_u64), round_trip(&5_i8));
}

#[test]
fn integers_are_read_from_any_width_that_fits() {
    for five in [
        &[5][..],
        &[0xcc, 5],
        &[0xcd, 0, 5],
        &[0xce, 0, 0, 0, 5],
        &[0xcf, 0, 0, 0, 0, 0, 0, 0, 5],
        &[0xd0, 5],
        &[0xd1, 0, 5],
        &[0xd2, 0, 0, 0, 5],
        &[0xd3, 0, 0, 0, 0, 0, 0, 0, 5],
    ] {
        assert_eq!(decode_whole::<u8>(five), Ok(5));
        assert_eq!(decode_whole::<i8>(five), Ok(5));
        assert_eq!(decode_whole::<u64>(five), Ok(5));
        assert_eq!(decode_whole::<i64>(five), Ok(5));
        assert_eq!(decode_whole::<f64>(five), Ok(5.0));
    }
    let too_large = encode(&256).expect("encodes");
    assert!(decode_whole::<u8>(&too_large).is_err());
    assert!(decode_whole::<i8>(&encode(&128).expect("encodes")).is_err());
    assert!(decode_whole::<u64>(&encode(&-1).expect("encodes")).is_err());
    assert!(decode_whole::<i64>(&encode(&u64::MAX).expect("encodes")).is_err());
}

#[test]
fn floats_keep_their_width_and_their_bits() {
    for number in [0.0, -0.0, 1.5, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, 1.0e-45] {
        assert_eq!(round_trip(&number)[0], 0xca);
        assert_eq!(decode_whole::<f64>(&encode(&number).expect("encodes")), Ok(number.into()));
    }
    for number in [0.0, 0.1, -1.0e300, f64::MAX, f64::NEG_INFINITY, 5.0e-324] {
        assert_eq!(round_trip(&number)[0], 0xcb);
    }
    for nan in [f64::NAN, f64::from_bits(0x7ff8_0000_0000_0001)] {
        let back: f64 = decode_whole(&encode(&nan).expect("encodes")).expect("decodes");
        assert_eq!(back.to_bits(), nan.to_bits());
    }
    let minus_zero: f32 = decode_whole(&encode(&-0.0_f32).expect("encodes")).expect("decodes");
    assert!(minus_zero.is_sign_negative());
}

#[test]
fn text_and_bytes_come_back_at_every_length() {
    for length in [0, 1, 31, 32, 255, 256, 65_535, 65_536, 200_000] {
        round_trip(&"x".repeat(length));
        round_trip(&"ü€😀".repeat(length / 9));
        round_trip(&Bytes::from(vec![0xff; length]));
        let bytes = vec![7; length];
        let body = encode(&Bin(&bytes)).expect("encodes");
        assert_eq!(decode_whole(&body), Ok(Bin(&bytes)));
    }
    round_trip(&'😀');
    assert_eq!(round_trip(&"a\0b".to_owned()), b"\xa3a\0b");
}

#[test]
fn borrowed_text_points_into_the_frame() {
    let body = encode("borrowed").expect("encodes");
    let text: &str = decode_whole(&body).expect("decodes");
    assert!(body.as_ptr_range().contains(&text.as_ptr()));
}

#[test]
fn sequences_and_maps_come_back() {
    round_trip(&Vec::<u64>::new());
    round_trip(&vec![vec![1_u8, 2], vec![], vec![255]]);
    round_trip(&(0..20_000).collect::<Vec<i32>>());
    round_trip(&(1_u8, "two".to_owned(), 3.0_f32, [4_u16; 4]));
    round_trip(&BTreeSet::from(['a', 'b']));
    round_trip(&BTreeMap::from([(1, "one".to_owned()), (-2, String::new())]));
    round_trip(&HashMap::from([("k".to_owned(), vec![Some(1), None])]));
    round_trip(&BTreeMap::from([((1, 'x'), BTreeMap::from([(true, ())]))]));
}

#[test]
fn options_and_units_come_back() {
    round_trip(&Some(5));
    round_trip(&None::<String>);
    round_trip(&vec![Some("text".to_owned()), None]);
    round_trip(&());
    round_trip(&true);
    round_trip(&Box::new(7));
    assert_eq!(round_trip(&None::<u8>), [0xc0]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Line(i32, i32),
    Box { width: u32, height: Option<u32> },
    Group(Vec<Shape>),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Marker;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meters(f32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Drawing {
    title: String,
    shapes: Vec<Shape>,
    by_name: BTreeMap<String, Shape>,
    scale: Meters,
    thumbnail: Option<Bytes>,
    marker: Marker,
    nested: Option<Box<Drawing>>,
}

fn shapes() -> Vec<Shape> {
    vec![
        Shape::Nothing,
        Shape::Circle(1.5),
        Shape::Line(-1, 70_000),
        Shape::Box { width: 3, height: None },
        Shape::Group(vec![Shape::Nothing, Shape::Box { width: 1, height: Some(2) }]),
    ]
}

#[test]
fn every_kind_of_variant_comes_back() {
    for shape in shapes() {
        round_trip(&shape);
        round_trip(&Some(shape.clone()));
    }
    assert_eq!(encode(&Shape::Nothing).as_deref(), Ok(&b"\xa7Nothing"[..]));
    assert_eq!(encode(&Shape::Line(1, 2)).as_deref(), Ok(&b"\x81\xa4Line\x92\x01\x02"[..]));
    let boxed = Shape::Box { width: 3, height: None };
    assert_eq!(
        encode(&boxed).as_deref(),
        Ok(&b"\x81\xa3Box\x82\xa5width\x03\xa6height\xc0"[..]),
        "a struct variant is named like a struct"
    );
    round_trip(&Ok::<i32, String>(5));
    round_trip(&Err::<i32, String>("no".into()));
}

#[test]
fn nested_structs_come_back() {
    let mut drawing = Drawing {
        title: "a".into(),
        shapes: shapes(),
        by_name: shapes().into_iter().enumerate().map(|(i, s)| (i.to_string(), s)).collect(),
        scale: Meters(2.5),
        thumbnail: Some(Bytes::from_static(&[0, 159, 146, 150])),
        marker: Marker,
        nested: None,
    };
    for _ in 0..5 {
        round_trip(&drawing);
        drawing = Drawing { nested: Some(Box::new(drawing)), ..plain() };
    }
    round_trip(&Duration::from_nanos(1_500_000_001));
    round_trip(&IpAddr::V4(Ipv4Addr::LOCALHOST));
    round_trip(&Cow::<'static, str>::Owned("cow".into()));
}

fn plain() -> Drawing {
    Drawing {
        title: "t".into(),
        shapes: vec![],
        by_name: BTreeMap::new(),
        scale: Meters(0.0),
        thumbnail: None,
        marker: Marker,
        nested: None,
    }
}

/// A struct as a service's first version has it, and as its second.
mod evolution {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct UserOfOld {
        name: String,
        age: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct UserOfNew {
        email: Option<String>,
        age: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<String>,
        name: String,
    }

    fn crossed<A: Serialize, B: for<'a> Deserialize<'a>>(value: &A) -> B {
        let bytes = encode(value).expect("encodes");
        decode_scanned(&bytes, &ScanLimits::default()).expect("the other version reads it")
    }

    #[test]
    fn a_new_peer_reads_what_an_old_one_sends() {
        let old = UserOfOld { name: "ada".into(), age: 36 };
        let new: UserOfNew = crossed(&old);
        let expected = UserOfNew { email: None, age: 36, tags: vec![], name: "ada".into() };
        assert_eq!(new, expected);
    }

    #[test]
    fn an_old_peer_reads_what_a_new_one_sends() {
        let email = Some("ada@example.org".into());
        let new = UserOfNew { email, age: 36, tags: vec!["x".into()], name: "ada".into() };
        let old: UserOfOld = crossed(&new);
        assert_eq!(old, UserOfOld { name: "ada".into(), age: 36 });
    }

    #[test]
    fn it_holds_inside_of_other_values() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum EventOfOld {
            Left { user: UserOfOld },
            Listed(Vec<UserOfOld>),
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum EventOfNew {
            Left { reason: Option<String>, user: UserOfNew },
            Listed(Vec<UserOfNew>),
        }
        let user = || UserOfOld { name: "ada".into(), age: 36 };
        let new: EventOfNew = crossed(&EventOfOld::Left { user: user() });
        assert!(matches!(&new, EventOfNew::Left { reason: None, .. }));
        assert_eq!(crossed::<_, EventOfOld>(&new), EventOfOld::Left { user: user() });
        let new: EventOfNew = crossed(&EventOfOld::Listed(vec![user(), user()]));
        assert_eq!(crossed::<_, EventOfOld>(&new), EventOfOld::Listed(vec![user(), user()]));
    }

    #[test]
    fn a_required_field_is_missed_by_name() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Strict {
            name: String,
            shoe_size: u32,
        }
        let mut body = Vec::new();
        (UserOfOld { name: "ada".into(), age: 36 },).encode_args(&mut body).expect("encodes");
        let error = <(Strict,)>::decode_args(&body).expect_err("no shoe size");
        assert_eq!(error.to_string(), "argument 1: missing field `shoe_size`");
    }

    #[test]
    fn an_unknown_variant_is_refused_by_name() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        enum Little {
            Nothing,
        }
        let bytes = encode(&Shape::Circle(1.0)).expect("encodes");
        let error = decode_whole::<Little>(&bytes).expect_err("no circles here");
        assert_eq!(error.to_string(), "unknown variant `Circle`, expected `Nothing`");
    }
}
