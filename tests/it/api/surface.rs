//! What operators and tools see: health, metrics, logs, the document, and that it tells the truth
//! about the routes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{PATIENCE, World, list, noop, problem, text, with};
use crate::support::database::{Backend, Database, on_both};
use crate::support::http::Answer;
use crate::support::wait::eventually;

/// `METHOD /path` of every operation of the document, by its id.
fn operations(document: &Value) -> BTreeMap<String, (String, String)> {
    let mut operations = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            if let Some(id) = operation["operationId"].as_str() {
                operations.insert(id.to_owned(), (method.to_uppercase(), path.clone()));
            }
        }
    }
    operations
}

/// Whether the document foresees that answer, with its media type.
fn foresees(document: &Value, method: &str, path: &str, answer: &Answer) -> bool {
    let operation = &document["paths"][path][method.to_lowercase()];
    let mut response = &operation["responses"][answer.status.to_string()];
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(reference.trim_start_matches('#')).expect("it leads somewhere");
    }
    let Some(media_type) = answer.header("content-type").filter(|_| method != "HEAD") else {
        return response.is_object();
    };
    let media_type = media_type.split(';').next().unwrap_or_default();
    response["content"].as_object().is_some_and(|content| {
        let known: Vec<&str> =
            content.keys().map(|key| key.split(';').next().unwrap_or_default()).collect();
        known.contains(&media_type) || known.contains(&"*/*")
    })
}

on_both!(every_operation_of_the_document_works);
fn every_operation_of_the_document_works(database: Database) {
    let world = World::start(database);
    let document = world.client.get("/openapi.json").expect(200).json();
    assert!(text(&document["openapi"]).starts_with("3.1"));
    assert_eq!(document["servers"][0]["url"], world.server.base_url());
    let told = with(noop(0.0), "callbackUrl", world.receiver.url("/hook"));
    let done = text(&world.ran(&told)["id"]);
    let failed = text(&world.ran(&super::pack("/none", "/o", "zip"))["id"]);
    let running = world.id_of(&noop(600.0));
    let group = text(&world.client.post_empty("/v1/groups").expect(201).json()["id"]);
    world.client.put("/v1/files/f", "f").expect(201);
    world.receiver.wait_for_on("/hook", 1, PATIENCE);
    let delivery = eventually("the delivery has ended", PATIENCE, || {
        let page = world.client.get("/v1/deliveries?status=delivered").expect(200).json();
        Some(text(&list(&page, "deliveries").first()?["id"]))
    });
    let endpoint = |path: &str, ordering: &str| {
        let body = json!({
            "url": world.receiver.url(path), "ordering": ordering, "signature": "ed25519",
            "events": ["job.created"], "retrySchedule": [],
        });
        text(&world.client.post("/v1/endpoints", &body).expect(201).json()["id"])
    };
    let registered = endpoint("/endpoint", "none");
    let key = |id: &str| {
        let added = world.client.post_empty(&format!("/v1/endpoints/{id}/secrets")).expect(201);
        format!("{id}/{}", text(&added.json()["id"]))
    };
    let revoked = key(&registered);
    world.receiver.on("/strict", [crate::support::receiver::Reply::status(500)]);
    let strict = endpoint("/strict", "strict");
    world.ran(&noop(0.0));
    let blocking = eventually("the strict endpoint is held up", PATIENCE, || {
        let shown = world.client.get(&format!("/v1/endpoints/{strict}")).expect(200).json();
        shown["blockedBy"].as_str().map(str::to_owned)
    });
    let counted = json!({"filter": {}, "dryRun": true});
    let replayed = json!({"since": "2026-01-01T00:00:00Z"});
    // In an order that leaves the next one something to work with. Several arguments have slashes
    // between them.
    let calls = [
        ("submitJob", "", noop(0.0), 202),
        ("submitBatch", "", json!({"jobs": [noop(0.0)]}), 202),
        ("listJobs", "", Value::Null, 200),
        ("getJob", done.as_str(), Value::Null, 200),
        ("listJobEvents", &done, Value::Null, 200),
        ("stopJob", &running, Value::Null, 202),
        ("retryJob", &failed, Value::Null, 202),
        ("createGroup", "", json!({}), 201),
        ("getGroup", &group, Value::Null, 200),
        ("stopGroup", &group, Value::Null, 202),
        ("closeGroup", &group, Value::Null, 200),
        ("uploadFile", "f", json!({"any": "bytes"}), 200),
        ("downloadFile", "f", Value::Null, 200),
        ("inspectFile", "f", Value::Null, 200),
        ("listFiles", "", Value::Null, 200),
        ("deleteFile", "f", Value::Null, 204),
        ("listDeliveries", "", Value::Null, 200),
        ("getDelivery", &delivery, Value::Null, 200),
        ("redeliver", &delivery, Value::Null, 202),
        ("redeliverMatching", "", counted, 200),
        ("skipDelivery", &blocking, Value::Null, 200),
        ("createEndpoint", "", json!({"url": world.receiver.url("/other")}), 201),
        ("listEndpoints", "", Value::Null, 200),
        ("getEndpoint", &registered, Value::Null, 200),
        ("changeEndpoint", &registered, json!({"description": "x"}), 200),
        ("addSecret", &registered, json!({}), 201),
        ("rotateSecret", &registered, json!({}), 201),
        ("revokeSecret", &revoked, Value::Null, 204),
        ("listSecrets", &registered, Value::Null, 200),
        ("getPublicKey", &registered, Value::Null, 200),
        ("pingEndpoint", &registered, Value::Null, 200),
        ("getEndpointStats", &registered, Value::Null, 200),
        ("replayEvents", &registered, replayed, 202),
        ("disableEndpoint", &registered, Value::Null, 200),
        ("enableEndpoint", &registered, Value::Null, 200),
        ("deleteEndpoint", &registered, Value::Null, 204),
        ("listEvents", "", Value::Null, 200),
        ("triggerEvent", "", json!({"event": "job.failed"}), 202),
        ("deleteJob", &done, Value::Null, 204),
        ("health", "", Value::Null, 200),
        ("readiness", "", Value::Null, 200),
        ("metrics", "", Value::Null, 200),
        ("openapi", "", Value::Null, 200),
        ("docs", "", Value::Null, 200),
    ];
    let mut left = operations(&document);
    // It has no end; tests of the feed read it.
    assert!(left.remove("streamEvents").is_some());
    for (operation, argument, body, status) in calls {
        let (method, path) = left.remove(operation).unwrap_or_else(|| panic!("no {operation}"));
        let mut arguments = argument.split('/');
        let filled: String = path
            .split_inclusive('}')
            .map(|part| match part.split_once('{') {
                Some((before, _)) => {
                    format!("{before}{}", arguments.next().expect("as many as the path has"))
                }
                None => part.to_owned(),
            })
            .collect();
        let request = world.client.request(&method, &filled);
        let answer = if body.is_null() { request.send() } else { request.json(&body).send() };
        let answer = answer.expect(status);
        assert!(foresees(&document, &method, &path, &answer), "{operation}: {answer:?}");
    }
    assert!(left.is_empty(), "nobody calls {left:?}");
    world.receiver.wait_for_on("/hook", 2, PATIENCE);
}

on_both!(the_document_lists_the_routes);
fn the_document_lists_the_routes(database: Database) {
    let world = World::start(database);
    let document = world.client.get("/openapi.json").expect(200).json();
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (method, path) in operations(&document).into_values() {
        methods.entry(path).or_default().insert(method);
    }
    for (path, known) in &methods {
        let filled = path.replace("{path}", "x").replace(['{', '}'], "");
        let answer = world.client.request("PURGE", &filled).send();
        let allowed = answer.header("allow").unwrap_or_default().to_owned();
        let mut allowed: BTreeSet<String> = allowed.split(", ").map(str::to_owned).collect();
        if known.contains("GET") && !known.contains("HEAD") && allowed.remove("HEAD") {
            // What HTTP says of it is enough.
            assert_eq!(world.client.head(&filled).expect(200).body, b"", "{path}");
        }
        assert_eq!(&allowed, known, "{path}");
        problem(answer, 405, "method_not_allowed");
    }
    // And the other way round: every route that is made is in the document.
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ingress/mod.rs");
    let source = std::fs::read_to_string(source).expect("the routes");
    let made: BTreeSet<String> = source
        .split("resource(\"")
        .skip(1)
        .filter_map(|piece| piece.split('"').next())
        .map(|path| path.replace(":.*}", "}"))
        .collect();
    assert_eq!(made, methods.into_keys().collect());
    for nowhere in ["/", "/v1", "/v1/job", "/v2/jobs", "/v1/jobs/a/b/c", "/admin"] {
        problem(world.client.get(nowhere), 404, "not_found");
    }
}

on_both!(health_and_metrics_say_how_it_goes);
fn health_and_metrics_say_how_it_goes(database: Database) {
    // What fails is not tried again while anybody looks.
    let world = World::start_with(database, &["--retry-schedule-seconds", "3600"]);
    let anybody = world.server.client();
    assert_eq!(anybody.get("/healthz").expect(200).json(), json!({"status": "ok"}));
    let checks = json!({"database": "ok", "migrations": "ok", "loops": "ok"});
    let ready = anybody.get("/readyz").expect(200).json();
    assert_eq!(ready, json!({"status": "ready", "checks": checks}));

    world.receiver.on("/hook", [crate::support::receiver::Reply::status(500)]);
    let told = with(noop(0.0), "callbackUrl", world.receiver.url("/hook"));
    let told = world.ran(&told);
    world.ran(&super::pack("/none", "/o", "zip"));
    world.id_of(&with(with(noop(0.0), "runAt", "2090-01-01T00:00:00Z"), "queue", "later"));
    world.receiver.wait_for_on("/hook", 1, PATIENCE);
    let wanted = [
        r#"ringback_jobs_total{type="urn:job:noop",outcome="success"} 1"#,
        r#"ringback_jobs_total{type="urn:job:archive.create",outcome="error"} 1"#,
        r#"ringback_queue_jobs{queue="later",phase="waiting"} 1"#,
        r#"ringback_queue_oldest_age_seconds{queue="later",phase="waiting"}"#,
        r#"ringback_delivery_attempts_total{outcome="failed"} 1"#,
        r#"ringback_delivery_attempt_duration_seconds_count{outcome="failed"} 1"#,
        "ringback_deliveries_owed 1",
        "ringback_commit_batch_size_count",
        r#"ringback_http_request_duration_seconds_count{method="POST",route="/v1/jobs",status="202"} 3"#,
        r#"route="/v1/jobs/{jobId}",status="200""#,
    ];
    // Depths are read at most once a second.
    let missing = || {
        let text = anybody.get("/metrics").expect(200).text();
        assert!(text.ends_with("# EOF\n"), "{text}");
        // With a value they are whole lines, without one the beginning or the end of a name.
        let has_value = |line: &str| line.ends_with(|last: char| last.is_ascii_digit());
        let is_there = |wanted: &&str| match has_value(wanted) {
            true => text.lines().any(|line| line == *wanted),
            false => text.contains(wanted),
        };
        let missing: Vec<&str> = wanted.into_iter().filter(|line| !is_there(line)).collect();
        (missing.is_empty(), format!("{missing:?} in\n{text}"))
    };
    eventually("all metrics are there", PATIENCE, || missing().0.then_some(()));
    let kind = anybody.get("/metrics").expect(200);
    let kind = kind.header("content-type").unwrap_or_default().to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let page = anybody.get("/metrics").text();
    for id in [&world.application.id, &text(&told["id"]), &text(&told["groupId"])] {
        assert!(!page.contains(id), "{id} is in {page}");
    }
}

on_both!(the_documentation_needs_no_other_address);
fn the_documentation_needs_no_other_address(database: Database) {
    let world = World::start(database);
    let answer = world.server.client().get("/docs").expect(200);
    let policy = answer.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let page = answer.text();
    // Links of the page stay here; whatever it loads is in it.
    for attribute in ["src=", "href=", "url(", "@import", "action="] {
        for piece in page.split(attribute).skip(1) {
            let value: String = piece.trim_start_matches(['"', '\'']).chars().take(60).collect();
            let stays = value.starts_with('#')
                || value.starts_with(&world.server.base_url())
                || (!value.starts_with("//")
                    && !value.split(['/', '>']).next().unwrap_or_default().contains(':'));
            assert!(stays, "{attribute}{value}");
        }
    }
    assert!(!page.contains("<script"), "it needs none");
}

on_both!(a_request_can_be_followed_to_the_last_attempt);
fn a_request_can_be_followed_to_the_last_attempt(database: Database) {
    let retry = ["--log-format", "json", "--retry-schedule-seconds", "0"];
    let world = World::start_with(database, &retry);
    world.receiver.on("/hook", [crate::support::receiver::Reply::status(500)]);
    let told = with(noop(0.0), "callbackUrl", world.receiver.url("/hook"));
    let request = world.client.request("POST", "/v1/jobs").header("x-request-id", "trace-17.a_b");
    let answer = request.json(&told).send().expect(202);
    assert_eq!(answer.header("x-request-id"), Some("trace-17.a_b"));
    let id = text(&answer.json()["id"]);
    world.finished(&id);
    world.receiver.wait_for_on("/hook", 2, PATIENCE);

    let field = |line: &Value, name: &str| {
        let spans = line["spans"].as_array().cloned().unwrap_or_default();
        let places = spans.iter().chain([line]);
        places.filter_map(|place| place[name].as_str().map(str::to_owned)).next_back()
    };
    let messages = eventually("the log tells of both attempts", PATIENCE, || {
        let lines: Vec<Value> = world
            .server
            .stderr()
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect();
        let mine: Vec<Value> = lines
            .into_iter()
            .filter(|line| field(line, "request_id").as_deref() == Some("trace-17.a_b"))
            .collect();
        let of_job = mine.iter().all(|line| field(line, "job_id").as_deref() == Some(&id));
        let messages: Vec<String> = mine.iter().map(|line| text(&line["message"])).collect();
        let deliveries = messages.iter().filter(|message| *message == "delivery").count();
        (deliveries == 2).then_some((messages, of_job, mine))
    });
    let (messages, of_job, lines) = messages;
    for step in ["request", "job", "delivery"] {
        assert!(messages.iter().any(|message| message == step), "no {step}: {messages:?}");
    }
    assert!(of_job, "a line does not name the job: {lines:?}");

    // An id that is not harmless is replaced, and one is made when there is none.
    for given in ["a b", &"x".repeat(65)] {
        let answer = world.client.request("GET", "/healthz").header("x-request-id", given).send();
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36));
    }
    let backend = match world.database.backend() {
        Backend::Sqlite => "sqlite://",
        Backend::Postgres => "postgres://",
    };
    assert!(world.server.stdout().contains(backend), "{}", world.server.stdout());
}
