//! Lanes in trouble: closed for a while, and known to whoever sends for them next.
//!
//! Changes of one lane may be committed in another order than they happened, so each has a number
//! and an older one changes nothing. For that a lane that works again keeps its row for a while.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::statement::{Cell, Statement};

/// The reason of a lane that works again.
const OPEN: &str = "open";

/// A closed lane, or one that was closed.
#[derive(Debug, Clone, QueryableByName)]
pub struct LaneTrouble {
    /// Which.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// When the next delivery may be tried.
    #[diesel(sql_type = BigInt)]
    pub not_before: i64,
    /// retry_after, failures or open.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// How often in a row it was closed for failures.
    #[diesel(sql_type = BigInt)]
    pub closings: i64,
    /// Of the change that says so; grows with every change of the lane.
    #[diesel(sql_type = BigInt)]
    pub number: i64,
}

impl LaneTrouble {
    /// A lane that works again since a time.
    pub fn over(lane: i64, number: i64, since: i64) -> LaneTrouble {
        LaneTrouble { lane, not_before: since, reason: OPEN.to_owned(), closings: 0, number }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.reason == OPEN
    }
}

/// Lanes that were closed until later than a time, or have worked again since.
pub fn troubled(connection: &mut Connection, since: i64) -> StoreResult<Vec<LaneTrouble>> {
    let sql = "SELECT lane, not_before, reason, closings, number FROM lanes WHERE not_before > ?";
    connection.load(Statement::new(sql).bind(since))
}

/// The troubles of these lanes that are not over.
pub fn troubles_of(connection: &mut Connection, lanes: Vec<i64>) -> StoreResult<Vec<LaneTrouble>> {
    let sql = "SELECT lane, not_before, reason, closings, number FROM lanes \
               WHERE reason <> 'open' AND lane @key";
    connection.load_by_keys(sql, "", lanes.into_iter().map(Cell::from).collect())
}

/// Writes down how a lane stands, unless something later is known of it.
pub fn change(connection: &mut Connection, trouble: &LaneTrouble, now: i64) -> StoreResult<()> {
    let sql = "INSERT INTO lanes (lane, not_before, reason, closings, number, updated_at) \
               VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (lane) DO UPDATE SET \
               not_before = excluded.not_before, reason = excluded.reason, \
               closings = excluded.closings, number = excluded.number, \
               updated_at = excluded.updated_at WHERE lanes.number < excluded.number";
    connection.execute(
        Statement::new(sql)
            .bind(trouble.lane)
            .bind(trouble.not_before)
            .bind(trouble.reason.as_str())
            .bind(trouble.closings)
            .bind(trouble.number)
            .bind(now),
    )?;
    Ok(())
}

/// Lets one delivery of a closed lane be tried at once.
pub fn probe(connection: &mut Connection, lane: i64, now: i64) -> StoreResult<()> {
    let sql = "UPDATE lanes SET not_before = ? WHERE lane = ? AND not_before > ?";
    connection.execute(Statement::new(sql).bind(now).bind(lane).bind(now))?;
    Ok(())
}

/// Forgets lanes that were closed until longer ago than a time and on which nothing waits, and
/// those that have worked for that long.
pub fn forget(connection: &mut Connection, before: i64, limit: i64) -> StoreResult<usize> {
    let sql = format!(
        "DELETE FROM lanes WHERE lane IN (SELECT l.lane FROM lanes l \
         WHERE l.not_before < ? AND (l.reason = 'open' OR NOT EXISTS (\
         SELECT 1 FROM live_deliveries d WHERE d.phase = 0 AND d.lane = l.lane)) LIMIT ?{})",
        connection.skip_locked()
    );
    connection.execute(Statement::new(sql).bind(before).bind(limit))
}
