//! What is owed to a disabled endpoint is held, shown, and then sent or cancelled by choice.

use ringback::delivery::Settings;
use ringback::engine::{Backlog, BacklogView, EndpointPatch};

use super::{Endpoint, Gate, World, events, seconds};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;

impl World {
    /// An event every second.
    async fn timed_events(&self, count: usize) -> Vec<String> {
        let mut jobs = Vec::with_capacity(count);
        for _ in 0..count {
            self.node.clock.shift_millis(1_000);
            jobs.push(self.event().await.id.to_string());
        }
        jobs
    }

    pub(super) async fn disable(&self, endpoint: &Endpoint) {
        self.node.engine.disable_endpoint(&self.caller, endpoint.id).await.unwrap();
    }

    pub(super) async fn enable(&self, endpoint: &Endpoint, backlog: Backlog) {
        self.node.engine.enable_endpoint(&self.caller, endpoint.id, backlog).await.unwrap();
    }

    /// Jobs that a path was told of, in order of arrival.
    fn told(&self, path: &str) -> Vec<String> {
        let log = self.receiver.log_of(path);
        log.iter().map(|one| one.json()["data"]["id"].as_str().unwrap().to_owned()).collect()
    }
}

on_both!(async a_backlog_is_held_and_resumed_in_order_of_time);
async fn a_backlog_is_held_and_resumed_in_order_of_time(database: Database) {
    let mut world = World::start(&database).await;
    world.send_by(Settings { lane_cap: 1, ..Settings::default() }).await;
    let endpoint = world.endpoint("/hook").await;
    let watching = events(&["endpoint.*"]);
    world.endpoint_with("/watch", |settings| settings.events = watching).await;
    // Some are owed before it is disabled, some after.
    let mut jobs = world.timed_events(6).await;
    world.disable(&endpoint).await;
    world.disable(&endpoint).await;
    jobs.extend(world.timed_events(14).await);
    world.node.send().await;
    assert_eq!(world.came("/hook"), 0);
    assert_eq!(world.statuses(&endpoint).await, ["held"; 20]);
    let held = &world.deliveries(&endpoint).await[0];
    assert_eq!((held.next_attempt_at, held.attempts), (None, 0));
    let stats = world.stats(&endpoint).await;
    assert_eq!(stats.backlog, BacklogView { held: 20, ..BacklogView::default() });
    let shown = world.view(&endpoint).await;
    assert_eq!((shown.state, shown.disabled_reason.as_deref()), ("disabled", Some("by_request")));

    world.enable(&endpoint, Backlog::Resume).await;
    jobs.extend(world.timed_events(3).await);
    world.node.beat().await;
    world.node.send().await;
    assert_eq!(world.told("/hook"), jobs, "what waited longest goes first");
    assert_eq!(world.statuses(&endpoint).await, ["delivered"; 23]);
    let shown = world.view(&endpoint).await;
    assert_eq!((shown.state, shown.disabled_reason, shown.date_disabled), ("enabled", None, None));
    let told = world.receiver.log_of("/watch");
    let told: Vec<_> = told.iter().map(|one| one.json()["type"].clone()).collect();
    assert_eq!(told, ["endpoint.disabled", "endpoint.enabled"], "once each");
}

on_both!(async a_backlog_can_be_discarded_instead);
async fn a_backlog_can_be_discarded_instead(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.receiver.on("/hook", [Reply::status(500), Reply::ok()]);
    world.timed_events(1).await;
    world.node.send().await;
    world.timed_events(2).await;
    world.disable(&endpoint).await;
    world.timed_events(2).await;
    world.wait(seconds(10)).await;
    world.enable(&endpoint, Backlog::Discard).await;
    let later = world.timed_events(2).await;
    world.node.send().await;
    let mut told = world.told("/hook").split_off(1);
    told.sort();
    assert_eq!(told, later);
    let listed = world.deliveries(&endpoint).await;
    let ends: Vec<_> = listed.iter().map(|one| (one.status, one.reason.as_deref())).collect();
    let mut expected = vec![("cancelled", Some("discarded")); 5];
    expected.extend([("delivered", None); 2]);
    assert_eq!(ends, expected, "never in silence");
    assert_eq!(listed[0].attempts, 1, "its try stays in the log");
    assert!(listed[1].date_completed.is_some());
}

on_both!(async a_change_of_enabled_does_the_same);
async fn a_change_of_enabled_does_the_same(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    let enabled = |enabled| EndpointPatch { enabled: Some(enabled), ..EndpointPatch::default() };
    world.events(2).await;
    world.change(&endpoint, enabled(false)).await;
    world.events(1).await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["held"; 3]);
    world.change(&endpoint, enabled(false)).await;
    world.change(&endpoint, enabled(true)).await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["delivered"; 3]);
}

on_both!(async what_was_under_way_or_waiting_for_its_retry_is_held_too);
async fn what_was_under_way_or_waiting_for_its_retry_is_held_too(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.receiver.on("/hook", [Reply::status(500)]);
    world.event().await;
    world.node.send().await;
    let gate = Gate::on(&world.receiver, "/hook", Reply::status(503));
    world.event().await;
    world.node.dispatcher.look().await.unwrap();
    world.node.dispatcher.step().await.unwrap();
    gate.wait_for_arrival();
    world.disable(&endpoint).await;
    assert_eq!(world.statuses(&endpoint).await, ["held", "sending"]);
    gate.open();
    world.node.send().await;
    world.receiver.on("/hook", [Reply::ok()]);
    assert_eq!(world.statuses(&endpoint).await, ["held"; 2]);
    world.wait(seconds(60 * 60)).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 2, "its time has come, and it is still held");
    assert_eq!(world.statuses(&endpoint).await, ["held"; 2]);

    // A redelivery waits as well.
    world.enable(&endpoint, Backlog::Resume).await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["delivered"; 2]);
    world.disable(&endpoint).await;
    let id = world.deliveries(&endpoint).await[0].id;
    world.node.engine.redeliver(&world.caller, id).await.unwrap();
    world.node.send().await;
    assert_eq!(world.whole(id).await.status, "held");
    world.enable(&endpoint, Backlog::Resume).await;
    world.node.send().await;
    assert_eq!(world.whole(id).await.status, "delivered");
    assert_eq!(
        world.receiver.log().last().unwrap().header("webhook-redelivery"),
        Some("redelivery")
    );
}

on_both!(async one_that_begins_disabled_collects_from_the_start);
async fn one_that_begins_disabled_collects_from_the_start(database: Database) {
    let world = World::start(&database).await;
    let new = ringback::engine::NewEndpoint {
        address: super::address(&world.receiver.url("/hook")),
        settings: ringback::engine::EndpointSettings::default(),
        enabled: false,
    };
    let registered = world.node.engine.create_endpoint(&world.caller, new).await.unwrap();
    assert!(!registered.endpoint.enabled);
    let endpoint = Endpoint { id: registered.endpoint.id, key: registered.key.unwrap() };
    world.event().await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["held"]);
    world.enable(&endpoint, Backlog::Resume).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 2, "what it missed, and that it is enabled");
}
