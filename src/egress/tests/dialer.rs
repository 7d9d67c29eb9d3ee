//! A way round DNS and routing: every address is on loopback. Also part of the integration tests.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

use super::Dial;

/// Connects to `to` whatever address is asked for, and remembers what was asked for.
#[derive(Clone)]
pub struct LocalDialer {
    pub dead: Vec<SocketAddr>,
    /// These swallow every packet.
    pub silent: Vec<SocketAddr>,
    to: SocketAddr,
    dialled: Arc<Mutex<Vec<SocketAddr>>>,
}

impl LocalDialer {
    pub fn new(to: SocketAddr) -> Self {
        assert!(to.ip().is_loopback());
        Self { dead: Vec::new(), silent: Vec::new(), to, dialled: Arc::default() }
    }

    pub fn dialled(&self) -> Vec<SocketAddr> {
        self.dialled.lock().expect("not poisoned").clone()
    }
}

impl Dial for LocalDialer {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        self.dialled.lock().expect("not poisoned").push(address);
        if self.silent.contains(&address) {
            return Box::pin(std::future::pending());
        }
        if self.dead.contains(&address) {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            return Box::pin(std::future::ready(Err(refused)));
        }
        Box::pin(TcpStream::connect(self.to))
    }
}
