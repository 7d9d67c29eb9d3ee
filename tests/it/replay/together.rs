//! Replays beside each other, beside redeliveries and beside everybody else: none is in another's
//! way.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringback::clock::Clock;
use ringback::engine::{
    Caller, DeliveryFilter, EndpointPatch, EndpointSettings, Ordering, REPLAY_QUEUE, ReplayStep,
};
use ringback::formats::Formats;
use ringback::lifecycle::Status;
use uuid::Uuid;

use super::resume::late_comer;
use super::{PATIENCE, all_of, between, outcome, submit};
use crate::support::database::{Backend, Database, block_on};
use crate::support::loops::Loops;
use crate::support::node::{Node, scripted_job};
use crate::support::receiver::Receiver;
use crate::support::shop::{ordered, register};
use crate::support::wait::eventually_async;

const JOBS: usize = 100;

fn wanting(events: &[&str]) -> EndpointSettings {
    EndpointSettings {
        events: Some(events.iter().map(|&name| name.to_owned()).collect()),
        types: Some(vec!["urn:job:test.scripted".to_owned()]),
        ..ordered(Ordering::None, &[])
    }
}

/// Two endpoints that got a third of a past and want all of it now.
async fn two_endpoints(nodes: &[Arc<Node>; 2], caller: &Caller, receiver: &Receiver) -> [Uuid; 2] {
    let node = &nodes[0];
    let settings = || wanting(&["job.created"]);
    let one = register(node, caller, receiver, "/one", settings()).await;
    let two = register(node, caller, receiver, "/two", settings()).await;
    for _ in 0..JOBS {
        node.submit(caller, scripted_job()).await;
    }
    node.work().await;
    while node.engine.relay().await.expect("the relay") {}
    for node in nodes {
        node.beat().await;
    }
    eventually_async("the past to be delivered", PATIENCE, async || {
        for node in nodes {
            node.send().await;
        }
        (receiver.count() >= 2 * JOBS).then_some(())
    })
    .await;
    for endpoint in [one, two] {
        let events = wanting(&["job.*"]).events;
        let patch = EndpointPatch { events: Some(events), ..EndpointPatch::default() };
        node.engine.change_endpoint(caller, endpoint, patch).await.expect("it is changed");
    }
    [one, two]
}

/// Ids of events that came to a path because somebody asked for them again.
fn came_again(receiver: &Receiver, path: &str) -> BTreeSet<String> {
    let log = receiver.log_of(path);
    let again = log.iter().filter(|one| one.header("webhook-redelivery").is_some());
    again.map(|one| one.signed().webhook_id().to_owned()).collect()
}

#[test]
fn replays_and_redeliveries_of_one_past_go_on_beside_each_other() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let start = || Node::start_with(&database, Clock::system(), Formats::standard_only());
        let nodes = [Arc::new(start().await), Arc::new(start().await)];
        let (caller, _) = nodes[0].application("shop").await;
        let receiver = Receiver::start();
        let [one, two] = two_endpoints(&nodes, &caller, &receiver).await;
        let now = nodes[0].engine.now();
        let loops = nodes.each_ref().map(|node| Loops::start(node, 1));

        let mut replays = Vec::new();
        // The last two go to the same endpoint.
        for (node, endpoint) in [(0, one), (1, two), (0, two)] {
            let order = between(endpoint, now.plus_millis(-3_600_000), now.plus_millis(1));
            let made = nodes[node].engine.submit_replay(&caller, order, None, "r").await;
            replays.push(made.expect("the replay is taken").id);
        }
        let redelivering = nodes.each_ref().map(|node| {
            let (node, caller) = (Arc::clone(node), caller.clone());
            tokio::spawn(async move {
                for _ in 0..4 {
                    let all = DeliveryFilter::default();
                    let done = node
                        .engine
                        .redeliver_matching(&caller, &all, (i64::MAX, i64::MAX), false)
                        .await;
                    done.expect("nothing is in its way");
                }
            })
        });
        for task in redelivering {
            task.await.expect("all are owed again");
        }
        for id in replays {
            let job = eventually_async("the replay to end", PATIENCE, async || {
                let job = nodes[0].engine.find_job(&caller, id).await.expect("it is there");
                job.state.status.is_final().then_some(job)
            })
            .await;
            let state = &job.state;
            assert_eq!((state.status, state.attempt), (Status::Success, 1), "{:?}", state.failure);
            let types = nodes[0].event_types(&caller, id).await;
            assert!(!types.contains(&"job.retried".to_owned()), "no try was lost: {types:?}");
        }
        for path in ["/one", "/two"] {
            eventually_async("every event to come again", PATIENCE, async || {
                (came_again(&receiver, path).len() >= 3 * JOBS).then_some(())
            })
            .await;
            assert_eq!(came_again(&receiver, path).len(), 3 * JOBS);
        }
        for stopping in loops {
            stopping.stop().await;
        }
    });
}

#[test]
fn a_replay_waits_for_nobody_who_holds_its_subjects() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let (shop, endpoint) = late_comer(&database, 5).await;
        let order = all_of(&shop, endpoint);
        let job = submit(&shop, &order).await;
        let engine = &shop.node.engine;
        let claimed = engine.claim(vec![(REPLAY_QUEUE.to_owned(), 1)], 1).await.unwrap().jobs;
        let mut held = database.hold(
            "SELECT 1 FROM live_jobs FOR UPDATE; SELECT 1 FROM jobs FOR UPDATE; \
             SELECT 1 FROM groups FOR UPDATE",
        );
        let (step, progress) = engine.replay_page(&claimed[0].job, &order).await.unwrap();
        assert_eq!((step, progress.owed), (ReplayStep::Done, 5));
        let owed = shop.owed_to(endpoint).await;
        let about_others = owed.iter().filter(|one| one.job_id != Some(job.id));
        assert_eq!(about_others.count(), 5);
        held.rollback();
    });
}

#[test]
fn a_database_that_goes_away_for_a_moment_costs_no_try() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let (shop, endpoint) = late_comer(&database, 5).await;
        let job = submit(&shop, &all_of(&shop, endpoint)).await;
        let held = database.hold("LOCK TABLE checkpoints IN ACCESS EXCLUSIVE MODE");
        shop.node.runner.look().await.unwrap();
        shop.node.runner.step().await.unwrap();
        database.cut_off_whoever_waits();
        drop(held);
        eventually_async("the replay to end", PATIENCE, async || {
            (shop.node.runner.busy() == 0).then_some(())
        })
        .await;
        let job = shop.node.job(&shop.caller, job.id).await;
        let state = &job.state;
        assert_eq!((state.status, state.attempt), (Status::Success, 1), "{:?}", state.failure);
        assert_eq!(outcome(&job), (5, 0));
    });
}
