//! Deliveries that are still owed, as those who claim and record them need them.

use std::collections::HashSet;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};

use super::{Ended, LiveChange, status};
use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::statement::{Cell, Statement};

/// A delivery as its sender needs it.
#[derive(Debug, Clone, QueryableByName)]
pub struct OwedRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// Owner.
    #[diesel(sql_type = BigInt)]
    pub application_id: i64,
    /// To whom.
    #[diesel(sql_type = BigInt)]
    pub receiver_id: i64,
    /// About what.
    #[diesel(sql_type = BigInt)]
    pub subject_id: i64,
    /// Which event.
    #[diesel(sql_type = BigInt)]
    pub sequence: i64,
    /// The `webhook-id`.
    #[diesel(sql_type = Binary)]
    pub event_id: Vec<u8>,
    /// Dotted name.
    #[diesel(sql_type = Text)]
    pub event_type: String,
    /// Ties log lines together.
    #[diesel(sql_type = Text)]
    pub request_id: String,
    /// Lane.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// See [`super::phase`].
    #[diesel(sql_type = BigInt)]
    pub phase: i64,
    /// Lease.
    #[diesel(sql_type = BigInt)]
    pub token: i64,
    /// Attempts so far.
    #[diesel(sql_type = BigInt)]
    pub attempts: i64,
    /// Tries since the schedule (re)started.
    #[diesel(sql_type = BigInt)]
    pub tries: i64,
    /// Code of the last failure.
    #[diesel(sql_type = Nullable<Text>)]
    pub previous_failure: Option<String>,
    /// See [`super::manner`].
    #[diesel(sql_type = BigInt)]
    pub manner: i64,
    /// When it was owed, or asked for again.
    #[diesel(sql_type = BigInt)]
    pub owed_at: i64,
    /// Of the receiver's row; 0 for callbacks.
    #[diesel(sql_type = BigInt)]
    pub receiver_version: i64,
    /// Id outside of the job it is about, if it is about one.
    #[diesel(sql_type = Nullable<Binary>)]
    pub job_id: Option<Vec<u8>>,
    /// The rendering.
    #[diesel(sql_type = Nullable<Text>)]
    pub body: Option<String>,
}

#[derive(QueryableByName)]
pub(super) struct KeyRow {
    #[diesel(sql_type = BigInt)]
    pub(super) id: i64,
}

/// A delivery and since when it is due.
#[derive(Debug, Clone, QueryableByName)]
pub struct DueRow {
    /// Delivery.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// When.
    #[diesel(sql_type = BigInt)]
    pub due_at: i64,
}

/// Due deliveries of a lane in order, held for this transaction: all, or those due from a time on.
pub fn due(
    connection: &mut Connection,
    lane: i64,
    from: Option<i64>,
    now: i64,
    limit: i64,
) -> StoreResult<Vec<DueRow>> {
    let within = if from.is_some() { " AND due_at >= ?" } else { "" };
    let sql = format!(
        "SELECT id, due_at FROM live_deliveries WHERE phase = 0 AND lane = ?{within} \
         AND due_at <= ? ORDER BY due_at, id LIMIT ?{}",
        connection.skip_locked()
    );
    let mut statement = Statement::new(sql).bind(lane);
    if let Some(from) = from {
        statement = statement.bind(from);
    }
    connection.load_of("live_deliveries", statement.bind(now).bind(limit))
}

/// Live deliveries by key with their bodies, held for this transaction. The lasting row and the
/// receiver have to be there; outer joins are how Postgres is told to begin with the keys.
pub fn load_live(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<OwedRow>> {
    connection.load_by_keys(
        "SELECT d.id, d.public_id, d.application_id, d.receiver_id, d.subject_id, d.sequence, \
         d.event_id, d.event_type, d.request_id, l.lane, l.phase, l.token, l.attempts, l.tries, \
         l.previous_failure, l.manner, COALESCE(d.asked_at, d.created_at) AS owed_at, \
         r.version AS receiver_version, \
         j.public_id AS job_id, b.body \
         FROM live_deliveries l LEFT JOIN deliveries d ON d.id = l.id \
         LEFT JOIN receivers r ON r.id = d.receiver_id LEFT JOIN jobs j ON j.id = d.subject_id \
         LEFT JOIN bodies b ON b.subject_id = d.subject_id AND b.sequence = d.sequence \
         AND b.format = r.format WHERE l.id @key @lock",
        "ORDER BY l.id FOR UPDATE OF l",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

macro_rules! live_row {
    () => {
        "SELECT l.id, l.lane, l.receiver_id, l.phase, l.node_id, l.token, l.attempts, l.tries, \
         l.manner, l.track, l.rank FROM live_deliveries l "
    };
}

/// Live deliveries by key of which the lasting row or the receiver is not there, held for this
/// transaction.
pub fn adrift(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<LiveRow>> {
    connection.load_by_keys(
        concat!(
            live_row!(),
            "WHERE l.id @key AND NOT EXISTS (SELECT 1 FROM deliveries d \
             JOIN receivers r ON r.id = d.receiver_id WHERE d.id = l.id) @lock"
        ),
        "ORDER BY l.id FOR UPDATE",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// The state of live deliveries by key without their bodies, held for this transaction.
pub fn hold(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<LiveRow>> {
    connection.load_by_keys_of(
        "live_deliveries",
        concat!(live_row!(), "WHERE l.id @key @lock"),
        "ORDER BY l.id FOR UPDATE",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// The live row alone.
#[derive(Debug, Clone, QueryableByName)]
pub struct LiveRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Lane.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// To whom.
    #[diesel(sql_type = BigInt)]
    pub receiver_id: i64,
    /// See [`super::phase`].
    #[diesel(sql_type = BigInt)]
    pub phase: i64,
    /// Holder of the lease.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub node_id: Option<i64>,
    /// Lease.
    #[diesel(sql_type = BigInt)]
    pub token: i64,
    /// Attempts so far.
    #[diesel(sql_type = BigInt)]
    pub attempts: i64,
    /// Tries since the schedule (re)started.
    #[diesel(sql_type = BigInt)]
    pub tries: i64,
    /// See [`super::manner`].
    #[diesel(sql_type = BigInt)]
    pub manner: i64,
    /// What the order holds within.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub track: Option<i64>,
    /// Place in the order.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub rank: Option<i64>,
}

impl LiveRow {
    /// The row in a phase, due at a time and leased by nobody.
    pub fn moved(&self, phase: i64, due_at: i64, previous_failure: Option<String>) -> LiveChange {
        LiveChange {
            id: self.id,
            phase,
            due_at,
            token: self.token,
            node_id: None,
            attempts: self.attempts,
            tries: self.tries,
            previous_failure,
        }
    }

    /// The end of the row.
    pub fn ended(&self, status: i64, reason: Option<String>, completed_at: i64) -> Ended {
        Ended {
            id: self.id,
            status,
            attempts: self.attempts,
            token: self.token,
            reason,
            completed_at,
        }
    }
}

/// A lane that has something waiting.
#[derive(Debug, Clone, QueryableByName)]
pub struct LaneRow {
    /// Lane.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// When its first delivery is due.
    #[diesel(sql_type = BigInt)]
    pub due_at: i64,
}

/// Lanes with waiting deliveries. Steps from lane to lane in the index, so a long backlog of one
/// lane costs no more than a short one.
pub fn lanes(connection: &mut Connection) -> StoreResult<Vec<LaneRow>> {
    let sql = "WITH RECURSIVE t (lane) AS ( \
               SELECT MIN(lane) FROM live_deliveries WHERE phase = 0 \
               UNION ALL \
               SELECT (SELECT MIN(lane) FROM live_deliveries d WHERE d.phase = 0 AND d.lane > t.lane) \
               FROM t WHERE t.lane IS NOT NULL) \
               SELECT t.lane, (SELECT MIN(due_at) FROM live_deliveries d \
               WHERE d.phase = 0 AND d.lane = t.lane) AS due_at FROM t WHERE t.lane IS NOT NULL";
    connection.load(Statement::new(sql))
}

/// Deliveries whose sender is not alive any more.
pub fn orphaned(connection: &mut Connection, now: i64, limit: i64) -> StoreResult<Vec<LiveRow>> {
    let sql = format!(
        "{} WHERE l.phase = 1 \
         AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = l.node_id AND n.expires_at > ?) \
         LIMIT ?{}",
        live_row!(),
        connection.skip_locked()
    );
    connection.load(Statement::new(sql).bind(now).bind(limit))
}

/// Keys of deliveries that a node has leased.
pub fn leased_by(connection: &mut Connection, node: Key) -> StoreResult<Vec<Key>> {
    let sql = "SELECT id FROM live_deliveries WHERE phase = 1 AND node_id = ?";
    let rows = connection.load::<KeyRow>(Statement::new(sql).bind(node))?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// How many deliveries of a lane are leased.
#[derive(Debug, Clone, QueryableByName)]
pub struct LeasedRow {
    /// Lane.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
}

/// Lanes of which nodes that are alive, other than this one, have leased deliveries.
pub fn leased_elsewhere(
    connection: &mut Connection,
    node: Key,
    now: i64,
) -> StoreResult<Vec<LeasedRow>> {
    let sql = "SELECT l.lane, COUNT(*) AS count FROM live_deliveries l \
               JOIN nodes n ON n.id = l.node_id WHERE l.phase = 1 \
               AND n.id <> ? AND n.expires_at > ? GROUP BY l.lane";
    connection.load(Statement::new(sql).bind(node).bind(now))
}

/// Keys of live deliveries about a subject to a receiver.
pub fn of_subject_and_receiver(
    connection: &mut Connection,
    subject: Key,
    receiver: Key,
) -> StoreResult<Vec<Key>> {
    let sql = "SELECT l.id FROM live_deliveries l WHERE l.id IN \
               (SELECT id FROM deliveries WHERE subject_id = ? AND receiver_id = ? AND status = 0)";
    let rows: Vec<KeyRow> = connection.load(Statement::new(sql).bind(subject).bind(receiver))?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Those of pairs of subject and receiver of which the receiver has said that it wants nothing more,
/// by the reason of a delivery that ended.
pub fn unwanted(
    connection: &mut Connection,
    pairs: &[(Key, Key)],
    reason: &'static str,
) -> StoreResult<HashSet<(Key, Key)>> {
    #[derive(QueryableByName)]
    struct Pair {
        #[diesel(sql_type = BigInt)]
        subject_id: i64,
        #[diesel(sql_type = BigInt)]
        receiver_id: i64,
    }
    let sql = format!(
        "SELECT d.subject_id, d.receiver_id FROM @given JOIN deliveries d \
         ON d.subject_id = given.one AND d.receiver_id = given.two \
         WHERE d.status IN ({}, {}) AND d.reason = '{reason}'",
        status::DELIVERED,
        status::EXHAUSTED
    );
    let rows: Vec<Pair> = connection.load_by_pairs(&sql, pairs)?;
    Ok(rows.into_iter().map(|row| (row.subject_id, row.receiver_id)).collect())
}

/// What is owed, in numbers.
#[derive(Debug, Clone, Copy, Default, QueryableByName)]
pub struct Depth {
    /// All of it.
    #[diesel(sql_type = BigInt)]
    pub owed: i64,
    /// Of that, what waits for its endpoint to be enabled, or behind what holds it up.
    #[diesel(sql_type = BigInt)]
    pub held: i64,
    /// When the first was due that waits for nothing else.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub oldest: Option<i64>,
    /// Lanes on which nothing may be tried now, or only one.
    #[diesel(sql_type = BigInt)]
    pub closed_lanes: i64,
    /// Endpoints that are disabled.
    #[diesel(sql_type = BigInt)]
    pub disabled_endpoints: i64,
}

/// How much is owed. Reads live tables and endpoints only.
pub fn depth(connection: &mut Connection) -> StoreResult<Depth> {
    let sql = "SELECT COUNT(*) AS owed, \
               COALESCE(SUM(CASE WHEN phase IN (2, 5) THEN 1 ELSE 0 END), 0) AS held, \
               MIN(CASE WHEN phase IN (0, 1) AND manner <> 3 THEN due_at END) AS oldest, \
               (SELECT COUNT(*) FROM lanes WHERE reason <> 'open') AS closed_lanes, \
               (SELECT COUNT(*) FROM receivers WHERE kind = 'endpoint' AND deleted_at IS NULL \
               AND disabled_at IS NOT NULL) AS disabled_endpoints FROM live_deliveries";
    Ok(connection.first::<Depth>(Statement::new(sql))?.unwrap_or_default())
}
