//! A ping goes the way of every delivery, but to one endpoint, once, and before all else.

use ringback::engine::DeliveryView;

use super::{Endpoint, World, events, nervous, outcomes, seconds};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;

impl World {
    async fn ping(&self, endpoint: &Endpoint) -> DeliveryView {
        self.node.clock.shift_millis(1);
        let pinged = self.node.engine.ping_endpoint(&self.caller, endpoint.id, "request").await;
        let id = pinged.expect("it is owed");
        self.node.send().await;
        self.whole(id).await
    }
}

on_both!(async a_ping_goes_to_one_endpoint_whatever_that_wants);
async fn a_ping_goes_to_one_endpoint_whatever_that_wants(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    let everything = world.endpoint_with("/all", |settings| settings.events = events(&["*"])).await;
    let delivery = world.ping(&endpoint).await;
    assert_eq!((delivery.status, delivery.manner), ("delivered", "ping"));
    assert_eq!(delivery.event_type, "endpoint.pinged");
    assert_eq!(outcomes(&delivery), [("delivered", Some(200))]);
    assert!(world.deliveries(&everything).await.is_empty());
    let log = world.receiver.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].header("webhook-redelivery"), Some("ping"));
    log[0].verify(&endpoint.key.shown).expect("signed as all are");
    let body = log[0].json();
    assert_eq!((&body["type"], &body["sequence"]), (&"endpoint.pinged".into(), &1.into()));
    assert_eq!(body["data"]["id"], endpoint.id.to_string());
}

on_both!(async a_ping_is_tried_once_however_it_ends);
async fn a_ping_is_tried_once_however_it_ends(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    for (reply, reason) in [
        (Reply::status(500), "http_500"),
        (Reply::status(404), "http_404"),
        (Reply::ok().body("twelve bytes").cut_after(5), "body_closed"),
    ] {
        world.receiver.on("/hook", [reply]);
        let delivery = world.ping(&endpoint).await;
        assert_eq!((delivery.status, delivery.attempts), ("exhausted", 1));
        assert_eq!(delivery.reason.as_deref(), Some(reason));
    }
    world.wait(seconds(86_400)).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 3);

    world.receiver.on("/hook", [Reply::status(410)]);
    let delivery = world.ping(&endpoint).await;
    assert_eq!((delivery.status, delivery.reason.as_deref()), ("exhausted", Some("receiver_gone")));
    let shown = world.view(&endpoint).await;
    assert_eq!(shown.disabled_reason.as_deref(), Some("gone"), "an answer counts as any other");
}

on_both!(async a_disabled_endpoint_can_be_pinged);
async fn a_disabled_endpoint_can_be_pinged(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.events(2).await;
    world.node.engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    let delivery = world.ping(&endpoint).await;
    assert_eq!(delivery.status, "delivered");
    assert_eq!(world.came("/hook"), 1, "the backlog is still held");
    assert!(!world.view(&endpoint).await.enabled);
    assert_eq!(world.statuses(&endpoint).await, ["held", "held", "delivered"]);
}

on_both!(async a_ping_is_tried_at_once_on_a_closed_lane_and_before_the_backlog);
async fn a_ping_is_tried_at_once_on_a_closed_lane_and_before_the_backlog(database: Database) {
    let mut world = World::start(&database).await;
    world.send_by(nervous()).await;
    world.receiver.on("/hook", [Reply::status(500)]);
    let endpoint = world.endpoint("/hook").await;
    world.events(3).await;
    world.node.send().await;
    world.events(5).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 3, "closed");
    let failed = world.ping(&endpoint).await;
    assert_eq!((failed.status, failed.attempts), ("exhausted", 1));
    assert_eq!(world.came("/hook"), 4, "the ping and nothing else");
    let until = world.stats(&endpoint).await.lane.closed_until;
    assert_eq!(until, Some(world.node.engine.now().plus(seconds(60))), "it counts as a probe");
    let oldest = world.stats(&endpoint).await.oldest_due.expect("a backlog");

    world.receiver.on("/hook", [Reply::ok()]);
    let delivered = world.ping(&endpoint).await;
    assert_eq!(delivered.status, "delivered");
    assert_eq!(world.came("/hook"), 10, "it opened the lane for the five that are due");
    assert!(world.stats(&endpoint).await.oldest_due.expect("three retries") > oldest);
    assert!(delivered.next_attempt_at.is_none() && delivered.date_created > oldest);
}

on_both!(async a_ping_is_a_use_of_the_secret);
async fn a_ping_is_a_use_of_the_secret(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.ping(&endpoint).await;
    world.node.dispatcher.flush_secret_uses().await.unwrap();
    let secrets = world.node.engine.endpoint_secrets(&world.caller, endpoint.id).await.unwrap();
    assert!(secrets[0].date_last_used.is_some());
}
