//! Submitting: every field, idempotency keys, batches.

use ringback::clock::Clock;
use serde_json::{Value, json};

use super::{PATIENCE, World, ids, list, noop, pack, problem, text, with};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;

on_both!(every_field_comes_back_as_it_was_given);
fn every_field_comes_back_as_it_was_given(database: Database) {
    let world = World::start(database);
    let file = world.client.put("/v1/files/in/a.txt", "hello").expect(201).json();
    let group = world.client.post_empty("/v1/groups").expect(201).json();
    let (run_at, expires_at) = ("2090-01-02T03:04:05.678Z", "2091-01-02T03:04:05.000Z");
    let url = world.receiver.url("/hook?token=secret&plain=1");
    let submission = json!({
        "type": "urn:job:archive.create",
        "specification": {
            "sources": [{"path": "/in/a.txt", "pathInArchive": "b.txt"}, {"fileId": file["id"]}],
            "destination": {"path": "/out/a.zip", "acl": "private"},
            "archiveType": "zip",
        },
        "groupId": group["id"],
        "callback": {
            "url": url,
            "events": ["job.created", "job.*"],
            "headers": {"X-Mine": "secret"},
            "format": "standard",
            "rateLimit": {"perSecond": 2.5, "burst": 4},
        },
        "metadata": {"order": 17, "text": "ü"},
        "priority": -7,
        "runAt": run_at,
        "expiresAt": expires_at,
        "maxAttempts": 9,
        "timeoutSeconds": 77,
        "queue": "slow-ones",
    });
    let answer = world.client.post("/v1/jobs", &submission).expect(202);
    let job = answer.json();
    let id = text(&job["id"]);
    let location = format!("{}/v1/jobs/{id}", world.server.base_url());
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert_eq!(world.client.get(&location).expect(200).json(), job);

    for name in ["type", "groupId", "metadata", "priority", "runAt", "expiresAt", "maxAttempts"] {
        assert_eq!(job[name], submission[name], "{name}");
    }
    assert_eq!((&job["timeoutSeconds"], &job["queue"]), (&json!(77), &json!("slow-ones")));
    assert_eq!(job["specification"], submission["specification"]);
    let sources = list(&job, "sources");
    assert_eq!(sources[0]["path"], "/in/a.txt");
    assert_eq!(sources[1]["fileId"], file["id"]);
    assert_eq!(
        job["callback"],
        json!({
            "url": url.replace("secret", "***"),
            "events": ["job.created", "job.*"],
            "headers": {"X-Mine": "***"},
            "format": "standard",
            "rateLimit": {"perSecond": 2.5, "burst": 4},
        })
    );
    assert_eq!(job["issuer"], format!("urn:app:{}", world.application.id));
    assert!(text(&job["actor"]).starts_with("urn:credential:"), "{job}");
    assert_eq!((&job["status"], &job["progress"]), (&json!("pending"), &json!(0.0)));
    for name in ["result", "failure", "retryOf", "parentId", "dateStarted", "dateCompleted"] {
        assert_eq!(job[name], Value::Null, "{name}");
    }
    let created = text(&job["dateCreated"]);
    assert!(
        created.ends_with('Z') && created.len() == "2026-01-01T00:00:00.000Z".len(),
        "{created}"
    );
    let submitted: ringback::ids::Timestamp = created.parse().expect("RFC 3339");
    let age = Clock::system().now().millis_since(submitted);
    assert!((0..60_000).contains(&age), "{created} was {age} ms ago");
}

on_both!(a_plain_job_has_defaults_and_runs);
fn a_plain_job_has_defaults_and_runs(database: Database) {
    let world = World::start(database);
    let url = world.receiver.url("/short");
    let job = world.ran(&with(noop(0.0), "callbackUrl", url.clone()));
    assert_eq!(job["status"], "success");
    assert_eq!((&job["priority"], &job["queue"]), (&json!(0), &json!("default")));
    assert_eq!((&job["attempt"], &job["progress"]), (&json!(1), &json!(1.0)));
    assert_eq!((&job["result"]["code"], &job["result"]["message"]), (&json!(0), &json!("OK")));
    assert_eq!(job["callback"]["url"], url);
    assert!(job["runtimeSeconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{job}");
    assert!(text(&job["dateCompleted"]) >= text(&job["dateStarted"]));
    let webhook = &world.receiver.wait_for_on("/short", 1, PATIENCE)[0];
    assert_eq!(webhook.signed().json()["data"], job);
}

on_both!(what_is_wrong_is_said_by_place);
fn what_is_wrong_is_said_by_place(database: Database) {
    let world = World::start(database);
    let deep = with(noop(0.0), "callback", json!({"url": "http://[::1", "events": ["job.failed"]}));
    for (body, status, code, pointer) in [
        (json!({"specification": {}}), 400, "invalid_request", "/type"),
        (json!({"type": "urn:job:none", "specification": {}}), 400, "unknown_job_type", "/type"),
        (json!({"type": "urn:job:noop"}), 400, "invalid_request", "/specification"),
        (noop(-1.0), 400, "invalid_specification", "/specification"),
        (with(noop(0.0), "priority", 101), 400, "invalid_request", "/priority"),
        (with(noop(0.0), "priority", "1"), 400, "invalid_request", "/priority"),
        (with(noop(0.0), "runAt", "tomorrow"), 400, "invalid_request", "/runAt"),
        (with(noop(0.0), "maxAttempts", 0), 400, "invalid_request", "/maxAttempts"),
        (with(noop(0.0), "timeoutSeconds", 0), 400, "invalid_request", "/timeoutSeconds"),
        (with(noop(0.0), "queue", "No"), 400, "invalid_request", "/queue"),
        (with(noop(0.0), "metadata", "x".repeat(20_000)), 400, "invalid_request", "/metadata"),
        (with(noop(0.0), "groupId", "1"), 400, "invalid_request", "/groupId"),
        (with(noop(0.0), "colour", "red"), 400, "unknown_field", "/colour"),
        (with(noop(0.0), "callbackUrl", "ftp://a/"), 422, "callback_refused", "/callbackUrl"),
        (
            with(noop(0.0), "callbackUrl", "http://10.0.0.1/"),
            422,
            "callback_refused",
            "/callbackUrl",
        ),
        (deep, 422, "callback_refused", "/callback/url"),
        (
            super::import("http://169.254.169.254/latest", "/a"),
            422,
            "source_refused",
            "/specification",
        ),
    ] {
        let problem = problem(world.client.post("/v1/jobs", &body), status, code);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let named = world.client.request("POST", "/v1/jobs").header("content-type", "text/csv");
    problem(named.body(noop(0.0).to_string()).send(), 415, "unsupported_media_type");
    let json = |body: &str| {
        let request = world.client.request("POST", "/v1/jobs");
        request.header("content-type", "application/json").body(body).send()
    };
    problem(json("{"), 400, "invalid_json");
    problem(json(&" ".repeat(3 * 1024 * 1024)), 413, "payload_too_large");
    let other_query = world.client.post("/v1/jobs?dry=1", &noop(0.0));
    problem(other_query, 400, "unknown_field");
    let jobs = world.client.get("/v1/jobs").expect(200).json();
    assert_eq!(jobs, json!({"jobs": [], "nextPageToken": null}));
}

on_both!(a_key_gives_the_first_answer_again);
fn a_key_gives_the_first_answer_again(database: Database) {
    let world = World::start(database);
    let other = world.other();
    let send = |client: &crate::support::http::Client, path: &str, key: &str, body: &Value| {
        client.request("POST", path).header("idempotency-key", key).json(body).send()
    };
    let body = with(noop(0.0), "metadata", json!({"n": 1}));
    let first = send(&world.client, "/v1/jobs", "key-1", &body).expect(202);
    assert_eq!(first.header("idempotency-replayed"), None);
    let id = text(&first.json()["id"]);
    assert_eq!(world.finished(&id)["status"], "success");
    let again = send(&world.client, "/v1/jobs", "key-1", &body).expect(202);
    assert_eq!(again.text(), first.text());
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));

    // Another body, another path: the key is taken. Another key or application: it is free.
    let changed = with(body.clone(), "priority", 1);
    problem(send(&world.client, "/v1/jobs", "key-1", &changed), 422, "idempotency_mismatch");
    let batch = json!({"jobs": [body]});
    problem(send(&world.client, "/v1/jobs/batch", "key-1", &batch), 422, "idempotency_mismatch");
    let others = send(&other, "/v1/jobs", "key-1", &body).expect(202);
    assert_eq!(others.header("idempotency-replayed"), None);
    assert_ne!(text(&others.json()["id"]), id);
    problem(other.get(&format!("/v1/jobs/{id}")), 404, "not_found");

    // Errors are not remembered.
    problem(send(&world.client, "/v1/jobs", "key-2", &noop(-1.0)), 400, "invalid_specification");
    send(&world.client, "/v1/jobs", "key-2", &body).expect(202);
    problem(send(&world.client, "/v1/jobs", "with space", &body), 400, "invalid_request");

    // A batch and a retry answer once as well.
    let batch = json!({"jobs": [noop(0.0), noop(0.0)]});
    let first = send(&world.client, "/v1/jobs/batch", "key-3", &batch).expect(202);
    for id in ids(&first.json(), "jobs") {
        world.finished(&id);
    }
    let again = send(&world.client, "/v1/jobs/batch", "key-3", &batch).expect(202);
    assert_eq!(again.text(), first.text());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));

    let failed = world.ran(&pack("/not/there", "/o.zip", "zip"));
    let path = format!("/v1/jobs/{}/retry", text(&failed["id"]));
    let retry = || world.client.request("POST", &path).header("idempotency-key", "key-4").send();
    let first = retry().expect(202);
    world.finished(&text(&first.json()["id"]));
    let again = retry().expect(202);
    assert_eq!(again.text(), first.text());

    // One job for each key that made one, and none besides: 2 single, 2 in the batch, 1 failed, 1 retried.
    let all = world.client.get("/v1/jobs?pageSize=100").expect(200).json();
    assert_eq!(list(&all, "jobs").len(), 6);
}

on_both!(a_batch_is_all_or_nothing);
fn a_batch_is_all_or_nothing(database: Database) {
    let world = World::start(database);
    let mut jobs: Vec<Value> =
        (0..1000).map(|number| with(noop(0.0), "metadata", json!({"n": number}))).collect();
    jobs[777] = with(noop(0.0), "maxAttempts", 0);
    let answer = world.client.post("/v1/jobs/batch", &json!({"jobs": jobs}));
    let refused = problem(answer, 400, "invalid_request");
    assert_eq!(refused["errors"][0]["pointer"], "/jobs/777/maxAttempts");
    // Refused by the engine, not by its form: a group that is not there.
    let group = "0199f0b2-7c7e-7d51-9d6a-3b0f6f1f5a01";
    jobs[777] = with(noop(0.0), "groupId", group);
    problem(world.client.post("/v1/jobs/batch", &json!({"jobs": jobs})), 400, "invalid_request");
    let stored = world.client.get("/v1/jobs").expect(200).json();
    assert_eq!(stored["jobs"], json!([]));

    jobs[777] = noop(0.0);
    jobs.push(noop(0.0));
    problem(world.client.post("/v1/jobs/batch", &json!({"jobs": jobs})), 400, "invalid_request");
    problem(world.client.post("/v1/jobs/batch", &json!({"jobs": []})), 400, "invalid_request");
    jobs.pop();

    world.receiver.on("/group", [Reply::ok()]);
    let batch = json!({"jobs": jobs, "callback": {"url": world.receiver.url("/group")}});
    let answer = world.client.post("/v1/jobs/batch", &batch).expect(202);
    let made = answer.json();
    let group_id = text(&made["groupId"]);
    let location = format!("{}/v1/groups/{group_id}", world.server.base_url());
    assert_eq!(answer.header("location"), Some(location.as_str()));
    let answered = list(&made, "jobs");
    assert_eq!(answered.len(), 1000);
    for (number, job) in answered.iter().enumerate() {
        assert_eq!(job["groupId"], group_id.as_str());
        let metadata = if number == 777 { Value::Null } else { json!({"n": number}) };
        assert_eq!(job["metadata"], metadata, "in the order they were given");
    }
    let sealed = with(noop(0.0), "groupId", group_id.clone());
    problem(world.client.post("/v1/jobs", &sealed), 409, "group_sealed");

    // The group's own callback hears once, when all are final.
    let webhook = &world.receiver.wait_for_on("/group", 1, PATIENCE)[0];
    let body = webhook.signed().json();
    assert_eq!(body["type"], "group.completed");
    assert_eq!((&body["data"]["id"], &body["data"]["total"]), (&json!(group_id), &json!(1000)));
    let group = world.client.get(&location).expect(200).json();
    assert_eq!((&group["status"], &group["sealed"]), (&json!("completed"), &json!(true)));
    assert_eq!((&group["success"], &group["remaining"]), (&json!(1000), &json!(0)));
    assert_eq!(list(&group, "jobs").len(), 1000);
    assert_eq!(world.receiver.count(), 1);
}
