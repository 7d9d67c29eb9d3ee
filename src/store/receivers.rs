//! Where webhooks go: callbacks, of which equal ones share a row, and registered endpoints.

use std::collections::HashMap;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Double, Nullable, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::rows::{Column, Kind, Rows};
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// A receiver.
#[derive(Debug, Clone, QueryableByName)]
pub struct ReceiverRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// Owner.
    #[diesel(sql_type = BigInt)]
    pub application_id: i64,
    /// callback or endpoint.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// Of all it holds.
    #[diesel(sql_type = Text)]
    pub digest: String,
    /// scheme://host:port.
    #[diesel(sql_type = Text)]
    pub origin: String,
    /// JSON that representations show.
    #[diesel(sql_type = Text)]
    pub shown: String,
    /// Sealed URL and headers.
    #[diesel(sql_type = Binary)]
    pub sealed: Vec<u8>,
    /// Delivery format.
    #[diesel(sql_type = Text)]
    pub format: String,
    /// JSON array of patterns; null for the default.
    #[diesel(sql_type = Nullable<Text>)]
    pub events: Option<String>,
    /// Where limits and order apply.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// Deliveries a second.
    #[diesel(sql_type = Nullable<Double>)]
    pub rate_per_second: Option<f64>,
    /// At once.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub rate_burst: Option<i64>,
    /// In flight.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub max_in_flight: Option<i64>,
    /// When made.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
    /// Kept to the day.
    #[diesel(sql_type = BigInt)]
    pub last_used_at: i64,
    /// Since when switched off.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub disabled_at: Option<i64>,
    /// Why switched off.
    #[diesel(sql_type = Nullable<Text>)]
    pub disabled_reason: Option<String>,
    /// Since when it is no more.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub deleted_at: Option<i64>,
    /// Number of its last event.
    #[diesel(sql_type = BigInt)]
    pub last_sequence: i64,
    /// JSON array of seconds after the first try; null for the format's own.
    #[diesel(sql_type = Nullable<Text>)]
    pub schedule: Option<String>,
    /// Fresh at every change; 0 for callbacks.
    #[diesel(sql_type = BigInt)]
    pub version: i64,
    /// For people.
    #[diesel(sql_type = Nullable<Text>)]
    pub description: Option<String>,
    /// JSON array of job types; null for all.
    #[diesel(sql_type = Nullable<Text>)]
    pub types: Option<String>,
    /// none, per-job or strict.
    #[diesel(sql_type = Text)]
    pub ordering: String,
    /// standard, hex or ed25519.
    #[diesel(sql_type = Text)]
    pub signature: String,
    /// retry or final; null for the server's default.
    #[diesel(sql_type = Nullable<Text>)]
    pub client_errors: Option<String>,
    /// When changed.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub updated_at: Option<i64>,
    /// The first failure since the last success.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub failing_since: Option<i64>,
    /// Backlog that is older was discarded.
    #[diesel(sql_type = BigInt)]
    pub discard_before: i64,
    /// The delivery that holds it up.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub blocked_by: Option<i64>,
    /// 1 while its backlog has to be brought in line with its state.
    #[diesel(sql_type = BigInt)]
    pub settling: i64,
}

macro_rules! columns {
    () => {
        "id, public_id, application_id, kind, digest, origin, shown, sealed, format, events, \
         lane, rate_per_second, rate_burst, max_in_flight, created_at, last_used_at, disabled_at, \
         disabled_reason, deleted_at, last_sequence, schedule, version, description, types, \
         ordering, signature, client_errors, updated_at, failing_since, discard_before, \
         blocked_by, settling"
    };
}

fn cells(statement: Statement, row: &ReceiverRow) -> Statement {
    statement
        .bind(row.id)
        .bind(row.public_id.clone())
        .bind(row.application_id)
        .bind(row.kind.as_str())
        .bind(row.digest.as_str())
        .bind(row.origin.as_str())
        .bind(row.shown.as_str())
        .bind(row.sealed.clone())
        .bind(row.format.as_str())
        .bind(row.events.clone())
        .bind(row.lane)
        .bind(row.rate_per_second)
        .bind(row.rate_burst)
        .bind(row.max_in_flight)
        .bind(row.created_at)
        .bind(row.last_used_at)
        .bind(row.disabled_at)
        .bind(row.disabled_reason.clone())
        .bind(row.deleted_at)
        .bind(row.last_sequence)
        .bind(row.schedule.clone())
        .bind(row.version)
        .bind(row.description.clone())
        .bind(row.types.clone())
        .bind(row.ordering.as_str())
        .bind(row.signature.as_str())
        .bind(row.client_errors.clone())
        .bind(row.updated_at)
        .bind(row.failing_since)
        .bind(row.discard_before)
        .bind(row.blocked_by)
        .bind(row.settling)
}

/// Inserts a receiver unless an equal one is there.
pub fn insert(connection: &mut Connection, row: &ReceiverRow) -> StoreResult<()> {
    const SQL: &str = concat!(
        "INSERT INTO receivers (",
        columns!(),
        ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
         ?, ?, ?, ?, ?, ?) ON CONFLICT (application_id, digest) DO NOTHING"
    );
    connection.execute(cells(Statement::new(SQL), row))?;
    Ok(())
}

/// The receiver that holds just this.
pub fn find(
    connection: &mut Connection,
    application: Key,
    digest: &str,
) -> StoreResult<Option<ReceiverRow>> {
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM receivers WHERE application_id = ? AND digest = ?");
    connection.first(Statement::new(SQL).bind(application).bind(digest))
}

/// Receivers by key.
pub fn load(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<ReceiverRow>> {
    connection.load_by_keys(
        concat!("SELECT ", columns!(), " FROM receivers WHERE id @key"),
        "",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// Versions of receivers by key.
pub fn versions(connection: &mut Connection, keys: &[Key]) -> StoreResult<HashMap<Key, i64>> {
    #[derive(QueryableByName)]
    struct Version {
        #[diesel(sql_type = BigInt)]
        id: i64,
        #[diesel(sql_type = BigInt)]
        version: i64,
    }
    let rows = connection.load_by_keys::<Version>(
        "SELECT id, version FROM receivers WHERE id @key",
        "",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    Ok(rows.into_iter().map(|row| (row.id, row.version)).collect())
}

/// Keeps receivers from being removed until the end of this transaction; which are there.
pub fn keep(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<Key>> {
    let rows = connection.load_by_keys::<KeyRow>(
        "SELECT id FROM receivers WHERE id @key @lock",
        "ORDER BY id FOR KEY SHARE",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Notes the day of use; whether it is still there.
pub fn touch(connection: &mut Connection, receiver: Key, at: i64) -> StoreResult<bool> {
    let sql = "UPDATE receivers SET last_used_at = ? WHERE id = ?";
    Ok(connection.execute(Statement::new(sql).bind(at).bind(receiver))? > 0)
}

/// All endpoints of an application, disabled ones as well.
pub fn endpoints(connection: &mut Connection, application: Key) -> StoreResult<Vec<ReceiverRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM receivers WHERE application_id = ? AND kind = 'endpoint' \
         AND deleted_at IS NULL ORDER BY id"
    );
    connection.load(Statement::new(SQL).bind(application))
}

/// Endpoints of an application, newest first, behind the one that was made at a time with a key.
pub fn list(
    connection: &mut Connection,
    application: Key,
    before: (i64, Key),
    limit: i64,
) -> StoreResult<Vec<ReceiverRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM receivers WHERE application_id = ? AND kind = 'endpoint' AND deleted_at IS NULL \
         AND (created_at, id) < (?, ?) ORDER BY created_at DESC, id DESC LIMIT ?"
    );
    let statement = Statement::new(SQL).bind(application).bind(before.0).bind(before.1);
    connection.load(statement.bind(limit))
}

/// How many endpoints an application has.
pub fn count(connection: &mut Connection, application: Key) -> StoreResult<i64> {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    let sql = "SELECT COUNT(*) AS count FROM receivers WHERE application_id = ? \
               AND kind = 'endpoint' AND deleted_at IS NULL";
    let row = connection.first::<Count>(Statement::new(sql).bind(application))?;
    Ok(row.map_or(0, |row| row.count))
}

/// An endpoint by its id outside.
pub fn endpoint(connection: &mut Connection, id: uuid::Uuid) -> StoreResult<Option<ReceiverRow>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM receivers WHERE public_id = ? AND kind = 'endpoint' AND deleted_at IS NULL"
    );
    connection.first(Statement::new(SQL).bind(id))
}

/// The same, deleted ones too.
pub fn ever(connection: &mut Connection, id: uuid::Uuid) -> StoreResult<Option<ReceiverRow>> {
    const SQL: &str =
        concat!("SELECT ", columns!(), " FROM receivers WHERE public_id = ? AND kind = 'endpoint'");
    connection.first(Statement::new(SQL).bind(id))
}

/// The endpoint, held for this transaction.
pub fn hold_endpoint(
    connection: &mut Connection,
    id: uuid::Uuid,
) -> StoreResult<Option<ReceiverRow>> {
    let sql = format!(
        concat!(
            "SELECT ",
            columns!(),
            " FROM receivers WHERE public_id = ? AND kind = 'endpoint' AND deleted_at IS NULL{}"
        ),
        connection.for_update()
    );
    connection.first(Statement::new(sql).bind(id))
}

/// Receivers by key, held for this transaction, in the order of their keys.
pub fn hold(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<ReceiverRow>> {
    let mut rows: Vec<ReceiverRow> = connection.load_by_keys(
        concat!("SELECT ", columns!(), " FROM receivers WHERE id @key @lock"),
        "ORDER BY id FOR UPDATE",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    rows.sort_by_key(|row| row.id);
    Ok(rows)
}

const ENDPOINT: &[Column] = &[
    ("id", Kind::Int),
    ("origin", Kind::Text),
    ("shown", Kind::Text),
    ("sealed", Kind::Bytes),
    ("events", Kind::Text),
    ("rate_per_second", Kind::Real),
    ("rate_burst", Kind::Int),
    ("max_in_flight", Kind::Int),
    ("disabled_at", Kind::Int),
    ("disabled_reason", Kind::Text),
    ("deleted_at", Kind::Int),
    ("last_sequence", Kind::Int),
    ("schedule", Kind::Text),
    ("version", Kind::Int),
    ("description", Kind::Text),
    ("types", Kind::Text),
    ("ordering", Kind::Text),
    ("signature", Kind::Text),
    ("client_errors", Kind::Text),
    ("updated_at", Kind::Int),
    ("failing_since", Kind::Int),
    ("discard_before", Kind::Int),
    ("settling", Kind::Int),
];

/// Writes what may change of an endpoint that is held in this transaction.
pub fn update_endpoint(connection: &mut Connection, row: &ReceiverRow) -> StoreResult<()> {
    let mut rows = Rows::keyed("receivers", 1, ENDPOINT);
    rows.push([
        row.id.into(),
        row.origin.as_str().into(),
        row.shown.as_str().into(),
        row.sealed.clone().into(),
        row.events.clone().into(),
        row.rate_per_second.into(),
        row.rate_burst.into(),
        row.max_in_flight.into(),
        row.disabled_at.into(),
        row.disabled_reason.clone().into(),
        row.deleted_at.into(),
        row.last_sequence.into(),
        row.schedule.clone().into(),
        row.version.into(),
        row.description.clone().into(),
        row.types.clone().into(),
        row.ordering.as_str().into(),
        row.signature.as_str().into(),
        row.client_errors.clone().into(),
        row.updated_at.into(),
        row.failing_since.into(),
        row.discard_before.into(),
        row.settling.into(),
    ]);
    connection.update(rows)?;
    Ok(())
}

/// Notes since when an endpoint that is held in this transaction fails, if it does.
pub fn note_failing(connection: &mut Connection, key: Key, since: Option<i64>) -> StoreResult<()> {
    let sql = "UPDATE receivers SET failing_since = ? WHERE id = ?";
    connection.execute(Statement::new(sql).bind(since).bind(key))?;
    Ok(())
}

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// Endpoints whose backlog has to be brought in line with their state.
pub fn settling(connection: &mut Connection, limit: i64) -> StoreResult<Vec<Key>> {
    let sql = "SELECT id FROM receivers WHERE settling = 1 ORDER BY id LIMIT ?";
    let rows = connection.load::<KeyRow>(Statement::new(sql).bind(limit))?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Says that the backlog of an endpoint is in line with its state, unless that has changed since;
/// whether it has not.
pub fn settled(connection: &mut Connection, key: Key, version: i64) -> StoreResult<bool> {
    let sql = "UPDATE receivers SET settling = 0 WHERE id = ? AND version = ?";
    Ok(connection.execute(Statement::new(sql).bind(key).bind(version))? > 0)
}
