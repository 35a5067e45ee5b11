//! `onceloop call`: one call, its arguments and its reply as JSON.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use onceloop::{BlockingClient, CallError, CallOptions, DynamicMethod, Ran, Value};

use crate::json;

/// How the process ends, by what became of the call.
const DID_NOT_RUN: u8 = 2;
const MAY_HAVE_RUN: u8 = 3;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the server is: `host:port` or `unix:/path`.
    address: String,
    /// The method, `service.method`; `onceloop.methods` lists them.
    method: String,
    /// The arguments, each a JSON value; a word that is no JSON is taken as a string.
    #[arg(allow_negative_numbers = true)]
    arguments: Vec<String>,
    /// Seconds to wait for the reply.
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
    /// Send the call once and never again.
    #[arg(long)]
    at_most_once: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let (mut client, options) = match prepare(arguments) {
        Ok(prepared) => prepared,
        Err(error) => {
            crate::complain(&*error);
            return Ok(DID_NOT_RUN.into());
        }
    };
    let values: Vec<Value> = arguments.arguments.iter().map(|text| json::argument(text)).collect();
    let method = DynamicMethod::new(arguments.method.as_str());
    match client.call_with(options, method, values) {
        Ok(reply) => {
            println!("{}", serde_json::to_string_pretty(&json::from_value(&reply))?);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(failed(&error)),
    }
}

/// Makes all that can fail before there is a call.
fn prepare(arguments: &Arguments) -> Result<(BlockingClient, CallOptions), Box<dyn Error>> {
    let timeout = Duration::try_from_secs_f64(arguments.timeout)
        .map_err(|_| format!("--timeout {}: give seconds, not negative", arguments.timeout))?;
    let mut options = CallOptions::new().deadline(timeout);
    if arguments.at_most_once {
        options = options.at_most_once();
    }
    Ok((BlockingClient::connect(arguments.address.as_str())?, options))
}

/// Prints why there is no reply, and tells by the exit status whether the call ran.
fn failed(error: &CallError<Value>) -> ExitCode {
    eprintln!("onceloop: {error}");
    match error.ran() {
        Ran::Yes => ExitCode::FAILURE,
        Ran::No => DID_NOT_RUN.into(),
        Ran::Unknown => MAY_HAVE_RUN.into(),
    }
}
