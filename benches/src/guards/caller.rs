//! A process that calls through our client library, in rounds: the same work each time.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use onceloop::{Bin, Client, Cx, Limits, Reactor, Registry, State};
use serde::{Deserialize, Serialize};

use crate::control::{self, Control};
use crate::machine;
use crate::service::any_server;

/// Longer than any count takes.
const NEVER: Duration = Duration::from_secs(3_600);

/// What the process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallerOptions {
    /// Where a bare server listens, on 127.0.0.1.
    pub(crate) port: u16,
    /// Clients, each with a connection.
    pub(crate) connections: u32,
    /// Calls that a client makes at once, when those before are answered.
    pub(crate) in_flight: u32,
    pub(crate) payload: u64,
    /// How often each client does that before the process ends; `None`: until it is ended.
    pub(crate) rounds: Option<u64>,
}

/// Said when all is done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done;

/// A client and where it is.
struct Caller {
    client: Client<Callers>,
    /// Calls of this round that are not answered.
    open: u32,
    rounds_left: Option<u64>,
}

/// The state of the loop.
struct Callers {
    callers: Vec<Caller>,
    in_flight: u32,
    payload: Vec<u8>,
    /// Clients that have rounds to go.
    busy: u32,
    failure: Option<String>,
}

/// Calls as `options` say.
pub(crate) fn call(options: &CallerOptions) -> Result<()> {
    machine::raise_descriptor_limit();
    let _control = Control::start();
    let mut reactor = Reactor::new().context("making the loop")?;
    let mut callers = Callers {
        callers: Vec::new(),
        in_flight: options.in_flight,
        payload: vec![0xa5; usize::try_from(options.payload).context("a payload")?],
        busy: options.connections,
        failure: None,
    };
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    // Where the machine pauses for a second or two, that brings no frames into what is counted.
    let mut limits = Limits::default();
    (limits.ack_delay, limits.retransmit_timeout) = (NEVER, NEVER);
    for number in 0..options.connections {
        let client = Client::builder()
            .limits(limits.clone())
            .window(options.in_flight.next_power_of_two())
            .on_state(move |state, cx: &mut Cx<'_, Callers>| on_state(number, state, cx))
            .connect(reactor.registry(), server)
            .context("making a client")?;
        callers.callers.push(Caller { client, open: 0, rounds_left: options.rounds });
    }
    reactor.run(&mut callers).context("running the loop")?;
    if let Some(failure) = callers.failure {
        bail!(failure);
    }
    control::say(&Done);
    Ok(())
}

fn on_state(number: u32, state: &State, cx: &mut Cx<'_, Callers>) {
    match state {
        State::Connected { .. } => cx.state.begin_round(number, cx.registry),
        State::Disconnected { why, .. } => {
            cx.state.fail(format!("client {number}: {why}"), cx.registry);
        }
        _ => {}
    }
}

impl Callers {
    fn begin_round(&mut self, number: u32, registry: &mut Registry<Callers>) {
        let caller = &mut self.callers[number as usize];
        if let Some(rounds_left) = &mut caller.rounds_left {
            let Some(left) = rounds_left.checked_sub(1) else {
                self.busy -= 1;
                if self.busy == 0 {
                    registry.stop();
                }
                return;
            };
            *rounds_left = left;
        }
        caller.open = self.in_flight;
        for _ in 0..self.in_flight {
            let arguments = (Bin(&self.payload),);
            caller.client.call(
                registry,
                any_server::echo,
                arguments,
                move |reply, cx| match reply {
                    Ok(_) => cx.state.on_reply(number, cx.registry),
                    Err(error) => cx.state.fail(format!("client {number}: {error}"), cx.registry),
                },
            );
        }
    }

    fn on_reply(&mut self, number: u32, registry: &mut Registry<Callers>) {
        let caller = &mut self.callers[number as usize];
        caller.open -= 1;
        if caller.open == 0 {
            self.begin_round(number, registry);
        }
    }

    fn fail(&mut self, why: String, registry: &mut Registry<Callers>) {
        self.failure.get_or_insert(why);
        registry.stop();
    }
}
