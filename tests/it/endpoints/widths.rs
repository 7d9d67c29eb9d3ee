//! Jobs of an application with many endpoints: no transaction that starts or ends them owes more
//! than one should, however many of them there are at once.

use std::sync::Arc;

use ringback::engine::MOST_ENDPOINTS;
use ringback::handlers::runner::Step;
use ringback::handlers::{Ending, Product};
use serde_json::value::RawValue;
use tokio::sync::Barrier;

use super::bounds::multiply;
use super::{World, events};
use crate::support::database::{Database, number, on_both};
use crate::support::node::scripted_job;

/// As many endpoints as there can be that want one event, and jobs that are ready.
async fn wide(database: &Database, event: &'static str, jobs: usize) -> World {
    let world = World::start(database).await;
    world.endpoint_with("/hook", |settings| settings.events = events(&[event])).await;
    multiply(database, MOST_ENDPOINTS - 1);
    let stamp = "UPDATE applications SET version = version + 1";
    database.connect().batch(stamp).expect("as a registration does");
    let jobs = vec![scripted_job(); jobs];
    world.node.engine.submit_batch(&world.caller, jobs, None, None, "request").await.unwrap();
    world.node.runner.look().await.unwrap();
    world
}

fn owed(database: &Database) -> i64 {
    number(database, "SELECT COUNT(*) AS number FROM deliveries")
}

on_both!(async a_claim_starts_no_more_jobs_than_one_transaction_may_tell_of);
async fn a_claim_starts_no_more_jobs_than_one_transaction_may_tell_of(database: Database) {
    let world = wide(&database, "job.started", 21).await;
    assert_eq!(world.node.runner.step().await.unwrap(), Step::Started(20));
    assert_eq!(owed(&database), 20_000);
    // The rest is found without another look.
    assert_eq!(world.node.runner.step().await.unwrap(), Step::Started(1));
    assert_eq!(owed(&database), 21_000);
    world.node.settle().await;
}

on_both!(async a_batch_of_ends_weighs_what_they_owe);
async fn a_batch_of_ends_weighs_what_they_owe(database: Database) {
    let world = wide(&database, "job.succeeded", 12).await;
    let gate = Arc::new(Barrier::new(13));
    let inner = Arc::clone(&gate);
    world.node.scripted.set(move |_| {
        let gate = Arc::clone(&inner);
        async move {
            gate.wait().await;
            Ending::Done(Product::of(RawValue::NULL.to_owned()))
        }
    });
    assert_eq!(world.node.runner.step().await.unwrap(), Step::Started(12));
    // What one transaction appends of an application is one chunk.
    let large = "SELECT COUNT(*) AS number FROM feed_chunks WHERE size > 4";
    assert_eq!(number(&database, large), 2, "their submission and their start");
    gate.wait().await;
    world.node.settle().await;
    assert_eq!(owed(&database), 12_000);
    assert_eq!(
        number(&database, large),
        2,
        "three ends fill one, and the last has that of the group too"
    );
}
