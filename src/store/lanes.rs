//! Lanes in trouble: closed for a while, and known to whoever sends for them next.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::statement::{Cell, Statement};

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

/// Lanes in trouble that were closed until later than a time.
pub fn troubled(connection: &mut Connection, since: i64) -> StoreResult<Vec<LaneTrouble>> {
    let sql = "SELECT lane, not_before, reason, closings FROM lanes WHERE not_before > ?";
    connection.load(Statement::new(sql).bind(since))
}

/// The troubles of these lanes.
pub fn troubles_of(connection: &mut Connection, lanes: Vec<i64>) -> StoreResult<Vec<LaneTrouble>> {
    let sql = "SELECT lane, not_before, reason, closings FROM lanes WHERE lane @key";
    connection.load_by_keys(sql, "", lanes.into_iter().map(Cell::from).collect())
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

/// Forgets lanes that were closed until longer ago than a time, and on which nothing waits.
pub fn forget(connection: &mut Connection, before: i64, limit: i64) -> StoreResult<usize> {
    let sql = "DELETE FROM lanes WHERE lane IN (SELECT l.lane FROM lanes l \
               WHERE l.not_before < ? AND NOT EXISTS (SELECT 1 FROM live_deliveries d \
               WHERE d.phase = 0 AND d.lane = l.lane) LIMIT ?)";
    connection.execute(Statement::new(sql).bind(before).bind(limit))
}
