//! What an application sees of its deliveries, and sending one again.

use std::collections::HashSet;

use ringback::engine::{DeliveryFilter, EngineError};
use uuid::Uuid;

use super::{World, outcomes};
use crate::support::database::{Database, on_both};
use crate::support::node::{callback, in_statuses, of_job};
use crate::support::receiver::Reply;

on_both!(async an_ended_delivery_is_owed_again_on_request);
async fn an_ended_delivery_is_owed_again_on_request(database: Database) {
    let world = World::start(&database).await;
    world.receiver.on("/hook", [Reply::status(503), Reply::ok(), Reply::status(500), Reply::ok()]);
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    let engine = &world.node.engine;
    let id = world.delivery_of(job.id).await.id;
    let live = engine.redeliver(&world.caller, id).await;
    assert!(matches!(live, Err(EngineError::DeliveryLive(_))), "it has not been sent yet");
    world.node.send().await;
    let live = engine.redeliver(&world.caller, id).await;
    assert!(matches!(live, Err(EngineError::DeliveryLive(_))), "it waits for its next try");
    world.node.clock.shift_millis(5_000);
    world.node.send().await;
    assert_eq!(world.delivery(id).await.status, "delivered");

    let (stranger, _) = world.node.application("other").await;
    let refused = engine.redeliver(&stranger, id).await;
    assert!(matches!(refused, Err(EngineError::NotFound { .. })));
    engine.redeliver(&world.caller, id).await.unwrap();
    let owed = world.delivery(id).await;
    assert_eq!((owed.status, owed.attempts, owed.reason.as_deref()), ("pending", 2, None));
    assert_eq!((owed.next_attempt_at, owed.date_completed), (Some(engine.now()), None));
    world.node.send().await;
    let failed = world.delivery(id).await;
    assert_eq!((failed.status, failed.attempts), ("pending", 3));
    let due = engine.now().plus_millis(5_000);
    assert_eq!(failed.next_attempt_at, Some(due), "the schedule starts again");
    world.node.clock.shift_millis(5_000);
    world.node.send().await;
    let ended = world.delivery(id).await;
    assert_eq!(ended.status, "delivered");
    let expected = [(1, "failed"), (2, "delivered"), (3, "failed"), (4, "delivered")];
    assert_eq!(outcomes(&ended), expected);
    let log = world.receiver.log();
    assert_eq!(log.len(), 4);
    for request in log {
        assert_eq!(request.signed().webhook_id(), ended.webhook_id.to_string());
    }
}

on_both!(async deliveries_are_listed_by_job_status_and_page);
async fn deliveries_are_listed_by_job_status_and_page(database: Database) {
    let world = World::start(&database).await;
    world.receiver.on("/bad", [Reply::status(500)]);
    let mut ids = Vec::new();
    for number in 0..12 {
        let url = match number % 3 {
            0 => world.receiver.url("/bad"),
            1 => "http://10.0.0.1/hook".to_owned(),
            _ => world.receiver.url("/good"),
        };
        let job = world.submit(callback(&url)).await;
        ids.push(job.id);
    }
    world.node.work().await;
    world.node.send().await;
    let (stranger, _) = world.node.application("other").await;
    let engine = &world.node.engine;
    let none = engine
        .list_deliveries(&stranger, &DeliveryFilter::default(), (i64::MAX, i64::MAX), 100)
        .await
        .unwrap();
    assert!(none.0.is_empty() && none.1.is_none());
    let refused =
        engine.list_deliveries(&stranger, &of_job(ids[0]), (i64::MAX, i64::MAX), 100).await;
    assert!(matches!(refused, Err(EngineError::NotFound { .. })));

    for (status, remainder) in [("pending", 0), ("refused", 1), ("delivered", 2)] {
        let statuses = [status.to_owned()];
        let all = engine
            .list_deliveries(&world.caller, &in_statuses(&statuses), (i64::MAX, i64::MAX), 100)
            .await;
        let (all, next) = all.unwrap();
        assert_eq!((all.len(), next), (4, None), "{status}");
        for (number, job) in ids.iter().enumerate() {
            let filter = DeliveryFilter { job: Some(*job), ..in_statuses(&statuses) };
            let of_job = engine.list_deliveries(&world.caller, &filter, (i64::MAX, i64::MAX), 9);
            let (of_job, _) = of_job.await.unwrap();
            assert_eq!(of_job.len(), usize::from(number % 3 == remainder));
            assert!(of_job.iter().all(|one| one.job_id == Some(*job) && one.status == status));
        }
    }

    let all = engine
        .list_deliveries(&world.caller, &DeliveryFilter::default(), (i64::MAX, i64::MAX), 100)
        .await
        .unwrap();
    let known: HashSet<Uuid> = all.0.iter().map(|delivery| delivery.id).collect();
    assert_eq!((known.len(), all.1), (12, None));
    let statuses = ["refused".to_owned(), "delivered".to_owned()];
    for (filter, size, expected) in [(&statuses[..0], 5, 12), (&statuses, 3, 8), (&statuses, 8, 8)]
    {
        let (mut before, mut seen, mut keys) = ((i64::MAX, i64::MAX), HashSet::new(), Vec::new());
        loop {
            let filter = in_statuses(filter);
            let page = engine.list_deliveries(&world.caller, &filter, before, size).await;
            let (page, next) = page.unwrap();
            assert!(page.len() <= size);
            for delivery in &page {
                assert!(seen.insert(delivery.id), "twice on the pages");
                keys.push(delivery.key);
            }
            if keys.len() == size {
                // What comes while somebody turns pages shifts nothing.
                world.submit(callback(&world.receiver.url("/good"))).await;
                world.node.work().await;
            }
            let Some(next) = next else { break };
            before = next;
        }
        seen.retain(|id| known.contains(id));
        assert_eq!(seen.len(), expected, "pages of {size}");
        assert!(keys.is_sorted_by(|newer, older| newer > older), "newest first");
    }
}
