//! Groups: open, join, close, stop, and the one event when they are done.

use serde_json::{Value, json};

use super::{PATIENCE, World, ids, list, noop, problem, text, with};
use crate::support::database::{Database, on_both};

on_both!(a_group_opens_closes_and_completes_once);
fn a_group_opens_closes_and_completes_once(database: Database) {
    let world = World::start(database);
    let callback = json!({"callback": {"url": world.receiver.url("/done")}});
    let answer = world.client.post("/v1/groups", &callback).expect(201);
    let group = answer.json();
    let id = text(&group["id"]);
    let location = format!("{}/v1/groups/{id}", world.server.base_url());
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert_eq!((&group["status"], &group["sealed"]), (&json!("open"), &json!(false)));
    assert_eq!((&group["total"], &group["remaining"]), (&json!(0), &json!(0)));
    assert_eq!(group["callback"]["url"], world.receiver.url("/done"));

    let joins = |job: Value| with(job, "groupId", id.clone());
    let first = world.ran(&joins(noop(0.0)));
    assert_eq!(first["groupId"], id.as_str());
    // All are final, but another one may come.
    let open = world.client.get(&location).expect(200).json();
    assert_eq!((&open["status"], &open["success"]), (&json!("open"), &json!(1)));
    let failed = world.ran(&joins(super::pack("/not/there", "/o.zip", "zip")));
    assert_eq!(failed["status"], "error");
    let later = world.id_of(&with(joins(noop(0.0)), "runAt", "2090-01-01T00:00:00Z"));
    assert_eq!(world.receiver.count(), 0);

    let close = format!("/v1/groups/{id}/close");
    let closed = world.client.post_empty(&close).expect(200).json();
    assert_eq!((&closed["status"], &closed["sealed"]), (&json!("working"), &json!(true)));
    assert_eq!(world.client.post_empty(&close).expect(200).json(), closed);
    problem(world.client.post("/v1/jobs", &joins(noop(0.0))), 409, "group_sealed");
    assert_eq!(world.client.get(&location).expect(200).json()["remaining"], 1);

    world.client.post_empty(&format!("/v1/jobs/{later}/stop")).expect(202);
    let body = world.receiver.wait_for_on("/done", 1, PATIENCE)[0].signed().json();
    assert_eq!(body["type"], "group.completed");
    let done = world.client.get(&location).expect(200).json();
    assert_eq!(done["status"], "completed");
    for (name, count) in [("total", 3), ("success", 1), ("error", 1), ("stopped", 1)] {
        assert_eq!((&done[name], &body["data"][name]), (&json!(count), &json!(count)), "{name}");
    }
    assert_eq!(ids(&done, "jobs"), [text(&first["id"]), text(&failed["id"]), later]);
    // Closing what is complete changes nothing and tells nobody again.
    world.client.post_empty(&close).expect(200);
    let deliveries = world.client.get("/v1/deliveries").expect(200).json();
    assert_eq!(list(&deliveries, "deliveries").len(), 1);
    assert_eq!(deliveries["deliveries"][0]["groupId"], id.as_str());
}

on_both!(stopping_a_group_stops_what_is_left);
fn stopping_a_group_stops_what_is_left(database: Database) {
    let world = World::start(database);
    let group = world.client.post("/v1/groups", &json!({})).expect(201).json();
    let id = text(&group["id"]);
    let joins = |job: Value| with(job, "groupId", id.clone());
    let done = world.ran(&joins(noop(0.0)));
    let running = world.id_of(&joins(noop(600.0)));
    world.working(&running);
    let waiting = world.id_of(&with(joins(noop(0.0)), "runAt", "2090-01-01T00:00:00Z"));

    let stopped = world.client.post_empty(&format!("/v1/groups/{id}/stop")).expect(202).json();
    assert_eq!(stopped["id"], id.as_str());
    for job in [&running, &waiting] {
        assert_eq!(world.finished(job)["status"], "stopped");
    }
    assert_eq!(world.job(&text(&done["id"]))["status"], "success");
    // It stays open, and stopping again is the same as once.
    let open = world.client.get(&format!("/v1/groups/{id}")).expect(200).json();
    assert_eq!((&open["status"], &open["stopped"]), (&json!("open"), &json!(2)));
    world.client.post_empty(&format!("/v1/groups/{id}/stop")).expect(202);
    assert_eq!(world.ran(&joins(noop(0.0)))["status"], "success");
}

on_both!(an_implicit_group_emits_nothing);
fn an_implicit_group_emits_nothing(database: Database) {
    let world = World::start(database);
    let job = world.ran(&with(noop(0.0), "callbackUrl", world.receiver.url("/job")));
    let group =
        world.client.get(&format!("/v1/groups/{}", text(&job["groupId"]))).expect(200).json();
    assert_eq!((&group["total"], &group["remaining"]), (&json!(1), &json!(0)));
    assert_eq!(ids(&group, "jobs"), [text(&job["id"])]);
    let webhooks = world.receiver.wait_for_on("/job", 1, PATIENCE);
    assert_eq!(webhooks[0].signed().json()["type"], "job.succeeded");
    let deliveries = world.client.get("/v1/deliveries").expect(200).json();
    assert_eq!(list(&deliveries, "deliveries").len(), 1);
}
