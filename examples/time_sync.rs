//! Cristian's algorithm: a client sets its clock by a server's. It takes the server's time T3 and
//! adds half of the round trip, which is (T4 − T1) − (T3 − T2): all the time that passed here, less
//! what passed on the server. Of several samples the one with the shortest round trip is the best:
//! its error is at most half of that.
//!
//! Here the server's clock goes 90 seconds fast, so that there is something to find out.
//!
//! Source: Flaviu Cristian, *Probabilistic clock synchronization*, Distributed Computing 3 (1989).
//!
//! Run it: `cargo run --example time_sync`

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use onceloop::{Builder, Client, Cx, Reactor};
use serde::{Deserialize, Serialize};

const SAMPLES: usize = 8;
/// How wrong the server's clock is.
const FAST_BY_NANOS: u64 = 90_000_000_000;

onceloop::service! {
    /// Tells the time.
    pub mod time {
        /// Tells when the request came and when the reply went.
        #[idempotent]
        fn now() -> ServerTimes;
    }
}

/// The server's two readings of its clock, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ServerTimes {
    t2: u64,
    t3: u64,
}

/// What one exchange tells, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    round_trip: i128,
    /// What is to be added to this clock.
    offset: i128,
}

impl Sample {
    fn new(t1: u64, server: ServerTimes, t4: u64) -> Sample {
        let [t1, t2, t3, t4] = [t1, server.t2, server.t3, t4].map(i128::from);
        let round_trip = (t4 - t1) - (t3 - t2);
        let now = t3 + round_trip / 2;
        Sample { round_trip, offset: now - t4 }
    }
}

#[derive(Default)]
struct App {
    samples: Vec<Sample>,
    failure: Option<Box<dyn Error>>,
}

fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(since.as_nanos()).expect("the clock is before 2554")
}

fn server_clock() -> u64 {
    clock() + FAST_BY_NANOS
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut reactor = Reactor::new()?;
    let server = Builder::new()
        .method(time::now, |(), _| {
            let t2 = server_clock();
            Ok(ServerTimes { t2, t3: server_clock() })
        })
        .listen(reactor.registry(), "127.0.0.1:0")?;
    let address = server.local_addresses(reactor.registry()).remove(0);
    let client = Client::connect(reactor.registry(), address)?;
    reactor.registry().defer(move |cx| sample(client, cx));

    let mut app = App::default();
    reactor.run(&mut app)?;
    if let Some(failure) = app.failure {
        return Err(failure);
    }
    let best = app.samples.iter().min_by_key(|sample| sample.round_trip);
    let best = best.ok_or("no sample")?;
    println!(
        "{} samples, round trips of {} to {} us",
        app.samples.len(),
        best.round_trip / 1_000,
        app.samples.iter().map(|sample| sample.round_trip).max().unwrap_or(0) / 1_000
    );
    println!("this clock is to be set by {:+.6} s", best.offset as f64 / 1e9);
    println!("the error is at most {:.6} s", best.round_trip as f64 / 2e9);
    Ok(())
}

/// Takes a sample, then the next.
fn sample(client: Client<App>, cx: &mut Cx<'_, App>) {
    if cx.state.samples.len() == SAMPLES {
        return cx.registry.stop();
    }
    let t1 = clock();
    client.call(cx.registry, time::now, (), move |reply, cx| {
        let t4 = clock();
        match reply {
            Ok(server) => {
                cx.state.samples.push(Sample::new(t1, server, t4));
                sample(client, cx);
            }
            Err(error) => {
                cx.state.failure = Some(Box::new(error));
                cx.registry.stop();
            }
        }
    });
}
