//! Cost does not grow with history: the rows that the database itself says it read for the same
//! work, with and without thousands of finished jobs beside it. Counted, not timed.
//!
//! Nor does the cost of a page grow with the list that it is of.
//!
//! Postgres counts what it reads; SQLite does not tell, so there the plans of the claims are asked.

use std::collections::HashSet;

use ringback::engine::{Caller, DeliveryFilter, FeedEvent, FeedFilter, job_view};
use ringback::handlers::{Ending, Product};
use ringback::ids::Timestamp;
use ringback::store::history::{self, Lot, Whole};
use ringback::store::{Connection, Statement};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::support::audit;

use crate::support::database::{Backend, Database, block_on, number_on, on_both, plan};
use crate::support::node::{Node, callback, scripted_job};
use crate::support::receiver::Receiver;

/// Index entries and rows that Postgres has read in the tables of this database so far.
fn rows_read(connection: &mut Connection) -> i64 {
    // Statistics of other connections arrive when those are idle; this one flushes its own.
    connection.batch("SELECT pg_stat_force_next_flush()").unwrap();
    let sql = "SELECT CAST(COALESCE((SELECT SUM(seq_tup_read) FROM pg_stat_user_tables), 0) \
               + COALESCE((SELECT SUM(idx_tup_read) FROM pg_stat_user_indexes), 0) AS BIGINT) AS number";
    number_on(connection, sql)
}

/// Jobs from their submission to their webhook, and their events into the feed.
async fn run(node: &Node, receiver: &Receiver, caller: &Caller, jobs: usize) {
    for _ in 0..jobs {
        let mut job = scripted_job();
        job.callback = Some(callback(&receiver.url("/hook")));
        let request = Uuid::now_v7().to_string();
        node.engine.submit(caller, job, None, &request).await.expect("the job is taken");
        node.clock.shift_millis(3);
    }
    node.work().await;
    node.clock.shift_millis(7);
    node.send().await;
    while node.engine.relay().await.expect("the relay works") {}
}

/// Rows read for some work, on a node of its own whose connections have told all they did.
fn cost<W>(database: &Database, work: impl FnOnce(Node) -> W) -> i64
where
    W: Future<Output = Node>,
{
    let mut connection = database.connect();
    let before = rows_read(&mut connection);
    block_on(async {
        let node = work(Node::start(database).await).await;
        node.engine.leave().await.unwrap();
        // Connections tell what they read when they close.
        node.engine.close();
    });
    let told = || {
        let sql = "SELECT COUNT(*) AS number FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                   AND datname = current_database() AND application_name <> 'bystander'";
        let others = number_on(&mut connection, sql);
        (others == 0).then(|| rows_read(&mut connection) - before)
    };
    crate::support::wait::eventually(
        "connections to close",
        std::time::Duration::from_secs(20),
        told,
    )
}

/// Work that was done while somebody else has a transaction open: it stays in every index.
const DONE: i64 = 100_000;

/// Rows of a live table as the newest one, that come and go.
pub(crate) fn pass_through(connection: &mut Connection, table: &str, changes: &str) {
    let sql = format!(
        "CREATE TEMP TABLE copies AS SELECT t.*, n FROM generate_series(1, {DONE}) AS n, \
         (SELECT * FROM {table} ORDER BY id DESC LIMIT 1) AS t; \
         UPDATE copies SET id = id + CAST(n AS BIGINT) * 1000000, {changes}; ALTER TABLE copies DROP COLUMN n; \
         INSERT INTO {table} SELECT * FROM copies; \
         DELETE FROM {table} WHERE id IN (SELECT id FROM copies); DROP TABLE copies"
    );
    connection.batch(&sql).expect("SQL of ours");
}

#[test]
fn an_old_transaction_makes_no_claim_step_over_all_that_was_done_since() {
    let database = Database::fresh(Backend::Postgres);
    let receiver = Receiver::start();
    let mut bystander = database.connect();
    let begin = "SET application_name = 'bystander'; SET idle_in_transaction_session_timeout = 0; \
                 BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()";
    bystander.batch(begin).unwrap();
    let caller = block_on(async {
        let node = Node::start(&database).await;
        let (caller, _) = node.application("shop").await;
        let mut job = scripted_job();
        job.callback = Some(callback(&receiver.url("/hook")));
        node.submit(&caller, job).await;
        let mut connection = database.connect();
        pass_through(&mut connection, "live_jobs", "ready_sequence = n");
        node.work().await;
        pass_through(&mut connection, "live_deliveries", "due_at = n");
        node.send().await;
        node.engine.leave().await.unwrap();
        caller
    });
    let read = cost(&database, async |node: Node| {
        node.dispatcher.step().await.unwrap();
        for _ in 0..100 {
            let mut job = scripted_job();
            job.callback = Some(callback(&receiver.url("/hook")));
            node.submit(&caller, job).await;
            // As in a server most of the time: the bells tell of the work, and nobody looks.
            node.runner.step().await.unwrap();
            node.settle().await;
            node.dispatcher.step().await.unwrap();
            node.settle_deliveries().await;
        }
        assert_eq!(receiver.count(), 101);
        node
    });
    // Two claims a job, and no more than one in five begins at the start.
    assert!(read < 40 * DONE, "{read} rows read for 200 claims beside {DONE} jobs that are done");
    assert!(read > DONE, "{read} rows read: is there anything to step over?");
    drop(bystander);
}

#[test]
fn the_same_work_reads_as_many_rows_beside_a_long_history() {
    let database = Database::fresh(Backend::Postgres);
    let receiver = Receiver::start();
    let caller = block_on(async {
        let node = Node::start(&database).await;
        let (caller, _) = node.application("shop").await;
        node.engine.leave().await.unwrap();
        caller
    });
    let sixty_jobs = async |node: Node| {
        run(&node, &receiver, &caller, 60).await;
        node
    };
    let warm = cost(&database, sixty_jobs);
    let empty = cost(&database, sixty_jobs);
    let mut connection = database.connect();
    let pattern = history::pattern(&mut connection).unwrap().expect("all jobs are over");
    let lot = Lot { made: 0, copies: 50, total: 50 };
    history::copy(&mut connection, &pattern, lot).expect("a history");
    history::let_settle(&mut connection).expect("statistics");
    drop(connection);
    let full = cost(&database, sixty_jobs);
    eprintln!("rows read: {warm} first, {empty} before the history, {full} beside it");
    assert!(empty > 60, "something was counted: {empty}");
    // Reading any one table whole would already cost more.
    assert!(full < empty * 3, "{empty} rows without, {full} with 6,000 finished jobs beside");
}

on_both!(async copies_of_a_past_are_as_the_system_leaves_them);
async fn copies_of_a_past_are_as_the_system_leaves_them(database: Database) {
    let (receiver, node) = (Receiver::start(), Node::start(&database).await);
    let (caller, secret) = node.application("shop").await;
    receiver.trust(&secret);
    // No two times of a job are the same.
    let clock = node.clock.clone();
    node.scripted.set(move |_| {
        clock.shift_millis(11);
        async { Ending::Done(Product::of(RawValue::NULL.to_owned())) }
    });
    let mut delayed = scripted_job();
    delayed.callback = Some(callback(&receiver.url("/hook")));
    delayed.run_at = Some(Timestamp(node.clock.now().0 + 10_000));
    let request = Uuid::now_v7().to_string();
    node.engine.submit(&caller, delayed, None, &request).await.expect("the job is taken");
    run(&node, &receiver, &caller, 2).await;
    let mut connection = database.connect();
    let pattern = history::pattern(&mut connection).unwrap().expect("all jobs are over");
    assert_eq!(pattern.jobs, 3);
    for (made, copies) in [(0, 2), (2, 4)] {
        let lot = Lot { made, copies, total: 6 };
        history::copy(&mut connection, &pattern, lot).expect("copies");
    }
    history::let_settle(&mut connection).expect("statistics");
    let whole = Whole { after: 0, application: None, ended: true, delivered: 1, owed: 0 };
    let tally = history::tally(&mut connection, &whole).unwrap();
    assert_eq!((tally.jobs, tally.faulty), (21, 0));
    assert_eq!((tally.deliveries, tally.delivered, tally.closed, tally.live), (21, 21, 21, 0));
    for wrong in [
        Whole { delivered: 0, owed: 1, ..whole },
        Whole { owed: 1, ..whole },
        Whole { delivered: 2, ..whole },
        Whole { ended: false, ..whole },
    ] {
        let tally = history::tally(&mut connection, &wrong).unwrap();
        assert_eq!(tally.faulty, 21, "{wrong:?}");
    }
    let nobodys = Whole { application: Some(caller.application + 1), ..whole };
    assert_eq!(history::tally(&mut connection, &nobodys).unwrap().jobs, 0);
    audit::every_job(&mut connection);
    run(&node, &receiver, &caller, 2).await;

    let engine = &node.engine;
    let filter = FeedFilter::default();
    let feed = engine.feed_page(caller.application, 0, &filter, 1_000).await.unwrap().events;
    assert_eq!(feed.len(), 23 * 3);
    let deliveries = DeliveryFilter::default();
    let (deliveries, _) =
        engine.list_deliveries(&caller, &deliveries, (i64::MAX, i64::MAX), 100).await.unwrap();
    assert_eq!(deliveries.len(), 23);
    let mut requests = HashSet::new();
    for delivery in deliveries {
        let detail = engine.find_delivery(&caller, delivery.id).await.unwrap();
        let job = engine.find_job(&caller, detail.job_id.expect("a job")).await.unwrap();
        let body: Value = serde_json::from_str(&detail.body.expect("a body")).unwrap();
        let shown: Value = serde_json::from_str(job_view(&job).get()).unwrap();
        assert_eq!(body["data"], shown);
        assert_eq!(body["id"], detail.webhook_id.to_string());
        let told = feed.iter().find(|event| event.event.id == detail.webhook_id).expect("an event");
        assert_eq!(told.event.subject_id, job.id);
        assert_eq!(body["timestamp"], told.event.timestamp.to_string());
        assert_eq!(job.state.completed_at, Some(told.event.timestamp));

        let of_job = |event: &&FeedEvent| event.event.subject_id == job.id;
        let first = &feed.iter().find(of_job).expect("its first event").event;
        assert_eq!(first.timestamp, job.created_at);
        let data: Value = serde_json::from_str(first.data.get()).unwrap();
        assert_eq!(data["groupId"], job.id.to_string());
        assert_eq!(data["runAt"], job.state.run_at.to_string());
        let waited = job.state.run_at.0 - job.created_at.0;
        assert!(waited == 0 || waited == 10_000, "{waited}");
        let request = data["requestId"].as_str().expect("a request").to_owned();
        let sql = format!(
            "SELECT COUNT(*) AS number FROM deliveries WHERE request_id = '{request}' AND id = {}",
            detail.key
        );
        assert_eq!(number_on(&mut connection, &sql), 1);
        assert!(requests.insert(request));
    }
    let sql = "SELECT COUNT(*) AS number FROM jobs WHERE run_at = created_at";
    assert_eq!(number_on(&mut connection, sql), 23 - 7);
    // Nothing but what is younger has a later time. Of what was done side by side the feed may tell
    // the later first.
    let times: Vec<_> = feed.iter().map(|event| event.event.timestamp).collect();
    let (seeds, younger) = (&times[..9], &times[9 + 54..]);
    assert!(seeds.iter().max() <= younger.iter().min(), "{seeds:?} {younger:?}");
}

#[test]
fn a_short_page_reads_little_of_a_long_list() {
    let database = Database::fresh(Backend::Postgres);
    let receiver = Receiver::start();
    let mut shop = None;
    cost(&database, async |node: Node| {
        let (caller, _) = node.application("shop").await;
        for _ in 0..250 {
            let mut job = scripted_job();
            job.callback = Some(callback(&receiver.url("/hook")));
            node.submit(&caller, job).await;
        }
        node.work().await;
        while node.engine.relay().await.unwrap() {}
        shop = Some(caller);
        node
    });
    let shop = shop.expect("an application");
    let nothing = cost(&database, async |node: Node| node);
    let feed = cost(&database, async |node: Node| {
        for after in 0..20 {
            let filter = FeedFilter::default();
            let page = node.engine.feed_page(shop.application, after, &filter, 4).await.unwrap();
            assert_eq!((page.events.len(), page.more), (4, true));
        }
        node
    });
    let deliveries = cost(&database, async |node: Node| {
        for _ in 0..20 {
            let filter = DeliveryFilter::default();
            let page =
                node.engine.list_deliveries(&shop, &filter, (i64::MAX, i64::MAX), 4).await.unwrap();
            assert!(page.0.len() == 4 && page.1.is_some());
        }
        node
    });
    let each = |rows: i64| (rows - nothing) / 20;
    eprintln!("rows read: {} a page of the feed, {} of deliveries", each(feed), each(deliveries));
    assert!(each(feed) < 100, "{} rows for four events", each(feed));
    assert!(each(deliveries) < 100, "{} rows for four deliveries", each(deliveries));
}

#[test]
fn what_sqlite_asks_in_a_loop_steps_through_indexes() {
    let database = Database::fresh(Backend::Sqlite);
    block_on(async { drop(Node::start(&database).await) });
    let mut connection = database.connect();
    for (sql, index) in [
        (
            "SELECT id FROM live_jobs WHERE phase = 1 AND queue = 'q' \
             ORDER BY priority DESC, ready_sequence LIMIT 9",
            "live_jobs_ready",
        ),
        (
            "SELECT id FROM live_jobs WHERE phase = 0 AND run_at <= 1 ORDER BY run_at, id LIMIT 9",
            "live_jobs_waiting",
        ),
        (
            "SELECT id FROM live_deliveries WHERE phase = 0 AND lane = 1 AND due_at <= 1 \
             ORDER BY due_at, id LIMIT 9",
            "live_deliveries_due",
        ),
        (
            "SELECT d.id FROM live_deliveries d WHERE d.rank IS NOT NULL \
             AND (d.lane, d.track) > (1, 1) AND d.lane <= 9 \
             ORDER BY d.lane, d.track, d.rank LIMIT 1",
            "live_deliveries_ordered",
        ),
    ] {
        let asked = Statement::new(format!("EXPLAIN QUERY PLAN {sql}"));
        let told = plan(&mut connection, asked).join("; ");
        assert!(told.contains(index), "{sql}: {told}");
        assert!(!told.contains("TEMP B-TREE"), "{sql} sorts: {told}");
    }
}
