//! A receiver on loopback that does to the client whatever a test tells it to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// What to do with one request.
#[derive(Clone)]
pub enum Reply {
    /// Write this and wait for the next request.
    Keep(Vec<u8>),
    /// Write this and close.
    Close(Vec<u8>),
    /// Write this, then the second part over and over until the client is gone.
    Endless(Vec<u8>, Vec<u8>),
    /// Write this, then one byte every few milliseconds until the client is gone.
    Drip(Vec<u8>),
    /// Write this and hold the connection until the client is gone.
    Hold(Vec<u8>),
}

pub fn response(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Keep(
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into(),
    )
}

pub fn ok() -> Reply {
    response("200 OK", "", "fine")
}

type Script = Arc<dyn Fn(usize) -> Reply + Send + Sync>;

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    /// A connection has ended.
    ended: Arc<Notify>,
}

impl Receiver {
    /// `script` is asked once per request, with its number from 0 over all connections.
    pub async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(script)).await
    }

    pub async fn start_tls(
        acceptor: TlsAcceptor,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(acceptor), Arc::new(script)).await
    }

    async fn listen(acceptor: Option<TlsAcceptor>, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let receiver = Self {
            address: listener.local_addr().expect("bound"),
            connections: Arc::default(),
            requests: Arc::default(),
            ended: Arc::default(),
        };
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let (serving, script) = (serving.clone(), script.clone());
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => serving.converse(socket, script).await,
                        Some(acceptor) => {
                            if let Ok(secured) = acceptor.accept(socket).await {
                                serving.converse(secured, script).await;
                            }
                        }
                    }
                    serving.ended.notify_one();
                });
            }
        });
        receiver
    }

    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Script) {
        let mut buffer = Vec::new();
        while let Some(request) = next_request(&mut stream, &mut buffer).await {
            let number = {
                let mut requests = self.requests.lock().expect("not poisoned");
                requests.push(request);
                requests.len() - 1
            };
            match script(number) {
                Reply::Keep(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Reply::Close(bytes) => {
                    let _client_may_be_gone = stream.write_all(&bytes).await;
                    let _same = stream.shutdown().await;
                    return;
                }
                Reply::Endless(head, more) => {
                    let mut sent = stream.write_all(&head).await;
                    while sent.is_ok() {
                        sent = stream.write_all(&more).await;
                    }
                    return;
                }
                Reply::Drip(head) => {
                    let mut every = tokio::time::interval(Duration::from_millis(5));
                    let mut sent = stream.write_all(&head).await;
                    while sent.is_ok() {
                        every.tick().await;
                        sent = stream.write_all(b".").await;
                    }
                    return;
                }
                Reply::Hold(bytes) => {
                    let _client_may_be_gone = stream.write_all(&bytes).await;
                    let _until_the_client_is_gone = stream.read_u8().await;
                    return;
                }
            }
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// Waits until a connection has ended, which the client has to bring about.
    pub async fn connection_ended(&self) {
        tokio::time::timeout(super::PATIENCE, self.ended.notified())
            .await
            .expect("the client closes its connection");
    }
}

/// One request with its body, as text; `None` when the client is gone.
async fn next_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                })
                .next()
                .unwrap_or(0);
            if body.len() >= length {
                let whole = head.len() + 4 + length;
                buffer.drain(..whole);
                return Some(text[..whole].to_owned());
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
