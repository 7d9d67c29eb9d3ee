//! What a page of a replay asks of its window costs as much as the window, whatever else waits.

use ringback::store::{Connection, Statement, deliveries};

use crate::support::database::{Backend, Database, block_on, number_on, plan};
use crate::support::node::Node;

const TRIED: i64 = 5_000;

/// Deliveries of replays that wait for another try, and three that wait for the first.
fn migrated(backend: Backend) -> (Database, Connection) {
    let database = Database::fresh(backend);
    block_on(async { drop(Node::start(&database).await) });
    let mut connection = database.connect();
    let sql = format!(
        "INSERT INTO live_deliveries \
         (id, lane, receiver_id, phase, due_at, token, attempts, tries, manner) \
         WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {TRIED}) \
         SELECT n, 7, 7, 0, 0, 0, 1, CASE WHEN n > {} THEN 0 ELSE 1 END, 2 FROM t",
        TRIED - 3
    );
    connection.batch(&sql).expect("SQL");
    (database, connection)
}

#[test]
fn postgres_reads_what_nobody_has_tried() {
    let (_database, mut connection) = migrated(Backend::Postgres);
    connection.batch("ANALYZE live_deliveries").expect("SQL");
    let mut read = || {
        connection.batch("SELECT pg_stat_force_next_flush()").expect("SQL");
        let sql = "SELECT CAST(SUM(idx_tup_read) AS BIGINT) AS number FROM pg_stat_user_indexes \
                   WHERE relname = 'live_deliveries'";
        let before = number_on(&mut connection, sql);
        (before, deliveries::replayed(&mut connection, 7, 200).expect("SQL"))
    };
    let (before, first) = read();
    let (after, second) = read();
    assert_eq!((first, second), (3, 3));
    assert!(after - before < 100, "{} index entries for three", after - before);
}

#[test]
fn sqlite_steps_through_what_nobody_has_tried() {
    let (_database, mut connection) = migrated(Backend::Sqlite);
    assert_eq!(deliveries::replayed(&mut connection, 7, 200).expect("SQL"), 3);
    let sql = "EXPLAIN QUERY PLAN SELECT 1 AS one FROM live_deliveries \
               WHERE manner = 2 AND receiver_id = ? AND tries = 0 LIMIT ?";
    let plan = plan(&mut connection, Statement::new(sql).bind(7i64).bind(200i64));
    assert!(plan.iter().any(|step| step.contains("live_deliveries_replayed")), "{plan:?}");
    let sql = "SELECT COUNT(*) AS number FROM sqlite_master \
               WHERE name = 'live_deliveries_replayed' AND sql LIKE '%tries = 0%'";
    assert_eq!(number_on(&mut connection, sql), 1);
}
