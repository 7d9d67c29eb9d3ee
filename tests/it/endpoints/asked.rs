//! What somebody asked for is part of the backlog: it is held with the rest, and discarded with it.

use ringback::engine::Backlog;
use ringback::lifecycle::EventType;
use ringback::store::deliveries::{self, manner};

use super::{World, events, seconds};
use crate::support::database::{Database, on_both};

on_both!(async what_was_asked_for_is_discarded_with_the_backlog);
async fn what_was_asked_for_is_discarded_with_the_backlog(database: Database) {
    let world = World::start(&database).await;
    let created = events(&["job.created"]);
    let endpoint = world.endpoint_with("/hook", |settings| settings.events = created).await;
    let engine = &world.node.engine;
    world.events(2).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 2);
    // One of each: a redelivery, a replay, a trigger, an event.
    let past = world.deliveries(&endpoint).await;
    let mut replaying = database.connect();
    let routes = deliveries::hold_lasting(&mut replaying, &[past[1].key]).expect("SQL");
    let now = engine.now().0;
    deliveries::revive(&mut replaying, &routes[0], manner::REPLAY, now).expect("SQL");
    let (job_type, body) = engine.example(EventType::JobCreated, None).unwrap();
    engine.trigger(&world.caller, EventType::JobCreated, job_type, body, "r").await.unwrap();
    engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    engine.redeliver(&world.caller, past[0].id).await.unwrap();
    world.event().await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["held"; 4]);

    world.wait(seconds(1)).await;
    engine.enable_endpoint(&world.caller, endpoint.id, Backlog::Discard).await.unwrap();
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["cancelled"; 4]);
    let all = world.deliveries(&endpoint).await;
    assert!(all.iter().all(|one| one.reason.as_deref() == Some("discarded")));
    assert_eq!(world.came("/hook"), 2, "nothing of it was sent");

    // Asked for after that, it is sent, however old its event is.
    engine.redeliver(&world.caller, past[0].id).await.unwrap();
    engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    world.node.send().await;
    assert_eq!(world.whole(past[0].id).await.status, "held");
    engine.enable_endpoint(&world.caller, endpoint.id, Backlog::Resume).await.unwrap();
    world.node.send().await;
    assert_eq!(world.whole(past[0].id).await.status, "delivered");
    assert_eq!(world.came("/hook"), 3);
}

on_both!(async a_slow_clock_asks_for_nothing_before_a_discard);
async fn a_slow_clock_asks_for_nothing_before_a_discard(database: Database) {
    let world = World::start(&database).await;
    let created = events(&["job.created"]);
    let endpoint = world.endpoint_with("/hook", |settings| settings.events = created).await;
    let engine = &world.node.engine;
    world.event().await;
    world.node.send().await;
    engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    world.wait(seconds(1)).await;
    engine.enable_endpoint(&world.caller, endpoint.id, Backlog::Discard).await.unwrap();

    // As if another node had done that, whose clock is ahead of this one's.
    world.node.clock.shift_millis(-900);
    let past = world.deliveries(&endpoint).await;
    engine.redeliver(&world.caller, past[0].id).await.unwrap();
    world.node.send().await;
    assert_eq!(world.whole(past[0].id).await.status, "delivered");
    assert_eq!(world.came("/hook"), 2);
}
