//! Many deliveries owed again at once: counted first, chosen by a filter, only one's own.

use ringback::engine::{BulkRedelivery, DeliveryFilter, Ordering};
use uuid::Uuid;

use super::stranger;
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;
use crate::support::shop::{Shop, ordered};

fn exhausted() -> DeliveryFilter {
    DeliveryFilter { statuses: vec!["exhausted".to_owned()], ..DeliveryFilter::default() }
}

async fn redeliver(shop: &Shop, filter: &DeliveryFilter, dry_run: bool) -> BulkRedelivery {
    let engine = &shop.node.engine;
    engine
        .redeliver_matching(&shop.caller, filter, (i64::MAX, i64::MAX), dry_run)
        .await
        .expect("it is taken")
}

/// Two endpoints that got nothing of 3 jobs, and then are well.
async fn two_that_failed(database: &Database) -> (Shop, [Uuid; 2]) {
    let shop = Shop::open(database).await;
    let one = shop.register("/one", ordered(Ordering::None, &[])).await;
    let two = shop.register("/two", ordered(Ordering::None, &[])).await;
    shop.receiver.otherwise([Reply::status(400)]);
    shop.run_jobs(3).await;
    shop.send().await;
    shop.receiver.otherwise([Reply::ok()]);
    for endpoint in [one, two] {
        assert_eq!(shop.statuses(endpoint).await, [("exhausted", 9)].into());
    }
    (shop, [one, two])
}

on_both!(async a_dry_run_counts_and_changes_nothing);
async fn a_dry_run_counts_and_changes_nothing(database: Database) {
    let (shop, [one, two]) = two_that_failed(&database).await;
    let counted = redeliver(&shop, &exhausted(), true).await;
    assert_eq!(counted, BulkRedelivery { matched: 18, ..BulkRedelivery::default() });
    shop.send().await;
    assert_eq!(shop.receiver.count(), 18);

    let done = redeliver(&shop, &exhausted(), false).await;
    assert_eq!(done, BulkRedelivery { matched: 18, redelivered: 18, ..BulkRedelivery::default() });
    shop.send().await;
    let log = shop.receiver.log().split_off(18);
    assert_eq!(log.len(), 18);
    assert!(log.iter().all(|one| one.signed().header("webhook-redelivery") == Some("redelivery")));
    for endpoint in [one, two] {
        assert_eq!(shop.statuses(endpoint).await, [("delivered", 9)].into());
    }
    assert_eq!(redeliver(&shop, &exhausted(), false).await.matched, 0);
}

on_both!(async a_filter_chooses);
async fn a_filter_chooses(database: Database) {
    let (shop, [one, two]) = two_that_failed(&database).await;
    let first = shop.owed_to(one).await[0].job_id.unwrap();
    let before = shop.node.engine.now();
    shop.wait(std::time::Duration::from_secs(60)).await;
    shop.receiver.on("/one", [Reply::status(400)]);
    shop.run_jobs(1).await;
    shop.send().await;
    let now = shop.node.engine.now();
    let of_one = || DeliveryFilter { endpoint: Some(one), ..exhausted() };
    let choices = [
        (of_one(), 12),
        (DeliveryFilter { endpoint: Some(two), ..exhausted() }, 9),
        (DeliveryFilter { job: Some(first), ..exhausted() }, 6),
        (DeliveryFilter { job: Some(first), ..of_one() }, 3),
        (DeliveryFilter { events: vec!["job.s*".to_owned()], ..of_one() }, 8),
        (DeliveryFilter { since: Some(now), ..exhausted() }, 3),
        (DeliveryFilter { since: Some(before), until: Some(now), ..exhausted() }, 18),
        (DeliveryFilter { statuses: vec!["delivered".to_owned()], ..exhausted() }, 3),
        (DeliveryFilter { statuses: vec!["refused".to_owned()], ..exhausted() }, 0),
        (DeliveryFilter::default(), 24),
    ];
    for (filter, expected) in choices {
        assert_eq!(redeliver(&shop, &filter, true).await.matched, expected, "{filter:?}");
    }
    shop.receiver.on("/one", [Reply::ok()]);
    let filter = DeliveryFilter { job: Some(first), ..of_one() };
    assert_eq!(redeliver(&shop, &filter, false).await.redelivered, 3);
    shop.send().await;
    assert_eq!(shop.statuses(one).await, [("delivered", 3), ("exhausted", 9)].into());
    assert_eq!(shop.statuses(two).await, [("delivered", 3), ("exhausted", 9)].into());

    let (engine, stranger) = (&shop.node.engine, stranger(&shop).await);
    let nothing =
        engine.redeliver_matching(&stranger, &exhausted(), (i64::MAX, i64::MAX), false).await;
    assert_eq!(nothing.unwrap().matched, 0);
    engine
        .redeliver_matching(&stranger, &of_one(), (i64::MAX, i64::MAX), false)
        .await
        .expect_err("it is not there for others");
}

on_both!(async what_cannot_be_owed_again_is_only_counted);
async fn what_cannot_be_owed_again_is_only_counted(database: Database) {
    let (shop, [one, two]) = two_that_failed(&database).await;
    shop.node.engine.delete_endpoint(&shop.caller, two).await.unwrap();
    let done = redeliver(&shop, &exhausted(), false).await;
    assert_eq!((done.matched, done.redelivered), (18, 9), "one endpoint is not there any more");
    assert_eq!((done.still_owed, done.gone), (0, 9));
    let pending =
        DeliveryFilter { statuses: vec!["pending".to_owned()], ..DeliveryFilter::default() };
    let done = redeliver(&shop, &pending, false).await;
    assert_eq!((done.matched, done.redelivered), (9, 0), "they are owed already");
    assert_eq!((done.still_owed, done.gone), (9, 0));
    shop.send().await;
    assert_eq!(shop.statuses(one).await, [("delivered", 9)].into());
}

on_both!(async what_blocks_is_tried_again_in_its_place);
async fn what_blocks_is_tried_again_in_its_place(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::Strict, &[])).await;
    shop.receiver.on("/hook", [Reply::status(500), Reply::ok()]);
    shop.run_jobs(2).await;
    shop.send().await;
    assert_eq!(shop.endpoint(endpoint).await.state, "blocked");
    let done = redeliver(&shop, &exhausted(), false).await;
    assert_eq!((done.matched, done.redelivered), (1, 1));
    shop.send().await;
    assert_eq!(shop.received("/hook")[1..], shop.feed_ids(&["job.*"]).await);
    assert!(shop.receiver.log().iter().all(|one| one.header("webhook-redelivery").is_none()));
}
