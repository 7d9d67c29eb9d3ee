//! What a refusal tells: the value that was given, escaped and up to a length, and what is allowed.

use serde_json::json;

use super::{World, problem, text};
use crate::support::database::{Database, on_both};

on_both!(a_refusal_names_what_was_given);
fn a_refusal_names_what_was_given(database: Database) {
    let world = World::start(database);
    let url = world.receiver.url("/hook");
    for (member, value, given, allowed) in [
        ("ordering", json!("fifo"), r#""fifo""#, "none, per-job, strict"),
        ("events", json!(["job.f*"]), r#""job.f*""#, "job.failed"),
        ("types", json!(["noop"]), r#""noop""#, "urn:job:noop"),
        ("signature", json!("\u{1b}[2J"), r#""\u{1b}[2J""#, "standard, hex, ed25519"),
        ("ordering", json!("x".repeat(100)), &format!("{:?}", "x".repeat(64) + "…"), "strict"),
    ] {
        let refused = world.client.post("/v1/endpoints", &json!({"url": url, member: value}));
        let detail = text(&refused.expect(400).json()["detail"]);
        assert!(detail.contains(given) && detail.contains(allowed), "{detail}");
    }
    for (path, member, value) in [
        ("deliveries/redeliver", "status", json!(["pending"])),
        ("deliveries/redeliver", "endpointId", json!("seven")),
        ("deliveries/redeliver", "since", json!("yesterday")),
    ] {
        let refused =
            world.client.post(&format!("/v1/{path}"), &json!({"filter": {member: value}}));
        let detail = text(&problem(refused, 400, "invalid_request")["detail"]);
        let given = value.as_str().or(value[0].as_str()).unwrap();
        assert!(detail.contains(&format!("{given:?}")), "{detail}");
    }
    for (path, given, expected) in [
        ("deliveries?status=lost", "lost", "exhausted"),
        ("deliveries?endpointId=seven", "seven", "a UUID"),
        ("deliveries/seven", "seven", "a UUID"),
        ("jobs?pageSize=1000", "1000", "a whole number from 1 to 100"),
        ("jobs?status=done", "done", "pending, working"),
        ("jobs?order=up", "up", "asc, desc"),
        ("jobs?orderBy=id", "id", "dateCreated, dateUpdated"),
        ("jobs?type=noop", "noop", "urn:job:"),
        ("events?after=x", "x", "latest"),
        ("events?types=job.f*", "job.f*", "job.failed"),
    ] {
        let refused = problem(world.client.get(&format!("/v1/{path}")), 400, "invalid_request");
        let detail = text(&refused["detail"]);
        assert!(detail.contains(&format!("is {given:?}; expected")), "{detail}");
        assert!(detail.contains(expected), "{detail}");
    }
}
