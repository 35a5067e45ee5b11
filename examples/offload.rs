//! Slow work beside fast calls. A handler that takes long would hold up everybody on a loop; so it
//! hands the work to a thread of the reactor's pool and answers when that is done. Meanwhile fast
//! calls on the same connection are answered at once.
//!
//! Run it: `cargo run --example offload`

use std::error::Error;
use std::time::Duration;

use onceloop::{Builder, Client, Cx, Reactor};

/// How many fast calls go beside the slow one.
const FAST_CALLS: u32 = 1_000;
/// What the slow work is: long enough to be seen, whatever the machine.
const SLOW: Duration = Duration::from_millis(300);

onceloop::service! {
    /// Fast and slow work.
    pub mod work {
        /// Doubles a number at once.
        fn fast(n: u32) -> u32;
        /// Takes its time.
        fn slow(n: u32) -> u32;
    }
}

#[derive(Default)]
struct App {
    fast_replies: u32,
    fast_before_slow: Option<u32>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let server = Builder::<App>::new()
        .method(work::fast, |(n,), _| Ok(n * 2))
        .deferred(work::slow, |(n,), responder, cx| {
            let job = move || {
                // Something that blocks: a file, a database, a computation.
                std::thread::sleep(SLOW);
                n * 2
            };
            let offloaded = cx.registry.offload(job, |result, cx| match result {
                Ok(doubled) => responder.respond(cx, Ok(doubled)),
                Err(panic) => responder.respond(cx, Err(panic.to_string().into())),
            });
            // The pool is bounded. Refused, the job and its responder are dropped, and the caller
            // gets an error.
            if let Err(full) = offloaded {
                eprintln!("{full}");
            }
        })
        .listen(reactor.registry(), "127.0.0.1:0")?;
    let address = server.local_addresses(reactor.registry()).remove(0);
    // The slow call is the oldest of the window as long as it takes: the window bounds how many
    // others may go beside it.
    let client = Client::builder().window(1_024).connect(reactor.registry(), address)?;

    client.call(reactor.registry(), work::slow, (21,), |reply, cx| {
        println!("the slow call: {reply:?}");
        cx.state.fast_before_slow = Some(cx.state.fast_replies);
        stop_if_done(cx);
    });
    for n in 0..FAST_CALLS {
        client.call(reactor.registry(), work::fast, (n,), move |reply, cx| {
            assert_eq!(reply, Ok(n * 2));
            cx.state.fast_replies += 1;
            stop_if_done(cx);
        });
    }
    let mut app = App::default();
    reactor.run(&mut app)?;
    let before = app.fast_before_slow.unwrap_or(0);
    println!("{before} of {FAST_CALLS} fast calls were answered before it");
    Ok(())
}

fn stop_if_done(cx: &mut Cx<'_, App>) {
    if cx.state.fast_replies == FAST_CALLS && cx.state.fast_before_slow.is_some() {
        cx.registry.stop();
    }
}
