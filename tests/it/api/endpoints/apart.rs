//! Applications apart from each other, and keys from what they may not do.

use serde_json::{Value, json};

use super::NONE;
use crate::api::{PATIENCE, World, ids, noop, problem, text};
use crate::support::database::{Database, on_both};
use crate::support::http::Answer;
use crate::support::process::Application;
use crate::support::receiver::Reply;

/// Everything that names an endpoint.
pub const ROUTES: [(&str, &str); 13] = [
    ("GET", "/v1/endpoints/{}"),
    ("PATCH", "/v1/endpoints/{}"),
    ("DELETE", "/v1/endpoints/{}"),
    ("GET", "/v1/endpoints/{}/secrets"),
    ("POST", "/v1/endpoints/{}/secrets"),
    ("POST", "/v1/endpoints/{}/secrets/rotate"),
    ("GET", "/v1/endpoints/{}/public-key"),
    ("POST", "/v1/endpoints/{}/ping"),
    ("POST", "/v1/endpoints/{}/disable"),
    ("POST", "/v1/endpoints/{}/enable"),
    ("GET", "/v1/endpoints/{}/stats"),
    ("POST", "/v1/endpoints/{}/replay"),
    ("DELETE", "/v1/endpoints/{}/secrets/0199f0b2-7c7e-7d51-9d6a-3b0f6f1f5a01"),
];

/// A body that the route takes.
pub fn body_of(path: &str) -> Value {
    match path.ends_with("/replay") {
        true => json!({"since": "2026-01-01T00:00:00Z"}),
        false => json!({}),
    }
}

/// A 404's text with the id left out: nothing else may differ.
#[track_caller]
fn shape(answer: Answer, id: &str) -> Value {
    let mut found = problem(answer, 404, "not_found");
    found["instance"] = Value::Null;
    serde_json::from_str(&found.to_string().replace(id, "ID")).expect("still JSON")
}

on_both!(anothers_endpoints_do_not_exist);
fn anothers_endpoints_do_not_exist(database: Database) {
    let world = World::start(database);
    world.receiver.on("/strict", [Reply::status(500)]);
    let settings = json!({"events": ["job.*"], "ordering": "strict", "retrySchedule": []});
    let made = world.endpoint("/strict", settings);
    let id = text(&made["id"]);
    world.ran(&noop(0.0));
    let blocking = world.await_deliveries(&id, "exhausted", 1).remove(0);
    let before = (world.shown(&id), world.deliveries(""), world.receiver.count());

    let other = world.other();
    for (method, path) in ROUTES {
        let ask = |id: &str| {
            let path = path.replace("{}", id);
            other.request(method, &path).json(&body_of(&path)).send()
        };
        assert_eq!(shape(ask(&id), &id), shape(ask(NONE), NONE), "{method} {path}");
    }
    let secret = world.client.get(&format!("/v1/endpoints/{id}/secrets")).expect(200).json();
    let secret = ids(&secret, "secrets").remove(0);
    let path = format!("/v1/endpoints/{id}/secrets/{secret}");
    problem(other.delete(&path), 404, "not_found");
    for action in ["skip", "redeliver"] {
        let ask = |id: &str| other.post_empty(&format!("/v1/deliveries/{id}/{action}"));
        let delivery = text(&blocking["id"]);
        assert_eq!(shape(ask(&delivery), &delivery), shape(ask(NONE), NONE), "{action}");
    }
    let bulk = |filter: Value| other.post("/v1/deliveries/redeliver", &json!({"filter": filter}));
    assert_eq!(
        shape(bulk(json!({"endpointId": id})), &id),
        shape(bulk(json!({"endpointId": NONE})), NONE)
    );
    assert_eq!(bulk(json!({})).expect(200).json()["matched"], 0);
    for path in ["/v1/endpoints".to_owned(), format!("/v1/deliveries?endpointId={id}")] {
        let page = other.get(&path).expect(200).text();
        assert!(!page.contains(&id) && page.contains("[]"), "{page}");
    }
    // An example goes to one's own endpoints only, and so do events.
    let event = json!({"event": "job.succeeded"});
    let triggered = other.post("/v1/events/trigger", &event).expect(202).json();
    assert_eq!(triggered, json!({"deliveries": []}));
    let job = other.post("/v1/jobs", &noop(0.0)).expect(202).json();
    other.get(&format!("/v1/jobs/{}?wait=30", text(&job["id"]))).expect(200);

    assert_eq!((world.shown(&id), world.deliveries(""), world.receiver.count()), before);
    world.client.post_empty(&format!("/v1/deliveries/{}/skip", text(&blocking["id"]))).expect(200);
    world.receiver.wait_for_on("/strict", 2, PATIENCE);
}

on_both!(a_key_does_what_its_scopes_say);
fn a_key_does_what_its_scopes_say(database: Database) {
    let world = World::start(database);
    let client = |name: &str, scopes: &str| {
        let options = ["--scopes", scopes];
        world.server.client_of(&Application::create_with(&world.database, name, &options))
    };
    let reader = client("reader", "deliveries:read,jobs");
    let writer = client("writer", "deliveries:write");
    let url = json!({"url": world.receiver.url("/hook")});
    let id = text(&writer.post("/v1/endpoints", &url).expect(201).json()["id"]);
    let delivery = format!("/v1/deliveries/{NONE}");
    let mut reads = vec![("GET", "/v1/endpoints".to_owned()), ("GET", "/v1/deliveries".to_owned())];
    let mut writes = vec![
        ("POST", "/v1/endpoints".to_owned()),
        ("POST", "/v1/events/trigger".to_owned()),
        ("POST", "/v1/deliveries/redeliver".to_owned()),
        ("POST", format!("{delivery}/redeliver")),
        ("POST", format!("{delivery}/skip")),
    ];
    for (method, path) in ROUTES {
        let list = if method == "GET" { &mut reads } else { &mut writes };
        list.push((method, path.replace("{}", &id)));
    }
    for (client, paths, scope) in
        [(&writer, reads, "deliveries:read"), (&reader, writes, "deliveries:write")]
    {
        for (method, path) in paths {
            let refused = problem(client.request(method, &path).send(), 403, "forbidden_scope");
            assert_eq!(refused["scope"], scope, "{method} {path}");
        }
    }
    for path in ["/v1/events", "/v1/events/stream"] {
        let refused = problem(writer.get(path), 403, "forbidden_scope");
        assert_eq!(refused["scope"], "jobs:read");
        problem(world.server.client().get(path), 401, "unauthorized");
    }
    reader.get("/v1/events").expect(200);
    assert_eq!(ids(&reader.get("/v1/endpoints").expect(200).json(), "endpoints"), [""; 0]);
}
