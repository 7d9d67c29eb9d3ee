//! A replay goes on where it was: after a death, after a wait for its receiver, until it is
//! stopped.

use ringback::engine::{EndpointSettings, Ordering, REPLAY_QUEUE, ReplayStep, StoredJob};
use ringback::formats::Formats;
use ringback::lifecycle::Status;
use uuid::Uuid;

use super::{PATIENCE, all_of, outcome, submit, work_and_send};
use crate::support::database::{Database, on_both};
use crate::support::node::{Node, bounded, scripted_job};
use crate::support::shop::{Shop, ids, ordered};
use crate::support::wait::eventually_async;

/// Deliveries of replays that nobody has tried yet, at most.
const WINDOW: usize = 200;

/// An endpoint that is younger than so many events.
pub(super) async fn late_comer(database: &Database, events: usize) -> (Shop, Uuid) {
    let shop = Shop::open(database).await;
    let mut jobs = vec![scripted_job(); events];
    for job in &mut jobs {
        job.run_at = Some(shop.node.engine.now().plus_millis(3_600_000));
    }
    shop.node.engine.submit_batch(&shop.caller, jobs, None, None, "r").await.unwrap();
    shop.place().await;
    let settings = EndpointSettings { events: Some(vec!["job.created".to_owned()]), ..once() };
    let endpoint = shop.register("/hook", settings).await;
    (shop, endpoint)
}

fn once() -> EndpointSettings {
    ordered(Ordering::None, &[])
}

/// Deliveries of the replay and how many of them were sent.
async fn owed(shop: &Shop, endpoint: Uuid) -> (usize, usize) {
    let owed = shop.owed_to(endpoint).await;
    let replayed = owed.iter().filter(|one| one.manner == "replay");
    let sent = replayed.clone().filter(|one| one.attempts > 0).count();
    (replayed.count(), sent)
}

on_both!(async a_replay_survives_its_node_and_owes_nothing_twice);
async fn a_replay_survives_its_node_and_owes_nothing_twice(database: Database) {
    const EVENTS: usize = 500;
    let (mut shop, endpoint) = late_comer(&database, EVENTS).await;
    let order = all_of(&shop, endpoint);
    let job = submit(&shop, &order).await;
    // Each node owes one page, and goes; part of it is sent by the next.
    let mut last = 0.0;
    for page in 1..=2 {
        let engine = &shop.node.engine;
        let claimed = engine.claim(vec![(REPLAY_QUEUE.to_owned(), 1)], 1).await.unwrap().jobs;
        let (step, progress) = engine.replay_page(&claimed[0].job, &order).await.unwrap();
        assert_eq!((step, progress.owed), (ReplayStep::More, (page * WINDOW) as i64));
        assert!(progress.fraction() > last && progress.fraction() < 1.0, "it grows");
        last = progress.fraction();
        let (step, same) = engine.replay_page(&claimed[0].job, &order).await.unwrap();
        assert_eq!((step, same), (ReplayStep::Wait, progress), "nothing of it was sent yet");
        engine.leave().await.unwrap();
        let clock = shop.node.clock.clone();
        shop.node = Node::start_with(&database, clock, Formats::standard_only()).await;
        shop.node.engine.rescue().await.unwrap();
        shop.send().await;
        assert_eq!(owed(&shop, endpoint).await, (page * WINDOW, page * WINDOW));
    }
    work_and_send(&shop).await;

    let job = shop.node.job(&shop.caller, job.id).await;
    assert_eq!((job.state.status, job.state.lost_nodes), (Status::Success, 2));
    assert_eq!(outcome(&job), (EVENTS as i64, 0), "all of it, whoever owed it");
    let mut came = ids(&shop.receiver.log_of("/hook"));
    assert_eq!(came.len(), EVENTS + 1, "each once, and the replay's own event");
    came.sort();
    came.dedup();
    assert_eq!(came.len(), EVENTS + 1);
}

/// Starts a replay that nobody sends for, and waits until its window is full.
async fn started(shop: &Shop, endpoint: Uuid) -> StoredJob {
    let job = submit(shop, &all_of(shop, endpoint)).await;
    shop.node.runner.look().await.unwrap();
    shop.node.runner.step().await.unwrap();
    eventually_async("the window to be full", PATIENCE, async || {
        (owed(shop, endpoint).await.0 >= WINDOW).then_some(())
    })
    .await;
    job
}

on_both!(async a_replay_waits_for_its_receiver);
async fn a_replay_waits_for_its_receiver(database: Database) {
    let (shop, endpoint) = late_comer(&database, 450).await;
    let job = started(&shop, endpoint).await;
    // It tells how far it is while it waits.
    eventually_async("progress to be told", PATIENCE, async || {
        let job = shop.node.engine.find_job(&shop.caller, job.id).await.unwrap();
        let progress = job.state.progress;
        (progress > 0.3 && progress < 0.6).then_some(())
    })
    .await;
    assert_eq!(owed(&shop, endpoint).await, (WINDOW, 0), "and owes no more meanwhile");
    eventually_async("the replay to end", PATIENCE, async || {
        let (owed, sent) = owed(&shop, endpoint).await;
        assert!(owed <= sent + WINDOW, "{owed} owed, {sent} sent");
        shop.send().await;
        (shop.node.runner.busy() == 0).then_some(())
    })
    .await;
    shop.send().await;
    assert_eq!(owed(&shop, endpoint).await, (450, 450));
    let job = shop.node.job(&shop.caller, job.id).await;
    assert_eq!((job.state.status, job.state.progress), (Status::Success, 1.0));
}

on_both!(async a_replay_that_is_stopped_leaves_little_behind);
async fn a_replay_that_is_stopped_leaves_little_behind(database: Database) {
    let (shop, endpoint) = late_comer(&database, 1_000).await;
    let job = started(&shop, endpoint).await;
    let stopping = shop.node.engine.stop(&shop.caller, job.id).await.unwrap();
    assert_eq!(stopping.state.status, Status::Stopping);
    shop.node.runner.check_leases().await.unwrap();
    bounded("the replay to end", || shop.node.runner.busy() == 0).await;
    assert_eq!(shop.node.job(&shop.caller, job.id).await.state.status, Status::Stopped);
    assert_eq!(owed(&shop, endpoint).await, (WINDOW, 0));
    shop.send().await;
    shop.send_after(60).await;
    assert_eq!(owed(&shop, endpoint).await, (WINDOW, WINDOW), "what it had owed, and no more");

    // Another one begins anew: what has come meanwhile comes again.
    let again = submit(&shop, &all_of(&shop, endpoint)).await;
    work_and_send(&shop).await;
    let again = shop.node.job(&shop.caller, again.id).await;
    // One of them says that the first replay was created.
    assert_eq!(outcome(&again), (1_001, 0));
}
