//! What the log of attempts tells of deliveries to endpoints.

use std::sync::Arc;

use ringback::delivery::Settings;
use ringback::egress::{Client, Policy, ScriptedResolver};
use ringback::engine::AttemptView;
use serde_json::Value;

use super::{World, address, outcomes, seconds};
use crate::deliveries::dispatcher;
use crate::support::database::{Database, on_both};
use crate::support::node::wish;
use crate::support::receiver::Reply;

const HOST: &str = "hooks.example.test";

fn timings(attempt: &AttemptView) -> Value {
    serde_json::from_str(attempt.timings.as_ref().expect("how far it came").get()).unwrap()
}

fn json(raw: Option<&serde_json::value::RawValue>) -> Value {
    serde_json::from_str(raw.expect("it is noted").get()).unwrap()
}

on_both!(async an_attempt_tells_where_it_went_how_long_it_took_and_what_came);
async fn an_attempt_tells_where_it_went_how_long_it_took_and_what_came(database: Database) {
    let mut world = World::start(&database).await;
    let local = "127.0.0.1".parse().unwrap();
    let resolver = ScriptedResolver::new().answer(HOST, &[local]);
    let policy = Policy { allow: vec!["127.0.0.0/8".parse().unwrap()], ..Policy::default() };
    let egress = Client::new(policy, Arc::new(resolver));
    world.node.dispatcher = dispatcher(&world.node, egress, Settings::default(), 0.0).await;
    let failed = Reply::status(503).header("X-Trace", "abc").body("é".repeat(5_000));
    world.receiver.on("/hook", [failed, Reply::status(204)]);
    let url = format!("http://{HOST}:{}/hook", world.receiver.port());
    let settings = ringback::engine::EndpointSettings {
        events: super::events(&["job.created"]),
        ..Default::default()
    };
    let endpoint = super::register(&world.node, &world.caller, address(&url), settings).await;
    world.event().await;
    let began = world.node.engine.now();
    world.node.send().await;
    world.wait(seconds(5)).await;
    world.node.send().await;

    let delivery = world.delivery(&endpoint).await;
    assert_eq!(outcomes(&delivery), [("failed", Some(503)), ("delivered", Some(204))]);
    let log = delivery.attempt_log.as_ref().unwrap();
    let first = &log[0];
    assert_eq!((first.number, first.started_at, first.finished_at), (1, began, Some(began)));
    assert_eq!(json(first.resolved.as_deref()), serde_json::json!(["127.0.0.1"]));
    let reached = format!("127.0.0.1:{}", world.receiver.port());
    assert_eq!(first.address.as_deref(), Some(reached.as_str()));
    assert_eq!(first.error_code.as_deref(), Some("http_503"));
    assert_eq!(first.response_body.as_ref().unwrap().chars().count(), 4_096, "capped");
    let headers = json(first.response_headers.as_deref());
    let trace = headers.as_array().unwrap().iter().any(|pair| pair[1] == "abc");
    assert!(trace, "{headers}");

    let split = timings(first);
    for step in ["dnsMs", "connectMs", "firstByteMs", "totalMs"] {
        assert!(split[step].is_number(), "{step} in {split}");
    }
    assert_eq!((&split["tlsMs"], &split["tlsVersion"]), (&Value::Null, &Value::Null));
    assert_eq!(split["reused"], false);
    let part = |name: &str| split[name].as_f64().unwrap();
    assert!(part("totalMs") >= part("dnsMs") && part("totalMs") >= part("firstByteMs"), "{split}");
    assert!(first.duration_ms.is_some());

    let second = &log[1];
    assert_eq!((second.number, second.started_at), (2, began.plus(seconds(5))));
    assert_eq!((&second.error_code, &second.error_detail), (&None, &None));
    assert_eq!(second.response_body.as_deref(), Some(""));
    assert_eq!(second.address.as_deref(), Some(reached.as_str()));
}

on_both!(async a_failure_without_an_answer_tells_how_far_it_came);
async fn a_failure_without_an_answer_tells_how_far_it_came(database: Database) {
    let world = World::start(&database).await;
    world.receiver.on("/hook", [Reply::hang_up()]);
    let endpoint = world.endpoint("/hook").await;
    world.event().await;
    world.node.send().await;
    let delivery = world.delivery(&endpoint).await;
    let attempt = &delivery.attempt_log.as_ref().unwrap()[0];
    assert_eq!(attempt.error_code.as_deref(), Some("connection_closed"));
    assert!(attempt.error_detail.is_some());
    assert_eq!((attempt.response_status, &attempt.response_body), (None, &None));
    let split = timings(attempt);
    assert!(split["connectMs"].is_number() && split["firstByteMs"].is_null(), "{split}");
}

on_both!(async an_interrupted_attempt_stays_in_the_log_and_is_made_again);
async fn an_interrupted_attempt_stays_in_the_log_and_is_made_again(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.event().await;
    let waiting = world.node.engine.look_for_lanes().await.unwrap().waiting;
    let lanes = waiting.into_iter().map(|(lane, _)| wish(lane)).collect();
    let owed = world.node.engine.claim_deliveries(lanes).await.unwrap().remove(0);
    world.node.send_by_hand(&owed).await.expect("it is received");
    let delivery = world.delivery(&endpoint).await;
    assert_eq!((delivery.status, outcomes(&delivery)), ("sending", vec![("started", None)]));
    assert_eq!(delivery.attempt_log.as_ref().unwrap()[0].finished_at, None);

    // The node dies between the request and the record.
    world.node.engine.leave().await.unwrap();
    let other = world.second_node(&database).await;
    assert_eq!(other.engine.rescue().await.unwrap(), 1);
    other.send().await;
    let delivery = world.delivery(&endpoint).await;
    assert_eq!(outcomes(&delivery), [("unknown", None), ("delivered", Some(200))]);
    let attempt = &delivery.attempt_log.as_ref().unwrap()[0];
    assert_eq!(attempt.error_code.as_deref(), Some("sender_lost"));
    assert!(attempt.finished_at.is_some());
    let log = world.receiver.log();
    assert_eq!(log.len(), 2);
    assert_eq!((log[0].webhook_id(), &log[0].body), (log[1].webhook_id(), &log[1].body));
    let told = ["webhook-attempt", "webhook-previous-failure"].map(|name| log[1].header(name));
    assert_eq!(told, [Some("2"), Some("sender_lost")]);
}
