//! The accounts of a client: what it was promised, and what its receivers were sent.
//!
//! A client asks with a key and asks again with the same key until it has an answer, whatever
//! happens to the server meanwhile. From its 202s and the receivers' logs alone the book tells
//! what is owed, what was lost and what came twice.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::http::{Answer, Client};
use crate::support::process::Application;
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::wait::{eventually, within};

/// A request that a client wants answered.
#[derive(Clone)]
pub struct Order {
    pub key: String,
    path: &'static str,
    body: Value,
}

/// What one 202 promised.
struct Promise {
    key: String,
    /// Jobs with a callback of their own.
    jobs: Vec<String>,
    /// A batch with a callback.
    group: Option<String>,
}

#[derive(Default)]
struct Pages {
    promises: Vec<Promise>,
    /// Keys whose work was done and purged before the client got an answer.
    gone: HashSet<String>,
}

pub struct Book {
    receivers: Vec<Receiver>,
    pages: Mutex<Pages>,
    next: AtomicUsize,
    /// Requests that got no answer at all.
    pub unanswered: AtomicUsize,
    /// Requests that were told to come again.
    pub put_off: AtomicUsize,
    stop: AtomicBool,
}

/// What a book came to.
pub struct Account {
    pub jobs: usize,
    pub groups: usize,
    /// Requests to the receivers beyond one a webhook.
    pub repeats: usize,
    /// Jobs that ended as `worker_lost`.
    pub given_up: Vec<String>,
}

/// One webhook as the book reads it.
struct Notice {
    kind: String,
    subject: String,
    key: Option<String>,
    group: Option<String>,
    code: Option<String>,
}

impl Notice {
    fn read(received: &Received) -> Notice {
        let body = received.signed().json();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Notice {
            kind: text(&body["type"]).expect("a type"),
            subject: text(&body["data"]["id"]).expect("an id"),
            key: text(&body["data"]["metadata"]["key"]),
            group: text(&body["data"]["groupId"]),
            code: text(&body["data"]["failure"]["code"]),
        }
    }

    /// Whether it says how its subject ended, in a way that may be: a job that three dead nodes
    /// worked on is given up by the rules.
    fn is_end(&self) -> bool {
        match self.kind.as_str() {
            "job.succeeded" | "group.completed" => true,
            _ => self.kind == "job.failed" && self.code.as_deref() == Some("worker_lost"),
        }
    }
}

impl Book {
    /// Several receivers, so that the work spreads over lanes; they answer late now and then, fail
    /// now and then, and hang up.
    pub fn open(application: &Application, lanes: usize, seed: u64) -> Arc<Book> {
        let receivers: Vec<Receiver> = (0..lanes).map(|_| Receiver::start()).collect();
        for (place, receiver) in receivers.iter().enumerate() {
            receiver.trust(&application.signing_secret);
            let mut chance = Chance::seeded(seed + place as u64);
            receiver.on_with("/hook", move |_| match chance.below(100) {
                0..8 => Reply::status(500),
                8..11 => Reply::hang_up(),
                11..30 => Reply::ok().after(chance.moment(Duration::from_millis(200))),
                _ => Reply::ok(),
            });
        }
        Arc::new(Book {
            receivers,
            pages: Mutex::default(),
            next: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            put_off: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticket(&self) -> (usize, String) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        (number, self.receivers[number % self.receivers.len()].url("/hook"))
    }

    /// One job with a callback.
    pub fn single(&self, seconds: f64) -> Order {
        let (number, hook) = self.ticket();
        let key = format!("single-{number}");
        let body = json!({
            "type": "urn:job:noop",
            "specification": { "durationSeconds": seconds },
            "metadata": { "key": key },
            "callbackUrl": hook,
        });
        Order { key, path: "/v1/jobs", body }
    }

    /// A batch with a callback, of which every tenth job has one too.
    pub fn batch(&self, size: usize, seconds: f64) -> Order {
        let (number, hook) = self.ticket();
        let key = format!("batch-{number}");
        let jobs: Vec<Value> = (0..size)
            .map(|place| {
                let mut job = json!({
                    "type": "urn:job:noop",
                    "specification": { "durationSeconds": seconds },
                    "metadata": { "key": key },
                });
                if place % 10 == 0 {
                    job["callbackUrl"] = json!(hook);
                }
                job
            })
            .collect();
        let body = json!({ "jobs": jobs, "callback": { "url": hook } });
        Order { key, path: "/v1/jobs/batch", body }
    }

    /// Asks until there is an answer, as a client does. The ids of the jobs.
    pub fn place(&self, client: &Client, order: &Order) -> Vec<String> {
        loop {
            let request = client.request("POST", order.path).json(&order.body);
            let request = request.header("idempotency-key", &order.key);
            match request.timeout(Duration::from_secs(20)).try_send() {
                Ok(answer) if answer.status == 202 => return self.promise(order, &answer.json()),
                Ok(answer) if answer.status == 410 => {
                    self.pages().gone.insert(order.key.clone());
                    return Vec::new();
                }
                Ok(answer) => {
                    come_again(&answer);
                    self.put_off.fetch_add(1, Ordering::SeqCst);
                }
                Err(_) => {
                    self.unanswered.fetch_add(1, Ordering::SeqCst);
                }
            }
            // Not at once, or a server that is down would be asked ten thousand times a second.
            let _not_a_condition = within(Duration::from_millis(20), || None::<()>);
        }
    }

    fn promise(&self, order: &Order, answer: &Value) -> Vec<String> {
        let id = |job: &Value| job["id"].as_str().expect("an id").to_owned();
        let (ids, promise) = match order.body["jobs"].as_array() {
            None => {
                let ids = vec![id(answer)];
                (ids.clone(), Promise { key: order.key.clone(), jobs: ids, group: None })
            }
            Some(asked) => {
                let jobs = answer["jobs"].as_array().expect("jobs");
                assert_eq!(jobs.len(), asked.len(), "{}: all or nothing", order.key);
                let owed =
                    asked.iter().zip(jobs).filter(|(job, _)| job.get("callbackUrl").is_some());
                let group = Some(answer["groupId"].as_str().expect("an id").to_owned());
                let owed = owed.map(|(_, job)| id(job)).collect();
                let ids = jobs.iter().map(id).collect();
                (ids, Promise { key: order.key.clone(), jobs: owed, group })
            }
        };
        self.pages().promises.push(promise);
        ids
    }

    /// A client that asks for small jobs and batches until it is told to stop, and then stays
    /// until its last request is answered.
    pub fn load(self: &Arc<Book>, client: Client, seed: u64) -> std::thread::JoinHandle<()> {
        let book = Arc::clone(self);
        std::thread::spawn(move || {
            let mut chance = Chance::seeded(seed);
            while !book.stop.load(Ordering::SeqCst) {
                let seconds = [0.0, 0.0, 0.01, 0.05, 0.2][chance.below(5) as usize];
                let order = match chance.below(25) {
                    0 => book.batch(30, seconds),
                    _ => book.single(seconds),
                };
                book.place(&client, &order);
                let pause = chance.moment(Duration::from_millis(30));
                let _told_to = within(pause, || book.stop.load(Ordering::SeqCst).then_some(()));
            }
        })
    }

    /// Tells the clients to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Requests that the receivers got so far.
    pub fn received(&self) -> usize {
        self.receivers.iter().map(Receiver::count).sum()
    }

    fn log(&self) -> Vec<Arc<Received>> {
        self.receivers.iter().flat_map(Receiver::log).collect()
    }

    /// Requests that were answered with 202 so far.
    pub fn promises(&self) -> usize {
        self.pages().promises.len()
    }

    /// Jobs that were promised a callback, the latest first.
    pub fn promised_jobs(&self) -> Vec<String> {
        let pages = self.pages();
        pages.promises.iter().rev().flat_map(|promise| promise.jobs.clone()).collect()
    }

    fn owed(&self) -> HashSet<String> {
        let pages = self.pages();
        let subjects = pages.promises.iter();
        subjects.flat_map(|promise| promise.jobs.iter().chain(&promise.group)).cloned().collect()
    }

    /// Waits until everybody was told about everything, and draws up the account. However much that
    /// is: something of it has to come within each `patience`.
    ///
    /// # Panics
    /// When something stays unsaid, is said by nobody we know, or is said in two ways.
    #[track_caller]
    pub fn settle(&self, patience: Duration) -> Account {
        let mut missing = self.owed();
        let mut read = vec![0; self.receivers.len()];
        while !missing.is_empty() {
            let before = missing.len();
            let some = within(patience, || {
                self.strike_out(&mut missing, &mut read);
                (missing.len() < before).then_some(())
            });
            assert!(some.is_some(), "{before} lost: nothing within {patience:?} of {missing:#?}");
        }
        self.audit()
    }

    /// Removes whose end was told, as the receivers' logs say from where they were `read` to.
    fn strike_out(&self, missing: &mut HashSet<String>, read: &mut [usize]) {
        for (receiver, read) in self.receivers.iter().zip(read) {
            let log = receiver.log();
            for received in &log[*read..] {
                let notice = Notice::read(received);
                if notice.is_end() {
                    missing.remove(&notice.subject);
                }
            }
            *read = log.len();
        }
    }

    /// What the logs hold, against what was promised.
    fn audit(&self) -> Account {
        let log = self.log();
        let mut by_id: HashMap<&str, &Arc<Received>> = HashMap::new();
        let mut notices = Vec::new();
        for received in &log {
            let first = *by_id.entry(received.webhook_id()).or_insert(received);
            assert_eq!(first.body, received.body, "one webhook-id, one body");
            if Arc::ptr_eq(first, received) {
                notices.push(Notice::read(received));
            }
        }
        let pages = self.pages();
        let gone_groups: HashSet<&String> = notices
            .iter()
            .filter(|notice| notice.key.as_ref().is_some_and(|key| pages.gone.contains(key)))
            .filter_map(|notice| notice.group.as_ref())
            .collect();
        let mut known: HashSet<&String> = pages
            .promises
            .iter()
            .flat_map(|promise| promise.jobs.iter().chain(&promise.group))
            .collect();
        known.extend(gone_groups.iter());
        let mut ended: HashSet<&String> = HashSet::new();
        let mut given_up = Vec::new();
        for notice in &notices {
            assert!(notice.is_end(), "{} of {}: {:?}", notice.kind, notice.subject, notice.code);
            let expected = known.contains(&notice.subject)
                || notice.key.as_ref().is_some_and(|key| pages.gone.contains(key));
            assert!(expected, "nobody asked for {} {}", notice.kind, notice.subject);
            assert!(ended.insert(&notice.subject), "{} ended twice", notice.subject);
            if notice.kind == "job.failed" {
                given_up.push(notice.subject.clone());
            }
        }
        for key in &pages.gone {
            let said = notices.iter().any(|notice| notice.key.as_ref() == Some(key));
            assert!(said, "{key} was purged before anybody was told");
        }
        // A lone job's group is the job itself.
        let unsaid: Vec<_> = gone_groups.difference(&ended).collect();
        assert!(unsaid.is_empty(), "purged before anybody was told: {unsaid:?}");
        let keys: HashSet<&String> = pages.promises.iter().map(|promise| &promise.key).collect();
        assert_eq!(keys.len(), pages.promises.len(), "one key, one promise");
        Account {
            jobs: pages.promises.iter().map(|promise| promise.jobs.len()).sum(),
            groups: pages.promises.iter().filter(|promise| promise.group.is_some()).count(),
            repeats: log.len() - notices.len(),
            given_up,
        }
    }

    /// Looks at the latest jobs through the API: their events have no gap and one end, and what
    /// they owed is delivered. How many there were to look at: old ones may have been purged.
    pub fn inspect(&self, client: &Client, most: usize) -> usize {
        let mut seen = 0;
        for job in &self.promised_jobs() {
            if seen == most {
                break;
            }
            if client.get(&format!("/v1/jobs/{job}")).status == 404 {
                continue;
            }
            seen += 1;
            let events = super::events_of(client, job);
            let types = super::types_of(&events);
            assert_eq!(types[0], "job.created");
            let is_end = |name: &str| matches!(name, "job.succeeded" | "job.failed");
            assert!(types.last().is_some_and(|name| is_end(name)), "{types:?}");
            assert_eq!(types.iter().filter(|name| is_end(name)).count(), 1, "{types:?}");
            // The receiver may know before the record of it is written.
            let delivery = eventually("it is recorded as delivered", super::PATIENCE, || {
                let page = client.get(&format!("/v1/deliveries?jobId={job}")).expect(200).json();
                let deliveries = page["deliveries"].as_array().expect("deliveries");
                assert_eq!(deliveries.len(), 1, "{page:#}");
                (deliveries[0]["status"] == "delivered").then(|| deliveries[0].clone())
            });
            let id = delivery["id"].as_str().expect("an id");
            let detail = client.get(&format!("/v1/deliveries/{id}")).expect(200).json();
            let attempts = detail["attemptLog"].as_array().expect("attempts").clone();
            let (last, earlier) = attempts.split_last().expect("an attempt");
            assert_eq!(last["outcome"], "delivered", "{detail:#}");
            for attempt in earlier {
                let outcome = attempt["outcome"].as_str().expect("an outcome");
                assert!(matches!(outcome, "failed" | "unknown"), "{detail:#}");
            }
            assert_eq!(attempts.len(), detail["attempts"], "{detail:#}");
        }
        seen
    }
}

/// Anything but a 202 has to be a way of saying: not now.
#[track_caller]
fn come_again(answer: &Answer) {
    let text = answer.text();
    assert!(matches!(answer.status, 409 | 503), "{}: {text}", answer.status);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{text}");
    assert!(answer.header("retry-after").is_some(), "no Retry-After: {text}");
    if answer.status == 409 {
        assert_eq!(answer.json()["code"], "idempotency_in_flight");
    }
}
