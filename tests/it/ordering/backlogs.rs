//! Long backlogs of ordered endpoints: nobody waits until all of one has its place, and what waits
//! behind nobody is found.

use ringback::delivery::Step;
use ringback::engine::{Next, Ordering};

use super::{claim, record, tried_once};
use crate::support::database::{Database, number, on_both};
use crate::support::node::scripted_job;
use crate::support::shop::Shop;

fn fresh(database: &Database) -> i64 {
    number(database, "SELECT COUNT(*) AS number FROM live_deliveries WHERE phase = 3")
}

on_both!(async one_claim_gives_places_to_a_part_of_a_long_backlog);
async fn one_claim_gives_places_to_a_part_of_a_long_backlog(database: Database) {
    let shop = Shop::open(&database).await;
    shop.register("/hook", tried_once(Ordering::Strict)).await;
    shop.submit_jobs(1).await;
    shop.place().await;
    let first = claim(&shop.node).await.remove(0);
    for _ in 0..5 {
        let jobs = (0..300).map(|_| scripted_job()).collect();
        shop.node.engine.submit_batch(&shop.caller, jobs, None, None, "r").await.unwrap();
    }
    shop.place().await;
    shop.node.engine.bells.take_lanes();

    assert!(claim(&shop.node).await.is_empty(), "all are behind the one that is being sent");
    assert_eq!(fresh(&database), 1_500 - 4 * 256);
    let rung = shop.node.engine.bells.take_lanes();
    assert!(rung.contains(&first.lane), "the lane is asked again");
    shop.node.dispatcher.look().await.unwrap();
    while shop.node.dispatcher.step().await.unwrap() != Step::Idle {}
    assert_eq!(fresh(&database), 0, "claim after claim comes to the end of it");

    record(&shop.node, &first, Next::Delivered).await;
    let feed = shop.feed().await;
    assert_eq!(claim(&shop.node).await[0].event_id, feed[1].event.id);
}

on_both!(async what_waits_behind_nobody_goes_on);
async fn what_waits_behind_nobody_goes_on(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", tried_once(Ordering::PerJob)).await;
    let strict = shop.register("/strict", tried_once(Ordering::Strict)).await;
    shop.run_jobs(3).await;
    assert_eq!(claim(&shop.node).await.len(), 4);
    assert_eq!(shop.node.engine.free_stuck().await.unwrap(), 0, "all is in good order");
    // Whoever had them has left without a word.
    database.connect().batch("DELETE FROM live_deliveries WHERE phase = 1").expect("SQL");
    assert_eq!(shop.node.engine.free_stuck().await.unwrap(), 4);
    assert_eq!(shop.node.engine.free_stuck().await.unwrap(), 0);
    shop.send().await;
    assert_eq!(shop.statuses(endpoint).await["delivered"], 6);
    assert_eq!(shop.statuses(strict).await["delivered"], 8);
}
