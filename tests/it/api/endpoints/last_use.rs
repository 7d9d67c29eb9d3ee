//! When a secret signed last is known after a restart, also when that was a ping just before it.

use serde_json::json;

use crate::api::{PATIENCE, World};
use crate::support::database::{Database, on_both};

on_both!(a_use_just_before_a_shutdown_is_noted);
fn a_use_just_before_a_shutdown_is_noted(database: Database) {
    let mut world = World::start(database);
    let id = world.endpoint_id("/hook", json!({}));
    world.act(&id, "ping", json!({})).expect(200);
    assert!(world.server.sigterm(PATIENCE).success());
    world.server.start_again();
    let secrets = world.client.get(&format!("/v1/endpoints/{id}/secrets")).expect(200).json();
    assert!(secrets["secrets"][0]["dateLastUsed"].is_string(), "{secrets}");
}
