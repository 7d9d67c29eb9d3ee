//! Requests that have nothing to say: a body that says something is refused, everywhere alike.

use super::{World, problem};
use crate::support::database::{Database, on_both};

const NONE: &str = "0199f0b2-7c7e-7d51-9d6a-3b0f6f1f5a01";

on_both!(what_says_nothing_may_not_say_something);
fn what_says_nothing_may_not_say_something(database: Database) {
    let world = World::start(database);
    for path in [
        "jobs/{}/stop",
        "jobs/{}/retry",
        "groups/{}/close",
        "groups/{}/stop",
        "deliveries/{}/redeliver",
        "deliveries/{}/skip",
        "endpoints/{}/ping",
        "endpoints/{}/disable",
    ] {
        let path = format!("/v1/{}", path.replace("{}", NONE));
        let send = |kind: &str, body: &str| {
            world.client.request("POST", &path).header("content-type", kind).body(body).send()
        };
        problem(send("application/json", r#"{"x":1}"#), 400, "unknown_field");
        problem(send("application/json", "{"), 400, "invalid_json");
        problem(send("application/json", "[]"), 400, "invalid_request");
        problem(send("text/plain", "x"), 415, "unsupported_media_type");
        // Both say nothing, and nobody knows the id.
        for fine in ["{}", ""] {
            let answer = send("application/json", fine);
            assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        }
    }
}
