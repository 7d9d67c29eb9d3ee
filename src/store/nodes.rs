//! Who is alive and who sends for which lanes; and the blocks of row keys.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable};

use super::connection::Connection;
use super::error::{StoreError, StoreResult};
use super::statement::Statement;
use crate::ids::Key;

#[derive(QueryableByName)]
struct ValueRow {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

/// Reserves `count` keys; the first of them. The counter is held until the transaction ends.
pub fn reserve_keys(connection: &mut Connection, count: i64) -> StoreResult<Key> {
    let sql = "UPDATE counters SET value = value + ? WHERE name = 'keys' RETURNING value";
    let row = connection.first::<ValueRow>(Statement::new(sql).bind(count))?;
    row.map(|row| row.value - count)
        .ok_or_else(|| StoreError::Corrupt("the counter of keys is missing".to_owned()))
}

#[derive(QueryableByName)]
struct SettingRow {
    #[diesel(sql_type = Binary)]
    value: Vec<u8>,
}

/// What the installation agreed on under a name: `offered` when nobody has said before.
pub fn agree(connection: &mut Connection, name: &str, offered: &[u8]) -> StoreResult<Vec<u8>> {
    let insert = "INSERT INTO installation (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING";
    connection.execute(Statement::new(insert).bind(name).bind(offered.to_vec()))?;
    let select = "SELECT value FROM installation WHERE name = ?";
    let row = connection.first::<SettingRow>(Statement::new(select).bind(name))?;
    row.map(|row| row.value)
        .ok_or_else(|| StoreError::Corrupt(format!("the installation has no {name}")))
}

/// What a node says of itself with each beat.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Which node.
    pub node: Key,
    /// Its name in the event log.
    pub name: String,
    /// When it started.
    pub started_at: i64,
    /// It is alive until then.
    pub expires_at: i64,
    /// Its end would show by its guard.
    pub guarded: bool,
    /// It is about to leave.
    pub leaving: bool,
}

/// Says that a node is alive.
pub fn beat(connection: &mut Connection, beat: &Beat) -> StoreResult<()> {
    let sql = "INSERT INTO nodes (id, name, started_at, expires_at, guarded, leaving) \
               VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET \
               expires_at = excluded.expires_at, guarded = excluded.guarded, \
               leaving = excluded.leaving";
    let statement = Statement::new(sql)
        .bind(beat.node)
        .bind(beat.name.as_str())
        .bind(beat.started_at)
        .bind(beat.expires_at)
        .bind(beat.guarded)
        .bind(beat.leaving);
    connection.execute(statement)?;
    Ok(())
}

/// Says that a node has left: what it still holds is free at once.
pub fn leave(connection: &mut Connection, node: Key) -> StoreResult<()> {
    connection.execute(
        Statement::new("UPDATE shards SET node_id = NULL, epoch = epoch + 1 WHERE node_id = ?")
            .bind(node),
    )?;
    connection.execute(Statement::new("DELETE FROM nodes WHERE id = ?").bind(node))?;
    Ok(())
}

/// Removes all nodes: on SQLite nobody else can be alive when a server starts.
pub fn clear(connection: &mut Connection) -> StoreResult<()> {
    connection.execute(Statement::new("DELETE FROM nodes"))?;
    connection.execute(Statement::new("UPDATE shards SET node_id = NULL"))?;
    Ok(())
}

/// Removes nodes that died and left nothing behind.
pub fn remove_dead(connection: &mut Connection, before: i64) -> StoreResult<()> {
    let sql = "DELETE FROM nodes WHERE expires_at < ? \
               AND NOT EXISTS (SELECT 1 FROM live_jobs j WHERE j.phase = 2 AND j.node_id = nodes.id) \
               AND NOT EXISTS (SELECT 1 FROM live_deliveries d WHERE d.phase = 1 AND d.node_id = nodes.id)";
    connection.execute(Statement::new(sql).bind(before))?;
    Ok(())
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// How many nodes are alive and want to stay.
pub fn alive(connection: &mut Connection, now: i64) -> StoreResult<i64> {
    let sql = "SELECT COUNT(*) AS count FROM nodes WHERE expires_at > ? AND leaving = 0";
    let row = connection.first::<CountRow>(Statement::new(sql).bind(now))?;
    Ok(row.map_or(0, |row| row.count))
}

/// One shard of the lanes.
#[derive(Debug, Clone, QueryableByName)]
pub struct ShardRow {
    /// 0..64.
    #[diesel(sql_type = BigInt)]
    pub shard: i64,
    /// Owner.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub node_id: Option<i64>,
    /// When the owner's row expires; absent when the owner is unknown.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub owner_expires_at: Option<i64>,
}

/// All shards with their owners' expiry, held for this transaction.
pub fn shards(connection: &mut Connection) -> StoreResult<Vec<ShardRow>> {
    let lock = if connection.for_update().is_empty() { "" } else { " FOR UPDATE OF s" };
    let sql = format!(
        "SELECT s.shard, s.node_id, n.expires_at AS owner_expires_at \
         FROM shards s LEFT JOIN nodes n ON n.id = s.node_id ORDER BY s.shard{lock}"
    );
    connection.load(Statement::new(sql))
}

/// Gives a shard to a node.
pub fn take_shard(connection: &mut Connection, shard: i64, node: Key) -> StoreResult<()> {
    let sql = "UPDATE shards SET node_id = ?, epoch = epoch + 1 WHERE shard = ?";
    connection.execute(Statement::new(sql).bind(node).bind(shard))?;
    Ok(())
}

/// Gives a shard of a node to nobody.
pub fn free_shard(connection: &mut Connection, shard: i64, node: Key) -> StoreResult<()> {
    let sql = "UPDATE shards SET node_id = NULL, epoch = epoch + 1 WHERE shard = ? AND node_id = ?";
    connection.execute(Statement::new(sql).bind(shard).bind(node))?;
    Ok(())
}
