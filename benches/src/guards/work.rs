//! What callgrind counts for each request: instructions and allocations.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::bounds::{self, ShapeBounds, Side};
use super::caller::{CallerOptions, Done};
use super::{Count, Outcome};
use crate::child::Part;
use crate::options::{ServerKind, ServerOptions};
use crate::run::listening;
use crate::traffic::Kind;
use crate::valgrind::{self, Shape, Work};

/// Bytes of a call's argument.
const PAYLOAD: u64 = 16;
/// How long a client may take: some seconds under callgrind, where nothing else runs.
const CLIENT_WAIT_MAX: Duration = Duration::from_secs(240);

/// Counts for each shape, and leaves callgrind's profiles in `folder`.
pub(super) fn count(folder: &Path) -> Result<Outcome> {
    if cfg!(debug_assertions) {
        let why = "this program was built without optimisation: run it with --release";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    if !valgrind::is_installed() {
        return Ok(Outcome::Skipped("valgrind is not installed".to_owned()));
    }
    let (mut instructions, mut allocations) = (Vec::new(), Vec::new());
    for shape in &bounds::SHAPES {
        let work = of_shape(shape, folder).context(shape.instructions.what)?;
        instructions.push(Count { bound: &shape.instructions, number: work.instructions });
        allocations.push(Count { bound: &shape.allocations, number: work.allocations });
    }
    instructions.append(&mut allocations);
    Ok(Outcome::Counted(instructions))
}

fn of_shape(shape: &ShapeBounds, folder: &Path) -> Result<Work> {
    let ShapeBounds { side, connections, in_flight, .. } = *shape;
    let name = format!("{side:?}-{connections}x{in_flight}").to_lowercase();
    let of_server = |kind| {
        let shape = Shape { kind, connections, in_flight, payload: PAYLOAD };
        valgrind::of_server(shape, folder, &name)
    };
    match side {
        Side::Client => of_client(connections, in_flight, folder, &name),
        Side::Protected => of_server(Kind::Protected),
        Side::Unprotected => of_server(Kind::Unprotected),
    }
}

/// Counts what a client's process does for each call to the bare server.
fn of_client(connections: u32, in_flight: u32, folder: &Path, name: &str) -> Result<Work> {
    let calls = u64::from(connections) * u64::from(in_flight);
    let server_options = ServerOptions::quiet(ServerKind::Raw, connections);
    valgrind::per_request(calls, folder, name, |rounds, file| {
        let server = Part::start("serve", "the server".to_owned(), &server_options);
        let (_server, port) = listening(server)?;
        let (payload, rounds) = (PAYLOAD, Some(rounds));
        let options = CallerOptions { port, connections, in_flight, payload, rounds };
        let name = "the client under valgrind".to_owned();
        let client: Part<Done> = Part::start_as(valgrind::command(file)?, "call", name, &options)?;
        client.next(CLIENT_WAIT_MAX)?;
        Ok(())
    })
}
