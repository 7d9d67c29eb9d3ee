//! Who may do what: applications apart from each other, scopes, refused keys.

use serde_json::{Value, json};

use super::{PATIENCE, World, ids, list, noop, pack, problem, text, with};
use crate::support::database::{Database, on_both};
use crate::support::http::Client;
use crate::support::process::Application;

const NONE: &str = "0199f0b2-7c7e-7d51-9d6a-3b0f6f1f5a01";

/// What one application has, by id and path.
struct Estate {
    job: String,
    live: String,
    group: String,
    open: String,
    file: String,
    delivery: String,
}

impl Estate {
    fn of(world: &World) -> Estate {
        let file = world.client.put("/v1/files/mine/a.txt", "mine").expect(201).json();
        let told = with(noop(0.0), "callbackUrl", world.receiver.url("/hook"));
        let job = world.ran(&told);
        world.receiver.wait_for_on("/hook", 1, PATIENCE);
        let deliveries = world.client.get("/v1/deliveries").expect(200).json();
        let open = world.client.post_empty("/v1/groups").expect(201).json();
        Estate {
            live: world.id_of(&with(noop(0.0), "runAt", "2090-01-01T00:00:00Z")),
            group: text(&job["groupId"]),
            job: text(&job["id"]),
            open: text(&open["id"]),
            file: text(&file["id"]),
            delivery: text(&deliveries["deliveries"][0]["id"]),
        }
    }
}

/// A 404's text with the id left out: nothing else may differ.
#[track_caller]
fn shape(answer: crate::support::http::Answer, id: &str) -> Value {
    let mut found = problem(answer, 404, "not_found");
    found["instance"] = Value::Null;
    serde_json::from_str(&found.to_string().replace(id, "ID")).expect("still JSON")
}

on_both!(what_another_application_has_does_not_exist);
fn what_another_application_has_does_not_exist(database: Database) {
    let world = World::start(database);
    let estate = Estate::of(&world);
    let other = world.other();
    let attempts: Vec<(&str, &str, &str)> = vec![
        ("GET", "/v1/jobs/{}", &estate.job),
        ("GET", "/v1/jobs/{}?wait=1", &estate.live),
        ("GET", "/v1/jobs/{}/events", &estate.job),
        ("POST", "/v1/jobs/{}/stop", &estate.live),
        ("POST", "/v1/jobs/{}/stop", &estate.job),
        ("POST", "/v1/jobs/{}/retry", &estate.job),
        ("DELETE", "/v1/jobs/{}", &estate.job),
        ("DELETE", "/v1/jobs/{}", &estate.live),
        ("GET", "/v1/groups/{}", &estate.group),
        ("GET", "/v1/groups/{}", &estate.open),
        ("POST", "/v1/groups/{}/close", &estate.open),
        ("POST", "/v1/groups/{}/stop", &estate.open),
        ("GET", "/v1/files/mine/{}", "a.txt"),
        ("DELETE", "/v1/files/mine/{}", "a.txt"),
        ("GET", "/v1/deliveries/{}", &estate.delivery),
        ("POST", "/v1/deliveries/{}/redeliver", &estate.delivery),
    ];
    for (method, path, id) in attempts {
        let ask = |id: &str| other.request(method, &path.replace("{}", id)).send();
        let nobody = if id == "a.txt" { "z.txt" } else { NONE };
        assert_eq!(shape(ask(id), id), shape(ask(nobody), nobody), "{method} {path}");
    }
    assert_eq!(other.head("/v1/files/mine/a.txt").expect(404).body, b"");

    // Nor by naming it in a body.
    for group in [&estate.open, &estate.group] {
        let joined = other.post("/v1/jobs", &with(noop(0.0), "groupId", group.as_str()));
        problem(joined, 404, "not_found");
    }
    // Nor in a list, whatever it is asked for.
    for (query, name) in [
        (format!("jobs?groupId={}", estate.group), "jobs"),
        (format!("jobs?groupId={}", estate.open), "jobs"),
        (format!("jobs?fileId={}", estate.file), "jobs"),
        (format!("jobs?issuer=urn:app:{}", world.application.id), "jobs"),
        ("jobs?type=urn:job:noop".to_owned(), "jobs"),
        ("jobs?path=/mine/".to_owned(), "jobs"),
        ("files".to_owned(), "files"),
        ("files?prefix=/mine/".to_owned(), "files"),
        ("deliveries".to_owned(), "deliveries"),
        (format!("deliveries?jobId={}", estate.job), "deliveries"),
    ] {
        let page = other.get(&format!("/v1/{query}")).expect(200).json();
        assert_eq!((&page[name], &page["nextPageToken"]), (&json!([]), &Value::Null), "{query}");
    }

    // Nor by reading it.
    let reads = |source: Value| {
        let job = json!({
            "type": "urn:job:archive.create",
            "specification": {"sources": [source], "destination": {"path": "/o"}, "archiveType": "zip"},
        });
        let id = text(&other.post("/v1/jobs", &job).expect(202).json()["id"]);
        let job = other.get(&format!("/v1/jobs/{id}?wait=30")).expect(200).json();
        assert_eq!(job["status"], "error");
        job["failure"].clone()
    };
    let failure = reads(json!({"fileId": estate.file})).to_string();
    assert_eq!(failure.replace(&estate.file, NONE), reads(json!({"fileId": NONE})).to_string());
    let failure = reads(json!({"path": "/mine/a.txt"})).to_string();
    assert_eq!(failure.replace("/mine/a.txt", "/z"), reads(json!({"path": "/z"})).to_string());

    // The same names are free, and nothing of the first application's has changed.
    other.put("/v1/files/mine/a.txt", "theirs").expect(201);
    other.delete("/v1/files/mine/a.txt").expect(204);
    assert_eq!(world.client.get("/v1/files/mine/a.txt").expect(200).text(), "mine");
    assert_eq!(world.job(&estate.live)["status"], "pending");
    assert_eq!(world.job(&estate.job)["status"], "success");
    let open = world.client.get(&format!("/v1/groups/{}", estate.open)).expect(200).json();
    assert_eq!((&open["sealed"], &open["total"]), (&json!(false), &json!(0)));
    let delivery = world.client.get(&format!("/v1/deliveries/{}", estate.delivery)).expect(200);
    assert_eq!(delivery.json()["attempts"], 1);
    assert_eq!(world.receiver.count(), 1);
}

on_both!(a_key_does_what_its_scopes_say);
fn a_key_does_what_its_scopes_say(database: Database) {
    let world = World::start(database);
    let scopes = [
        (
            "jobs:read",
            vec![
                ("GET", "/v1/jobs"),
                ("GET", "/v1/jobs/X"),
                ("GET", "/v1/jobs/X/events"),
                ("GET", "/v1/groups/X"),
            ],
        ),
        (
            "jobs:write",
            vec![
                ("POST", "/v1/jobs"),
                ("POST", "/v1/jobs/batch"),
                ("POST", "/v1/jobs/X/stop"),
                ("POST", "/v1/jobs/X/retry"),
                ("DELETE", "/v1/jobs/X"),
                ("POST", "/v1/groups"),
                ("POST", "/v1/groups/X/close"),
                ("POST", "/v1/groups/X/stop"),
            ],
        ),
        ("files:read", vec![("GET", "/v1/files"), ("GET", "/v1/files/x")]),
        ("files:write", vec![("PUT", "/v1/files/x"), ("DELETE", "/v1/files/x")]),
        ("deliveries:read", vec![("GET", "/v1/deliveries"), ("GET", "/v1/deliveries/X")]),
        ("deliveries:write", vec![("POST", "/v1/deliveries/X/redeliver")]),
    ];
    let client_with = |scopes: &str| -> Client {
        let application = Application::create_with(&world.database, scopes, &["--scopes", scopes]);
        world.server.client_of(&application)
    };
    for (scope, operations) in &scopes {
        let others: Vec<&str> =
            scopes.iter().map(|(other, _)| *other).filter(|other| other != scope).collect();
        let (with, without) = (client_with(scope), client_with(&others.join(",")));
        for (method, path) in operations {
            let path = path.replace('X', NONE);
            let ask = |client: &Client| client.request(method, &path).json(&json!({})).send();
            let refused = problem(ask(&without), 403, "forbidden_scope");
            assert_eq!(refused["scope"], *scope, "{method} {path}");
            let allowed = ask(&with).status;
            assert!(![401, 403].contains(&allowed), "{method} {path}: {allowed}");
        }
    }
    // A family stands for both.
    let family = client_with("jobs,files:read");
    let id = text(&family.post("/v1/jobs", &noop(0.0)).expect(202).json()["id"]);
    family.get(&format!("/v1/jobs/{id}")).expect(200);
    problem(family.put("/v1/files/x", "x"), 403, "forbidden_scope");
}

on_both!(without_a_valid_key_nothing_is_told);
fn without_a_valid_key_nothing_is_told(database: Database) {
    let world = World::start(database);
    let job = world.id_of(&pack("/a", "/b", "zip"));
    let (known, key) = (format!("/v1/jobs/{job}"), &world.application.api_key);
    let changed = format!("{}0", &key[..key.len() - 1]);
    let changed = if changed == *key { format!("{}1", &key[..key.len() - 1]) } else { changed };
    let anybody = world.server.client();
    let headers = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(format!("Basic {key}")),
        Some(key.clone()),
        Some(format!("Bearer {changed}")),
        Some(format!("Bearer {key} x")),
        Some(format!("Bearer {}", world.application.signing_secret)),
        Some(format!("Bearer {}", "k".repeat(2_000))),
    ];
    for header in headers {
        for path in ["/v1/jobs", known.as_str(), "/v1/files/a", "/v1/deliveries"] {
            let mut request = anybody.request("GET", path);
            if let Some(header) = &header {
                request = request.header("authorization", header);
            }
            let answer = request.send();
            let challenge = answer.header("www-authenticate").unwrap_or_default().to_owned();
            assert!(challenge.starts_with("Bearer "), "{header:?}: {challenge}");
            let refused = problem(answer, 401, "unauthorized");
            assert!(!refused.to_string().contains(key.as_str()), "{refused}");
        }
    }
    let bearer = format!("bearer {key}");
    anybody.request("GET", &known).header("authorization", &bearer).send().expect(200);
    let listed = world.client.get("/v1/jobs").expect(200).json();
    assert_eq!(ids(&listed, "jobs"), [job]);
    assert_eq!(list(&listed, "jobs").len(), 1);
}
