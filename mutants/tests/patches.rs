//! Every mutant's patch applies to the sources as they are.

use std::path::Path;

use onceloop_mutants::List;
use onceloop_mutants::tree::ROOT;

#[test]
fn every_patch_applies() {
    let root = Path::new(ROOT);
    let list = List::read(root).expect("the list reads");
    for mutant in &list.mutants {
        let files = mutant.apply(root).unwrap_or_else(|error| panic!("{error:#}"));
        for (name, content) in files {
            let original = std::fs::read_to_string(root.join(&name)).expect("it was read before");
            assert_ne!(original, content, "{}: nothing is changed", mutant.name);
        }
        assert!(!mutant.checks.is_empty(), "{}: nobody looks for it", mutant.name);
    }
}
