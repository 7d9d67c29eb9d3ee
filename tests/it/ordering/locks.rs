//! In which order rows are held on Postgres: two who hold them in other orders would wait for each
//! other, and for nothing else than what they change.

use std::sync::Arc;
use std::time::Duration;

use ringback::engine::{Health, LaneChange, LaneTrouble, Next, Ordering};
use ringback::store::Connection;

use super::{claim, record_of, refuse, tried_once};
use crate::support::database::{Backend, Database, block_on, number};
use crate::support::shop::{Shop, ordered};
use crate::support::wait::eventually_async;

/// A transaction of somebody else that holds what it has selected.
fn holding(database: &Database, select: &str) -> Connection {
    let mut connection = database.connect();
    connection.begin().expect("a transaction");
    connection.batch(&format!("SET LOCAL lock_timeout = '2s'; {select} FOR UPDATE")).expect("SQL");
    connection
}

/// Waits until a writer waits for a lock.
async fn somebody_waits(database: &Database) {
    let sql = "SELECT COUNT(*) AS number FROM pg_stat_activity \
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waits = async || (number(database, sql) > 0).then_some(());
    eventually_async("a writer to wait", Duration::from_secs(60), waits).await;
}

#[test]
fn a_record_holds_its_endpoint_before_its_lane() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let shop = Shop::open(&database).await;
        shop.register("/hook", ordered(Ordering::None, &[60])).await;
        shop.submit_jobs(1).await;
        let owed = claim(&shop.node).await.remove(0);
        let sql = "INSERT INTO lanes (lane, not_before, reason, closings, updated_at) \
                   SELECT lane, 9, 'failures', 1, 0 FROM receivers";
        database.connect().batch(sql).expect("SQL");
        // A ping holds its endpoint and then opens its lane.
        let mut pinging = holding(&database, "SELECT id FROM receivers");
        let next = Next::Retry { due_at: shop.node.engine.now(), failure: "http_500".to_owned() };
        let mut record = record_of(&shop.node, &owed, next);
        record.health = Some(Health::Failing);
        record.lane = Some(LaneChange::Close(LaneTrouble {
            lane: owed.lane,
            not_before: shop.node.engine.now().0,
            reason: "failures".to_owned(),
            closings: 2,
            number: 2,
        }));
        let engine = Arc::clone(&shop.node.engine);
        let recording = tokio::spawn(async move { engine.record(record).await });
        somebody_waits(&database).await;
        pinging.batch("UPDATE lanes SET not_before = 1").expect("nobody holds the lane");
        pinging.commit().expect("a commit");
        assert!(recording.await.expect("no panic").expect("it is recorded").held);
        assert_eq!(number(&database, "SELECT closings AS number FROM lanes"), 2);
    });
}

#[test]
fn a_redelivery_holds_the_live_row_before_the_lasting_one() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let shop = Shop::open(&database).await;
        let endpoint = shop.register("/hook", tried_once(Ordering::Strict)).await;
        let job = shop.submit_jobs(1).await.remove(0);
        refuse(&shop, "/hook", job.id, "job.created", 500);
        shop.send().await;
        let blocker = shop.delivery_of(endpoint, job.id, "job.created").await.id;
        // A record holds the live row and then writes the lasting one.
        let mut recording = holding(&database, "SELECT id FROM live_deliveries");
        let (engine, caller) = (Arc::clone(&shop.node.engine), shop.caller.clone());
        let redelivering = tokio::spawn(async move { engine.redeliver(&caller, blocker).await });
        somebody_waits(&database).await;
        recording.batch("UPDATE deliveries SET attempts = attempts").expect("nobody holds it");
        recording.commit().expect("a commit");
        redelivering.await.expect("no panic").expect("it is owed again");
        assert_eq!(shop.delivery(blocker).await.status, "pending");
    });
}

#[test]
fn what_is_handed_back_waits_for_nothing_else() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let shop = Shop::open(&database).await;
        let endpoint = shop.register("/hook", tried_once(Ordering::None)).await;
        shop.submit_jobs(2).await;
        let owed = claim(&shop.node).await;
        assert_eq!(owed.len(), 2);
        let select = format!("SELECT id FROM live_deliveries WHERE id = {}", owed[1].key);
        let mut recording = holding(&database, &select);
        shop.node.engine.return_deliveries(vec![owed[0].key]).await.expect("it is free");
        recording.rollback();
        assert_eq!(shop.statuses(endpoint).await, [("pending", 1), ("sending", 1)].into());
    });
}

#[test]
fn what_the_database_undoes_for_the_sake_of_others_is_done_again() {
    // Who has waited for longer gives way, which is the record unless this machine stood still.
    let record_gave_way = || block_on(two_in_each_others_way());
    assert!((0..10).any(|_| record_gave_way()), "it is always the other one");
}

/// A record and somebody who holds the same rows the other way round; whether it was the record that
/// was undone. It is written in any case.
async fn two_in_each_others_way() -> bool {
    let database = Database::fresh(Backend::Postgres);
    let shop = Shop::open(&database).await;
    let endpoint = shop.register("/hook", ordered(Ordering::None, &[60])).await;
    shop.submit_jobs(1).await;
    let owed = claim(&shop.node).await.remove(0);
    // Somebody holds the endpoint and then wants the delivery.
    let mut other = holding(&database, "SELECT id FROM receivers");
    let next = Next::Retry { due_at: shop.node.engine.now(), failure: "http_500".to_owned() };
    let mut record = record_of(&shop.node, &owed, next);
    record.health = Some(Health::Failing);
    let engine = Arc::clone(&shop.node.engine);
    let recording = tokio::spawn(async move { engine.record(record).await });
    somebody_waits(&database).await;
    let wanted = other.batch("SELECT id FROM live_deliveries FOR UPDATE");
    match wanted {
        Ok(()) => other.commit().expect("a commit"),
        Err(_) => other.rollback(),
    }
    assert!(recording.await.expect("no panic").expect("it is recorded all the same").held);
    assert_eq!(shop.statuses(endpoint).await, [("pending", 1)].into());
    wanted.is_ok()
}
