//! A way to Postgres that once loses the answer to a COMMIT: what was committed lasts, and nobody
//! is told.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::machine::environment;

/// Passes everything on until it is armed.
pub struct Forgetful {
    url: String,
    armed: Arc<AtomicBool>,
}

impl Forgetful {
    /// In front of the cluster that `./test` started.
    pub fn start() -> Forgetful {
        let mut url = url::Url::parse(&environment("RINGBACK_TEST_POSTGRES")).expect("a URL");
        let cluster = (url.host_str().expect("a host").to_owned(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(listener.local_addr().expect("an address").port())).expect("a port");
        let armed = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&armed);
        // It ends with the process: connections may be opened until the very end of a test.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&cluster)) else {
                    return;
                };
                pass_on(client, server, Arc::clone(&shared));
            }
        });
        Forgetful { url: url.into(), armed }
    }

    /// The cluster, as it is reached this way.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The answer to the next COMMIT gets lost, and its connection with it.
    pub fn forget_next(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Whether that has happened.
    pub fn has_forgotten(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }
}

fn pass_on(client: TcpStream, server: TcpStream, armed: Arc<AtomicBool>) {
    let is_lost = Arc::new(AtomicBool::new(false));
    let (asked, told) = (Arc::clone(&is_lost), is_lost);
    let (from, to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    thread::spawn(move || {
        pump(from, to, |chunk| {
            let commits = chunk.windows(7).any(|window| window == b"COMMIT\0");
            if commits && armed.swap(false, Ordering::SeqCst) {
                asked.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    thread::spawn(move || pump(server, client, |_| !told.load(Ordering::SeqCst)));
}

/// Copies until one side ends, or until `may_pass` says no.
fn pump(mut from: TcpStream, mut to: TcpStream, mut may_pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        let chunk = &buffer[..count];
        if count == 0 || !may_pass(chunk) || to.write_all(chunk).is_err() {
            break;
        }
    }
    let _may_be_closed = from.shutdown(Shutdown::Both);
    let _may_be_closed = to.shutdown(Shutdown::Both);
}
