//! Pages of deliveries while what they name is purged.

use std::collections::HashSet;

use ringback::engine::DeliveryFilter;

use super::World;
use crate::support::database::{Database, on_both};
use crate::support::node::{callback, in_statuses};
use crate::support::receiver::Reply;

const START: (i64, i64) = (i64::MAX, i64::MAX);

/// Jobs with a delivery each that its receiver refused, at different times.
async fn refused(database: &Database, count: usize) -> World {
    let world = World::start(database).await;
    world.receiver.on("/hook", [Reply::status(410)]);
    for _ in 0..count {
        world.done(callback(&world.receiver.url("/hook"))).await;
        world.node.send().await;
        world.node.clock.shift_millis(1);
    }
    world
}

fn forget(database: &Database, key: i64) {
    let sql = format!("DELETE FROM deliveries WHERE id = {key}");
    database.connect().batch(&sql).expect("it is gone");
}

on_both!(async a_list_goes_on_behind_what_was_purged_meanwhile);
async fn a_list_goes_on_behind_what_was_purged_meanwhile(database: Database) {
    let world = refused(&database, 7).await;
    let engine = &world.node.engine;
    let (mut seen, mut next) = (HashSet::new(), Some(START));
    while let Some(before) = next {
        let filter = DeliveryFilter::default();
        let (page, behind) =
            engine.list_deliveries(&world.caller, &filter, before, 2).await.unwrap();
        seen.extend(page.iter().map(|one| one.id));
        forget(&database, page.last().expect("a page").key);
        next = behind;
    }
    assert_eq!(seen.len(), 7);
}

on_both!(async a_bulk_redelivery_goes_on_behind_what_was_purged_meanwhile);
async fn a_bulk_redelivery_goes_on_behind_what_was_purged_meanwhile(database: Database) {
    let world = refused(&database, 3).await;
    let engine = &world.node.engine;
    let all = engine.list_deliveries(&world.caller, &DeliveryFilter::default(), START, 9).await;
    let (all, _) = all.unwrap();
    // A call ended behind the newest of them.
    let before = (all[0].date_created.0, all[0].key);
    forget(&database, all[0].key);
    let filter = in_statuses(&["exhausted".to_owned()]);
    let done = engine.redeliver_matching(&world.caller, &filter, before, false).await.unwrap();
    assert_eq!((done.matched, done.redelivered, done.next), (2, 2, None));
}
