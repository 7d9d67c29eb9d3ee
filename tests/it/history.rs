//! Cost does not grow with history: the rows that the database itself says it read for the same
//! work, with and without thousands of finished jobs beside it. Counted, not timed.
//!
//! Postgres counts what it reads; SQLite does not tell, so there the plans of the claims are asked.

use ringback::store::{Connection, Statement};

use crate::support::database::{Backend, Database, block_on};
use crate::support::node::{Node, callback, scripted_job};
use crate::support::receiver::Receiver;

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

#[derive(diesel::QueryableByName)]
struct Plan {
    #[diesel(sql_type = diesel::sql_types::Text)]
    detail: String,
}

/// Index entries and rows that Postgres has read in the tables of this database so far.
fn rows_read(connection: &mut Connection) -> i64 {
    // Statistics of other connections arrive when those are idle; this one flushes its own.
    connection.batch("SELECT pg_stat_force_next_flush()").unwrap();
    let sql = "SELECT CAST(COALESCE((SELECT SUM(seq_tup_read) FROM pg_stat_user_tables), 0) \
               + COALESCE((SELECT SUM(idx_tup_read) FROM pg_stat_user_indexes), 0) AS BIGINT) AS number";
    connection.first::<Number>(Statement::new(sql)).unwrap().unwrap().number
}

/// Rows read for sixty jobs with a webhook each, on a node of their own whose connections have
/// told all they did.
fn cost(database: &Database, receiver: &Receiver) -> i64 {
    let mut connection = database.connect();
    let before = rows_read(&mut connection);
    block_on(async {
        let node = Node::start(database).await;
        let (caller, _) = node.application("shop").await;
        for _ in 0..60 {
            let mut job = scripted_job();
            job.callback = Some(callback(&receiver.url("/hook")));
            node.submit(&caller, job).await;
        }
        node.work().await;
        node.send().await;
        node.engine.leave().await.unwrap();
        // Connections tell what they read when they close.
        node.engine.close();
    });
    let told = || {
        let sql = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let others = connection.first::<Number>(Statement::new(sql)).unwrap().unwrap().number;
        (others == 0).then(|| rows_read(&mut connection) - before)
    };
    crate::support::wait::eventually(
        "connections to close",
        std::time::Duration::from_secs(20),
        told,
    )
}

#[test]
fn the_same_work_reads_as_many_rows_beside_a_long_history() {
    let database = Database::fresh(Backend::Postgres);
    let receiver = Receiver::start();
    let warm = cost(&database, &receiver);
    let empty = cost(&database, &receiver);
    let mut connection = database.connect();
    // Fifty copies of all that is finished, as the system itself left it.
    connection
        .batch(
            "CREATE TEMP TABLE copies AS SELECT generate_series(1, 50) AS n; \
             INSERT INTO jobs SELECT j.id + n * 1000000, decode(md5(j.id || '-' || n), 'hex'), \
             application_id, group_id, type, receiver_id, parent_id, created_at, status, updated_at, \
             attempt, lost_nodes, token, last_sequence, progress, started_at, completed_at, result, \
             failure_code, failure_detail, run_at, deleted_at FROM jobs j, copies; \
             INSERT INTO events SELECT e.subject_id + n * 1000000, sequence, public_id, subject_kind, \
             application_id, type, at, data FROM events e, copies; \
             INSERT INTO bodies SELECT b.subject_id + n * 1000000, sequence, format, body \
             FROM bodies b, copies; \
             INSERT INTO deliveries SELECT d.id + n * 1000000, \
             decode(md5('d' || d.id || '-' || n), 'hex'), application_id, receiver_id, \
             subject_id + n * 1000000, sequence, event_id, event_type, status, attempts, token, \
             reason, request_id, created_at, completed_at, endpoint_id, manner FROM deliveries d, copies; \
             INSERT INTO attempts SELECT a.delivery_id + n * 1000000, number, started_at, outcome, \
             finished_at, duration_ms, response_status, response_headers, response_body, error_code, \
             error_detail, address, timings, resolved FROM attempts a, copies; \
             UPDATE counters SET value = value + 1000000000; ANALYZE",
        )
        .expect("a history");
    drop(connection);
    let full = cost(&database, &receiver);
    eprintln!("rows read: {warm} first, {empty} before the history, {full} beside it");
    assert!(empty > 60, "something was counted: {empty}");
    // Reading any one table whole would already cost more.
    assert!(full < empty * 3, "{empty} rows without, {full} with 6,000 finished jobs beside");
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
    ] {
        let plan: Vec<Plan> =
            connection.load(Statement::new(format!("EXPLAIN QUERY PLAN {sql}"))).unwrap();
        let told: String = plan.iter().map(|line| line.detail.clone() + "; ").collect();
        assert!(told.contains(index), "{sql}: {told}");
        assert!(!told.contains("TEMP B-TREE"), "{sql} sorts: {told}");
    }
}
