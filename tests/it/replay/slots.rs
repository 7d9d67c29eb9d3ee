//! Replays that wait for their receivers leave room for work that waits for nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringback::engine::{NewJob, REPLAY_QUEUE, REPLAY_TYPE};
use ringback::handlers;
use ringback::handlers::runner::{Limits, Runner, Step};
use ringback::lifecycle::Status;
use ringback::telemetry::Metrics;

use super::resume::late_comer;
use super::{PATIENCE, all_of, submit};
use crate::support::database::{Database, on_both};
use crate::support::node::scripted_job;
use crate::support::wait::eventually_async;

const SLOTS: usize = 8;

fn limits(queue_slots: HashMap<String, usize>) -> Limits {
    Limits::new(SLOTS, queue_slots, Duration::from_secs(60))
}

on_both!(async replays_that_wait_leave_slots_to_others);
async fn replays_that_wait_leave_slots_to_others(database: Database) {
    let (shop, endpoint) = late_comer(&database, 250).await;
    let order = all_of(&shop, endpoint);
    for _ in 0..SLOTS {
        assert_eq!(submit(&shop, &order).await.submission.queue, REPLAY_QUEUE);
        // Asked for as any other job, it is a replay all the same.
        let other = NewJob {
            job_type: REPLAY_TYPE.to_owned(),
            specification: serde_json::to_value(&order).unwrap(),
            ..scripted_job()
        };
        assert_eq!(shop.node.submit(&shop.caller, other).await.submission.queue, REPLAY_QUEUE);
    }
    let mut all = handlers::all();
    all.push(Arc::new(shop.node.scripted.clone()));
    let (services, limits) = (Arc::clone(&shop.node.services), limits(HashMap::new()));
    let runner = Arc::new(Runner::new(services, all, Arc::new(Metrics::default()), limits, || 0.0));
    runner.look().await.unwrap();
    assert_eq!(runner.step().await.unwrap(), Step::Started(SLOTS / 4));
    eventually_async("the window to be full", PATIENCE, async || {
        (shop.owed_to(endpoint).await.len() >= 200).then_some(())
    })
    .await;

    let job = shop.node.submit(&shop.caller, scripted_job()).await;
    runner.look().await.unwrap();
    assert_eq!(runner.step().await.unwrap(), Step::Started(1));
    eventually_async("the job to end", PATIENCE, async || {
        let job = shop.node.engine.find_job(&shop.caller, job.id).await.unwrap();
        (job.state.status == Status::Success).then_some(())
    })
    .await;
    runner.drain(Duration::ZERO).await;
}

#[test]
fn the_operator_may_name_another_number() {
    let named = HashMap::from([(REPLAY_QUEUE.to_owned(), 3), ("bulk".to_owned(), 2)]);
    assert_eq!(limits(named.clone()).queue_slots, named);
    let others = limits(HashMap::from([("bulk".to_owned(), 2)]));
    assert_eq!(others.queue_slots[REPLAY_QUEUE], 2);
    assert_eq!(Limits::new(1, HashMap::new(), Duration::ZERO).queue_slots[REPLAY_QUEUE], 1);
}
