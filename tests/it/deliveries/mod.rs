//! Deliveries as their receivers and their owners see them: retries, attempts, signatures,
//! formats, filters, limits. On a manual clock, but for what is about the receiver's clock.

mod attempts;
mod callbacks;
mod formats;
mod hostile;
mod limits;
mod listing;
mod outgoing;
mod owners;
mod pages;
mod schedule;
mod secrets;

pub use attempts::received;

use std::sync::Arc;
use std::time::Duration;

use ringback::delivery::{Dispatcher, Settings};
use ringback::egress::Client;
use ringback::engine::{Caller, DeliveryView, NewCallback, StoredJob};
use uuid::Uuid;

use crate::support::database::Database;
use crate::support::node::{Node, of_job, scripted_job};
use crate::support::receiver::Receiver;

/// One node, one application, and a receiver that knows its secret.
struct World {
    node: Node,
    caller: Caller,
    secret: String,
    receiver: Receiver,
}

impl World {
    async fn start(database: &Database) -> World {
        World::on(Node::start(database).await).await
    }

    async fn on(node: Node) -> World {
        let (caller, secret) = node.application("shop").await;
        let receiver = Receiver::start();
        receiver.trust(&secret);
        World { node, caller, secret, receiver }
    }

    /// Sends with other settings from now on, and with an empty memory.
    async fn send_by(&mut self, settings: Settings, chance: f64) {
        let egress = self.node.services.egress.clone();
        self.node.dispatcher = dispatcher(&self.node, egress, settings, chance).await;
    }

    /// The same through another network.
    async fn send_through(&mut self, egress: Client, settings: Settings) {
        self.node.dispatcher = dispatcher(&self.node, egress, settings, 0.0).await;
    }

    async fn submit(&self, callback: NewCallback) -> StoredJob {
        let mut job = scripted_job();
        job.callback = Some(callback);
        self.node.submit(&self.caller, job).await
    }

    /// A job with that callback that has run; nothing is sent yet.
    async fn done(&self, callback: NewCallback) -> StoredJob {
        let job = self.submit(callback).await;
        self.node.work().await;
        job
    }

    /// What is owed or was owed about a job, oldest first, with attempts.
    async fn deliveries(&self, job: Uuid) -> Vec<DeliveryView> {
        let listed = self
            .node
            .engine
            .list_deliveries(&self.caller, &of_job(job), (i64::MAX, i64::MAX), 100)
            .await;
        let (mut listed, _) = listed.unwrap();
        listed.reverse();
        let mut whole = Vec::with_capacity(listed.len());
        for delivery in listed {
            whole.push(self.delivery(delivery.id).await);
        }
        whole
    }

    /// The only one about a job.
    async fn delivery_of(&self, job: Uuid) -> DeliveryView {
        let mut deliveries = self.deliveries(job).await;
        assert_eq!(deliveries.len(), 1, "one delivery");
        deliveries.remove(0)
    }

    async fn delivery(&self, id: Uuid) -> DeliveryView {
        self.node.engine.find_delivery(&self.caller, id).await.expect("the delivery is there")
    }

    /// Moves the clock; the node goes on living.
    async fn wait(&self, time: Duration) {
        self.node.clock.shift_millis(i64::try_from(time.as_millis()).unwrap());
        self.node.beat().await;
    }
}

pub async fn dispatcher(
    node: &Node,
    egress: Client,
    settings: Settings,
    chance: f64,
) -> Arc<Dispatcher> {
    let dispatcher =
        Dispatcher::new(Arc::clone(&node.engine), egress, Arc::default(), settings, move || chance);
    let standing = node.engine.beat(node.engine.now()).await.unwrap();
    dispatcher.set_shards(&standing.shards);
    Arc::new(dispatcher)
}

/// Number and outcome of each attempt.
fn outcomes(delivery: &DeliveryView) -> Vec<(i64, &str)> {
    let log = delivery.attempt_log.as_ref().expect("the detail has attempts");
    log.iter().map(|attempt| (attempt.number, attempt.outcome.as_str())).collect()
}
