//! Chunks of which nothing is left, for retention: found, removed. Must not know when it is time.

use std::collections::HashSet;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary};

use super::read;
use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::statement::{Cell, Statement};

/// What a look for old chunks found.
pub struct OldChunks {
    /// How many were looked at, old or not.
    pub looked_at: usize,
    /// Old ones of whose events nothing is left.
    pub gone: Vec<Key>,
    /// Where the next look starts; none behind the last chunk.
    pub next: Option<Key>,
    /// Whether all of them are too young to go.
    pub fresh: bool,
    /// The first that was made at or after `settled`.
    pub unsettled: Option<Key>,
}

/// From when on a chunk is old, and until when it may still change soon whether it can go.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    /// Old is what was made before.
    pub before: i64,
    /// What was made before this will keep what it has for long.
    pub settled: i64,
}

/// Looks at chunks behind a key: at most `chunks`, and none behind old ones that hold `events`
/// together. Changes nothing.
pub fn old_chunks(
    connection: &mut Connection,
    ages: Ages,
    after: Key,
    chunks: i64,
    events: i64,
) -> StoreResult<OldChunks> {
    #[derive(QueryableByName)]
    struct Dated {
        #[diesel(sql_type = BigInt)]
        id: i64,
        #[diesel(sql_type = BigInt)]
        created_at: i64,
        #[diesel(sql_type = BigInt)]
        size: i64,
    }
    let sql = "SELECT id, created_at, size FROM feed_chunks \
               WHERE id > ? AND position IS NOT NULL ORDER BY id LIMIT ?";
    let rows = connection.load::<Dated>(Statement::new(sql).bind(after).bind(chunks))?;
    let mut found =
        OldChunks { looked_at: 0, gone: Vec::new(), next: None, fresh: true, unsettled: None };
    let (mut old, mut held) = (Vec::new(), 0);
    for row in rows {
        if held >= events {
            break;
        }
        found.looked_at += 1;
        found.next = Some(row.id);
        if row.created_at >= ages.settled {
            found.unsettled = found.unsettled.or(Some(row.id));
        }
        if row.created_at < ages.before {
            found.fresh = false;
            held += row.size;
            old.push(row.id);
        }
    }
    found.gone = without_events(connection, &old)?;
    Ok(found)
}

/// Which of these chunks name only events that are gone.
fn without_events(connection: &mut Connection, chunks: &[Key]) -> StoreResult<Vec<Key>> {
    #[derive(QueryableByName)]
    struct Named {
        #[diesel(sql_type = BigInt)]
        id: i64,
        #[diesel(sql_type = Binary)]
        members: Vec<u8>,
    }
    #[derive(QueryableByName)]
    struct Left {
        #[diesel(sql_type = BigInt)]
        subject_id: i64,
        #[diesel(sql_type = BigInt)]
        sequence: i64,
    }
    let named = connection.load_by_keys::<Named>(
        "SELECT id, members FROM feed_chunks WHERE id @key",
        "",
        chunks.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    let mut members = Vec::with_capacity(named.len());
    for chunk in named {
        let pairs = read(&chunk.members)?.into_iter().map(|one| (one.subject, one.sequence));
        members.push((chunk.id, pairs.collect::<Vec<_>>()));
    }
    let pairs: Vec<(Key, i64)> = members.iter().flat_map(|(_, pairs)| pairs).copied().collect();
    let left: HashSet<(Key, i64)> = connection
        .load_by_pairs::<Left>(
            "SELECT e.subject_id, e.sequence FROM @given \
             JOIN events e ON e.subject_id = given.one AND e.sequence = given.two",
            &pairs,
        )?
        .into_iter()
        .map(|row| (row.subject_id, row.sequence))
        .collect();
    members.retain(|(_, pairs)| !pairs.iter().any(|pair| left.contains(pair)));
    Ok(members.into_iter().map(|(id, _)| id).collect())
}

/// Removes chunks.
pub fn remove(connection: &mut Connection, chunks: &[Key]) -> StoreResult<usize> {
    connection.delete_where("feed_chunks", "id", chunks)
}
