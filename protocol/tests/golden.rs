//! The bytes of version 1, as they have been since it was made. A change that fails here cannot talk
//! to peers that are out there: it needs another version or a feature that both ends name.

mod examples;

use std::collections::BTreeMap;

use examples::{examples, hex, unhex};
use onceloop_protocol::codec::{Decode, Encode, decode_whole, encode};
use onceloop_protocol::error::{Class, Code, ErrorBody, Fault};
use onceloop_protocol::frame::{Flags, Kind, MAGIC, MethodId, VERSION};
use onceloop_protocol::handshake::{Hello, Order};

/// The frames of version 1, by the names of their examples.
const FRAMES: &[(&str, &str)] = &[
    (
        "hello",
        "00000039010000000000000000000000 \
         84a776657273696f6e01a8666561747572657300a677696e646f77cc80a56f72646572a9 \
         756e6f726465726564",
    ),
    (
        "hello-in-order",
        "00000045010000000000000000000000 \
         85a776657273696f6e01a8666561747572657300a677696e646f7710a56f72646572a869 \
         6e5f6f72646572a5746f6b656ec406736563726574",
    ),
    (
        "welcome",
        "00000095020000000000000000000000 \
         85a776657273696f6e01a8666561747572657300a373696482a5706c61636507a6736563 \
         726574c41000112233445566778899aabbccddeeffa677696e646f77cc80a66c696d6974 \
         7384ae626f64795f62797465735f6d6178ce00101000a964657074685f6d617820ac656c \
         656d656e74735f6d6178ce00010000a86c656173655f6d73ce000927c0",
    ),
    (
        "resume",
        "00000069030000000000000000000000 \
         87a776657273696f6e01a8666561747572657300a373696482a5706c61636507a6736563 \
         726574c41000112233445566778899aabbccddeeffab696e6361726e6174696f6e00aa61 \
         74746163686d656e7402a361636b28a46a6f696ec2",
    ),
    (
        "resumed",
        "00000080040000000000000000000000 \
         86a776657273696f6e01a8666561747572657300a5666c6f6f7228a677696e646f77cc80 \
         a563656c6c73c40112a66c696d69747384ae626f64795f62797465735f6d6178ce001010 \
         00a964657074685f6d617820ac656c656d656e74735f6d6178ce00010000a86c65617365 \
         5f6d73ce000927c0",
    ),
    (
        "request",
        "000000230500000001000000000000000000000000000000ad1cce063550c234dc050000 \
         920304",
    ),
    (
        "request-unprotected",
        "000000230500010000000000000000400000000000000000ad1cce063550c234ffffffff \
         920304",
    ),
    (
        "reply",
        "0000000d060000000100000000000000 \
         07",
    ),
    (
        "error-application",
        "00000046070000000200000000000000 \
         84a5636c61737303a4636f646540a76d657373616765b06e6f7420656e6f756768206d6f \
         6e6579a764657461696c73c40981a6616d6f756e7405",
    ),
    (
        "error-busy",
        "0000003a070000000300000000000000 \
         84a5636c61737301a4636f646501a76d657373616765a76e6f20726f6f6dae7265747279 \
         5f61667465725f6d7364",
    ),
    (
        "error-window",
        "0000003007000000c800000000000000 \
         84a5636c61737301a4636f646502a76d657373616765a66265796f6e64a5666c6f6f7228",
    ),
    (
        "error-connection",
        "00000032070000000000000000000000 \
         83a5636c61737305a4636f6465cc83a76d657373616765ae61207365636f6e642048454c \
         4c4f",
    ),
    (
        "notify",
        "00000027080000000000000000000000010000000000000044bb3c87588c2ca8ffffffff \
         91a57265616479",
    ),
    ("ack", "0000000c090000000c00000000000000"),
    ("cancel", "0000000c0a0000000d00000000000000"),
    ("ping", "0000000c0b0000006300000000000000"),
    ("pong", "0000000c0c0000006300000000000000"),
    ("goaway", "0000000c0d0000000000000000000000"),
    ("bye", "0000000c0e0000000d00000000000000"),
];

#[test]
fn frames_are_written_as_they_always_were() {
    let written: Vec<(&str, String)> =
        examples().iter().map(|example| (example.name, hex(&example.write()))).collect();
    let golden: Vec<(&str, String)> =
        FRAMES.iter().map(|(name, bytes)| (*name, hex(&unhex(bytes)))).collect();
    assert_eq!(written, golden);
}

#[test]
fn frames_are_read_as_they_always_were() {
    for example in examples() {
        let golden = FRAMES.iter().find(|(name, _)| *name == example.name);
        let (_, bytes) = golden.expect("each example has its golden bytes");
        example.read(&unhex(bytes));
    }
}

/// A map of text to small numbers: enough to play a peer of another version.
fn map(entries: &[(&str, u64)]) -> Vec<u8> {
    encode(&entries.iter().copied().collect::<BTreeMap<_, _>>()).expect("encodes")
}

#[test]
fn a_newer_peer_may_say_more_and_an_older_one_less() {
    let newer: Hello =
        decode_whole(&map(&[("version", 9), ("window", 64), ("features", 5), ("colour", 3)]))
            .expect("what is not known is ignored");
    assert_eq!((newer.version, newer.window, newer.features), (9, 64, 5));
    let least: Hello = decode_whole(&map(&[("version", 1), ("window", 1)])).expect("enough");
    assert_eq!((least.features, least.order, least.token), (0, Order::Unordered, None));
    let newer: ErrorBody<'_> =
        decode_whole(b"\x84\xa5class\x01\xa4code\xcd\x03\xe7\xa7message\xa1x\xa4more\x90")
            .expect("an unknown code is an error all the same");
    let fault = Fault::from_body(&newer);
    assert_eq!((fault.code, fault.class), (None, Class::NotExecuted));
    assert!(decode_whole::<Hello>(&map(&[("window", 1)])).is_err(), "without a version");
}

#[test]
fn every_kind_has_its_number() {
    let kinds = (0..=u8::MAX).filter_map(Kind::from_wire);
    let names: Vec<String> = kinds.map(|kind| format!("{} {kind:?}", kind as u8)).collect();
    let golden = "1 Hello, 2 Welcome, 3 Resume, 4 Resumed, 5 Request, 6 Reply, 7 Error, 8 Notify, \
                  9 Ack, 10 Cancel, 11 Ping, 12 Pong, 13 GoAway, 14 Bye, 15 Chunk";
    assert_eq!(names.join(", "), golden);
}

#[test]
fn every_code_has_its_number_and_its_class() {
    let codes: Vec<String> = Code::ALL
        .iter()
        .map(|code| format!("{} {code} {:?}", *code as u16, code.class()))
        .collect();
    let golden = [
        "1 BUSY NotExecuted",
        "2 WINDOW NotExecuted",
        "3 DRAINING NotExecuted",
        "4 DEADLINE NotExecuted",
        "5 NO_METHOD NotExecuted",
        "6 BAD_ARGUMENTS NotExecuted",
        "7 NOT_AUTHORIZED NotExecuted",
        "8 NOT_PROTECTED NotExecuted",
        "9 CANCELLED NotExecuted",
        "10 TOO_LARGE NotExecuted",
        "11 MALFORMED NotExecuted",
        "12 UNSUPPORTED NotExecuted",
        "32 IN_PROGRESS InProgress",
        "64 APPLICATION_ERROR Executed",
        "65 NOT_RETAINED Executed",
        "96 SESSION_UNKNOWN Unknown",
        "97 IN_DOUBT Unknown",
        "98 POISONED Unknown",
        "128 XID_REUSED ClientBug",
        "129 FENCED ClientBug",
        "130 STALE ClientBug",
        "131 PROTOCOL ClientBug",
    ];
    assert_eq!(codes, golden);
    for code in Code::ALL {
        assert_eq!(Code::from_wire(*code as u16), Some(*code));
    }
    let classes = [1, 2, 3, 4, 5].map(Class::from_wire);
    let golden =
        [Class::NotExecuted, Class::InProgress, Class::Executed, Class::Unknown, Class::ClientBug];
    assert_eq!(classes, golden);
    assert_eq!(Class::from_wire(77), Class::Unknown, "a newer class promises nothing");
}

#[test]
fn constants_are_what_they_were() {
    assert_eq!((&MAGIC, VERSION), (b"onceloop", 1));
    let flags = [Flags::UNPROTECTED, Flags::CHUNKED, Flags::REVERSE, Flags::METADATA];
    assert_eq!(flags.map(|flag| flag.0), [1, 2, 4, 8]);
    assert_eq!(Flags::CRITICAL.0, 0x00ff);
    // FNV-1a's own test vectors, and two names.
    assert_eq!(MethodId::of("").0, 0xcbf2_9ce4_8422_2325);
    assert_eq!(MethodId::of("a").0, 0xaf63_dc4c_8601_ec8c);
    assert_eq!(MethodId::of("foobar").0, 0x8594_4171_f739_67e8);
}

#[test]
fn values_have_the_forms_they_had() {
    fn is<T: Encode + for<'a> Decode<'a> + PartialEq + std::fmt::Debug>(value: T, golden: &str) {
        assert_eq!(encode(&value).map(|bytes| hex(&bytes)).as_deref(), Ok(golden));
        assert_eq!(decode_whole(&unhex(golden)), Ok(value));
    }
    is((), "c0");
    is(true, "c3");
    is(-1_i64, "ff");
    is(300_u16, "cd012c");
    is(1.5_f32, "ca3fc00000");
    is(1.5_f64, "cb3ff8000000000000");
    is("text".to_owned(), "a474657874");
    is(bytes::Bytes::from_static(&[1, 2]), "c4020102");
    is(vec![1, 2], "920102");
    is(Some(5), "05");
    is(None::<u8>, "c0");
    is(1_u128, "c41000000000000000000000000000000001");
    is(Ok::<u8, ()>(5), "81a24f6b05");
}
