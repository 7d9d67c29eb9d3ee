//! Backlogs that are discarded: what is left goes on, and what was not wanted any more is in
//! nobody's way.

use std::time::Duration;

use ringback::engine::{Backlog, Next, Ordering, delivery_status};

use super::switches::{disable, enable};
use super::{claim, record, refuse, tried_once};
use crate::support::database::{Database, on_both};
use crate::support::shop::Shop;

on_both!(async what_is_left_goes_on_when_the_backlog_is_discarded);
async fn what_is_left_goes_on_when_the_backlog_is_discarded(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::Strict)).await;
    let job = shop.submit_jobs(1).await.remove(0);
    refuse(&shop, "/hook", job.id, "job.created", 500);
    shop.node.work().await;
    shop.send().await;
    assert_eq!(shop.endpoint(endpoint).await.state, "blocked");
    disable(&shop, endpoint).await;
    shop.run_jobs(2).await;
    shop.wait(Duration::from_secs(1)).await;
    enable(&shop, endpoint, Backlog::Discard).await;

    let view = shop.endpoint(endpoint).await;
    assert_eq!((view.state, view.blocked_by), ("enabled", None));
    assert_eq!(shop.statuses(endpoint).await, [("cancelled", 9)].into());
    let reasons = shop.owed_to(endpoint).await;
    assert!(reasons.iter().all(|one| one.reason.as_deref() == Some("discarded")));
    shop.run_jobs(1).await;
    shop.send().await;
    assert_eq!(shop.received("/hook")[1..], shop.feed_ids(&["job.*"]).await[9..]);
}

/// The one that was being sent when the backlog was discarded is over when it comes back; what has
/// come meanwhile stands behind it and must not wait for a sweep.
async fn discarded_while_under_way(database: Database, ordering: Ordering) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(ordering)).await;
    let job = shop.submit_jobs(1).await.remove(0);
    shop.place().await;
    let owed = claim(&shop.node).await;
    assert_eq!(owed.len(), 1);
    disable(&shop, endpoint).await;
    shop.wait(Duration::from_secs(1)).await;
    enable(&shop, endpoint, Backlog::Discard).await;
    shop.node.work().await;
    shop.send().await;
    assert_eq!(shop.receiver.count(), 0, "{:?}", job.id);

    let failure = "http_503".to_owned();
    let next = Next::Retry { due_at: shop.node.engine.now(), failure };
    record(&shop.node, &owed[0], next).await;
    // The first look drops it, the second finds what is behind it.
    shop.send().await;
    shop.send().await;
    assert_eq!(shop.received("/hook"), shop.feed_ids(&["job.*"]).await[1..]);
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 2), ("cancelled", 1)].into());
}

on_both!(async what_is_not_wanted_any_more_blocks_nothing);
async fn what_is_not_wanted_any_more_blocks_nothing(database: Database) {
    let shop = Shop::open(&database).await;
    let discarding = shop.register("/discarding", tried_once(Ordering::Strict)).await;
    let deleted = shop.register("/deleted", tried_once(Ordering::Strict)).await;
    shop.run_jobs(1).await;
    let owed = claim(&shop.node).await;
    assert_eq!(owed.len(), 2, "both are just being sent");
    disable(&shop, discarding).await;
    shop.wait(Duration::from_secs(1)).await;
    enable(&shop, discarding, Backlog::Discard).await;
    shop.node.engine.delete_endpoint(&shop.caller, deleted).await.unwrap();
    for owed in &owed {
        let next = Next::End { status: delivery_status::EXHAUSTED, reason: "http_500".to_owned() };
        record(&shop.node, owed, next).await;
    }
    assert_eq!(shop.endpoint(discarding).await.state, "enabled");
    shop.send().await;
    assert_eq!(shop.statuses(discarding).await, [("exhausted", 1), ("cancelled", 2)].into());
    assert_eq!(shop.node.engine.delivery_depth().await.unwrap().owed, 0);
}

on_both!(async a_strict_endpoint_goes_on_behind_what_was_discarded_under_way);
async fn a_strict_endpoint_goes_on_behind_what_was_discarded_under_way(database: Database) {
    discarded_while_under_way(database, Ordering::Strict).await;
}

on_both!(async a_job_goes_on_behind_what_was_discarded_under_way);
async fn a_job_goes_on_behind_what_was_discarded_under_way(database: Database) {
    discarded_while_under_way(database, Ordering::PerJob).await;
}
