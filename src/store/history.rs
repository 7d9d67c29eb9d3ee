//! Many more of what was left by some work that is over: the past of a system that has long been in
//! use, for measuring beside it.
//!
//! Copies whole rows in the database itself, whatever their columns, with new keys, ids and times,
//! so that indexes, sizes and links are as the system leaves them. Must not know what the rows mean
//! beyond that. Only for databases made for measuring.

mod copying;
mod tally;

use diesel::QueryableByName;
use diesel::sql_types::BigInt;

use super::connection::Connection;
use super::error::StoreResult;
use super::feed::{self, Member, NewChunk};
use super::location::Backend;
use super::nodes;
use super::statement::Statement;
use crate::ids::Key;
use copying::Copying;
pub use tally::{Tally, Whole, tally};

/// Tables with what is left of a job, and the column that names their rows.
const TABLES: [(&str, &str); 5] = [
    ("jobs", "id"),
    ("events", "subject_id"),
    ("bodies", "subject_id"),
    ("deliveries", "id"),
    ("attempts", "delivery_id"),
];

/// Events that enter the feed together, as under load.
const CHUNK: usize = 48;

/// More chunks than a pattern has.
const FEED_CHUNKS: i64 = 100_000;

/// For statements over whole tables, which no server runs.
pub const UNBOUNDED: &str = "SET statement_timeout = 0; SET enable_seqscan = on; \
                             SET enable_hashjoin = on; SET enable_mergejoin = on";

/// The work that is copied.
#[derive(Debug, Clone)]
pub struct Pattern {
    application: Key,
    /// Keys of its rows lie in here.
    first: Key,
    last: Key,
    /// Microseconds that its times span.
    length: i64,
    /// What entered its feed, and when.
    members: Vec<(Member, i64)>,
    /// How many jobs.
    pub jobs: i64,
}

/// Which copies of how many.
#[derive(Debug, Clone, Copy)]
pub struct Lot {
    /// Made before.
    pub made: i64,
    /// Made now.
    pub copies: i64,
    /// Made in the end. Earlier copies are of earlier times, and all are older than the pattern.
    pub total: i64,
}

#[derive(QueryableByName)]
struct Extent {
    #[diesel(sql_type = BigInt)]
    application_id: i64,
    #[diesel(sql_type = BigInt)]
    jobs: i64,
    #[diesel(sql_type = BigInt)]
    first: i64,
    #[diesel(sql_type = BigInt)]
    last: i64,
    #[diesel(sql_type = BigInt)]
    began: i64,
    #[diesel(sql_type = BigInt)]
    ended: i64,
}

#[derive(QueryableByName)]
struct Entered {
    #[diesel(sql_type = BigInt)]
    at: i64,
}

/// Takes all jobs of a database as the pattern: they have to be over, each at its first try, and of
/// one application.
pub fn pattern(connection: &mut Connection) -> StoreResult<Option<Pattern>> {
    // Each writer draws keys in blocks of its own, so neither table has the first or the last.
    let sql = "SELECT MIN(application_id) AS application_id, COUNT(*) AS jobs, \
               LEAST(MIN(id), (SELECT MIN(id) FROM deliveries)) AS first, \
               GREATEST(MAX(id), (SELECT MAX(id) FROM deliveries)) AS last, \
               MIN(created_at) AS began, (SELECT MAX(completed_at) FROM deliveries) AS ended \
               FROM jobs HAVING COUNT(*) > 0 AND COUNT(*) = COUNT(completed_at)";
    let sql = match connection.backend() {
        Backend::Sqlite => sql.replace("LEAST", "MIN").replace("GREATEST", "MAX"),
        Backend::Postgres => sql.to_owned(),
    };
    let Some(extent) = connection.first::<Extent>(Statement::new(sql))? else { return Ok(None) };
    let sql = "SELECT created_at AS at FROM feed_chunks \
               WHERE application_id = ? AND position IS NOT NULL ORDER BY position";
    let entered: Vec<Entered> = connection.load(Statement::new(sql).bind(extent.application_id))?;
    let chunks = feed::chunks_from(connection, extent.application_id, 0, FEED_CHUNKS)?;
    let mut members = Vec::new();
    for (chunk, Entered { at }) in chunks.into_iter().zip(entered) {
        members.extend(chunk.members.into_iter().map(|member| (member, at)));
    }
    Ok(Some(Pattern {
        application: extent.application_id,
        first: extent.first,
        last: extent.last,
        // Times are whole milliseconds, and stay so.
        length: (extent.ended - extent.began).div_euclid(1_000) * 1_000 + 1_000,
        members,
        jobs: extent.jobs,
    }))
}

/// Makes copies of a pattern. Runs in a transaction of its own.
pub fn copy(connection: &mut Connection, pattern: &Pattern, lot: Lot) -> StoreResult<()> {
    // The feed's chunks have keys too.
    let chunks = i64::try_from(pattern.members.len().div_ceil(CHUNK)).unwrap_or(i64::MAX);
    let span = pattern.last - pattern.first + 1;
    let base = nodes::reserve_keys(connection, lot.copies * (span + chunks))?;
    connection.begin()?;
    let result = (|| {
        for (table, key) in TABLES {
            let copying =
                Copying { lot, pattern, shift: base - pattern.first, each: span + chunks };
            let sql = copying.statement(connection, table, key)?;
            connection.batch(&sql)?;
        }
        for number in 0..lot.copies {
            let moved = base + number * (span + chunks);
            let later = (lot.made + number - lot.total) * pattern.length;
            for (id, members) in (moved + span..).zip(pattern.members.chunks(CHUNK)) {
                let created_at =
                    later + members.iter().map(|(_, at)| *at).max().unwrap_or_default();
                let its = |(member, _): &(Member, i64)| Member {
                    subject: member.subject - pattern.first + moved,
                    ..*member
                };
                let members = members.iter().map(its).collect();
                let application = pattern.application;
                let chunk = NewChunk { id, application, created_at, members, awaited: false };
                feed::append(connection, &chunk)?;
            }
        }
        while connection.backend() == Backend::Postgres
            && feed::place_waiting(connection, FEED_CHUNKS, i64::MAX)?.chunks > 0
        {}
        Ok(())
    })();
    match result {
        Ok(()) => connection.commit(),
        Err(error) => {
            connection.rollback();
            Err(error)
        }
    }
}

/// What the database does by itself in time to tables that have grown: on Postgres autovacuum marks
/// pages as visible to all and takes statistics, and what was written reaches its place.
pub fn let_settle(connection: &mut Connection) -> StoreResult<()> {
    if connection.backend() == Backend::Postgres {
        connection.batch(UNBOUNDED)?;
        for (table, _) in TABLES {
            connection.batch(&format!("VACUUM (ANALYZE) {table}"))?;
        }
        connection.batch("VACUUM (ANALYZE) feed_chunks")?;
        // Not every user may; who may not leaves it to the database.
        let _ = connection.batch("CHECKPOINT");
    }
    Ok(())
}

/// The last key that was given out.
pub fn last_key(connection: &mut Connection) -> StoreResult<Key> {
    nodes::reserve_keys(connection, 1)
}
