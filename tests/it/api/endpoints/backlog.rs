//! What is sent again: one delivery, many by a filter, what holds an order up, and the past.

use serde_json::{Value, json};

use super::{NONE, statuses};
use crate::api::{PATIENCE, World, noop, problem, text, with};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;
use crate::support::wait::eventually;

const BULK: &str = "/v1/deliveries/redeliver";

on_both!(many_are_sent_again_by_a_filter);
fn many_are_sent_again_by_a_filter(database: Database) {
    let world = World::start(database);
    world.receiver.on("/bad", [Reply::status(500)]);
    world.receiver.on("/worse", [Reply::status(500)]);
    let wanted = json!({"events": ["job.succeeded", "job.created"], "retrySchedule": []});
    let bad = world.endpoint_id("/bad", wanted.clone());
    let worse = world.endpoint_id("/worse", wanted);
    let good = world.endpoint_id("/good", json!({"events": ["job.succeeded"]}));
    let first = text(&world.ran(&noop(0.0))["id"]);
    world.ran(&noop(0.0));
    world.await_deliveries(&bad, "exhausted", 4);
    world.await_deliveries(&worse, "exhausted", 4);
    world.await_deliveries(&good, "delivered", 2);

    let count = |filter: Value| {
        let body = json!({"filter": filter, "dryRun": true});
        let counted = world.client.post(BULK, &body).expect(200).json();
        assert_eq!((&counted["redelivered"], &counted["nextPageToken"]), (&json!(0), &Value::Null));
        counted["matched"].as_i64().expect("a count")
    };
    let before = world.receiver.count();
    for (filter, matched) in [
        (json!({}), 8),
        (json!({"status": null, "since": null}), 8),
        (json!({"endpointId": bad}), 4),
        (json!({"endpointId": bad, "jobId": first}), 2),
        (json!({"endpointId": bad, "events": ["job.created"]}), 2),
        (json!({"jobId": first}), 4),
        (json!({"status": ["delivered"]}), 2),
        (json!({"status": ["delivered", "exhausted"], "jobId": first}), 5),
        (json!({"status": ["refused", "cancelled"]}), 0),
        (json!({"until": "2001-01-01T00:00:00Z"}), 0),
        (json!({"since": "2001-01-01T00:00:00Z", "until": "2090-01-01T00:00:00+01:00"}), 8),
    ] {
        assert_eq!(count(filter.clone()), matched, "{filter}");
    }
    assert_eq!(world.receiver.count(), before, "counting sends nothing");

    world.receiver.on("/bad", [Reply::ok()]);
    let body = json!({"filter": {"endpointId": bad, "jobId": first}});
    let done = world.client.post(BULK, &body).expect(200).json();
    let expected =
        json!({"matched": 2, "redelivered": 2, "stillOwed": 0, "gone": 0, "nextPageToken": null});
    assert_eq!(done, expected);
    let delivered = world.await_deliveries(&bad, "delivered", 2);
    assert!(delivered.iter().all(|one| one["jobId"] == first.as_str() && one["attempts"] == 2));
    let log = world.receiver.log_of("/bad");
    let again: Vec<_> =
        log.iter().filter(|one| one.header("webhook-redelivery") == Some("redelivery")).collect();
    assert_eq!(again.len(), 2);
    for request in again {
        let same = log.iter().filter(|one| one.webhook_id() == request.webhook_id());
        assert_eq!(same.count(), 2, "the same id both times");
        assert_eq!(request.signed().header("webhook-attempt"), Some("2"));
    }
    assert_eq!(count(json!({"endpointId": bad})), 2, "the others are as they were");
    assert_eq!(statuses(&world.deliveries(&format!("endpointId={worse}"))), ["exhausted"; 4]);
}

on_both!(a_filter_is_read_strictly);
fn a_filter_is_read_strictly(database: Database) {
    let world = World::start(database);
    for (body, code, pointer) in [
        (json!({}), "invalid_request", "/filter"),
        (json!({"filter": null}), "invalid_request", "/filter"),
        (json!({"filter": []}), "invalid_request", "/filter"),
        (json!({"filter": {}, "dryRun": 1}), "invalid_request", "/dryRun"),
        (json!({"filter": {}, "limit": 1}), "unknown_field", "/limit"),
        (json!({"filter": {"state": "x"}}), "unknown_field", "/filter/state"),
        (json!({"filter": {"status": []}}), "invalid_request", "/filter/status"),
        (json!({"filter": {"status": ["pending"]}}), "invalid_request", "/filter/status/0"),
        (json!({"filter": {"endpointId": "x"}}), "invalid_request", "/filter/endpointId"),
        (json!({"filter": {"jobId": 1}}), "invalid_request", "/filter/jobId"),
        (json!({"filter": {"events": ["x"]}}), "invalid_request", "/filter/events/0"),
        (json!({"filter": {"since": "today"}}), "invalid_request", "/filter/since"),
        (
            json!({"filter": {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}}),
            "invalid_request",
            "/filter/until",
        ),
        (json!({"filter": {}, "pageToken": "x"}), "page_token_invalid", "/pageToken"),
    ] {
        let refused = problem(world.client.post(BULK, &body), 400, code);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    for filter in [json!({"endpointId": NONE}), json!({"jobId": NONE})] {
        problem(world.client.post(BULK, &json!({"filter": filter})), 404, "not_found");
    }
    problem(world.client.get(BULK), 405, "method_not_allowed");
}

/// A strict endpoint whose first delivery gave up, and three more behind it.
fn blocked(world: &World) -> (String, Vec<Value>) {
    world.receiver.on("/strict", [Reply::status(500), Reply::ok()]);
    let settings = json!({"events": ["job.succeeded"], "ordering": "strict", "retrySchedule": []});
    let id = world.endpoint_id("/strict", settings);
    for _ in 0..4 {
        world.ran(&noop(0.0));
    }
    eventually("it is blocked", PATIENCE, || {
        (world.shown(&id)["state"] == "blocked").then_some(())
    });
    let all = eventually("the others are held", PATIENCE, || {
        let all = world.deliveries(&format!("endpointId={id}"));
        (statuses(&all) == ["exhausted", "held", "held", "held"]).then_some(all)
    });
    (id, all)
}

on_both!(what_holds_up_an_order_is_skipped);
fn what_holds_up_an_order_is_skipped(database: Database) {
    let world = World::start(database);
    let (id, all) = blocked(&world);
    let first = text(&all[0]["id"]);
    assert_eq!((&all[0]["blocking"], &all[1]["blocking"]), (&json!(true), &json!(false)));
    assert_eq!(world.shown(&id)["blockedBy"], first.as_str());
    let stats = world.client.get(&format!("/v1/endpoints/{id}/stats")).expect(200).json();
    assert_eq!(stats["backlog"], json!({"pending": 0, "sending": 0, "held": 4, "queued": 0}));
    let skip = |delivery: &Value| {
        world.client.post_empty(&format!("/v1/deliveries/{}/skip", text(&delivery["id"])))
    };
    problem(skip(&all[1]), 409, "not_blocking");
    problem(skip(&json!({"id": NONE})), 404, "not_found");
    let skipped = skip(&all[0]).expect(200).json();
    assert_eq!(
        (&skipped["status"], &skipped["reason"], &skipped["blocking"]),
        (&json!("exhausted"), &json!("skipped"), &json!(false))
    );
    world.await_deliveries(&id, "delivered", 3);
    let sent = world.receiver.wait_for_on("/strict", 4, PATIENCE);
    let order: Vec<&str> = sent.iter().map(|one| one.webhook_id()).collect();
    let expected: Vec<String> = all.iter().map(|one| text(&one["webhookId"])).collect();
    assert_eq!(order, expected);
    let shown = world.shown(&id);
    assert_eq!((&shown["state"], &shown["blockedBy"]), (&json!("enabled"), &Value::Null));
    problem(skip(&all[0]), 409, "not_blocking");
}

on_both!(what_holds_up_an_order_is_tried_again_in_its_place);
fn what_holds_up_an_order_is_tried_again_in_its_place(database: Database) {
    let world = World::start(database);
    let (id, all) = blocked(&world);
    let again = format!("/v1/deliveries/{}/redeliver", text(&all[0]["id"]));
    let owed = world.client.post_empty(&again).expect(202).json();
    assert_eq!((&owed["manner"], &owed["blocking"]), (&json!("event"), &json!(false)), "{owed}");
    world.await_deliveries(&id, "delivered", 4);
    let sent = world.receiver.wait_for_on("/strict", 5, PATIENCE);
    let order: Vec<&str> = sent.iter().skip(1).map(|one| one.webhook_id()).collect();
    let expected: Vec<String> = all.iter().map(|one| text(&one["webhookId"])).collect();
    assert_eq!(order, expected);
    assert!(sent.iter().all(|one| one.header("webhook-redelivery").is_none()));
    assert_eq!(world.shown(&id)["state"], "enabled");
}

on_both!(the_past_is_sent_again_by_a_job);
fn the_past_is_sent_again_by_a_job(database: Database) {
    let world = World::start(database);
    let began = "2001-01-01T00:00:00Z";
    world.receiver.on("/bad", [Reply::status(500)]);
    let bad = world.endpoint_id("/bad", json!({"events": ["job.*"], "retrySchedule": []}));
    let first = text(&world.ran(&noop(0.0))["id"]);
    world.await_deliveries(&bad, "exhausted", 3);
    world.receiver.on("/bad", [Reply::ok()]);
    world.ran(&noop(0.0));
    world.await_deliveries(&bad, "delivered", 3);
    // One that was registered later has missed all of it.
    let late = world.endpoint_id("/late", json!({"events": ["job.succeeded"]}));

    let count = |id: &str, order: Value| {
        let order = with(with(order, "dryRun", true), "since", began);
        let counted = world.act(id, "replay", order).expect(200).json();
        assert_eq!(counted["exact"], true, "{counted}");
        counted["matched"].as_i64().expect("a count")
    };
    eventually("the feed has all of it", PATIENCE, || (count(&bad, json!({})) == 6).then_some(()));
    assert_eq!(count(&bad, json!({"onlyFailed": true})), 3);
    assert_eq!(count(&bad, json!({"events": ["job.created"]})), 2);
    assert_eq!(count(&bad, json!({"until": "2001-01-02T00:00:00Z"})), 0);
    assert_eq!(count(&late, json!({})), 2);
    assert_eq!(world.receiver.log_of("/late").len(), 0);

    let keyed = |order: serde_json::Value| {
        let path = format!("/v1/endpoints/{late}/replay");
        world.client.request("POST", &path).header("idempotency-key", "k").json(&order).send()
    };
    let answer = keyed(json!({"since": began})).expect(202);
    let again = keyed(json!({"since": began})).expect(202);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json()["id"], answer.json()["id"], "one replay for one key");
    let other = keyed(json!({"since": began, "onlyFailed": true})).expect(422);
    assert_eq!(other.json()["code"], "idempotency_mismatch");
    let job = answer.json();
    assert_eq!(job["type"], "urn:job:webhook.replay");
    let location = format!("{}/v1/jobs/{}", world.server.base_url(), text(&job["id"]));
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert_eq!(world.finished(&text(&job["id"]))["status"], "success");
    // The end of the replay itself is an event as any other, and no replay.
    let sent = world.receiver.wait_until("two replayed events", PATIENCE, |log| {
        let replayed = log.iter().filter(|one| one.header("webhook-redelivery") == Some("replay"));
        let replayed: Vec<_> = replayed.cloned().collect();
        (replayed.len() >= 2).then_some(replayed)
    });
    assert!(sent.iter().all(|one| one.path == "/late"));
    let mut replayed: Vec<String> =
        sent.iter().map(|one| one.signed().webhook_id().to_owned()).collect();
    replayed.sort();
    let succeeded = world.deliveries(&format!("endpointId={bad}"));
    let succeeded = succeeded.iter().filter(|one| one["eventType"] == "job.succeeded");
    let replay = text(&job["id"]);
    let mut known: Vec<String> = succeeded
        .filter(|one| one["jobId"] != replay.as_str())
        .map(|one| text(&one["webhookId"]))
        .collect();
    known.sort();
    assert_eq!(replayed, known, "the same ids");

    let job = world.act(&bad, "replay", json!({"since": began, "onlyFailed": true})).expect(202);
    assert_eq!(world.finished(&text(&job.json()["id"]))["status"], "success");
    eventually("what failed is delivered", PATIENCE, || {
        let of_first = world.deliveries(&format!("endpointId={bad}&jobId={first}"));
        (statuses(&of_first) == ["delivered"; 3]).then_some(())
    });
}

on_both!(a_replay_is_read_strictly);
fn a_replay_is_read_strictly(database: Database) {
    let world = World::start(database);
    let id = world.endpoint_id("/hook", json!({}));
    let since = "2026-01-01T00:00:00Z";
    for (body, code, pointer) in [
        (json!({}), "invalid_request", "/since"),
        (json!({"since": "yesterday"}), "invalid_request", "/since"),
        (json!({"since": since, "until": since}), "invalid_request", "/until"),
        (json!({"since": "2090-01-01T00:00:00Z"}), "invalid_request", "/until"),
        (json!({"since": since, "events": []}), "invalid_request", "/events"),
        (json!({"since": since, "events": ["x"]}), "invalid_request", "/events/0"),
        (json!({"since": since, "onlyFailed": "yes"}), "invalid_request", "/onlyFailed"),
        (json!({"since": since, "dryRun": 1}), "invalid_request", "/dryRun"),
        (json!({"since": since, "endpointId": id}), "unknown_field", "/endpointId"),
    ] {
        let refused = problem(world.act(&id, "replay", body), 400, code);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
    }
    let listed = world.client.get("/v1/jobs").expect(200).json();
    assert_eq!(listed["jobs"], json!([]), "no job came of it");
    problem(world.act(NONE, "replay", json!({"since": since})), 404, "not_found");
}

on_both!(a_replay_has_one_door);
fn a_replay_has_one_door(database: Database) {
    let world = World::start(database);
    let id = world.endpoint_id("/hook", json!({"events": ["job.failed"]}));
    let job = json!({
        "type": "urn:job:webhook.replay",
        "specification": {
            "endpointId": id, "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z",
        },
    });
    let batch = json!({"jobs": [noop(0.0), job]});
    for (path, body, pointer) in
        [("/v1/jobs", job, "/type"), ("/v1/jobs/batch", batch, "/jobs/1/type")]
    {
        let refused = problem(world.client.post(path, &body), 400, "invalid_request");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
        let detail = text(&refused["detail"]);
        for said in ["urn:job:webhook.replay", "POST /v1/endpoints/{endpointId}/replay"] {
            assert!(detail.contains(said), "{detail}");
        }
    }
    let none = json!({"type": "urn:job:none", "specification": {}});
    let refused = problem(world.client.post("/v1/jobs", &none), 400, "unknown_job_type");
    let detail = text(&refused["detail"]);
    assert!(detail.contains("urn:job:noop") && !detail.contains("webhook.replay"), "{detail}");
    let listed = world.client.get("/v1/jobs").expect(200).json();
    assert_eq!(listed["jobs"], json!([]), "no job came of it");

    // Where types are only named, it is one of them.
    world.endpoint_id("/replays", json!({"types": ["urn:job:webhook.replay"]}));
    let wanted = json!({"event": "job.succeeded", "type": "urn:job:webhook.replay"});
    world.client.post("/v1/events/trigger", &wanted).expect(202);
}
