//! `strict`: everything in the order of the feed, and nothing behind what was not received.

use ringback::engine::{EngineError, Next, Ordering};

use super::{accept, claim, record, refuse, tried_once};
use crate::support::database::{Database, on_both};
use crate::support::node::scripted_job;
use crate::support::shop::{Shop, ids, ordered};

on_both!(async all_jobs_are_told_in_the_order_of_the_feed_one_at_a_time);
async fn all_jobs_are_told_in_the_order_of_the_feed_one_at_a_time(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::Strict)).await;
    shop.run_jobs(10).await;
    let owed = claim(&shop.node).await;
    assert_eq!(owed.len(), 1, "one at a time");
    assert!(claim(&shop.node).await.is_empty());
    record(&shop.node, &owed[0], Next::Delivered).await;
    shop.send().await;

    let feed = shop.feed_ids(&["job.*"]).await;
    assert_eq!(feed.len(), 30);
    assert_eq!(owed[0].event_id.to_string(), feed[0]);
    assert_eq!(shop.received("/hook"), feed[1..]);
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 30)].into());
    assert!(shop.receiver.log().iter().all(|one| one.header("webhook-redelivery").is_none()));
}

on_both!(async whoever_is_first_is_found_among_many);
async fn whoever_is_first_is_found_among_many(database: Database) {
    let shop = Shop::open(&database).await;
    shop.register("/hook", tried_once(Ordering::Strict)).await;
    // On Postgres several writers draw keys, so the order of keys is not that of the feed.
    for _ in 0..4 {
        let jobs = (0..300).map(|_| scripted_job()).collect();
        shop.node.engine.submit_batch(&shop.caller, jobs, None, None, "r").await.unwrap();
    }
    shop.place().await;
    let mut owed = claim(&shop.node).await;
    // One claim looks through a part of them.
    owed.extend(claim(&shop.node).await);
    assert_eq!(owed.len(), 1);
    let feed = shop.feed().await;
    assert_eq!(feed.len(), 1_200);
    assert_eq!(owed[0].event_id, feed[0].event.id);
    record(&shop.node, &owed[0], Next::Delivered).await;
    assert_eq!(claim(&shop.node).await[0].event_id, feed[1].event.id);
}

/// Three jobs of which the first event of the second is not received.
struct Blocked {
    shop: Shop,
    endpoint: uuid::Uuid,
    blocker: uuid::Uuid,
    /// The order of the feed.
    feed: Vec<String>,
    /// Place of the one that was not received.
    place: usize,
}

async fn blocked(database: &Database, retries: &[u64]) -> Blocked {
    let shop = Shop::open(database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::Strict, retries)).await;
    let jobs = shop.submit_jobs(3).await;
    refuse(&shop, "/hook", jobs[1].id, "job.started", 500);
    shop.node.work().await;
    shop.send().await;
    for wait in retries {
        shop.send_after(*wait).await;
    }
    let blocker = shop.delivery_of(endpoint, jobs[1].id, "job.started").await;
    let feed = shop.feed_ids(&["job.*"]).await;
    let place = feed.iter().position(|id| *id == blocker.webhook_id.to_string()).unwrap();
    Blocked { shop, endpoint, blocker: blocker.id, feed, place }
}

on_both!(async what_is_exhausted_holds_the_rest_up_and_shows);
async fn what_is_exhausted_holds_the_rest_up_and_shows(database: Database) {
    let Blocked { shop, endpoint, blocker, feed, place } = blocked(&database, &[5]).await;
    let behind = feed.len() - place - 1;
    let received = shop.received("/hook");
    assert_eq!(received[..=place], feed[..=place], "in order up to it");
    assert_eq!(received[place..], [feed[place].as_str(); 2], "tried twice, and nothing behind it");

    let view = shop.endpoint(endpoint).await;
    assert_eq!((view.state, view.enabled, view.blocked_by), ("blocked", true, Some(blocker)));
    let statuses = shop.statuses(endpoint).await;
    assert_eq!(statuses, [("delivered", place), ("exhausted", 1), ("held", behind)].into());
    let head = shop.delivery(blocker).await;
    assert!(head.blocking && head.attempts == 2 && head.date_completed.is_none());
    let stats = shop.stats(endpoint).await;
    assert_eq!(stats.state, "blocked");
    let held = i64::try_from(behind).unwrap() + 1;
    assert_eq!((stats.backlog.held, stats.backlog.pending, stats.backlog.queued), (held, 0, 0));
    let listed = shop.node.engine.list_endpoints(&shop.caller, (i64::MAX, i64::MAX), 10).await;
    assert_eq!(listed.unwrap().0[0].blocked_by, Some(blocker));

    // It stays so, whatever else comes and however long it takes.
    shop.run_jobs(1).await;
    shop.send_after(24 * 60 * 60).await;
    assert_eq!(shop.received("/hook").len(), place + 2);
    assert_eq!(shop.statuses(endpoint).await["held"], behind + 3);
}

on_both!(async skipping_goes_on_behind_it);
async fn skipping_goes_on_behind_it(database: Database) {
    let Blocked { shop, endpoint, blocker, feed, place } = blocked(&database, &[]).await;
    let waiting = shop.owed_to(endpoint).await;
    let waiting = waiting.iter().find(|one| one.status == "held").unwrap().id;
    let refused = shop.node.engine.skip_delivery(&shop.caller, waiting).await;
    assert!(matches!(refused, Err(EngineError::NotBlocking(id)) if id == waiting), "{refused:?}");

    shop.node.engine.skip_delivery(&shop.caller, blocker).await.unwrap();
    let view = shop.endpoint(endpoint).await;
    assert_eq!((view.state, view.blocked_by), ("enabled", None));
    shop.send().await;
    assert_eq!(shop.received("/hook"), feed);
    let skipped = shop.delivery(blocker).await;
    assert_eq!((skipped.status, skipped.reason.as_deref()), ("exhausted", Some("skipped")));
    let delivered = feed.len() - 1;
    assert_eq!(shop.statuses(endpoint).await, [("delivered", delivered), ("exhausted", 1)].into());
    assert!(place > 0, "something came before it");
    let again = shop.node.engine.skip_delivery(&shop.caller, blocker).await;
    assert!(matches!(again, Err(EngineError::NotBlocking(_))), "{again:?}");
}

on_both!(async redelivering_tries_it_again_in_its_place);
async fn redelivering_tries_it_again_in_its_place(database: Database) {
    let Blocked { shop, endpoint, blocker, feed, place } = blocked(&database, &[7]).await;
    shop.receiver.on("/hook", [crate::support::receiver::Reply::status(500)]);
    shop.node.engine.redeliver(&shop.caller, blocker).await.unwrap();
    let view = shop.endpoint(endpoint).await;
    assert_eq!((view.state, view.blocked_by), ("enabled", None));
    let again = shop.node.engine.redeliver(&shop.caller, blocker).await;
    assert!(matches!(again, Err(EngineError::DeliveryLive(_))), "it is owed already: {again:?}");

    // Its schedule starts anew, and at its end it is in the way again.
    shop.send().await;
    assert_eq!(shop.received("/hook").len(), place + 3);
    assert_eq!(shop.endpoint(endpoint).await.state, "enabled", "one more try is left");
    shop.send_after(7).await;
    assert_eq!(shop.received("/hook").len(), place + 4);
    assert_eq!(shop.endpoint(endpoint).await.blocked_by, Some(blocker));

    accept(&shop, "/hook");
    shop.node.engine.redeliver(&shop.caller, blocker).await.unwrap();
    shop.send().await;
    let log = shop.receiver.log_of("/hook");
    assert_eq!(ids(&log[place..place + 5]), [feed[place].as_str(); 5]);
    let attempts: Vec<_> =
        log[place..place + 5].iter().map(|one| one.header("webhook-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3", "4", "5"].map(Some));
    assert!(log.iter().all(|one| one.header("webhook-redelivery").is_none()), "it has its place");
    assert_eq!(ids(&log[place + 5..]), feed[place + 1..]);
    assert_eq!(shop.statuses(endpoint).await, [("delivered", feed.len())].into());
}

on_both!(async retries_of_the_first_keep_the_others_behind_it);
async fn retries_of_the_first_keep_the_others_behind_it(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::Strict, &[10, 20, 30])).await;
    let jobs = shop.submit_jobs(2).await;
    refuse(&shop, "/hook", jobs[0].id, "job.created", 429);
    shop.node.work().await;
    shop.send().await;
    for (tries, wait) in [(1, 10), (2, 20), (3, 30)] {
        assert_eq!(shop.receiver.count(), tries);
        let backlog = shop.stats(endpoint).await.backlog;
        assert_eq!((backlog.pending, backlog.queued, backlog.held), (1, 5, 0));
        shop.run_jobs(0).await;
        shop.send_after(wait - 1).await;
        assert_eq!(shop.receiver.count(), tries, "not before its time");
        if tries == 3 {
            accept(&shop, "/hook");
        }
        shop.send_after(1).await;
    }
    let feed = shop.feed_ids(&["job.*"]).await;
    assert_eq!(shop.received("/hook")[3..], feed);
    assert_eq!(shop.statuses(endpoint).await, [("delivered", 6)].into());
}
