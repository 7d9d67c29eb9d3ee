//! Ping, the switch and what it holds, figures, and what is sent again.

use serde_json::{Value, json};

use super::{NONE, statuses};
use crate::api::{PATIENCE, World, list, noop, problem, text};
use crate::support::database::{Database, on_both};
use crate::support::machine::free_port;
use crate::support::receiver::Reply;
use crate::support::wait::eventually;

on_both!(a_ping_tells_what_came_of_it);
fn a_ping_tells_what_came_of_it(database: Database) {
    let world = World::start(database);
    world.receiver.on("/bad", [Reply::status(500).body("out of order")]);
    let live = world.endpoint_id("/hook", json!({"events": ["job.failed"]}));
    let ping = world.act(&live, "ping", json!({})).expect(200).json();
    assert_eq!(
        (&ping["status"], &ping["manner"], &ping["eventType"], &ping["endpointId"]),
        (&json!("delivered"), &json!("ping"), &json!("endpoint.pinged"), &json!(live))
    );
    let log = list(&ping, "attemptLog");
    assert_eq!((log.len(), &log[0]["responseStatus"]), (1, &json!(200)));
    assert_eq!(log[0]["resolved"], json!([]), "DNS was not asked");
    let request = &world.receiver.log_of("/hook")[0];
    assert_eq!(request.signed().webhook_id(), text(&ping["webhookId"]));
    assert_eq!(request.header("webhook-redelivery"), Some("ping"));
    let body = request.json();
    assert_eq!((&body["type"], &body["data"]["id"]), (&json!("endpoint.pinged"), &json!(live)));
    assert_eq!(text(&ping["body"]).as_bytes(), request.body, "byte for byte");

    // One that fails is tried once and told of at once.
    let bad = world.endpoint_id("/bad", json!({}));
    let dead = json!({"url": format!("http://127.0.0.1:{}/", free_port())});
    let dead = text(&world.client.post("/v1/endpoints", &dead).expect(201).json()["id"]);
    for (id, code, status) in [(&bad, "http_500", json!(500)), (&dead, "", Value::Null)] {
        let ping = world.act(id, "ping", json!({})).expect(200).json();
        assert_eq!((&ping["status"], &ping["attempts"]), (&json!("exhausted"), &json!(1)));
        let attempt = &ping["attemptLog"][0];
        assert_eq!(attempt["responseStatus"], status, "{attempt}");
        assert!(text(&attempt["errorCode"]).starts_with(code) && !ping["reason"].is_null());
    }
    assert_eq!(world.receiver.log_of("/bad").len(), 1);

    // It goes out also while the endpoint is disabled, and enables nothing.
    world.act(&live, "disable", json!({})).expect(200);
    let ping = world.client.post_empty(&format!("/v1/endpoints/{live}/ping")).expect(200).json();
    assert_eq!(ping["status"], "delivered");
    assert_eq!(world.shown(&live)["state"], "disabled");
    problem(world.act(&live, "ping", json!({"event": "job.failed"})), 400, "unknown_field");
    problem(world.act(NONE, "ping", json!({})), 404, "not_found");
}

on_both!(a_ping_is_not_waited_for_without_end);
fn a_ping_is_not_waited_for_without_end(database: Database) {
    let world = World::start_with(database, &["--delivery-deadline-seconds", "600"]);
    world.receiver.on("/silent", [Reply::silence()]);
    let id = world.endpoint_id("/silent", json!({}));
    let ping = world.act(&id, "ping", json!({})).expect(202).json();
    assert_eq!((&ping["status"], &ping["dateCompleted"]), (&json!("sending"), &Value::Null));
    assert_eq!(ping["attemptLog"][0]["outcome"], "started");
    let delivery = format!("/v1/deliveries/{}", text(&ping["id"]));
    assert_eq!(world.client.get(&delivery).expect(200).json()["status"], "sending");
}

on_both!(what_is_held_goes_on_or_goes);
fn what_is_held_goes_on_or_goes(database: Database) {
    let world = World::start(database);
    let id = world.endpoint_id("/hook", json!({"events": ["job.succeeded"]}));
    let disabled =
        world.client.post_empty(&format!("/v1/endpoints/{id}/disable")).expect(200).json();
    assert_eq!(
        (&disabled["enabled"], &disabled["state"], &disabled["disabledReason"]),
        (&json!(false), &json!("disabled"), &json!("by_request"))
    );
    assert_eq!(world.act(&id, "disable", json!({})).expect(200).json(), disabled, "once is enough");
    let jobs: Vec<String> = (0..3).map(|_| text(&world.ran(&noop(0.0))["id"])).collect();
    let held = world.await_deliveries(&id, "held", 3);
    assert!(held.iter().all(|one| one["attempts"] == 0 && one["dateCompleted"].is_null()));
    let stats =
        |id: &str| world.client.get(&format!("/v1/endpoints/{id}/stats")).expect(200).json();
    let shown = stats(&id);
    assert_eq!(shown["backlog"], json!({"pending": 0, "sending": 0, "held": 3, "queued": 0}));
    assert_eq!((&shown["state"], &shown["attempts"]), (&json!("disabled"), &json!(0)));
    assert!(world.receiver.log().is_empty());

    let enabled = world.act(&id, "enable", json!({"backlog": "resume"})).expect(200).json();
    assert_eq!((&enabled["state"], &enabled["dateDisabled"]), (&json!("enabled"), &Value::Null));
    world.await_deliveries(&id, "delivered", 3);
    let mut told: Vec<String> = world
        .receiver
        .wait_for_on("/hook", 3, PATIENCE)
        .iter()
        .map(|one| text(&one.signed().json()["data"]["id"]))
        .collect();
    told.sort();
    assert_eq!(told, {
        let mut jobs = jobs;
        jobs.sort();
        jobs
    });

    world.act(&id, "disable", json!({})).expect(200);
    world.ran(&noop(0.0));
    world.await_deliveries(&id, "held", 1);
    problem(world.act(&id, "enable", json!({"backlog": "drop"})), 400, "invalid_request");
    problem(world.act(&id, "enable", json!({"held": "discard"})), 400, "unknown_field");
    assert_eq!(world.shown(&id)["state"], "disabled");
    world.act(&id, "enable", json!({"backlog": "discard"})).expect(200);
    let discarded = world.await_deliveries(&id, "cancelled", 1);
    assert_eq!(discarded[0]["reason"], "discarded");
    // From then on it gets what comes, and what was discarded can be had after all.
    world.ran(&noop(0.0));
    world.await_deliveries(&id, "delivered", 4);
    let again = format!("/v1/deliveries/{}/redeliver", text(&discarded[0]["id"]));
    let owed = world.client.post_empty(&again).expect(202).json();
    assert_eq!(owed["manner"], "redelivery", "{owed}");
    assert!(owed.get("body").is_none() && owed.get("attemptLog").is_none(), "as lists show it");
    world.await_deliveries(&id, "delivered", 5);
    let sent = world.receiver.wait_for_on("/hook", 5, PATIENCE);
    assert_eq!(sent[4].header("webhook-redelivery"), Some("redelivery"));
    // Without a body the backlog is resumed.
    world.client.post_empty(&format!("/v1/endpoints/{id}/disable")).expect(200);
    world.ran(&noop(0.0));
    world.await_deliveries(&id, "held", 1);
    world.client.post_empty(&format!("/v1/endpoints/{id}/enable")).expect(200);
    world.await_deliveries(&id, "delivered", 6);
}

on_both!(the_switch_is_an_event);
fn the_switch_is_an_event(database: Database) {
    let world = World::start(database);
    world.endpoint_id("/watch", json!({"events": ["endpoint.*"]}));
    let id = world.endpoint_id("/hook", json!({"events": ["job.failed"]}));
    world.act(&id, "disable", json!({})).expect(200);
    world.act(&id, "enable", json!({})).expect(200);
    let mut told: Vec<(String, Value)> = world
        .receiver
        .wait_for_on("/watch", 2, PATIENCE)
        .iter()
        .map(|one| (text(&one.signed().json()["type"]), one.json()["data"].clone()))
        .collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["endpoint.disabled", "endpoint.enabled"]);
    assert_eq!((&told[0].1["id"], &told[0].1["state"]), (&json!(id), &json!("disabled")));
    assert_eq!((&told[1].1["id"], &told[1].1["enabled"]), (&json!(id), &json!(true)));
}

on_both!(figures_tell_how_it_goes);
fn figures_tell_how_it_goes(database: Database) {
    let world = World::start(database);
    let replies = [Reply::ok(), Reply::ok(), Reply::status(400), Reply::ok()];
    world.receiver.on("/hook", replies);
    let settings =
        json!({"events": ["job.succeeded"], "retrySchedule": [], "clientErrors": "final"});
    let id = world.endpoint_id("/hook", settings);
    let stats = || world.client.get(&format!("/v1/endpoints/{id}/stats")).expect(200).json();
    let none = stats();
    assert_eq!(
        (&none["attempts"], &none["successRate"], &none["latencyMs"], &none["oldestDue"]),
        (&json!(0), &Value::Null, &Value::Null, &Value::Null)
    );
    for number in 1..=4 {
        world.ran(&noop(0.0));
        world.receiver.wait_for_on("/hook", number, PATIENCE);
    }
    let shown = eventually("all attempts have ended", PATIENCE, || {
        let shown = stats();
        (shown["attempts"] == 4).then_some(shown)
    });
    assert_eq!((&shown["delivered"], &shown["successRate"]), (&json!(3), &json!(0.75)));
    assert_eq!(shown["state"], "enabled");
    let [p50, p95, p99] = ["p50", "p95", "p99"].map(|rank| {
        shown["latencyMs"][rank].as_i64().unwrap_or_else(|| panic!("no {rank}: {shown}"))
    });
    assert!(0 <= p50 && p50 <= p95 && p95 <= p99, "{shown}");
    assert_eq!(shown["lane"], json!({"closedUntil": null, "reason": null, "closings": 0}));
    assert_eq!(shown["backlog"], json!({"pending": 0, "sending": 0, "held": 0, "queued": 0}));
}

on_both!(deliveries_are_found_by_endpoint);
fn deliveries_are_found_by_endpoint(database: Database) {
    let world = World::start(database);
    world.receiver.on("/bad", [Reply::status(500)]);
    let good = world.endpoint_id("/good", json!({"events": ["job.succeeded"]}));
    let bad = world.endpoint_id("/bad", json!({"events": ["job.*"], "retrySchedule": []}));
    let job = text(&world.ran(&noop(0.0))["id"]);
    world.ran(&noop(0.0));
    world.await_deliveries(&good, "delivered", 2);
    world.await_deliveries(&bad, "exhausted", 6);
    assert_eq!(world.deliveries("").len(), 8);
    assert_eq!(world.deliveries(&format!("endpointId={good}")).len(), 2);
    let of_both = world.deliveries(&format!("endpointId={bad}&jobId={job}&status=exhausted"));
    assert_eq!(of_both.len(), 3);
    for delivery in &of_both {
        assert_eq!((&delivery["endpointId"], &delivery["jobId"]), (&json!(bad), &json!(job)));
        assert_eq!((&delivery["manner"], &delivery["blocking"]), (&json!("event"), &json!(false)));
        assert_eq!(delivery["receiver"]["url"], world.receiver.url("/bad"));
    }
    assert!(world.deliveries(&format!("endpointId={good}&status=exhausted")).is_empty());
    assert!(world.deliveries(&format!("endpointId={NONE}")).is_empty());
    for bad in ["endpointId=x", "status=done", "status=blocked"] {
        problem(world.client.get(&format!("/v1/deliveries?{bad}")), 400, "invalid_request");
    }
    // A token belongs to the filters it was made with.
    let query = format!("/v1/deliveries?endpointId={bad}&pageSize=5");
    let page = world.client.get(&query).expect(200).json();
    assert_eq!(list(&page, "deliveries").len(), 5);
    let token = text(&page["nextPageToken"]);
    let rest = world.client.get(&format!("{query}&pageToken={token}")).expect(200).json();
    assert_eq!(list(&rest, "deliveries").len(), 1);
    let other = format!("/v1/deliveries?endpointId={good}&pageToken={token}");
    problem(world.client.get(&other), 400, "page_token_invalid");
    assert_eq!(statuses(list(&rest, "deliveries")), ["exhausted"]);
}
