//! `Retry-After` holds for the whole lane: the receiver spoke of itself, not of one delivery.

use std::time::{Duration, UNIX_EPOCH};

use ringback::delivery::Step;
use ringback::engine::NewJob;
use ringback::ids::Timestamp;

use super::{Gate, World, seconds};
use crate::support::database::{Database, on_both};
use crate::support::node::{bounded, callback, scripted_job};
use crate::support::receiver::Reply;

/// An HTTP date so many whole seconds from now on the test's clock.
fn date_in(world: &World, wait: i64) -> String {
    let at = UNIX_EPOCH + Duration::from_secs((world.node.engine.now().seconds() + wait) as u64);
    httpdate::fmt_http_date(at)
}

/// One delivery asked for time; everything on its lane waits, one is tried, then the rest.
async fn one_speaks_for_all(world: &World, until: impl Fn(Timestamp) -> Timestamp) {
    let path = "/hook";
    let endpoint = world.endpoint(path).await;
    let other = world.endpoint("/other").await;
    world.events(4).await;
    world.node.send().await;
    let until = until(world.node.engine.now());
    assert_eq!(world.came(path), 1, "the others wait although they are due");
    assert_eq!(world.statuses(&endpoint).await, ["pending"; 4]);
    assert_eq!(world.statuses(&other).await, ["delivered"; 4], "nobody else is touched");
    let asked = &world.deliveries(&endpoint).await[0];
    assert_eq!(asked.next_attempt_at, Some(until));
    let lane = world.stats(&endpoint).await.lane;
    assert_eq!(lane.closed_until, Some(until));
    assert_eq!((lane.reason.as_deref(), lane.closings), (Some("retry_after"), 0));

    // What comes meanwhile waits too.
    world.event().await;
    let left = until.millis_since(world.node.engine.now());
    world.wait(Duration::from_millis(u64::try_from(left).unwrap() - 1)).await;
    world.node.send().await;
    assert_eq!((world.came(path), world.came("/other")), (1, 5));
    world.wait(Duration::from_millis(1)).await;
    world.node.dispatcher.look().await.unwrap();
    let dispatcher = &world.node.dispatcher;
    let gate = Gate::on(&world.receiver, path, Reply::ok());
    assert_eq!(dispatcher.step().await.unwrap(), Step::Claimed(1), "to see how it goes");
    gate.wait_for_arrival();
    assert_eq!(dispatcher.step().await.unwrap(), Step::Idle);
    gate.open();
    bounded("the probe to end", || dispatcher.in_flight() == 0).await;
    assert_eq!(world.came(path), 2);
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["delivered"; 5]);
    assert_eq!(world.stats(&endpoint).await.lane.closed_until, None);
}

on_both!(async seconds_move_the_whole_lane);
async fn seconds_move_the_whole_lane(database: Database) {
    let world = World::start(&database).await;
    let busy = Reply::status(429).header("Retry-After", "90");
    world.receiver.on("/hook", [busy]);
    one_speaks_for_all(&world, |asked_at| asked_at.plus(seconds(90))).await;
}

on_both!(async a_date_moves_the_whole_lane);
async fn a_date_moves_the_whole_lane(database: Database) {
    let world = World::start(&database).await;
    let date = date_in(&world, 120);
    world.receiver.on("/hook", [Reply::status(503).header("Retry-After", &date)]);
    // A date has whole seconds.
    let now = world.node.engine.now();
    let until = Timestamp((now.seconds() + 120) * 1_000_000);
    one_speaks_for_all(&world, |_| until).await;
}

on_both!(async a_probe_that_is_told_to_wait_again_waits_again);
async fn a_probe_that_is_told_to_wait_again_waits_again(database: Database) {
    let world = World::start(&database).await;
    let busy = |wait: &str| Reply::status(503).header("Retry-After", wait);
    world.receiver.on("/hook", [busy("60"), busy("300"), Reply::ok()]);
    let endpoint = world.endpoint("/hook").await;
    world.events(3).await;
    world.node.send().await;
    world.wait(seconds(60)).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 2);
    world.wait(seconds(299)).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 2, "the newer word counts");
    world.wait(seconds(1)).await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["delivered"; 3]);
}

on_both!(async a_callbacks_word_holds_for_its_lane_alone);
async fn a_callbacks_word_holds_for_its_lane_alone(database: Database) {
    let world = World::start(&database).await;
    world.receiver.on("/callback", [Reply::status(503).header("Retry-After", "60"), Reply::ok()]);
    let endpoint = world.endpoint("/hook").await;
    for _ in 0..2 {
        let callback = Some(callback(&world.receiver.url("/callback")));
        world.node.submit(&world.caller, NewJob { callback, ..scripted_job() }).await;
    }
    world.node.work().await;
    world.node.send().await;
    assert_eq!(world.came("/callback"), 1, "one origin, one lane");
    // The same origin, but an endpoint is a lane of its own.
    assert_eq!(world.statuses(&endpoint).await, ["delivered"; 2]);
    world.wait(seconds(60)).await;
    world.node.send().await;
    assert_eq!(world.came("/callback"), 3);
}
