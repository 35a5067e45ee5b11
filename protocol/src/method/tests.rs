use std::collections::BTreeMap;

use super::*;
use crate::codec::{Bin, Raw, decode_whole, encode};
use crate::error::{ApplicationError, Code};

/// Arguments that borrow, of a user's own type; private, like the service that uses it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Work<'a> {
    operation: &'a str,
    operands: (i32, i32),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct InvalidOperation {
    what: String,
}

impl fmt::Display for InvalidOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no operation {}", self.what)
    }
}

crate::service! {
    /// Numbers.
    mod calc {
        /// Answers.
        fn ping();
        /// Returns the sum.
        ///
        /// It wraps.
        #[idempotent]
        fn add(a: i32, b: i32) -> i32;
        fn calculate(work: Work<'a>) -> Result<i32, InvalidOperation>;
        #[name = "calc.echo2"]
        #[idempotent]
        fn echo(text: &str,) -> &str;
    }

    /// Every shape a signature may have. Parameters are named like methods on purpose.
    mod shapes {
        fn any(value: Raw) -> Raw;
        fn any_or(value: Raw) -> Result<Raw, InvalidOperation>;
        fn bytes(value: &[u8], key: &'a str) -> &[u8];
        fn bytes_or(value: &[u8]) -> Result<&[u8], String>;
        #[deprecated]
        fn key(any: u8, bytes: u8, key: u8, value: u8) -> Value;
        fn list(lines: &str) -> Result<&str, InvalidOperation>;
        fn table(text: &str) -> BTreeMap<String, u64>;
        fn pairs() -> Result<BTreeMap<String, (u64, u64)>, InvalidOperation>;
        fn value(value: Value) -> Vec<Option<String>>;
    }

    pub mod empty {}

    pub(crate) mod in_the_crate {
        fn nothing();
    }
}

/// What a server does with a call, without a server.
fn serve<M: Method, F>(_: M, body: &[u8], handler: F) -> Result<Vec<u8>, Vec<u8>>
where
    F: for<'a> Fn(M::Args<'a>, &'a mut u32) -> Result<M::Reply<'a>, M::Error>,
{
    let args = M::Args::decode_args(body).expect("arguments");
    let mut calls = 1;
    match handler(args, &mut calls) {
        Ok(reply) => Ok(encode(&reply).expect("encodes")),
        Err(error) => Err(encode(&error).expect("encodes")),
    }
}

/// A peer that answers every call with what it has ready, and remembers the call.
#[derive(Default)]
struct Canned {
    answer: Option<Result<Vec<u8>, Vec<u8>>>,
    asked: Vec<(String, Vec<u8>)>,
}

impl Canned {
    fn with(answer: Result<impl Encode, impl Encode>) -> Canned {
        let answer = answer.map(|reply| encode(&reply).expect("encodes"));
        let answer = answer.map_err(|error| encode(&error).expect("encodes"));
        Canned { answer: Some(answer), asked: Vec::new() }
    }
}

impl Caller for Canned {
    fn call<M: Method>(
        &mut self,
        method: M,
        args: M::Args<'_>,
    ) -> Result<M::Owned, CallError<M::Error>> {
        let mut body = Vec::new();
        args.encode_args(&mut body).expect("encodes");
        self.asked.push((method.name().into(), body));
        match self.answer.as_ref().expect("an answer is ready") {
            Ok(reply) => Ok(M::into_owned(decode_whole(reply).expect("a reply"))),
            Err(error) => Err(CallError::Application(decode_whole(error).expect("an error"))),
        }
    }
}

#[test]
fn a_descriptor_knows_its_name_and_its_number() {
    assert_eq!(calc::add.name(), "calc.add");
    assert_eq!(calc::add.id(), MethodId::of("calc.add"));
    assert_eq!(calc::echo.name(), "calc.echo2");
    assert_eq!(calc::echo.id(), MethodId::of("calc.echo2"));
    assert!(calc::add.is_idempotent() && calc::echo.is_idempotent());
    assert!(!calc::ping.is_idempotent());
}

#[test]
fn a_service_lists_its_methods() {
    let names: Vec<&str> = calc::METHODS.iter().map(|method| &*method.name).collect();
    assert_eq!(names, ["calc.ping", "calc.add", "calc.calculate", "calc.echo2"]);
    assert!(empty::METHODS.is_empty());
    assert_eq!(in_the_crate::METHODS[0].signature, "nothing()");
    let signatures: Vec<&str> = calc::METHODS.iter().map(|method| &*method.signature).collect();
    assert_eq!(
        signatures,
        [
            "ping()",
            "add(a: i32, b: i32) -> i32",
            "calculate(work: Work<'a>) -> Result<i32, InvalidOperation>",
            "echo(text: &str,) -> &str"
        ]
    );
    let add = calc::add.info();
    assert_eq!(add.docs, " Returns the sum.\n\n It wraps.\n");
    assert_eq!(add.summary(), "Returns the sum.");
    assert_eq!(add.id(), calc::add.id());
    assert!(add.idempotent);
    assert_eq!(calc::calculate.info().summary(), "");
    let travelled: MethodInfo = decode_whole(&encode(&add).expect("encodes")).expect("decodes");
    assert_eq!(travelled, add);
}

#[test]
fn handlers_are_typed_and_may_borrow() {
    let reply = serve(calc::add, &[0x92, 3, 4], |(a, b), _| Ok(a + b));
    assert_eq!(reply, Ok(vec![7]));
    assert_eq!(serve(calc::ping, &[0x90], |(), _| Ok(())), Ok(vec![0xc0]));
    let reply = serve(calc::echo, b"\x91\xa2hi", |(text,), _| Ok(&text[1..]));
    assert_eq!(reply, Ok(b"\xa1i".to_vec()));
    let reply = serve(shapes::bytes, b"\x92\xc4\x02hi\xa1k", |(value, _), _| Ok(value));
    assert_eq!(reply, Ok(b"\xc4\x02hi".to_vec()));
    let reply = serve(shapes::any, b"\x91\xd4\x05\x01", |(value,), _| Ok(value));
    assert_eq!(reply, Ok(b"\xd4\x05\x01".to_vec()));
}

#[test]
fn a_handler_fails_with_the_declared_error() {
    let mut body = Vec::new();
    (Work { operation: "modulo", operands: (1, 2) },).encode_args(&mut body).expect("encodes");
    let reply = serve(calc::calculate, &body, |(work,), _| {
        assert_eq!(work.operands, (1, 2));
        Err(InvalidOperation { what: work.operation.into() })
    });
    let error: InvalidOperation = decode_whole(&reply.expect_err("fails")).expect("decodes");
    assert_eq!(error.to_string(), "no operation modulo");
    let reply = serve(calc::ping, &[0x90], |(), _| Err("not today".into()));
    let error: ApplicationError = decode_whole(&reply.expect_err("fails")).expect("decodes");
    assert_eq!(error.message, "not today");
}

#[test]
fn a_stub_reads_like_a_local_object() {
    fn sum(peer: impl Caller) -> Result<i32, CallError<ApplicationError>> {
        let mut calc = calc::Stub(peer);
        let z = calc.add(3, 4)?;
        Ok(z)
    }
    let mut peer = Canned::with(Ok::<_, ()>(7));
    assert_eq!(sum(&mut peer), Ok(7));
    assert_eq!(peer.asked, [("calc.add".into(), vec![0x92, 3, 4])]);

    let mut calc = calc::Stub(Canned::with(Err::<(), _>(InvalidOperation { what: "x".into() })));
    let error = calc.calculate(Work { operation: "x", operands: (0, 0) }).expect_err("fails");
    assert_eq!(error.code(), Some(Code::ApplicationError));
    assert_eq!(error, CallError::Application(InvalidOperation { what: "x".into() }));
}

#[test]
fn borrowed_replies_are_owned_by_a_stub() {
    let text: String = calc::Stub(Canned::with(Ok::<_, ()>("hi"))).echo("hi").expect("a reply");
    assert_eq!(text, "hi");
    let mut shapes = shapes::Stub(Canned::with(Ok::<_, ()>(Bin(b"bin"))));
    let bytes: Vec<u8> = shapes.bytes(b"bytes", "key").expect("a reply");
    assert_eq!(bytes, b"bin");
    assert_eq!(shapes.0.asked[0].1, b"\x92\xc4\x05bytes\xa3key");
    let raw = shapes.any(Raw::NIL).expect("a reply");
    assert_eq!(raw.as_raw().as_bytes(), b"\xc4\x03bin");
    let failing = shapes::Stub(Canned::with(Err::<(), _>("no"))).bytes_or(b"");
    assert_eq!(failing, Err(CallError::Application("no".into())));
}

#[test]
fn a_method_may_be_known_by_name_alone() {
    let method = DynamicMethod::new("calc.add").idempotent();
    assert_eq!(method.id(), calc::add.id());
    assert!(method.is_idempotent());
    assert_eq!(method.info().name, "calc.add");
    let mut peer = Canned::with(Ok::<_, ()>(7));
    let reply = peer.call(method.clone(), vec![3.into(), 4.into()]);
    assert_eq!(reply, Ok(Value::from(7)));
    assert_eq!(peer.asked[0].1, [0x92, 3, 4]);
    let reply = serve(method, &[0x92, 3, 4], |args, _| match &args[..] {
        [Value::Integer(a), Value::Integer(b)] => Ok((a + b).into()),
        _ => Err("numbers, please".into()),
    });
    assert_eq!(reply, Ok(vec![7]));
}
