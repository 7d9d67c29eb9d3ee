//! Read models: what the API and the dashboard show. They never change anything.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Engine;
use super::callers::Caller;
use super::error::{EngineError, EngineResult};
use super::files::Descriptor;
use super::stored::{StoredJob, json_null, read_id, read_json};
use super::view;
use crate::ids::{Key, Timestamp};
use crate::lifecycle::Status;
use crate::store::events::EventRow;
use crate::store::lists::JobQuery;
use crate::store::{events, files, groups, jobs, lists};

/// An event as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Id.
    pub id: Uuid,
    /// job, group …
    pub subject_type: String,
    /// Which.
    pub subject_id: Uuid,
    /// 1, 2, 3 …
    pub sequence: i64,
    /// Dotted name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When.
    pub timestamp: Timestamp,
    /// What the type carries.
    pub data: Box<RawValue>,
}

impl EventView {
    /// An event of a subject with that id.
    pub(super) fn read(row: EventRow, subject_id: Uuid) -> EngineResult<EventView> {
        Ok(EventView {
            id: read_id(&row.public_id)?,
            subject_type: row.subject_kind,
            subject_id,
            sequence: row.sequence,
            event_type: row.event_type,
            timestamp: Timestamp(row.at),
            data: read_json("an event", &row.data)?,
        })
    }
}

/// Jobs that a group's answer lists at most.
const GROUP_JOBS: i64 = 1_000;

impl Engine {
    /// A job that is the caller's and not in the trash.
    pub async fn find_job(&self, caller: &Caller, id: Uuid) -> EngineResult<StoredJob> {
        let row = self.store.read(move |connection| jobs::find(connection, id)).await?;
        let job = row.map(StoredJob::read).transpose()?;
        job.filter(|job| job.application == caller.application && job.state.deleted_at.is_none())
            .ok_or_else(|| EngineError::not_found("job", id))
    }

    /// The same once it is final, or as it is when the wait is over.
    pub async fn await_job(
        &self,
        caller: &Caller,
        id: Uuid,
        wait: Duration,
    ) -> EngineResult<StoredJob> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let bell = self.bells.watch_end(id);
            let rung = bell.notified();
            tokio::pin!(rung);
            // Interest is registered before looking, so an end in between is not missed.
            rung.as_mut().enable();
            let job = self.find_job(caller, id).await?;
            let now = tokio::time::Instant::now();
            if job.state.status.is_final() || now >= deadline {
                return Ok(job);
            }
            // The end may come on another node, which cannot ring here.
            let next_look = deadline.min(now + Duration::from_millis(500));
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep_until(next_look) => {}
            }
        }
    }

    /// Events of a job, in order.
    pub async fn job_events(
        &self,
        caller: &Caller,
        id: Uuid,
        after: i64,
        limit: i64,
    ) -> EngineResult<Vec<EventView>> {
        let job = self.find_job(caller, id).await?;
        let rows = self
            .store
            .read(move |connection| events::of_subject(connection, job.key, after, limit))
            .await?;
        rows.into_iter().map(|row| EventView::read(row, id)).collect()
    }

    /// One page of the caller's jobs, and where the next starts.
    pub async fn list_jobs(
        &self,
        query: JobQuery,
    ) -> EngineResult<(Vec<StoredJob>, Option<(i64, Key)>)> {
        let page = self.store.read(move |connection| lists::jobs(connection, &query)).await?;
        let jobs: Result<Vec<_>, _> = page.jobs.into_iter().map(StoredJob::read).collect();
        Ok((jobs?, page.next))
    }

    /// A group of the caller's with its first jobs: an explicit one, or a lone job's own.
    pub async fn find_group(
        &self,
        caller: &Caller,
        id: Uuid,
    ) -> EngineResult<(Box<RawValue>, Vec<StoredJob>)> {
        let application = caller.application;
        let found = self
            .store
            .read(move |connection| {
                let Some(group) = groups::find(connection, id)? else {
                    return Ok((None, jobs::find(connection, id)?.into_iter().collect()));
                };
                let jobs = jobs::of_group(connection, group.id, (0, 0), GROUP_JOBS)?;
                Ok((Some(group), jobs))
            })
            .await?;
        let (group, rows): (_, Vec<jobs::JobRow>) = found;
        let own = |owner: Key| owner == application;
        let mut jobs: Vec<StoredJob> =
            rows.into_iter().map(StoredJob::read).collect::<Result<_, _>>()?;
        jobs.retain(|job| own(job.application) && job.state.deleted_at.is_none());
        match group {
            Some(group) if own(group.application_id) => {
                let callback = self.shown_receiver(group.receiver_id).await?;
                Ok((view::group(&group, callback.as_deref())?, jobs))
            }
            None if !jobs.is_empty() => {
                let job = jobs.first().cloned();
                let group = job.as_ref().map(implicit_group);
                let shown = group.map(|group| view::group(&group, None)).transpose()?;
                Ok((shown.unwrap_or_else(json_null), jobs))
            }
            _ => Err(EngineError::not_found("group", id)),
        }
    }

    async fn shown_receiver(&self, key: Option<Key>) -> EngineResult<Option<Box<RawValue>>> {
        let Some(key) = key else { return Ok(None) };
        let core = std::sync::Arc::clone(&self.core);
        let found = self
            .store
            .read(move |connection| {
                let receivers = core.receivers(connection, [key])?;
                Ok(receivers.get(&key).map(|receiver| receiver.shown.clone()))
            })
            .await?;
        Ok(found)
    }

    /// The caller's file at a path.
    pub async fn find_file(&self, application: Key, path: &str) -> EngineResult<Descriptor> {
        let wanted = path.to_owned();
        let row = self
            .store
            .read(move |connection| files::at_path(connection, application, &wanted))
            .await?;
        let file = row.map(Descriptor::read).transpose()?;
        file.ok_or_else(|| EngineError::not_found("file", path))
    }

    /// Files below a prefix behind a path, in the order of paths.
    pub async fn list_files(
        &self,
        caller: &Caller,
        prefix: String,
        after: String,
        limit: i64,
    ) -> EngineResult<Vec<Descriptor>> {
        let application = caller.application;
        let rows = self
            .store
            .read(move |connection| files::list(connection, application, &prefix, &after, limit))
            .await?;
        Ok(rows.into_iter().map(Descriptor::read).collect::<Result<_, _>>()?)
    }
}

/// A lone job's group, as if it had a row.
fn implicit_group(job: &StoredJob) -> groups::GroupRow {
    let count = |status: Status| i64::from(job.state.status == status);
    groups::GroupRow {
        id: job.key,
        public_id: job.submission.group_id.as_bytes().to_vec(),
        application_id: job.application,
        receiver_id: None,
        sealed: 0,
        completed_at: None,
        total: 1,
        success: count(Status::Success),
        error: count(Status::Error),
        stopped: count(Status::Stopped),
        last_sequence: 0,
        request_id: job.submission.request_id.clone(),
        created_at: job.created_at.0,
        updated_at: job.state.updated_at.0,
    }
}
