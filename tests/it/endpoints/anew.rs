//! What begins anew when somebody says so, whatever the clocks say, and what another address inherits.

use ringback::engine::{Backlog, EndpointPatch, RateLimit};

use super::{World, address, nervous, seconds};
use crate::support::database::{Database, on_both};
use crate::support::node::scripted_job;
use crate::support::receiver::Reply;

on_both!(async what_happens_after_a_discard_is_sent_though_a_clock_is_behind);
async fn what_happens_after_a_discard_is_sent_though_a_clock_is_behind(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.disable(&endpoint).await;
    world.event().await;
    world.wait(seconds(1)).await;
    world.enable(&endpoint, Backlog::Discard).await;
    // A submission may have been read before; another node's clock may be behind.
    world.node.clock.shift_millis(-500);
    world.node.submit(&world.caller, scripted_job()).await;
    world.wait(seconds(1)).await;
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["cancelled", "delivered"]);
}

on_both!(async another_address_inherits_no_failures);
async fn another_address_inherits_no_failures(database: Database) {
    let mut world = World::start(&database).await;
    world.send_by(nervous()).await;
    let endpoint = world.endpoint("/old").await;
    world.receiver.on("/old", [Reply::status(500)]);
    world.events(3).await;
    world.node.send().await;
    assert_eq!(world.stats(&endpoint).await.lane.closings, 1);
    assert!(world.view(&endpoint).await.failing_since.is_some());

    let described = EndpointPatch { description: Some(None), ..EndpointPatch::default() };
    world.change(&endpoint, described).await;
    assert!(world.view(&endpoint).await.failing_since.is_some(), "the address is the same");
    let moved = Some(address(&world.receiver.url("/new")));
    world.change(&endpoint, EndpointPatch { address: moved, ..EndpointPatch::default() }).await;
    assert_eq!(world.view(&endpoint).await.failing_since, None);
    world.event().await;
    world.node.send().await;
    assert_eq!(world.came("/new"), 1, "its lane was closed for another address");
    assert_eq!(world.stats(&endpoint).await.lane.closed_until, None);
}

on_both!(async a_limit_of_one_in_minutes_is_lifted_at_once);
async fn a_limit_of_one_in_minutes_is_lifted_at_once(database: Database) {
    let world = World::start(&database).await;
    let slow = Some(RateLimit { per_second: 0.001, burst: 1 });
    let endpoint = world.endpoint_with("/hook", |settings| settings.rate_limit = slow).await;
    world.events(8).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 1);
    let described = EndpointPatch { description: Some(None), ..EndpointPatch::default() };
    world.change(&endpoint, described).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 1, "the limit is the same");
    let lifted = EndpointPatch { rate_limit: Some(None), ..EndpointPatch::default() };
    world.change(&endpoint, lifted).await;
    world.node.send().await;
    assert_eq!(world.came("/hook"), 8);
}
