//! Lanes in trouble: closed for a while, and known to whoever sends for them next.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::statement::Statement;

/// A closed lane.
#[derive(Debug, Clone, QueryableByName)]
pub struct LaneTrouble {
    /// Which.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// When the next delivery may be tried.
    #[diesel(sql_type = BigInt)]
    pub not_before: i64,
    /// retry_after or failures.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// How often in a row it was closed for failures.
    #[diesel(sql_type = BigInt)]
    pub closings: i64,
}

/// All lanes in trouble.
pub fn troubled(connection: &mut Connection) -> StoreResult<Vec<LaneTrouble>> {
    connection.load(Statement::new("SELECT lane, not_before, reason, closings FROM lanes"))
}

/// The trouble of one lane.
pub fn trouble_of(connection: &mut Connection, lane: i64) -> StoreResult<Option<LaneTrouble>> {
    let sql = "SELECT lane, not_before, reason, closings FROM lanes WHERE lane = ?";
    connection.first(Statement::new(sql).bind(lane))
}

/// Closes a lane until a time.
pub fn close(connection: &mut Connection, trouble: &LaneTrouble, now: i64) -> StoreResult<()> {
    let sql = "INSERT INTO lanes (lane, not_before, reason, closings, updated_at) \
               VALUES (?, ?, ?, ?, ?) ON CONFLICT (lane) DO UPDATE SET \
               not_before = excluded.not_before, reason = excluded.reason, \
               closings = excluded.closings, updated_at = excluded.updated_at";
    connection.execute(
        Statement::new(sql)
            .bind(trouble.lane)
            .bind(trouble.not_before)
            .bind(trouble.reason.as_str())
            .bind(trouble.closings)
            .bind(now),
    )?;
    Ok(())
}

/// Says that a lane works again.
pub fn open(connection: &mut Connection, lane: i64) -> StoreResult<()> {
    connection.execute(Statement::new("DELETE FROM lanes WHERE lane = ?").bind(lane))?;
    Ok(())
}

/// Lets one delivery of a closed lane be tried at once.
pub fn probe(connection: &mut Connection, lane: i64, now: i64) -> StoreResult<()> {
    let sql = "UPDATE lanes SET not_before = ? WHERE lane = ? AND not_before > ?";
    connection.execute(Statement::new(sql).bind(now).bind(lane).bind(now))?;
    Ok(())
}

/// Forgets lanes that nobody has touched since a time: nothing is sent on them any more.
pub fn forget(connection: &mut Connection, before: i64, limit: i64) -> StoreResult<usize> {
    let sql = "DELETE FROM lanes WHERE lane IN (SELECT lane FROM lanes \
               WHERE updated_at < ? AND not_before < ? LIMIT ?)";
    connection.execute(Statement::new(sql).bind(before).bind(before).bind(limit))
}
