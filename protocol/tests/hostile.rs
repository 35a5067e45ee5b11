//! What a stranger may send to make a server spend memory or stack on it. Every input here has
//! brought down a decoder somewhere; with the scan in front it costs nothing, in debug builds too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use onceloop_protocol::codec::{Decode, DecodeArgs, EncodeArgs, Raw, decode_scanned, decode_whole};
use onceloop_protocol::error::ErrorBody;
use onceloop_protocol::handshake::{Hello, Resumed};
use onceloop_protocol::scan::{ScanError, ScanLimits, Scanner, scan};
use onceloop_protocol::value::Value;
use serde::{Deserialize, Serialize};

thread_local! {
    /// Bytes that this thread has asked for.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; the counter is a plain number of the
// thread, without a destructor, and needs no allocation of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + layout.size()));
        // SAFETY: the caller's promises, handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises, handed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + size));
        // SAFETY: the caller's promises, handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and returns how many bytes it asked for, all in all, with what it returned.
fn allocated<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = ASKED.get();
    let result = work();
    (ASKED.get() - before, result)
}

#[derive(Debug, Serialize, Deserialize)]
struct Nest(Vec<Nest>);

#[derive(Debug, Serialize, Deserialize)]
enum Chain {
    L(u8),
    N(Box<Chain>),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    name: String,
    numbers: Vec<u64>,
    more: Option<Box<Record>>,
    fixed: [u64; 16],
}

fn limits() -> ScanLimits {
    ScanLimits::default()
}

/// An array32 of `count` elements `element`.
fn array_of(count: u32, element: &[u8]) -> Vec<u8> {
    let mut body = vec![0xdd];
    body.extend(count.to_be_bytes());
    body.extend(element.repeat(count as usize));
    body
}

fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("5 000 arrays in each other", vec![0x91; 5_000]),
        ("a million arrays in each other", vec![0x91; 1_000_000]),
        ("maps in each other, as values", [0x81, 0xc0].repeat(100_000)),
        ("maps in each other, as keys", vec![0x81; 100_000]),
        ("a variant in each other, 450 kB", [0x81, 0xa1, b'N'].repeat(150_000)),
        ("1 000 arrays of 4 G in each other", [0xdd, 0xff, 0xff, 0xff, 0xff].repeat(1_000)),
        ("31 arrays of 4 G in each other", [0xdd, 0xff, 0xff, 0xff, 0xff].repeat(31)),
        ("1 000 maps of 4 G in each other", [0xdf, 0xff, 0xff, 0xff, 0xff].repeat(1_000)),
        ("a million empty arrays", array_of(1_000_000, &[0x90])),
        ("a million nils", array_of(1_000_000, &[0xc0])),
        ("a string of 4 G", vec![0xdb, 0xff, 0xff, 0xff, 0xff]),
        ("bytes of 4 G", vec![0xc6, 0xff, 0xff, 0xff, 0xff]),
        ("an extension of 4 G", vec![0xc9, 0xff, 0xff, 0xff, 0xff, 0]),
        ("an array of more than there is", vec![0xdc, 0xff, 0xff, 1, 2, 3]),
        ("a byte after the value", vec![0x91, 0xc0, 0xc0]),
        ("a second value", vec![0x90, 0x90]),
        ("the byte that begins nothing", vec![0x91, 0xc1]),
        ("nothing at all", vec![]),
    ]
}

#[test]
fn bombs_are_refused_without_allocation() {
    for (name, body) in bombs() {
        let (bytes, result) = allocated(|| scan(&body, &limits()));
        assert!(result.is_err(), "{name}");
        assert_eq!(bytes, 0, "{name}");
        let (bytes, is_refused) = allocated(|| {
            decode_scanned::<Nest>(&body, &limits()).is_err()
                && decode_scanned::<Chain>(&body, &limits()).is_err()
                && decode_scanned::<Vec<Record>>(&body, &limits()).is_err()
                && decode_scanned::<Value>(&body, &limits()).is_err()
                && decode_scanned::<Raw<'_>>(&body, &limits()).is_err()
                && decode_scanned::<Hello>(&body, &limits()).is_err()
        });
        assert!(is_refused, "{name}");
        assert_eq!(bytes, 0, "{name}");
    }
}

#[test]
fn bombs_are_refused_without_frames_too() {
    for (name, body) in bombs() {
        let (bytes, _) = allocated(|| Scanner::new().resume(&body, &limits()));
        assert_eq!(bytes, 0, "{name}");
    }
}

#[test]
fn values_bound_themselves_even_without_a_scan() {
    for (name, body) in bombs() {
        let (bytes, result) = allocated(|| decode_whole::<Value>(&body).map(drop));
        if name != "a million empty arrays" && name != "a million nils" {
            assert!(result.is_err(), "{name}");
        }
        // A value takes 32 bytes, and each of 32 levels may reserve for what is left.
        let bound = 1_000 + body.len() * size_of::<Value>() * 33;
        assert!(bytes <= bound, "{name}: {bytes} bytes for {}", body.len());
    }
}

#[test]
fn no_decoder_follows_deeper_than_the_scan() {
    for (name, body) in bombs() {
        if name.contains("in each other") {
            let (bytes, is_refused) = allocated(|| {
                decode_whole::<Nest>(&body).is_err()
                    && decode_whole::<Chain>(&body).is_err()
                    && <(Chain,)>::decode_args(&[&[0x91], &body[..]].concat()).is_err()
            });
            assert!(is_refused, "{name}");
            assert!(bytes <= 2 * body.len() + 1_000, "{name}: {bytes} bytes");
        }
    }
}

#[test]
fn the_deepest_value_that_passes_is_decoded() {
    let body = [vec![0x91; 31], vec![0x90]].concat();
    assert!(decode_scanned::<Nest>(&body, &limits()).is_ok());
    assert!(decode_scanned::<Value>(&body, &limits()).is_ok());
    let chain = [[0x81, 0xa1, b'N'].repeat(31), vec![0x81, 0xa1, b'L', 7]].concat();
    assert!(decode_scanned::<Chain>(&chain, &limits()).is_ok());
    let deeper = [[0x81, 0xa1, b'N'].repeat(32), vec![0x81, 0xa1, b'L', 7]].concat();
    assert_eq!(scan(&deeper, &limits()), Err(ScanError::Depth { max: 32 }));
}

#[test]
fn the_most_elements_that_pass_cost_a_bounded_sum() {
    let body = array_of(65_536, &[0x90]);
    let (bytes, records) = allocated(|| decode_scanned::<Vec<Record>>(&body, &limits()));
    assert_eq!(records.map(|records| records.len()), Ok(65_536));
    // The vector grows by doubling: in all it asks for less than four times its size.
    assert!(bytes <= 4 * 65_536 * size_of::<Record>(), "{bytes} bytes");
    let body = array_of(65_537, &[0x90]);
    assert!(decode_scanned::<Vec<Record>>(&body, &limits()).is_err());
}

/// A source of chance that is the same in every run: xorshift64*.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// Decodes a body as everything there is. What comes out does not matter, nor whether; that it does
/// come back and asks for little memory does.
fn decode_as_everything(body: &[u8]) {
    fn quietly<'a, T: Decode<'a>>(body: &'a [u8]) {
        let (bytes, _) = allocated(|| decode_whole::<T>(body).map(drop));
        // An element is a byte at least, and nothing here is larger than a record; an error's text
        // is bounded.
        let bound = 4_096 + body.len() * 8 * size_of::<Record>();
        assert!(bytes <= bound, "{bytes} bytes for {body:x?}");
    }
    quietly::<Value>(body);
    quietly::<Raw<'_>>(body);
    quietly::<Nest>(body);
    quietly::<Chain>(body);
    quietly::<Vec<Record>>(body);
    quietly::<Record>(body);
    quietly::<Hello>(body);
    quietly::<Resumed>(body);
    quietly::<ErrorBody<'_>>(body);
    quietly::<(Option<String>, Vec<u8>, f64)>(body);
    let _ = <(i32, &str)>::decode_args(body);
    let _ = <(Record,)>::decode_args(body);
    let _ = <Vec<Value>>::decode_args(body);
}

/// Bodies as honest peers send them.
fn honest_bodies() -> Vec<Vec<u8>> {
    let record = || Record {
        name: "name".into(),
        numbers: vec![1, 1_000, u64::MAX],
        more: Some(Box::new(Record::default())),
        fixed: [300; 16],
    };
    let mut bodies = vec![vec![0xc0], vec![0x90]];
    let mut add = |args: &dyn Fn(&mut Vec<u8>)| {
        let mut body = Vec::new();
        args(&mut body);
        bodies.push(body);
    };
    add(&|out| (3, 4).encode_args(out).expect("encodes"));
    add(&|out| (-70_000, "text").encode_args(out).expect("encodes"));
    add(&|out| (record(),).encode_args(out).expect("encodes"));
    add(&|out| (vec![record(), record()],).encode_args(out).expect("encodes"));
    add(&|out| (Chain::N(Box::new(Chain::L(7))), 1.5).encode_args(out).expect("encodes"));
    add(&|out| {
        let everything = vec![
            Value::from(u64::MAX),
            Value::from("text"),
            Value::Binary(vec![1, 2, 3]),
            Value::Extension(-1, vec![1; 12]),
            Value::from(1.5_f32),
            [("key", Value::Nil)].into_iter().collect(),
        ];
        everything.encode_args(out).expect("encodes");
    });
    bodies
}

#[test]
fn every_prefix_is_refused() {
    for body in honest_bodies() {
        assert_eq!(scan(&body, &limits()), Ok(()));
        for cut in 0..body.len() {
            let error = scan(&body[..cut], &limits());
            assert_eq!(error, Err(ScanError::Truncated { bytes: cut }), "{body:x?}");
            decode_as_everything(&body[..cut]);
        }
    }
}

#[test]
fn every_flipped_bit_is_survived() {
    for body in honest_bodies() {
        for bit in 0..body.len() * 8 {
            let mut flipped = body.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if scan(&flipped, &limits()).is_ok() {
                decode_as_everything(&flipped);
            }
        }
    }
}

#[test]
fn chance_is_survived() {
    let mut chance = Chance(0x1234_5678_9abc_def1);
    let bodies = honest_bodies();
    let mut passed = 0;
    for _ in 0..20_000 {
        let mut body = bodies[chance.below(bodies.len())].clone();
        for _ in 0..=chance.below(4) {
            let at = chance.below(body.len());
            match chance.below(4) {
                0 => body[at] = chance.byte(),
                1 => body.insert(at, chance.byte()),
                2 if body.len() > 1 => drop(body.remove(at)),
                _ => {
                    let to = at + chance.below(body.len() - at);
                    body.extend_from_within(at..to);
                }
            }
        }
        // What the scan lets through is whole, and one value: it must be readable as such.
        if scan(&body, &limits()).is_ok() {
            passed += 1;
            assert!(decode_whole::<Value>(&body).is_ok(), "{body:x?}");
            decode_as_everything(&body);
        } else {
            assert!(decode_scanned::<Value>(&body, &limits()).is_err());
        }
    }
    assert!((1_000..20_000).contains(&passed), "{passed} of 20 000 passed");
}

#[test]
fn scanning_whole_or_in_pieces_is_the_same() {
    use onceloop_protocol::scan::Progress;
    let mut chance = Chance(0xfeed_5678_9abc_def1);
    for _ in 0..20_000 {
        let length = chance.below(24);
        let body: Vec<u8> = (0..length).map(|_| chance.byte()).collect();
        let whole = Scanner::new().resume(&body, &limits());
        let mut scanner = Scanner::new();
        let mut pieces = Progress::NeedMore;
        let mut to = 0;
        while pieces == Progress::NeedMore && to < length {
            to += 1 + chance.below(length - to);
            pieces = scanner.resume(&body[..to], &limits());
        }
        match (whole, pieces) {
            (Progress::NeedMore, _) | (Progress::Done(_), _) => assert_eq!(whole, pieces),
            (Progress::Refused(_), pieces) => assert!(matches!(pieces, Progress::Refused(_))),
        }
        if let Progress::Done(length) = whole {
            assert_eq!(scan(&body[..length], &limits()), Ok(()));
        }
    }
}
