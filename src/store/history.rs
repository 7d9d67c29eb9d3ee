//! Many more of what was left by some work that is over: the past of a system that has long been in
//! use, for measuring beside it.
//!
//! Copies whole rows in the database itself, whatever their columns, with new keys, ids and times,
//! so that indexes, sizes and links are as the system leaves them. Must not know what the rows mean
//! beyond that. Only for databases made for measuring.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};

use super::connection::{Backend, Connection};
use super::error::StoreResult;
use super::feed::{self, Member, NewChunk};
use super::nodes;
use super::statement::Statement;
use crate::ids::Key;

/// Tables with what is left of a job, and the column that names their rows.
const TABLES: [(&str, &str); 5] = [
    ("jobs", "id"),
    ("events", "subject_id"),
    ("bodies", "subject_id"),
    ("deliveries", "id"),
    ("attempts", "delivery_id"),
];

/// Columns that hold times. When a job was to run stands in its first event too, and stays.
const TIMES: [&str; 7] =
    ["created_at", "updated_at", "started_at", "completed_at", "finished_at", "asked_at", "at"];

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
    /// Microseconds.
    began: i64,
    length: i64,
    members: Vec<Member>,
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
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Takes all jobs of a database as the pattern: they have to be over, and of one application.
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
    let mut members = Vec::new();
    for chunk in feed::chunks_from(connection, extent.application_id, 0, FEED_CHUNKS)? {
        members.extend(chunk.members);
    }
    Ok(Some(Pattern {
        application: extent.application_id,
        first: extent.first,
        last: extent.last,
        began: extent.began,
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
            let created_at = pattern.began + (lot.made + number - lot.total) * pattern.length;
            for (id, members) in (moved + span..).zip(pattern.members.chunks(CHUNK)) {
                let its = |member: &Member| Member {
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
/// pages as visible to all and takes statistics.
pub fn let_settle(connection: &mut Connection) -> StoreResult<()> {
    if connection.backend() == Backend::Postgres {
        for (table, _) in TABLES {
            connection.batch(&format!("VACUUM (ANALYZE) {table}"))?;
        }
        connection.batch("VACUUM (ANALYZE) feed_chunks")?;
        connection.batch("CHECKPOINT")?;
    }
    Ok(())
}

/// What is there of the jobs that were made after a key.
#[derive(Debug, Clone, QueryableByName)]
pub struct Tally {
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub jobs: i64,
    /// Of those, with less or more than one whole life: created, started, succeeded, each event of
    /// it delivered once where it was owed, by one attempt that is closed with its HTTP status, or
    /// still owed where nobody answers.
    #[diesel(sql_type = BigInt)]
    pub faulty: i64,
}

/// Looks at every job made after a key, of which each has so many deliveries, and so many more that
/// it still owes.
pub fn tally(
    connection: &mut Connection,
    after: Key,
    delivered: i64,
    owed: i64,
) -> StoreResult<Tally> {
    if connection.backend() == Backend::Postgres {
        // A plan made for the empty tables of a minute ago would take hours.
        connection.batch("ANALYZE jobs, events, deliveries, attempts")?;
        connection.batch(UNBOUNDED)?;
    }
    let sql = "SELECT COUNT(*) AS jobs, COUNT(CASE WHEN \
               status = 3 AND events = 3 AND told = 3 AND deliveries = ? AND delivered = ? \
               AND owed = ? AND attempts = ? AND closed = ? THEN NULL ELSE 1 END) AS faulty FROM ( \
               SELECT j.status, \
               (SELECT COUNT(*) FROM events e WHERE e.subject_id = j.id) AS events, \
               (SELECT COUNT(*) FROM events e WHERE e.subject_id = j.id AND e.type = CASE e.sequence \
                WHEN 1 THEN 'job.created' WHEN 2 THEN 'job.started' WHEN 3 THEN 'job.succeeded' END) \
               AS told, \
               (SELECT COUNT(*) FROM deliveries d WHERE d.subject_id = j.id) AS deliveries, \
               (SELECT COUNT(*) FROM deliveries d WHERE d.subject_id = j.id AND d.status = 1) \
               AS delivered, \
               (SELECT COUNT(*) FROM deliveries d WHERE d.subject_id = j.id AND d.status = 0) \
               AS owed, \
               (SELECT COUNT(*) FROM deliveries d JOIN attempts a ON a.delivery_id = d.id \
                WHERE d.subject_id = j.id AND d.status <> 0) AS attempts, \
               (SELECT COUNT(*) FROM deliveries d JOIN attempts a ON a.delivery_id = d.id \
                WHERE d.subject_id = j.id AND a.outcome = 'delivered' AND a.finished_at IS NOT NULL \
                AND a.response_status BETWEEN 200 AND 299) AS closed \
               FROM jobs j WHERE j.id > ?) AS each_job";
    let statement = Statement::new(sql)
        .bind(delivered + owed)
        .bind(delivered)
        .bind(owed)
        .bind(delivered)
        .bind(delivered)
        .bind(after);
    Ok(connection.first::<Tally>(statement)?.unwrap_or(Tally { jobs: 0, faulty: 0 }))
}

/// The last key that was given out.
pub fn last_key(connection: &mut Connection) -> StoreResult<Key> {
    nodes::reserve_keys(connection, 1)
}

struct Copying<'a> {
    lot: Lot,
    pattern: &'a Pattern,
    /// What is added to a key of the pattern for the first copy, and for each further one.
    shift: i64,
    each: i64,
}

impl Copying<'_> {
    fn statement(
        &self,
        connection: &mut Connection,
        table: &str,
        key: &str,
    ) -> StoreResult<String> {
        let backend = connection.backend();
        let sql = match backend {
            Backend::Sqlite => "SELECT name FROM pragma_table_info(?)",
            Backend::Postgres => {
                "SELECT column_name::text AS name FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND table_name = ? ORDER BY ordinal_position"
            }
        };
        let columns: Vec<Name> = connection.load(Statement::new(sql).bind(table))?;
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let values: Vec<String> =
            names.iter().map(|name| self.value(backend, table, name)).collect();
        let joins = match table {
            "bodies" => {
                "JOIN events e ON e.subject_id = t.subject_id AND e.sequence = t.sequence \
                 JOIN jobs j ON j.id = t.subject_id"
            }
            _ => "",
        };
        Ok(format!(
            "INSERT INTO {table} ({}) WITH RECURSIVE numbers (n) AS (SELECT CAST(0 AS BIGINT) \
             UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {}) \
             SELECT {} FROM numbers CROSS JOIN {table} t {joins} \
             WHERE t.{key} BETWEEN {} AND {} ORDER BY n, t.{key}",
            names.join(", "),
            self.lot.copies,
            values.join(", "),
            self.pattern.first,
            self.pattern.last
        ))
    }

    fn value(&self, backend: Backend, table: &str, column: &str) -> String {
        let time = if table == "events" { "t.at" } else { "t.created_at" };
        match column {
            "id" | "subject_id" | "delivery_id" => {
                format!("t.{column} + n * {} + {}", self.each, self.shift)
            }
            "public_id" | "event_id" => self.id(backend, &format!("t.{column}"), time),
            "body" => {
                let event = self.id(backend, "e.public_id", "e.at");
                let job = self.id(backend, "j.public_id", "j.created_at");
                format!(
                    "replace(replace(t.body, {}, {}), {}, {})",
                    shown(backend, "e.public_id"),
                    shown(backend, &event),
                    shown(backend, "j.public_id"),
                    shown(backend, &job)
                )
            }
            _ if TIMES.contains(&column) => self.moved(&format!("t.{column}")),
            _ => format!("t.{column}"),
        }
    }

    fn moved(&self, time: &str) -> String {
        format!("{time} + (n + {}) * {}", self.lot.made - self.lot.total, self.pattern.length)
    }

    /// An id of the copy's time, which no other copy has; the rest of it stays, since ids of one
    /// millisecond differ in nothing else.
    fn id(&self, backend: Backend, old: &str, time: &str) -> String {
        let millis = format!("({}) / 1000", self.moved(time));
        match backend {
            Backend::Sqlite => {
                format!("unhex(printf('%012x', {millis}) || substr(hex({old}), 13, 20))")
            }
            Backend::Postgres => format!(
                "decode(lpad(to_hex({millis}), 12, '0') || substr(encode({old}, 'hex'), 13, 20), \
                 'hex')"
            ),
        }
    }
}

/// An id as text.
fn shown(backend: Backend, id: &str) -> String {
    match backend {
        Backend::Sqlite => {
            let digits = format!("lower(hex({id}))");
            let parts = [(1, 8), (9, 4), (13, 4), (17, 4), (21, 12)]
                .map(|(from, length)| format!("substr({digits}, {from}, {length})"));
            format!("({})", parts.join(" || '-' || "))
        }
        Backend::Postgres => format!("(encode({id}, 'hex')::uuid::text)"),
    }
}
