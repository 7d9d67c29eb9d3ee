//! Retention beside those who ask for old things again.

use std::sync::Arc;
use std::time::Duration;

use ringback::engine::{Caller, DeliveryView, EngineError, PurgedPage, StoredJob};
use ringback::store::deliveries::{self, manner};
use ringback::store::events::{self, NewEvent};
use ringback::store::{Connection, jobs};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::database::{Backend, Database, block_on, number_on, on_both};
use crate::support::node::{Node, callback, of_job, scripted_job};
use crate::support::receiver::{Receiver, Reply};
use crate::support::wait::eventually_async;

const MONTH_MILLIS: i64 = 30 * 24 * 60 * 60 * 1_000;

/// A delivery that its receiver refused for good, of a job that is old enough to go.
struct Old {
    node: Arc<Node>,
    receiver: Receiver,
    caller: Caller,
    job: StoredJob,
    delivery: DeliveryView,
}

async fn old(database: &Database) -> Old {
    let receiver = Receiver::start();
    let node = Arc::new(Node::start(database).await);
    let (caller, secret) = node.application("shop").await;
    receiver.trust(&secret);
    receiver.on("/hook", [Reply::status(410), Reply::ok()]);
    let mut job = scripted_job();
    job.callback = Some(callback(&receiver.url("/hook")));
    let job = node.submit(&caller, job).await;
    node.work().await;
    node.send().await;
    node.clock.shift_millis(MONTH_MILLIS + 60_000);
    node.beat().await;
    let listed =
        node.engine.list_deliveries(&caller, &of_job(job.id), (i64::MAX, i64::MAX), 10).await;
    let (mut listed, _) = listed.unwrap();
    let delivery = listed.pop().expect("it was owed");
    assert_eq!(delivery.status, "exhausted");
    Old { node, receiver, caller, job, delivery }
}

/// Retention as it runs by itself.
fn purging(node: &Arc<Node>) -> JoinHandle<Result<PurgedPage, EngineError>> {
    let node = Arc::clone(node);
    let before = node.engine.now().plus_millis(-MONTH_MILLIS);
    tokio::spawn(async move { node.engine.purge_jobs(before, 0).await })
}

/// Waits until retention is over, or waits for somebody.
async fn met(watch: &mut Connection, purging: &JoinHandle<Result<PurgedPage, EngineError>>) {
    let waits = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let met = async || (purging.is_finished() || number_on(watch, waits) > 0).then_some(());
    eventually_async("retention to meet it", Duration::from_secs(60), met).await;
}

/// How many went; nothing when retention has given up waiting.
async fn purged(purging: JoinHandle<Result<PurgedPage, EngineError>>) -> Option<usize> {
    match purging.await.expect("no panic") {
        Err(error) if error.is_passing() => None,
        page => Some(page.expect("it works").purged),
    }
}

#[test]
fn what_is_owed_again_meanwhile_stays_and_is_sent() {
    // Retention waits for five seconds. On a machine that stands still for so long the two do not
    // meet, and begin again.
    assert!((0..10).any(|_| block_on(owed_again_before_retention_gives_up())));
}

/// Whether retention waited until somebody had owed it again.
async fn owed_again_before_retention_gives_up() -> bool {
    let database = Database::fresh(Backend::Postgres);
    let Old { node, receiver, caller, job, delivery } = old(&database).await;
    // Somebody owes it again and has not committed yet when retention looks.
    let mut again = database.connect();
    again.begin().expect("a transaction");
    let routes = deliveries::hold_lasting(&mut again, &[delivery.key]).expect("SQL");
    let now = node.engine.now().0;
    deliveries::revive(&mut again, &routes[0], manner::REDELIVERY, now).expect("SQL");
    let purging = purging(&node);
    let mut watch = database.connect();
    met(&mut watch, &purging).await;
    again.commit().expect("it is owed again");

    let Some(purged) = purged(purging).await else { return false };
    assert_eq!(purged, 0);
    node.job(&caller, job.id).await;
    node.send().await;
    assert_eq!(receiver.log_of("/hook").len(), 2);
    assert_eq!(number_on(&mut watch, "SELECT COUNT(*) AS number FROM live_deliveries"), 0);
    let before = node.engine.now().plus_millis(-MONTH_MILLIS);
    assert_eq!(node.engine.purge_jobs(before, 0).await.unwrap().purged, 1, "now it may go");
    true
}

on_both!(async what_is_gone_or_owed_is_not_owed_again);
async fn what_is_gone_or_owed_is_not_owed_again(database: Database) {
    let Old { node, delivery, receiver: _receiver, .. } = old(&database).await;
    let mut connection = database.connect();
    let live = "SELECT COUNT(*) AS number FROM live_deliveries";
    let now = node.engine.now().0;
    // Two replays have found the same delivery, and then retention took it.
    let routes = deliveries::hold_lasting(&mut connection, &[delivery.key]).expect("SQL");
    for _ in 0..2 {
        deliveries::revive(&mut connection, &routes[0], manner::REPLAY, now).expect("SQL");
        assert_eq!(number_on(&mut connection, live), 1);
    }
    node.send().await;
    assert_eq!(number_on(&mut connection, live), 0);
    let before = node.engine.now().plus_millis(-MONTH_MILLIS);
    assert_eq!(node.engine.purge_jobs(before, 0).await.unwrap().purged, 1);
    deliveries::revive(&mut connection, &routes[0], manner::REPLAY, now).expect("SQL");
    assert_eq!(number_on(&mut connection, live), 0, "nothing could ever claim it");
}

#[test]
fn a_job_that_just_comes_to_the_trash_leaves_nothing_behind() {
    assert!((0..10).any(|_| block_on(trashed_before_retention_gives_up())));
}

/// Whether retention waited until the job was in the trash.
async fn trashed_before_retention_gives_up() -> bool {
    let database = Database::fresh(Backend::Postgres);
    let Old { node, receiver: _receiver, caller, job, .. } = old(&database).await;
    let key = node.job(&caller, job.id).await.key;
    let mut trashing = database.connect();
    trashing.begin().expect("a transaction");
    let row = jobs::load_final(&mut trashing, &[key]).expect("SQL").remove(0);
    let trashed = NewEvent {
        subject_id: row.state.id,
        sequence: row.state.last_sequence + 1,
        public_id: Uuid::now_v7(),
        subject_kind: "job",
        application_id: row.application_id,
        event_type: "job.trashed",
        at: node.engine.now().0,
        data: "{}".to_owned(),
    };
    events::append(&mut trashing, &[trashed]).expect("SQL");
    let purging = purging(&node);
    let mut watch = database.connect();
    met(&mut watch, &purging).await;
    trashing.commit().expect("it is in the trash");

    let Some(purged) = purged(purging).await else { return false };
    assert_eq!(purged, 1);
    assert_eq!(number_on(&mut watch, "SELECT COUNT(*) AS number FROM events"), 0);
    true
}
