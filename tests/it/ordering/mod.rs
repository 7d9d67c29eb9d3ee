//! The order of deliveries to one endpoint: within a job, over all of the feed, and what stands
//! outside it.

mod backlogs;
mod changes;
mod discards;
mod leaving;
mod locks;
mod nodes;
mod outside;
mod per_job;
mod random;
mod shares;
mod strict;
mod switches;

use std::sync::Arc;

use ringback::engine::{
    ClosedAttempt, EndpointSettings, Next, Ordering, OwedDelivery, Record, Recorded,
};

use crate::support::node::{Node, wish};
use crate::support::receiver::{Received, Reply};
use crate::support::shop::{Shop, ordered};

/// An endpoint whose deliveries have one try.
fn tried_once(ordering: Ordering) -> EndpointSettings {
    ordered(ordering, &[])
}

/// Claims whatever may be sent now on any lane.
async fn claim(node: &Node) -> Vec<OwedDelivery> {
    let mut lanes: Vec<i64> = node.engine.look_for_lanes().await.unwrap().fresh;
    lanes.extend(node.engine.look_for_lanes().await.unwrap().waiting.iter().map(|(lane, _)| *lane));
    lanes.sort_unstable();
    lanes.dedup();
    node.engine.claim_deliveries(lanes.into_iter().map(wish).collect()).await.unwrap()
}

/// Says what came of a claimed delivery.
async fn record(node: &Node, owed: &OwedDelivery, next: Next) -> Recorded {
    node.engine.record(record_of(node, owed, next)).await.unwrap()
}

fn record_of(node: &Node, owed: &OwedDelivery, next: Next) -> Record {
    let outcome = if matches!(next, Next::Delivered) { "delivered" } else { "failed" };
    let closed = ClosedAttempt {
        delivery_id: owed.key,
        number: owed.attempt,
        outcome,
        finished_at: node.engine.now().0,
        ..ClosedAttempt::default()
    };
    Record {
        delivery: owed.key,
        receiver: owed.receiver.key,
        receiver_version: owed.receiver.version,
        subject: owed.subject,
        token: owed.token,
        closed,
        next,
        receiver_gone: false,
        disable: None,
        health: None,
        lane: None,
        is_in_order: owed.receiver.ordering != ringback::engine::Ordering::None,
    }
}

/// From now on a path refuses one event of a job with a status, and takes all else.
fn refuse(shop: &Shop, path: &str, job: uuid::Uuid, event_type: &'static str, status: u16) {
    let job = job.to_string();
    shop.receiver.on_with(path, move |received| {
        let body = received.json();
        let meant = body["type"] == event_type && body["data"]["id"] == job;
        if meant { Reply::status(status) } else { Reply::ok() }
    });
}

/// From now on a path takes everything.
fn accept(shop: &Shop, path: &str) {
    shop.receiver.on(path, [Reply::ok()]);
}

/// Job and number of the event of each request.
fn told(log: &[Arc<Received>]) -> Vec<(String, i64)> {
    log.iter()
        .map(|one| {
            let body = one.signed().json();
            let job = body["data"]["id"].as_str().expect("a job").to_owned();
            (job, body["sequence"].as_i64().expect("a number"))
        })
        .collect()
}
