//! A lane is closed after failures in a row, tried once when its time has come, and known to
//! whoever sends for it next.

use std::time::Duration;

use ringback::delivery::Settings;

use super::{Endpoint, World, nervous, seconds};
use crate::deliveries::dispatcher;
use crate::support::database::{Database, on_both};
use crate::support::node::{Node, scripted_job};
use crate::support::receiver::Reply;

impl World {
    /// An endpoint whose lane has just been closed for failures, with more that is due.
    async fn broken(database: &Database) -> (World, Endpoint) {
        let mut world = World::start(database).await;
        world.send_by(nervous()).await;
        world.receiver.on("/hook", [Reply::status(500)]);
        let endpoint = world.endpoint("/hook").await;
        world.events(3).await;
        world.node.send().await;
        assert_eq!(world.came("/hook"), 3);
        for _ in 0..2 {
            world.node.submit(&world.caller, scripted_job()).await;
        }
        (world, endpoint)
    }

    /// How many more requests a stretch of time brings, a millisecond before its end and at it.
    async fn brings(&self, time: Duration) -> (usize, usize) {
        let before = self.came("/hook");
        self.wait(time.saturating_sub(Duration::from_millis(1))).await;
        self.node.send().await;
        let early = self.came("/hook");
        self.wait(Duration::from_millis(1)).await;
        self.node.send().await;
        (early - before, self.came("/hook") - early)
    }
}

on_both!(async a_lane_closes_after_failures_and_is_probed_ever_more_rarely);
async fn a_lane_closes_after_failures_and_is_probed_ever_more_rarely(database: Database) {
    let (world, endpoint) = World::broken(&database).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 3, "nothing is tried while it is closed");
    let lane = world.stats(&endpoint).await.lane;
    assert_eq!(lane.closed_until, Some(world.node.engine.now().plus(seconds(30))));
    assert_eq!((lane.reason.as_deref(), lane.closings), (Some("failures"), 1));

    for (pause, closings) in [(30, 2), (60, 3), (100, 4), (100, 5)] {
        assert_eq!(world.brings(seconds(pause)).await, (0, 1), "after {pause} s");
        assert_eq!(world.stats(&endpoint).await.lane.closings, closings);
    }
    world.receiver.on("/hook", [Reply::ok()]);
    assert_eq!(world.brings(seconds(100)).await, (0, 3), "the probe and what else is due");
    assert_eq!(world.stats(&endpoint).await.lane.closed_until, None);
    world.wait(seconds(60 * 60)).await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["delivered"; 5]);
}

on_both!(async a_success_in_between_starts_the_count_again);
async fn a_success_in_between_starts_the_count_again(database: Database) {
    let mut world = World::start(&database).await;
    world.send_by(Settings { lane_cap: 1, ..nervous() }).await;
    let bad = || Reply::status(500);
    world
        .receiver
        .on("/hook", [bad(), bad(), Reply::ok(), bad(), bad(), Reply::status(404), bad()]);
    let endpoint = world.endpoint_with("/hook", |settings| settings.schedule = Some(vec![])).await;
    world.events(8).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 8, "a refusal shows as well that it works");
    assert_eq!(world.stats(&endpoint).await.lane.closed_until, None);
    world.events(2).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 9, "three in a row");
}

on_both!(async the_node_that_takes_over_knows_of_it);
async fn the_node_that_takes_over_knows_of_it(database: Database) {
    let (world, endpoint) = World::broken(&database).await;
    let (first, second) = world.brings(seconds(30)).await;
    assert_eq!((first, second), (0, 1));
    world.node.engine.leave().await.unwrap();
    let mut next: Node = world.second_node(&database).await;
    let egress = next.services.egress.clone();
    next.dispatcher = dispatcher(&next, egress, nervous(), 0.0).await;
    next.send().await;
    assert_eq!(world.came("/hook"), 4, "it is still closed");
    next.clock.shift_millis(59_999);
    next.beat().await;
    next.send().await;
    assert_eq!(world.came("/hook"), 4);
    next.clock.shift_millis(1);
    next.send().await;
    assert_eq!(world.came("/hook"), 5, "one probe");
    let lane = world.stats(&endpoint).await.lane;
    assert_eq!(lane.closed_until, Some(next.engine.now().plus(seconds(100))), "and ever longer");
    world.receiver.on("/hook", [Reply::ok()]);
    next.clock.shift_millis(100_000);
    next.beat().await;
    next.send().await;
    assert!(world.came("/hook") > 6);
    assert_eq!(world.stats(&endpoint).await.lane.closed_until, None);
}

on_both!(async others_are_not_touched);
async fn others_are_not_touched(database: Database) {
    let (world, endpoint) = World::broken(&database).await;
    let other = world.endpoint("/other").await;
    world.events(20).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 3);
    assert_eq!(world.statuses(&other).await, ["delivered"; 20]);
    assert_eq!(world.stats(&endpoint).await.backlog.pending, 25);
}

on_both!(async enabling_again_lets_one_be_tried_at_once);
async fn enabling_again_lets_one_be_tried_at_once(database: Database) {
    let (world, endpoint) = World::broken(&database).await;
    world.receiver.on("/hook", [Reply::ok()]);
    let backlog = ringback::engine::Backlog::Resume;
    // It was enabled all the time: only its lane is opened.
    world.node.engine.enable_endpoint(&world.caller, endpoint.id, backlog).await.unwrap();
    world.node.send().await;
    assert_eq!(world.came("/hook"), 5, "the two that are due");
}
