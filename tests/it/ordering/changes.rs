//! The order itself changes while something is owed: nothing is lost, and nothing stays stuck.

use ringback::engine::{EndpointPatch, Ordering};
use uuid::Uuid;

use super::{accept, refuse, tried_once};
use crate::support::database::{Backend, Database, block_on, on_both};
use crate::support::receiver::Reply;
use crate::support::shop::{Shop, ordered};

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
