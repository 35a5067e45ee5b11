//! The command `onceloop`: a server to try, calls by hand, the benchmarks and the simulator.

mod benches;
mod call;
mod json;
mod model;
mod serve;
mod services;
mod sim;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An RPC runtime where a retry never runs twice.
#[derive(Parser)]
#[command(name = "onceloop", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures 10 000 connections on one thread beside a threaded server and a bare echo.
    #[command(disable_help_flag = true)]
    C10k(benches::Arguments),
    /// Calls a method of a server and prints the reply as JSON.
    Call(call::Arguments),
    /// Cuts connections at random under load and counts calls lost, run twice and run once.
    #[command(disable_help_flag = true)]
    Cuts(benches::Arguments),
    /// Counts what a request costs without a clock, and fails where that is beyond a bound.
    #[command(disable_help_flag = true)]
    Guards(benches::Arguments),
    /// Explores all that a server's table, a client and a network can do within small bounds.
    Model(model::Arguments),
    /// Measures what it costs a server that a call runs once.
    #[command(disable_help_flag = true)]
    Protection(benches::Arguments),
    /// Serves a few small services, to be called by `onceloop call`.
    Serve(serve::Arguments),
    /// Runs whole servers and clients on a simulated network that fails, and checks every promise.
    Sim(sim::Arguments),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // In a simulation everything fails, on purpose: to warn of it would be noise.
    let filter = if matches!(command, Command::Sim(_)) { "off" } else { "warn" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();
    let result = match command {
        Command::C10k(arguments) => benches::run(&[], &arguments),
        Command::Call(arguments) => call::run(&arguments),
        Command::Cuts(arguments) => benches::run(&["cuts"], &arguments),
        Command::Guards(arguments) => benches::run(&["guards"], &arguments),
        Command::Model(arguments) => model::run(&arguments),
        Command::Protection(arguments) => benches::run(&["protection"], &arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        complain(&*error);
        ExitCode::FAILURE
    })
}

/// Prints an error and what it came of, on standard error.
fn complain(error: &dyn Error) {
    eprintln!("onceloop: {error}");
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Many errors already say what their source says.
        if !text.contains(&next) {
            eprintln!("  because: {next}");
        }
        text = next;
        source = error.source();
    }
}
