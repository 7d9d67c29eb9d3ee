//! What is owed to one endpoint while it is disabled, enabled again, or deleted.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};

use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::statement::Statement;

/// One delivery of a backlog.
#[derive(Debug, Clone, QueryableByName)]
pub struct BacklogRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Lane.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// See [`super::phase`].
    #[diesel(sql_type = BigInt)]
    pub phase: i64,
    /// See [`super::manner`].
    #[diesel(sql_type = BigInt)]
    pub manner: i64,
    /// About what.
    #[diesel(sql_type = BigInt)]
    pub subject_id: i64,
    /// Which event.
    #[diesel(sql_type = BigInt)]
    pub sequence: i64,
    /// What the order holds within; null when it has none.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub track: Option<i64>,
    /// Last lease.
    #[diesel(sql_type = BigInt)]
    pub token: i64,
    /// Attempts made.
    #[diesel(sql_type = BigInt)]
    pub attempts: i64,
    /// When the next try may start.
    #[diesel(sql_type = BigInt)]
    pub due_at: i64,
    /// Code of the last failure.
    #[diesel(sql_type = Nullable<Text>)]
    pub previous_failure: Option<String>,
    /// When it was owed, or asked for again.
    #[diesel(sql_type = BigInt)]
    pub owed_at: i64,
}

/// Deliveries of an endpoint behind a key, held for this transaction. Those that somebody else is
/// just changing are left out.
pub fn backlog(
    connection: &mut Connection,
    receiver: Key,
    after: Key,
    limit: i64,
) -> StoreResult<Vec<BacklogRow>> {
    let lock =
        if connection.skip_locked().is_empty() { "" } else { " FOR UPDATE OF l SKIP LOCKED" };
    let sql = format!(
        "SELECT l.id, l.lane, l.phase, l.manner, l.track, l.token, l.attempts, l.due_at, \
         l.previous_failure, d.subject_id, d.sequence, \
         COALESCE(d.asked_at, d.created_at) AS owed_at \
         FROM live_deliveries l JOIN deliveries d ON d.id = l.id \
         WHERE l.receiver_id = ? AND l.id > ? ORDER BY l.id LIMIT ?{lock}"
    );
    connection.load(Statement::new(sql).bind(receiver).bind(after).bind(limit))
}

#[derive(QueryableByName)]
struct ReceiverKey {
    #[diesel(sql_type = BigInt)]
    receiver_id: i64,
}

/// Endpoints that are enabled or deleted and still have held deliveries, found by stepping from
/// endpoint to endpoint: an event may have been appended beside the change.
pub fn wrongly_held(connection: &mut Connection) -> StoreResult<Vec<Key>> {
    let sql = "WITH RECURSIVE t (receiver_id) AS ( \
               SELECT MIN(receiver_id) FROM live_deliveries WHERE phase = 2 \
               UNION ALL SELECT (SELECT MIN(receiver_id) FROM live_deliveries d \
               WHERE d.phase = 2 AND d.receiver_id > t.receiver_id) \
               FROM t WHERE t.receiver_id IS NOT NULL) \
               SELECT t.receiver_id FROM t JOIN receivers r ON r.id = t.receiver_id \
               WHERE r.disabled_at IS NULL OR r.deleted_at IS NOT NULL";
    let rows = connection.load::<ReceiverKey>(Statement::new(sql))?;
    Ok(rows.into_iter().map(|row| row.receiver_id).collect())
}

/// How many deliveries of an endpoint stand in a phase.
#[derive(Debug, Clone, QueryableByName)]
pub struct PhaseCount {
    /// See [`super::phase`].
    #[diesel(sql_type = BigInt)]
    pub phase: i64,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
    /// When the first was due, pings apart.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub oldest: Option<i64>,
}

/// What is owed to an endpoint, by phase. Reads its backlog, which is live work only.
pub fn phases(connection: &mut Connection, receiver: Key) -> StoreResult<Vec<PhaseCount>> {
    let sql = "SELECT phase, COUNT(*) AS count, \
               MIN(CASE WHEN manner <> 3 THEN due_at END) AS oldest FROM live_deliveries \
               WHERE receiver_id = ? GROUP BY phase";
    connection.load(Statement::new(sql).bind(receiver))
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// The first half of the numbers of locks on replays to an endpoint; the other is the low bits of
/// its key.
const REPLAYS: i64 = 0x7265_706c;

/// Keeps other replays to an endpoint out until the end of the transaction, unless one is at it;
/// whether it did. The endpoint's own row would not do: whoever records a try holds deliveries
/// first and that row last.
pub fn hold_replays(connection: &mut Connection, receiver: Key) -> StoreResult<bool> {
    connection.try_hold(REPLAYS, receiver)
}

/// How many deliveries of replays to an endpoint nobody has tried yet, counted up to `most`.
pub fn replayed(connection: &mut Connection, receiver: Key, most: i64) -> StoreResult<i64> {
    let sql = "SELECT COUNT(*) AS count FROM (SELECT 1 AS one FROM live_deliveries \
               WHERE manner = 2 AND receiver_id = ? AND tries = 0 LIMIT ?) AS found";
    let row = connection.first::<CountRow>(Statement::new(sql).bind(receiver).bind(most))?;
    Ok(row.map_or(0, |row| row.count))
}
