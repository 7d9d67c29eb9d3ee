//! The session by which the end of a node shows at once: on Postgres it holds a lock, and the
//! database lets go of that when the process dies. Nothing else runs on it.
//!
//! Must not judge who is dead: it tells what it sees.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool};

use super::connection::Connection;
use super::error::{StoreError, StoreResult};
use super::location::Location;
use super::statement::Statement;
use crate::ids::Key;

/// The first half of the number of a node's lock; the other is the low bits of its key. Nobody else
/// in the database uses such pairs.
const CLASS: i64 = 0x7269_6e67;

/// A node's lock, and the session that holds it.
pub struct Guard {
    connection: Connection,
    node: Key,
    session: i64,
}

/// Another living node that has a guard, as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
pub struct Peer {
    /// Which.
    #[diesel(sql_type = BigInt)]
    pub id: Key,
    /// Whether its session holds its lock.
    #[diesel(sql_type = Bool)]
    pub held: bool,
}

/// What a guard sees.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Other nodes.
    pub peers: Vec<Peer>,
    /// Shards that nobody sends for.
    pub free_shards: i64,
}

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = Bool)]
    taken: bool,
    #[diesel(sql_type = BigInt)]
    session: i64,
}

#[derive(QueryableByName)]
struct Free {
    #[diesel(sql_type = BigInt)]
    free_shards: i64,
    #[diesel(sql_type = BigInt)]
    session: i64,
}

impl Guard {
    /// Opens a session and takes the node's lock. An error when somebody looks at that lock just
    /// now, as when the database cannot be reached.
    pub fn take(location: &Location, node: Key) -> StoreResult<Guard> {
        let mut connection = Connection::open(location)?;
        let sql = "SELECT pg_try_advisory_lock(?::int, (? & 2147483647)::int) AS taken, \
                   pg_backend_pid()::bigint AS session";
        let row = connection.first::<Taken>(Statement::new(sql).bind(CLASS).bind(node))?;
        match row.filter(|row| row.taken) {
            Some(row) => Ok(Guard { connection, node, session: row.session }),
            None => Err(StoreError::Unavailable(None)),
        }
    }

    /// Looks whether this session is still the same, and at the others. The look holds a lock of
    /// somebody who is gone for no longer than it takes.
    pub fn look(&mut self) -> StoreResult<View> {
        let sql = "SELECT COUNT(*) AS free_shards, pg_backend_pid()::bigint AS session \
                   FROM shards WHERE node_id IS NULL";
        let row = self.connection.first::<Free>(Statement::new(sql))?;
        // Behind a pooler of connections a session may be somebody else's from one statement to
        // the next; then its locks tell nothing.
        let row = row.filter(|row| row.session == self.session);
        let free_shards = row.ok_or(StoreError::Unavailable(None))?.free_shards;
        let sql = "SELECT id, NOT pg_try_advisory_xact_lock_shared(?::int, \
                   (id & 2147483647)::int) AS held FROM nodes WHERE id <> ? AND guarded = 1 \
                   AND expires_at > (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint";
        let peers = self.connection.load(Statement::new(sql).bind(CLASS).bind(self.node))?;
        Ok(View { peers, free_shards })
    }
}

#[derive(QueryableByName)]
struct Gone {
    #[diesel(sql_type = BigInt)]
    id: Key,
}

/// Ends the life of a node whose lock is free; whether it did. The lock is held until the end of the
/// transaction, so that the node cannot come back in between.
pub fn end_life(connection: &mut Connection, node: Key, now: i64) -> StoreResult<bool> {
    let sql = "UPDATE nodes SET expires_at = ? WHERE id = ? AND guarded = 1 AND expires_at > ? \
               AND pg_try_advisory_xact_lock_shared(?::int, (id & 2147483647)::int) RETURNING id";
    let statement = Statement::new(sql).bind(now).bind(node).bind(now).bind(CLASS);
    Ok(connection.first::<Gone>(statement)?.is_some_and(|gone| gone.id == node))
}
