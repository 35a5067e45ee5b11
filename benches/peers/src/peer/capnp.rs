//! capnp-rpc: Cap'n Proto between two parties, with buffered streams, as its documentation advises.

use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use capnp_rpc::RpcSystem;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::twoparty::VatNetwork;
use futures::io::{BufReader, BufWriter};
use onceloop_benches::harness::LoadOptions;
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::{adopt, payload, runtime};
use crate::calls::{self, Caller};
use crate::echo_capnp::echo;

struct Service;

impl echo::Server for Service {
    async fn echo(
        self: Rc<Self>,
        params: echo::EchoParams,
        mut results: echo::EchoResults,
    ) -> Result<(), ::capnp::Error> {
        results.get().set_payload(params.get()?.get_payload()?);
        Ok(())
    }
}

/// Serves `listener` for ever.
pub(super) fn serve(listener: TcpListener) -> Result<Infallible> {
    let service: echo::Client = capnp_rpc::new_client(Service);
    LocalSet::new().block_on(&runtime()?, async {
        let listener = adopt(listener)?;
        loop {
            let (stream, _) = listener.accept().await.context("accepting")?;
            stream.set_nodelay(true).context("setting up a connection")?;
            let network = Box::new(network(stream, Side::Server));
            // What becomes of a connection is its client's affair.
            spawn_local(RpcSystem::new(network, Some(service.client.clone())));
        }
    })
}

fn network(stream: TcpStream, side: Side) -> VatNetwork<impl futures::AsyncRead + Unpin> {
    let (reader, writer) = stream.into_split();
    let reader = BufReader::new(reader.compat());
    VatNetwork::new(reader, BufWriter::new(writer.compat_write()), side, Default::default())
}

/// capnp-rpc's own client.
pub(super) struct Client {
    payload: Rc<[u8]>,
}

impl Client {
    pub(super) fn new(options: &LoadOptions) -> Client {
        Client { payload: payload(options).into() }
    }
}

#[derive(Clone)]
pub(super) struct Connection {
    client: echo::Client,
    payload: Rc<[u8]>,
}

impl calls::Client for Client {
    type Caller = Connection;

    async fn connect(&self, stream: TcpStream) -> Result<Connection> {
        let mut system = RpcSystem::new(Box::new(network(stream, Side::Client)), None);
        let client = system.bootstrap(Side::Server);
        spawn_local(system);
        Ok(Connection { client, payload: Rc::clone(&self.payload) })
    }
}

impl Caller for Connection {
    async fn call(&mut self) -> Result<()> {
        let mut request = self.client.echo_request();
        request.get().set_payload(&self.payload);
        let response = request.send().promise.await.context("a call")?;
        let answer = response.get().and_then(|results| results.get_payload());
        ensure!(answer.context("an answer")? == &*self.payload, "the answer is not what was sent");
        Ok(())
    }
}
