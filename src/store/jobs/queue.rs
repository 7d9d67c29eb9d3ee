//! What is asked of all live jobs: which are ready, due, too late, or of a node that is gone.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};

use super::{KeyRow, phase};
use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::rows::{Column, Kind, Rows};
use crate::store::statement::{Cell, Statement};

fn keys(connection: &mut Connection, statement: Statement) -> StoreResult<Vec<Key>> {
    Ok(connection.load::<KeyRow>(statement)?.into_iter().map(|row| row.id).collect())
}

/// A ready job and its place in its queue.
#[derive(Debug, Clone, QueryableByName)]
pub struct ReadyRow {
    /// Job.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Higher ones come first.
    #[diesel(sql_type = BigInt)]
    pub priority: i64,
    /// Among those of a priority.
    #[diesel(sql_type = BigInt)]
    pub ready_sequence: i64,
}

/// Ready jobs of a queue in claim order, held for this transaction: all, or those of one priority
/// from a place on.
pub fn ready(
    connection: &mut Connection,
    queue: &str,
    from: Option<(i64, i64)>,
    limit: i64,
) -> StoreResult<Vec<ReadyRow>> {
    let within = if from.is_some() { " AND priority = ? AND ready_sequence >= ?" } else { "" };
    let sql = format!(
        "SELECT id, priority, ready_sequence FROM live_jobs WHERE phase = 1 AND queue = ?{within} \
         ORDER BY priority DESC, ready_sequence LIMIT ?{}",
        connection.skip_locked()
    );
    let mut statement = Statement::new(sql).bind(queue);
    if let Some((priority, place)) = from {
        statement = statement.bind(priority).bind(place);
    }
    connection.load_of("live_jobs", statement.bind(limit))
}

/// Waiting jobs whose time has come, held for this transaction.
pub fn due(connection: &mut Connection, now: i64, limit: i64) -> StoreResult<Vec<Key>> {
    let sql = format!(
        "SELECT id FROM live_jobs WHERE phase = 0 AND run_at <= ? ORDER BY run_at, id LIMIT ?{}",
        connection.skip_locked()
    );
    keys(connection, Statement::new(sql).bind(now).bind(limit))
}

/// Makes waiting jobs ready; `(key, ready_sequence)` each.
pub fn make_ready(connection: &mut Connection, jobs: &[(Key, i64)]) -> StoreResult<()> {
    const COLUMNS: &[Column] =
        &[("id", Kind::Int), ("phase", Kind::Int), ("ready_sequence", Kind::Int)];
    let mut rows = Rows::keyed("live_jobs", 1, COLUMNS);
    for (key, sequence) in jobs {
        rows.push([(*key).into(), phase::READY.into(), (*sequence).into()]);
    }
    connection.update(rows)
}

/// When the next waiting job is due.
pub fn next_due(connection: &mut Connection) -> StoreResult<Option<i64>> {
    let sql = "SELECT run_at AS id FROM live_jobs WHERE phase = 0 ORDER BY run_at, id LIMIT 1";
    Ok(keys(connection, Statement::new(sql))?.first().copied())
}

/// Jobs that were not started before their deadline.
pub fn expired(connection: &mut Connection, now: i64, limit: i64) -> StoreResult<Vec<Key>> {
    let sql = "SELECT id FROM live_jobs WHERE expires_at IS NOT NULL AND phase < 2 \
               AND expires_at <= ? ORDER BY expires_at, id LIMIT ?";
    keys(connection, Statement::new(sql).bind(now).bind(limit))
}

/// A lease as the sweeps see it.
#[derive(Debug, Clone, QueryableByName)]
pub struct LeaseRow {
    /// Job.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Lease.
    #[diesel(sql_type = BigInt)]
    pub token: i64,
    /// Number of the status.
    #[diesel(sql_type = BigInt)]
    pub status: i64,
}

/// Leases of nodes that are not alive any more.
pub fn orphaned(connection: &mut Connection, now: i64, limit: i64) -> StoreResult<Vec<LeaseRow>> {
    let sql = "SELECT l.id, l.token, l.status FROM live_jobs l WHERE l.phase = 2 \
               AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = l.node_id AND n.expires_at > ?) \
               LIMIT ?";
    connection.load(Statement::new(sql).bind(now).bind(limit))
}

/// Leases of one node.
pub fn leased_by(connection: &mut Connection, node: Key) -> StoreResult<Vec<LeaseRow>> {
    let sql = "SELECT id, token, status FROM live_jobs WHERE phase = 2 AND node_id = ?";
    connection.load(Statement::new(sql).bind(node))
}

/// Leases of one node, of these jobs.
pub fn leases_of(
    connection: &mut Connection,
    node: Key,
    keys: &[Key],
) -> StoreResult<Vec<LeaseRow>> {
    let sql = "SELECT id, token, status FROM live_jobs WHERE phase = 2 AND node_id = ? AND id @key";
    let keys = keys.iter().map(|key| Cell::from(*key)).collect();
    connection.load_by_keys_within(sql, "", vec![Cell::from(node)], keys)
}

#[derive(QueryableByName)]
struct NameRow {
    #[diesel(sql_type = Nullable<Text>)]
    name: Option<String>,
}

/// Queues that have ready jobs. Steps from name to name in the index instead of reading it all.
pub fn ready_queues(connection: &mut Connection) -> StoreResult<Vec<String>> {
    let sql = "WITH RECURSIVE q (name) AS ( \
               SELECT MIN(queue) FROM live_jobs WHERE phase = 1 \
               UNION ALL \
               SELECT (SELECT MIN(queue) FROM live_jobs WHERE phase = 1 AND queue > q.name) \
               FROM q WHERE q.name IS NOT NULL) \
               SELECT name FROM q WHERE name IS NOT NULL";
    let rows = connection.load::<NameRow>(Statement::new(sql))?;
    Ok(rows.into_iter().filter_map(|row| row.name).collect())
}

/// Depth of a queue, for metrics.
#[derive(Debug, Clone, QueryableByName)]
pub struct QueueDepth {
    /// Name.
    #[diesel(sql_type = Text)]
    pub queue: String,
    /// See [`phase`].
    #[diesel(sql_type = BigInt)]
    pub phase: i64,
    /// Jobs.
    #[diesel(sql_type = BigInt)]
    pub jobs: i64,
    /// Oldest run time.
    #[diesel(sql_type = BigInt)]
    pub oldest: i64,
}

/// Live jobs by queue and phase. Reads the live table, never history.
pub fn depths(connection: &mut Connection) -> StoreResult<Vec<QueueDepth>> {
    let sql = "SELECT queue, phase, COUNT(*) AS jobs, MIN(run_at) AS oldest \
               FROM live_jobs GROUP BY queue, phase";
    connection.load(Statement::new(sql))
}
