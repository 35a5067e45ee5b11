//! docs/PROTOCOL.md says what is true: each example's bytes are what this version writes, and are
//! read as what they are said to be; the tables of kinds, codes and methods are the code's.

mod examples;

use std::collections::BTreeMap;

use examples::{examples, hex, unhex};
use onceloop_protocol::codec::{Bin, EncodeArgs, decode_whole, encode};
use onceloop_protocol::error::{Class, Code};
use onceloop_protocol::frame::{Kind, MAGIC, MethodId};
use onceloop_protocol::value::Value;
use serde::Serialize;

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md");
    std::fs::read_to_string(path).expect("the document is in the repository")
}

/// Returns the document's examples by name: blocks that begin with ```` ```hex name ````, in each
/// line bytes, and a remark after `#`.
fn blocks(document: &str) -> BTreeMap<&str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex") else { continue };
        let block = lines.by_ref().take_while(|line| *line != "```");
        let digits: String =
            block.map(|line| line.split_once('#').map_or(line, |(bytes, _)| bytes)).collect();
        let is_new = blocks.insert(name.trim(), unhex(&digits)).is_none();
        assert!(is_new, "two examples are called {name}");
    }
    blocks
}

/// The examples that are no frames.
fn values() -> Vec<(&'static str, Vec<u8>)> {
    #[derive(Serialize)]
    struct Point {
        x: i32,
        label: &'static str,
    }
    #[derive(Serialize)]
    enum Shape {
        Nothing,
        Line(i32, i32),
        Box { width: u32, height: Option<u32> },
    }
    fn args(args: &impl EncodeArgs) -> Vec<u8> {
        let mut out = Vec::new();
        args.encode_args(&mut out).expect("encodes");
        out
    }
    fn reply(value: &impl Serialize) -> Vec<u8> {
        encode(value).expect("encodes")
    }
    vec![
        ("arguments-none", args(&())),
        ("arguments-add", args(&(3, 4))),
        ("struct", reply(&Point { x: 1, label: "p" })),
        ("variant-unit", reply(&Shape::Nothing)),
        ("variant-tuple", reply(&Shape::Line(1, 2))),
        ("variant-struct", reply(&Shape::Box { width: 3, height: None })),
        ("bytes", reply(&Bin(&[0, 255, 128]))),
    ]
}

#[test]
fn every_example_is_checked_both_ways() {
    let document = document();
    let mut blocks = blocks(&document);
    assert_eq!(blocks.remove("magic").as_deref(), Some(&MAGIC[..]));
    for example in examples() {
        let bytes = blocks.remove(example.name);
        let bytes = bytes.unwrap_or_else(|| panic!("{} is not in the document", example.name));
        assert_eq!(hex(&bytes), hex(&example.write()), "{}", example.name);
        example.read(&bytes);
    }
    for (name, written) in values() {
        let bytes = blocks.remove(name);
        let bytes = bytes.unwrap_or_else(|| panic!("{name} is not in the document"));
        assert_eq!(hex(&bytes), hex(&written), "{name}");
        let value: Value = decode_whole(&bytes).expect("one value");
        assert_eq!(encode(&value), Ok(bytes), "{name}");
    }
    assert!(blocks.is_empty(), "nobody checks {:?}", blocks.keys());
}

/// Returns the rows of all tables, cell by cell.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let rows = document.lines().filter(|line| line.starts_with('|'));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_of_codes_is_the_code_s() {
    let document = document();
    let names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let told: Vec<Vec<&str>> = rows(&document)
        .into_iter()
        .filter(|row| row.len() == 4 && names.contains(&row[1]))
        .map(|row| row[..3].to_vec())
        .collect();
    let expected: Vec<Vec<String>> = Code::ALL
        .iter()
        .map(|code| {
            let class = match code.class() {
                Class::NotExecuted => "N",
                Class::InProgress => "P",
                Class::Executed => "E",
                Class::Unknown => "U",
                Class::ClientBug => "X",
            };
            vec![(*code as u16).to_string(), code.name().into(), class.into()]
        })
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn the_table_of_kinds_is_the_code_s() {
    let document = document();
    let told: Vec<String> = rows(&document)
        .into_iter()
        .filter(|row| row.len() == 5 && row[0].parse::<u8>().is_ok())
        .map(|row| format!("{} {}", row[0], row[1]))
        .collect();
    let expected: Vec<String> = (0..=u8::MAX)
        .filter_map(Kind::from_wire)
        .map(|kind| format!("{} {}", kind as u8, format!("{kind:?}").to_uppercase()))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn methods_have_the_numbers_it_tells() {
    let document = document();
    let mut checked = 0;
    for row in rows(&document) {
        let [name, number] = row[..] else { continue };
        let (name, number) = (name.trim_matches('`'), number.trim_matches('`'));
        if let Some(digits) = number.strip_prefix("0x") {
            assert_eq!(format!("{:016x}", MethodId::of(name).0), digits, "{name}");
            checked += 1;
        }
    }
    assert_eq!(checked, 5);
}
