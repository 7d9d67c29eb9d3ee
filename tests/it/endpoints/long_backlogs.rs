//! Backlogs that are too long to be settled while somebody waits: a few pages at once, the rest in
//! turns of a loop, and nothing is sent meanwhile that should not be.

use std::time::Duration;

use ringback::engine::{Backlog, EndpointPatch};

use super::{World, seconds};
use crate::support::database::{Database, number, on_both};
use crate::support::node::scripted_job;

/// More than whoever changes an endpoint waits for.
const LONG: i64 = 2_600;

async fn long_backlog(world: &World) {
    for _ in 0..4 {
        let jobs = (0..LONG / 4).map(|_| scripted_job()).collect();
        let submitted = world.node.engine.submit_batch(&world.caller, jobs, None, None, "r");
        submitted.await.expect("the jobs are taken");
    }
}

fn in_phase(database: &Database, phase: i64) -> i64 {
    let sql = format!("SELECT COUNT(*) AS number FROM live_deliveries WHERE phase = {phase}");
    number(database, &sql)
}

fn unsettled(database: &Database) -> i64 {
    number(database, "SELECT COUNT(*) AS number FROM receivers WHERE settling = 1")
}

/// The loop need not wait for its time.
async fn bell_rang(world: &World) {
    let bell = world.node.engine.bells.settling.notified();
    tokio::time::timeout(Duration::from_secs(5), bell).await.expect("the bell rings");
}

on_both!(async a_long_backlog_is_settled_by_the_loop);
async fn a_long_backlog_is_settled_by_the_loop(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    long_backlog(&world).await;
    let engine = &world.node.engine;
    engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    assert_eq!((in_phase(&database, 2), unsettled(&database)), (2_000, 1), "four pages at once");
    bell_rang(&world).await;
    assert_eq!(engine.settle_backlogs().await.unwrap(), 1);
    assert_eq!((in_phase(&database, 2), unsettled(&database)), (LONG, 0));
    assert_eq!(engine.settle_backlogs().await.unwrap(), 0);
}

on_both!(async nothing_of_a_long_backlog_is_sent_that_was_discarded);
async fn nothing_of_a_long_backlog_is_sent_that_was_discarded(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    long_backlog(&world).await;
    let engine = &world.node.engine;
    engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    world.wait(seconds(1)).await;
    engine.enable_endpoint(&world.caller, endpoint.id, Backlog::Discard).await.unwrap();
    assert_eq!(unsettled(&database), 1);
    world.event().await;
    // Whatever the rest of the rows say.
    database.connect().batch("UPDATE live_deliveries SET phase = 0").unwrap();
    world.node.dispatcher.look().await.unwrap();
    world.node.dispatcher.step().await.unwrap();
    assert_eq!(world.came("/hook"), 0);
    engine.settle_backlogs().await.unwrap();
    world.node.send().await;
    assert_eq!((world.came("/hook"), unsettled(&database)), (1, 0), "only what is new");
    let cancelled = "SELECT COUNT(*) AS number FROM deliveries WHERE reason = 'discarded'";
    assert_eq!(number(&database, cancelled), LONG);
}

on_both!(async a_change_that_no_backlog_depends_on_walks_none);
async fn a_change_that_no_backlog_depends_on_walks_none(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.events(2).await;
    database.connect().batch("UPDATE live_deliveries SET phase = 2").unwrap();
    let description = Some(Some("The shop".to_owned()));
    let patch = EndpointPatch { description, ..EndpointPatch::default() };
    world.change(&endpoint, patch).await;
    assert_eq!((in_phase(&database, 2), unsettled(&database)), (2, 0), "nobody has looked");
}

on_both!(async another_stamp_does_not_make_the_loop_begin_anew);
async fn another_stamp_does_not_make_the_loop_begin_anew(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    long_backlog(&world).await;
    let engine = &world.node.engine;
    engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    // What is behind the place where it stands is not looked at again, whatever it says.
    let sql =
        "UPDATE live_deliveries SET phase = 0 WHERE id = (SELECT MIN(id) FROM live_deliveries)";
    database.connect().batch(sql).unwrap();
    let description = Some(Some("The shop".to_owned()));
    let patch = EndpointPatch { description, ..EndpointPatch::default() };
    world.change(&endpoint, patch).await;
    engine.settle_backlogs().await.unwrap();
    assert_eq!((in_phase(&database, 2), unsettled(&database)), (LONG - 1, 0));
}
