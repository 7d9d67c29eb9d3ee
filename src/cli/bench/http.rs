//! One kept connection to the server, for the load generator: as little client as HTTP allows,
//! because its CPU is taken from what is measured.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{HeaderMap, Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What is the same in every submission.
pub(super) struct Submitting {
    headers: HeaderMap,
    uri: Uri,
}

impl Submitting {
    pub(super) fn new(server: SocketAddr, api_key: &str) -> anyhow::Result<Submitting> {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(HOST, HeaderValue::from_str(&server.to_string())?);
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {api_key}"))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Submitting { headers, uri: Uri::from_static("/v1/jobs") })
    }
}

/// A connection that is used for one request after the other.
pub(super) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub(super) async fn open(server: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(server).await.context("cannot connect to the server")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its errors come up again where a request waits for its answer.
        tokio::spawn(connection);
        Ok(Connection(sender))
    }

    /// Submits a job; the status and the body of the answer.
    pub(super) async fn submit(
        &mut self,
        submitting: &Submitting,
        body: String,
    ) -> anyhow::Result<(u16, Bytes)> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = submitting.uri.clone();
        *request.headers_mut() = submitting.headers.clone();
        self.0.ready().await.context("the server closed a connection")?;
        let answer = self.0.send_request(request).await.context("no answer to a submission")?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.context("half an answer")?.to_bytes();
        Ok((status, body))
    }
}
