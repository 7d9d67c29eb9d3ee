//! What one node changes holds at once on another that remembers the endpoint as it was: from the
//! next event for what is owed, from the next claim for how it is sent.

use std::time::{Duration, Instant};

use ringback::engine::{EndpointPatch, EndpointSettings, RateChange};
use ringback::formats::Signature;

use super::{World, address, events, register};
use crate::support::database::{Database, on_both};
use crate::support::node::{Node, scripted_job};

/// Somebody else's node, over which endpoints are managed here. It sends nothing: the first one
/// keeps all lanes as long as it does not beat.
async fn manager(world: &World, database: &Database) -> Node {
    world.second_node(database).await
}

fn created() -> EndpointSettings {
    EndpointSettings { events: events(&["job.created"]), ..EndpointSettings::default() }
}

on_both!(async the_very_next_event_on_another_node_knows_of_a_change);
async fn the_very_next_event_on_another_node_knows_of_a_change(database: Database) {
    let world = World::start(&database).await;
    let manager = manager(&world, &database).await;
    let owed = async || {
        world.event().await;
        world.node.send().await;
        ["/a", "/b"].map(|path| world.came(path))
    };
    assert_eq!(owed().await, [0, 0], "the node remembers that there are none");
    let url = |path: &str| address(&world.receiver.url(path));
    let first = register(&manager, &world.caller, url("/a"), created()).await;
    assert_eq!(owed().await, [1, 0]);
    let second = register(&manager, &world.caller, url("/b"), created()).await;
    assert_eq!(owed().await, [2, 1]);

    let none = EndpointPatch { events: Some(events(&["group.*"])), ..EndpointPatch::default() };
    manager.engine.change_endpoint(&world.caller, first.id, none).await.unwrap();
    assert_eq!(owed().await, [2, 2]);
    let all = EndpointPatch { events: Some(None), ..EndpointPatch::default() };
    manager.engine.change_endpoint(&world.caller, first.id, all).await.unwrap();
    assert_eq!(owed().await, [3, 3]);
    let types = Some(Some(vec!["urn:job:noop".to_owned()]));
    let noops = EndpointPatch { types, ..EndpointPatch::default() };
    manager.engine.change_endpoint(&world.caller, first.id, noops).await.unwrap();
    assert_eq!(owed().await, [3, 4]);
    manager.engine.delete_endpoint(&world.caller, second.id).await.unwrap();
    assert_eq!(owed().await, [3, 4]);
}

on_both!(async the_next_claim_sends_as_the_endpoint_is_then);
async fn the_next_claim_sends_as_the_endpoint_is_then(database: Database) {
    let world = World::start(&database).await;
    let manager = manager(&world, &database).await;
    let endpoint = world
        .endpoint_with("/old", |settings| {
            settings.headers = vec![("x-team".to_owned(), "blue".to_owned())];
        })
        .await;
    world.event().await;
    world.node.send().await;
    assert_eq!(world.receiver.log()[0].header("x-team"), Some("blue"));

    // Owed before the change, sent after it.
    world.event().await;
    let patch = EndpointPatch {
        address: Some(address(&world.receiver.url("/new"))),
        headers: Some(Some(vec![
            ("x-colour".to_owned(), Some("red".to_owned())),
            ("X-Team".to_owned(), None),
        ])),
        signature: Some(Signature::Hex),
        ..EndpointPatch::default()
    };
    let changed = manager.engine.change_endpoint(&world.caller, endpoint.id, patch).await.unwrap();
    assert!(changed.key.is_none(), "its secret signs this kind as well");
    world.node.send().await;
    let log = world.receiver.log_of("/new");
    assert_eq!((log.len(), world.came("/old")), (1, 1));
    assert_eq!((log[0].header("x-colour"), log[0].header("x-team")), (Some("red"), None));
    assert!(log[0].header("ringback-signature").is_some());
    log[0].verify(&endpoint.key.shown).expect("still signed with its secret");

    let patch = EndpointPatch { signature: Some(Signature::Ed25519), ..EndpointPatch::default() };
    let changed = manager.engine.change_endpoint(&world.caller, endpoint.id, patch).await.unwrap();
    let key = changed.key.expect("a key pair was made");
    assert!(key.shown.starts_with("whpk_"));
    let shown = changed.endpoint;
    assert_eq!((shown.url, shown.signature.as_str()), (world.receiver.url("/new"), "ed25519"));
    world.event().await;
    world.node.send().await;
    let log = world.receiver.log_of("/new");
    let signatures = log[1].header("webhook-signature").unwrap();
    assert!(signatures.starts_with("v1a,"), "{signatures}");
    assert_eq!(log[1].header("ringback-signature"), None);
}

on_both!(async a_new_rate_holds_from_the_next_claim);
async fn a_new_rate_holds_from_the_next_claim(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.events(8).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 8);

    let rate_limit = Some(Some(RateChange { per_second: Some(1.0), burst: Some(Some(1)) }));
    world.change(&endpoint, EndpointPatch { rate_limit, ..EndpointPatch::default() }).await;
    let limited = Instant::now();
    world.events(4).await;
    world.node.send().await;
    let log = world.receiver.log_of("/hook");
    assert_eq!(log.len(), 8 + 4);
    for (before, one) in log[8..].iter().enumerate() {
        let seconds = one.arrived.duration_since(limited).as_secs_f64();
        assert!(before as f64 <= seconds, "{before} before it in {seconds} s");
    }
    let shown = world.view(&endpoint).await.rate_limit.expect("a limit");
    assert_eq!((shown.per_second, shown.burst), (1.0, 1));

    let patch = EndpointPatch { rate_limit: Some(None), ..EndpointPatch::default() };
    world.change(&endpoint, patch).await;
    let freed = Instant::now();
    world.events(60).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 8 + 4 + 60);
    assert!(freed.elapsed() < Duration::from_secs(40), "the limit would make it a minute");
}

on_both!(async what_is_not_named_in_a_change_stays);
async fn what_is_not_named_in_a_change_stays(database: Database) {
    let world = World::start(&database).await;
    let header = ("x-team".to_owned(), "blue".to_owned());
    let endpoint = world
        .endpoint_with("/hook", |settings| {
            settings.headers = vec![header];
            settings.description = Some("orders".to_owned());
            settings.schedule = Some(vec![1, 2]);
            settings.max_in_flight = Some(3);
        })
        .await;
    let patch = EndpointPatch { description: Some(None), ..EndpointPatch::default() };
    world.change(&endpoint, patch).await;
    let shown = world.view(&endpoint).await;
    assert_eq!((shown.description, shown.max_in_flight), (None, Some(3)));
    assert_eq!(shown.retry_schedule, Some(vec![1, 2]));
    assert_eq!(shown.headers.expect("headers")["x-team"], "***");
    assert_eq!(shown.events, events(&["job.created"]));

    // The address alone: the values of headers are kept though nobody can read them.
    let moved = Some(address(&world.receiver.url("/moved")));
    world.change(&endpoint, EndpointPatch { address: moved, ..EndpointPatch::default() }).await;
    let job = world.node.submit(&world.caller, scripted_job()).await;
    world.node.send().await;
    let log = world.receiver.log();
    assert_eq!(log.len(), 1);
    assert_eq!((log[0].path.as_str(), log[0].header("x-team")), ("/moved", Some("blue")));
    assert_eq!(log[0].json()["data"]["id"], job.id.to_string());
}
