//! A job as it is stored, in the words of the rules: rows in, rows out.

use std::sync::Arc;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::ids::{Key, Timestamp};
use crate::lifecycle::{Failure, JobEvent, JobResult, JobState, Status, Submission, born};
use crate::store::jobs::{FinalJob, JobRow, LiveChange, LiveJob, StateRow, phase};
use crate::store::{StoreError, StoreResult, events};

/// One job with everything that decisions and views need.
#[derive(Clone, Debug)]
pub struct StoredJob {
    /// Key.
    pub key: Key,
    /// Id outside.
    pub id: Uuid,
    /// Owner.
    pub application: Key,
    /// Explicit group.
    pub group: Option<Key>,
    /// Callback.
    pub receiver: Option<Key>,
    /// When accepted.
    pub created_at: Timestamp,
    /// What was asked.
    pub submission: Arc<Submission>,
    /// What became of it so far.
    pub state: JobState,
}

/// Reads an id of 16 bytes.
pub fn read_id(bytes: &[u8]) -> StoreResult<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| StoreError::Corrupt("an id is not 16 bytes".to_owned()))
}

/// Reads stored JSON.
pub fn read_json<'a, T: serde::Deserialize<'a>>(what: &str, text: &'a str) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(format!("{what}: {error}")))
}

impl StoredJob {
    /// From its row.
    pub fn read(row: JobRow) -> StoreResult<StoredJob> {
        let submission: Submission = read_json("a submission", &row.submission)?;
        let created_at = Timestamp(row.created_at);
        let result = match &row.result {
            Some(text) => Some(read_json::<JobResult>("a result", text)?),
            None => None,
        };
        let state = JobState {
            completed_at: row.completed_at.map(Timestamp),
            result,
            deleted_at: row.deleted_at.map(Timestamp),
            ..born(&submission, created_at)
        };
        let job = StoredJob {
            key: row.state.id,
            id: read_id(&row.public_id)?,
            application: row.application_id,
            group: row.state.group_id,
            receiver: row.receiver_id,
            created_at,
            submission: Arc::new(submission),
            state,
        };
        Ok(job.at(row.state))
    }

    /// The same job as it stands now.
    pub fn at(self, row: StateRow) -> StoredJob {
        let failure = row
            .failure_code
            .map(|code| Failure { code, detail: row.failure_detail.unwrap_or_default() });
        let state = JobState {
            status: Status::from_number(row.status),
            attempt: row.attempt,
            lost_nodes: row.lost_nodes,
            token: row.token,
            sequence: row.last_sequence,
            progress: row.progress,
            announced_progress: row.announced_progress,
            announced_at: Timestamp(row.announced_at),
            run_at: Timestamp(row.run_at),
            started_at: row.started_at.map(Timestamp),
            updated_at: Timestamp(row.updated_at),
            failure,
            ..self.state
        };
        StoredJob { group: row.group_id, state, ..self }
    }

    /// The live row of a job just born.
    pub fn live_row(&self, now: Timestamp) -> LiveJob {
        let state = &self.state;
        LiveJob {
            id: self.key,
            application_id: self.application,
            group_id: self.group,
            queue: self.submission.queue.clone(),
            priority: self.submission.priority,
            phase: if state.run_at <= now { phase::READY } else { phase::WAITING },
            ready_sequence: queue_place(now, self.key),
            run_at: state.run_at.0,
            expires_at: state.expires_at.map(|time| time.0),
            status: state.status.number(),
            attempt: state.attempt,
            max_attempts: state.max_attempts,
            lost_nodes: state.lost_nodes,
            token: state.token,
            node_id: None,
            last_sequence: state.sequence,
            progress: state.progress,
            announced_progress: state.announced_progress,
            announced_at: state.announced_at.0,
            started_at: state.started_at.map(|time| time.0),
            updated_at: state.updated_at.0,
            failure_code: None,
            failure_detail: None,
        }
    }

    /// The live row of a job that goes on.
    pub fn live_change(
        &self,
        node: Option<Key>,
        ready_sequence: i64,
        now: Timestamp,
    ) -> LiveChange {
        let state = &self.state;
        let phase = match state.status {
            Status::Pending if state.run_at <= now => phase::READY,
            Status::Pending => phase::WAITING,
            _ => phase::LEASED,
        };
        LiveChange {
            id: self.key,
            phase,
            ready_sequence,
            node_id: node,
            run_at: state.run_at.0,
            status: state.status.number(),
            attempt: state.attempt,
            lost_nodes: state.lost_nodes,
            token: state.token,
            last_sequence: state.sequence,
            progress: state.progress,
            announced_progress: state.announced_progress,
            announced_at: state.announced_at.0,
            started_at: state.started_at.map(|time| time.0),
            updated_at: state.updated_at.0,
            failure_code: state.failure.as_ref().map(|failure| failure.code.clone()),
            failure_detail: state.failure.as_ref().map(|failure| failure.detail.clone()),
        }
    }

    /// The lasting row of a job that is final.
    pub fn final_row(&self) -> StoreResult<FinalJob> {
        let state = &self.state;
        let result = match &state.result {
            Some(result) => Some(
                serde_json::to_string(result)
                    .map_err(|error| StoreError::Corrupt(format!("a result: {error}")))?,
            ),
            None => None,
        };
        Ok(FinalJob {
            id: self.key,
            status: state.status.number(),
            updated_at: state.updated_at.0,
            attempt: state.attempt,
            lost_nodes: state.lost_nodes,
            token: state.token,
            last_sequence: state.sequence,
            progress: state.progress,
            started_at: state.started_at.map(|time| time.0),
            completed_at: state.completed_at.map(|time| time.0),
            result,
            failure_code: state.failure.as_ref().map(|failure| failure.code.clone()),
            failure_detail: state.failure.as_ref().map(|failure| failure.detail.clone()),
            run_at: state.run_at.0,
            deleted_at: state.deleted_at.map(|time| time.0),
        })
    }
}

/// Of a place; above them are its milliseconds.
pub const PLACE_BITS: u32 = 20;

/// A place in a queue: by the millisecond, then by a key. Keys alone tell no order between writers,
/// each of which draws its own block of them.
pub fn queue_place(now: Timestamp, key: Key) -> i64 {
    let millis = now.0 / 1_000;
    (millis << PLACE_BITS) | (key & ((1 << PLACE_BITS) - 1))
}

/// Nothing, as JSON.
pub fn json_null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// Folds a job's events; for whoever checks that log and row tell one story.
pub fn folded(
    connection: &mut crate::store::Connection,
    job: &StoredJob,
) -> StoreResult<Option<JobState>> {
    state_at(connection, job, i64::MAX)
}

/// The state of a job at one of its events.
pub(super) fn state_at(
    connection: &mut crate::store::Connection,
    job: &StoredJob,
    sequence: i64,
) -> StoreResult<Option<JobState>> {
    // Numbers have no gaps, so a number is also how many there are up to it.
    let rows = events::of_subject(connection, job.key, 0, sequence)?;
    let mut log = Vec::with_capacity(rows.len());
    for (place, row) in rows.iter().enumerate() {
        if usize::try_from(row.sequence).ok() != Some(place + 1) {
            let gap = format!("events of job {} have a gap before {}", job.id, row.sequence);
            return Err(StoreError::Corrupt(gap));
        }
        let event = JobEvent::from_parts(&row.event_type, &row.data)
            .map_err(|error| StoreError::Corrupt(format!("an event: {error}")))?;
        log.push((event, Timestamp(row.at)));
    }
    Ok(crate::lifecycle::fold(log.iter().map(|(event, at)| (event, *at))))
}
