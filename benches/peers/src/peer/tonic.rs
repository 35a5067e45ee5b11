//! tonic: gRPC over HTTP/2. Service and client are what its code generator would write for
//! `service Echo { rpc Echo(Payload) returns (Payload); }`, without the routing among services.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use onceloop_benches::harness::LoadOptions;
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::UnaryService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_prost::ProstCodec;
use tower::Service;

use super::{adopt, payload, runtime};
use crate::calls::{self, Caller};

/// Where the one method is.
const PATH: PathAndQuery = PathAndQuery::from_static("/bench.Echo/Echo");
/// Calls in flight on a connection: the most that are measured. hyper's default is 200.
const STREAMS_MAX: u32 = 1024;

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

/// The service as HTTP: finds the method and decodes for it.
#[derive(Clone)]
struct Http;

impl Service<Request<Body>> for Http {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async {
            if request.uri().path() != PATH.path() {
                return Ok(Status::unimplemented("there is one method").into_http());
            }
            let codec = ProstCodec::<Payload, Payload>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Echo, request).await)
        })
    }
}

/// The method.
struct Echo;

impl UnaryService<Payload> for Echo {
    type Response = Payload;
    type Future = Ready<Result<tonic::Response<Payload>, Status>>;

    fn call(&mut self, request: tonic::Request<Payload>) -> Self::Future {
        ready(Ok(tonic::Response::new(request.into_inner())))
    }
}

/// Serves `listener` for ever.
pub(super) fn serve(listener: TcpListener) -> Result<Infallible> {
    runtime()?.block_on(async {
        let connections = TcpListenerStream::new(adopt(listener)?).map(|stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            std::io::Result::Ok(stream)
        });
        let server = Server::builder().max_concurrent_streams(STREAMS_MAX);
        server.serve_with_incoming(Http, connections).await.context("serving")?;
        bail!("the server has ended")
    })
}

/// tonic's own client: a channel for each connection.
pub(super) struct Client {
    payload: Payload,
    in_flight: usize,
}

impl Client {
    pub(super) fn new(options: &LoadOptions) -> Client {
        let in_flight = usize::try_from(options.in_flight).unwrap_or(usize::MAX);
        Client { payload: Payload { data: payload(options).into() }, in_flight }
    }
}

#[derive(Clone)]
pub(super) struct Connection {
    grpc: Grpc<Channel>,
    payload: Payload,
}

impl calls::Client for Client {
    type Caller = Connection;

    async fn connect(&self, stream: TcpStream) -> Result<Connection> {
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            // It is asked once: a connection that was lost is not made again.
            ready(stream.take().ok_or_else(|| std::io::Error::other("the connection is lost")))
        });
        let endpoint = Endpoint::from_static("http://127.0.0.1").buffer_size(self.in_flight);
        let channel = endpoint.connect_with_connector(connector).await.context("shaking hands")?;
        Ok(Connection { grpc: Grpc::new(channel), payload: self.payload.clone() })
    }
}

impl Caller for Connection {
    async fn call(&mut self) -> Result<()> {
        self.grpc.ready().await.context("waiting for the channel")?;
        let codec = ProstCodec::<Payload, Payload>::default();
        let request = tonic::Request::new(self.payload.clone());
        let answer = self.grpc.unary(request, PATH, codec).await.context("a call")?;
        ensure!(*answer.get_ref() == self.payload, "the answer is not what was sent");
        Ok(())
    }
}
