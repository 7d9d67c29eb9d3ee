//! The log of attempts, and deliveries whose sender dies in the middle.

use std::sync::mpsc;
use std::time::Duration;

use ringback::delivery::{Settings, Step};
use ringback::engine::{ClosedAttempt, Next, OwedDelivery, Record};
use ringback::formats::Formats;

use super::{World, outcomes};
use crate::support::database::{Database, on_both};
use crate::support::node::{Node, bounded, callback, wish};
use crate::support::receiver::Reply;

/// Shorter than the deadline of an attempt.
const PATIENCE: Duration = Duration::from_secs(30);

on_both!(async an_attempt_is_written_down_before_its_request);
async fn an_attempt_is_written_down_before_its_request(database: Database) {
    let world = World::start(&database).await;
    let (arrived, arrival) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    world.receiver.on_with("/hook", move |_| {
        arrived.send(()).expect("the test waits");
        released.recv_timeout(PATIENCE).expect("the test lets go");
        Reply::ok()
    });
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    world.node.dispatcher.look().await.unwrap();
    assert_eq!(world.node.dispatcher.step().await.unwrap(), Step::Claimed(1));
    arrival.recv_timeout(PATIENCE).expect("the request arrives");

    let sending = world.delivery_of(job.id).await;
    assert_eq!((sending.status, sending.attempts), ("sending", 1));
    assert_eq!(outcomes(&sending), [(1, "started")]);
    let attempt = &sending.attempt_log.as_ref().unwrap()[0];
    assert_eq!((attempt.finished_at, attempt.response_status), (None, None));

    release.send(()).unwrap();
    bounded("the delivery to end", || world.node.dispatcher.in_flight() == 0).await;
    let delivered = world.delivery_of(job.id).await;
    assert_eq!((delivered.status, delivered.attempts), ("delivered", 1));
    assert_eq!(outcomes(&delivered), [(1, "delivered")]);
}

/// Claims everything that is due, as a node does that dies right after.
async fn claim_all(node: &Node) -> Vec<OwedDelivery> {
    let waiting = node.engine.look_for_lanes().await.unwrap().waiting;
    let lanes = waiting.into_iter().map(|(lane, _)| wish(lane)).collect();
    node.engine.claim_deliveries(lanes).await.unwrap()
}

/// That a delivery was received.
pub fn received(owed: &OwedDelivery, now: i64) -> Record {
    let closed = ClosedAttempt {
        delivery_id: owed.key,
        number: owed.attempt,
        outcome: "delivered",
        finished_at: now,
        response_status: Some(200),
        ..ClosedAttempt::default()
    };
    let (delivery, subject, token) = (owed.key, owed.subject, owed.token);
    Record {
        delivery,
        receiver: owed.receiver.key,
        receiver_version: owed.receiver.version,
        subject,
        token,
        closed,
        next: Next::Delivered,
        receiver_gone: false,
        disable: None,
        health: None,
        lane: None,
        is_in_order: owed.receiver.ordering != ringback::engine::Ordering::None,
    }
}

on_both!(async a_sender_that_dies_leaves_an_unknown_attempt_and_the_next_one_sends_again);
async fn a_sender_that_dies_leaves_an_unknown_attempt_and_the_next_one_sends_again(
    database: Database,
) {
    let world = World::start(&database).await;
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    let owed = claim_all(&world.node).await.remove(0);
    world.node.send_by_hand(&owed).await.expect("it is received");
    assert_eq!(world.node.engine.rescue().await.unwrap(), 0, "the node is alive");
    world.node.engine.leave().await.unwrap();

    world.node.clock.shift_millis(2_000);
    let other =
        Node::start_with(&database, world.node.clock.clone(), Formats::standard_only()).await;
    assert_eq!(other.engine.rescue().await.unwrap(), 1);
    other.send().await;
    let delivery = world.delivery_of(job.id).await;
    assert_eq!((delivery.status, delivery.attempts), ("delivered", 2));
    assert_eq!(outcomes(&delivery), [(1, "unknown"), (2, "delivered")]);
    let log = world.receiver.log();
    assert_eq!(log.len(), 2);
    assert_eq!(log[0].webhook_id(), log[1].webhook_id());
    assert_eq!(log[0].body, log[1].body);
    assert_eq!(log[1].header("webhook-attempt"), Some("2"));
    for name in ["webhook-timestamp", "webhook-signature"] {
        assert_ne!(log[0].header(name), log[1].header(name), "{name} is made anew");
    }
    for request in &log {
        request.signed();
    }

    // The dead one was only frozen: its record comes too late.
    let late = received(&owed, world.node.engine.now().0);
    assert!(!world.node.engine.record(late).await.unwrap().held);
    assert_eq!(outcomes(&world.delivery_of(job.id).await), [(1, "unknown"), (2, "delivered")]);
}

on_both!(async a_late_sender_disturbs_nobody_when_it_hands_back);
async fn a_late_sender_disturbs_nobody_when_it_hands_back(database: Database) {
    let mut world = World::start(&database).await;
    let deadline = Duration::from_secs(60);
    world.send_by(Settings { deadline, ..Settings::default() }, 0.0).await;
    world.receiver.on("/hook", [Reply::silence()]);
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    world.node.dispatcher.look().await.unwrap();
    assert_eq!(world.node.dispatcher.step().await.unwrap(), Step::Claimed(1));
    world.receiver.wait_for(1, PATIENCE);

    // Its lease passes to another node while it waits for the answer.
    world.node.engine.leave().await.unwrap();
    let other =
        Node::start_with(&database, world.node.clock.clone(), Formats::standard_only()).await;
    other.engine.rescue().await.unwrap();
    let owed = claim_all(&other).await.remove(0);
    assert_eq!(owed.attempt, 2);
    world.node.dispatcher.drain(Duration::ZERO).await;
    assert_eq!(world.delivery_of(job.id).await.status, "sending", "the other one's lease holds");
    assert!(other.engine.record(received(&owed, other.engine.now().0)).await.unwrap().held);
    let delivery = world.delivery_of(job.id).await;
    assert_eq!(outcomes(&delivery), [(1, "unknown"), (2, "delivered")]);
}

on_both!(async a_shutdown_hands_back_what_is_under_way);
async fn a_shutdown_hands_back_what_is_under_way(database: Database) {
    let world = World::start(&database).await;
    world.receiver.on("/hook", [Reply::silence(), Reply::ok()]);
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    world.node.dispatcher.look().await.unwrap();
    assert_eq!(world.node.dispatcher.step().await.unwrap(), Step::Claimed(1));
    world.receiver.wait_for(1, PATIENCE);
    world.node.dispatcher.drain(Duration::ZERO).await;
    let waiting = world.delivery_of(job.id).await;
    assert_eq!(waiting.status, "pending");
    assert_eq!(waiting.next_attempt_at, Some(world.node.engine.now()), "due at once");

    let other =
        Node::start_with(&database, world.node.clock.clone(), Formats::standard_only()).await;
    world.node.engine.leave().await.unwrap();
    other.beat().await;
    other.send().await;
    let delivery = world.delivery_of(job.id).await;
    assert_eq!(outcomes(&delivery), [(1, "unknown"), (2, "delivered")]);
}

on_both!(async a_late_record_does_not_pass_for_the_holders);
async fn a_late_record_does_not_pass_for_the_holders(database: Database) {
    let world = World::start(&database).await;
    let job = world.done(callback(&world.receiver.url("/hook"))).await;
    let late = claim_all(&world.node).await.remove(0);
    world.node.engine.leave().await.unwrap();
    let other =
        Node::start_with(&database, world.node.clock.clone(), Formats::standard_only()).await;
    other.engine.rescue().await.unwrap();
    let held = claim_all(&other).await.remove(0);
    assert!(held.token > late.token);
    let now = world.node.engine.now().0;
    assert!(!world.node.engine.record(received(&late, now)).await.unwrap().held);
    let delivery = world.delivery_of(job.id).await;
    assert_eq!(delivery.status, "sending");
    assert_eq!(outcomes(&delivery), [(1, "unknown"), (2, "started")]);
    assert!(other.engine.record(received(&held, now)).await.unwrap().held);
}
