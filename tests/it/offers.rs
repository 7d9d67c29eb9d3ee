//! Work that is taken in the transaction that makes it ready: no loop runs here, and nobody looks.

mod at_once;

use std::sync::Arc;
use std::time::Duration;

use ringback::engine::{Caller, NewJob, REPLAY_QUEUE};
use ringback::handlers;
use ringback::handlers::runner::{Limits, Runner};
use ringback::lifecycle::Status;
use uuid::Uuid;

use crate::endpoints::Gate;
use crate::support::database::{Database, number, on_both};
use crate::support::node::{Node, bounded, callback, of_job, scripted_job};
use crate::support::receiver::{Receiver, Reply};

struct World {
    node: Node,
    caller: Caller,
    receiver: Receiver,
}

impl World {
    async fn start(database: &Database) -> World {
        let node = Node::start(database).await;
        let (caller, secret) = node.application("shop").await;
        let receiver = Receiver::start();
        receiver.trust(&secret);
        // It reads what the last owners of its lanes left.
        node.dispatcher.step().await.unwrap();
        node.runner.take_offers();
        node.dispatcher.take_offers();
        World { node, caller, receiver }
    }

    async fn submit(&self, path: &str) -> Uuid {
        let mut job = scripted_job();
        job.callback = Some(callback(&self.receiver.url(path)));
        self.node.submit(&self.caller, job).await.id
    }

    async fn quiet(&self) {
        let Node { runner, dispatcher, .. } = &self.node;
        bounded("all to end", || runner.busy() + dispatcher.in_flight() == 0).await;
    }

    async fn statuses(&self, job: Uuid) -> Vec<&'static str> {
        let all = (i64::MAX, i64::MAX);
        let listed = self.node.engine.list_deliveries(&self.caller, &of_job(job), all, 10).await;
        listed.unwrap().0.iter().map(|delivery| delivery.status).collect()
    }
}

on_both!(async a_job_and_its_webhook_need_no_claim_of_their_own);
async fn a_job_and_its_webhook_need_no_claim_of_their_own(database: Database) {
    let world = World::start(&database).await;
    for _ in 0..3 {
        let job = world.submit("/hook").await;
        world.quiet().await;
        let state = world.node.job(&world.caller, job).await.state;
        assert_eq!((state.status, state.attempt), (Status::Success, 1));
        assert_eq!(world.statuses(job).await, ["delivered"]);
    }
    assert_eq!(world.receiver.count(), 3);
}

on_both!(async what_there_is_no_room_for_waits_for_its_turn);
async fn what_there_is_no_room_for_waits_for_its_turn(database: Database) {
    let world = World::start(&database).await;
    // One delivery shows the limits of a lane; until then there is room for no other.
    let gate = Gate::on(&world.receiver, "/hook", Reply::ok());
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(world.submit("/hook").await);
        world.node.settle().await;
    }
    bounded("the first one to arrive", || gate.arrivals.try_recv().is_ok()).await;
    let owed = "SELECT COUNT(*) AS number FROM live_deliveries";
    assert_eq!(number(&database, owed), 4);
    gate.open();
    world.quiet().await;
    world.node.send().await;
    for job in jobs {
        assert_eq!(world.statuses(job).await, ["delivered"]);
    }
    assert_eq!(world.receiver.count(), 4);
}

on_both!(async an_offer_that_cannot_be_taken_spoils_nothing);
async fn an_offer_that_cannot_be_taken_spoils_nothing(database: Database) {
    let world = World::start(&database).await;
    // Behind the product's back a job becomes unreadable that is ready and first in its queue.
    let mut first = scripted_job();
    first.priority = 9;
    first.run_at = Some(world.node.engine.now().plus_millis(1_000));
    let first = world.node.submit(&world.caller, first).await.id;
    let sql = "UPDATE events SET data = '{' || data; UPDATE live_jobs SET phase = 1";
    database.connect().batch(sql).expect("SQL of ours");

    let job = world.submit("/hook").await;
    assert_eq!(world.node.runner.busy(), 0);
    let state = world.node.job(&world.caller, job).await.state;
    assert_eq!((state.status, state.sequence), (Status::Pending, 1), "taken, and nothing else");
    // Readable again it is taken with the next offer, and so is what stood behind it: the room that
    // was kept for them is free.
    let mend = "UPDATE events SET data = substr(data, 2) WHERE data LIKE '{{%'";
    database.connect().batch(mend).expect("SQL of ours");
    let next = world.submit("/hook").await;
    world.quiet().await;
    for job in [first, job, next] {
        let state = world.node.job(&world.caller, job).await.state;
        assert_eq!((state.status, state.attempt), (Status::Success, 1));
    }
}

on_both!(async a_node_that_ends_takes_nothing_more);
async fn a_node_that_ends_takes_nothing_more(database: Database) {
    let world = World::start(&database).await;
    world.node.dispatcher.drain(Duration::ZERO).await;
    let told = world.submit("/hook").await;
    world.quiet().await;
    assert_eq!(world.node.job(&world.caller, told).await.state.status, Status::Success);
    assert_eq!(world.statuses(told).await, ["pending"]);
    world.node.runner.drain(Duration::ZERO).await;
    let job = world.submit("/hook").await;
    assert_eq!(world.node.job(&world.caller, job).await.state.status, Status::Pending);
    assert_eq!(world.receiver.count(), 0);
}

/// Takes what it is offered, and has one slot for the queue `narrow`.
fn with_a_narrow_queue(node: &Node) -> Arc<Runner> {
    let limits = Limits::new(64, [("narrow".to_owned(), 1)].into(), Duration::from_secs(60));
    let (services, metrics) = (Arc::clone(&node.services), Arc::default());
    let runner = Arc::new(Runner::new(services, handlers::all(), metrics, limits, || 0.0));
    runner.take_offers();
    runner
}

fn noop(queue: &str, specification: serde_json::Value) -> NewJob {
    NewJob {
        job_type: "urn:job:noop".to_owned(),
        queue: queue.to_owned(),
        specification,
        ..scripted_job()
    }
}

on_both!(async queues_with_slots_of_their_own_keep_to_them);
async fn queues_with_slots_of_their_own_keep_to_them(database: Database) {
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    let runner = with_a_narrow_queue(&node);
    for (queue, status) in
        [("wide", Status::Success), ("narrow", Status::Pending), (REPLAY_QUEUE, Status::Pending)]
    {
        let job = node.submit(&caller, noop(queue, serde_json::Value::Null)).await;
        bounded("its try to end", || runner.busy() == 0).await;
        assert_eq!(node.job(&caller, job.id).await.state.status, status, "{queue}");
    }
}

on_both!(async a_queue_that_is_full_keeps_no_other_from_being_taken);
async fn a_queue_that_is_full_keeps_no_other_from_being_taken(database: Database) {
    let node = Node::start(&database).await;
    let (caller, _) = node.application("shop").await;
    let runner = with_a_narrow_queue(&node);
    for _ in 0..2 {
        node.submit(&caller, noop("narrow", serde_json::json!({"durationSeconds": 600}))).await;
    }
    runner.look().await.unwrap();
    runner.step().await.unwrap();
    // There is still one to be had of it, and no slot.
    runner.look().await.unwrap();
    runner.step().await.unwrap();
    let wide = node.submit(&caller, noop("wide", serde_json::Value::Null)).await;
    bounded("the other one's try to end", || runner.busy() == 1).await;
    assert_eq!(node.job(&caller, wide.id).await.state.status, Status::Success);
    runner.drop_all();
    bounded("the full queue's try to end", || runner.busy() == 0).await;
}
