//! Jobs that are held until the end of a transaction, with or without reading them. Must not know why.

use super::{JobRow, KeyRow, StateRow};
use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::statement::Cell;

/// Columns of a job that is live.
macro_rules! live_columns {
    () => {
        "l.id, j.public_id, j.application_id, l.group_id, j.receiver_id, j.created_at, \
         CAST(1 AS BIGINT) AS live, l.status, l.updated_at, l.attempt, l.lost_nodes, l.token, \
         l.last_sequence, l.progress, l.announced_progress, l.announced_at, l.started_at, \
         CAST(NULL AS BIGINT) AS completed_at, CAST(NULL AS TEXT) AS result, l.failure_code, \
         l.failure_detail, l.run_at, CAST(NULL AS BIGINT) AS deleted_at, e.data AS submission"
    };
}

/// Columns of a job that is final.
macro_rules! final_columns {
    () => {
        "j.id, j.public_id, j.application_id, j.group_id, j.receiver_id, j.created_at, \
         CAST(0 AS BIGINT) AS live, j.status, j.updated_at, j.attempt, j.lost_nodes, j.token, \
         j.last_sequence, j.progress, j.progress AS announced_progress, \
         j.updated_at AS announced_at, j.started_at, j.completed_at, j.result, j.failure_code, \
         j.failure_detail, j.run_at, j.deleted_at, e.data AS submission"
    };
}

/// Live jobs by key, held for this transaction. Outer joins for the same reason as in `any_tables`.
pub fn load_live(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<JobRow>> {
    connection.load_by_keys(
        concat!(
            "SELECT ",
            live_columns!(),
            " FROM live_jobs l LEFT JOIN jobs j ON j.id = l.id \
             LEFT JOIN events e ON e.subject_id = l.id AND e.sequence = 1 WHERE l.id @key @lock"
        ),
        "ORDER BY l.id FOR UPDATE OF l",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// How live jobs stand, by key, held for this transaction; for those who know the rest.
pub fn load_states(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<StateRow>> {
    connection.load_by_keys_of(
        "live_jobs",
        "SELECT id, group_id, status, updated_at, attempt, lost_nodes, token, last_sequence, \
         progress, announced_progress, announced_at, started_at, failure_code, failure_detail, \
         run_at FROM live_jobs WHERE id @key @lock",
        "ORDER BY id FOR UPDATE",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// Final jobs by key, held for this transaction.
pub fn load_final(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<JobRow>> {
    connection.load_by_keys(
        concat!(
            "SELECT ",
            final_columns!(),
            " FROM jobs j LEFT JOIN events e ON e.subject_id = j.id AND e.sequence = 1 \
             WHERE j.completed_at IS NOT NULL AND j.id @key @lock"
        ),
        "ORDER BY j.id FOR UPDATE OF j",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// Of jobs by their ids outside those that are in no explicit group.
pub fn alone(connection: &mut Connection, ids: &[uuid::Uuid]) -> StoreResult<Vec<Key>> {
    let rows = connection.load_by_keys::<KeyRow>(
        "SELECT id FROM jobs WHERE group_id IS NULL AND public_id @key",
        "",
        ids.iter().map(|id| Cell::from(*id)).collect(),
    )?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Holds live jobs by key for this transaction.
pub fn hold_live(connection: &mut Connection, keys: &[Key]) -> StoreResult<()> {
    connection.load_by_keys::<KeyRow>(
        "SELECT id FROM live_jobs WHERE id @key @lock",
        "ORDER BY id FOR UPDATE",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    Ok(())
}

/// Holds jobs that have ended by key for this transaction.
pub fn hold_final(connection: &mut Connection, keys: &[Key]) -> StoreResult<()> {
    connection.load_by_keys::<KeyRow>(
        "SELECT id FROM jobs WHERE completed_at IS NOT NULL AND id @key @lock",
        "ORDER BY id FOR UPDATE",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    Ok(())
}
