//! What a receiver asks for by its answer: no more of this delivery, or no more at all.

use ringback::engine::{Backlog, EndpointPatch};

use super::{Gate, World, address, events, outcomes};
use crate::support::database::{Database, on_both};
use crate::support::node::bounded;
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
    for (status, wish) in [(503, "abort-message, disable"), (410, "abort-message")] {
        let path = format!("/{status}");
        let both = Reply::status(status).header(WISH, wish);
        world.receiver.on(&path, [both, Reply::ok()]);
        let endpoint = world.endpoint(&path).await;
        world.events(2).await;
        world.node.send().await;
        assert_eq!(world.statuses(&endpoint).await, ["exhausted", "held"], "{status}");
        let first = &world.deliveries(&endpoint).await[0];
        assert_eq!(first.reason.as_deref(), Some("aborted_by_receiver"), "{status}");
        assert_eq!(world.view(&endpoint).await.state, "disabled");
        let engine = &world.node.engine;
        engine.enable_endpoint(&world.caller, endpoint.id, Backlog::Resume).await.unwrap();
        world.node.send().await;
        assert_eq!(world.statuses(&endpoint).await, ["exhausted", "delivered"], "{status}");
        engine.delete_endpoint(&world.caller, endpoint.id).await.unwrap();
    }
}

on_both!(async what_the_old_address_says_late_is_not_said_of_the_new_one);
async fn what_the_old_address_says_late_is_not_said_of_the_new_one(database: Database) {
    let world = World::start(&database).await;
    let manager = world.second_node(&database).await;
    for (number, reply) in
        [Reply::status(410), Reply::status(503).header(WISH, "disable")].into_iter().enumerate()
    {
        let (old, new) = (format!("/old-{number}"), format!("/new-{number}"));
        let endpoint = world.endpoint_with(&old, |settings| settings.schedule = Some(vec![])).await;
        world.event().await;
        let gate = Gate::on(&world.receiver, &old, reply);
        world.node.dispatcher.look().await.unwrap();
        world.node.dispatcher.step().await.unwrap();
        gate.wait_for_arrival();
        let patch = EndpointPatch {
            address: Some(address(&world.receiver.url(&new))),
            enabled: Some(true),
            ..EndpointPatch::default()
        };
        manager.engine.change_endpoint(&world.caller, endpoint.id, patch).await.unwrap();
        gate.open();
        bounded("the late answer", || world.node.dispatcher.in_flight() == 0).await;
        let shown = world.view(&endpoint).await;
        assert_eq!((shown.enabled, shown.failing_since), (true, None));
        let waiting = world.deliveries(&endpoint).await.remove(0);
        assert_eq!(
            (waiting.status, waiting.next_attempt_at),
            ("pending", Some(world.node.engine.now()))
        );

        world.node.send().await;
        assert_eq!((world.came(&old), world.came(&new)), (1, 1));
        let delivery = world.deliveries(&endpoint).await.remove(0);
        assert_eq!((delivery.status, delivery.attempts), ("delivered", 2));
        world.node.engine.delete_endpoint(&world.caller, endpoint.id).await.unwrap();
    }
}

on_both!(async one_that_was_disabled_meanwhile_keeps_what_it_did_not_take);
async fn one_that_was_disabled_meanwhile_keeps_what_it_did_not_take(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.event().await;
    let gate = Gate::on(&world.receiver, "/hook", Reply::status(410));
    world.node.dispatcher.look().await.unwrap();
    world.node.dispatcher.step().await.unwrap();
    gate.wait_for_arrival();
    world.node.engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    gate.open();
    bounded("the late answer", || world.node.dispatcher.in_flight() == 0).await;
    let reason = world.view(&endpoint).await.disabled_reason;
    assert_eq!(reason.as_deref(), Some("by_request"));
    assert_eq!(world.statuses(&endpoint).await, ["held"]);
    world.receiver.on("/hook", [Reply::ok()]);
    let resume = Backlog::Resume;
    world.node.engine.enable_endpoint(&world.caller, endpoint.id, resume).await.unwrap();
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["delivered"]);
}
