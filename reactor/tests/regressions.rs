//! Each test is a mistake that was made here once.

mod support;

use std::panic;

use onceloop_reactor::Reactor;
use support::{World, turn_until};

/// Panics again as it is thrown away.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload panics too");
    }
}

#[test]
fn a_job_whose_panic_panics_is_reported_and_its_thread_lives() {
    let mut reactor = Reactor::<World>::new().unwrap();
    let mut world = World::default();
    for count in 1..=20 {
        let registry = reactor.registry();
        registry
            .offload(
                || panic::panic_any(Bomb),
                |result: Result<(), _>, cx| {
                    assert!(result.is_err());
                    cx.state.note("told");
                },
            )
            .unwrap();
        turn_until(&mut reactor, &mut world, |world| world.count("told") == count);
    }
}
