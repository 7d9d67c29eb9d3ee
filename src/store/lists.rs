//! Lists of jobs, paged by key: a page reads a bounded number of index rows, whatever the filters.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::files::prefix_end;
use super::jobs::{JobRow, any_columns, any_tables};
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// Which date orders a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// Acceptance.
    Created,
    /// Last change of status.
    Updated,
}

/// What a list asks for. Alternatives within a filter, all filters together.
#[derive(Clone, Debug)]
pub struct JobQuery {
    /// Owner.
    pub application: Key,
    /// Any of these types.
    pub types: Vec<String>,
    /// Any of these statuses.
    pub statuses: Vec<i64>,
    /// Any of these groups: ids outside (an explicit group's, or a lone job's own).
    pub groups: Vec<uuid::Uuid>,
    /// Any of these files among sources or outputs.
    pub file_ids: Vec<uuid::Uuid>,
    /// Any of these paths, folders when they end in `/`.
    pub paths: Vec<String>,
    /// Which date.
    pub order_by: OrderBy,
    /// Newest first.
    pub descending: bool,
    /// Start behind this `(date, key)`.
    pub after: Option<(i64, Key)>,
    /// Rows wanted.
    pub limit: usize,
}

/// Index rows that one page may read.
const SCAN_LIMIT: i64 = 2_000;

/// A page: rows, and where the next one starts (none at the end).
pub struct Page {
    /// Jobs in order.
    pub jobs: Vec<JobRow>,
    /// `(date, key)` behind which the next page starts.
    pub next: Option<(i64, Key)>,
}

/// A job's key with what filters look at.
#[derive(QueryableByName)]
struct Candidate {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    date: i64,
    #[diesel(sql_type = BigInt)]
    status: i64,
    #[diesel(sql_type = Text)]
    job_type: String,
    #[diesel(sql_type = Binary)]
    public_id: Vec<u8>,
    #[diesel(sql_type = Nullable<Binary>)]
    group_id: Option<Vec<u8>>,
    #[diesel(sql_type = BigInt)]
    file_match: i64,
}

/// Reads one page.
pub fn jobs(connection: &mut Connection, query: &JobQuery) -> StoreResult<Page> {
    connection.snapshot(|connection| {
        let mut candidates = match query.order_by {
            OrderBy::Created => scan(connection, query, "jobs j", "j.created_at", "TRUE")?,
            OrderBy::Updated => {
                // Final jobs are ordered by their own row, live ones by the live row.
                let mut both =
                    scan(connection, query, "jobs j", "j.updated_at", "j.updated_at IS NOT NULL")?;
                let live = "live_jobs l2 JOIN jobs j ON j.id = l2.id";
                both.extend(scan(connection, query, live, "l2.updated_at", "TRUE")?);
                both.sort_by_key(|row| (row.date, row.id));
                if query.descending {
                    both.reverse();
                }
                both.truncate(usize::try_from(SCAN_LIMIT).unwrap_or(usize::MAX));
                both
            }
        };
        let exhausted = candidates.len() < usize::try_from(SCAN_LIMIT).unwrap_or(usize::MAX);
        let mut next = candidates.last().map(|row| (row.date, row.id)).filter(|_| !exhausted);
        candidates.retain(|row| matches(row, query));
        if candidates.len() > query.limit {
            candidates.truncate(query.limit);
            next = candidates.last().map(|row| (row.date, row.id));
        }
        let keys: Vec<Cell> = candidates.iter().map(|row| Cell::from(row.id)).collect();
        let mut jobs: Vec<JobRow> = connection.load_by_keys(
            concat!("SELECT ", any_columns!(), " FROM ", any_tables!(), " WHERE j.id @key"),
            "",
            keys,
        )?;
        let place: std::collections::HashMap<Key, usize> =
            candidates.iter().enumerate().map(|(place, row)| (row.id, place)).collect();
        jobs.sort_by_key(|job| place.get(&job.state.id).copied());
        Ok(Page { jobs, next })
    })
}

fn matches(row: &Candidate, query: &JobQuery) -> bool {
    let any = |empty: bool, found: bool| empty || found;
    let group = row.group_id.as_deref().unwrap_or(&row.public_id);
    any(query.types.is_empty(), query.types.contains(&row.job_type))
        && any(query.statuses.is_empty(), query.statuses.contains(&row.status))
        && any(query.groups.is_empty(), query.groups.iter().any(|id| id.as_bytes() == group))
        && row.file_match != 0
}

fn scan(
    connection: &mut Connection,
    query: &JobQuery,
    tables: &str,
    date: &str,
    condition: &str,
) -> StoreResult<Vec<Candidate>> {
    let mut cells = Vec::new();
    let file_match = file_match(query, &mut cells);
    // The live index orders by its own columns; naming the driving table's keeps it usable.
    let (owner, id) = if tables.starts_with("live_jobs") {
        ("l2.application_id", "l2.id")
    } else {
        ("j.application_id", "j.id")
    };
    let (direction, compare) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
    cells.push(Cell::from(query.application));
    let mut start = String::new();
    if let Some((at, key)) = query.after {
        start = format!(" AND ({date}, {id}) {compare} (?, ?)");
        cells.push(Cell::from(at));
        cells.push(Cell::from(key));
    }
    cells.push(Cell::from(SCAN_LIMIT));
    let sql = format!(
        "SELECT j.id, {date} AS date, COALESCE(l.status, j.status) AS status, j.type AS job_type, \
         j.public_id, g.public_id AS group_id, {file_match} AS file_match \
         FROM {tables} LEFT JOIN live_jobs l ON l.id = j.id LEFT JOIN groups g ON g.id = j.group_id \
         WHERE {owner} = ? AND {condition} AND j.deleted_at IS NULL{start} \
         ORDER BY {date} {direction}, {id} {direction} LIMIT ?"
    );
    connection.load(Statement::with(sql, cells))
}

/// An expression that is 1 when a source or output matches, and its values.
fn file_match(query: &JobQuery, cells: &mut Vec<Cell>) -> String {
    let mut tests = Vec::new();
    if !query.file_ids.is_empty() {
        let marks = vec!["?"; query.file_ids.len()].join(", ");
        tests.push(format!(
            "EXISTS (SELECT 1 FROM job_files f WHERE f.job_id = j.id AND f.file_id IN ({marks}))"
        ));
        cells.extend(query.file_ids.iter().map(|id| Cell::from(*id)));
    }
    if !query.paths.is_empty() {
        // One form for folders and files: which of them stand where is up to the caller, and a
        // connection keeps every text it has prepared.
        let paths = vec!["(f.path BETWEEN ? AND ?)"; query.paths.len()];
        for path in &query.paths {
            let end = if path.ends_with('/') { prefix_end(path) } else { path.clone() };
            cells.push(Cell::from(path.as_str()));
            cells.push(Cell::from(end));
        }
        tests.push(format!(
            "EXISTS (SELECT 1 FROM job_files f WHERE f.job_id = j.id AND ({}))",
            paths.join(" OR ")
        ));
    }
    if tests.is_empty() {
        return "CAST(1 AS BIGINT)".to_owned();
    }
    format!("CASE WHEN {} THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END", tests.join(" AND "))
}
