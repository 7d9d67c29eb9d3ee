//! `--disable-after-seconds 0`: an endpoint that fails is not disabled for it.

use serde_json::json;

use crate::api::{World, noop};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;

on_both!(no_time_means_never);
fn no_time_means_never(database: Database) {
    let world = World::start_with(database, &["--disable-after-seconds", "0"]);
    world.receiver.otherwise([Reply::status(500)]);
    let settings =
        json!({"url": world.receiver.url("/hook"), "events": ["job.*"], "retrySchedule": []});
    let endpoint = world.client.post("/v1/endpoints", &settings).expect(201).json();
    world.ran(&noop(0.0));
    let id = endpoint["id"].as_str().expect("an id");
    world.await_deliveries(id, "exhausted", 3);
    let shown = world.client.get(&format!("/v1/endpoints/{id}")).expect(200).json();
    assert_eq!((&shown["enabled"], &shown["state"]), (&json!(true), &json!("enabled")));
    assert!(shown["failingSince"].is_string(), "{shown}");
}
