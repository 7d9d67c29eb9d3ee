//! Callbacks that nobody uses any more go; those that somebody needs stay, also when that is only
//! just so.

use std::sync::Arc;
use std::time::Duration;

use ringback::engine::{Caller, EngineError, NewCallback};
use ringback::ids::Timestamp;
use ringback::store::deliveries::{self, manner};
use ringback::store::retention;
use uuid::Uuid;

use super::World;
use crate::support::database::{Backend, Database, block_on, number, on_both};
use crate::support::node::{Node, callback, scripted_job};
use crate::support::receiver::Reply;
use crate::support::wait::eventually_async;

const PATIENCE: Duration = Duration::from_secs(10);
const HOUR_MILLIS: i64 = 60 * 60 * 1_000;

async fn somebody_waits(database: &Database) {
    let waiting = async || (database.waiting() > 0).then_some(());
    eventually_async("somebody to wait", PATIENCE, waiting).await;
}

fn callbacks(database: &Database) -> i64 {
    number(database, "SELECT COUNT(*) AS number FROM receivers")
}

/// A delivery that its receiver refused for good, of a callback that is not used any more.
async fn refused(database: &Database) -> (World, Uuid, i64) {
    let world = World::start(database).await;
    world.receiver.on("/hook", [Reply::status(410), Reply::ok()]);
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    world.node.send().await;
    let delivery = world.delivery_of(job.id).await;
    (world, delivery.id, delivery.key)
}

fn later(node: &Node) -> Timestamp {
    node.engine.now().plus_millis(1)
}

async fn redeliver(node: &Node, caller: &Caller, id: Uuid) -> Result<(), EngineError> {
    node.engine.redeliver(caller, id).await
}

#[test]
fn a_redelivery_keeps_the_callback_that_it_goes_to() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let (world, id, key) = refused(&database).await;
        let now = world.node.engine.now().0;
        let mut again = database.connect();
        again.begin().expect("a transaction");
        let routes = deliveries::hold_lasting(&mut again, &[key]).expect("SQL");
        let purging = world.node.engine.purge_leftovers(later(&world.node)).await;
        assert_eq!(purging.expect("it waits for nobody"), 0);
        deliveries::revive(&mut again, &routes[0], manner::REDELIVERY, now).expect("SQL");
        again.commit().expect("it is owed again");
        assert_eq!(world.node.engine.purge_leftovers(later(&world.node)).await.unwrap(), 0);
        world.node.send().await;
        assert_eq!(world.delivery(id).await.status, "delivered");
        world.node.engine.purge_leftovers(later(&world.node)).await.unwrap();
        assert_eq!(callbacks(&database), 0, "now it may go");
    });
}

#[test]
fn a_redelivery_to_a_callback_that_is_just_going_is_refused() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let (world, id, _) = refused(&database).await;
        let mut retaining = database.connect();
        retaining.begin().expect("a transaction");
        let before = later(&world.node).0;
        assert_eq!(retention::purge_callbacks(&mut retaining, before, 10).expect("SQL"), 1);
        let node = Arc::new(world.node);
        let asking = tokio::spawn({
            let (node, caller) = (Arc::clone(&node), world.caller.clone());
            async move { redeliver(&node, &caller, id).await }
        });
        somebody_waits(&database).await;
        retaining.commit().expect("it is gone");
        let answer = asking.await.unwrap();
        assert!(matches!(answer, Err(EngineError::ReceiverDeleted(_))), "{answer:?}");
        let live = "SELECT COUNT(*) AS number FROM live_deliveries";
        assert_eq!(number(&database, live), 0);
    });
}

#[test]
fn a_callback_that_is_wanted_again_while_it_goes_is_made_anew() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let world = World::start(&database).await;
        world.done(callback(&world.receiver.url("/hook"))).await;
        world.node.send().await;
        // Its use is noted once a day.
        world.node.clock.shift_millis(25 * HOUR_MILLIS);
        let mut retaining = database.connect();
        retaining.begin().expect("a transaction");
        let before = later(&world.node).0;
        assert_eq!(retention::purge_callbacks(&mut retaining, before, 10).expect("SQL"), 1);
        let submitting = world.done(callback(&world.receiver.url("/hook")));
        let removing = async {
            somebody_waits(&database).await;
            retaining.commit().expect("it is gone");
        };
        let (job, ()) = futures_util::future::join(submitting, removing).await;
        assert_eq!(callbacks(&database), 1);
        world.node.send().await;
        assert_eq!(world.delivery_of(job.id).await.status, "delivered");
    });
}

on_both!(async a_delivery_that_has_lost_its_receiver_ends_and_holds_up_nobody);
async fn a_delivery_that_has_lost_its_receiver_ends_and_holds_up_nobody(database: Database) {
    let world = World::start(&database).await;
    // Three on one lane: a receiver that is gone, a lasting row that is gone, and a good one.
    let mut jobs = Vec::new();
    for path in ["/receiver", "/lasting", "/good"] {
        jobs.push(world.done(callback(&world.receiver.url(path))).await);
        world.node.clock.shift_millis(1);
    }
    let sql = format!(
        "DELETE FROM receivers WHERE shown LIKE '%/receiver%'; DELETE FROM deliveries WHERE id = {}",
        world.delivery_of(jobs[1].id).await.key
    );
    database.connect().batch(&sql).expect("SQL");
    for _ in &jobs {
        world.node.send().await;
    }
    let live = "SELECT COUNT(*) AS number FROM live_deliveries";
    assert_eq!(number(&database, live), 0);
    let ended = "SELECT COUNT(*) AS number FROM deliveries \
                 WHERE status = 4 AND reason = 'receiver_gone'";
    assert_eq!(number(&database, ended), 1);
    assert_eq!(world.receiver.count(), 1);
    assert_eq!(world.delivery_of(jobs[2].id).await.status, "delivered");
}

on_both!(async what_a_callback_was_told_is_shown_for_as_long_as_its_job);
async fn what_a_callback_was_told_is_shown_for_as_long_as_its_job(database: Database) {
    let world = World::start(&database).await;
    let mut job = scripted_job();
    job.callback = Some(NewCallback {
        events: Some(vec!["job.created".to_owned()]),
        ..callback(&world.receiver.url("/hook"))
    });
    job.run_at = Some(world.node.engine.now().plus_millis(1_000 * HOUR_MILLIS));
    let job = world.node.submit(&world.caller, job).await;
    world.node.send().await;
    world.node.clock.shift_millis(1_000 * HOUR_MILLIS);
    world.node.beat().await;
    world.node.work().await;
    // Its last delivery was a thousand hours ago, its end was not.
    let before = later(&world.node).plus_millis(-100 * HOUR_MILLIS);
    world.node.engine.purge_leftovers(before).await.unwrap();
    assert_eq!(world.delivery_of(job.id).await.status, "delivered");
    world.node.clock.shift_millis(100 * HOUR_MILLIS);
    world.node.beat().await;
    world.node.engine.purge_jobs(later(&world.node), 0).await.unwrap();
    world.node.engine.purge_leftovers(later(&world.node)).await.unwrap();
    assert_eq!(callbacks(&database), 0, "now it may go");
}

on_both!(async a_job_that_waits_for_long_keeps_its_callback);
async fn a_job_that_waits_for_long_keeps_its_callback(database: Database) {
    let world = World::start(&database).await;
    let hook = callback(&world.receiver.url("/hook"));
    let noted = world.node.engine.now();
    world.done(hook.clone()).await;
    world.node.send().await;
    // The day of use is noted once a day.
    world.node.clock.shift_millis(20 * HOUR_MILLIS);
    world.node.beat().await;
    let mut job = scripted_job();
    job.callback = Some(hook);
    job.run_at = Some(noted.plus_millis(1_000 * HOUR_MILLIS));
    let job = world.node.submit(&world.caller, job).await;
    let between = noted.plus_millis(10 * HOUR_MILLIS);
    world.node.engine.purge_leftovers(between).await.unwrap();
    world.node.clock.shift_millis(1_000 * HOUR_MILLIS);
    world.node.beat().await;
    world.node.work().await;
    world.node.send().await;
    assert_eq!(world.delivery_of(job.id).await.status, "delivered");
}
