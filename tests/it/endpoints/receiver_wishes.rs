//! What a receiver asks for by its answer: no more of this delivery, or no more at all.

use super::{World, events, outcomes};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;

const WISH: &str = "Webhook-Delivery";

on_both!(async gone_disables_the_endpoint_and_the_others_hear_of_it);
async fn gone_disables_the_endpoint_and_the_others_hear_of_it(database: Database) {
    let world = World::start(&database).await;
    world.receiver.on("/gone", [Reply::status(410), Reply::ok()]);
    let gone = world
        .endpoint_with("/gone", |settings| settings.events = events(&["job.created", "endpoint.*"]))
        .await;
    let watching = events(&["endpoint.disabled"]);
    let watcher = world.endpoint_with("/watch", |settings| settings.events = watching).await;
    world.events(3).await;
    world.node.send().await;

    assert_eq!(world.came("/gone"), 1, "the first said it for all");
    let shown = world.view(&gone).await;
    assert_eq!((shown.enabled, shown.state), (false, "disabled"));
    assert_eq!(shown.disabled_reason.as_deref(), Some("gone"));
    assert_eq!(shown.date_disabled, Some(world.node.engine.now()));
    assert_eq!(world.statuses(&gone).await, ["held"; 3]);
    let first = world.whole(world.deliveries(&gone).await[0].id).await;
    assert_eq!(outcomes(&first), [("failed", Some(410))]);

    assert_eq!(world.statuses(&watcher).await, ["delivered"]);
    let told = world.receiver.log_of("/watch")[0].json();
    assert_eq!((&told["type"], &told["sequence"]), (&"endpoint.disabled".into(), &1.into()));
    let about = &told["data"];
    assert_eq!(about["id"], gone.id.to_string());
    assert_eq!((&about["enabled"], &about["disabledReason"]), (&false.into(), &"gone".into()));
    assert_eq!(about["url"], world.receiver.url("/gone"));
}

on_both!(async a_receiver_may_say_disable_with_any_answer);
async fn a_receiver_may_say_disable_with_any_answer(database: Database) {
    let world = World::start(&database).await;
    let cases = [(200, "delivered"), (204, "delivered"), (404, "held"), (503, "held")];
    for (status, first) in cases {
        let path = format!("/{status}");
        world.receiver.on(&path, [Reply::status(status).header(WISH, "disable"), Reply::ok()]);
        let endpoint = world.endpoint(&path).await;
        world.events(2).await;
        world.node.send().await;
        assert_eq!(world.statuses(&endpoint).await, [first, "held"], "{status}");
        let shown = world.view(&endpoint).await;
        let reason = shown.disabled_reason.as_deref();
        assert_eq!((shown.enabled, reason), (false, Some("disabled_by_receiver")), "{status}");
        assert_eq!(world.came(&path), 1, "{status}");
    }
}

on_both!(async a_receiver_may_end_one_delivery);
async fn a_receiver_may_end_one_delivery(database: Database) {
    let world = World::start(&database).await;
    let cases = [
        (503, "exhausted", Some("aborted_by_receiver")),
        (400, "exhausted", Some("aborted_by_receiver")),
        (200, "delivered", None),
    ];
    for (status, end, reason) in cases {
        let path = format!("/{status}");
        let refusal = Reply::status(status).header(WISH, "abort-message");
        world.receiver.on(&path, [refusal, Reply::ok()]);
        let endpoint = world.endpoint(&path).await;
        world.events(2).await;
        world.node.send().await;
        let listed = world.deliveries(&endpoint).await;
        assert_eq!((listed[0].status, listed[0].reason.as_deref()), (end, reason), "{status}");
        assert_eq!(listed[1].status, "delivered", "{status}");
        assert!(world.view(&endpoint).await.enabled, "{status}");
    }
}

on_both!(async one_that_wants_neither_this_nor_any_gets_neither);
async fn one_that_wants_neither_this_nor_any_gets_neither(database: Database) {
    let world = World::start(&database).await;
    let both = Reply::status(503).header(WISH, "abort-message, disable");
    world.receiver.on("/both", [both, Reply::ok()]);
    let endpoint = world.endpoint("/both").await;
    world.events(2).await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["exhausted", "held"]);
    assert!(!world.view(&endpoint).await.enabled);
}
