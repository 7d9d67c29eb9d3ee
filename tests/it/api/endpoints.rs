//! Endpoints over HTTP: registered, read, changed, deleted, and what is refused.

mod apart;
mod backlog;
mod control;
mod last_use;
mod never_disabled;
mod refusals;
mod secrets;

use serde_json::{Value, json};

use super::{PATIENCE, World, ids, list, noop, problem, text, with};
use crate::support::database::{Database, on_both};
use crate::support::http::Answer;
use crate::support::receiver::Reply;
use crate::support::wait::eventually;

const NONE: &str = "0199f0b2-7c7e-7d51-9d6a-3b0f6f1f5a01";

impl World {
    /// Registers an endpoint at a path of the receiver; as it was answered.
    #[track_caller]
    fn endpoint(&self, path: &str, settings: Value) -> Value {
        let mut body = settings;
        body["url"] = self.receiver.url(path).into();
        self.client.post("/v1/endpoints", &body).expect(201).json()
    }

    /// The same; its id, and the receiver knows its secret.
    #[track_caller]
    fn endpoint_id(&self, path: &str, settings: Value) -> String {
        let endpoint = self.endpoint(path, settings);
        if let Some(secret) = endpoint["secret"].as_str() {
            self.receiver.trust(secret);
        }
        text(&endpoint["id"])
    }

    #[track_caller]
    fn shown(&self, id: &str) -> Value {
        self.client.get(&format!("/v1/endpoints/{id}")).expect(200).json()
    }

    /// `POST /v1/endpoints/{id}/ACTION`
    #[track_caller]
    fn act(&self, id: &str, action: &str, body: Value) -> Answer {
        self.client.post(&format!("/v1/endpoints/{id}/{action}"), &body)
    }

    #[track_caller]
    fn patch(&self, id: &str, body: &Value) -> Answer {
        let request = self.client.request("PATCH", &format!("/v1/endpoints/{id}"));
        let bytes = serde_json::to_vec(body).expect("values can be written");
        request.header("content-type", "application/merge-patch+json").body(bytes).send()
    }

    /// Deliveries that a query asks for, oldest first.
    #[track_caller]
    fn deliveries(&self, query: &str) -> Vec<Value> {
        let page = self.client.get(&format!("/v1/deliveries?pageSize=100&{query}")).expect(200);
        let mut deliveries = list(&page.json(), "deliveries").clone();
        deliveries.reverse();
        deliveries
    }

    /// Waits until so many deliveries to an endpoint have a status.
    #[track_caller]
    fn await_deliveries(&self, endpoint: &str, status: &str, count: usize) -> Vec<Value> {
        let query = format!("endpointId={endpoint}&status={status}");
        eventually(&format!("{count} deliveries are {status}"), PATIENCE, || {
            let found = self.deliveries(&query);
            (found.len() >= count).then_some(found)
        })
    }
}

fn statuses(deliveries: &[Value]) -> Vec<String> {
    deliveries.iter().map(|delivery| text(&delivery["status"])).collect()
}

on_both!(an_endpoint_is_registered_and_read);
fn an_endpoint_is_registered_and_read(database: Database) {
    let world = World::start(database);
    let body = json!({
        "url": "https://user:hunter2@127.0.0.1:9/hook?token=hunter3&plain=yes",
        "description": "The shop's \u{fc}ber office",
        "events": ["job.*", "group.completed"],
        "types": ["urn:job:noop", "urn:job:import.file"],
        "headers": {"X-Tenant": "blue", "Authorization": "Bearer hunter4"},
        "rateLimit": {"perSecond": 2.5},
        "maxInFlight": 3,
        "ordering": "per-job",
        "signature": "hex",
        "retrySchedule": [1, 604_800],
        "clientErrors": "final",
        "enabled": false,
    });
    let refused = world.client.post("/v1/endpoints", &body);
    problem(refused, 422, "endpoint_refused");
    let body = with(body, "url", "https://127.0.0.1:9/hook?token=hunter3&plain=yes");
    let answer = world.client.post("/v1/endpoints", &body).expect(201);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let made = answer.json();
    let id = text(&made["id"]);
    let location = format!("{}/v1/endpoints/{id}", world.server.base_url());
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert!(text(&made["secret"]).starts_with("whsec_") && made["publicKey"].is_null(), "{made}");
    for (name, value) in body.as_object().expect("an object") {
        let expected = match name.as_str() {
            "url" => continue,
            "headers" => json!({"X-Tenant": "***", "Authorization": "***"}),
            "rateLimit" => json!({"perSecond": 2.5, "burst": 3}),
            _ => value.clone(),
        };
        assert_eq!(made[name], expected, "{name}");
    }
    assert_eq!(
        (&made["state"], &made["disabledReason"], &made["blockedBy"], &made["failingSince"]),
        (&json!("disabled"), &json!("by_request"), &Value::Null, &Value::Null)
    );
    assert_eq!(made["dateDisabled"], made["dateCreated"]);

    let mut shown = made;
    shown.as_object_mut().expect("an object").remove("secret");
    assert_eq!(world.shown(&id), shown);
    assert_eq!(world.client.get(&location).expect(200).json(), shown);
    let listed = world.client.get("/v1/endpoints").expect(200).json();
    assert_eq!(listed, json!({"endpoints": [shown], "nextPageToken": null}));
    let everything = format!("{shown}{}", world.server.stderr());
    assert!(!everything.contains("hunter") && everything.contains("plain=yes"), "{everything}");
}

on_both!(a_plain_endpoint_has_the_defaults);
fn a_plain_endpoint_has_the_defaults(database: Database) {
    let world = World::start(database);
    let made = world.endpoint("/hook", json!({"events": null, "enabled": null}));
    for name in [
        "description",
        "events",
        "types",
        "headers",
        "rateLimit",
        "maxInFlight",
        "retrySchedule",
        "clientErrors",
        "disabledReason",
        "dateDisabled",
        "blockedBy",
        "failingSince",
    ] {
        assert!(made[name].is_null() && made.get(name).is_some(), "{name}: {made}");
    }
    assert_eq!((&made["ordering"], &made["signature"]), (&json!("none"), &json!("standard")));
    assert_eq!((&made["enabled"], &made["state"]), (&json!(true), &json!("enabled")));
    assert_eq!(made["dateUpdated"], made["dateCreated"]);
}

on_both!(endpoints_are_listed_page_by_page);
fn endpoints_are_listed_page_by_page(database: Database) {
    let world = World::start(database);
    let mut made: Vec<String> =
        (0..5).map(|number| world.endpoint_id(&format!("/{number}"), json!({}))).collect();
    made.reverse();
    let (mut found, mut path) = (Vec::new(), "/v1/endpoints?pageSize=2".to_owned());
    for more in [true, true, false] {
        let page = world.client.get(&path).expect(200).json();
        found.extend(ids(&page, "endpoints"));
        assert_eq!(page["nextPageToken"].is_string(), more, "{page}");
        if more {
            let token = text(&page["nextPageToken"]);
            path = format!("/v1/endpoints?pageSize=2&pageToken={token}");
            // What comes meanwhile is newer than what is still to be read.
            world.endpoint("/later", json!({}));
            problem(
                world.client.get(&format!("/v1/deliveries?pageToken={token}")),
                400,
                "page_token_invalid",
            );
            let stolen = world.other().get(&path);
            problem(stolen, 400, "page_token_invalid");
        }
    }
    assert_eq!(found, made);
    for bad in ["pageSize=0", "pageSize=101", "pageSize=x"] {
        problem(world.client.get(&format!("/v1/endpoints?{bad}")), 400, "invalid_request");
    }
    problem(world.client.get("/v1/endpoints?state=enabled"), 400, "unknown_field");
}

on_both!(an_endpoint_gets_what_it_wants);
fn an_endpoint_gets_what_it_wants(database: Database) {
    let world = World::start(database);
    world.endpoint_id("/all", json!({"headers": {"X-Tenant": "blue"}}));
    world.endpoint_id("/ends", json!({"events": ["job.succeeded", "job.failed"]}));
    world.endpoint_id("/packs", json!({"events": ["*"], "types": ["urn:job:archive.create"]}));
    let told = with(noop(0.0), "callbackUrl", world.receiver.url("/callback"));
    let done = text(&world.ran(&told)["id"]);
    let failed = text(&world.ran(&super::pack("/none", "/o", "zip"))["id"]);

    let events = |path: &str, count: usize| {
        let mut events: Vec<(String, String)> = world
            .receiver
            .wait_for_on(path, count, PATIENCE)
            .iter()
            .map(|one| (text(&one.json()["data"]["id"]), text(&one.json()["type"])))
            .collect();
        events.sort();
        events
    };
    let of = |job: &str, event: &str| (job.to_owned(), event.to_owned());
    let mut all = vec![
        of(&done, "job.created"),
        of(&done, "job.started"),
        of(&done, "job.succeeded"),
        of(&failed, "job.created"),
        of(&failed, "job.started"),
        of(&failed, "job.failed"),
    ];
    all.sort();
    assert_eq!(events("/all", 6), all);
    let mut ends = vec![of(&done, "job.succeeded"), of(&failed, "job.failed")];
    ends.sort();
    assert_eq!(events("/ends", 2), ends);
    assert!(events("/packs", 3).iter().all(|(job, _)| *job == failed));
    assert_eq!(events("/callback", 1), [of(&done, "job.succeeded")]);
    for request in world.receiver.log() {
        assert_eq!(request.header("webhook-attempt"), Some("1"));
        assert_eq!(request.header("webhook-redelivery"), None);
        assert_eq!(request.header("x-tenant"), (request.path == "/all").then_some("blue"));
        request.signed();
    }
    assert_eq!(world.receiver.count(), 12);
}

on_both!(a_change_merges);
fn a_change_merges(database: Database) {
    let world = World::start(database);
    let settings = json!({
        "description": "first", "events": ["job.*"], "types": ["urn:job:noop"],
        "headers": {"X-A": "1", "X-B": "2"}, "rateLimit": {"perSecond": 50, "burst": 9},
        "maxInFlight": 3, "ordering": "strict", "retrySchedule": [1], "clientErrors": "final",
    });
    let made = world.endpoint("/old", settings);
    let id = text(&made["id"]);
    world.receiver.trust(&text(&made["secret"]));
    let mut expected = world.shown(&id);
    let mut change = |patch: Value, changed: Value| {
        let answer = world.patch(&id, &patch).expect(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        for (name, value) in changed.as_object().expect("an object") {
            expected[name] = value.clone();
        }
        let shown = world.shown(&id);
        expected["dateUpdated"] = shown["dateUpdated"].clone();
        assert_eq!(shown, expected, "{patch}");
        assert_eq!(answer.json(), shown, "{patch}");
    };
    change(json!({}), json!({}));
    change(json!({"description": "second"}), json!({"description": "second"}));
    let moved = world.receiver.url("/new");
    change(json!({"url": moved}), json!({"url": moved}));
    change(
        json!({"headers": {"x-a": null, "X-C": "3"}}),
        json!({"headers": {"X-B": "***", "X-C": "***"}}),
    );
    change(json!({"headers": {}}), json!({}));
    change(
        json!({"rateLimit": {"burst": 4}}),
        json!({"rateLimit": {"perSecond": 50.0, "burst": 4}}),
    );
    change(
        json!({"rateLimit": {"perSecond": 60, "burst": null}}),
        json!({"rateLimit": {"perSecond": 60.0, "burst": 60}}),
    );
    change(json!({"events": ["*"], "types": null}), json!({"events": ["*"], "types": null}));
    change(
        json!({"retrySchedule": [], "maxInFlight": 4}),
        json!({"retrySchedule": [], "maxInFlight": 4}),
    );
    change(json!({"ordering": "per-job"}), json!({"ordering": "per-job"}));

    world.ran(&noop(0.0));
    let sent = world.receiver.wait_for_on("/new", 3, PATIENCE);
    for request in &sent {
        let headers = ["x-a", "x-b", "x-c"].map(|name| request.header(name));
        assert_eq!(headers, [None, Some("2"), Some("3")], "what was kept is sent as it was given");
        request.signed();
    }
    change(
        json!({
            "description": null, "events": null, "headers": null, "rateLimit": null,
            "maxInFlight": null, "ordering": null, "signature": null, "retrySchedule": null,
            "clientErrors": null, "enabled": null,
        }),
        json!({
            "description": null, "events": null, "headers": null, "rateLimit": null,
            "maxInFlight": null, "ordering": "none", "retrySchedule": null, "clientErrors": null,
        }),
    );
    // Also called plain JSON.
    let path = format!("/v1/endpoints/{id}");
    let plain = world.client.request("PATCH", &path).json(&json!({"maxInFlight": 1})).send();
    assert_eq!(plain.expect(200).json()["maxInFlight"], 1);
    problem(world.patch(&id, &json!({"rateLimit": {"burst": 4}})), 400, "invalid_request");
    problem(world.patch(NONE, &json!({})), 404, "not_found");
}

on_both!(the_switch_is_a_setting_too);
fn the_switch_is_a_setting_too(database: Database) {
    let world = World::start(database);
    let id = world.endpoint_id("/hook", json!({"events": ["job.succeeded"]}));
    let off = world.patch(&id, &json!({"enabled": false})).expect(200).json();
    assert_eq!((&off["state"], &off["disabledReason"]), (&json!("disabled"), &json!("by_request")));
    world.ran(&noop(0.0));
    assert_eq!(statuses(&world.await_deliveries(&id, "held", 1)), ["held"]);
    let on = world.patch(&id, &json!({"enabled": true})).expect(200).json();
    assert_eq!((&on["state"], &on["disabledReason"]), (&json!("enabled"), &Value::Null));
    world.receiver.wait_for_on("/hook", 1, PATIENCE);
}

on_both!(a_deleted_endpoint_is_gone);
fn a_deleted_endpoint_is_gone(database: Database) {
    let world = World::start(database);
    world.receiver.on("/hook", [Reply::status(500)]);
    let settings = json!({"events": ["job.succeeded"], "retrySchedule": [3600]});
    let id = world.endpoint_id("/hook", settings);
    let kept = world.endpoint_id("/kept", json!({"events": ["job.succeeded"]}));
    let job = text(&world.ran(&noop(0.0))["id"]);
    world.receiver.wait_for_on("/hook", 1, PATIENCE);
    world.receiver.wait_for_on("/kept", 1, PATIENCE);
    let owed = world.deliveries(&format!("endpointId={id}"));
    assert_eq!(owed.len(), 1);
    let gone = world.client.delete(&format!("/v1/endpoints/{id}")).expect(204);
    assert!(gone.body.is_empty());
    for (method, path) in apart::ROUTES {
        let path = path.replace("{}", &id);
        let answer = world.client.request(method, &path).json(&apart::body_of(&path)).send();
        problem(answer, 404, "not_found");
    }
    let listed = world.client.get("/v1/endpoints").expect(200).json();
    assert_eq!(ids(&listed, "endpoints"), [kept]);
    // What it was owed can still be read of, as far as it came.
    let delivery = format!("/v1/deliveries/{}", text(&owed[0]["id"]));
    let ended = eventually("the delivery is cancelled", PATIENCE, || {
        let delivery = world.client.get(&delivery).expect(200).json();
        (delivery["status"] == "cancelled").then_some(delivery)
    });
    assert_eq!(
        (&ended["reason"], &ended["endpointId"], &ended["jobId"]),
        (&json!("endpoint_deleted"), &json!(id), &json!(job))
    );
    let again = world.client.post_empty(&format!("{delivery}/redeliver"));
    problem(again, 409, "endpoint_deleted");
    world.ran(&noop(0.0));
    world.receiver.wait_for_on("/kept", 2, PATIENCE);
    assert_eq!(world.receiver.log_of("/hook").len(), 1);
}
