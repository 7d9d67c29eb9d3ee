//! A shop: one node, one application and a receiver, for tests about registered endpoints.
//!
//! Driven by steps on a manual clock. Must not know what a test is after.

use std::collections::HashMap;
use std::time::Duration;

use ringback::engine::{
    Address, Caller, DeliveryFilter, DeliveryView, EndpointSettings, EndpointStats, EndpointView,
    FeedEvent, FeedFilter, NewEndpoint, Ordering, StoredJob,
};
use uuid::Uuid;

use super::database::Database;
use super::node::{Node, scripted_job};
use super::receiver::{Received, Receiver};

/// See the module.
pub struct Shop {
    pub node: Node,
    pub caller: Caller,
    pub receiver: Receiver,
}

impl Shop {
    pub async fn open(database: &Database) -> Shop {
        Shop::on(Node::start(database).await).await
    }

    pub async fn on(node: Node) -> Shop {
        let (caller, _) = node.application("shop").await;
        Shop { node, caller, receiver: Receiver::start() }
    }

    /// Registers an endpoint on a path of the receiver, which then knows its secret.
    pub async fn register(&self, path: &str, settings: EndpointSettings) -> Uuid {
        register(&self.node, &self.caller, &self.receiver, path, settings).await
    }

    /// Jobs that have run, and whose events are owed to whom they concern.
    pub async fn run_jobs(&self, count: usize) -> Vec<StoredJob> {
        let jobs = self.submit_jobs(count).await;
        self.node.work().await;
        self.place().await;
        jobs
    }

    /// Jobs that wait for somebody to run them.
    pub async fn submit_jobs(&self, count: usize) -> Vec<StoredJob> {
        let mut jobs = Vec::with_capacity(count);
        for _ in 0..count {
            jobs.push(self.node.submit(&self.caller, scripted_job()).await);
        }
        jobs
    }

    /// Gives all events their places in the feed.
    pub async fn place(&self) {
        while self.node.engine.relay().await.expect("the relay works") {}
    }

    /// Sends what is due until nothing is due or under way.
    pub async fn send(&self) {
        self.place().await;
        self.node.send().await;
    }

    /// Moves the clock and sends what has become due; the node goes on living.
    pub async fn send_after(&self, seconds: u64) {
        self.wait(Duration::from_secs(seconds)).await;
        self.send().await;
    }

    /// Moves the clock; the node goes on living.
    pub async fn wait(&self, time: Duration) {
        self.node.clock.shift_millis(i64::try_from(time.as_millis()).expect("not that long"));
        self.node.beat().await;
    }

    pub async fn endpoint(&self, id: Uuid) -> EndpointView {
        self.node.engine.find_endpoint(&self.caller, id).await.expect("the endpoint is there")
    }

    pub async fn stats(&self, id: Uuid) -> EndpointStats {
        self.node.engine.endpoint_stats(&self.caller, id).await.expect("the endpoint is there")
    }

    pub async fn delivery(&self, id: Uuid) -> DeliveryView {
        self.node.engine.find_delivery(&self.caller, id).await.expect("the delivery is there")
    }

    /// Everything that an endpoint is or was owed, in no promised order.
    pub async fn owed_to(&self, endpoint: Uuid) -> Vec<DeliveryView> {
        let filter = DeliveryFilter { endpoint: Some(endpoint), ..DeliveryFilter::default() };
        self.deliveries(&filter).await
    }

    /// All deliveries that a filter means, over all pages.
    pub async fn deliveries(&self, filter: &DeliveryFilter) -> Vec<DeliveryView> {
        let (mut all, mut before) = (Vec::new(), Some((i64::MAX, i64::MAX)));
        while let Some(from) = before {
            let page = self.node.engine.list_deliveries(&self.caller, filter, from, 500).await;
            let (page, next) = page.expect("a page of deliveries");
            all.extend(page);
            before = next;
        }
        all
    }

    /// The delivery of one event, told by the type and the job it is about.
    pub async fn delivery_of(&self, endpoint: Uuid, job: Uuid, event_type: &str) -> DeliveryView {
        let owed = self.owed_to(endpoint).await;
        let is_it = |one: &DeliveryView| one.job_id == Some(job) && one.event_type == event_type;
        owed.into_iter().find(is_it).expect("the event is owed")
    }

    /// How many deliveries of an endpoint stand in each status.
    pub async fn statuses(&self, endpoint: Uuid) -> HashMap<&'static str, usize> {
        let mut counts = HashMap::new();
        for delivery in self.owed_to(endpoint).await {
            *counts.entry(delivery.status).or_default() += 1;
        }
        counts
    }

    /// The whole feed of the application.
    pub async fn feed(&self) -> Vec<FeedEvent> {
        whole_feed(&self.node, &self.caller).await
    }

    /// `webhook-id`s of events that patterns name, in the order of the feed.
    pub async fn feed_ids(&self, types: &[&str]) -> Vec<String> {
        let filter = FeedFilter { types: types.iter().map(|&name| name.to_owned()).collect() };
        let events = read_feed(&self.node, &self.caller, &filter).await;
        events.iter().map(|one| one.event.id.to_string()).collect()
    }

    /// `webhook-id`s that came on a path, in the order of arrival.
    pub fn received(&self, path: &str) -> Vec<String> {
        ids(&self.receiver.log_of(path))
    }
}

/// `webhook-id`s of requests.
pub fn ids(log: &[std::sync::Arc<Received>]) -> Vec<String> {
    log.iter().map(|one| one.signed().webhook_id().to_owned()).collect()
}

/// What an endpoint with an order gets in these tests: all about jobs and nothing of itself.
/// Tries come after so many seconds each.
pub fn ordered(ordering: Ordering, retries: &[u64]) -> EndpointSettings {
    EndpointSettings {
        events: Some(vec!["job.*".to_owned()]),
        ordering,
        schedule: Some(retries.to_vec()),
        ..EndpointSettings::default()
    }
}

/// An address as the API would have taken it.
pub fn address(url: &str) -> Address {
    let origin = url::Url::parse(url).expect("a URL").origin().ascii_serialization();
    Address { url: url.to_owned(), shown_url: url.to_owned(), origin }
}

/// Registers an endpoint on a path of a receiver, which then knows its secret.
pub async fn register(
    node: &Node,
    caller: &Caller,
    receiver: &Receiver,
    path: &str,
    settings: EndpointSettings,
) -> Uuid {
    let new = NewEndpoint { address: address(&receiver.url(path)), settings, enabled: true };
    let registered = node.engine.create_endpoint(caller, new).await.expect("it is registered");
    receiver.trust(&registered.key.expect("a new endpoint has a new key").shown);
    registered.endpoint.id
}

/// The whole feed of an application.
pub async fn whole_feed(node: &Node, caller: &Caller) -> Vec<FeedEvent> {
    read_feed(node, caller, &FeedFilter::default()).await
}

/// All events of the feed that a filter wants, over all pages.
pub async fn read_feed(node: &Node, caller: &Caller, filter: &FeedFilter) -> Vec<FeedEvent> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = node.engine.feed_page(caller.application, after, filter, 1_000).await;
        let page = page.expect("a page of the feed");
        events.extend(page.events);
        after = page.next;
        if !page.more {
            return events;
        }
    }
}
