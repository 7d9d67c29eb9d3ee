//! What a replay respects: the endpoint's state and its limits, and what happens just now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringback::clock::Clock;
use ringback::engine::{
    Caller, EndpointPatch, EndpointSettings, EngineError, Ordering, RateChange,
};
use ringback::formats::Formats;
use ringback::lifecycle::Status;

use super::{PATIENCE, all_of, failure, outcome, replay, submit};
use crate::support::database::{Database, on_both};
use crate::support::loops::Loops;
use crate::support::node::{Node, bounded, scripted_job};
use crate::support::receiver::{Receiver, Reply};
use crate::support::shop::{Shop, ordered, register};
use crate::support::wait::eventually_async;

on_both!(async a_replay_to_an_endpoint_that_is_off_fails);
async fn a_replay_to_an_endpoint_that_is_off_fails(database: Database) {
    let shop = Shop::open(&database).await;
    shop.run_jobs(70).await;
    let endpoint = shop.register("/hook", ordered(Ordering::None, &[])).await;
    let job = submit(&shop, &all_of(&shop, endpoint)).await;
    shop.node.runner.look().await.unwrap();
    shop.node.runner.step().await.unwrap();
    eventually_async("the window to be full", PATIENCE, async || {
        (shop.owed_to(endpoint).await.len() >= 200).then_some(())
    })
    .await;
    shop.node.engine.disable_endpoint(&shop.caller, endpoint).await.unwrap();
    bounded("the replay to end", || shop.node.runner.busy() == 0).await;

    let job = shop.node.job(&shop.caller, job.id).await;
    assert_eq!((job.state.status, failure(&job)), (Status::Error, "endpoint_disabled"));
    shop.send().await;
    assert_eq!(shop.receiver.count(), 0);
    let statuses = shop.statuses(endpoint).await;
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&"held"], "what it owed is not lost");
    let again = replay(&shop, &all_of(&shop, endpoint)).await;
    assert_eq!(failure(&again), "endpoint_disabled", "from the start");

    // It sends, whoever retries it: a key for jobs alone may not.
    let retry = async |scopes: &[&str]| {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let caller = Caller { scopes, ..shop.caller.clone() };
        shop.node.engine.retry(&caller, again.id, None, "r").await
    };
    let refused = retry(&["jobs"]).await;
    assert!(matches!(refused, Err(EngineError::LacksScope("deliveries:write"))), "{refused:?}");
    retry(&["jobs", "deliveries"]).await.expect("it may");
}

on_both!(async the_endpoints_rate_holds_for_a_replay);
async fn the_endpoints_rate_holds_for_a_replay(database: Database) {
    const PER_SECOND: f64 = 50.0;
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::None, &[])).await;
    shop.run_jobs(20).await;
    shop.send().await;
    let patch = EndpointPatch {
        rate_limit: Some(Some(RateChange { per_second: Some(PER_SECOND), burst: Some(Some(2)) })),
        max_in_flight: Some(Some(4)),
        ..EndpointPatch::default()
    };
    shop.node.engine.change_endpoint(&shop.caller, endpoint, patch).await.unwrap();
    let begun = Instant::now();
    assert_eq!(outcome(&replay(&shop, &all_of(&shop, endpoint)).await).0, 60);
    let log = shop.receiver.log_of("/hook");
    let again: Vec<_> =
        log.iter().filter(|one| one.header("webhook-redelivery").is_some()).collect();
    assert_eq!(again.len(), 60);
    // None was sent before it was asked for, so what is seen late was within the limit all the more.
    for (before, one) in again.iter().enumerate() {
        let seconds = one.arrived.duration_since(begun).as_secs_f64();
        let (came, allowed) = (before + 1, 2.0 + PER_SECOND * seconds);
        assert!(came as f64 <= allowed, "{came} within {seconds} s");
    }
}

on_both!(async new_events_find_the_lane_short_while_thousands_are_replayed);
async fn new_events_find_the_lane_short_while_thousands_are_replayed(database: Database) {
    const PAST: usize = 3_000;
    let node = Node::start_with(&database, Clock::system(), Formats::standard_only()).await;
    let node = Arc::new(node);
    let (caller, _) = node.application("shop").await;
    let mut jobs = vec![scripted_job(); PAST];
    for job in &mut jobs {
        job.run_at = Some(node.engine.now().plus_millis(3_600_000));
    }
    node.engine.submit_batch(&caller, jobs, None, None, "r").await.unwrap();
    while node.engine.relay().await.unwrap() {}
    let receiver = Receiver::start();
    receiver.otherwise([Reply::ok().after(Duration::from_millis(50))]);
    let settings = EndpointSettings {
        events: Some(vec!["job.created".to_owned()]),
        max_in_flight: Some(8),
        ..EndpointSettings::default()
    };
    let endpoint = register(&node, &caller, &receiver, "/hook", settings).await;
    let now = node.engine.now();
    let order = super::between(endpoint, now.plus_millis(-60_000), now);
    let replay = node.engine.submit_replay(&caller, order, None, "r").await.unwrap();
    let loops = Loops::start(&node, 1);
    for round in 1..=3 {
        receiver.wait_for(round * 300, PATIENCE);
        let new = node.submit(&caller, scripted_job()).await.id.to_string();
        let before = receiver.count();
        let place = receiver.wait_until("the new event", PATIENCE, |log| {
            let is_it = |one: &Arc<crate::support::receiver::Received>| {
                one.json()["data"]["id"] == new.as_str()
            };
            log.iter().position(is_it).map(|place| place.saturating_sub(before))
        });
        // The window, and what was under way.
        assert!(place <= 200 + 8 + 8, "{place} came before it");
    }
    assert!(receiver.count() < PAST, "the replay goes on");
    node.engine.stop(&caller, replay.id).await.unwrap();
    node.runner.check_leases().await.unwrap();
    bounded("the replay to end", || node.runner.busy() == 0).await;
    loops.stop().await;
}
