//! An order is left page by page: nothing goes past what has left before it.

use ringback::engine::{Next, Ordering};

use super::{claim, record, told};
use crate::support::database::{Database, on_both};
use crate::support::shop::{Shop, ordered};

on_both!(async what_is_left_of_a_strict_order_waits_for_its_new_place);
async fn what_is_left_of_a_strict_order_waits_for_its_new_place(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::Strict, &[60])).await;
    let first = shop.submit_jobs(1).await.remove(0);
    let job = shop.submit_jobs(1).await.remove(0);
    shop.node.work().await;
    shop.place().await;
    let owed = claim(&shop.node).await;
    assert_eq!(owed.len(), 1, "all else stands behind it");
    assert_eq!(owed[0].job_id, Some(first.id));

    // The first page of the change to another order: everything but what is under way, and but the
    // later events of one job.
    let sql = "UPDATE receivers SET ordering = 'per-job', settling = 1, version = version + 1; \
               UPDATE applications SET version = version + 1; \
               UPDATE live_deliveries SET phase = 3, \
               track = (SELECT d.subject_id FROM deliveries d WHERE d.id = live_deliveries.id), \
               rank = (SELECT d.sequence FROM deliveries d WHERE d.id = live_deliveries.id) \
               WHERE phase <> 1 AND NOT EXISTS (SELECT 1 FROM deliveries d JOIN jobs j \
               ON j.id = d.subject_id WHERE d.id = live_deliveries.id AND d.sequence > 1 \
               AND j.id = (SELECT MAX(id) FROM jobs))";
    database.connect().batch(sql).expect("SQL");
    assert!(record(&shop.node, &owed[0], Next::Delivered).await.held);
    let early = claim(&shop.node).await;
    let early: Vec<_> = early.iter().map(|owed| owed.event_type.as_str()).collect();
    assert!(early.is_empty(), "{early:?}");

    shop.node.engine.settle_backlogs().await.expect("the second page");
    shop.send().await;
    let told = told(&shop.receiver.log_of("/hook"));
    let of_job = told.into_iter().filter(|(id, _)| *id == job.id.to_string());
    let sequences: Vec<_> = of_job.map(|(_, sequence)| sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(shop.endpoint(endpoint).await.ordering, Ordering::PerJob);
}
