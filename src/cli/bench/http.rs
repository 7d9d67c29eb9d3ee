//! One kept connection to the server, for the load generator: as little client as HTTP allows,
//! because its CPU is taken from what is measured.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

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

/// A connection that was not used for so long is not used again: servers close such ones, and a request
/// that meets that may or may not have been taken.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// A connection that is used for one request after the other, and made anew after a long rest.
pub(super) struct Connection {
    server: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    used: Instant,
}

impl Connection {
    pub(super) async fn open(server: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(server).await.context("cannot connect to the server")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its errors come up again where a request waits for its answer.
        tokio::spawn(connection);
        Ok(Connection { server, sender, used: Instant::now() })
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
        if self.used.elapsed() > LONGEST_REST {
            *self = Connection::open(self.server).await?;
        }
        self.sender.ready().await.context("the server closed a connection")?;
        let answer =
            self.sender.send_request(request).await.context("no answer to a submission")?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.context("half an answer")?.to_bytes();
        self.used = Instant::now();
        Ok((status, body))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_has_rested_for_long_is_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        // Which connection it is shows in its answers.
        let answering = tokio::spawn(async move {
            for number in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 4_096];
                    while stream.read(&mut request).await.unwrap_or(0) > 0 {
                        let answer = format!("HTTP/1.1 20{number} OK\r\ncontent-length: 0\r\n\r\n");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        let submitting = Submitting::new(server, "key").unwrap();
        let mut connection = Connection::open(server).await.unwrap();
        let mut submit = async |rest| {
            connection.used -= rest;
            connection.submit(&submitting, "{}".to_owned()).await.unwrap().0
        };
        assert_eq!(submit(Duration::ZERO).await, 200);
        assert_eq!(submit(Duration::ZERO).await, 200);
        assert_eq!(submit(LONGEST_REST).await, 201);
        answering.await.unwrap();
    }
}
