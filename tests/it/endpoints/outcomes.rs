//! What answers and failures mean, and when the next try comes.

use std::time::Duration;

use ringback::engine::{ClientErrors, EndpointPatch};

use super::{World, address, outcomes, register, seconds};
use crate::support::database::{Database, on_both};
use crate::support::machine::free_port;
use crate::support::receiver::{Receiver, Reply};

on_both!(async any_2xx_is_received);
async fn any_2xx_is_received(database: Database) {
    let world = World::start(&database).await;
    for status in [200, 201, 202, 204, 299] {
        let path = format!("/{status}");
        world.receiver.on(&path, [Reply::status(status)]);
        let endpoint = world.endpoint(&path).await;
        world.event().await;
        world.node.send().await;
        let first = &world.deliveries(&endpoint).await[0];
        assert_eq!(
            (first.status, first.attempts, first.endpoint_id),
            ("delivered", 1, Some(endpoint.id))
        );
        assert_eq!((first.manner, first.reason.as_deref(), first.blocking), ("event", None, false));
    }
    assert_eq!(world.receiver.log()[0].header("webhook-redelivery"), None);
}

on_both!(async a_redirect_is_a_failure_and_never_followed);
async fn a_redirect_is_a_failure_and_never_followed(database: Database) {
    let world = World::start(&database).await;
    let elsewhere = Receiver::start();
    let mut endpoints = Vec::new();
    for status in [301, 302, 307, 308] {
        let path = format!("/{status}");
        let location = elsewhere.url("/stolen");
        world.receiver.on(&path, [Reply::status(status).header("Location", &location)]);
        endpoints.push((status, world.endpoint(&path).await));
    }
    world.event().await;
    world.node.send().await;
    let due = Some(world.node.engine.now().plus_millis(5_000));
    for (status, endpoint) in endpoints {
        let delivery = world.delivery(&endpoint).await;
        assert_eq!((delivery.status, delivery.next_attempt_at), ("pending", due), "{status}");
        assert_eq!(outcomes(&delivery), [("failed", Some(status.into()))]);
    }
    assert_eq!((elsewhere.connections(), elsewhere.count()), (0, 0));
}

on_both!(async other_4xx_are_tried_over_the_short_end_or_not_again);
async fn other_4xx_are_tried_over_the_short_end_or_not_again(database: Database) {
    let world = World::start(&database).await;
    world.receiver.otherwise([Reply::status(404)]);
    let patient = world.endpoint("/patient").await;
    let strict = world
        .endpoint_with("/final", |settings| settings.client_errors = Some(ClientErrors::Final))
        .await;
    world.event().await;
    world.node.send().await;
    let ended = world.delivery(&strict).await;
    assert_eq!((ended.status, ended.reason.as_deref()), ("exhausted", Some("http_404")));
    for wait in [5, 5 * 60, 30 * 60] {
        assert_eq!(world.delivery(&patient).await.status, "pending");
        world.wait(seconds(wait)).await;
        world.node.send().await;
    }
    let ended = world.delivery(&patient).await;
    assert_eq!((ended.status, ended.attempts), ("exhausted", 4));
    assert_eq!(ended.reason.as_deref(), Some("http_404"));

    // Those that speak of the receiver are none of these.
    world.receiver.on("/final", [Reply::status(429), Reply::status(408), Reply::status(425)]);
    world.event().await;
    world.node.send().await;
    for tried in 1..4 {
        let delivery = world.deliveries(&strict).await.remove(1);
        assert_eq!((delivery.status, delivery.attempts), ("pending", tried));
        world.wait(seconds(2 * 60 * 60)).await;
        world.node.send().await;
    }
    let patch = EndpointPatch { client_errors: Some(None), ..EndpointPatch::default() };
    world.change(&strict, patch).await;
    assert_eq!(world.view(&strict).await.client_errors, None);
}

on_both!(async a_refused_address_is_final_at_once);
async fn a_refused_address_is_final_at_once(database: Database) {
    let world = World::start(&database).await;
    let cases = [
        ("http://10.0.0.1/hook", "address_private"),
        ("http://169.254.169.254/latest", "address_forbidden"),
    ];
    let mut endpoints = Vec::new();
    for (url, code) in cases {
        let settings = ringback::engine::EndpointSettings {
            events: super::events(&["job.created"]),
            ..Default::default()
        };
        let endpoint = register(&world.node, &world.caller, address(url), settings).await;
        endpoints.push((endpoint, code));
    }
    let closed = format!("http://127.0.0.1:{}/hook", free_port());
    let broken = world.endpoint("/broken").await;
    let patch = EndpointPatch { address: Some(address(&closed)), ..EndpointPatch::default() };
    world.change(&broken, patch).await;
    world.event().await;
    world.node.send().await;
    for (endpoint, code) in &endpoints {
        let delivery = world.delivery(endpoint).await;
        assert_eq!((delivery.status, delivery.reason.as_deref()), ("refused", Some(*code)));
        assert_eq!((delivery.attempts, delivery.next_attempt_at), (1, None));
        assert_eq!(outcomes(&delivery), [("refused", None)]);
        let attempt = &delivery.attempt_log.as_ref().unwrap()[0];
        assert_eq!((attempt.error_code.as_deref(), &attempt.address), (Some(*code), &None));
        assert_eq!(world.view(endpoint).await.failing_since, None, "it was not even asked");
    }
    let delivery = world.delivery(&broken).await;
    assert_eq!(delivery.status, "pending", "a closed port may open again");
    assert_eq!(outcomes(&delivery), [("failed", None)]);
}

on_both!(async an_endpoints_own_schedule_holds);
async fn an_endpoints_own_schedule_holds(database: Database) {
    let world = World::start(&database).await;
    world.receiver.otherwise([Reply::status(500)]);
    let own = world.endpoint_with("/own", |settings| settings.schedule = Some(vec![7, 60])).await;
    let once = world.endpoint_with("/once", |settings| settings.schedule = Some(vec![])).await;
    world.event().await;
    world.node.send().await;
    let ended = world.delivery(&once).await;
    assert_eq!((ended.status, ended.attempts), ("exhausted", 1));
    for (tried, wait) in [(1, 7), (2, 60)] {
        let delivery = world.delivery(&own).await;
        let due = world.node.engine.now().plus(seconds(wait));
        assert_eq!((delivery.attempts, delivery.next_attempt_at), (tried, Some(due)));
        world.wait(seconds(wait) - Duration::from_millis(1)).await;
        world.node.send().await;
        assert_eq!(world.delivery(&own).await.attempts, tried, "not before its time");
        world.wait(Duration::from_millis(1)).await;
        world.node.send().await;
    }
    let ended = world.delivery(&own).await;
    assert_eq!((ended.status, ended.reason.as_deref()), ("exhausted", Some("http_500")));
    let schedule = Some(None);
    world.change(&own, EndpointPatch { schedule, ..EndpointPatch::default() }).await;
    world.event().await;
    world.node.send().await;
    let next = world.deliveries(&own).await[1].next_attempt_at;
    assert_eq!(next, Some(world.node.engine.now().plus_millis(5_000)), "the server's again");
}

on_both!(async each_try_tells_its_number_and_what_went_wrong_before);
async fn each_try_tells_its_number_and_what_went_wrong_before(database: Database) {
    let world = World::start(&database).await;
    let cut = Reply::ok().body("twelve bytes").cut_after(5);
    let script = [Reply::status(503), cut, Reply::status(302), Reply::ok()];
    world.receiver.on("/hook", script);
    let endpoint =
        world.endpoint_with("/hook", |settings| settings.schedule = Some(vec![1; 5])).await;
    world.event().await;
    for _ in 0..4 {
        world.node.send().await;
        world.wait(seconds(1)).await;
    }
    assert_eq!(world.delivery(&endpoint).await.status, "delivered");
    let log = world.receiver.log();
    let told: Vec<_> = log
        .iter()
        .map(|one| (one.header("webhook-attempt"), one.header("webhook-previous-failure")))
        .collect();
    let expected = [
        (Some("1"), None),
        (Some("2"), Some("http_503")),
        (Some("3"), Some("body_closed")),
        (Some("4"), Some("http_302")),
    ];
    assert_eq!(told, expected);
    assert!(log.iter().all(|one| one.webhook_id() == log[0].webhook_id()));
    assert!(log.iter().all(|one| one.verify(&endpoint.key.shown).is_ok()), "each signed anew");
}
