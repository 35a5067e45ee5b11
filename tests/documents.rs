//! What the documents say of the files is true.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CRATES: [&str; 10] = [
    "reactor", "protocol", "endpoint", "server", "client", "sim", "model", "mutants", "cli",
    "benches",
];

/// Collects the source files below a folder, but for unit tests and the crates' roots.
fn sources(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                sources(&path, found);
            }
        } else if !path.ends_with("tests.rs") && !path.ends_with("src/lib.rs") {
            let name = path.strip_prefix(ROOT).expect("it is below the root");
            found.insert(name.to_str().expect("names are UTF-8").to_owned());
        }
    }
}

#[test]
fn the_architecture_names_every_source_file_and_no_other() {
    let mut there = BTreeSet::new();
    for name in CRATES {
        sources(&Path::new(ROOT).join(name).join("src"), &mut there);
    }
    let page = fs::read_to_string(Path::new(ROOT).join("docs/ARCHITECTURE.md")).expect("the page");
    let is_source = |word: &&str| word.contains("/src/") && word.ends_with(".rs");
    let named: BTreeSet<String> = page.split('`').filter(is_source).map(str::to_owned).collect();
    assert_eq!(named, there);
}

/// Local links of a page: what stands in `](…)`.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.starts_with("http") && !target.starts_with('#')).collect()
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let pages = [
        "README.md",
        "CHANGELOG.md",
        "docs/ARCHITECTURE.md",
        "docs/BENCHMARKS.md",
        "docs/PROTOCOL.md",
        "docs/SEMANTICS.md",
        "benches/README.md",
        "sim/README.md",
    ];
    for name in pages {
        let path = Path::new(ROOT).join(name);
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let folder = path.parent().expect("a page is in a folder");
        for link in links(&page) {
            let file = link.split('#').next().unwrap_or(link);
            assert!(folder.join(file).exists(), "{name} links to {link}, which is not there");
        }
    }
}

/// Collects the Rust files below a folder, but for what is built.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_failure_is_shown_by_a_test_or_an_example_that_is_there() {
    let root = Path::new(ROOT);
    let page = fs::read_to_string(root.join("docs/SEMANTICS.md")).expect("the page");
    let (_, below) = page.split_once("## Every failure").expect("the heading");
    let table = below.split("\n## ").next().expect("it ends");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let shown_by = rows.map(|row| row.trim_end_matches('|').rsplit('|').next().expect("a cell"));
    let names: Vec<&str> = shown_by.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 40, "the table is read: {names:?}");

    let mut files = Vec::new();
    rust_files(root, &mut files);
    let read = |path: &PathBuf| fs::read_to_string(path).expect("source is text");
    let source: String = files.iter().map(read).collect();
    for name in names {
        let is_there = match name.starts_with("examples/") {
            true => root.join(name).exists(),
            false => {
                source.contains(&format!("#[test]\n    fn {name}() {{"))
                    || source.contains(&format!("#[test]\nfn {name}() {{"))
            }
        };
        assert!(is_there, "{name} is named, and is not there");
    }
}

/// The source without its unit tests.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or(source)
}

#[test]
fn below_the_facade_only_the_reactor_asks_the_system_for_time_and_chance() {
    let words = ["Instant::now", "SystemTime", "HashMap", "HashSet", "RandomState", "os::random"];
    // Its map has a hasher of its own, and no order of chance.
    let allowed = [("server/src/handler.rs", "HashMap")];
    let mut files = BTreeSet::new();
    for name in ["protocol", "endpoint", "server", "client"] {
        sources(&Path::new(ROOT).join(name).join("src"), &mut files);
    }
    for file in files {
        let source = fs::read_to_string(Path::new(ROOT).join(&file)).expect("it is there");
        for word in words {
            let is_allowed = allowed.contains(&(file.as_str(), word));
            let is_there = without_tests(&source).contains(word);
            assert!(is_allowed || !is_there, "{file}: {word} would make a seed more than one run");
        }
    }
}
