//! Which request made what: one row an application and key, for a day.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::rows::{Column, Kind, Rows};
use super::statement::Statement;
use crate::ids::Key;

/// What a key stands for.
#[derive(Debug, Clone, QueryableByName)]
pub struct IdempotencyRow {
    /// Of method, path and body.
    #[diesel(sql_type = Text)]
    pub hash: String,
    /// job or group.
    #[diesel(sql_type = Text)]
    pub subject_kind: String,
    /// What was made.
    #[diesel(sql_type = Binary)]
    pub subject_id: Vec<u8>,
    /// Until when.
    #[diesel(sql_type = BigInt)]
    pub expires_at: i64,
}

const COLUMNS: &[Column] = &[
    ("application_id", Kind::Int),
    ("key", Kind::Text),
    ("hash", Kind::Text),
    ("subject_kind", Kind::Text),
    ("subject_id", Kind::Bytes),
    ("expires_at", Kind::Int),
];

/// Takes a key; false when it is taken. On Postgres this waits for a transaction that is just
/// taking it, up to the lock timeout.
#[expect(clippy::too_many_arguments, reason = "a row")]
pub fn take(
    connection: &mut Connection,
    application: Key,
    key: &str,
    hash: &str,
    subject_kind: &'static str,
    subject_id: uuid::Uuid,
    now: i64,
    expires_at: i64,
) -> StoreResult<bool> {
    let expired =
        "DELETE FROM idempotency WHERE application_id = ? AND key = ? AND expires_at <= ?";
    connection.execute(Statement::new(expired).bind(application).bind(key).bind(now))?;
    let mut rows = Rows::new("idempotency", COLUMNS);
    rows.push([
        application.into(),
        key.into(),
        hash.into(),
        subject_kind.into(),
        subject_id.into(),
        expires_at.into(),
    ]);
    Ok(connection.insert_new(rows)? == 1)
}

/// What a key stands for.
pub fn find(
    connection: &mut Connection,
    application: Key,
    key: &str,
) -> StoreResult<Option<IdempotencyRow>> {
    let sql = "SELECT hash, subject_kind, subject_id, expires_at FROM idempotency \
               WHERE application_id = ? AND key = ?";
    connection.first(Statement::new(sql).bind(application).bind(key))
}
