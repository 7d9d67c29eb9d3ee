//! Removal of what is old enough, in bounded batches.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable};

use super::connection::Connection;
use super::deliveries;
use super::error::StoreResult;
use super::rows::{Column, Kind, OnConflict, Rows};
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// A subject that may be purged.
#[derive(Debug, Clone, QueryableByName)]
pub struct Purgeable {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// Owner.
    #[diesel(sql_type = BigInt)]
    pub application_id: i64,
    /// When final; null while live.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub completed_at: Option<i64>,
    /// When made.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
}

/// Jobs in the order of their keys behind one: oldest first, a bounded number.
pub fn jobs_after(
    connection: &mut Connection,
    after: Key,
    limit: i64,
) -> StoreResult<Vec<Purgeable>> {
    let sql = "SELECT id, public_id, application_id, completed_at, created_at FROM jobs \
               WHERE id > ? ORDER BY id LIMIT ?";
    connection.load(Statement::new(sql).bind(after).bind(limit))
}

/// Completed groups in the order of their keys behind one, without jobs left.
pub fn groups_after(
    connection: &mut Connection,
    after: Key,
    limit: i64,
) -> StoreResult<Vec<Purgeable>> {
    let sql = "SELECT id, public_id, application_id, \
               CASE WHEN EXISTS (SELECT 1 FROM jobs j WHERE j.group_id = groups.id) THEN NULL \
               ELSE COALESCE(completed_at, updated_at) END AS completed_at, created_at \
               FROM groups WHERE id > ? ORDER BY id LIMIT ?";
    connection.load(Statement::new(sql).bind(after).bind(limit))
}

/// Deleted files in the order of their keys behind one, whose bytes are all gone.
pub fn files_after(
    connection: &mut Connection,
    after: Key,
    limit: i64,
) -> StoreResult<Vec<Purgeable>> {
    let sql = "SELECT id, public_id, application_id, \
               CASE WHEN EXISTS (SELECT 1 FROM file_versions v WHERE v.file_id = files.id) \
               THEN NULL ELSE deleted_at END AS completed_at, created_at \
               FROM files WHERE deleted_at IS NOT NULL AND id > ? ORDER BY id LIMIT ?";
    connection.load(Statement::new(sql).bind(after).bind(limit))
}

/// Deleted endpoints in the order of their keys behind one, to which nothing else has a delivery.
pub fn endpoints_after(
    connection: &mut Connection,
    after: Key,
    limit: i64,
) -> StoreResult<Vec<Purgeable>> {
    let sql = "SELECT id, public_id, application_id, \
               CASE WHEN EXISTS (SELECT 1 FROM deliveries d WHERE d.endpoint_id = receivers.id \
               AND d.subject_id <> receivers.id) \
               THEN NULL ELSE deleted_at END AS completed_at, created_at \
               FROM receivers WHERE deleted_at IS NOT NULL AND id > ? ORDER BY id LIMIT ?";
    connection.load(Statement::new(sql).bind(after).bind(limit))
}

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

fn cells(keys: &[Key]) -> Vec<Cell> {
    keys.iter().map(|key| Cell::from(*key)).collect()
}

/// Where subjects of a kind have their own row.
fn table(kind: &str) -> &'static str {
    match kind {
        "job" => "jobs",
        "group" => "groups",
        "endpoint" => "receivers",
        _ => "files",
    }
}

/// Holds the rows of subjects, so that whatever else happens to them has happened by now or finds
/// them gone.
pub fn hold(connection: &mut Connection, kind: &str, subjects: &[Key]) -> StoreResult<()> {
    let sql = format!("SELECT id FROM {} WHERE id @key @lock", table(kind));
    let lock = "ORDER BY id FOR UPDATE";
    connection.load_by_keys::<KeyRow>(&sql, lock, cells(subjects)).map(|_| ())
}

/// Which of these subjects still owe a delivery, as it looks now.
pub fn owing(connection: &mut Connection, subjects: &[Key]) -> StoreResult<Vec<Key>> {
    let sql = "SELECT DISTINCT subject_id AS id FROM deliveries \
               WHERE subject_id @key AND status = 0";
    let rows = connection.load_by_keys::<KeyRow>(sql, "", cells(subjects))?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// The same for good: all their deliveries are held for this transaction, so that none of them is
/// owed again before it ends.
pub fn hold_owing(connection: &mut Connection, subjects: &[Key]) -> StoreResult<Vec<Key>> {
    #[derive(QueryableByName)]
    struct Delivery {
        #[diesel(sql_type = BigInt)]
        subject_id: i64,
        #[diesel(sql_type = BigInt)]
        status: i64,
    }
    let sql = "SELECT subject_id, status FROM deliveries WHERE subject_id @key @lock";
    let rows =
        connection.load_by_keys::<Delivery>(sql, "ORDER BY id FOR UPDATE", cells(subjects))?;
    let live = rows.into_iter().filter(|row| row.status == deliveries::status::LIVE);
    Ok(live.map(|row| row.subject_id).collect())
}

/// Removes subjects with everything that hangs on them, and leaves one line of each.
pub fn purge(
    connection: &mut Connection,
    kind: &'static str,
    subjects: &[Purgeable],
    reason: &'static str,
    now: i64,
) -> StoreResult<()> {
    const LINE: &[Column] = &[
        ("subject_kind", Kind::Text),
        ("public_id", Kind::Bytes),
        ("application_id", Kind::Int),
        ("reason", Kind::Text),
        ("purged_at", Kind::Int),
    ];
    let keys: Vec<Key> = subjects.iter().map(|subject| subject.id).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let attempts = "DELETE FROM attempts WHERE delivery_id IN \
                    (SELECT id FROM deliveries WHERE subject_id @key)";
    connection.execute_by_keys(attempts, &keys)?;
    for table in ["bodies", "deliveries", "events", "sealed_values", "checkpoints"] {
        connection.delete_where(table, "subject_id", &keys)?;
    }
    match kind {
        "job" => connection.delete_where("job_files", "job_id", &keys)?,
        "endpoint" => connection.delete_where("credentials", "receiver_id", &keys)?,
        _ => 0,
    };
    connection.delete_where(table(kind), "id", &keys)?;
    let mut lines = Rows::new("purges", LINE);
    for subject in subjects {
        lines.push([
            kind.into(),
            subject.public_id.clone().into(),
            subject.application_id.into(),
            reason.into(),
            now.into(),
        ]);
    }
    connection.insert(lines, OnConflict::Skip)?;
    Ok(())
}

/// Removes idempotency records whose day is over; how many.
pub fn expire_idempotency(connection: &mut Connection, now: i64, limit: i64) -> StoreResult<usize> {
    let sql = "DELETE FROM idempotency WHERE (application_id, key) IN \
               (SELECT application_id, key FROM idempotency WHERE expires_at <= ? \
               ORDER BY expires_at LIMIT ?)";
    connection.execute(Statement::new(sql).bind(now).bind(limit))
}

/// Removes callbacks that nobody has used since `before` and no live work needs; how many.
pub fn purge_callbacks(connection: &mut Connection, before: i64, limit: i64) -> StoreResult<usize> {
    let sql = format!(
        "SELECT r.id FROM receivers r WHERE r.kind = 'callback' AND r.last_used_at < ? \
         AND NOT EXISTS (SELECT 1 FROM live_deliveries d WHERE d.receiver_id = r.id) \
         AND NOT EXISTS (SELECT 1 FROM groups g WHERE g.receiver_id = r.id) \
         AND r.id NOT IN (SELECT j.receiver_id FROM live_jobs l JOIN jobs j ON j.id = l.id \
         WHERE j.receiver_id IS NOT NULL) LIMIT ?{}",
        connection.skip_locked()
    );
    let statement = Statement::new(sql).bind(before).bind(limit);
    let unused: Vec<Key> =
        connection.load::<KeyRow>(statement)?.into_iter().map(|row| row.id).collect();
    // What was owed to them again before they were held can be seen only now.
    let owing = connection.load_by_keys::<KeyRow>(
        "SELECT DISTINCT receiver_id AS id FROM live_deliveries WHERE receiver_id @key",
        "",
        cells(&unused),
    )?;
    let owing: Vec<Key> = owing.into_iter().map(|row| row.id).collect();
    let gone: Vec<Key> = unused.into_iter().filter(|key| !owing.contains(key)).collect();
    connection.delete_where("receivers", "id", &gone)
}

#[derive(QueryableByName)]
struct VersionKey {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
}

/// Versions superseded before a time that no live job reads.
pub fn unread_versions(
    connection: &mut Connection,
    before: i64,
    limit: i64,
) -> StoreResult<Vec<uuid::Uuid>> {
    let sql = "SELECT v.id FROM file_versions v WHERE v.superseded_at IS NOT NULL \
               AND v.superseded_at < ? AND NOT EXISTS (SELECT 1 FROM job_files f \
               JOIN live_jobs l ON l.id = f.job_id WHERE f.version_id = v.id) \
               ORDER BY v.superseded_at LIMIT ?";
    let rows = connection.load::<VersionKey>(Statement::new(sql).bind(before).bind(limit))?;
    Ok(rows.iter().filter_map(|row| uuid::Uuid::from_slice(&row.id).ok()).collect())
}

/// Forgets versions whose bytes are gone, and files of which nothing is left.
pub fn forget_versions(connection: &mut Connection, ids: &[uuid::Uuid]) -> StoreResult<()> {
    let mut rows = Rows::keyed("file_versions", 1, &[("id", Kind::Bytes)]);
    for id in ids {
        rows.push([(*id).into()]);
    }
    connection.delete(rows)?;
    Ok(())
}

/// Which of these keys of bytes no version names.
pub fn unknown_versions(
    connection: &mut Connection,
    ids: &[uuid::Uuid],
) -> StoreResult<Vec<uuid::Uuid>> {
    let known: std::collections::HashSet<Vec<u8>> = connection
        .load_by_keys::<VersionKey>(
            "SELECT id FROM file_versions WHERE id @key",
            "",
            ids.iter().map(|id| Cell::from(*id)).collect(),
        )?
        .into_iter()
        .map(|row| row.id)
        .collect();
    Ok(ids.iter().filter(|id| !known.contains(id.as_bytes().as_slice())).copied().collect())
}
