//! The state of an endpoint is one transaction, its backlog follows page by page. Whoever dies in
//! between leaves nothing wrong: claims judge by the state, and the next sweep finishes the work.

use ringback::engine::Backlog;

use super::{World, seconds};
use crate::support::database::{Database, number, on_both};
use crate::support::receiver::Reply;

/// Puts an endpoint's backlog back to how it was before anybody had settled it, as it is when the
/// node dies right after the commit of the new state.
fn undo_settling(database: &Database, phase: i64) {
    let sql =
        format!("UPDATE live_deliveries SET phase = {phase}; UPDATE receivers SET settling = 1");
    database.connect().batch(&sql).unwrap();
}

const WAITING: i64 = 0;
const HELD: i64 = 2;

fn in_phase(database: &Database, phase: i64) -> i64 {
    let sql = format!("SELECT COUNT(*) AS number FROM live_deliveries WHERE phase = {phase}");
    number(database, &sql)
}

fn unsettled(database: &Database) -> i64 {
    number(database, "SELECT COUNT(*) AS number FROM receivers WHERE settling = 1")
}

on_both!(async nothing_is_sent_for_a_disabled_endpoint_whatever_its_rows_say);
async fn nothing_is_sent_for_a_disabled_endpoint_whatever_its_rows_say(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.events(700).await;
    world.node.engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    assert_eq!((in_phase(&database, HELD), unsettled(&database)), (700, 0), "two pages");
    undo_settling(&database, WAITING);
    assert_eq!(world.statuses(&endpoint).await, ["held"; 700], "shown as what they are");
    world.node.dispatcher.look().await.unwrap();
    world.node.dispatcher.step().await.unwrap();
    assert_eq!(world.came("/hook"), 0);

    assert_eq!(world.node.engine.settle_backlogs().await.unwrap(), 1);
    assert_eq!((in_phase(&database, HELD), unsettled(&database)), (700, 0));
    assert_eq!(world.node.engine.settle_backlogs().await.unwrap(), 0, "nothing is left to do");
}

on_both!(async a_resumption_that_was_cut_off_is_finished);
async fn a_resumption_that_was_cut_off_is_finished(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.node.engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    world.events(30).await;
    let resume = Backlog::Resume;
    world.node.engine.enable_endpoint(&world.caller, endpoint.id, resume).await.unwrap();
    undo_settling(&database, HELD);
    world.node.send().await;
    assert_eq!(world.came("/hook"), 0, "so far nobody knows of them");
    let other = world.second_node(&database).await;
    assert_eq!(other.engine.settle_backlogs().await.unwrap(), 1);
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["delivered"; 30]);

    // An event that was appended beside the change leaves no mark but itself.
    world.event().await;
    undo_settling(&database, HELD);
    database.connect().batch("UPDATE receivers SET settling = 0").unwrap();
    assert_eq!(other.engine.settle_backlogs().await.unwrap(), 1);
    world.node.send().await;
    assert_eq!(world.came("/hook"), 31);
}

on_both!(async a_discarding_that_was_cut_off_is_finished);
async fn a_discarding_that_was_cut_off_is_finished(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.events(3).await;
    world.node.engine.disable_endpoint(&world.caller, endpoint.id).await.unwrap();
    world.wait(seconds(1)).await;
    // It dies before anything is cancelled, and what is due is due again at once.
    let rows = "UPDATE live_deliveries SET phase = 0; UPDATE receivers SET settling = 1, \
                disabled_at = NULL, disabled_reason = NULL, version = version + 1, discard_before = ";
    let sql = format!("{rows}{}", world.node.engine.now().0);
    database.connect().batch(&sql).unwrap();
    world.node.dispatcher.look().await.unwrap();
    world.node.dispatcher.step().await.unwrap();
    assert_eq!(world.came("/hook"), 0, "a claim knows it too");
    world.node.engine.settle_backlogs().await.unwrap();
    let listed = world.deliveries(&endpoint).await;
    assert!(listed.iter().all(|one| one.reason.as_deref() == Some("discarded")));
    assert_eq!(world.statuses(&endpoint).await, ["cancelled"; 3]);
}

on_both!(async what_a_receivers_word_has_disabled_is_settled_by_the_sweep);
async fn what_a_receivers_word_has_disabled_is_settled_by_the_sweep(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    world.receiver.on("/hook", [Reply::status(500)]);
    world.events(2).await;
    world.node.send().await;
    world.receiver.on("/hook", [Reply::status(410)]);
    world.event().await;
    world.node.send().await;
    // The other two wait for their retries.
    assert_eq!(world.statuses(&endpoint).await, ["held"; 3]);
    assert_eq!((in_phase(&database, HELD), in_phase(&database, WAITING)), (1, 2));
    assert_eq!(world.node.engine.settle_backlogs().await.unwrap(), 1);
    assert_eq!((in_phase(&database, HELD), in_phase(&database, WAITING)), (3, 0));
}

on_both!(async the_state_changes_back_and_forth_faster_than_anybody_settles);
async fn the_state_changes_back_and_forth_faster_than_anybody_settles(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    let other = world.second_node(&database).await;
    for round in 0..6 {
        world.events(3).await;
        let (one, two) = (&world.node.engine, &other.engine);
        let (id, caller) = (endpoint.id, &world.caller);
        let (disabled, enabled, ..) = tokio::join!(
            one.disable_endpoint(caller, id),
            two.enable_endpoint(caller, id, Backlog::Resume),
            one.settle_backlogs(),
            world.event(),
        );
        assert!(disabled.is_ok() && enabled.is_ok(), "round {round}");
    }
    let resume = Backlog::Resume;
    other.engine.enable_endpoint(&world.caller, endpoint.id, resume).await.unwrap();
    world.node.engine.settle_backlogs().await.unwrap();
    world.node.send().await;
    assert_eq!(world.statuses(&endpoint).await, ["delivered"; 24]);
    assert_eq!(world.came("/hook"), 24);
    assert_eq!(unsettled(&database), 0);
}
