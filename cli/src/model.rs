//! `onceloop model`: the table of xids, exhaustively, within small bounds.

use std::error::Error;
use std::fs;
use std::num::NonZeroUsize;
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use onceloop_model::scenario::{Scenario, scenarios};
use onceloop_model::search::{Extent, Findings, search};
use onceloop_model::world::World;
use serde_json::json;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which worlds to explore; without any, all.
    worlds: Vec<String>,
    /// Only says which there are.
    #[arg(long)]
    list: bool,
    /// Stops exploring a world when it has this many states.
    #[arg(long, value_name = "N", default_value_t = usize::MAX)]
    states_max: usize,
    /// Writes what was found to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many threads work on it; by default as many as there are processors.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    if arguments.list {
        for scenario in scenarios() {
            println!("{:16} {}", scenario.name, scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = choose(&arguments.worlds)?;
    let processors = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = arguments.jobs.unwrap_or(processors).get();
    let extent = Extent { states_max: arguments.states_max, threads };
    // An assertion that fails is found and told as what it is.
    panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let mut total = Total::default();
    println!("{:16} {:>10} {:>12} {:>6}", "world", "states", "transitions", "steps");
    for scenario in &chosen {
        let findings = search(&World::new(scenario.bounds.clone()), extent);
        tell(scenario, &findings);
        total.add(scenario.name, findings);
        if total.violation.is_some() {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{:16} {:>10} {:>12}        {seconds:.1} s", "", total.states, total.transitions);
    if let Some(file) = &arguments.json {
        let report = json!({
            "states": total.states,
            "transitions": total.transitions,
            "seconds": seconds,
            "worlds": total.worlds,
            "violation": total.violation,
        });
        fs::write(file, format!("{report}\n"))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(if total.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn choose(names: &[String]) -> Result<Vec<Scenario>, String> {
    let all = scenarios();
    if let Some(name) = names.iter().find(|name| all.iter().all(|world| world.name != **name)) {
        return Err(format!("no world is called {name}: `onceloop model --list` says which are"));
    }
    let is_chosen =
        |world: &Scenario| names.is_empty() || names.iter().any(|name| name == world.name);
    Ok(all.into_iter().filter(is_chosen).collect())
}

fn tell(scenario: &Scenario, findings: &Findings) {
    let end = if findings.is_complete { "" } else { "  not to its end" };
    println!(
        "{:16} {:>10} {:>12} {:>6}{end}",
        scenario.name, findings.states, findings.transitions, findings.depth
    );
    if let Some(violation) = &findings.violation {
        println!("\nVIOLATED: {}\nafter:", violation.what);
        for (number, step) in (1..).zip(&violation.steps) {
            println!("  {number:>3}. {step}");
        }
    }
}

/// What all worlds came to.
#[derive(Default)]
struct Total {
    states: usize,
    transitions: usize,
    worlds: Vec<serde_json::Value>,
    violation: Option<serde_json::Value>,
}

impl Total {
    fn add(&mut self, name: &str, findings: Findings) {
        self.states += findings.states;
        self.transitions += findings.transitions;
        self.worlds.push(json!({
            "name": name,
            "states": findings.states,
            "transitions": findings.transitions,
            "depth": findings.depth,
            "complete": findings.is_complete,
        }));
        self.violation = findings.violation.map(
            |violation| json!({ "world": name, "what": violation.what, "steps": violation.steps }),
        );
    }
}
