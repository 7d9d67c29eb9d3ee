//! What happens to deliveries of a lane that another node takes over in good order. Step by step.

use std::time::Duration;

use ringback::delivery::{Settings, Step};
use ringback::engine::{NewCallback, SHARDS};
use ringback::formats::Formats;

use super::{World, dispatcher, outcomes};
use crate::support::database::{Database, on_both};
use crate::support::node::{Node, bounded, callback, rate};
use crate::support::receiver::Reply;
use crate::support::wait::eventually_async;

const PATIENCE: Duration = Duration::from_secs(30);

/// A rate-limited callback whose lane goes to the second node that comes: the first keeps the lower
/// half of all shards.
fn moving(world: &World, per_second: f64) -> NewCallback {
    let mut callback = callback(&world.receiver.url("/hook"));
    for burst in 1.. {
        callback.rate_limit = Some(rate(per_second, burst));
        if callback.lane(world.caller.application_id).rem_euclid(SHARDS) >= SHARDS / 2 {
            break;
        }
    }
    callback
}

async fn neighbour(world: &World, database: &Database) -> Node {
    Node::start_with(database, world.node.clock.clone(), Formats::standard_only()).await
}

on_both!(async a_shard_changes_hands_a_beat_after_its_owner_has_left_it);
async fn a_shard_changes_hands_a_beat_after_its_owner_has_left_it(database: Database) {
    let first = Node::start(&database).await;
    let second = Node::start_with(&database, first.clock.clone(), Formats::standard_only()).await;
    let shards = async |node: &Node| node.engine.beat(node.engine.now()).await.unwrap().shards;
    assert!(shards(&second).await.is_empty(), "the first has them all");
    let kept = shards(&first).await;
    assert_eq!(kept.len(), 32, "it claims no more from the others");
    assert!(shards(&second).await.is_empty(), "a claim may still be under way");
    assert_eq!(shards(&first).await, kept);
    let taken = shards(&second).await;
    assert_eq!(taken.len(), 32);
    assert!(taken.iter().all(|shard| !kept.contains(shard)));
}

on_both!(async what_is_left_and_not_yet_given_up_is_taken_back_when_nobody_else_is_there);
async fn what_is_left_and_not_yet_given_up_is_taken_back_when_nobody_else_is_there(
    database: Database,
) {
    let first = Node::start(&database).await;
    let second = Node::start_with(&database, first.clock.clone(), Formats::standard_only()).await;
    let shards = async |node: &Node| node.engine.beat(node.engine.now()).await.unwrap().shards;
    assert_eq!(shards(&first).await.len(), 32);
    second.engine.leave().await.unwrap();
    assert_eq!(shards(&first).await.len(), 64);
}

on_both!(async what_waits_for_its_turn_goes_back_when_its_lane_is_lost);
async fn what_waits_for_its_turn_goes_back_when_its_lane_is_lost(database: Database) {
    let world = World::start(&database).await;
    let callback = moving(&world, 0.001);
    let burst = callback.rate_limit.unwrap().burst as usize;
    for _ in 0..burst {
        world.done(callback.clone()).await;
        world.node.send().await;
    }
    assert_eq!(world.receiver.count(), burst);
    let job = world.done(callback).await;
    world.node.dispatcher.look().await.unwrap();
    assert_eq!(world.node.dispatcher.step().await.unwrap(), Step::Claimed(1));
    assert_eq!(world.delivery_of(job.id).await.status, "sending", "its turn is in 1,000 s");

    let _other = neighbour(&world, &database).await;
    world.node.beat().await;
    bounded("it is handed back", || world.node.dispatcher.in_flight() == 0).await;
    let delivery = world.delivery_of(job.id).await;
    assert_eq!(delivery.status, "pending");
    assert_eq!(outcomes(&delivery), [(1, "unknown")]);
    assert_eq!(world.receiver.count(), burst, "and was not sent");
}

on_both!(async what_the_last_owner_still_sends_counts_towards_the_cap);
async fn what_the_last_owner_still_sends_counts_towards_the_cap(database: Database) {
    let mut world = World::start(&database).await;
    let settings =
        Settings { lane_cap: 2, deadline: Duration::from_secs(600), ..Settings::default() };
    world.send_by(settings.clone(), 0.0).await;
    world.receiver.otherwise([Reply::silence()]);
    let callback = moving(&world, 1_000.0);
    for _ in 0..5 {
        world.done(callback.clone()).await;
    }
    eventually_async("two are under way", PATIENCE, async || {
        world.node.dispatcher.look().await.unwrap();
        world.node.dispatcher.step().await.unwrap();
        (world.receiver.count() == 2).then_some(())
    })
    .await;

    let other = neighbour(&world, &database).await;
    world.node.beat().await;
    world.node.beat().await;
    let heir = dispatcher(&other, other.services.egress.clone(), settings, 0.0).await;
    for _ in 0..3 {
        heir.look().await.unwrap();
        assert_eq!(heir.step().await.unwrap(), Step::Idle, "two are open at the receiver");
    }
    // It ends, and its connections with it.
    world.node.engine.leave().await.unwrap();
    other.engine.rescue().await.unwrap();
    eventually_async("two more are under way", PATIENCE, async || {
        heir.look().await.unwrap();
        heir.step().await.unwrap();
        (world.receiver.count() == 4).then_some(())
    })
    .await;
    heir.look().await.unwrap();
    assert_eq!(heir.step().await.unwrap(), Step::Idle);
}
