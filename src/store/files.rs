//! Rows of files and their versions; the bytes are elsewhere.

use std::collections::HashMap;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::rows::{Column, Kind, OnConflict, Rows};
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// A file at its current version.
#[derive(Debug, Clone, QueryableByName)]
pub struct FileRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// Path.
    #[diesel(sql_type = Text)]
    pub path: String,
    /// Version, and key of the bytes.
    #[diesel(sql_type = Binary)]
    pub version_id: Vec<u8>,
    /// Number of the last event.
    #[diesel(sql_type = BigInt)]
    pub last_sequence: i64,
    /// When the path was first used.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
    /// When this version came.
    #[diesel(sql_type = BigInt)]
    pub updated_at: i64,
    /// Bytes.
    #[diesel(sql_type = BigInt)]
    pub size: i64,
    /// Hex.
    #[diesel(sql_type = Text)]
    pub sha256: String,
    /// MIME type.
    #[diesel(sql_type = Text)]
    pub media_type: String,
    /// public or private.
    #[diesel(sql_type = Text)]
    pub acl: String,
}

macro_rules! file_select {
    () => {
        "SELECT f.id, f.public_id, f.path, f.version_id, f.last_sequence, f.created_at, \
         f.updated_at, v.size, v.sha256, v.media_type, v.acl \
         FROM files f JOIN file_versions v ON v.id = f.version_id "
    };
}

/// The file at a path.
pub fn at_path(
    connection: &mut Connection,
    application: Key,
    path: &str,
) -> StoreResult<Option<FileRow>> {
    let sql = concat!(
        file_select!(),
        "WHERE f.application_id = ? AND f.path = ? AND f.deleted_at IS NULL"
    );
    connection.first(Statement::new(sql).bind(application).bind(path))
}

/// The file of an id.
pub fn by_id(
    connection: &mut Connection,
    application: Key,
    id: uuid::Uuid,
) -> StoreResult<Option<FileRow>> {
    let sql = concat!(
        file_select!(),
        "WHERE f.public_id = ? AND f.application_id = ? AND f.deleted_at IS NULL"
    );
    connection.first(Statement::new(sql).bind(id).bind(application))
}

/// Files below a prefix after a path, in the order of paths.
pub fn list(
    connection: &mut Connection,
    application: Key,
    prefix: &str,
    after: &str,
    limit: i64,
) -> StoreResult<Vec<FileRow>> {
    // Comparisons are by bytes on both sides: SQLite compares so by itself, Postgres is told.
    let collate = match connection.backend() {
        super::Backend::Sqlite => "",
        super::Backend::Postgres => " COLLATE \"C\"",
    };
    let sql = format!(
        "{}WHERE f.application_id = ? AND f.deleted_at IS NULL AND f.path{collate} >= ? \
         AND f.path{collate} > ? AND f.path{collate} < ? ORDER BY f.path{collate} LIMIT ?",
        file_select!()
    );
    connection.load(
        Statement::new(sql)
            .bind(application)
            .bind(prefix)
            .bind(after)
            .bind(prefix_end(prefix))
            .bind(limit),
    )
}

/// The least text above every text that begins with `prefix`.
pub fn prefix_end(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

/// A version of a file, by its id.
#[derive(Debug, Clone, QueryableByName)]
pub struct VersionRow {
    /// Version, and key of the bytes.
    #[diesel(sql_type = Binary)]
    pub id: Vec<u8>,
    /// Bytes.
    #[diesel(sql_type = BigInt)]
    pub size: i64,
    /// Hex.
    #[diesel(sql_type = Text)]
    pub sha256: String,
    /// MIME type.
    #[diesel(sql_type = Text)]
    pub media_type: String,
}

/// Versions by id; those that are gone are left out.
pub fn versions(connection: &mut Connection, ids: &[uuid::Uuid]) -> StoreResult<Vec<VersionRow>> {
    connection.load_by_keys(
        "SELECT id, size, sha256, media_type FROM file_versions WHERE id @key",
        "",
        ids.iter().map(|id| Cell::from(*id)).collect(),
    )
}

/// A new version on its way in.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Key of the file row, used when the path is new.
    pub file_key: Key,
    /// Id of the file, used when the path is new.
    pub file_id: uuid::Uuid,
    /// Path.
    pub path: String,
    /// Version, and key of the bytes.
    pub version_id: uuid::Uuid,
    /// Bytes.
    pub size: i64,
    /// Hex.
    pub sha256: String,
    /// MIME type.
    pub media_type: String,
    /// public or private.
    pub acl: String,
}

const VERSION: &[Column] = &[
    ("id", Kind::Bytes),
    ("file_id", Kind::Int),
    ("size", Kind::Int),
    ("sha256", Kind::Text),
    ("media_type", Kind::Text),
    ("acl", Kind::Text),
    ("created_at", Kind::Int),
];

/// A file's row, held for this transaction.
#[derive(QueryableByName)]
struct HeldRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Binary)]
    public_id: Vec<u8>,
    #[diesel(sql_type = Text)]
    path: String,
    #[diesel(sql_type = Binary)]
    version_id: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    last_sequence: i64,
    #[diesel(sql_type = BigInt)]
    created_at: i64,
}

const NEW_FILE: &[Column] = &[
    ("id", Kind::Int),
    ("public_id", Kind::Bytes),
    ("application_id", Kind::Int),
    ("path", Kind::Text),
    ("version_id", Kind::Bytes),
    ("last_sequence", Kind::Int),
    ("created_at", Kind::Int),
    ("updated_at", Kind::Int),
];

const REPLACED_FILE: &[Column] = &[
    ("id", Kind::Int),
    ("version_id", Kind::Bytes),
    ("last_sequence", Kind::Int),
    ("updated_at", Kind::Int),
];

const SUPERSEDED: &[Column] = &[("id", Kind::Bytes), ("superseded_at", Kind::Int)];

/// Puts versions at their paths, over what was there; the files as they are now, in the order
/// given, each with the number of the event that says so. Paths must differ.
pub fn put(
    connection: &mut Connection,
    application: Key,
    versions: &[NewVersion],
    now: i64,
) -> StoreResult<Vec<FileRow>> {
    let mut sorted: Vec<&NewVersion> = versions.iter().collect();
    // One order for all, so that two publishers never wait crosswise.
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut fresh = Rows::new("files", NEW_FILE);
    for new in &sorted {
        fresh.push([
            new.file_key.into(),
            new.file_id.into(),
            application.into(),
            new.path.as_str().into(),
            new.version_id.into(),
            1i64.into(),
            now.into(),
            now.into(),
        ]);
    }
    connection.insert(fresh, OnConflict::Skip)?;
    let sql = "SELECT id, public_id, path, version_id, last_sequence, created_at FROM files \
               WHERE application_id = ? AND deleted_at IS NULL AND path @key @lock";
    let (lock, within) = ("ORDER BY path FOR UPDATE", vec![Cell::from(application)]);
    let paths = sorted.iter().map(|new| Cell::from(new.path.as_str())).collect();
    let held = connection.load_by_keys_within::<HeldRow>(sql, lock, within, paths)?;
    let mut held: HashMap<String, HeldRow> =
        held.into_iter().map(|row| (row.path.clone(), row)).collect();
    let mut rows = Rows::new("file_versions", VERSION);
    let mut replaced = Rows::keyed("files", 1, REPLACED_FILE);
    let mut superseded = Rows::keyed("file_versions", 1, SUPERSEDED);
    let mut files = Vec::with_capacity(versions.len());
    for new in versions {
        let mut file = held
            .remove(&new.path)
            .ok_or_else(|| super::StoreError::Corrupt(format!("file {} vanished", new.path)))?;
        if file.version_id != new.version_id.as_bytes() {
            file.last_sequence += 1;
            superseded.push([std::mem::take(&mut file.version_id).into(), now.into()]);
            replaced.push([
                file.id.into(),
                new.version_id.into(),
                file.last_sequence.into(),
                now.into(),
            ]);
        }
        rows.push([
            new.version_id.into(),
            file.id.into(),
            new.size.into(),
            new.sha256.as_str().into(),
            new.media_type.as_str().into(),
            new.acl.as_str().into(),
            now.into(),
        ]);
        files.push(FileRow {
            id: file.id,
            public_id: file.public_id,
            path: file.path,
            version_id: new.version_id.as_bytes().to_vec(),
            last_sequence: file.last_sequence,
            created_at: file.created_at,
            updated_at: now,
            size: new.size,
            sha256: new.sha256.clone(),
            media_type: new.media_type.clone(),
            acl: new.acl.clone(),
        });
    }
    connection.update(superseded)?;
    connection.update(replaced)?;
    connection.insert(rows, OnConflict::Fail)?;
    Ok(files)
}

fn supersede(connection: &mut Connection, version: &[u8], now: i64) -> StoreResult<()> {
    let sql = "UPDATE file_versions SET superseded_at = ? WHERE id = ?";
    connection.execute(Statement::new(sql).bind(now).bind(version.to_vec()))?;
    Ok(())
}

/// Holds a path and removes it; the file as it was, with the number of the event that says so.
pub fn remove(
    connection: &mut Connection,
    application: Key,
    path: &str,
    now: i64,
) -> StoreResult<Option<FileRow>> {
    let lock = if connection.for_update().is_empty() { "" } else { " FOR UPDATE OF f" };
    let sql = format!(
        "{}WHERE f.application_id = ? AND f.path = ? AND f.deleted_at IS NULL{lock}",
        file_select!()
    );
    let mut file = connection.first::<FileRow>(Statement::new(sql).bind(application).bind(path))?;
    if let Some(file) = &mut file {
        file.last_sequence += 1;
        supersede(connection, &file.version_id, now)?;
        let sql = "UPDATE files SET deleted_at = ?, updated_at = ?, last_sequence = ? WHERE id = ?";
        let statement = Statement::new(sql).bind(now).bind(now);
        connection.execute(statement.bind(file.last_sequence).bind(file.id))?;
    }
    Ok(file)
}

/// Which file a job reads or made.
#[derive(Debug, Clone)]
pub struct JobFile {
    /// Job.
    pub job_id: Key,
    /// 0 source, 1 output.
    pub role: i64,
    /// Place in the list.
    pub ordinal: i64,
    /// Owner.
    pub application_id: Key,
    /// Path.
    pub path: String,
    /// Id of the file.
    pub file_id: uuid::Uuid,
    /// Version.
    pub version_id: Option<uuid::Uuid>,
}

const JOB_FILE: &[Column] = &[
    ("job_id", Kind::Int),
    ("role", Kind::Int),
    ("ordinal", Kind::Int),
    ("application_id", Kind::Int),
    ("path", Kind::Text),
    ("file_id", Kind::Bytes),
    ("version_id", Kind::Bytes),
];

/// Notes the files of jobs.
pub fn insert_job_files(connection: &mut Connection, files: &[JobFile]) -> StoreResult<()> {
    let mut rows = Rows::new("job_files", JOB_FILE);
    for file in files {
        rows.push([
            file.job_id.into(),
            file.role.into(),
            file.ordinal.into(),
            file.application_id.into(),
            file.path.as_str().into(),
            file.file_id.into(),
            file.version_id.into(),
        ]);
    }
    connection.insert(rows, OnConflict::Fail)?;
    Ok(())
}

#[derive(QueryableByName)]
struct SealedRow {
    #[diesel(sql_type = BigInt)]
    subject_id: i64,
    #[diesel(sql_type = Binary)]
    sealed: Vec<u8>,
}

/// Stores the sealed secrets of submissions.
pub fn insert_sealed(connection: &mut Connection, sealed: &[(Key, Vec<u8>)]) -> StoreResult<()> {
    const COLUMNS: &[Column] = &[("subject_id", Kind::Int), ("sealed", Kind::Bytes)];
    let mut rows = Rows::new("sealed_values", COLUMNS);
    for (subject, value) in sealed {
        rows.push([(*subject).into(), value.clone().into()]);
    }
    connection.insert(rows, OnConflict::Fail)?;
    Ok(())
}

/// Sealed secrets by subject.
pub fn load_sealed(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<(Key, Vec<u8>)>> {
    let rows = connection.load_by_keys::<SealedRow>(
        "SELECT subject_id, sealed FROM sealed_values WHERE subject_id @key",
        "",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    Ok(rows.into_iter().map(|row| (row.subject_id, row.sealed)).collect())
}
