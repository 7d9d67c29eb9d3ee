//! Endpoints as their receivers and their owners see them: who gets which event, with which
//! signature; how outcomes, breaker and backlog go; and that nobody holds up anybody else.
//!
//! One node on a manual clock in most, driven by steps. What comes after what is not looked at here.

mod anew;
mod asked;
mod attempts;
mod backlog;
mod bounds;
mod breaker;
mod changes;
mod deletion;
mod fairness;
mod fan_out;
mod health;
mod late_keys;
mod late_words;
mod long_backlogs;
mod numbers;
mod outcomes;
mod pings;
mod receiver_wishes;
mod retry_after;
mod settling;
mod signatures;
mod strays;
mod unanswered;
mod widths;

use std::sync::mpsc;
use std::time::Duration;

use ringback::delivery::{BreakerSettings, Settings};
use ringback::engine::{
    Address, Caller, DeliveryFilter, DeliveryView, EndpointPatch, EndpointSettings, EndpointStats,
    EndpointView, NewEndpoint, NewSecret, StoredJob,
};
use ringback::formats::Formats;
use uuid::Uuid;

use crate::deliveries::dispatcher;
use crate::support::database::Database;
use crate::support::node::{Node, scripted_job};
use crate::support::receiver::{Receiver, Reply};

/// Waits for what happens in real time.
const PATIENCE: Duration = Duration::from_secs(60);

/// One node, one application, and a receiver that stands for all its endpoints, a path for each.
struct World {
    node: Node,
    caller: Caller,
    receiver: Receiver,
}

/// A registered endpoint, and what its receiver verifies with.
struct Endpoint {
    id: Uuid,
    key: NewSecret,
}

impl World {
    async fn start(database: &Database) -> World {
        let node = Node::start(database).await;
        let (caller, _) = node.application("shop").await;
        World { node, caller, receiver: Receiver::start() }
    }

    /// Sends by other settings from now on, and with an empty memory.
    async fn send_by(&mut self, settings: Settings) {
        let egress = self.node.services.egress.clone();
        self.node.dispatcher = dispatcher(&self.node, egress, settings, 0.0).await;
    }

    /// Another node on the same database and clock. The first one keeps the lanes it has.
    async fn second_node(&self, database: &Database) -> Node {
        let clock = self.node.clock.clone();
        Node::start_with(database, clock, Formats::standard_only()).await
    }

    /// An endpoint at a path here that gets `job.created`, which every submission is.
    async fn endpoint(&self, path: &str) -> Endpoint {
        self.endpoint_with(path, |_| {}).await
    }

    /// The same with other settings.
    async fn endpoint_with(
        &self,
        path: &str,
        choose: impl FnOnce(&mut EndpointSettings),
    ) -> Endpoint {
        let mut settings = EndpointSettings {
            events: Some(vec!["job.created".to_owned()]),
            ..EndpointSettings::default()
        };
        choose(&mut settings);
        register(&self.node, &self.caller, address(&self.receiver.url(path)), settings).await
    }

    /// A job that nobody runs: one event, later than the last one.
    async fn event(&self) -> StoredJob {
        self.node.clock.shift_millis(1);
        self.node.submit(&self.caller, scripted_job()).await
    }

    async fn events(&self, count: usize) {
        for _ in 0..count {
            self.event().await;
        }
    }

    /// Everything that was ever owed to an endpoint, oldest first.
    async fn deliveries(&self, endpoint: &Endpoint) -> Vec<DeliveryView> {
        let filter = DeliveryFilter { endpoint: Some(endpoint.id), ..DeliveryFilter::default() };
        let engine = &self.node.engine;
        let listed =
            engine.list_deliveries(&self.caller, &filter, (i64::MAX, i64::MAX), 1_000).await;
        let (mut listed, _) = listed.expect("a list");
        listed.reverse();
        listed
    }

    /// The only one, with its attempts.
    async fn delivery(&self, endpoint: &Endpoint) -> DeliveryView {
        let listed = self.deliveries(endpoint).await;
        assert_eq!(listed.len(), 1, "one delivery");
        self.whole(listed[0].id).await
    }

    async fn whole(&self, delivery: Uuid) -> DeliveryView {
        self.node.engine.find_delivery(&self.caller, delivery).await.expect("the delivery is there")
    }

    /// How everything that was ever owed to an endpoint stands, oldest first.
    async fn statuses(&self, endpoint: &Endpoint) -> Vec<&'static str> {
        self.deliveries(endpoint).await.into_iter().map(|delivery| delivery.status).collect()
    }

    async fn view(&self, endpoint: &Endpoint) -> EndpointView {
        self.node.engine.find_endpoint(&self.caller, endpoint.id).await.expect("it is there")
    }

    async fn stats(&self, endpoint: &Endpoint) -> EndpointStats {
        self.node.engine.endpoint_stats(&self.caller, endpoint.id).await.expect("it is there")
    }

    async fn change(&self, endpoint: &Endpoint, patch: EndpointPatch) -> Option<NewSecret> {
        let changed = self.node.engine.change_endpoint(&self.caller, endpoint.id, patch).await;
        changed.expect("it may be changed").key
    }

    /// Moves the clock; the node goes on living.
    async fn wait(&self, time: Duration) {
        self.node.clock.shift_millis(i64::try_from(time.as_millis()).unwrap());
        self.node.beat().await;
    }

    /// Requests that came to a path so far.
    fn came(&self, path: &str) -> usize {
        self.receiver.log_of(path).len()
    }
}

/// A path whose answer waits for a word of the test.
pub struct Gate {
    pub arrivals: mpsc::Receiver<()>,
    /// Dropped, it lets everybody through.
    closed: mpsc::Sender<()>,
}

impl Gate {
    /// Until it is opened, the receiver can be asked nothing.
    pub fn on(receiver: &Receiver, path: &str, reply: Reply) -> Gate {
        let (arrived, arrivals) = mpsc::channel();
        let (closed, opened) = mpsc::channel();
        receiver.on_with(path, move |_| {
            let _nobody_waits_any_more = arrived.send(());
            let _it_was_opened = opened.recv_timeout(PATIENCE);
            reply.clone()
        });
        Gate { arrivals, closed }
    }

    fn wait_for_arrival(&self) {
        self.arrivals.recv_timeout(PATIENCE).expect("a request");
    }

    pub fn open(self) {
        drop(self.closed);
    }
}

/// Registers an endpoint of any application.
async fn register(
    node: &Node,
    caller: &Caller,
    address: Address,
    settings: EndpointSettings,
) -> Endpoint {
    let new = NewEndpoint { address, settings, enabled: true };
    let registered = node.engine.create_endpoint(caller, new).await.expect("it is registered");
    let key = registered.key.expect("the key to verify with is shown");
    Endpoint { id: registered.endpoint.id, key }
}

/// An address without credentials.
fn address(url: &str) -> Address {
    let parsed = url::Url::parse(url).expect("a URL");
    Address {
        url: url.to_owned(),
        shown_url: url.to_owned(),
        origin: parsed.origin().ascii_serialization(),
    }
}

/// Patterns of events.
fn events(patterns: &[&str]) -> Option<Vec<String>> {
    Some(patterns.iter().map(|pattern| (*pattern).to_owned()).collect())
}

/// Closes a lane after three failures, for 30 s, 60 s, and 100 s at most.
fn nervous() -> Settings {
    Settings {
        breaker: BreakerSettings { failures: 3, pause: seconds(30), longest_pause: seconds(100) },
        ..Settings::default()
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Outcome and HTTP status of each attempt.
fn outcomes(delivery: &DeliveryView) -> Vec<(&str, Option<i64>)> {
    let log = delivery.attempt_log.as_ref().expect("the detail has attempts");
    log.iter().map(|attempt| (attempt.outcome.as_str(), attempt.response_status)).collect()
}
