//! How much a replay owes ahead when its endpoint may get little, and so what stopping it leaves.

use ringback::engine::{EndpointPatch, RateChange};
use ringback::lifecycle::Status;
use uuid::Uuid;

use super::resume::late_comer;
use super::{PATIENCE, all_of, outcome, submit, work_and_send};
use crate::support::database::{Database, on_both};
use crate::support::node::bounded;
use crate::support::shop::Shop;
use crate::support::wait::eventually_async;

async fn limit(shop: &Shop, endpoint: Uuid, per_second: f64) {
    let rate = RateChange { per_second: Some(per_second), burst: Some(Some(1)) };
    let patch = EndpointPatch { rate_limit: Some(Some(rate)), ..EndpointPatch::default() };
    shop.node.engine.change_endpoint(&shop.caller, endpoint, patch).await.unwrap();
}

async fn owed(shop: &Shop, endpoint: Uuid) -> usize {
    let owed = shop.owed_to(endpoint).await;
    owed.iter().filter(|one| one.manner == "replay").count()
}

on_both!(async a_stopped_replay_leaves_what_two_seconds_bring);
async fn a_stopped_replay_leaves_what_two_seconds_bring(database: Database) {
    let (shop, endpoint) = late_comer(&database, 300).await;
    limit(&shop, endpoint, 5.0).await;
    let job = submit(&shop, &all_of(&shop, endpoint)).await;
    shop.node.runner.look().await.unwrap();
    shop.node.runner.step().await.unwrap();
    eventually_async("the window to be full", PATIENCE, async || {
        (owed(&shop, endpoint).await >= 10).then_some(())
    })
    .await;
    shop.node.engine.stop(&shop.caller, job.id).await.unwrap();
    shop.node.runner.check_leases().await.unwrap();
    bounded("the replay to end", || shop.node.runner.busy() == 0).await;
    assert_eq!(shop.node.job(&shop.caller, job.id).await.state.status, Status::Stopped);
    assert_eq!(owed(&shop, endpoint).await, 10);

    // Retried, it goes on where it was; its window follows what the endpoint may get now.
    limit(&shop, endpoint, 1_000.0).await;
    let again = shop.node.engine.retry(&shop.caller, job.id, None, "r").await.unwrap();
    work_and_send(&shop).await;
    let again = shop.node.job(&shop.caller, again.id).await;
    // Perhaps one more, which says that the first replay was created.
    let (all, skipped) = outcome(&again);
    assert!((300..=301).contains(&all) && skipped == 0, "{all} owed, {skipped} skipped");
}
