//! A deleted endpoint gets nothing any more, and what it was owed says why it ended.

use ringback::engine::{DeliveryFilter, DeliveryView, EngineError};

use super::{Gate, World, seconds};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;

impl World {
    /// Everything that is or was owed to anybody, oldest first.
    async fn all_deliveries(&self) -> Vec<DeliveryView> {
        let filter = DeliveryFilter::default();
        let listed = self
            .node
            .engine
            .list_deliveries(&self.caller, &filter, (i64::MAX, i64::MAX), 1_000)
            .await;
        let (mut listed, _) = listed.unwrap();
        listed.reverse();
        listed
    }
}

on_both!(async its_backlog_is_cancelled_with_the_reason);
async fn its_backlog_is_cancelled_with_the_reason(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.receiver.on("/hook", [Reply::ok(), Reply::status(500)]);
    world.event().await;
    world.node.send().await;
    world.event().await;
    world.node.send().await;
    // Delivered; waits for its retry; due; held.
    world.event().await;
    world.node.engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    world.event().await;
    world.node.engine.delete_endpoint(&world.caller, endpoint.id).await.unwrap();

    let ends: Vec<_> = world
        .all_deliveries()
        .await
        .into_iter()
        .map(|one| (one.status, one.reason, one.endpoint_id))
        .collect();
    let cancelled = ("cancelled", Some("endpoint_deleted".to_owned()), Some(endpoint.id));
    let delivered = ("delivered", None, Some(endpoint.id));
    assert_eq!(ends, [delivered, cancelled.clone(), cancelled.clone(), cancelled]);
    world.wait(seconds(86_400)).await;
    world.event().await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 2);
    let engine = &world.node.engine;
    let gone = engine.find_endpoint(&world.caller, endpoint.id).await;
    assert!(matches!(gone, Err(EngineError::NotFound { .. })));
    let again = engine.delete_endpoint(&world.caller, endpoint.id).await;
    assert!(matches!(again, Err(EngineError::NotFound { .. })));
    let (listed, _) =
        engine.list_endpoints(&world.caller, (i64::MAX, i64::MAX), 100).await.unwrap();
    assert!(listed.is_empty());
    let first = world.all_deliveries().await[0].id;
    let redelivered = engine.redeliver(&world.caller, first).await;
    assert!(matches!(redelivered, Err(EngineError::ReceiverDeleted(_))));
}

on_both!(async what_is_under_way_ends_by_itself_and_is_not_tried_again);
async fn what_is_under_way_ends_by_itself_and_is_not_tried_again(database: Database) {
    let world = World::start(&database).await;
    let cases = [(200, "delivered", None), (503, "cancelled", Some("endpoint_deleted"))];
    for (status, end, reason) in cases {
        let path = format!("/{status}");
        let endpoint = world.endpoint(&path).await;
        let gate = Gate::on(&world.receiver, &path, Reply::status(status));
        world.event().await;
        world.node.dispatcher.look().await.unwrap();
        world.node.dispatcher.step().await.unwrap();
        gate.wait_for_arrival();
        world.node.engine.delete_endpoint(&world.caller, endpoint.id).await.unwrap();
        let of_it = async || world.all_deliveries().await.pop().expect("the newest");
        assert_eq!(of_it().await.status, "sending");
        gate.open();
        world.node.send().await;
        world.wait(seconds(60)).await;
        world.node.send().await;
        let delivery = of_it().await;
        assert_eq!((delivery.status, delivery.reason.as_deref()), (end, reason));
        assert_eq!((delivery.attempts, world.came(&path)), (1, 1));
    }
}

on_both!(async a_deletion_that_was_cut_off_is_finished);
async fn a_deletion_that_was_cut_off_is_finished(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.events(5).await;
    // The node dies right after the commit that deletes it; half is found by a claim.
    let at = world.node.engine.now().0;
    let sql = format!(
        "UPDATE receivers SET deleted_at = {at}, disabled_at = {at}, version = version + 1, \
         settling = 1; UPDATE applications SET version = version + 1"
    );
    database.connect().batch(&sql).unwrap();
    world.node.dispatcher.look().await.unwrap();
    world.node.dispatcher.step().await.unwrap();
    assert_eq!(world.node.engine.settle_backlogs().await.unwrap(), 1);
    let all = world.all_deliveries().await;
    assert_eq!(all.len(), 5);
    for delivery in all {
        assert_eq!(delivery.status, "cancelled");
        assert_eq!(delivery.reason.as_deref(), Some("endpoint_deleted"));
        assert_eq!(delivery.endpoint_id, Some(endpoint.id));
    }
    world.event().await;
    assert_eq!(world.all_deliveries().await.len(), 5, "nothing more is owed");
    assert_eq!(world.came("/hook"), 0);
}
