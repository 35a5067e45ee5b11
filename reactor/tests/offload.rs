//! Slow jobs: their results, their panics, and the bound of their queue.

mod support;

use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use onceloop_reactor::{Config, Reactor};
use support::{PATIENCE, World, turn_until};

#[test]
fn a_job_runs_on_a_thread_and_its_continuation_on_the_loop() {
    let mut reactor = Reactor::<World>::new().unwrap();
    let mut world = World::default();
    let here = thread::current().id();
    let not_send = Rc::new("kept on the loop");
    let done = move |result: Result<_, _>, cx: &mut onceloop_reactor::Cx<'_, World>| {
        let (there, text): (_, String) = result.unwrap();
        assert_ne!(there, here);
        assert_eq!(thread::current().id(), here);
        cx.state.note(format!("{text}, {not_send}"));
    };
    let job = || (thread::current().id(), "from the thread".to_owned());
    reactor.registry().offload(job, done).unwrap();
    assert!(world.log.is_empty());
    turn_until(&mut reactor, &mut world, |world| !world.log.is_empty());
    assert_eq!(world.log, ["from the thread, kept on the loop"]);
}

#[test]
fn a_job_that_panics_is_reported_and_its_thread_goes_on() {
    let mut config = Config::default();
    config.offload_threads = 1;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let mut world = World::default();
    let registry = reactor.registry();
    for n in 0..3 {
        let job = move || if n < 2 { panic!("number {n}") } else { "fine" };
        registry
            .offload(job, |result, cx| match result {
                Ok(text) => cx.state.note(text),
                Err(panic) => cx.state.note(format!("{panic}")),
            })
            .unwrap();
    }
    turn_until(&mut reactor, &mut world, |world| world.log.len() == 3);
    assert_eq!(world.log[0], "the offloaded job panicked: number 0");
    assert_eq!(world.log[2], "fine");
}

#[test]
fn a_full_queue_refuses_with_a_clear_error_and_recovers() {
    let mut config = Config::default();
    config.offload_threads = 2;
    config.offload_queue = 3;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let mut world = World::default();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    let offload = |registry: &mut onceloop_reactor::Registry<World>| {
        let released = std::sync::Arc::clone(&released);
        let job = move || released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        registry.offload(job, |result, cx| {
            result.unwrap();
            cx.state.note("done");
        })
    };
    for _ in 0..5 {
        offload(reactor.registry()).unwrap();
    }
    let refused = offload(reactor.registry()).unwrap_err();
    assert_eq!(refused.threads(), 2);
    assert!(refused.to_string().contains("full"), "{refused}");
    for _ in 0..5 {
        release.send(()).unwrap();
    }
    turn_until(&mut reactor, &mut world, |world| world.log.len() == 5);
    offload(reactor.registry()).unwrap();
    release.send(()).unwrap();
    turn_until(&mut reactor, &mut world, |world| world.log.len() == 6);
}

#[test]
fn a_pool_without_threads_refuses() {
    let mut config = Config::default();
    config.offload_threads = 0;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let refused = reactor.registry().offload(|| (), |_, _| unreachable!()).unwrap_err();
    assert!(refused.to_string().contains("no thread"), "{refused}");
}

#[test]
fn more_completions_than_a_turn_may_run_are_all_run() {
    let mut config = Config::default();
    config.completions_per_turn = 1;
    let mut reactor = Reactor::<World>::with_config(config).unwrap();
    let mut world = World::default();
    for _ in 0..100 {
        reactor.registry().offload(|| (), |_, cx| cx.state.note("done")).unwrap();
    }
    turn_until(&mut reactor, &mut world, |world| world.log.len() == 100);
}
