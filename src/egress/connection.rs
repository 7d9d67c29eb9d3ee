//! One HTTP/1.1 connection to one judged address.
//!
//! Must not resolve or choose hosts: it connects to the addresses it is given, in their order. Each
//! connection has one task that drives it, which ends when the connection or its owner is gone.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{Phase, SendError};
use super::policy::Policy;
use super::pool::{self, Pool};
use super::stream::{Heard, Stream, Transport};
use super::target::{Host, Scheme, Target};
use super::tls::{self, Tls};
use super::trace::Progress;

/// Caps the response head; hyper also stops at 100 headers by itself.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A name with hundreds of addresses must not turn one request into a port scan.
const MAX_CANDIDATES: usize = 8;

/// How a socket is opened. A seam: tests put a local listener in the place of a public address.
pub trait Dial: Send + Sync + 'static {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>>;
}

pub struct SystemDialer;

impl Dial for SystemDialer {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(address))
    }
}

/// An open connection. Dropping it closes the socket, whatever state the exchange is in.
pub(super) struct Connection {
    pub scheme: Scheme,
    pub host: Host,
    pub address: SocketAddr,
    pub tls_version: Option<&'static str>,
    sender: http1::SendRequest<Full<Bytes>>,
    driver: AbortHandle,
    heard: Heard,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        self.heard.clear();
        let sent = self.sender.try_send_request(request).await;
        let response = sent.map_err(|mut failure| Unanswered {
            unsent: failure.take_message().is_some(),
            error: failure.into_error(),
        })?;
        self.heard.answered();
        Ok(response)
    }

    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Why there is no answer.
pub(super) struct Unanswered {
    pub error: hyper::Error,
    /// Nothing of the request has been written, so nobody can have acted on it.
    pub unsent: bool,
}

/// What it takes to open connections, apart from where to.
pub(super) struct Opener {
    pub dialer: Arc<dyn Dial>,
    pub tls: Tls,
}

impl Opener {
    pub async fn open(
        &self,
        target: &Target,
        addresses: &[SocketAddr],
        policy: &Policy,
        pool: &Arc<Pool>,
        progress: &mut Progress,
    ) -> Result<Connection, SendError> {
        progress.trace.tls_version = None;
        progress.enter(Phase::Connect);
        let (socket, address) = self.dial(target, addresses, progress).await?;
        // Small requests are written in one piece; waiting to coalesce them only adds latency. A
        // socket that refuses the option still works.
        let _best_effort = socket.set_nodelay(true);
        policy.judge_connection(target.port, || Ok((socket.local_addr()?, socket.peer_addr()?)))?;
        progress.complete();

        let (transport, tls_version) = match target.scheme {
            Scheme::Http => (Transport::Plain(socket), None),
            Scheme::Https => {
                progress.enter(Phase::Tls);
                let secured = self
                    .secure(target, socket)
                    .await
                    .map_err(|detail| SendError::Tls { host: target.host.to_string(), detail })?;
                progress.complete();
                secured
            }
        };
        progress.trace.tls_version = tls_version;

        let heard = Heard::default();
        let stream = TokioIo::new(Stream::new(transport, heard.clone()));
        let (sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(stream).await.map_err(
                |error| SendError::Protocol {
                    host: target.host.to_string(),
                    detail: error.to_string(),
                },
            )?;
        let driver = tokio::spawn(drive(connection, Arc::downgrade(pool))).abort_handle();
        let (scheme, host) = (target.scheme, target.host.clone());
        Ok(Connection { scheme, host, address, tls_version, sender, driver, heard })
    }

    /// Tries the addresses in turn. Each but the last gets an equal share of the time that is left,
    /// so that one that swallows packets does not use up the others' chance.
    async fn dial(
        &self,
        target: &Target,
        addresses: &[SocketAddr],
        progress: &mut Progress,
    ) -> Result<(TcpStream, SocketAddr), SendError> {
        let candidates = &addresses[..addresses.len().min(MAX_CANDIDATES)];
        let mut failure = None;
        for (index, &address) in candidates.iter().enumerate() {
            let after = candidates.len() - index - 1;
            progress.trace.address = Some(address);
            let dialing = self.dialer.dial(address);
            let dialed = if after == 0 {
                dialing.await
            } else {
                let left = progress.deadline.saturating_duration_since(Instant::now());
                let share = Instant::now() + left / (after as u32 + 1);
                let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
                timeout_at(share, dialing).await.unwrap_or_else(late)
            };
            match dialed {
                Ok(socket) => return Ok((socket, address)),
                Err(source) => failure = Some(SendError::Connect { address, source }),
            }
        }
        Err(failure.unwrap_or_else(|| SendError::Dns {
            host: target.host.to_string(),
            detail: "no address".to_owned(),
        }))
    }

    async fn secure(
        &self,
        target: &Target,
        socket: TcpStream,
    ) -> Result<(Transport, Option<&'static str>), String> {
        let connector = self.tls.connector().await?;
        let name = tls::server_name(&target.host)?;
        let secured = connector.connect(name, socket).await.map_err(|error| error.to_string())?;
        let version = tls::version_name(secured.get_ref().1.protocol_version());
        Ok((Transport::Tls(Box::new(secured)), version))
    }
}

/// Runs a connection to its end, and meanwhile keeps the pool's promise of a short idle life: as
/// long as there are connections there are drivers to look, so the pool needs no task of its own.
async fn drive(connection: http1::Connection<TokioIo<Stream>, Full<Bytes>>, pool: Weak<Pool>) {
    let mut connection = std::pin::pin!(connection);
    loop {
        match timeout(SWEEP_EVERY, connection.as_mut()).await {
            // Whoever waits for an answer on this connection gets the error as well.
            Ok(Ok(()) | Err(_)) => return,
            Err(_still_open) => {
                if let Some(pool) = pool.upgrade() {
                    pool.sweep(Instant::now());
                }
            }
        }
    }
}

const SWEEP_EVERY: Duration = Duration::from_secs(pool::IDLE_LIFE.as_secs() / 5);
