//! What is drawn for a seed before anything happens.

use std::time::Duration;

use onceloop::reactor::sim::{Faults, Random};
use onceloop::{Config, Limits, Order};

use crate::Sabotage;

/// In how many seeds of a million there are long arguments and replies: each costs what several
/// others do.
const PARCELS: u32 = 125_000;
/// The least that a host takes for the largest body: all but parcels are shorter.
const BODY_BYTES_MIN: u64 = 32 * 1_024;
/// The most, a little above the longest parcel.
const BODY_BYTES_MAX: u64 = 320 * 1_024;

/// The least number of calls of a seed.
pub(crate) const CALLS_MIN: u64 = 100;

/// A server's host.
#[derive(Clone, Debug)]
pub(crate) struct ServerPlan {
    pub(crate) limits: Limits,
    pub(crate) config: Config,
    /// The largest body that it takes when it has begun anew: sometimes another one, and clients
    /// send again what they sent before.
    pub(crate) body_bytes_max_anew: usize,
    /// How often it is drained and begun anew by itself; never if zero.
    pub(crate) drain_every: Duration,
    /// The longest that a handler takes to answer.
    pub(crate) slowness: Duration,
    /// What it knows of calls outlives it.
    pub(crate) is_durable: bool,
    /// The longest that a commit takes to be safe.
    pub(crate) commit_max: Duration,
    /// After what time its store fails; never if zero.
    pub(crate) fails_after: Duration,
    /// It tells copies that their call is in progress.
    pub(crate) says_in_progress: bool,
}

/// A client of one server.
#[derive(Clone, Debug)]
pub(crate) struct LinkPlan {
    pub(crate) server: usize,
    pub(crate) order: Order,
    pub(crate) window: u32,
    /// It is to come back under the same name.
    pub(crate) is_journaled: bool,
}

/// A client's host.
#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) links: Vec<LinkPlan>,
    pub(crate) limits: Limits,
    pub(crate) config: Config,
    pub(crate) calls: u32,
    /// Calls that are open at once, at most.
    pub(crate) open_max: u32,
    /// The mean time between two calls.
    pub(crate) pause: Duration,
    /// How many calls in a million are given up, have a deadline that may pass, may be sent only so
    /// often, and are hedged.
    pub(crate) cancels: u32,
    pub(crate) deadlines: u32,
    pub(crate) attempts: u32,
    pub(crate) hedges: u32,
    /// How many calls in a million are followed by the end of their client.
    pub(crate) closes: u32,
}

/// A seed's world.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) servers: Vec<ServerPlan>,
    pub(crate) clients: Vec<ClientPlan>,
    /// When nothing fails any more, at the latest.
    pub(crate) fault_time: Duration,
    /// How long a call whose handler has ended may wait for its answer once nothing fails.
    pub(crate) patience: Duration,
    /// Sessions may end before their clients come back.
    pub(crate) has_short_leases: bool,
    /// Some calls have long arguments and ask for long replies.
    pub(crate) has_parcels: bool,
    pub(crate) sabotage: Sabotage,
}

impl Plan {
    pub(crate) fn drawn(seed: u64, sabotage: Sabotage) -> Plan {
        let random = Random::new(seed).fork("plan");
        let mut shape = random.fork("shape");
        let limits = limits(&mut random.fork("limits"));
        let mut servers: Vec<_> = (0..shape.range(1..3))
            .map(|place| server(&mut random.fork("servers").fork_by(place), &limits))
            .collect();
        let clients = shape.range(2..5);
        let calls = shape.spread(CALLS_MIN, 4 * CALLS_MIN).div_ceil(clients);
        let mut clients: Vec<_> = (0..clients)
            .map(|place| {
                let mut random = random.fork("clients").fork_by(place);
                client(&mut random, &limits, servers.len() as u64, calls)
            })
            .collect();
        let mut parcels = random.fork("parcels");
        let has_parcels = parcels.chance(PARCELS);
        if has_parcels {
            for plan in &mut servers {
                bound(&mut parcels, &mut plan.limits, &mut plan.config);
                plan.body_bytes_max_anew = match parcels.chance(600_000) {
                    true => body_bytes_max(&mut parcels),
                    false => plan.limits.body_bytes_max,
                };
            }
            for plan in &mut clients {
                bound(&mut parcels, &mut plan.limits, &mut plan.config);
            }
        }
        let faults = faults(seed, &mut random.fork("faults"));
        // Clocks that leap may leap over a long lease, too.
        let has_short_leases =
            limits.lease < Limits::default().lease || !faults.leaps_every.is_zero();
        Plan {
            faults,
            servers,
            clients,
            fault_time: shape.duration(Duration::from_secs(20)..Duration::from_secs(60)),
            // As the specification has it.
            patience: 3 * limits.retransmit_timeout,
            has_short_leases,
            has_parcels,
            random,
            sabotage,
        }
    }

    /// Returns the least and the most that each host takes for the largest body, servers first.
    pub(crate) fn body_bytes_max(&self) -> Vec<(usize, usize)> {
        let servers = self.servers.iter().map(|plan| {
            let (first, anew) = (plan.limits.body_bytes_max, plan.body_bytes_max_anew);
            (first.min(anew), first.max(anew))
        });
        let clients = self.clients.iter().map(|plan| plan.limits.body_bytes_max);
        servers.chain(clients.map(|bytes| (bytes, bytes))).collect()
    }
}

/// Draws what a host takes and does in a turn, where bodies are long: sometimes so little that one
/// takes many turns.
fn bound(random: &mut Random, limits: &mut Limits, config: &mut Config) {
    let mut bytes = |least, most| usize::try_from(random.spread(least, most)).expect("small");
    let output_bytes_mark = bytes(1_024, 1_024 * 1_024);
    let (read, written) = (bytes(4 * 1_024, 68 * 1_024), bytes(4 * 1_024, 260 * 1_024));
    let (requests, alone) = (bytes(1, 128), bytes(1, 1_024));
    if random.chance(400_000) {
        limits.body_bytes_max = body_bytes_max(random);
    }
    if random.chance(300_000) {
        limits.output_bytes_mark = output_bytes_mark;
    }
    if random.chance(500_000) {
        config.read_bytes_per_turn = read;
        config.write_bytes_per_turn = written;
    }
    if random.chance(300_000) {
        config.requests_per_turn = requests;
        config.requests_per_turn_alone = alone;
    }
}

fn body_bytes_max(random: &mut Random) -> usize {
    usize::try_from(random.spread(BODY_BYTES_MIN, BODY_BYTES_MAX)).expect("small")
}

/// Draws the faults. In some seeds hardly a connection lives: what is done twice, or not at all, is
/// done when a reply is lost.
fn faults(seed: u64, random: &mut Random) -> Faults {
    let mut faults = Faults::drawn(seed);
    if random.chance(400_000) {
        let rates = [&mut faults.cuts, &mut faults.resets, &mut faults.half_closes];
        for rate in rates.into_iter().chain([&mut faults.black_holes, &mut faults.late]) {
            *rate = (*rate * 3).min(800_000);
        }
    }
    faults
}

/// Draws what both ends share.
///
/// A call whose handler has ended is to be resolved within three retransmission timeouts T once
/// nothing fails. A silent connection is found out in 2 T; a connection or a handshake that hangs,
/// in T/2, and a pause before the next attempt is at most T/2 and a fifth of it: so each way leaves
/// at least half a T for what is then to be sent.
fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits::default();
    let timeout = Duration::from_millis(random.spread(500, 2_000));
    limits.retransmit_timeout = timeout;
    limits.connect_timeout = timeout / 2;
    limits.handshake_timeout = timeout / 2;
    limits.backoff_min = Duration::from_millis(random.spread(10, 100));
    limits.backoff_max = timeout / 2;
    limits.ack_delay = Duration::from_millis(random.spread(10, 1_000));
    limits.idle_ping = Duration::from_millis(random.spread(2_000, 60_000));
    if random.chance(300_000) {
        // A lease that passes while a client is cut off.
        limits.lease = Duration::from_millis(random.spread(12_000, 40_000));
    }
    limits
}

fn server(random: &mut Random, limits: &Limits) -> ServerPlan {
    let mut limits = limits.clone();
    if random.chance(250_000) {
        // Little room: some calls are refused, and come again.
        limits.in_flight_max = usize::try_from(random.spread(1, 16)).expect("small");
    }
    if random.chance(300_000) {
        limits.reply_reservation_bytes = 512;
        limits.kept_reply_bytes_per_session_max = 2_048 << random.below(5);
    }
    if random.chance(300_000) {
        limits.hole_age_max = Duration::from_millis(random.spread(200, 10_000));
    }
    let drain_every = if random.chance(300_000) { random.spread(2_000, 30_000) } else { 0 };
    ServerPlan {
        body_bytes_max_anew: limits.body_bytes_max,
        limits,
        config: Config::simulated(),
        drain_every: Duration::from_millis(drain_every),
        slowness: Duration::from_millis(random.spread(1, 3_000)),
        is_durable: random.chance(500_000),
        commit_max: Duration::from_micros(random.spread(50, 50_000)),
        fails_after: match random.chance(200_000) {
            true => Duration::from_millis(random.spread(1_000, 40_000)),
            false => Duration::ZERO,
        },
        says_in_progress: random.chance(200_000),
    }
}

fn client(random: &mut Random, limits: &Limits, servers: u64, calls: u64) -> ClientPlan {
    let links = (0..random.range(1..3)).map(|_| LinkPlan {
        server: usize::try_from(random.below(servers)).expect("one or two"),
        order: if random.chance(300_000) { Order::InOrder } else { Order::Unordered },
        window: 1 << random.below(8),
        is_journaled: random.chance(350_000),
    });
    let mostly = |random: &mut Random, share| if random.chance(500_000) { 0 } else { share };
    ClientPlan {
        links: links.collect(),
        limits: limits.clone(),
        config: Config::simulated(),
        calls: u32::try_from(calls).expect("a hundred or so"),
        open_max: u32::try_from(random.spread(1, 64)).expect("small"),
        pause: Duration::from_millis(random.spread(2, 1_000)),
        cancels: mostly(random, 100_000),
        deadlines: mostly(random, 300_000),
        attempts: mostly(random, 150_000),
        hedges: mostly(random, 400_000),
        closes: mostly(random, 20_000),
    }
}
