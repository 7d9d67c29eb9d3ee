//! Rows of jobs: the lasting one, and the live one beside it while the job is not final.
//!
//! How the live one is written is in `live`, what is asked of all of them in `queue`, what is held for
//! a transaction in `holding`.

mod holding;
mod live;
mod queue;

pub use holding::*;
pub use live::*;
pub use queue::*;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Double, Nullable, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::rows::{Column, Kind, OnConflict, Rows};
use super::statement::{Cell, Statement};
use crate::ids::Key;

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// Phases of a live job.
pub mod phase {
    /// Waits for its run time.
    pub const WAITING: i64 = 0;
    /// May be claimed.
    pub const READY: i64 = 1;
    /// A node works on it.
    pub const LEASED: i64 = 2;
}

/// A job with its live part, if it has one, and its submission.
#[derive(Debug, Clone, QueryableByName)]
pub struct JobRow {
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// Owner.
    #[diesel(sql_type = BigInt)]
    pub application_id: i64,
    /// Callback.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub receiver_id: Option<i64>,
    /// When accepted.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
    /// Whether a live row exists.
    #[diesel(sql_type = BigInt)]
    pub live: i64,
    /// How it stands.
    #[diesel(embed)]
    pub state: StateRow,
    /// When final.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub completed_at: Option<i64>,
    /// JSON of the result.
    #[diesel(sql_type = Nullable<Text>)]
    pub result: Option<String>,
    /// In the trash since.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub deleted_at: Option<i64>,
    /// JSON of event 1.
    #[diesel(sql_type = Text)]
    pub submission: String,
}

/// What changes of a job while it is live, and which group it has come to.
#[derive(Debug, Clone, QueryableByName)]
pub struct StateRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Explicit group.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub group_id: Option<i64>,
    /// Number of the status.
    #[diesel(sql_type = BigInt)]
    pub status: i64,
    /// Last change of status.
    #[diesel(sql_type = BigInt)]
    pub updated_at: i64,
    /// Tries that count.
    #[diesel(sql_type = BigInt)]
    pub attempt: i64,
    /// Nodes that died with it.
    #[diesel(sql_type = BigInt)]
    pub lost_nodes: i64,
    /// Lease.
    #[diesel(sql_type = BigInt)]
    pub token: i64,
    /// Number of the last event.
    #[diesel(sql_type = BigInt)]
    pub last_sequence: i64,
    /// 0..1.
    #[diesel(sql_type = Double)]
    pub progress: f64,
    /// As of the last announcement.
    #[diesel(sql_type = Double)]
    pub announced_progress: f64,
    /// When that was.
    #[diesel(sql_type = BigInt)]
    pub announced_at: i64,
    /// Start of the current or last try.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub started_at: Option<i64>,
    /// Stable code.
    #[diesel(sql_type = Nullable<Text>)]
    pub failure_code: Option<String>,
    /// For people.
    #[diesel(sql_type = Nullable<Text>)]
    pub failure_detail: Option<String>,
    /// Not before.
    #[diesel(sql_type = BigInt)]
    pub run_at: i64,
}

/// Columns of a job whichever it is, for reads.
macro_rules! any_columns {
    () => {
        "j.id, j.public_id, j.application_id, j.group_id, j.receiver_id, j.created_at, \
         CASE WHEN l.id IS NULL THEN CAST(0 AS BIGINT) ELSE CAST(1 AS BIGINT) END AS live, \
         COALESCE(l.status, j.status) AS status, COALESCE(l.updated_at, j.updated_at) AS updated_at, \
         COALESCE(l.attempt, j.attempt) AS attempt, COALESCE(l.lost_nodes, j.lost_nodes) AS lost_nodes, \
         COALESCE(l.token, j.token) AS token, COALESCE(l.last_sequence, j.last_sequence) AS last_sequence, \
         COALESCE(l.progress, j.progress) AS progress, \
         COALESCE(l.announced_progress, j.progress) AS announced_progress, \
         COALESCE(l.announced_at, j.updated_at) AS announced_at, \
         CASE WHEN l.id IS NULL THEN j.started_at ELSE l.started_at END AS started_at, \
         j.completed_at, j.result, \
         CASE WHEN l.id IS NULL THEN j.failure_code ELSE l.failure_code END AS failure_code, \
         CASE WHEN l.id IS NULL THEN j.failure_detail ELSE l.failure_detail END AS failure_detail, \
         COALESCE(l.run_at, j.run_at) AS run_at, j.deleted_at, e.data AS submission"
    };
}
pub(super) use any_columns;

/// Tables of `any_columns`. Event 1 is always there; an outer join is how Postgres is told to look it
/// up for each job: on tables that it believes to be small it would begin with all first events.
macro_rules! any_tables {
    () => {
        "jobs j LEFT JOIN live_jobs l ON l.id = j.id \
         LEFT JOIN events e ON e.subject_id = j.id AND e.sequence = 1"
    };
}
pub(super) use any_tables;

/// Jobs by key, live or final, for reading.
pub fn read(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<JobRow>> {
    connection.load_by_keys(
        concat!("SELECT ", any_columns!(), " FROM ", any_tables!(), " WHERE j.id @key"),
        "",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// One job by its id outside, for reading.
pub fn find(connection: &mut Connection, id: uuid::Uuid) -> StoreResult<Option<JobRow>> {
    let sql = concat!("SELECT ", any_columns!(), " FROM ", any_tables!(), " WHERE j.public_id = ?");
    connection.first(Statement::new(sql).bind(id))
}

/// Jobs of an explicit group in the order of joining, behind a `(date, key)`, for reading. Keys
/// alone tell no order: each writer draws its own block of them.
pub fn of_group(
    connection: &mut Connection,
    group: Key,
    after: (i64, Key),
    limit: i64,
) -> StoreResult<Vec<JobRow>> {
    let sql = concat!(
        "SELECT ",
        any_columns!(),
        " FROM ",
        any_tables!(),
        " WHERE j.group_id = ? AND (j.created_at, j.id) > (?, ?) \
         ORDER BY j.created_at, j.id LIMIT ?"
    );
    connection.load(Statement::new(sql).bind(group).bind(after.0).bind(after.1).bind(limit))
}

/// What stays of a job from the start.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Key.
    pub id: Key,
    /// Id outside.
    pub public_id: uuid::Uuid,
    /// Owner.
    pub application_id: Key,
    /// Explicit group.
    pub group_id: Option<Key>,
    /// The job type.
    pub job_type: String,
    /// Callback.
    pub receiver_id: Option<Key>,
    /// The job that made it.
    pub parent_id: Option<Key>,
    /// When.
    pub created_at: i64,
}

const NEW_JOB: &[Column] = &[
    ("id", Kind::Int),
    ("public_id", Kind::Bytes),
    ("application_id", Kind::Int),
    ("group_id", Kind::Int),
    ("type", Kind::Text),
    ("receiver_id", Kind::Int),
    ("parent_id", Kind::Int),
    ("created_at", Kind::Int),
];

/// Inserts lasting rows.
pub fn insert<'a>(
    connection: &mut Connection,
    jobs: impl Iterator<Item = &'a NewJob>,
) -> StoreResult<()> {
    let mut rows = Rows::new("jobs", NEW_JOB);
    for job in jobs {
        rows.push([
            job.id.into(),
            job.public_id.into(),
            job.application_id.into(),
            job.group_id.into(),
            job.job_type.as_str().into(),
            job.receiver_id.into(),
            job.parent_id.into(),
            job.created_at.into(),
        ]);
    }
    connection.insert(rows, OnConflict::Fail)
}

/// The end of a job, or a later change of its trash mark.
#[derive(Debug, Clone)]
pub struct FinalJob {
    /// Key.
    pub id: Key,
    /// Number of the status.
    pub status: i64,
    /// Last change of status.
    pub updated_at: i64,
    /// Tries that counted.
    pub attempt: i64,
    /// Nodes that died with it.
    pub lost_nodes: i64,
    /// Last lease.
    pub token: i64,
    /// Number of the last event.
    pub last_sequence: i64,
    /// 0..1.
    pub progress: f64,
    /// Start of the last try.
    pub started_at: Option<i64>,
    /// When.
    pub completed_at: Option<i64>,
    /// JSON.
    pub result: Option<String>,
    /// Stable code.
    pub failure_code: Option<String>,
    /// For people.
    pub failure_detail: Option<String>,
    /// Last run time.
    pub run_at: i64,
    /// In the trash since.
    pub deleted_at: Option<i64>,
}

const FINAL_JOB: &[Column] = &[
    ("id", Kind::Int),
    ("status", Kind::Int),
    ("updated_at", Kind::Int),
    ("attempt", Kind::Int),
    ("lost_nodes", Kind::Int),
    ("token", Kind::Int),
    ("last_sequence", Kind::Int),
    ("progress", Kind::Real),
    ("started_at", Kind::Int),
    ("completed_at", Kind::Int),
    ("result", Kind::Text),
    ("failure_code", Kind::Text),
    ("failure_detail", Kind::Text),
    ("run_at", Kind::Int),
    ("deleted_at", Kind::Int),
];

/// Writes ends of jobs.
pub fn update_final(connection: &mut Connection, jobs: &[FinalJob]) -> StoreResult<()> {
    let mut rows = Rows::keyed("jobs", 1, FINAL_JOB);
    for job in jobs {
        rows.push([
            job.id.into(),
            job.status.into(),
            job.updated_at.into(),
            job.attempt.into(),
            job.lost_nodes.into(),
            job.token.into(),
            job.last_sequence.into(),
            job.progress.into(),
            job.started_at.into(),
            job.completed_at.into(),
            job.result.clone().into(),
            job.failure_code.clone().into(),
            job.failure_detail.clone().into(),
            job.run_at.into(),
            job.deleted_at.into(),
        ]);
    }
    connection.update(rows)
}

/// Types of jobs by key.
pub fn types(
    connection: &mut Connection,
    keys: &[Key],
) -> StoreResult<std::collections::HashMap<Key, String>> {
    #[derive(QueryableByName)]
    struct TypeRow {
        #[diesel(sql_type = BigInt)]
        id: i64,
        #[diesel(sql_type = Text)]
        job_type: String,
    }
    let rows = connection.load_by_keys::<TypeRow>(
        "SELECT id, type AS job_type FROM jobs WHERE id @key",
        "",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )?;
    Ok(rows.into_iter().map(|row| (row.id, row.job_type)).collect())
}

/// Puts a job that was alone into a group; whether it is live, so that its end will see that.
pub fn join_group(connection: &mut Connection, job: Key, group: Key) -> StoreResult<bool> {
    // First what whoever ends the job holds: so either it sees the group, or this sees the end.
    let sql = "UPDATE live_jobs SET group_id = ? WHERE id = ?";
    let is_live = connection.execute(Statement::new(sql).bind(group).bind(job))? > 0;
    let sql = "UPDATE jobs SET group_id = ? WHERE id = ?";
    connection.execute(Statement::new(sql).bind(group).bind(job))?;
    Ok(is_live)
}
