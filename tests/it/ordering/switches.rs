//! Endpoints with an order that are switched off and on: what was held goes on in its order.

use ringback::engine::{Backlog, Ordering};
use uuid::Uuid;

use super::{accept, refuse, told, tried_once};
use crate::support::database::{Database, on_both};
use crate::support::shop::{Shop, ordered};

pub async fn disable(shop: &Shop, endpoint: Uuid) {
    let view = shop.node.engine.disable_endpoint(&shop.caller, endpoint).await.unwrap();
    assert_eq!(view.state, "disabled");
}

pub async fn enable(shop: &Shop, endpoint: Uuid, backlog: Backlog) {
    shop.node.engine.enable_endpoint(&shop.caller, endpoint, backlog).await.unwrap();
}

on_both!(async a_strict_endpoint_goes_on_in_order_after_a_pause);
async fn a_strict_endpoint_goes_on_in_order_after_a_pause(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::Strict, &[60])).await;
    let jobs = shop.submit_jobs(3).await;
    refuse(&shop, "/hook", jobs[1].id, "job.created", 503);
    shop.node.work().await;
    shop.send().await;
    let before = shop.receiver.count();
    accept(&shop, "/hook");

    disable(&shop, endpoint).await;
    shop.run_jobs(2).await;
    shop.send_after(120).await;
    assert_eq!(shop.receiver.count(), before, "nothing is sent");
    let held = 15 - (before - 1);
    assert_eq!(shop.statuses(endpoint).await, [("delivered", before - 1), ("held", held)].into());
    assert_eq!(shop.stats(endpoint).await.backlog.held, i64::try_from(held).unwrap());

    enable(&shop, endpoint, Backlog::Resume).await;
    shop.run_jobs(1).await;
    shop.send().await;
    let feed = shop.feed_ids(&["job.*"]).await;
    let received = shop.received("/hook");
    assert_eq!(received[..before], feed[..before]);
    assert_eq!(received[before..], feed[before - 1..], "from the one that had failed");
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 18)].into());
}

on_both!(async a_per_job_endpoint_goes_on_in_order_after_a_pause);
async fn a_per_job_endpoint_goes_on_in_order_after_a_pause(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::PerJob)).await;
    let jobs = shop.submit_jobs(5).await;
    shop.send().await;
    disable(&shop, endpoint).await;
    shop.node.work().await;
    shop.send().await;
    enable(&shop, endpoint, Backlog::Resume).await;
    disable(&shop, endpoint).await;
    enable(&shop, endpoint, Backlog::Resume).await;
    shop.send().await;
    let log = told(&shop.receiver.log_of("/hook"));
    for job in jobs {
        let mine = log.iter().filter(|(id, _)| *id == job.id.to_string());
        assert_eq!(mine.map(|(_, sequence)| *sequence).collect::<Vec<_>>(), [1, 2, 3]);
    }
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 15)].into());
}

on_both!(async a_blocked_endpoint_stays_blocked_over_a_pause);
async fn a_blocked_endpoint_stays_blocked_over_a_pause(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::Strict)).await;
    let job = shop.submit_jobs(1).await.remove(0);
    refuse(&shop, "/hook", job.id, "job.created", 500);
    shop.node.work().await;
    shop.send().await;
    let blocker = shop.delivery_of(endpoint, job.id, "job.created").await.id;
    disable(&shop, endpoint).await;
    enable(&shop, endpoint, Backlog::Resume).await;
    shop.send().await;
    assert_eq!(shop.endpoint(endpoint).await.blocked_by, Some(blocker));
    assert_eq!(shop.receiver.count(), 1);

    // Tried again while it is off, it is held like the others, and first when it is on.
    accept(&shop, "/hook");
    disable(&shop, endpoint).await;
    shop.node.engine.redeliver(&shop.caller, blocker).await.unwrap();
    shop.send().await;
    assert_eq!(shop.receiver.count(), 1);
    assert_eq!(shop.statuses(endpoint).await, [("held", 3)].into());
    enable(&shop, endpoint, Backlog::Resume).await;
    shop.send().await;
    assert_eq!(shop.received("/hook")[1..], shop.feed_ids(&["job.*"]).await);
}

on_both!(async what_its_receiver_has_switched_off_goes_on_with_the_same_event);
async fn what_its_receiver_has_switched_off_goes_on_with_the_same_event(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::Strict)).await;
    let jobs = shop.submit_jobs(2).await;
    refuse(&shop, "/hook", jobs[1].id, "job.created", 410);
    shop.node.work().await;
    shop.send().await;
    let view = shop.endpoint(endpoint).await;
    assert_eq!((view.state, view.disabled_reason.as_deref()), ("disabled", Some("gone")));
    shop.node.engine.settle_backlogs().await.unwrap();
    let sent = shop.receiver.count();
    assert_eq!(shop.statuses(endpoint).await, [("delivered", sent - 1), ("held", 7 - sent)].into());

    accept(&shop, "/hook");
    enable(&shop, endpoint, Backlog::Resume).await;
    shop.send().await;
    let (feed, received) = (shop.feed_ids(&["job.*"]).await, shop.received("/hook"));
    assert_eq!(received[..sent], feed[..sent]);
    assert_eq!(received[sent..], feed[sent - 1..], "it comes again, and all behind it");
}
