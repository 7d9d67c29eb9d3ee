//! An endpoint that receives nothing for long is disabled, and everybody can see it.

use ringback::delivery::{BreakerSettings, Settings};
use ringback::engine::FeedFilter;

use super::{Endpoint, World, events, seconds};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Reply;

/// What the nodes of these tests are configured with.
const HOURS: u64 = 120;

impl World {
    /// With an endpoint that is tried once for each event, however badly it does.
    async fn watched(database: &Database) -> (World, Endpoint) {
        let mut world = World::start(database).await;
        let breaker = BreakerSettings { failures: 0, ..BreakerSettings::default() };
        world.send_by(Settings { breaker, lane_cap: 1, ..Settings::default() }).await;
        let endpoint =
            world.endpoint_with("/hook", |settings| settings.schedule = Some(vec![])).await;
        (world, endpoint)
    }

    async fn hours(&self, hours: u64) {
        self.wait(seconds(hours * 60 * 60)).await;
    }

    /// One event that is answered like this.
    async fn answered(&self, status: u16) {
        self.receiver.on("/hook", [Reply::status(status)]);
        self.event().await;
        self.node.send().await;
    }
}

on_both!(async an_endpoint_without_a_success_for_long_is_disabled);
async fn an_endpoint_without_a_success_for_long_is_disabled(database: Database) {
    let (world, endpoint) = World::watched(&database).await;
    let watching = events(&["endpoint.*"]);
    let watcher = world.endpoint_with("/watch", |settings| settings.events = watching).await;
    world.answered(500).await;
    let since = world.node.engine.now();
    assert_eq!(world.view(&endpoint).await.failing_since, Some(since));
    world.wait(seconds(HOURS * 60 * 60 - 1)).await;
    world.answered(500).await;
    let shown = world.view(&endpoint).await;
    assert_eq!((shown.enabled, shown.failing_since), (true, Some(since)));

    world.wait(seconds(1)).await;
    world.event().await;
    world.answered(503).await;
    let shown = world.view(&endpoint).await;
    assert_eq!((shown.enabled, shown.state), (false, "disabled"));
    assert_eq!(shown.disabled_reason.as_deref(), Some("no_success"));
    assert_eq!(shown.date_disabled, Some(world.node.engine.now()));
    let stats = world.stats(&endpoint).await;
    assert_eq!((stats.state, stats.failing_since), ("disabled", Some(since)));
    assert_eq!(stats.disabled_reason.as_deref(), Some("no_success"));

    // The second of the last two was due when the first decided.
    world.node.engine.settle_backlogs().await.unwrap();
    world.event().await;
    world.node.send().await;
    let statuses = world.statuses(&endpoint).await;
    assert_eq!(statuses, ["exhausted", "exhausted", "exhausted", "held", "held"]);
    assert_eq!((world.stats(&endpoint).await.backlog.held, world.came("/hook")), (2, 3));

    let told = world.receiver.log_of("/watch");
    assert_eq!(told.len(), 1);
    let body = told[0].json();
    assert_eq!(body["type"], "endpoint.disabled");
    assert_eq!(body["data"]["id"], endpoint.id.to_string());
    assert_eq!(body["data"]["disabledReason"], "no_success");
    assert_eq!(body["data"]["failingSince"], since.to_string());
    assert_eq!(world.statuses(&watcher).await, ["delivered"]);
    assert_eq!(world.in_feed("endpoint.disabled").await, 1, "those who pull see it as well");
}

on_both!(async a_success_in_between_resets_it);
async fn a_success_in_between_resets_it(database: Database) {
    let (world, endpoint) = World::watched(&database).await;
    world.answered(500).await;
    world.hours(HOURS / 2).await;
    world.answered(200).await;
    assert_eq!(world.view(&endpoint).await.failing_since, None);
    world.hours(1).await;
    world.answered(404).await;
    let since = world.node.engine.now();
    assert_eq!(world.view(&endpoint).await.failing_since, Some(since), "a refusal is no success");
    world.hours(HOURS - 1).await;
    world.answered(500).await;
    assert!(world.view(&endpoint).await.enabled);
    // A success that another node records counts as well.
    world.node.engine.leave().await.unwrap();
    let other = world.second_node(&database).await;
    world.receiver.on("/hook", [Reply::ok()]);
    world.event().await;
    other.send().await;
    assert_eq!(world.view(&endpoint).await.failing_since, None);
    world.node.beat().await;
    other.engine.leave().await.unwrap();
    world.hours(1).await;
    world.answered(500).await;
    assert!(world.view(&endpoint).await.enabled);
    world.hours(HOURS).await;
    world.answered(500).await;
    assert!(!world.view(&endpoint).await.enabled);
}

on_both!(async an_endpoint_that_is_enabled_again_gets_its_time_anew);
async fn an_endpoint_that_is_enabled_again_gets_its_time_anew(database: Database) {
    let (world, endpoint) = World::watched(&database).await;
    world.answered(500).await;
    world.hours(HOURS).await;
    world.answered(500).await;
    assert!(!world.view(&endpoint).await.enabled);
    let discard = ringback::engine::Backlog::Discard;
    world.node.engine.enable_endpoint(&world.caller, endpoint.id, discard).await.unwrap();
    let shown = world.view(&endpoint).await;
    assert_eq!((shown.enabled, shown.failing_since), (true, None));
    world.answered(500).await;
    assert!(world.view(&endpoint).await.enabled);
    world.hours(HOURS).await;
    world.answered(500).await;
    assert!(!world.view(&endpoint).await.enabled);
    assert_eq!(world.in_feed("endpoint.disabled").await, 2);
    assert_eq!(world.in_feed("endpoint.enabled").await, 1);
}

impl World {
    /// How many events of a type there are in the feed.
    async fn in_feed(&self, event_type: &str) -> usize {
        while self.node.engine.relay().await.unwrap() {}
        let filter = FeedFilter { types: vec![event_type.to_owned()] };
        let application = self.caller.application;
        let page = self.node.engine.feed_page(application, 0, &filter, 1_000).await.unwrap();
        page.events.len()
    }
}
