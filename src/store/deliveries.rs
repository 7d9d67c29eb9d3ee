//! Deliveries: the lasting row, the live one while it is owed, and the attempts.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::rows::{Column, Kind, OnConflict, Rows};
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// What became of a delivery.
pub mod status {
    /// Still owed.
    pub const LIVE: i64 = 0;
    /// Received.
    pub const DELIVERED: i64 = 1;
    /// All tries used up.
    pub const EXHAUSTED: i64 = 2;
    /// The address may not be spoken to.
    pub const REFUSED: i64 = 3;
    /// Given up for a reason of its receiver or subject.
    pub const CANCELLED: i64 = 4;
}

/// A delivery on its way in: born waiting and due at once.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Key.
    pub id: Key,
    /// Id outside.
    pub public_id: uuid::Uuid,
    /// Owner.
    pub application_id: Key,
    /// To whom.
    pub receiver_id: Key,
    /// About what.
    pub subject_id: Key,
    /// Which event.
    pub sequence: i64,
    /// The event's id outside: the `webhook-id`.
    pub event_id: uuid::Uuid,
    /// Dotted name.
    pub event_type: &'static str,
    /// Where limits and order apply.
    pub lane: i64,
    /// Ties log lines together.
    pub request_id: String,
    /// When.
    pub created_at: i64,
    /// When the first try may start.
    pub due_at: i64,
}

const NEW_DELIVERY: &[Column] = &[
    ("id", Kind::Int),
    ("public_id", Kind::Bytes),
    ("application_id", Kind::Int),
    ("receiver_id", Kind::Int),
    ("subject_id", Kind::Int),
    ("sequence", Kind::Int),
    ("event_id", Kind::Bytes),
    ("event_type", Kind::Text),
    ("status", Kind::Int),
    ("attempts", Kind::Int),
    ("token", Kind::Int),
    ("request_id", Kind::Text),
    ("created_at", Kind::Int),
];

const NEW_LIVE: &[Column] = &[
    ("id", Kind::Int),
    ("lane", Kind::Int),
    ("receiver_id", Kind::Int),
    ("phase", Kind::Int),
    ("due_at", Kind::Int),
    ("token", Kind::Int),
    ("attempts", Kind::Int),
    ("tries", Kind::Int),
];

/// Inserts owed deliveries.
pub fn insert(connection: &mut Connection, deliveries: &[NewDelivery]) -> StoreResult<()> {
    let mut lasting = Rows::new("deliveries", NEW_DELIVERY);
    let mut live = Rows::new("live_deliveries", NEW_LIVE);
    for delivery in deliveries {
        lasting.push([
            delivery.id.into(),
            delivery.public_id.into(),
            delivery.application_id.into(),
            delivery.receiver_id.into(),
            delivery.subject_id.into(),
            delivery.sequence.into(),
            delivery.event_id.into(),
            delivery.event_type.into(),
            status::LIVE.into(),
            0i64.into(),
            0i64.into(),
            delivery.request_id.as_str().into(),
            delivery.created_at.into(),
        ]);
        live.push([
            delivery.id.into(),
            delivery.lane.into(),
            delivery.receiver_id.into(),
            0i64.into(),
            delivery.due_at.into(),
            0i64.into(),
            0i64.into(),
            0i64.into(),
        ]);
    }
    connection.insert(&lasting, OnConflict::Fail)?;
    connection.insert(&live, OnConflict::Fail)?;
    Ok(())
}

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
    /// 0 waiting, 1 leased.
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
    /// Id outside of the job it is about, if it is about one.
    #[diesel(sql_type = Nullable<Binary>)]
    pub job_id: Option<Vec<u8>>,
    /// The rendering.
    #[diesel(sql_type = Nullable<Text>)]
    pub body: Option<String>,
}

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// Due deliveries of a lane in order, held for this transaction.
pub fn due(connection: &mut Connection, lane: i64, now: i64, limit: i64) -> StoreResult<Vec<Key>> {
    let sql = format!(
        "SELECT id FROM live_deliveries WHERE phase = 0 AND lane = ? AND due_at <= ? \
         ORDER BY due_at, id LIMIT ?{}",
        connection.skip_locked()
    );
    let rows = connection.load::<KeyRow>(Statement::new(sql).bind(lane).bind(now).bind(limit))?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Live deliveries by key with their bodies, held for this transaction.
pub fn load_live(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<OwedRow>> {
    connection.load_by_keys(
        "SELECT d.id, d.public_id, d.application_id, d.receiver_id, d.subject_id, d.sequence, \
         d.event_id, d.event_type, d.request_id, l.lane, l.phase, l.token, l.attempts, l.tries, \
         l.previous_failure, j.public_id AS job_id, b.body \
         FROM live_deliveries l JOIN deliveries d ON d.id = l.id \
         JOIN receivers r ON r.id = d.receiver_id LEFT JOIN jobs j ON j.id = d.subject_id \
         LEFT JOIN bodies b ON b.subject_id = d.subject_id AND b.sequence = d.sequence \
         AND b.format = r.format WHERE l.id @key @lock",
        "ORDER BY l.id FOR UPDATE OF l",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// The state of live deliveries by key without their bodies, held for this transaction.
pub fn hold(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<LiveRow>> {
    connection.load_by_keys(
        "SELECT l.id, l.lane, l.receiver_id, l.phase, l.token, l.attempts, l.tries \
         FROM live_deliveries l WHERE l.id @key @lock",
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
    /// 0 waiting, 1 leased.
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
}

/// A changed live delivery.
#[derive(Debug, Clone)]
pub struct LiveChange {
    /// Key.
    pub id: Key,
    /// 0 waiting, 1 leased.
    pub phase: i64,
    /// When the next try may start.
    pub due_at: i64,
    /// Lease.
    pub token: i64,
    /// Holder of the lease.
    pub node_id: Option<Key>,
    /// Attempts so far.
    pub attempts: i64,
    /// Tries since the schedule (re)started.
    pub tries: i64,
    /// Code of the last failure.
    pub previous_failure: Option<String>,
}

const LIVE_CHANGE: &[Column] = &[
    ("id", Kind::Int),
    ("phase", Kind::Int),
    ("due_at", Kind::Int),
    ("token", Kind::Int),
    ("node_id", Kind::Int),
    ("attempts", Kind::Int),
    ("tries", Kind::Int),
    ("previous_failure", Kind::Text),
];

/// Writes changed live rows, held in this transaction.
pub fn update_live(connection: &mut Connection, changes: &[LiveChange]) -> StoreResult<usize> {
    let mut rows = Rows::keyed("live_deliveries", 1, LIVE_CHANGE);
    for change in changes {
        rows.push([
            change.id.into(),
            change.phase.into(),
            change.due_at.into(),
            change.token.into(),
            change.node_id.into(),
            change.attempts.into(),
            change.tries.into(),
            change.previous_failure.clone().into(),
        ]);
    }
    connection.update(&rows)
}

/// The end of a delivery.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Key.
    pub id: Key,
    /// See [`status`].
    pub status: i64,
    /// Attempts made.
    pub attempts: i64,
    /// Last lease.
    pub token: i64,
    /// Why, unless delivered.
    pub reason: Option<String>,
    /// When.
    pub completed_at: i64,
}

const ENDED: &[Column] = &[
    ("id", Kind::Int),
    ("status", Kind::Int),
    ("attempts", Kind::Int),
    ("token", Kind::Int),
    ("reason", Kind::Text),
    ("completed_at", Kind::Int),
];

/// Ends deliveries: their live rows go, the lasting ones tell how it ended.
pub fn end(connection: &mut Connection, ended: &[Ended]) -> StoreResult<()> {
    let mut live = Rows::keyed("live_deliveries", 1, &[("id", Kind::Int)]);
    let mut lasting = Rows::keyed("deliveries", 1, ENDED);
    for delivery in ended {
        live.push([delivery.id.into()]);
        lasting.push([
            delivery.id.into(),
            delivery.status.into(),
            delivery.attempts.into(),
            delivery.token.into(),
            delivery.reason.clone().into(),
            delivery.completed_at.into(),
        ]);
    }
    connection.delete(&live)?;
    connection.update(&lasting)?;
    Ok(())
}

/// Attempts that begin: `(delivery, number, when)`.
pub fn begin_attempts(connection: &mut Connection, begun: &[(Key, i64, i64)]) -> StoreResult<()> {
    const COLUMNS: &[Column] = &[
        ("delivery_id", Kind::Int),
        ("number", Kind::Int),
        ("started_at", Kind::Int),
        ("outcome", Kind::Text),
    ];
    let mut rows = Rows::new("attempts", COLUMNS);
    for (delivery, number, at) in begun {
        rows.push([(*delivery).into(), (*number).into(), (*at).into(), "started".into()]);
    }
    connection.insert(&rows, OnConflict::Fail)?;
    Ok(())
}

/// What an attempt came to.
#[derive(Debug, Clone, Default)]
pub struct ClosedAttempt {
    /// Delivery.
    pub delivery_id: Key,
    /// 1, 2, 3 …
    pub number: i64,
    /// delivered, failed, refused, unknown.
    pub outcome: &'static str,
    /// When.
    pub finished_at: i64,
    /// How long.
    pub duration_ms: Option<i64>,
    /// HTTP status, when there was an answer.
    pub response_status: Option<i64>,
    /// JSON array of pairs.
    pub response_headers: Option<String>,
    /// The first bytes.
    pub response_body: Option<String>,
    /// Stable code.
    pub error_code: Option<String>,
    /// For people.
    pub error_detail: Option<String>,
    /// Connected to.
    pub address: Option<String>,
    /// JSON object of milliseconds.
    pub timings: Option<String>,
}

const CLOSED: &[Column] = &[
    ("delivery_id", Kind::Int),
    ("number", Kind::Int),
    ("outcome", Kind::Text),
    ("finished_at", Kind::Int),
    ("duration_ms", Kind::Int),
    ("response_status", Kind::Int),
    ("response_headers", Kind::Text),
    ("response_body", Kind::Text),
    ("error_code", Kind::Text),
    ("error_detail", Kind::Text),
    ("address", Kind::Text),
    ("timings", Kind::Text),
];

/// Closes attempts.
pub fn close_attempts(connection: &mut Connection, closed: &[ClosedAttempt]) -> StoreResult<()> {
    let mut rows = Rows::keyed("attempts", 2, CLOSED);
    for attempt in closed {
        rows.push([
            attempt.delivery_id.into(),
            attempt.number.into(),
            attempt.outcome.into(),
            attempt.finished_at.into(),
            attempt.duration_ms.into(),
            attempt.response_status.into(),
            attempt.response_headers.clone().into(),
            attempt.response_body.clone().into(),
            attempt.error_code.clone().into(),
            attempt.error_detail.clone().into(),
            attempt.address.clone().into(),
            attempt.timings.clone().into(),
        ]);
    }
    connection.update(&rows)?;
    Ok(())
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
        "SELECT l.id, l.lane, l.receiver_id, l.phase, l.token, l.attempts, l.tries \
         FROM live_deliveries l WHERE l.phase = 1 \
         AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.id = l.node_id AND n.expires_at > ?) \
         LIMIT ?{}",
        connection.skip_locked()
    );
    connection.load(Statement::new(sql).bind(now).bind(limit))
}

/// Deliveries that a node has leased, held for this transaction.
pub fn hold_leased(connection: &mut Connection, node: Key) -> StoreResult<Vec<LiveRow>> {
    let sql = format!(
        "SELECT l.id, l.lane, l.receiver_id, l.phase, l.token, l.attempts, l.tries \
         FROM live_deliveries l WHERE l.phase = 1 AND l.node_id = ? ORDER BY l.id{}",
        connection.for_update()
    );
    connection.load(Statement::new(sql).bind(node))
}

/// Keys of deliveries that a node has leased.
pub fn leased_by(connection: &mut Connection, node: Key) -> StoreResult<Vec<Key>> {
    let sql = "SELECT id FROM live_deliveries WHERE phase = 1 AND node_id = ?";
    let rows = connection.load::<KeyRow>(Statement::new(sql).bind(node))?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Live deliveries about a subject to a receiver, held for this transaction.
pub fn of_subject_and_receiver(
    connection: &mut Connection,
    subject: Key,
    receiver: Key,
) -> StoreResult<Vec<LiveRow>> {
    let sql = format!(
        "SELECT l.id, l.lane, l.receiver_id, l.phase, l.token, l.attempts, l.tries \
         FROM live_deliveries l WHERE l.id IN \
         (SELECT id FROM deliveries WHERE subject_id = ? AND receiver_id = ? AND status = 0) \
         ORDER BY l.id{}",
        connection.for_update()
    );
    connection.load(Statement::new(sql).bind(subject).bind(receiver))
}

/// Whether a receiver has said that it wants nothing more about a subject.
pub fn is_unwanted(
    connection: &mut Connection,
    subject: Key,
    receiver: Key,
    reason: &str,
) -> StoreResult<bool> {
    let sql = "SELECT id FROM deliveries WHERE subject_id = ? AND receiver_id = ? AND status = ? \
               AND reason = ? LIMIT 1";
    let statement = Statement::new(sql).bind(subject).bind(receiver);
    let row = connection.first::<KeyRow>(statement.bind(status::EXHAUSTED).bind(reason))?;
    Ok(row.is_some())
}

/// A delivery as it is shown.
#[derive(Debug, Clone, QueryableByName)]
pub struct DeliveryRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// Owner.
    #[diesel(sql_type = BigInt)]
    pub application_id: i64,
    /// The `webhook-id`.
    #[diesel(sql_type = Binary)]
    pub event_id: Vec<u8>,
    /// Dotted name.
    #[diesel(sql_type = Text)]
    pub event_type: String,
    /// Which event.
    #[diesel(sql_type = BigInt)]
    pub sequence: i64,
    /// See [`status`].
    #[diesel(sql_type = BigInt)]
    pub status: i64,
    /// 0 waiting, 1 leased; absent when not live.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub phase: Option<i64>,
    /// Attempts so far.
    #[diesel(sql_type = BigInt)]
    pub attempts: i64,
    /// Next try.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub due_at: Option<i64>,
    /// Why it ended, unless delivered.
    #[diesel(sql_type = Nullable<Text>)]
    pub reason: Option<String>,
    /// When it was owed.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
    /// When it ended.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub completed_at: Option<i64>,
    /// What representations show of the receiver.
    #[diesel(sql_type = Text)]
    pub receiver: String,
    /// About which job.
    #[diesel(sql_type = Nullable<Binary>)]
    pub job_id: Option<Vec<u8>>,
    /// About which group.
    #[diesel(sql_type = Nullable<Binary>)]
    pub group_id: Option<Vec<u8>>,
}

macro_rules! shown {
    () => {
        "SELECT d.id, d.public_id, d.application_id, d.event_id, d.event_type, d.sequence, \
         d.status, l.phase, COALESCE(l.attempts, d.attempts) AS attempts, \
         CASE WHEN l.phase = 0 THEN l.due_at END AS due_at, d.reason, d.created_at, \
         d.completed_at, r.shown AS receiver, j.public_id AS job_id, g.public_id AS group_id \
         FROM deliveries d JOIN receivers r ON r.id = d.receiver_id \
         LEFT JOIN live_deliveries l ON l.id = d.id \
         LEFT JOIN jobs j ON j.id = d.subject_id LEFT JOIN groups g ON g.id = d.subject_id "
    };
}

/// One delivery by its id outside.
pub fn find(connection: &mut Connection, id: uuid::Uuid) -> StoreResult<Option<DeliveryRow>> {
    connection.first(Statement::new(concat!(shown!(), "WHERE d.public_id = ?")).bind(id))
}

/// Deliveries of an application, newest first, older than that of a key (`i64::MAX` for all).
pub fn of_application(
    connection: &mut Connection,
    application: Key,
    before: Key,
    limit: i64,
) -> StoreResult<Vec<DeliveryRow>> {
    older(connection, concat!(shown!(), "WHERE d.application_id = ?"), application, before, limit)
}

/// Deliveries about a subject, newest first, older than that of a key (`i64::MAX` for all).
pub fn of_subject(
    connection: &mut Connection,
    subject: Key,
    before: Key,
    limit: i64,
) -> StoreResult<Vec<DeliveryRow>> {
    older(connection, concat!(shown!(), "WHERE d.subject_id = ?"), subject, before, limit)
}

#[derive(QueryableByName)]
struct DateRow {
    #[diesel(sql_type = BigInt)]
    created_at: i64,
}

/// Keys alone tell no order, since each writer draws its own block of them. What is older than a
/// delivery that has been purged since is about to be purged as well: the list ends there.
fn older(
    connection: &mut Connection,
    chosen: &str,
    of: Key,
    before: Key,
    limit: i64,
) -> StoreResult<Vec<DeliveryRow>> {
    let date = if before == Key::MAX {
        Key::MAX
    } else {
        let sql = "SELECT created_at FROM deliveries WHERE id = ?";
        let found = connection.load::<DateRow>(Statement::new(sql).bind(before))?;
        let Some(row) = found.first() else { return Ok(Vec::new()) };
        row.created_at
    };
    let sql = format!(
        "{chosen} AND (d.created_at, d.id) < (?, ?) ORDER BY d.created_at DESC, d.id DESC LIMIT ?"
    );
    connection.load(Statement::new(sql).bind(of).bind(date).bind(before).bind(limit))
}

/// A stored attempt.
#[derive(Debug, Clone, QueryableByName)]
pub struct AttemptRow {
    /// 1, 2, 3 …
    #[diesel(sql_type = BigInt)]
    pub number: i64,
    /// When it began.
    #[diesel(sql_type = BigInt)]
    pub started_at: i64,
    /// started, delivered, failed, refused, unknown.
    #[diesel(sql_type = Text)]
    pub outcome: String,
    /// When it ended.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub finished_at: Option<i64>,
    /// How long.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub duration_ms: Option<i64>,
    /// HTTP status.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub response_status: Option<i64>,
    /// JSON array of pairs.
    #[diesel(sql_type = Nullable<Text>)]
    pub response_headers: Option<String>,
    /// The first bytes.
    #[diesel(sql_type = Nullable<Text>)]
    pub response_body: Option<String>,
    /// Stable code.
    #[diesel(sql_type = Nullable<Text>)]
    pub error_code: Option<String>,
    /// For people.
    #[diesel(sql_type = Nullable<Text>)]
    pub error_detail: Option<String>,
    /// Connected to.
    #[diesel(sql_type = Nullable<Text>)]
    pub address: Option<String>,
    /// JSON object of milliseconds.
    #[diesel(sql_type = Nullable<Text>)]
    pub timings: Option<String>,
}

/// Attempts of a delivery, in order.
pub fn attempts(connection: &mut Connection, delivery: Key) -> StoreResult<Vec<AttemptRow>> {
    let sql = "SELECT number, started_at, outcome, finished_at, duration_ms, response_status, \
               response_headers, response_body, error_code, error_detail, address, timings \
               FROM attempts WHERE delivery_id = ? ORDER BY number LIMIT 1000";
    connection.load(Statement::new(sql).bind(delivery))
}

/// Puts an ended delivery back among the live ones, to start its schedule again.
pub fn revive(
    connection: &mut Connection,
    delivery: Key,
    route: &RouteRow,
    due_at: i64,
) -> StoreResult<()> {
    let mut live = Rows::new("live_deliveries", NEW_LIVE);
    live.push([
        delivery.into(),
        route.lane.into(),
        route.receiver_id.into(),
        0i64.into(),
        due_at.into(),
        route.token.into(),
        route.attempts.into(),
        0i64.into(),
    ]);
    connection.insert(&live, OnConflict::Fail)?;
    let sql = "UPDATE deliveries SET status = 0, reason = NULL, completed_at = NULL WHERE id = ?";
    connection.execute(Statement::new(sql).bind(delivery))?;
    Ok(())
}

/// To whom a delivery goes and on which lane, held for this transaction.
#[derive(Debug, Clone, QueryableByName)]
pub struct RouteRow {
    /// To whom.
    #[diesel(sql_type = BigInt)]
    pub receiver_id: i64,
    /// Lane.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// See [`status`].
    #[diesel(sql_type = BigInt)]
    pub status: i64,
    /// Attempts so far.
    #[diesel(sql_type = BigInt)]
    pub attempts: i64,
    /// Last lease.
    #[diesel(sql_type = BigInt)]
    pub token: i64,
}

/// Holds the lasting row of a delivery and tells its route.
pub fn hold_lasting(connection: &mut Connection, delivery: Key) -> StoreResult<Option<RouteRow>> {
    let lock = if connection.for_update().is_empty() { "" } else { " FOR UPDATE OF d" };
    let sql = format!(
        "SELECT d.receiver_id, r.lane, d.status, d.attempts, d.token FROM deliveries d JOIN receivers r ON r.id = d.receiver_id \
         WHERE d.id = ?{lock}"
    );
    connection.first(Statement::new(sql).bind(delivery))
}

#[derive(QueryableByName)]
struct DepthRow {
    #[diesel(sql_type = BigInt)]
    waiting: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    oldest: Option<i64>,
}

/// How many deliveries are owed and when the oldest was due. Reads the live table only.
pub fn depth(connection: &mut Connection) -> StoreResult<(i64, Option<i64>)> {
    let sql = "SELECT COUNT(*) AS waiting, MIN(due_at) AS oldest FROM live_deliveries";
    let row = connection.first::<DepthRow>(Statement::new(sql))?;
    Ok(row.map_or((0, None), |row| (row.waiting, row.oldest)))
}
