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

const PATIENCE: Duration = Duration::from_secs(60);

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

on_both!(async a_shard_changes_hands_only_when_its_owner_gives_it_up);
async fn a_shard_changes_hands_only_when_its_owner_gives_it_up(database: Database) {
    let first = Node::start(&database).await;
    let second = Node::start_with(&database, first.clock.clone(), Formats::standard_only()).await;
    let standing = async |node: &Node| node.engine.beat(node.engine.now()).await.unwrap();
    assert!(standing(&second).await.shards.is_empty(), "the first has them all");
    let kept = standing(&first).await;
    assert_eq!((kept.shards.len(), kept.surplus.len()), (32, 32), "it claims from these no more");
    assert!(standing(&second).await.shards.is_empty(), "a claim may still be under way");
    first.engine.give_up(kept.surplus.clone()).await.unwrap();
    assert_eq!(standing(&second).await.shards, kept.surplus);
    let after = standing(&first).await;
    assert_eq!((after.shards, after.surplus.len()), (kept.shards, 0));
    // Late words about shards that are somebody else's by now change nothing.
    first.engine.give_up(kept.surplus.clone()).await.unwrap();
    assert_eq!(standing(&second).await.shards, kept.surplus);
}

on_both!(async what_is_not_yet_given_up_is_kept_when_nobody_else_is_there);
async fn what_is_not_yet_given_up_is_kept_when_nobody_else_is_there(database: Database) {
    let first = Node::start(&database).await;
    let second = Node::start_with(&database, first.clock.clone(), Formats::standard_only()).await;
    let shards = async |node: &Node| node.engine.beat(node.engine.now()).await.unwrap().shards;
    assert_eq!(shards(&first).await.len(), 32);
    second.engine.leave().await.unwrap();
    assert_eq!(shards(&first).await.len(), 64);
}

on_both!(async a_node_that_is_about_to_leave_hands_its_lanes_over_while_it_winds_down);
async fn a_node_that_is_about_to_leave_hands_its_lanes_over_while_it_winds_down(
    database: Database,
) {
    let first = Node::start(&database).await;
    let second = Node::start_with(&database, first.clock.clone(), Formats::standard_only()).await;
    let standing = async |node: &Node| node.engine.beat(node.engine.now()).await.unwrap();
    first.engine.retire();
    let last = standing(&first).await;
    assert_eq!((last.shards.len(), last.surplus.len(), last.alive), (0, 64, 1));
    first.engine.give_up(last.surplus).await.unwrap();
    assert_eq!(standing(&second).await.shards.len(), 64, "it shares with nobody who stays");
    assert_eq!(standing(&first).await.shards.len(), 0, "it is alive and takes none back");
}

on_both!(async what_waits_for_its_turn_goes_back_when_its_lane_is_lost);
async fn what_waits_for_its_turn_goes_back_when_its_lane_is_lost(database: Database) {
    let mut world = World::start(&database).await;
    let patient = Settings { longest_turn: Duration::from_secs(3_600), ..Settings::default() };
    world.send_by(patient, 0.0).await;
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

on_both!(async what_has_to_wait_long_for_its_turn_is_not_claimed_before);
async fn what_has_to_wait_long_for_its_turn_is_not_claimed_before(database: Database) {
    let world = World::start(&database).await;
    let callback = moving(&world, 0.001);
    let burst = callback.rate_limit.unwrap().burst as usize;
    let mut jobs = Vec::new();
    for _ in 0..burst + 1 {
        jobs.push(world.done(callback.clone()).await);
    }
    world.node.send().await;
    assert_eq!(world.receiver.count(), burst);
    // They are due at the same time, so any of them may be the last.
    let mut left = Vec::new();
    for job in &jobs {
        let delivery = world.delivery_of(job.id).await;
        if delivery.status == "pending" {
            assert_eq!(outcomes(&delivery), [], "its turn is in 1,000 s");
            left.push(job.id);
        }
    }
    let [last] = left[..] else { panic!("{} are left", left.len()) };
    assert_eq!(world.node.dispatcher.in_flight(), 0);

    // Whoever takes the lane over has no token at first, and gives back what showed it the limit.
    world.node.clock.shift_millis(1);
    let other = neighbour(&world, &database).await;
    world.node.beat().await;
    other.beat().await;
    other.send().await;
    let delivery = world.delivery_of(last).await;
    assert_eq!((delivery.status, outcomes(&delivery)), ("pending", vec![(1, "unknown")]));
    other.send().await;
    assert_eq!(outcomes(&world.delivery_of(last).await).len(), 1, "once is enough");
    assert_eq!(world.receiver.count(), burst);
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
