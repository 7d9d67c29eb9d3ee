//! Words that come late, or that cannot be understood yet: what was said last of a lane counts,
//! whatever is written last, and a receiver of a later version is nothing to give up.

use ringback::engine::{ClosedAttempt, LaneChange, LaneTrouble, Next, OwedDelivery, Record};

use super::{Endpoint, World, seconds};
use crate::support::database::{Database, number, on_both};
use crate::support::node::wish;

/// A received delivery that says something of its lane.
fn received(owed: &OwedDelivery, now: i64, lane: LaneChange) -> Record {
    Record {
        delivery: owed.key,
        receiver: owed.receiver.key,
        receiver_version: owed.receiver.version,
        subject: owed.subject,
        token: owed.token,
        closed: ClosedAttempt {
            delivery_id: owed.key,
            number: owed.attempt,
            outcome: "delivered",
            finished_at: now,
            ..ClosedAttempt::default()
        },
        next: Next::Delivered,
        receiver_gone: false,
        disable: None,
        health: None,
        lane: Some(lane),
        is_in_order: false,
    }
}

/// How often in a row the lane was closed; nothing while it is open.
async fn closings(world: &World, endpoint: &Endpoint) -> Option<i64> {
    let lane = world.stats(endpoint).await.lane;
    lane.closed_until.map(|_| lane.closings)
}

on_both!(async a_lane_stands_as_was_said_last_whatever_is_written_last);
async fn a_lane_stands_as_was_said_last_whatever_is_written_last(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.events(5).await;
    let engine = &world.node.engine;
    let lane = engine.look_for_lanes().await.unwrap().waiting[0].0;
    let mut owed = engine.claim_deliveries(vec![wish(lane)]).await.unwrap();
    let now = engine.now();
    let close = |number, closings| {
        let (not_before, reason) = (now.plus_millis(30_000).0, "failures".to_owned());
        LaneChange::Close(LaneTrouble { lane, not_before, reason, closings, number })
    };
    let mut say = async |change| {
        let record = received(&owed.pop().expect("one is under way"), now.0, change);
        assert!(engine.record(record).await.unwrap().held);
    };
    say(close(10, 1)).await;
    assert_eq!(closings(&world, &endpoint).await, Some(1));
    say(LaneChange::Open { lane, number: 12 }).await;
    assert_eq!(closings(&world, &endpoint).await, None);
    say(close(11, 2)).await;
    assert_eq!(closings(&world, &endpoint).await, None, "that was before it was opened");
    assert_eq!(engine.delivery_depth().await.unwrap().closed_lanes, 0);
    assert!(engine.troubled_lanes().await.unwrap().iter().all(LaneTrouble::is_over));
    say(close(13, 3)).await;
    assert_eq!(closings(&world, &endpoint).await, Some(3));
    say(LaneChange::Open { lane, number: 14 }).await;

    // The word is forgotten when nobody can say anything older any more.
    engine.purge_leftovers(now).await.unwrap();
    assert_eq!(number(&database, "SELECT COUNT(*) AS number FROM lanes"), 1);
    world.wait(seconds(60 * 60 + 1)).await;
    engine.purge_leftovers(now).await.unwrap();
    assert_eq!(number(&database, "SELECT COUNT(*) AS number FROM lanes"), 0);
}

on_both!(async what_goes_to_a_receiver_that_cannot_be_read_waits);
async fn what_goes_to_a_receiver_that_cannot_be_read_waits(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.event().await;
    let write_format = |format: &str| {
        let sql = format!("UPDATE receivers SET format = '{format}', version = version + 1");
        database.connect().batch(&sql).expect("SQL");
    };
    write_format("of a later version");
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["pending"]);
    write_format("standard");
    world.wait(seconds(31)).await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["delivered"]);
    assert_eq!(world.delivery(&endpoint).await.attempts, 1);
}
