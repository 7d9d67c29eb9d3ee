//! A replay beside retention: what is just being removed is neither owed nor passed over, and what
//! has just been owed is not removed.

use std::sync::Arc;
use std::time::Duration;

use ringback::engine::{EndpointSettings, Ordering, REPLAY_QUEUE, ReplayStep};
use ringback::ids::new_id;
use ringback::store::deliveries::{self, NewDelivery, manner, phase};
use ringback::store::retention::{self, Purgeable};
use ringback::store::{Statement, events};
use uuid::Uuid;

use super::{PATIENCE, between, submit};
use crate::support::database::{Backend, Database, block_on, number, on_both};
use crate::support::shop::{Shop, ordered};
use crate::support::wait::eventually_async;

const MONTH_MILLIS: i64 = 30 * 24 * 60 * 60 * 1_000;

fn wanting_starts() -> EndpointSettings {
    let events = Some(vec!["job.created".to_owned()]);
    EndpointSettings { events, ..ordered(Ordering::None, &[]) }
}

/// Jobs that ended a month ago, and an endpoint that knows nothing of them.
async fn old_jobs(database: &Database, count: usize) -> (Shop, Uuid, Vec<i64>) {
    let shop = Shop::open(database).await;
    let jobs = shop.run_jobs(count).await;
    let mut keys = Vec::with_capacity(count);
    for job in jobs {
        keys.push(shop.node.job(&shop.caller, job.id).await.key);
    }
    shop.wait(Duration::from_millis(MONTH_MILLIS.unsigned_abs() + 60_000)).await;
    let endpoint = shop.register("/hook", wanting_starts()).await;
    (shop, endpoint, keys)
}

#[test]
fn what_retention_is_just_at_is_asked_for_again() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let (shop, endpoint, keys) = old_jobs(&database, 3).await;
        let engine = &shop.node.engine;
        let now = engine.now();
        let order = between(endpoint, now.plus_millis(-2 * MONTH_MILLIS), now.plus_millis(1));
        submit(&shop, &order).await;
        let claimed = engine.claim(vec![(REPLAY_QUEUE.to_owned(), 1)], 1).await.unwrap().jobs;
        let replay = &claimed[0].job;
        // Retention looks at two of them, and takes one.
        let mut retaining = database.connect();
        retaining.begin().expect("a transaction");
        events::hold(&mut retaining, &keys[..2]).expect("SQL");
        for _ in 0..2 {
            let (step, progress) = engine.replay_page(replay, &order).await.unwrap();
            assert_eq!((step, progress.owed), (ReplayStep::Wait, 0));
        }
        let gone = Purgeable {
            id: keys[0],
            public_id: vec![7; 16],
            application_id: shop.caller.application,
            completed_at: Some(0),
            created_at: 0,
        };
        retention::purge(&mut retaining, "job", &[gone], "retention", now.0).expect("SQL");
        let (step, _) = engine.replay_page(replay, &order).await.unwrap();
        assert_eq!(step, ReplayStep::Wait, "nobody knows how that ends");
        retaining.commit().expect("one is gone");

        let (step, progress) = engine.replay_page(replay, &order).await.unwrap();
        assert_eq!((step, progress.owed), (ReplayStep::Done, 2));
        shop.node.send().await;
        let owed = shop.owed_to(endpoint).await;
        let replayed = owed.iter().filter(|one| one.manner == "replay");
        assert!(replayed.clone().all(|one| one.status == "delivered"));
        assert_eq!(replayed.count(), 2);
    });
}

#[test]
fn what_a_replay_has_just_owed_stays() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let (shop, _, keys) = old_jobs(&database, 1).await;
        let node = Arc::new(shop.node);
        let now = node.engine.now();
        let receivers = "SELECT id AS number, lane FROM receivers";
        let mut replaying = database.connect();
        #[derive(diesel::QueryableByName)]
        struct Place {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            number: i64,
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            lane: i64,
        }
        let place = replaying.first::<Place>(Statement::new(receivers)).expect("SQL").unwrap();
        replaying.begin().expect("a transaction");
        assert_eq!(events::keep(&mut replaying, &keys).expect("SQL"), keys);
        let owed = NewDelivery {
            id: -1,
            public_id: new_id(),
            application_id: shop.caller.application,
            receiver_id: place.number,
            is_endpoint: true,
            subject_id: keys[0],
            sequence: 1,
            event_id: new_id(),
            event_type: "job.created".to_owned(),
            manner: manner::REPLAY,
            phase: phase::HELD,
            place: None,
            lane: place.lane,
            request_id: String::new(),
            created_at: now.0,
            due_at: now.0,
        };
        let before = now.plus_millis(-MONTH_MILLIS);
        let purging = tokio::spawn({
            let node = Arc::clone(&node);
            async move { node.engine.purge_jobs(before, 0).await.unwrap().purged }
        });
        let waits = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting = async || (number(&database, waits) > 0).then_some(());
        eventually_async("retention to meet it", PATIENCE, waiting).await;
        deliveries::insert(&mut replaying, &[owed]).expect("SQL");
        replaying.commit().expect("it is owed");
        assert_eq!(purging.await.unwrap(), 0);

        database
            .connect()
            .batch("DELETE FROM live_deliveries; UPDATE deliveries SET status = 1")
            .unwrap();
        assert_eq!(node.engine.purge_jobs(before, 0).await.unwrap().purged, 1, "now it may go");
        let left = "SELECT COUNT(*) AS number FROM deliveries WHERE id = -1";
        assert_eq!(number(&database, left), 0);
    });
}

on_both!(async a_delivery_whose_body_is_gone_says_so);
async fn a_delivery_whose_body_is_gone_says_so(database: Database) {
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", wanting_starts()).await;
    shop.submit_jobs(1).await;
    database.connect().batch("DELETE FROM bodies").expect("SQL");
    shop.node.send().await;
    let owed = shop.owed_to(endpoint).await;
    assert_eq!((owed[0].status, owed[0].reason.as_deref()), ("cancelled", Some("subject_purged")));
}
