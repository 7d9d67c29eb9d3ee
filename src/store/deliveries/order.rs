//! The order of deliveries to one endpoint: who is first in a track, and who follows.
//!
//! Rows of an ordered endpoint come in as fresh. The owner of the lane looks at each once and puts
//! it behind its predecessor or, when there is none, makes it due. Whoever ends a row makes its
//! successor due in the same transaction.

use diesel::QueryableByName;
use diesel::sql_types::BigInt;

use super::live::KeyRow;
use super::phase;
use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::rows::{Kind, Rows};
use crate::store::statement::Statement;

/// A row with its place.
#[derive(Debug, Clone, QueryableByName)]
pub struct OrderedRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// What the order holds within.
    #[diesel(sql_type = BigInt)]
    pub track: i64,
    /// Place in it.
    #[diesel(sql_type = BigInt)]
    pub rank: i64,
    /// See [`phase`].
    #[diesel(sql_type = BigInt)]
    pub phase: i64,
}

/// Fresh rows of a lane that have their place, held for this transaction.
pub fn fresh(connection: &mut Connection, lane: i64, limit: i64) -> StoreResult<Vec<OrderedRow>> {
    let sql = format!(
        "SELECT id, track, rank, phase FROM live_deliveries \
         WHERE phase = 3 AND lane = ? AND rank IS NOT NULL ORDER BY id LIMIT ?{}",
        connection.skip_locked()
    );
    connection.load(Statement::new(sql).bind(lane).bind(limit))
}

/// What stands before a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// Nothing: the place is the first.
    None,
    /// A row that is held for this transaction, so that its end will see who follows.
    Held,
    /// A row that somebody else is just changing; to be looked at again.
    Changing,
}

/// The nearest row before a place.
pub fn predecessor(
    connection: &mut Connection,
    lane: i64,
    track: i64,
    rank: i64,
) -> StoreResult<Predecessor> {
    let sql = "SELECT id FROM live_deliveries WHERE lane = ? AND track = ? AND rank < ? \
               ORDER BY rank DESC LIMIT 1";
    let found =
        connection.first::<KeyRow>(Statement::new(sql).bind(lane).bind(track).bind(rank))?;
    let Some(row) = found else { return Ok(Predecessor::None) };
    let lock = connection.skip_locked();
    if lock.is_empty() {
        return Ok(Predecessor::Held);
    }
    let sql = format!("SELECT id FROM live_deliveries WHERE id = ?{lock}");
    let held = connection.first::<KeyRow>(Statement::new(sql).bind(row.id))?;
    Ok(if held.is_some() { Predecessor::Held } else { Predecessor::Changing })
}

/// The nearest row behind a place.
pub fn successor(
    connection: &mut Connection,
    lane: i64,
    track: i64,
    rank: i64,
) -> StoreResult<Option<OrderedRow>> {
    let sql = "SELECT id, track, rank, phase FROM live_deliveries \
               WHERE lane = ? AND track = ? AND rank > ? ORDER BY rank LIMIT 1";
    connection.first(Statement::new(sql).bind(lane).bind(track).bind(rank))
}

/// Puts rows that are still fresh or behind into another phase, due at a time.
pub fn advance(
    connection: &mut Connection,
    keys: &[Key],
    to: i64,
    due_at: i64,
) -> StoreResult<usize> {
    let mut moved = 0;
    for key in keys {
        let sql =
            "UPDATE live_deliveries SET phase = ?, due_at = ? WHERE id = ? AND phase IN (3, 4)";
        let statement = Statement::new(sql).bind(to).bind(due_at).bind(*key);
        moved += connection.execute(statement)?;
    }
    Ok(moved)
}

/// Puts rows into a phase, due at a time. They are held in this transaction.
pub fn set_phases(connection: &mut Connection, changes: &[(Key, i64, i64)]) -> StoreResult<usize> {
    let mut rows = Rows::keyed(
        "live_deliveries",
        1,
        &[("id", Kind::Int), ("phase", Kind::Int), ("due_at", Kind::Int)],
    );
    for (key, phase, due_at) in changes {
        rows.push([(*key).into(), (*phase).into(), (*due_at).into()]);
    }
    connection.update(&rows)
}

#[derive(QueryableByName)]
struct Lane {
    #[diesel(sql_type = BigInt)]
    lane: i64,
}

/// Lanes with fresh rows, found by stepping from lane to lane.
pub fn fresh_lanes(connection: &mut Connection) -> StoreResult<Vec<i64>> {
    let sql = "WITH RECURSIVE t (lane) AS ( \
               SELECT MIN(lane) FROM live_deliveries WHERE phase = 3 \
               UNION ALL \
               SELECT (SELECT MIN(lane) FROM live_deliveries d WHERE d.phase = 3 AND d.lane > t.lane) \
               FROM t WHERE t.lane IS NOT NULL) SELECT t.lane FROM t WHERE t.lane IS NOT NULL";
    let rows = connection.load::<Lane>(Statement::new(sql))?;
    Ok(rows.into_iter().map(|row| row.lane).collect())
}

/// Rows that wait behind nobody, of one endpoint or of all, are made fresh: those before them were
/// cancelled.
pub fn free_stuck(
    connection: &mut Connection,
    receiver: Option<Key>,
    limit: i64,
) -> StoreResult<usize> {
    let of_one = if receiver.is_some() { "l.receiver_id = ? AND" } else { "" };
    // Whoever has been let go on meanwhile is left alone: that is what the outer phase is for.
    let sql = format!(
        "UPDATE live_deliveries SET phase = 3 WHERE phase = 4 AND id IN (\
         SELECT l.id FROM live_deliveries l \
         WHERE {of_one} l.rank IS NOT NULL AND l.phase = 4 AND NOT EXISTS (\
         SELECT 1 FROM live_deliveries p WHERE p.lane = l.lane AND p.track = l.track \
         AND p.rank < l.rank) LIMIT ?)"
    );
    let statement = receiver.into_iter().fold(Statement::new(sql), Statement::bind);
    connection.execute(statement.bind(limit))
}

/// Gives the deliveries of an event to strict endpoints their place; the lanes they are on.
pub fn place(
    connection: &mut Connection,
    subject: Key,
    sequence: i64,
    rank: i64,
) -> StoreResult<Vec<i64>> {
    let sql = "UPDATE live_deliveries SET rank = ? WHERE track = 0 AND rank IS NULL AND id IN \
               (SELECT id FROM deliveries WHERE subject_id = ? AND sequence = ?) RETURNING lane";
    let statement = Statement::new(sql).bind(rank).bind(subject).bind(sequence);
    Ok(connection.load::<Lane>(statement)?.into_iter().map(|row| row.lane).collect())
}

/// Puts an exhausted delivery in its endpoint's way; whether that can be held up, and by this one.
pub fn block(connection: &mut Connection, delivery: Key, receiver: Key) -> StoreResult<bool> {
    let sql = "UPDATE receivers SET blocked_by = ? WHERE id = ? AND ordering = 'strict' \
               AND deleted_at IS NULL \
               AND discard_before <= (SELECT created_at FROM deliveries WHERE id = ?)";
    let statement = Statement::new(sql).bind(delivery).bind(receiver).bind(delivery);
    Ok(connection.execute(statement)? > 0)
}

/// Takes a delivery out of its endpoint's way.
pub fn unblock(connection: &mut Connection, delivery: Key, receiver: Key) -> StoreResult<()> {
    let sql = "UPDATE receivers SET blocked_by = NULL WHERE id = ? AND blocked_by = ?";
    connection.execute(Statement::new(sql).bind(receiver).bind(delivery))?;
    Ok(())
}

/// Whether a phase is one of waiting for others.
pub fn waits_for_others(number: i64) -> bool {
    number == phase::FRESH || number == phase::BEHIND
}
