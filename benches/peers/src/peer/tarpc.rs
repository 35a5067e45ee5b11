//! tarpc: bincode in length-delimited frames, a task for each request, as its documentation has it.

use std::convert::Infallible;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use onceloop_benches::harness::LoadOptions;
use serde_bytes::ByteBuf;
use tarpc::context::Context as CallContext;
use tarpc::server::{BaseChannel, Channel, Config};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tokio::net::TcpStream;

use super::{adopt, payload, runtime};
use crate::calls::{self, Caller};

/// How long a call may take: longer than the load waits for one.
const DEADLINE: Duration = Duration::from_secs(60);
/// Responses that may wait for the connection's task: the most calls in flight that are measured.
const RESPONSES_WAITING_MAX: usize = 1024;

#[tarpc::service]
trait Echo {
    async fn echo(payload: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Service;

impl Echo for Service {
    async fn echo(self, _: CallContext, payload: ByteBuf) -> ByteBuf {
        payload
    }
}

/// Serves `listener` for ever.
pub(super) fn serve(listener: TcpListener) -> Result<Infallible> {
    runtime()?.block_on(async {
        let listener = adopt(listener)?;
        loop {
            let (stream, _) = listener.accept().await.context("accepting")?;
            stream.set_nodelay(true).context("setting up a connection")?;
            let frames = LengthDelimitedCodec::builder().new_framed(stream);
            let transport = tarpc::serde_transport::new(frames, Bincode::default());
            let config = Config { pending_response_buffer: RESPONSES_WAITING_MAX };
            let responses = BaseChannel::new(config, transport).execute(Service.serve());
            tokio::spawn(responses.for_each(async |response| {
                tokio::spawn(response);
            }));
        }
    })
}

/// tarpc's own client.
pub(super) struct Client {
    payload: ByteBuf,
    in_flight: usize,
}

impl Client {
    pub(super) fn new(options: &LoadOptions) -> Client {
        let in_flight = usize::try_from(options.in_flight).unwrap_or(usize::MAX);
        Client { payload: payload(options).into(), in_flight }
    }
}

#[derive(Clone)]
pub(super) struct Connection {
    client: EchoClient,
    payload: ByteBuf,
}

impl calls::Client for Client {
    type Caller = Connection;

    async fn connect(&self, stream: TcpStream) -> Result<Connection> {
        let frames = LengthDelimitedCodec::builder().new_framed(stream);
        let transport = tarpc::serde_transport::new(frames, Bincode::default());
        let mut config = tarpc::client::Config::default();
        config.max_in_flight_requests = self.in_flight;
        config.pending_request_buffer = self.in_flight;
        let client = EchoClient::new(config, transport).spawn();
        Ok(Connection { client, payload: self.payload.clone() })
    }
}

impl Caller for Connection {
    async fn call(&mut self) -> Result<()> {
        let mut context = CallContext::current();
        context.deadline = Instant::now() + DEADLINE;
        let answer = self.client.echo(context, self.payload.clone()).await.context("a call")?;
        ensure!(answer == self.payload, "the answer is not what was sent");
        Ok(())
    }
}
