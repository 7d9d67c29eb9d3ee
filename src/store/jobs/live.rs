//! The live row of a job: written at its submission, changed with every step, taken away at its end.

use crate::ids::Key;
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::rows::{Column, Kind, OnConflict, Rows};

/// The live row of a job.
#[derive(Debug, Clone)]
pub struct LiveJob {
    /// Key.
    pub id: Key,
    /// Owner.
    pub application_id: Key,
    /// Explicit group.
    pub group_id: Option<Key>,
    /// Pool of work.
    pub queue: String,
    /// Larger first.
    pub priority: i64,
    /// See [`super::phase`].
    pub phase: i64,
    /// Place in the queue.
    pub ready_sequence: i64,
    /// Not before.
    pub run_at: i64,
    /// Not after.
    pub expires_at: Option<i64>,
    /// Number of the status.
    pub status: i64,
    /// Tries that count.
    pub attempt: i64,
    /// Tries at most.
    pub max_attempts: i64,
    /// Nodes that died with it.
    pub lost_nodes: i64,
    /// Lease.
    pub token: i64,
    /// Holder of the lease.
    pub node_id: Option<Key>,
    /// Number of the last event.
    pub last_sequence: i64,
    /// 0..1.
    pub progress: f64,
    /// As of the last announcement.
    pub announced_progress: f64,
    /// When that was.
    pub announced_at: i64,
    /// Start of the current or last try.
    pub started_at: Option<i64>,
    /// Last change of status.
    pub updated_at: i64,
    /// Of the last failed try.
    pub failure_code: Option<String>,
    /// Of the last failed try.
    pub failure_detail: Option<String>,
}

impl LiveJob {
    /// The row after a change, before either is written.
    pub fn change(&mut self, change: LiveChange) {
        self.phase = change.phase;
        self.ready_sequence = change.ready_sequence;
        self.node_id = change.node_id;
        self.run_at = change.run_at;
        self.status = change.status;
        self.attempt = change.attempt;
        self.lost_nodes = change.lost_nodes;
        self.token = change.token;
        self.last_sequence = change.last_sequence;
        self.progress = change.progress;
        self.announced_progress = change.announced_progress;
        self.announced_at = change.announced_at;
        self.started_at = change.started_at;
        self.updated_at = change.updated_at;
        self.failure_code = change.failure_code;
        self.failure_detail = change.failure_detail;
    }
}

const NEW_LIVE: &[Column] = &[
    ("id", Kind::Int),
    ("application_id", Kind::Int),
    ("group_id", Kind::Int),
    ("queue", Kind::Text),
    ("priority", Kind::Int),
    ("phase", Kind::Int),
    ("ready_sequence", Kind::Int),
    ("run_at", Kind::Int),
    ("expires_at", Kind::Int),
    ("status", Kind::Int),
    ("attempt", Kind::Int),
    ("max_attempts", Kind::Int),
    ("lost_nodes", Kind::Int),
    ("token", Kind::Int),
    ("node_id", Kind::Int),
    ("last_sequence", Kind::Int),
    ("progress", Kind::Real),
    ("announced_progress", Kind::Real),
    ("announced_at", Kind::Int),
    ("started_at", Kind::Int),
    ("updated_at", Kind::Int),
    ("failure_code", Kind::Text),
    ("failure_detail", Kind::Text),
];

/// Inserts live rows.
pub fn insert_live<'a>(
    connection: &mut Connection,
    jobs: impl Iterator<Item = &'a LiveJob>,
) -> StoreResult<()> {
    let mut rows = Rows::new("live_jobs", NEW_LIVE);
    for job in jobs {
        rows.push([
            job.id.into(),
            job.application_id.into(),
            job.group_id.into(),
            job.queue.as_str().into(),
            job.priority.into(),
            job.phase.into(),
            job.ready_sequence.into(),
            job.run_at.into(),
            job.expires_at.into(),
            job.status.into(),
            job.attempt.into(),
            job.max_attempts.into(),
            job.lost_nodes.into(),
            job.token.into(),
            job.node_id.into(),
            job.last_sequence.into(),
            job.progress.into(),
            job.announced_progress.into(),
            job.announced_at.into(),
            job.started_at.into(),
            job.updated_at.into(),
            job.failure_code.clone().into(),
            job.failure_detail.clone().into(),
        ]);
    }
    connection.insert(rows, OnConflict::Fail)
}

/// The part of a live row that changes.
#[derive(Debug, Clone)]
pub struct LiveChange {
    /// Key.
    pub id: Key,
    /// See [`super::phase`].
    pub phase: i64,
    /// Place in the queue.
    pub ready_sequence: i64,
    /// Holder of the lease.
    pub node_id: Option<Key>,
    /// Not before.
    pub run_at: i64,
    /// Number of the status.
    pub status: i64,
    /// Tries that count.
    pub attempt: i64,
    /// Nodes that died with it.
    pub lost_nodes: i64,
    /// Lease.
    pub token: i64,
    /// Number of the last event.
    pub last_sequence: i64,
    /// 0..1.
    pub progress: f64,
    /// As of the last announcement.
    pub announced_progress: f64,
    /// When that was.
    pub announced_at: i64,
    /// Start of the current or last try.
    pub started_at: Option<i64>,
    /// Last change of status.
    pub updated_at: i64,
    /// Of the last failed try.
    pub failure_code: Option<String>,
    /// Of the last failed try.
    pub failure_detail: Option<String>,
}

const LIVE_CHANGE: &[Column] = &[
    ("id", Kind::Int),
    ("phase", Kind::Int),
    ("ready_sequence", Kind::Int),
    ("node_id", Kind::Int),
    ("run_at", Kind::Int),
    ("status", Kind::Int),
    ("attempt", Kind::Int),
    ("lost_nodes", Kind::Int),
    ("token", Kind::Int),
    ("last_sequence", Kind::Int),
    ("progress", Kind::Real),
    ("announced_progress", Kind::Real),
    ("announced_at", Kind::Int),
    ("started_at", Kind::Int),
    ("updated_at", Kind::Int),
    ("failure_code", Kind::Text),
    ("failure_detail", Kind::Text),
];

/// Writes changed live rows. The rows must have been loaded and held in this transaction.
pub fn update_live(connection: &mut Connection, changes: &[LiveChange]) -> StoreResult<()> {
    let mut rows = Rows::keyed("live_jobs", 1, LIVE_CHANGE);
    for change in changes {
        rows.push([
            change.id.into(),
            change.phase.into(),
            change.ready_sequence.into(),
            change.node_id.into(),
            change.run_at.into(),
            change.status.into(),
            change.attempt.into(),
            change.lost_nodes.into(),
            change.token.into(),
            change.last_sequence.into(),
            change.progress.into(),
            change.announced_progress.into(),
            change.announced_at.into(),
            change.started_at.into(),
            change.updated_at.into(),
            change.failure_code.clone().into(),
            change.failure_detail.clone().into(),
        ]);
    }
    connection.update(rows)
}

/// Writes changed live rows that keep their node, their phase and their place in the queue.
pub fn update_live_in_place(
    connection: &mut Connection,
    changes: &[LiveChange],
) -> StoreResult<()> {
    const COLUMNS: &[Column] = &[
        ("id", Kind::Int),
        ("status", Kind::Int),
        ("last_sequence", Kind::Int),
        ("progress", Kind::Real),
        ("announced_progress", Kind::Real),
        ("announced_at", Kind::Int),
        ("updated_at", Kind::Int),
    ];
    let mut rows = Rows::keyed("live_jobs", 1, COLUMNS);
    for change in changes {
        rows.push([
            change.id.into(),
            change.status.into(),
            change.last_sequence.into(),
            change.progress.into(),
            change.announced_progress.into(),
            change.announced_at.into(),
            change.updated_at.into(),
        ]);
    }
    connection.update(rows)
}

/// Takes jobs out of the live table.
pub fn delete_live(connection: &mut Connection, keys: &[Key]) -> StoreResult<()> {
    let mut rows = Rows::keyed("live_jobs", 1, &[("id", Kind::Int)]);
    for key in keys {
        rows.push([(*key).into()]);
    }
    connection.delete(rows)
}
