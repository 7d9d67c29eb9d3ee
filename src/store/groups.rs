//! Rows of groups. A lone job's implicit group has none.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::rows::{Column, Kind, OnConflict, Rows};
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// A group.
#[derive(Debug, Clone, QueryableByName)]
pub struct GroupRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// Owner.
    #[diesel(sql_type = BigInt)]
    pub application_id: i64,
    /// Gets `group.completed`.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub receiver_id: Option<i64>,
    /// 1 when nothing may join.
    #[diesel(sql_type = BigInt)]
    pub sealed: i64,
    /// When `group.completed` was appended.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub completed_at: Option<i64>,
    /// Jobs that ever joined.
    #[diesel(sql_type = BigInt)]
    pub total: i64,
    /// Ended well.
    #[diesel(sql_type = BigInt)]
    pub success: i64,
    /// Ended badly.
    #[diesel(sql_type = BigInt)]
    pub error: i64,
    /// Ended by request.
    #[diesel(sql_type = BigInt)]
    pub stopped: i64,
    /// Number of the last event.
    #[diesel(sql_type = BigInt)]
    pub last_sequence: i64,
    /// Ties log lines together.
    #[diesel(sql_type = Text)]
    pub request_id: String,
    /// When made.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
    /// Last change.
    #[diesel(sql_type = BigInt)]
    pub updated_at: i64,
}

macro_rules! columns {
    () => {
        "id, public_id, application_id, receiver_id, sealed, completed_at, total, success, error, \
         stopped, last_sequence, request_id, created_at, updated_at"
    };
}

const ALL: &[Column] = &[
    ("id", Kind::Int),
    ("public_id", Kind::Bytes),
    ("application_id", Kind::Int),
    ("receiver_id", Kind::Int),
    ("sealed", Kind::Int),
    ("completed_at", Kind::Int),
    ("total", Kind::Int),
    ("success", Kind::Int),
    ("error", Kind::Int),
    ("stopped", Kind::Int),
    ("last_sequence", Kind::Int),
    ("request_id", Kind::Text),
    ("created_at", Kind::Int),
    ("updated_at", Kind::Int),
];

/// Inserts groups; those whose ids are taken are skipped.
pub fn insert(connection: &mut Connection, groups: &[GroupRow]) -> StoreResult<()> {
    let mut rows = Rows::new("groups", ALL);
    for group in groups {
        rows.push([
            group.id.into(),
            group.public_id.clone().into(),
            group.application_id.into(),
            group.receiver_id.into(),
            group.sealed.into(),
            group.completed_at.into(),
            group.total.into(),
            group.success.into(),
            group.error.into(),
            group.stopped.into(),
            group.last_sequence.into(),
            group.request_id.as_str().into(),
            group.created_at.into(),
            group.updated_at.into(),
        ]);
    }
    connection.insert(rows, OnConflict::Skip)
}

/// Groups by key, held for this transaction.
pub fn load(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<GroupRow>> {
    connection.load_by_keys(
        concat!("SELECT ", columns!(), " FROM groups WHERE id @key @lock"),
        "ORDER BY id FOR UPDATE",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// Groups by their ids outside, as far as they are there.
pub fn known(connection: &mut Connection, ids: &[uuid::Uuid]) -> StoreResult<Vec<Key>> {
    #[derive(QueryableByName)]
    struct Known {
        #[diesel(sql_type = BigInt)]
        id: i64,
    }
    let rows = connection.load_by_keys::<Known>(
        "SELECT id FROM groups WHERE public_id @key",
        "",
        ids.iter().map(|id| Cell::from(*id)).collect(),
    )?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Groups by key, for reading.
pub fn read(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<GroupRow>> {
    let sql = concat!("SELECT ", columns!(), " FROM groups WHERE id @key");
    connection.load_by_keys(sql, "", keys.iter().map(|key| Cell::from(*key)).collect())
}

/// One group by its id outside, held for this transaction.
pub fn hold(connection: &mut Connection, id: uuid::Uuid) -> StoreResult<Option<GroupRow>> {
    let lock = connection.for_update();
    let sql = concat!("SELECT ", columns!(), " FROM groups WHERE public_id = ?");
    connection.first(Statement::new(format!("{sql}{lock}")).bind(id))
}

/// One group by its id outside, for reading.
pub fn find(connection: &mut Connection, id: uuid::Uuid) -> StoreResult<Option<GroupRow>> {
    let sql = concat!("SELECT ", columns!(), " FROM groups WHERE public_id = ?");
    connection.first(Statement::new(sql).bind(id))
}

const CHANGE: &[Column] = &[
    ("id", Kind::Int),
    ("sealed", Kind::Int),
    ("completed_at", Kind::Int),
    ("total", Kind::Int),
    ("success", Kind::Int),
    ("error", Kind::Int),
    ("stopped", Kind::Int),
    ("last_sequence", Kind::Int),
    ("updated_at", Kind::Int),
];

/// Writes changed groups, held in this transaction.
pub fn update(connection: &mut Connection, groups: &[GroupRow]) -> StoreResult<()> {
    let mut rows = Rows::keyed("groups", 1, CHANGE);
    for group in groups {
        rows.push([
            group.id.into(),
            group.sealed.into(),
            group.completed_at.into(),
            group.total.into(),
            group.success.into(),
            group.error.into(),
            group.stopped.into(),
            group.last_sequence.into(),
            group.updated_at.into(),
        ]);
    }
    connection.update(rows)
}
