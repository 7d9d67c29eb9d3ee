//! The module as a whole, against receivers on loopback. Nothing here leaves this machine: public
//! addresses are dialled by [`LocalDialer`], which connects to a local receiver in their place.

mod cases;
mod certificate;
mod hostile;
mod receiver;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::Method;
use tokio::net::TcpStream;

use super::{Client, Dial, Download, Outgoing, Policy, ScriptedResolver, SendError};

/// Long enough that only a defect meets it.
const PATIENCE: Duration = Duration::from_secs(20);

fn post(url: impl Into<String>) -> Outgoing {
    Outgoing {
        method: Method::POST,
        url: url.into(),
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::from_static(b"{\"id\":1}"),
        deadline: PATIENCE,
        body_cap: 65536,
    }
}

fn loopback_policy() -> Policy {
    let allow = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network"));
    Policy { allow: allow.to_vec(), ..Policy::default() }
}

/// A client that may call loopback, on real sockets.
fn local_client() -> Client {
    Client::new(loopback_policy(), Arc::new(ScriptedResolver::new()))
}

/// Connects to `to` whatever address is asked for, and remembers what was asked for.
#[derive(Clone)]
struct LocalDialer {
    to: SocketAddr,
    dead: Vec<SocketAddr>,
    dialled: Arc<Mutex<Vec<SocketAddr>>>,
}

impl LocalDialer {
    fn new(to: SocketAddr) -> Self {
        assert!(to.ip().is_loopback());
        Self { to, dead: Vec::new(), dialled: Arc::default() }
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        self.dialled.lock().expect("not poisoned").clone()
    }
}

impl Dial for LocalDialer {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        self.dialled.lock().expect("not poisoned").push(address);
        if self.dead.contains(&address) {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            return Box::pin(std::future::ready(Err(refused)));
        }
        Box::pin(TcpStream::connect(self.to))
    }
}

/// Clients are shared between threads, and what they give is carried from one to another.
#[test]
fn what_crosses_threads() {
    fn shared<T: Send + Sync>() {}
    fn carried<T: Send>() {}
    shared::<Client>();
    shared::<SendError>();
    carried::<Download>();
}
