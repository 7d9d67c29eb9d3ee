//! A receiver of webhooks on loopback, and a source of files to import.
//!
//! It answers as its script says, keeps everything it was sent with the time of arrival, and checks
//! signatures with the official `standardwebhooks` crate, never with our own code.

mod reply;
mod wire;

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ureq::http::HeaderMap;

pub use reply::Reply;

/// One request as it arrived.
#[derive(Debug)]
pub struct Received {
    /// 0 for the first request to this receiver.
    pub number: usize,
    /// When its last byte was read.
    pub arrived: Instant,
    /// `POST` for a webhook.
    pub method: String,
    /// With the query, if there is one.
    pub path: String,
    /// As sent; names in lower case.
    pub headers: HeaderMap,
    /// As sent.
    pub body: Vec<u8>,
    /// Whether one of the secrets the receiver knew at that time verifies it.
    pub signature: Result<(), String>,
    left: AtomicBool,
}

impl Received {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("plain text"))
    }

    /// Whether its client was gone when the time for a delayed answer had come.
    pub fn was_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    /// The id that a delivery keeps over all its tries.
    #[track_caller]
    pub fn webhook_id(&self) -> &str {
        self.header("webhook-id").expect("a webhook has an id")
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// Whether that secret verifies it.
    pub fn verify(&self, secret: &str) -> Result<(), String> {
        let webhook = standardwebhooks::Webhook::new(secret).map_err(|error| error.to_string())?;
        webhook.verify(&self.body, &self.headers).map_err(|error| error.to_string())
    }

    /// The same request, if its signature was right.
    #[track_caller]
    pub fn signed(&self) -> &Received {
        if let Err(error) = &self.signature {
            panic!("request {} to {} is not signed: {error}", self.number, self.path);
        }
        self
    }
}

type Script = Box<dyn FnMut(&Received) -> Reply + Send>;

#[derive(Default)]
struct State {
    log: Vec<Arc<Received>>,
    secrets: Vec<String>,
    scripts: HashMap<String, Script>,
    otherwise: Option<Script>,
    open: HashMap<u64, TcpStream>,
    connections: u64,
    complaints: Vec<String>,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A server on loopback that ends with this value.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens on a free port and answers everything with 200.
    pub fn start() -> Receiver {
        Receiver::start_on(0)
    }

    /// Listens on that port, for tests in which a receiver goes away and comes back.
    pub fn start_on(port: u16) -> Receiver {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        let accepting = thread::spawn(move || wire::accept(&listener, &serving));
        Receiver { address, shared, accepting: Some(accepting) }
    }

    /// The URL of a path here.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Adds a secret to check the signatures of what comes from now on.
    pub fn trust(&self, secret: &str) {
        self.shared.lock().secrets.push(secret.to_owned());
    }

    /// Forgets all secrets.
    pub fn distrust(&self) {
        self.shared.lock().secrets.clear();
    }

    /// What to answer on a path, in this order; the last answer repeats.
    pub fn on(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let script = in_order(replies);
        self.shared.lock().scripts.insert(path.to_owned(), script);
    }

    /// What to answer on a path, decided by the request.
    pub fn on_with(&self, path: &str, script: impl FnMut(&Received) -> Reply + Send + 'static) {
        self.shared.lock().scripts.insert(path.to_owned(), Box::new(script));
    }

    /// What to answer on all other paths, in this order; the last answer repeats.
    pub fn otherwise(&self, replies: impl IntoIterator<Item = Reply>) {
        let script = in_order(replies);
        self.shared.lock().otherwise = Some(script);
    }

    /// Everything so far, in the order of arrival.
    pub fn log(&self) -> Vec<Arc<Received>> {
        self.shared.lock().log.clone()
    }

    /// Everything so far on one path.
    pub fn log_of(&self, path: &str) -> Vec<Arc<Received>> {
        self.log().into_iter().filter(|received| received.path == path).collect()
    }

    /// How many requests have come so far.
    pub fn count(&self) -> usize {
        self.shared.lock().log.len()
    }

    /// How many connections have been made so far.
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.shared.lock().open.len()
    }

    /// Waits until at least `count` requests have come, and gives all there are.
    #[track_caller]
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Vec<Arc<Received>> {
        let what = format!("{count} requests");
        self.wait_until(&what, timeout, |log| (log.len() >= count).then(|| log.to_vec()))
    }

    /// Waits until at least `count` requests have come on a path, and gives all of that path.
    #[track_caller]
    pub fn wait_for_on(&self, path: &str, count: usize, timeout: Duration) -> Vec<Arc<Received>> {
        self.wait_until(&format!("{count} requests on {path}"), timeout, |log| {
            let mine: Vec<_> = log.iter().filter(|one| one.path == path).cloned().collect();
            (mine.len() >= count).then_some(mine)
        })
    }

    /// Waits until the log shows something; looks again whenever a request has come.
    #[track_caller]
    pub fn wait_until<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut look: impl FnMut(&[Arc<Received>]) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = look(&state.log) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let paths: Vec<_> = state.log.iter().map(|one| one.path.clone()).collect();
                drop(state);
                panic!("not within {timeout:?}: {what}; came: {paths:?}");
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Shared {
    /// A test that panics inside a look does not take the receiver's threads along.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so many requests, but not beyond the end of the receiver; whether to go on.
    fn gather(&self, requests: usize) -> bool {
        let waits = |state: &mut State| !state.closing && state.log.len() < requests;
        let waited = self.changed.wait_while(self.lock(), waits);
        !waited.unwrap_or_else(PoisonError::into_inner).closing
    }

    /// Pauses a connection, but not beyond the end of the receiver; whether to go on.
    fn pause(&self, duration: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, duration, |state| !state.closing);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closing
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let complaints = {
            let mut state = self.shared.lock();
            state.closing = true;
            for stream in state.open.values() {
                let _may_be_closed_already = stream.shutdown(Shutdown::Both);
            }
            std::mem::take(&mut state.complaints)
        };
        self.shared.changed.notify_all();
        // Wakes the thread that accepts, which then sees that we are closing.
        let _only_to_wake_it = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _its_own_panic_was_printed = accepting.join();
        }
        if !thread::panicking() {
            assert!(complaints.is_empty(), "the receiver could not read: {complaints:?}");
        }
    }
}

fn in_order(replies: impl IntoIterator<Item = Reply>) -> Script {
    let mut replies: Vec<Reply> = replies.into_iter().collect();
    assert!(!replies.is_empty(), "a script says at least one thing");
    replies.reverse();
    Box::new(move |_| match replies.len() {
        1 => replies[0].clone(),
        _ => replies.pop().expect("more than one"),
    })
}
