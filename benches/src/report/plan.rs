//! What a report measures, as data: sections of groups of trials. A trial is a server and the flags
//! of `c10k` that load it, so what is measured here is measured again by typing them.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::options::{LoadKind, Options, PAYLOAD_BYTES, ServerKind};
use crate::show;

/// Microseconds of the spinning workload: far longer than an answer takes.
const SPIN_US: u64 = 100;
/// Calls in flight over all connections, where that stays the same.
const TOTAL_IN_FLIGHT: u32 = 10_000;
/// The most that one connection may have in flight: the largest window.
const IN_FLIGHT_MAX: u32 = 1_024;
/// Percent of the rate of the closed loop at which the open loop calls.
const SHARES: [u32; 3] = [50, 80, 95];

/// Of a hundred calls so many have a handler that blocks, for so many microseconds.
const SLOW_PERCENT: u32 = 1;
const SLOW_US: u32 = 5_000;
/// Calls a second that every server can answer with those among them: half of what one thread can
/// that waits for each.
const MIX_RATE: u64 = 10_000;

/// Connections with a large call each, and calls a second of the others beside them.
const LARGE_CONNECTIONS: u32 = 4;
const LARGE_RATE: u64 = 20_000;

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Section {
    /// The named workloads
    Workloads,
    /// The client library beside the bare load
    Client,
    /// From one connection to as many as the machine holds
    Connections,
    /// From 16 bytes to 1 MiB
    Payloads,
    /// Fixed rates, latency from when each call was due
    OpenLoop,
    /// Slow handlers among fast ones
    Mix,
    /// Large messages beside small ones
    Large,
    /// The servers side by side
    Models,
    /// The highest rate with p99.9 below a bound
    Slo,
}

/// A section and what it measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) section: Section,
    pub(crate) groups: Vec<Group>,
}

/// Trials that are compared with each other: measured in turn, run by run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// The line of a plot to which it gives a point.
    pub(crate) line: String,
    pub(crate) trials: Vec<Trial>,
}

/// One server under one load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) label: String,
    pub(crate) server: ServerKind,
    /// Flags of `c10k`.
    pub(crate) flags: String,
    /// At this share, in percent, of the rate that the same server reached under the same flags.
    pub(crate) rate_percent: Option<u32>,
}

/// For whom a plan is made.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) servers: Vec<ServerKind>,
    /// No more connections than that, of either kind, whatever a workload says.
    pub(crate) connections_max: Option<u32>,
    /// The most connections that the machine holds.
    pub(crate) most: u32,
}

impl Section {
    /// Returns its name as it is typed.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Part {
    /// Returns the servers that are measured, in the order in which they first are.
    pub(crate) fn servers(&self) -> Vec<ServerKind> {
        let mut servers = Vec::new();
        for trial in self.groups.iter().flat_map(|group| &group.trials) {
            if !servers.contains(&trial.server) {
                servers.push(trial.server);
            }
        }
        servers
    }

    /// Returns the names that groups have for their line, in order.
    pub(crate) fn lines(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for group in &self.groups {
            if !names.contains(&group.line.as_str()) {
                names.push(&group.line);
            }
        }
        names
    }

    pub(crate) fn on_line(&self, line: &str) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(move |group| group.line == line)
    }
}

impl Trial {
    /// Returns whether both are the same work.
    pub(crate) fn is_same(&self, other: &Trial) -> bool {
        (self.server, &self.flags, self.rate_percent)
            == (other.server, &other.flags, other.rate_percent)
    }

    /// Returns whether its server takes all of its flags, and none of them in vain.
    fn is_possible(&self) -> bool {
        let Ok(options) = self.options(&[]) else { return false };
        let mix = &options.mix;
        let offloads_in_vain = mix.offload.is_some() && mix.offload_threads(self.server).is_none();
        let spins_in_vain = options.spin_us > 0 && !self.server.can_spin();
        mix.excludes(self.server).is_none() && !offloads_in_vain && !spins_in_vain
    }

    /// Returns whether large calls are made beside those that are measured.
    pub(crate) fn is_beside_large(&self) -> bool {
        self.options(&[]).is_ok_and(|options| options.mix.large().is_some())
    }

    /// Returns the trial that tells the rate of which this one has a share.
    pub(crate) fn closed_loop(&self) -> Trial {
        Trial { rate_percent: None, ..self.clone() }
    }

    /// Returns its flags as the bench takes them, with these behind them.
    pub(crate) fn options(&self, further: &[String]) -> Result<Options, clap::Error> {
        let flags = self.flags.split_whitespace().map(str::to_owned);
        Options::of(flags.chain(further.iter().cloned()))
    }
}

/// A load, before it is cut to what was asked for.
#[derive(Clone, Copy)]
struct Shape {
    connections: u32,
    in_flight: u32,
    idle: u32,
    payload: u64,
    spin_us: u64,
    load: LoadKind,
}

const ONE: Shape = Shape {
    connections: 1,
    in_flight: 1,
    idle: 0,
    payload: PAYLOAD_BYTES,
    spin_us: 0,
    load: LoadKind::Bare,
};

const fn of(connections: u32, in_flight: u32) -> Shape {
    Shape { connections, in_flight, ..ONE }
}

/// The named workloads: `benches/README.md` has their table.
const WORKLOADS: [(&str, Shape); 8] = [
    ("W1: 1 connection x 1", ONE),
    ("W1, spinning", Shape { spin_us: SPIN_US, ..ONE }),
    ("W2: 1 connection x 128", of(1, 128)),
    ("W2b: 1 connection x 1 024", of(1, 1_024)),
    ("W3: 100 connections x 16", of(100, 16)),
    ("W4: 10 000 connections x 1 (C10k)", of(10_000, 1)),
    ("W5: 100 connections x 1 beside 10 000 silent ones", Shape { idle: 10_000, ..of(100, 1) }),
    ("W5b: 100 connections x 1", of(100, 1)),
];

impl Scope {
    fn flags(&self, shape: Shape) -> String {
        let cut = |connections: u32| connections.min(self.connections_max.unwrap_or(u32::MAX));
        let mut flags = format!("-c {} -P {}", cut(shape.connections), shape.in_flight);
        let mut add = |is_unusual: bool, flag: String| {
            if is_unusual {
                flags = format!("{flags} {flag}");
            }
        };
        add(shape.idle > 0, format!("--idle {}", cut(shape.idle)));
        add(shape.payload != PAYLOAD_BYTES, format!("-d {}", shape.payload));
        add(shape.spin_us > 0, format!("--spin-us {}", shape.spin_us));
        add(shape.load != LoadKind::Bare, format!("--load {}", shape.load));
        flags
    }

    fn trial(&self, server: ServerKind, shape: Shape) -> Trial {
        let (label, flags) = (server.to_string(), self.flags(shape));
        Trial { label, server, flags, rate_percent: None }
    }

    /// Returns the same load for every server of ours that takes it.
    fn group(&self, name: &str, line: &str, shape: Shape) -> Group {
        self.group_of(name, line, shape, |server| !server.is_peer())
    }

    fn group_of(
        &self,
        name: &str,
        line: &str,
        shape: Shape,
        takes: impl Fn(ServerKind) -> bool,
    ) -> Group {
        let servers = self.servers.iter().filter(|server| takes(**server));
        let trials = servers.map(|&server| self.trial(server, shape)).filter(Trial::is_possible);
        Group { name: name.to_owned(), line: line.to_owned(), trials: trials.collect() }
    }
}

/// Returns what `sections` measure for `scope`, in the order in which it is shown.
pub(crate) fn plan(sections: &[Section], scope: &Scope) -> Vec<Part> {
    let all = Section::value_variants().iter().filter(|section| sections.contains(section));
    all.map(|&section| Part { section, groups: groups(section, scope) }).collect()
}

fn groups(section: Section, scope: &Scope) -> Vec<Group> {
    match section {
        Section::Workloads => {
            let group = |&(name, shape): &(&str, Shape)| scope.group_of(name, "", shape, |_| true);
            WORKLOADS.iter().map(group).collect()
        }
        Section::Client => {
            vec![client("W4", of(10_000, 1), scope), client("W2b", of(1, 1_024), scope)]
        }
        Section::Connections => connections(scope),
        Section::Payloads => [16, 256, 4 << 10, 64 << 10, 1 << 20]
            .map(|payload| {
                let shape = Shape { payload, ..of(100, 1) };
                scope.group(&format!("{} each way", show::bytes(payload)), "payload", shape)
            })
            .into(),
        Section::OpenLoop => open_loop("W4", of(10_000, 1), scope)
            .chain(open_loop("W5b", of(100, 1), scope))
            .collect(),
        Section::Mix => mix(scope),
        Section::Large => vec![large(scope)],
        Section::Models => {
            vec![scope.group("10 000 connections x 1 (W4)", "", of(10_000, 1))]
        }
        // It searches, and so has no plan.
        Section::Slo => Vec::new(),
    }
}

/// Returns the client library beside the bare load, against the limit's server and against ours.
fn client(name: &str, shape: Shape, scope: &Scope) -> Group {
    let of = |server, load| Trial {
        label: format!("{load} load, {server} server"),
        ..scope.trial(server, Shape { load, ..shape })
    };
    let servers = [ServerKind::Raw, ServerKind::Event];
    let trials = servers.into_iter().filter(|server| scope.servers.contains(server));
    let trials =
        trials.flat_map(|server| [of(server, LoadKind::Bare), of(server, LoadKind::Client)]);
    Group { name: name.to_owned(), line: String::new(), trials: trials.collect() }
}

fn connections(scope: &Scope) -> Vec<Group> {
    let counts = [1, 100, 1_000, 10_000, scope.most.max(1)];
    let name = |count: u32| match show::grouped(count.into()) {
        one if count == 1 => format!("{one} connection"),
        many => format!("{many} connections"),
    };
    let alone = counts.map(|count| {
        scope.group(&format!("{} x 1", name(count)), "one in flight each", of(count, 1))
    });
    let shared = counts.map(|count| {
        let in_flight = (TOTAL_IN_FLIGHT / count).clamp(1, IN_FLIGHT_MAX);
        let text = format!("{} x {}", name(count), show::grouped(in_flight.into()));
        scope.group(&text, "10 000 in flight in all", of(count, in_flight))
    });
    let mut groups: Vec<Group> = alone.into_iter().chain(shared).collect();
    // Cut to few connections, some are the same.
    groups.dedup_by(|one, other| one.trials == other.trials && one.line == other.line);
    groups
}

fn open_loop(name: &str, shape: Shape, scope: &Scope) -> impl Iterator<Item = Group> {
    let closed = scope.group(&format!("{name}, closed loop"), name, shape);
    let open = SHARES.map(|percent| {
        let mut group = closed.clone();
        group.name = format!("{name}, open loop at {percent} % of the closed loop's rate");
        group.trials.iter_mut().for_each(|trial| trial.rate_percent = Some(percent));
        group
    });
    std::iter::once(closed).chain(open)
}

/// What is done about slow handlers, on many connections and on one.
fn mix(scope: &Scope) -> Vec<Group> {
    let slow = format!("--slow-percent {SLOW_PERCENT} --slow-us {SLOW_US}");
    let many = scope.flags(of(100, 1));
    let one = scope.flags(of(1, 128));
    let group = |name: &str, flags: &str, ways: &[(&str, &str)]| {
        let trials =
            scope.servers.iter().flat_map(|&server| ways.iter().map(move |way| (server, way)));
        let trial = |(server, &(what, flag)): (ServerKind, &(&str, &str))| Trial {
            label: format!("{server}{what}"),
            server,
            flags: format!("{flags} {slow} {flag}").trim_end().to_owned(),
            rate_percent: None,
        };
        let trials = trials.map(trial).filter(Trial::is_possible);
        Group { name: name.to_owned(), line: String::new(), trials: trials.collect() }
    };
    let where_run = [("", ""), (", offloaded", "--offload")];
    let windows = [
        (", W 1024", "--window 1024"),
        (", offloaded, W 128", "--offload --window 128"),
        (", offloaded, W 1024", "--offload --window 1024"),
    ];
    vec![
        group("100 connections x 1, as fast as they go", &many, &where_run),
        group(
            &format!("100 connections, {} calls/s", show::grouped(MIX_RATE)),
            &format!("{many} --rate {MIX_RATE}"),
            &where_run,
        ),
        group("1 connection x 128", &one, &windows),
    ]
}

/// Small calls at a fixed rate, alone and beside large ones.
fn large(scope: &Scope) -> Group {
    let alone = format!("{} --rate {LARGE_RATE}", scope.flags(of(100, 1)));
    let beside = format!("{alone} --large-connections {LARGE_CONNECTIONS}");
    let of_server = |&server: &ServerKind| {
        let label = format!("{server}, beside large calls");
        let alone = Trial { flags: alone.clone(), ..scope.trial(server, ONE) };
        let beside = Trial { label, flags: beside.clone(), ..alone.clone() };
        [alone, beside]
    };
    let servers = scope.servers.iter().filter(|server| !server.is_peer());
    Group {
        name: format!("100 connections, {} calls/s", show::grouped(LARGE_RATE)),
        line: String::new(),
        trials: servers.flat_map(of_server).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Rate;

    fn scope(connections_max: Option<u32>) -> Scope {
        let servers = vec![ServerKind::Raw, ServerKind::Event, ServerKind::Threads];
        Scope { servers, connections_max, most: 20_000 }
    }

    #[test]
    fn every_trial_is_a_command() {
        let parts = plan(Section::value_variants(), &scope(None));
        assert_eq!(parts.len(), Section::value_variants().len());
        for trial in parts.iter().flat_map(|part| &part.groups).flat_map(|group| &group.trials) {
            let options = trial.options(&[]).unwrap_or_else(|error| panic!("{trial:?}: {error}"));
            assert!(options.connections <= 20_000, "{trial:?}");
            assert!(trial.rate_percent.is_none() || options.rate == Rate::Max, "{trial:?}");
        }
    }

    #[test]
    fn only_servers_that_spin_are_measured_spinning() {
        let servers = ServerKind::value_variants().to_vec();
        let all = plan(&[Section::Workloads], &Scope { servers, ..scope(None) });
        for group in &all[0].groups {
            let spins = group.name.contains("spinning");
            assert_eq!(spins, group.trials[0].flags.contains("--spin-us"), "{}", group.name);
            let servers: Vec<ServerKind> = group.trials.iter().map(|trial| trial.server).collect();
            let expected = ServerKind::value_variants().iter().copied();
            let expected: Vec<ServerKind> =
                expected.filter(|server| !spins || server.can_spin()).collect();
            assert_eq!(servers, expected, "{}", group.name);
        }
    }

    #[test]
    fn a_scope_cuts_every_load() {
        let parts = plan(Section::value_variants(), &scope(Some(50)));
        for trial in parts.iter().flat_map(|part| &part.groups).flat_map(|group| &group.trials) {
            let options = trial.options(&[]).expect("flags");
            assert!(options.connections <= 50 && options.idle <= 50, "{trial:?}");
        }
    }

    #[test]
    fn an_open_loop_follows_the_closed_one_whose_rate_it_shares() {
        let parts = plan(&[Section::OpenLoop], &scope(None));
        let groups = &parts[0].groups;
        assert_eq!(groups.len(), 2 * (1 + SHARES.len()));
        let mut measured: Vec<&Trial> = Vec::new();
        for trial in groups.iter().flat_map(|group| &group.trials) {
            let closed = trial.closed_loop();
            let is_known = measured.iter().any(|known| known.is_same(&closed));
            assert!(trial.rate_percent.is_none() || is_known, "{trial:?}");
            measured.push(trial);
        }
    }
}
