//! The native representations: what `GET` shows and what webhooks carry are the same text.
//!
//! Must not know who asks. Holds no secret: submissions and receivers come masked already.

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::stored::{StoredJob, json_null, read_id};
use crate::ids::Timestamp;
use crate::lifecycle::{Failure, GroupTally, JobResult, Submission};
use crate::store::StoreResult;
use crate::store::groups::GroupRow;

/// A job as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobView<'a> {
    id: Uuid,
    group_id: Uuid,
    #[serde(rename = "type")]
    job_type: &'a str,
    issuer: &'a str,
    status: &'static str,
    progress: f64,
    sources: Vec<SourceView<'a>>,
    specification: &'a RawValue,
    result: Option<&'a JobResult>,
    failure: Option<&'a Failure>,
    attempt: i64,
    max_attempts: i64,
    priority: i64,
    queue: &'a str,
    timeout_seconds: Option<i64>,
    run_at: Timestamp,
    expires_at: Option<Timestamp>,
    metadata: Option<&'a RawValue>,
    callback: Option<&'a RawValue>,
    retry_of: Option<Uuid>,
    parent_id: Option<Uuid>,
    actor: &'a str,
    date_created: Timestamp,
    date_updated: Timestamp,
    date_started: Option<Timestamp>,
    date_completed: Option<Timestamp>,
    runtime_seconds: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SourceView<'a> {
    path: Option<&'a str>,
    file_id: Option<Uuid>,
}

fn sources(submission: &Submission) -> Vec<SourceView<'_>> {
    submission
        .sources
        .iter()
        .map(|source| SourceView { path: source.path.as_deref(), file_id: source.file_id })
        .collect()
}

/// The job object as JSON.
pub fn job(job: &StoredJob) -> Box<RawValue> {
    let (state, submission) = (&job.state, &job.submission);
    let runtime_seconds = match (state.started_at, state.completed_at) {
        (Some(start), Some(end)) => Some((end.millis_since(start).max(0) as f64) / 1_000.0),
        _ => None,
    };
    let view = JobView {
        id: job.id,
        group_id: submission.group_id,
        job_type: &submission.job_type,
        issuer: &submission.issuer,
        status: state.status.as_str(),
        progress: state.progress,
        sources: sources(submission),
        specification: &submission.specification,
        result: state.result.as_ref(),
        failure: state.failure.as_ref(),
        attempt: state.attempt,
        max_attempts: state.max_attempts,
        priority: submission.priority,
        queue: &submission.queue,
        timeout_seconds: submission.timeout_seconds,
        run_at: state.run_at,
        expires_at: state.expires_at,
        metadata: submission.metadata.as_deref(),
        callback: submission.callback.as_deref(),
        retry_of: submission.retry_of,
        parent_id: submission.parent_id,
        actor: &submission.actor,
        date_created: job.created_at,
        date_updated: state.updated_at,
        date_started: state.started_at,
        date_completed: state.completed_at,
        runtime_seconds,
    };
    // Strings, numbers and JSON that was parsed before always serialise.
    serde_json::value::to_raw_value(&view).unwrap_or_else(|_| json_null())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupView<'a> {
    id: Uuid,
    status: &'static str,
    sealed: bool,
    total: i64,
    remaining: i64,
    success: i64,
    error: i64,
    stopped: i64,
    callback: Option<&'a RawValue>,
    date_created: Timestamp,
    date_updated: Timestamp,
    date_completed: Option<Timestamp>,
}

/// The counts of a group's row.
pub fn tally(row: &GroupRow) -> GroupTally {
    GroupTally { total: row.total, success: row.success, error: row.error, stopped: row.stopped }
}

/// The group object as JSON, without its jobs.
pub fn group(row: &GroupRow, callback: Option<&RawValue>) -> StoreResult<Box<RawValue>> {
    let tally = tally(row);
    let view = GroupView {
        id: read_id(&row.public_id)?,
        status: match (row.sealed != 0, row.completed_at) {
            (_, Some(_)) => "completed",
            (true, None) => "working",
            (false, None) => "open",
        },
        sealed: row.sealed != 0,
        total: tally.total,
        remaining: tally.remaining(),
        success: tally.success,
        error: tally.error,
        stopped: tally.stopped,
        callback,
        date_created: Timestamp(row.created_at),
        date_updated: Timestamp(row.updated_at),
        date_completed: row.completed_at.map(Timestamp),
    };
    Ok(serde_json::value::to_raw_value(&view).unwrap_or_else(|_| json_null()))
}
