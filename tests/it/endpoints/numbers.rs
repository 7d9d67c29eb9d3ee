//! What an endpoint's stats say stays true while more waits than they look at.

use std::time::Duration;

use ringback::engine::{Backlog, DeliveryFilter, EndpointPatch};

use super::{Endpoint, World, events, seconds};
use crate::support::database::{Database, on_both};
use crate::support::node::scripted_job;
use crate::support::receiver::Reply;

/// More than twice what stats look at.
const MANY: usize = 2_100;

async fn submit(world: &World, count: usize) {
    for part in (0..count).step_by(600) {
        let jobs = (part..count.min(part + 600)).map(|_| scripted_job()).collect();
        let taken = world.node.engine.submit_batch(&world.caller, jobs, None, None, "r").await;
        taken.expect("the jobs are taken");
    }
}

async fn counted(world: &World, endpoint: &Endpoint) -> (usize, usize) {
    let stats = world.stats(endpoint).await;
    assert_eq!(stats.success_rate.is_some(), stats.attempts > 0);
    assert_eq!(stats.latency_ms.is_some(), stats.attempts > 0);
    (stats.attempts, stats.delivered)
}

on_both!(async what_was_tried_is_counted_whatever_waits_behind_it);
async fn what_was_tried_is_counted_whatever_waits_behind_it(database: Database) {
    let world = World::start(&database).await;
    let created = events(&["job.created"]);
    let endpoint = world.endpoint_with("/hook", |settings| settings.events = created).await;
    assert_eq!(counted(&world, &endpoint).await, (0, 0));
    world.receiver.on("/hook", [Reply::status(500), Reply::ok()]);
    world.events(3).await;
    world.node.send().await;
    assert_eq!(counted(&world, &endpoint).await, (3, 2), "one waits for another try");

    // Held while the endpoint is disabled, and waiting while it is not.
    let engine = &world.node.engine;
    engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    submit(&world, MANY).await;
    assert_eq!(counted(&world, &endpoint).await, (3, 2));
    engine.enable_endpoint(&world.caller, endpoint.id, Backlog::Resume).await.unwrap();
    assert_eq!(counted(&world, &endpoint).await, (3, 2));

    // Given up without a try, and asked for again.
    engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    world.wait(seconds(1)).await;
    engine.enable_endpoint(&world.caller, endpoint.id, Backlog::Discard).await.unwrap();
    while engine.settle_backlogs().await.unwrap() > 0 {}
    world.node.send().await;
    assert_eq!(counted(&world, &endpoint).await, (3, 2));
    engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    let delivered =
        DeliveryFilter { statuses: vec!["delivered".to_owned()], ..DeliveryFilter::default() };
    let all = (i64::MAX, i64::MAX);
    engine.redeliver_matching(&world.caller, &delivered, all, false).await.unwrap();
    assert_eq!(counted(&world, &endpoint).await, (3, 2));
    let day = world.node.engine.now().plus_millis(-24 * 60 * 60 * 1_000);
    assert_eq!(world.stats(&endpoint).await.window_start, day);
}

on_both!(async the_newest_thousand_attempts_are_counted_and_from_when_on);
async fn the_newest_thousand_attempts_are_counted_and_from_when_on(database: Database) {
    let world = World::start(&database).await;
    let created = events(&["job.created"]);
    let endpoint = world.endpoint_with("/hook", |settings| settings.events = created).await;
    world.receiver.on("/hook", [Reply::status(410)]);
    world.event().await;
    world.node.send().await;
    assert_eq!(counted(&world, &endpoint).await, (1, 0));
    let patch = EndpointPatch { enabled: Some(true), ..EndpointPatch::default() };
    world.change(&endpoint, patch).await;
    world.receiver.on("/hook", [Reply::ok()]);
    world.wait(Duration::from_secs(60)).await;
    let later = world.node.engine.now();
    submit(&world, MANY).await;
    world.node.send().await;
    assert_eq!(counted(&world, &endpoint).await, (1_000, 1_000), "the first one is too old");
    assert!(world.stats(&endpoint).await.window_start >= later);
}
