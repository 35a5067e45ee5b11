//! A small dose of every world: `cargo run --release -- model` explores them to their ends.

use onceloop_model::scenario::scenarios;
use onceloop_model::search::{Extent, search};
use onceloop_model::world::World;

/// States of each world that are visited here.
const STATES_MAX: usize = 3_000;

#[test]
fn nothing_is_violated_in_the_first_states_of_any_world() {
    for scenario in scenarios() {
        let extent = Extent { states_max: STATES_MAX, threads: 2 };
        let findings = search(&World::new(scenario.bounds), extent);
        assert!(findings.violation.is_none(), "{}: {:#?}", scenario.name, findings.violation);
        assert!(findings.states >= STATES_MAX, "{}: {}", scenario.name, findings.states);
    }
}

#[test]
fn the_worlds_have_names_of_their_own() {
    let all = scenarios();
    for (i, scenario) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
    }
}
