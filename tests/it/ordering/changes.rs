//! The order itself changes while something is owed: nothing is lost, and nothing stays stuck.

use ringback::engine::{EndpointPatch, NewEndpoint, Ordering};
use uuid::Uuid;

use super::{accept, refuse, told, tried_once};
use crate::support::database::{Backend, Database, block_on, on_both};
use crate::support::receiver::Reply;
use crate::support::shop::{Shop, address, ordered};

async fn change(shop: &Shop, endpoint: Uuid, ordering: Ordering) {
    let patch = EndpointPatch { ordering: Some(ordering), ..EndpointPatch::default() };
    let changed = shop.node.engine.change_endpoint(&shop.caller, endpoint, patch).await.unwrap();
    assert_eq!(changed.endpoint.ordering, ordering);
}

on_both!(async no_change_of_order_loses_anything);
async fn no_change_of_order_loses_anything(database: Database) {
    let shop = Shop::open(&database).await;
    for from in Ordering::ALL {
        for to in Ordering::ALL {
            let path = format!("/{}/{}", from.as_str(), to.as_str());
            let endpoint = shop.register(&path, ordered(from, &[60])).await;
            // One waits for its retry, others behind it, some have only just come.
            let jobs = shop.submit_jobs(3).await;
            refuse(&shop, &path, jobs[1].id, "job.created", 503);
            shop.node.work().await;
            shop.send().await;
            shop.run_jobs(1).await;
            shop.submit_jobs(1).await;
            change(&shop, endpoint, to).await;
            shop.node.work().await;
            accept(&shop, &path);
            shop.send_after(60).await;
            let statuses = shop.statuses(endpoint).await;
            assert_eq!(statuses, [("delivered", 15)].into(), "from {from:?} to {to:?}");
            assert_eq!(shop.receiver.log_of(&path).len(), 16, "nothing twice but the retry");
            assert_eq!(shop.endpoint(endpoint).await.state, "enabled");
            shop.node.engine.delete_endpoint(&shop.caller, endpoint).await.unwrap();
        }
    }
}

on_both!(async a_blocked_endpoint_goes_on_when_it_is_strict_no_more);
async fn a_blocked_endpoint_goes_on_when_it_is_strict_no_more(database: Database) {
    let shop = Shop::open(&database).await;
    for to in [Ordering::None, Ordering::PerJob] {
        let path = format!("/{}", to.as_str());
        let endpoint = shop.register(&path, tried_once(Ordering::Strict)).await;
        let jobs = shop.submit_jobs(2).await;
        refuse(&shop, &path, jobs[0].id, "job.created", 500);
        shop.node.work().await;
        shop.send().await;
        assert_eq!(shop.endpoint(endpoint).await.state, "blocked");
        change(&shop, endpoint, to).await;
        let view = shop.endpoint(endpoint).await;
        assert_eq!((view.state, view.blocked_by), ("enabled", None), "{to:?}");
        shop.send().await;
        let statuses = shop.statuses(endpoint).await;
        assert_eq!(statuses, [("delivered", 5), ("exhausted", 1)].into(), "{to:?}");
        shop.node.engine.delete_endpoint(&shop.caller, endpoint).await.unwrap();
    }
}

#[test]
fn a_blocker_that_is_just_looked_at_is_let_go_by_the_next_sweep() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let shop = Shop::open(&database).await;
        let changed = shop.register("/changed", tried_once(Ordering::Strict)).await;
        let deleted = shop.register("/deleted", tried_once(Ordering::Strict)).await;
        shop.receiver.otherwise([Reply::status(500), Reply::status(500), Reply::ok()]);
        shop.run_jobs(2).await;
        shop.send().await;
        // Whoever looks for the place of a new delivery holds the one before it.
        let mut looking = database.connect();
        looking.begin().expect("a transaction");
        looking.batch("SELECT id FROM live_deliveries WHERE phase = 5 FOR UPDATE").expect("SQL");
        change(&shop, changed, Ordering::PerJob).await;
        shop.node.engine.delete_endpoint(&shop.caller, deleted).await.unwrap();
        looking.rollback();

        shop.node.engine.settle_backlogs().await.unwrap();
        assert_eq!(shop.endpoint(changed).await.state, "enabled");
        shop.send().await;
        let statuses = shop.statuses(changed).await;
        assert_eq!(statuses, [("delivered", 5), ("exhausted", 1)].into());
        let live = shop.node.engine.delivery_depth().await.unwrap().owed;
        assert_eq!(live, 0, "nothing is left of the deleted one");
        assert_eq!(shop.node.engine.settle_backlogs().await.unwrap(), 0, "and it comes to an end");
    });
}

on_both!(async nothing_blocks_an_endpoint_that_is_strict_no_more);
/// What came while it was strict may still be exhausted afterwards.
async fn nothing_blocks_an_endpoint_that_is_strict_no_more(database: Database) {
    let shop = Shop::open(&database).await;
    for to in [Ordering::None, Ordering::PerJob] {
        let path = format!("/{}", to.as_str());
        let endpoint = shop.register(&path, ordered(Ordering::Strict, &[60])).await;
        shop.run_jobs(2).await;
        shop.receiver.on(&path, [Reply::status(500)]);
        shop.send().await;
        assert_eq!(shop.receiver.log_of(&path).len(), 1);
        change(&shop, endpoint, to).await;
        for _ in 0..20 {
            // The lane may be closed for a while after so many failures.
            shop.send_after(15 * 60).await;
        }
        let statuses = shop.statuses(endpoint).await;
        assert_eq!(statuses, [("exhausted", 6)].into(), "{to:?}");
        let view = shop.endpoint(endpoint).await;
        assert_eq!((view.state, view.blocked_by), ("enabled", None), "{to:?}");
        shop.node.engine.delete_endpoint(&shop.caller, endpoint).await.unwrap();
    }
}

/// Numbers of the events of a job that came on a path, in the order of arrival.
fn told_of(shop: &Shop, path: &str, job: Uuid) -> Vec<i64> {
    let told = told(&shop.receiver.log_of(path));
    let mine = told.into_iter().filter(|(id, _)| *id == job.to_string());
    mine.map(|(_, sequence)| sequence).collect()
}

const LONG: u64 = 60;

on_both!(async a_job_is_told_in_order_over_a_change_from_strict_to_per_job);
async fn a_job_is_told_in_order_over_a_change_from_strict_to_per_job(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::Strict, &[LONG])).await;
    let jobs = shop.submit_jobs(2).await;
    let (waiting, other) = (jobs[0].id, jobs[1].id);
    refuse(&shop, "/hook", waiting, "job.created", 503);
    shop.send().await;
    assert_eq!(shop.receiver.count(), 1, "the other one stands behind it");
    change(&shop, endpoint, Ordering::PerJob).await;
    shop.node.work().await;
    shop.send().await;
    assert_eq!(told_of(&shop, "/hook", other), [1, 2, 3], "it need not wait any more");
    assert_eq!(told_of(&shop, "/hook", waiting), [1]);
    accept(&shop, "/hook");
    shop.send_after(LONG).await;
    assert_eq!(told_of(&shop, "/hook", waiting), [1, 1, 2, 3]);
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 6)].into());
}

on_both!(async a_job_is_told_in_order_over_a_change_from_per_job_to_strict);
async fn a_job_is_told_in_order_over_a_change_from_per_job_to_strict(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::PerJob, &[LONG])).await;
    let job = shop.submit_jobs(1).await.remove(0).id;
    refuse(&shop, "/hook", job, "job.created", 503);
    shop.send().await;
    change(&shop, endpoint, Ordering::Strict).await;
    shop.node.work().await;
    shop.run_jobs(1).await;
    shop.send().await;
    assert_eq!(told_of(&shop, "/hook", job), [1]);
    assert_eq!(shop.receiver.count(), 1, "all else comes behind what was owed before");
    accept(&shop, "/hook");
    shop.send_after(LONG).await;
    assert_eq!(told_of(&shop, "/hook", job), [1, 1, 2, 3]);
    assert_eq!(shop.received("/hook")[1..], shop.feed_ids(&["job.*"]).await);
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 6)].into());
}

on_both!(async a_change_that_was_cut_off_lets_nothing_go_past);
async fn a_change_that_was_cut_off_lets_nothing_go_past(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::Strict, &[LONG])).await;
    let jobs = shop.submit_jobs(2).await;
    refuse(&shop, "/hook", jobs[0].id, "job.created", 503);
    shop.send().await;
    // It dies right after the commit that changes the order.
    let sql = "UPDATE receivers SET ordering = 'per-job', settling = 1, version = version + 1; \
               UPDATE applications SET version = version + 1";
    database.connect().batch(sql).expect("SQL");
    shop.node.work().await;
    shop.send().await;
    assert_eq!(shop.receiver.count(), 1, "the later ones of a job do not go before its first");
    shop.node.engine.settle_backlogs().await.unwrap();
    shop.send().await;
    assert_eq!(told_of(&shop, "/hook", jobs[1].id), [1, 2, 3]);
    assert_eq!(shop.endpoint(endpoint).await.ordering, Ordering::PerJob);
}

on_both!(async behind_one_that_is_skipped_another_may_block);
/// As it is when several were under way while nothing was strict.
async fn behind_one_that_is_skipped_another_may_block(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::Strict)).await;
    let jobs = shop.submit_jobs(3).await;
    shop.receiver.on("/hook", [Reply::status(500), Reply::ok()]);
    shop.send().await;
    let first = shop.endpoint(endpoint).await.blocked_by.expect("one blocks");
    let second = shop.delivery_of(endpoint, jobs[1].id, "job.created").await;
    let sql = "UPDATE live_deliveries SET phase = 5, previous_failure = 'http_500' WHERE rank = \
               (SELECT MIN(rank) FROM live_deliveries WHERE phase <> 5)";
    database.connect().batch(sql).expect("SQL");
    assert!(shop.delivery(second.id).await.blocking);
    shop.node.engine.skip_delivery(&shop.caller, first).await.unwrap();
    let view = shop.endpoint(endpoint).await;
    assert_eq!((view.state, view.blocked_by), ("blocked", Some(second.id)));
    shop.node.engine.redeliver(&shop.caller, second.id).await.unwrap();
    let view = shop.endpoint(endpoint).await;
    assert_eq!((view.state, view.blocked_by), ("enabled", None));
    shop.send().await;
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 2), ("exhausted", 1)].into());
}

on_both!(async what_was_refused_stays_so_whether_it_blocks_or_not);
async fn what_was_refused_stays_so_whether_it_blocks_or_not(database: Database) {
    let shop = Shop::open(&database).await;
    let new = NewEndpoint {
        address: address("http://169.254.169.254/latest"),
        settings: tried_once(Ordering::Strict),
        enabled: true,
    };
    let registered = shop.node.engine.create_endpoint(&shop.caller, new).await.unwrap();
    let endpoint = registered.endpoint.id;
    let job = shop.submit_jobs(1).await.remove(0);
    shop.send().await;
    let told = async || {
        let delivery = shop.delivery_of(endpoint, job.id, "job.created").await;
        (delivery.status, delivery.reason, delivery.blocking)
    };
    let reason = Some("address_forbidden".to_owned());
    assert_eq!(told().await, ("refused", reason.clone(), true));
    change(&shop, endpoint, Ordering::None).await;
    assert_eq!(told().await, ("refused", reason, false));
}
