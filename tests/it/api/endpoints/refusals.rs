//! What is no endpoint, and what the caller is told.

use serde_json::{Value, json};

use crate::api::{World, ids, problem, text, with};
use crate::support::database::{Database, on_both};

/// What is wrong, with which code, and where the problem says it is.
fn wrong() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let headers = |count: usize| {
        let names = (0..count).map(|number| (format!("X-{number}"), "v".into()));
        Value::Object(names.collect())
    };
    vec![
        ("url", json!(1), "invalid_request", "/url"),
        ("url", json!("not a url"), "endpoint_refused", "/url"),
        ("url", json!("ftp://example.com/"), "endpoint_refused", "/url"),
        ("url", json!("http://10.0.0.1/"), "endpoint_refused", "/url"),
        ("url", json!("http://169.254.169.254/latest"), "endpoint_refused", "/url"),
        ("url", json!("http://[::1]/"), "endpoint_refused", "/url"),
        ("url", json!("http://127.0.0.1/hook?token=***"), "invalid_request", "/url"),
        ("url", json!("http://***@127.0.0.1/hook"), "invalid_request", "/url"),
        ("description", json!("x".repeat(501)), "invalid_request", "/description"),
        ("description", json!("a\0b"), "invalid_request", "/description"),
        ("description", json!(["x"]), "invalid_request", "/description"),
        ("events", json!([]), "invalid_request", "/events"),
        ("events", json!("*"), "invalid_request", "/events"),
        ("events", json!(["job.*", "job.f*"]), "invalid_request", "/events/1"),
        ("events", json!(vec!["*"; 33]), "invalid_request", "/events"),
        ("types", json!([]), "invalid_request", "/types"),
        ("types", json!(["noop"]), "unknown_job_type", "/types/0"),
        ("types", json!(["urn:job:noop", "urn:job:none"]), "unknown_job_type", "/types/1"),
        ("headers", json!([]), "invalid_request", "/headers"),
        ("headers", json!({"X-A": 1}), "invalid_request", "/headers/X-A"),
        ("headers", json!({"X-A": "***"}), "invalid_request", "/headers/X-A"),
        ("headers", headers(21), "invalid_request", "/headers"),
        ("headers", json!({"X-A": "v".repeat(8_192)}), "invalid_request", "/headers"),
        ("headers", json!({"X-A": "a", "x-a": "b"}), "invalid_request", "/headers/x-a"),
        ("headers", json!({"Host": "x"}), "endpoint_refused", "/headers/Host"),
        ("headers", json!({"webhook-id": "x"}), "endpoint_refused", "/headers/webhook-id"),
        ("headers", json!({"X-A": "a\r\nb: c"}), "endpoint_refused", "/headers/X-A"),
        ("rateLimit", json!(5), "invalid_request", "/rateLimit"),
        ("rateLimit", json!({"perSecond": 0}), "invalid_request", "/rateLimit/perSecond"),
        ("rateLimit", json!({"perSecond": 10_001}), "invalid_request", "/rateLimit/perSecond"),
        ("rateLimit", json!({"perSecond": 1, "burst": 0}), "invalid_request", "/rateLimit/burst"),
        ("rateLimit", json!({"perSecond": 1, "per": 1}), "unknown_field", "/rateLimit/per"),
        ("maxInFlight", json!(0), "invalid_request", "/maxInFlight"),
        ("maxInFlight", json!(1_001), "invalid_request", "/maxInFlight"),
        ("maxInFlight", json!(1.5), "invalid_request", "/maxInFlight"),
        ("ordering", json!("fifo"), "invalid_request", "/ordering"),
        ("ordering", json!("Strict"), "invalid_request", "/ordering"),
        ("signature", json!("rsa"), "invalid_request", "/signature"),
        ("signature", json!(1), "invalid_request", "/signature"),
        ("retrySchedule", json!(vec![1; 21]), "invalid_request", "/retrySchedule"),
        ("retrySchedule", json!([1, 0]), "invalid_request", "/retrySchedule/1"),
        ("retrySchedule", json!([604_801]), "invalid_request", "/retrySchedule/0"),
        ("retrySchedule", json!([0.5]), "invalid_request", "/retrySchedule/0"),
        ("clientErrors", json!("ignore"), "invalid_request", "/clientErrors"),
        ("enabled", json!("yes"), "invalid_request", "/enabled"),
        ("secret", json!("whsec_x"), "unknown_field", "/secret"),
        ("id", json!("x"), "unknown_field", "/id"),
    ]
}

on_both!(what_is_wrong_with_an_endpoint_is_said);
fn what_is_wrong_with_an_endpoint_is_said(database: Database) {
    let world = World::start(database);
    let known = world.endpoint_id("/known", json!({}));
    let before = world.shown(&known);
    let plain = json!({"url": world.receiver.url("/hook")});
    for (name, value, code, pointer) in wrong() {
        let status = if code == "endpoint_refused" { 422 } else { 400 };
        let made = world.client.post("/v1/endpoints", &with(plain.clone(), name, value.clone()));
        let changed = world.patch(&known, &json!({"description": "x", name: value}));
        for answer in [made, changed] {
            let refused = problem(answer, status, code);
            assert_eq!(refused["errors"][0]["pointer"], pointer, "{name}: {refused}");
            assert_eq!(refused["reason"].is_string(), status == 422, "{name}: {refused}");
        }
    }
    // A rate needs its number, from this request or from an earlier one.
    let burst = json!({"burst": 1});
    let made = world.client.post("/v1/endpoints", &with(plain.clone(), "rateLimit", burst.clone()));
    let refused = problem(made, 400, "invalid_request");
    assert_eq!(refused["errors"][0]["pointer"], "/rateLimit/perSecond");
    let refused =
        problem(world.patch(&known, &json!({"rateLimit": burst})), 400, "invalid_request");
    assert!(text(&refused["detail"]).contains("rateLimit.perSecond is required"), "{refused}");
    let told = |name: &str, value: Value| {
        let refused = world.client.post("/v1/endpoints", &with(plain.clone(), name, value));
        text(&refused.json()["detail"])
    };
    assert!(told("ordering", json!("fifo")).contains("none, per-job, strict"));
    assert!(told("signature", json!("rsa")).contains("standard, hex, ed25519"));
    assert!(told("clientErrors", json!("x")).contains("retry, final"));
    assert!(told("types", json!(["x"])).contains("urn:job:archive.create"));
    assert!(told("events", json!(["x"])).contains("group.completed"));
    assert!(told("maxInFlight", json!(7_777)).contains("7777"));

    // Only a registration needs an address, and only a change can take one away.
    problem(world.client.post("/v1/endpoints", &json!({})), 400, "invalid_request");
    problem(world.patch(&known, &json!({"url": null})), 400, "invalid_request");
    problem(
        world.patch(&known, &json!({"rateLimit": {"perSecond": null}})),
        400,
        "invalid_request",
    );
    // What cannot be read at all.
    let send = |method: &str, path: &str, kind: &str, body: &str| {
        let path = format!("/v1/endpoints{path}");
        world.client.request(method, &path).header("content-type", kind).body(body).send()
    };
    let path = format!("/{known}");
    for (method, path) in [("POST", ""), ("PATCH", path.as_str())] {
        problem(send(method, path, "application/json", "{"), 400, "invalid_json");
        problem(send(method, path, "application/json", ""), 400, "invalid_json");
        problem(send(method, path, "application/json", "[]"), 400, "invalid_request");
        problem(send(method, path, "text/plain", "{}"), 415, "unsupported_media_type");
        let huge = format!("{{\"description\":\"{}\"}}", "x".repeat(1 << 20));
        problem(send(method, path, "application/json", &huge), 413, "payload_too_large");
    }
    problem(send("POST", "", "application/merge-patch+json", "{}"), 415, "unsupported_media_type");
    problem(world.client.post("/v1/endpoints?dryRun=true", &plain), 400, "unknown_field");
    problem(world.client.get("/v1/endpoints/x"), 400, "invalid_request");

    // Nothing came of any of it.
    assert_eq!(world.shown(&known), before);
    let listed = world.client.get("/v1/endpoints").expect(200).json();
    assert_eq!(ids(&listed, "endpoints"), [known]);
}
