//! Long backlogs of many ordered endpoints at once: a claim looks at so many rows and no more, and
//! each endpoint comes on in each of them.

use ringback::delivery::Step;
use ringback::engine::{EndpointSettings, Next, Ordering};

use super::{claim, record};
use crate::support::database::{Database, number, on_both};
use crate::support::node::scripted_job;
use crate::support::shop::{Shop, ordered};

const ENDPOINTS: usize = 8;
const JOBS: i64 = 300;

on_both!(async many_long_backlogs_get_their_places_side_by_side);
async fn many_long_backlogs_get_their_places_side_by_side(database: Database) {
    let shop = Shop::open(&database).await;
    for number in 0..ENDPOINTS {
        let settings = EndpointSettings {
            events: Some(vec!["job.created".to_owned()]),
            ..ordered(Ordering::Strict, &[])
        };
        shop.register(&format!("/{number}"), settings).await;
    }
    shop.submit_jobs(1).await;
    shop.place().await;
    let first = claim(&shop.node).await;
    assert_eq!(first.len(), ENDPOINTS);
    let jobs = (0..JOBS).map(|_| scripted_job()).collect();
    shop.node.engine.submit_batch(&shop.caller, jobs, None, None, "r").await.unwrap();
    shop.place().await;
    shop.node.engine.bells.take_lanes();

    assert!(claim(&shop.node).await.is_empty(), "all are behind those that are being sent");
    let all = i64::try_from(ENDPOINTS).unwrap() * JOBS;
    let fresh = "SELECT COUNT(*) AS number FROM live_deliveries WHERE phase = 3";
    assert_eq!(number(&database, fresh), all - 1_024);
    let slowest = "SELECT MIN(placed) AS number FROM (SELECT COUNT(*) AS placed \
                   FROM live_deliveries WHERE phase = 4 GROUP BY lane) AS each_lane";
    assert_eq!(number(&database, slowest), 128, "each has had its share");
    let rung = shop.node.engine.bells.take_lanes();
    assert!(first.iter().all(|one| rung.contains(&one.lane)), "they are asked again");
    shop.node.dispatcher.look().await.unwrap();
    while shop.node.dispatcher.step().await.unwrap() != Step::Idle {}
    assert_eq!(number(&database, fresh), 0, "claim after claim comes to the end of it");
    for owed in &first {
        record(&shop.node, owed, Next::Delivered).await;
    }
    assert_eq!(claim(&shop.node).await.len(), ENDPOINTS);
}
