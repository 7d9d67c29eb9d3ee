//! The tries of a delivery: written before the request, closed after it.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Nullable, Text};

use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::rows::{Column, Kind, OnConflict, Rows};
use crate::store::statement::Statement;

/// An attempt that begins.
#[derive(Debug, Clone, Copy)]
pub struct BegunAttempt {
    /// Delivery.
    pub delivery_id: Key,
    /// 1, 2, 3 …
    pub number: i64,
    /// When.
    pub started_at: i64,
    /// To which endpoint; a callback has none.
    pub endpoint_id: Option<Key>,
}

/// Writes down attempts that begin.
pub fn begin_attempts(connection: &mut Connection, begun: &[BegunAttempt]) -> StoreResult<()> {
    const COLUMNS: &[Column] = &[
        ("delivery_id", Kind::Int),
        ("number", Kind::Int),
        ("started_at", Kind::Int),
        ("outcome", Kind::Text),
        ("endpoint_id", Kind::Int),
    ];
    let mut rows = Rows::new("attempts", COLUMNS);
    for attempt in begun {
        rows.push([
            attempt.delivery_id.into(),
            attempt.number.into(),
            attempt.started_at.into(),
            "started".into(),
            attempt.endpoint_id.into(),
        ]);
    }
    connection.insert(rows, OnConflict::Fail)?;
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
    /// What DNS answered: a JSON array.
    pub resolved: Option<String>,
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
    ("resolved", Kind::Text),
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
            attempt.resolved.clone().into(),
            attempt.address.clone().into(),
            attempt.timings.clone().into(),
        ]);
    }
    connection.update(rows)?;
    Ok(())
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
    /// What DNS answered: a JSON array.
    #[diesel(sql_type = Nullable<Text>)]
    pub resolved: Option<String>,
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
               response_headers, response_body, error_code, error_detail, resolved, address, timings \
               FROM attempts WHERE delivery_id = ? ORDER BY number LIMIT 1000";
    connection.load(Statement::new(sql).bind(delivery))
}

/// An attempt that has ended.
#[derive(Debug, Clone, QueryableByName)]
pub struct TriedRow {
    /// When it began.
    #[diesel(sql_type = BigInt)]
    pub started_at: i64,
    /// delivered, failed, refused, unknown.
    #[diesel(sql_type = Text)]
    pub outcome: String,
    /// How long.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub duration_ms: Option<i64>,
    /// HTTP status.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub response_status: Option<i64>,
}

/// Attempts of an endpoint that have ended, newest first: those since a time, and as many at most.
pub fn tried(
    connection: &mut Connection,
    endpoint: Key,
    since: i64,
    most: i64,
) -> StoreResult<Vec<TriedRow>> {
    let sql = "SELECT started_at, outcome, duration_ms, response_status FROM attempts \
               WHERE endpoint_id = ? AND endpoint_id IS NOT NULL AND started_at >= ? \
               AND outcome <> 'started' ORDER BY started_at DESC LIMIT ?";
    connection.load(Statement::new(sql).bind(endpoint).bind(since).bind(most))
}
