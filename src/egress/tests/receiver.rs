//! A receiver on loopback that does to the client whatever a test tells it to. Also part of the
//! integration tests.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What to do with one request.
#[derive(Clone)]
pub enum Reply {
    /// Write this and wait for the next request.
    Keep(Vec<u8>),
    /// Write this and close.
    Close(Vec<u8>),
    /// Write this and reset the connection.
    Reset(Vec<u8>),
    /// Write this, then the second part over and over until the client is gone.
    Endless(Vec<u8>, Vec<u8>),
    /// Write this, then one byte per period until the client is gone.
    Drip(Vec<u8>, Duration),
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

/// What a connection begins with.
#[derive(Clone)]
enum Greeting {
    Plain,
    Tls(TlsAcceptor),
    /// So many connections are closed as soon as they are there.
    Refusing(usize),
    /// Nothing is ever said.
    Mute,
}

/// A byte stream over TCP.
trait Wire: AsyncRead + AsyncWrite + Unpin {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Bytes that were sent in endless replies.
    poured: Arc<AtomicU64>,
    requests: Arc<Mutex<Vec<String>>>,
    /// A connection has ended.
    ended: Arc<Notify>,
}

impl Receiver {
    /// `script` is asked once per request, with its number from 0 over all connections.
    pub async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(Greeting::Plain, Arc::new(script)).await
    }

    pub async fn start_tls(
        acceptor: TlsAcceptor,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Greeting::Tls(acceptor), Arc::new(script)).await
    }

    /// Closes so many connections before anything is said, and serves the later ones.
    pub async fn start_refusing(
        count: usize,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Greeting::Refusing(count), Arc::new(script)).await
    }

    /// Takes connections and never says anything, not even a handshake.
    pub async fn start_mute() -> Self {
        Self::listen(Greeting::Mute, Arc::new(|_| ok())).await
    }

    async fn listen(greeting: Greeting, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let receiver = Self {
            address: listener.local_addr().expect("bound"),
            connections: Arc::default(),
            poured: Arc::default(),
            requests: Arc::default(),
            ended: Arc::default(),
        };
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = serving.connections.fetch_add(1, Ordering::SeqCst);
                let (serving, script) = (serving.clone(), script.clone());
                let greeting = greeting.clone();
                tokio::spawn(async move {
                    serving.greet(socket, number, greeting, script).await;
                    serving.ended.notify_one();
                });
            }
        });
        receiver
    }

    async fn greet(
        &self,
        mut socket: TcpStream,
        number: usize,
        greeting: Greeting,
        script: Script,
    ) {
        match greeting {
            Greeting::Refusing(count) if number < count => {}
            Greeting::Refusing(_) | Greeting::Plain => self.converse(socket, script).await,
            Greeting::Tls(acceptor) => {
                if let Ok(secured) = acceptor.accept(socket).await {
                    self.converse(secured, script).await;
                }
            }
            Greeting::Mute => while socket.read_u8().await.is_ok() {},
        }
    }

    async fn converse(&self, mut stream: impl Wire, script: Script) {
        let mut buffer = Vec::new();
        while let Some(request) = next_request(&mut stream, &mut buffer).await {
            let number = {
                let mut requests = self.requests.lock().expect("not poisoned");
                requests.push(request);
                requests.len() - 1
            };
            let reply = script(number);
            let stays_open = matches!(reply, Reply::Keep(_));
            let _client_may_be_gone = self.answer(&mut stream, reply).await;
            if !stays_open {
                return;
            }
        }
    }

    async fn answer(&self, stream: &mut impl Wire, reply: Reply) -> io::Result<()> {
        match reply {
            Reply::Keep(bytes) => stream.write_all(&bytes).await,
            Reply::Close(bytes) => {
                stream.write_all(&bytes).await?;
                stream.shutdown().await
            }
            Reply::Reset(bytes) => {
                stream.write_all(&bytes).await?;
                stream.socket().set_zero_linger()
            }
            Reply::Endless(head, more) => {
                stream.write_all(&head).await?;
                loop {
                    stream.write_all(&more).await?;
                    self.poured.fetch_add(more.len() as u64, Ordering::SeqCst);
                }
            }
            Reply::Drip(head, period) => {
                let mut every = tokio::time::interval(period);
                stream.write_all(&head).await?;
                loop {
                    every.tick().await;
                    stream.write_all(b".").await?;
                }
            }
            Reply::Hold(bytes) => {
                stream.write_all(&bytes).await?;
                let _until_the_client_is_gone = stream.read_u8().await;
                Ok(())
            }
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Bytes that endless replies have got rid of, into the client or the system's buffers.
    pub fn poured(&self) -> u64 {
        self.poured.load(Ordering::SeqCst)
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
