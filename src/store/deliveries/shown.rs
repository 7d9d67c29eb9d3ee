//! Deliveries as the API shows them.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};

use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::statement::{Cell, Statement};

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
    /// See [`super::status`].
    #[diesel(sql_type = BigInt)]
    pub status: i64,
    /// See [`super::manner`].
    #[diesel(sql_type = BigInt)]
    pub manner: i64,
    /// See [`super::phase`]; absent when not live.
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
    /// How the last try went, of one that holds up its endpoint.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_outcome: Option<String>,
    /// When it was owed.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
    /// When it ended.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub completed_at: Option<i64>,
    /// Id outside of the endpoint it is for, if it is for one.
    #[diesel(sql_type = Nullable<Binary>)]
    pub endpoint_id: Option<Vec<u8>>,
    /// The delivery that holds up its endpoint.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub blocked_by: Option<i64>,
    /// Since when its endpoint is disabled.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub disabled_at: Option<i64>,
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
         d.status, d.manner, l.phase, COALESCE(l.attempts, d.attempts) AS attempts, \
         CASE WHEN l.phase = 0 THEN l.due_at END AS due_at, \
         CASE WHEN l.phase = 5 THEN l.previous_failure ELSE d.reason END AS reason, \
         CASE WHEN l.phase = 5 THEN (SELECT a.outcome FROM attempts a \
         WHERE a.delivery_id = d.id AND a.number = l.attempts) END AS last_outcome, d.created_at, \
         d.completed_at, CASE WHEN d.endpoint_id IS NOT NULL THEN r.public_id END AS endpoint_id, \
         r.blocked_by, r.disabled_at, r.shown AS receiver, j.public_id AS job_id, g.public_id AS group_id \
         FROM deliveries d JOIN receivers r ON r.id = d.receiver_id \
         LEFT JOIN live_deliveries l ON l.id = d.id \
         LEFT JOIN jobs j ON j.id = d.subject_id LEFT JOIN groups g ON g.id = d.subject_id "
    };
}

/// One delivery by its id outside.
pub fn find(connection: &mut Connection, id: uuid::Uuid) -> StoreResult<Option<DeliveryRow>> {
    connection.first(Statement::new(concat!(shown!(), "WHERE d.public_id = ?")).bind(id))
}

/// Deliveries of an application, newest first, behind the one that was owed at a time with a key.
pub fn of_application(
    connection: &mut Connection,
    application: Key,
    before: (i64, Key),
    limit: i64,
) -> StoreResult<Vec<DeliveryRow>> {
    older(connection, concat!(shown!(), "WHERE d.application_id = ?"), application, before, limit)
}

/// Deliveries about a subject, newest first, behind the one that was owed at a time with a key.
pub fn of_subject(
    connection: &mut Connection,
    subject: Key,
    before: (i64, Key),
    limit: i64,
) -> StoreResult<Vec<DeliveryRow>> {
    older(connection, concat!(shown!(), "WHERE d.subject_id = ?"), subject, before, limit)
}

/// Deliveries to an endpoint, newest first, behind the one that was owed at a time with a key.
pub fn of_endpoint(
    connection: &mut Connection,
    endpoint: Key,
    before: (i64, Key),
    limit: i64,
) -> StoreResult<Vec<DeliveryRow>> {
    older(connection, concat!(shown!(), "WHERE d.endpoint_id = ?"), endpoint, before, limit)
}

/// What a delivery sends.
pub fn body(connection: &mut Connection, delivery: Key) -> StoreResult<Option<String>> {
    #[derive(QueryableByName)]
    struct Body {
        #[diesel(sql_type = Text)]
        body: String,
    }
    let sql = "SELECT b.body FROM deliveries d JOIN receivers r ON r.id = d.receiver_id \
               JOIN bodies b ON b.subject_id = d.subject_id AND b.sequence = d.sequence \
               AND b.format = r.format WHERE d.id = ?";
    Ok(connection.first::<Body>(Statement::new(sql).bind(delivery))?.map(|row| row.body))
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Binary)]
    public_id: Vec<u8>,
}

/// Ids outside of deliveries, with their keys.
pub fn ids(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<(Key, uuid::Uuid)>> {
    let rows = connection.load_by_keys::<IdRow>(
        "SELECT id, public_id FROM deliveries WHERE id @key",
        "",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    let id = |row: &IdRow| uuid::Uuid::from_slice(&row.public_id).ok().map(|id| (row.id, id));
    Ok(rows.iter().filter_map(id).collect())
}

/// Keys alone tell no order, since each writer draws its own block of them.
fn older(
    connection: &mut Connection,
    chosen: &str,
    of: Key,
    before: (i64, Key),
    limit: i64,
) -> StoreResult<Vec<DeliveryRow>> {
    let sql = format!(
        "{chosen} AND (d.created_at, d.id) < (?, ?) ORDER BY d.created_at DESC, d.id DESC LIMIT ?"
    );
    connection.load(Statement::new(sql).bind(of).bind(before.0).bind(before.1).bind(limit))
}
