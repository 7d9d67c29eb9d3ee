//! Who is owed which event, in the event's own transaction.

use std::collections::BTreeSet;

use ringback::engine::{DeliveryFilter, EndpointSettings, NewJob, Output};
use ringback::ids::new_id;
use ringback::lifecycle::Command;
use serde_json::json;

use super::{Endpoint, World, address, events, register};
use crate::support::database::{Database, number, on_both};
use crate::support::node::{callback, scripted_job};

/// Types of the events that an endpoint is or was owed, in the order of their names.
async fn owed(world: &World, endpoint: &Endpoint) -> Vec<String> {
    let listed = world.deliveries(endpoint).await;
    let mut types: Vec<_> = listed.into_iter().map(|delivery| delivery.event_type).collect();
    types.sort();
    types
}

/// A job that is created, started, half done and succeeds; with one event each.
async fn whole_life(world: &World, job: NewJob) {
    let engine = &world.node.engine;
    world.node.submit(&world.caller, job).await;
    let claimed = engine.claim(vec![("default".to_owned(), 1)], 1).await.unwrap();
    let (job, token) = (claimed.jobs[0].job.key, claimed.jobs[0].job.state.token);
    engine.apply(job, Command::Progress { token, fraction: 0.5 }).await.unwrap();
    let payload = serde_json::value::RawValue::NULL.to_owned();
    engine.apply(job, Command::Succeed { token, payload }).await.unwrap();
}

on_both!(async patterns_choose_and_the_default_is_all_but_progress);
async fn patterns_choose_and_the_default_is_all_but_progress(database: Database) {
    let world = World::start(&database).await;
    let cases: [(Option<&[&str]>, &[&str]); 6] = [
        (None, &["job.created", "job.started", "job.succeeded"]),
        (Some(&["*"]), &["job.created", "job.progressed", "job.started", "job.succeeded"]),
        (Some(&["job.*"]), &["job.created", "job.progressed", "job.started", "job.succeeded"]),
        (Some(&["job.progressed"]), &["job.progressed"]),
        (Some(&["job.failed", "job.succeeded", "job.su*"]), &["job.succeeded"]),
        (Some(&["group.*", "endpoint.*", "file.*"]), &[]),
    ];
    let mut endpoints = Vec::new();
    for (number, (patterns, _)) in cases.iter().enumerate() {
        let choose = |settings: &mut EndpointSettings| {
            settings.events = patterns.and_then(events);
        };
        endpoints.push(world.endpoint_with(&format!("/{number}"), choose).await);
    }
    let hook = callback(&world.receiver.url("/callback"));
    whole_life(&world, NewJob { callback: Some(hook), ..scripted_job() }).await;
    for ((patterns, expected), endpoint) in cases.iter().zip(&endpoints) {
        assert_eq!(owed(&world, endpoint).await, *expected, "{patterns:?}");
    }

    world.node.send().await;
    let log = world.receiver.log();
    let callback: Vec<_> = world.receiver.log_of("/callback");
    assert_eq!(callback.len(), 1, "the job's own callback has its own");
    let sent = |path: &str| world.came(path);
    for (number, (_, expected)) in cases.iter().enumerate() {
        assert_eq!(sent(&format!("/{number}")), expected.len());
    }
    // One event has one id and one body, whoever gets it.
    let ended: Vec<_> = log.iter().filter(|one| one.json()["type"] == "job.succeeded").collect();
    assert_eq!(ended.len(), 5);
    for one in &ended {
        assert_eq!((one.webhook_id(), &one.body), (callback[0].webhook_id(), &callback[0].body));
    }
    let ids: BTreeSet<&str> = log.iter().map(|one| one.webhook_id()).collect();
    assert_eq!(ids.len(), 4, "as many as events");
}

on_both!(async types_choose_among_jobs_and_leave_other_subjects_alone);
async fn types_choose_among_jobs_and_leave_other_subjects_alone(database: Database) {
    let world = World::start(&database).await;
    let noops = world
        .endpoint_with("/noops", |settings| {
            settings.events = events(&["job.created", "file.*"]);
            settings.types = Some(vec!["urn:job:noop".to_owned()]);
        })
        .await;
    world.event().await;
    assert!(owed(&world, &noops).await.is_empty(), "a job of another type");
    let noop = NewJob { job_type: "urn:job:noop".to_owned(), ..scripted_job() };
    world.node.submit(&world.caller, noop).await;
    assert_eq!(owed(&world, &noops).await, ["job.created"]);
    put_and_delete(&world).await;
    assert_eq!(owed(&world, &noops).await, ["file.created", "file.deleted", "job.created"]);
}

async fn put_and_delete(world: &World) {
    let output = Output {
        path: "/a".to_owned(),
        version: new_id(),
        file_id: new_id(),
        size: 1,
        sha256: "00".to_owned(),
        media_type: "text/plain".to_owned(),
        acl: "public".to_owned(),
    };
    world.node.engine.put_file(&world.caller, output).await.unwrap();
    world.node.engine.delete_file(&world.caller, "/a".to_owned()).await.unwrap();
}

on_both!(async files_and_groups_reach_endpoints_too);
async fn files_and_groups_reach_endpoints_too(database: Database) {
    let world = World::start(&database).await;
    let all = world.endpoint_with("/all", |settings| settings.events = None).await;
    world.node.engine.bells.take_lanes();
    put_and_delete(&world).await;
    assert_eq!(world.node.engine.bells.take_lanes().len(), 1, "the sender is told at once");
    let jobs = vec![scripted_job(), scripted_job()];
    let engine = &world.node.engine;
    let batch = engine.submit_batch(&world.caller, jobs, None, None, "request").await.unwrap();
    world.node.work().await;
    world.node.send().await;
    let bodies: Vec<_> = world.receiver.log().iter().map(|one| one.json()).collect();
    let of = |kind: &str| bodies.iter().filter(|body| body["type"] == kind).collect::<Vec<_>>();
    assert_eq!(bodies.len(), 2 + 2 * 3 + 1);
    assert_eq!(of("file.created")[0]["data"]["path"], "/a");
    assert_eq!(of("file.deleted").len(), 1);
    let completed = of("group.completed");
    assert_eq!(completed.len(), 1);
    assert_eq!(completed[0]["data"]["id"], json!(batch.group_id));
    assert!(world.statuses(&all).await.iter().all(|status| *status == "delivered"));
    let listed = world.deliveries(&all).await;
    let about_group: Vec<_> = listed.iter().filter_map(|one| one.group_id).collect();
    assert_eq!(about_group, [batch.group_id]);
}

on_both!(async an_application_hears_nothing_of_another);
async fn an_application_hears_nothing_of_another(database: Database) {
    let world = World::start(&database).await;
    let (stranger, _) = world.node.application("stranger").await;
    let everything = EndpointSettings::default();
    let url = address(&world.receiver.url("/stranger"));
    let theirs = register(&world.node, &stranger, url, everything).await;
    let ours = world.endpoint("/ours").await;
    world.event().await;
    world.node.work().await;
    put_and_delete(&world).await;
    world.node.send().await;
    assert_eq!((world.came("/ours"), world.came("/stranger")), (1, 0));

    // Nor can one ask for the other's.
    let engine = &world.node.engine;
    let filter = DeliveryFilter { endpoint: Some(ours.id), ..DeliveryFilter::default() };
    assert!(engine.list_deliveries(&stranger, &filter, (i64::MAX, i64::MAX), 9).await.is_err());
    assert!(engine.find_endpoint(&stranger, ours.id).await.is_err());
    assert!(engine.find_endpoint(&world.caller, theirs.id).await.is_err());
    assert!(engine.endpoint_stats(&stranger, ours.id).await.is_err());
    assert!(engine.endpoint_secrets(&stranger, ours.id).await.is_err());
    assert!(engine.disable_endpoint(&stranger, ours.id).await.is_err());
    assert!(engine.delete_endpoint(&stranger, ours.id).await.is_err());
    assert!(engine.ping_endpoint(&stranger, ours.id, "request").await.is_err());
    assert!(world.view(&ours).await.enabled);
}

on_both!(async an_event_and_what_it_owes_are_one_transaction);
async fn an_event_and_what_it_owes_are_one_transaction(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.event().await;
    let mut connection = database.connect();
    connection.batch("ALTER TABLE live_deliveries RENAME TO away").unwrap();
    let refused = world.node.engine.submit(&world.caller, scripted_job(), None, "request").await;
    assert!(refused.is_err(), "what it owes cannot be written");
    connection.batch("ALTER TABLE away RENAME TO live_deliveries").unwrap();
    for table in ["jobs", "events", "deliveries"] {
        let sql = format!("SELECT COUNT(*) AS number FROM {table}");
        assert_eq!(number(&database, &sql), 1, "so there are no {table} either");
    }
    assert_eq!(world.deliveries(&endpoint).await.len(), 1);
    world.event().await;
    assert_eq!(world.deliveries(&endpoint).await.len(), 2);
}
