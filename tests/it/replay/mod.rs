//! Replays of the past to one endpoint, and redeliveries of many at once.

mod bulk;
mod choice;
mod limits;
mod past;
mod purges;
mod resume;
mod slots;
mod together;
mod window;
mod window_index;

use std::time::Duration;

use ringback::engine::{Caller, ReplayCount, ReplayOrder, StoredJob};
use ringback::ids::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::support::shop::Shop;
use crate::support::wait::eventually_async;

const PATIENCE: Duration = Duration::from_secs(60);

/// All of the last hour.
fn all_of(shop: &Shop, endpoint_id: Uuid) -> ReplayOrder {
    let now = shop.node.engine.now();
    between(endpoint_id, now.plus_millis(-3_600_000), now.plus_millis(1))
}

fn between(endpoint_id: Uuid, since: Timestamp, until: Timestamp) -> ReplayOrder {
    ReplayOrder { endpoint_id, since, until, events: None, only_failed: false }
}

async fn submit(shop: &Shop, order: &ReplayOrder) -> StoredJob {
    shop.node
        .engine
        .submit_replay(&shop.caller, order.clone(), None, "r")
        .await
        .expect("it is taken")
}

/// Submits a replay and runs it to its end, sending meanwhile.
async fn replay(shop: &Shop, order: &ReplayOrder) -> StoredJob {
    let job = submit(shop, order).await;
    work_and_send(shop).await;
    shop.node.job(&shop.caller, job.id).await
}

/// Runs what is ready and sends what it owes until nothing runs and nothing is due.
async fn work_and_send(shop: &Shop) {
    let node = &shop.node;
    node.runner.look().await.unwrap();
    node.runner.step().await.unwrap();
    eventually_async("the replay to end", PATIENCE, async || {
        node.send().await;
        (node.runner.busy() == 0).then_some(())
    })
    .await;
    shop.send().await;
}

async fn count(shop: &Shop, order: &ReplayOrder) -> i64 {
    let counted = shop.node.engine.count_replay(&shop.caller, order).await.expect("a count");
    assert_eq!(counted, ReplayCount { exact: true, ..counted });
    counted.matched
}

/// What a replay says it did: owed and skipped.
fn outcome(job: &StoredJob) -> (i64, i64) {
    let result = job.state.result.as_ref().expect("it has ended");
    let payload: Value = serde_json::from_str(result.payload.get()).unwrap();
    let number = |name: &str| payload[name].as_i64().unwrap_or_else(|| panic!("{payload}"));
    (number("owed"), number("skipped"))
}

/// Why a replay failed.
fn failure(job: &StoredJob) -> &str {
    &job.state.failure.as_ref().expect("it has failed").code
}

/// Who has nothing to do with the shop.
async fn stranger(shop: &Shop) -> Caller {
    shop.node.application("stranger").await.0
}
