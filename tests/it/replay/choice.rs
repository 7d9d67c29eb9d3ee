//! Which events a replay owes again, and how they come.

use ringback::engine::{EndpointSettings, EngineError, Ordering, REPLAY_TYPE, ReplayOrder};
use ringback::lifecycle::Status;

use super::{all_of, between, count, failure, outcome, replay, stranger, submit, work_and_send};
use crate::support::database::{Database, on_both};
use crate::support::node::scripted_job;
use crate::support::receiver::Reply;
use crate::support::shop::{Shop, ids, ordered};

/// About jobs alone, with one try.
fn once() -> EndpointSettings {
    ordered(Ordering::None, &[])
}

on_both!(async what_was_delivered_comes_again_and_says_so);
async fn what_was_delivered_comes_again_and_says_so(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", once()).await;
    shop.register("/other", once()).await;
    shop.run_jobs(5).await;
    shop.send().await;
    let order = all_of(&shop, endpoint);
    assert_eq!(count(&shop, &order).await, 15);
    assert_eq!(shop.receiver.count(), 30, "counting owes nothing");

    let job = replay(&shop, &order).await;
    assert_eq!((job.state.status, job.state.progress), (Status::Success, 1.0));
    assert_eq!(outcome(&job), (15, 0));
    let log = shop.receiver.log_of("/hook");
    // The replay is a job as well, and tells of itself; those stand in no order.
    let (again, first): (Vec<_>, Vec<_>) =
        log.into_iter().partition(|one| one.header("webhook-redelivery").is_some());
    assert_eq!(again.len(), 15);
    for one in &again {
        assert_eq!(one.header("webhook-redelivery"), Some("replay"));
        assert_eq!(one.header("webhook-attempt"), Some("2"));
        let same = first.iter().find(|first| first.webhook_id() == one.signed().webhook_id());
        assert_eq!(same.expect("the same id").body, one.body);
    }
    let mut different = ids(&again);
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 15);
    let others = shop.receiver.log_of("/other");
    assert!(others.iter().all(|one| one.header("webhook-redelivery").is_none()));
}

on_both!(async only_what_failed_when_that_is_asked_for);
async fn only_what_failed_when_that_is_asked_for(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::None, &[600])).await;
    let jobs = shop.submit_jobs(3).await;
    let (lost, late) = (jobs[0].id.to_string(), jobs[1].id.to_string());
    shop.receiver.on_with("/hook", move |received| {
        let body = received.json();
        let about = |job: &str| body["data"]["id"] == job && body["type"] == "job.started";
        match (about(&lost), about(&late)) {
            (true, _) => Reply::status(404).header("webhook-delivery", "abort-message"),
            (_, true) => Reply::status(503),
            _ => Reply::ok(),
        }
    });
    shop.node.work().await;
    shop.send().await;
    let states = [("delivered", 7), ("exhausted", 1), ("pending", 1)];
    assert_eq!(shop.statuses(endpoint).await, states.into());
    shop.receiver.on("/hook", [Reply::ok()]);
    let failed = ReplayOrder { only_failed: true, ..all_of(&shop, endpoint) };
    assert_eq!(count(&shop, &failed).await, 1);
    assert_eq!(count(&shop, &all_of(&shop, endpoint)).await, 8, "but for what is still owed");

    assert_eq!(outcome(&replay(&shop, &failed).await), (1, 8));
    let again = shop.delivery_of(endpoint, jobs[0].id, "job.started").await;
    assert_eq!((again.status, again.manner, again.attempts), ("delivered", "replay", 2));
    let waits = shop.delivery_of(endpoint, jobs[1].id, "job.started").await;
    assert_eq!((waits.status, waits.manner, waits.attempts), ("pending", "event", 1));
    assert_eq!(count(&shop, &failed).await, 0);
}

on_both!(async a_time_and_patterns_choose);
async fn a_time_and_patterns_choose(database: Database) {
    let shop = Shop::open(&database).await;
    let mut settings = once();
    settings.events = Some(vec!["job.created".to_owned(), "job.succeeded".to_owned()]);
    settings.types = Some(vec!["urn:job:test.scripted".to_owned()]);
    let endpoint = shop.register("/hook", settings).await;
    let mut times = Vec::new();
    for _ in 0..4 {
        times.push(shop.node.engine.now());
        shop.run_jobs(2).await;
        let mut other = scripted_job();
        other.job_type = "urn:job:noop".to_owned();
        shop.node.submit(&shop.caller, other).await;
        shop.node.work().await;
        shop.send_after(1_000).await;
    }
    let now = shop.node.engine.now();
    let named = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
    let choices = [
        // The beginning counts, the end does not.
        (between(endpoint, times[1], times[3]), 8),
        (between(endpoint, times[1], times[3].plus_millis(1)), 12),
        (between(endpoint, times[1].plus_millis(1), times[3]), 4),
        (between(endpoint, times[0], now), 16),
        (between(endpoint, now, now.plus_millis(1)), 0),
        (
            ReplayOrder {
                events: named(&["group.*", "job.succeeded"]),
                ..between(endpoint, times[0], now)
            },
            8,
        ),
        (ReplayOrder { events: named(&["job.failed"]), ..between(endpoint, times[0], now) }, 0),
        (ReplayOrder { events: named(&["*"]), ..between(endpoint, times[0], times[1]) }, 4),
    ];
    for (order, expected) in choices {
        assert_eq!(count(&shop, &order).await, expected, "{order:?}");
        let before = shop.receiver.count();
        assert_eq!(outcome(&replay(&shop, &order).await).0, expected, "{order:?}");
        let came = shop.receiver.log().split_off(before);
        assert_eq!(i64::try_from(came.len()).unwrap(), expected);
        for one in came {
            let body = one.json();
            assert!(["job.created", "job.succeeded"].contains(&body["type"].as_str().unwrap()));
            assert_eq!(body["data"]["type"], "urn:job:test.scripted", "what the endpoint wants");
        }
    }
}

on_both!(async an_endpoint_of_others_is_not_there);
async fn an_endpoint_of_others_is_not_there(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", once()).await;
    shop.run_jobs(1).await;
    shop.send().await;
    let (stranger, order) = (stranger(&shop).await, all_of(&shop, endpoint));
    let engine = &shop.node.engine;
    let refused = engine.submit_replay(&stranger, order.clone(), None, "r").await.map(|_| ());
    assert!(matches!(refused, Err(EngineError::NotFound { .. })), "{refused:?}");
    let refused = engine.count_replay(&stranger, &order).await;
    assert!(matches!(refused, Err(EngineError::NotFound { .. })), "{refused:?}");

    // Submitted as any other job, it finds nothing.
    let mut job = scripted_job();
    job.job_type = REPLAY_TYPE.to_owned();
    job.specification = serde_json::to_value(&order).unwrap();
    let job = shop.node.submit(&stranger, job).await;
    work_and_send(&shop).await;
    let job = shop.node.job(&stranger, job.id).await;
    assert_eq!((job.state.status, failure(&job)), (Status::Error, "endpoint_not_found"));
    assert_eq!(shop.receiver.count(), 3);

    let job = submit(&shop, &order).await;
    shop.node.engine.delete_endpoint(&shop.caller, endpoint).await.unwrap();
    work_and_send(&shop).await;
    assert_eq!(failure(&shop.node.job(&shop.caller, job.id).await), "endpoint_not_found");
}
