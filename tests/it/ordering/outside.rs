//! What somebody asks for again stands outside the order: it neither waits for its place nor
//! holds up what has one, and its receiver is told.

use ringback::engine::{Ordering, ReplayOrder};
use ringback::lifecycle::EventType;
use uuid::Uuid;

use super::{accept, refuse, tried_once};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;
use crate::support::shop::{Shop, ids, ordered};

fn replay_of_all(endpoint_id: Uuid, shop: &Shop) -> ReplayOrder {
    let now = shop.node.engine.now();
    let (since, until) = (now.plus_millis(-3_600_000), now.plus_millis(1));
    ReplayOrder { endpoint_id, since, until, events: None, only_failed: false }
}

/// The manner of each request on a path, as its receiver was told.
fn manners(shop: &Shop, path: &str) -> Vec<Option<String>> {
    let log = shop.receiver.log_of(path);
    log.iter().map(|one| one.header("webhook-redelivery").map(str::to_owned)).collect()
}

on_both!(async a_blocked_endpoint_still_gets_what_is_asked_for);
async fn a_blocked_endpoint_still_gets_what_is_asked_for(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::Strict)).await;
    let first = shop.run_jobs(1).await.remove(0);
    shop.send().await;
    let second = shop.submit_jobs(1).await.remove(0);
    refuse(&shop, "/hook", second.id, "job.created", 500);
    shop.node.work().await;
    shop.send().await;
    let blocker = shop.delivery_of(endpoint, second.id, "job.created").await;
    assert_eq!(shop.endpoint(endpoint).await.blocked_by, Some(blocker.id));
    let engine = &shop.node.engine;
    let before = shop.receiver.count();

    let delivered = shop.delivery_of(endpoint, first.id, "job.started").await;
    engine.redeliver(&shop.caller, delivered.id).await.unwrap();
    shop.send().await;
    assert_eq!(shop.received("/hook")[before..], [delivered.webhook_id.to_string()]);
    engine.submit_replay(&shop.caller, replay_of_all(endpoint, &shop), None, "r").await.unwrap();
    shop.node.work().await;
    shop.send().await;
    let mut again = shop.received("/hook")[before + 1..].to_vec();
    let mut expected: Vec<String> = shop.received("/hook")[..3].to_vec();
    again.sort();
    expected.sort();
    assert_eq!(again[..], expected[..], "what is still owed in its place is not owed twice");
    engine.ping_endpoint(&shop.caller, endpoint, "r").await.unwrap();
    shop.send().await;
    let triggered = engine.trigger(&shop.caller, EventType::JobFailed, None, "{}", "r").await;
    assert_eq!(triggered.unwrap().len(), 1);
    shop.send().await;

    let told = manners(&shop, "/hook").split_off(before);
    let told: Vec<&str> = told.iter().map(|manner| manner.as_deref().unwrap_or("event")).collect();
    assert_eq!(told, ["redelivery", "replay", "replay", "replay", "ping", "trigger"]);
    assert!(manners(&shop, "/hook")[..before].iter().all(Option::is_none));
    let manner = shop.delivery_of(endpoint, first.id, "job.started").await.manner;
    assert_eq!(manner, "replay", "the last of them");
    assert_eq!(shop.endpoint(endpoint).await.blocked_by, Some(blocker.id), "nothing has changed");
    assert!(shop.delivery(blocker.id).await.blocking);
}

on_both!(async a_redelivery_that_fails_blocks_nothing);
async fn a_redelivery_that_fails_blocks_nothing(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::Strict, &[60])).await;
    let first = shop.run_jobs(1).await.remove(0);
    shop.send().await;
    let again = shop.delivery_of(endpoint, first.id, "job.started").await.id;
    shop.receiver.on_with("/hook", |received| match received.header("webhook-redelivery") {
        Some(_) => Reply::status(500),
        None => Reply::ok(),
    });
    shop.node.engine.redeliver(&shop.caller, again).await.unwrap();
    shop.send().await;
    assert_eq!(shop.delivery(again).await.status, "pending", "it is tried again in a minute");

    // What has its place goes past it, now and when it has been given up.
    shop.run_jobs(1).await;
    shop.send().await;
    assert_eq!(shop.received("/hook").len(), 3 + 1 + 3);
    shop.send_after(60).await;
    let ended = shop.delivery(again).await;
    assert_eq!((ended.status, ended.blocking, ended.attempts), ("exhausted", false, 3));
    shop.run_jobs(1).await;
    shop.send().await;
    let feed = shop.feed_ids(&["job.*"]).await;
    let log = shop.receiver.log_of("/hook");
    let in_order: Vec<_> =
        log.into_iter().filter(|one| one.header("webhook-redelivery").is_none()).collect();
    assert_eq!(ids(&in_order), feed);
    assert_eq!(shop.endpoint(endpoint).await.state, "enabled");
}

on_both!(async a_replay_goes_beside_a_job_that_waits_for_its_retry);
async fn a_replay_goes_beside_a_job_that_waits_for_its_retry(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::PerJob, &[60])).await;
    let old = shop.run_jobs(1).await.remove(0);
    shop.send().await;
    let slow = shop.submit_jobs(1).await.remove(0);
    refuse(&shop, "/hook", slow.id, "job.created", 503);
    shop.node.work().await;
    shop.send().await;
    shop.node
        .engine
        .submit_replay(&shop.caller, replay_of_all(endpoint, &shop), None, "r")
        .await
        .unwrap();
    shop.node.work().await;
    shop.send().await;
    let again = shop.delivery_of(endpoint, old.id, "job.succeeded").await;
    assert_eq!((again.manner, again.status, again.attempts), ("replay", "delivered", 2));
    let waits = shop.delivery_of(endpoint, slow.id, "job.created").await;
    assert_eq!((waits.manner, waits.status, waits.attempts), ("event", "pending", 1));
    accept(&shop, "/hook");
    shop.send_after(60).await;
    let statuses = shop.statuses(endpoint).await;
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&"delivered"], "{statuses:?}");
}
