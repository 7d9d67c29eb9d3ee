//! What applications ask for: jobs alone and in batches, retries, stops, the trash.
//! Everything is checked before it becomes an operation.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Engine;
use super::callers::Caller;
use super::catalog::SourceName;
use super::claim::PLACE;
use super::error::{EngineError, EngineResult};
use super::operation::{Draft, GroupChoice, Idempotency, Operation, Outcome, Submit, Submitted};
use super::receivers::NewCallback;
use super::replay::{REPLAY_QUEUE, REPLAY_SCOPE, REPLAY_TYPE};
use super::stored::{StoredJob, read_id};
use super::submit::newborn;
use crate::ids::{Timestamp, new_id};
use crate::lifecycle::{Command, Source, Status, Submission};
use crate::store::{StoreError, files, groups, jobs};

/// A job as a face asks for it: checked in form, not yet in meaning.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// `urn:job:…`
    pub job_type: String,
    /// Parameters of that type.
    pub specification: Value,
    /// Files that it reads, beside those the specification names.
    pub sources: Vec<SourceName>,
    /// An open group, or an id of the caller's choice for a new one.
    pub group_id: Option<Uuid>,
    /// Where to tell.
    pub callback: Option<NewCallback>,
    /// A JSON object.
    pub metadata: Option<Box<RawValue>>,
    /// Larger goes first.
    pub priority: i64,
    /// Pool of work.
    pub queue: String,
    /// Not before.
    pub run_at: Option<Timestamp>,
    /// Not after.
    pub expires_at: Option<Timestamp>,
    /// Tries at most; the type's default when absent.
    pub max_attempts: Option<i64>,
    /// Limit of one try.
    pub timeout_seconds: Option<i64>,
}

/// What a batch made.
pub struct BatchAnswer {
    /// The sealed group.
    pub group_id: Uuid,
    /// The jobs, as they were born, in the order of the request.
    pub jobs: Vec<StoredJob>,
}

fn json_of<T: serde::Serialize>(value: &T) -> EngineResult<Box<RawValue>> {
    serde_json::value::to_raw_value(value)
        .map_err(|error| EngineError::Store(StoreError::Corrupt(error.to_string())))
}

impl Engine {
    /// Takes one job. The answer is the job as event 1 tells it, also for a repeated request.
    pub async fn submit(
        &self,
        caller: &Caller,
        job: NewJob,
        idempotency: Option<Idempotency>,
        request_id: &str,
    ) -> EngineResult<StoredJob> {
        let now = self.now();
        let group = job.group_id.map_or(GroupChoice::Alone, GroupChoice::Join);
        let draft = self.draft(caller, job, None, now, request_id).await?;
        let (id, submission) = (draft.id, Arc::clone(&draft.submission));
        let submit = Submit {
            application: caller.application,
            drafts: vec![draft],
            group,
            idempotency,
            breadth: self.core.receivers.breadth(caller.application),
            now,
            request_id: request_id.to_owned(),
        };
        match self.run_submit(submit).await? {
            None => Ok(newborn(id, submission, caller.application, now)),
            Some((_, id)) => self.first_state(id).await,
        }
    }

    /// Takes up to a thousand jobs in one transaction, as a sealed group.
    pub async fn submit_batch(
        &self,
        caller: &Caller,
        jobs: Vec<NewJob>,
        callback: Option<NewCallback>,
        idempotency: Option<Idempotency>,
        request_id: &str,
    ) -> EngineResult<BatchAnswer> {
        let now = self.now();
        let group_id = new_id();
        let receiver = match &callback {
            Some(callback) => Some(self.receiver_for(caller, callback).await?),
            None => None,
        };
        let mut drafts = Vec::with_capacity(jobs.len());
        for (place, job) in jobs.into_iter().enumerate() {
            let draft = self.draft(caller, job, Some(group_id), now, request_id).await;
            drafts.push(draft.map_err(|error| match error {
                EngineError::Invalid(text) => {
                    EngineError::Invalid(format!("jobs[{place}]: {text}"))
                }
                other => other,
            })?);
        }
        let born = drafts
            .iter()
            .map(|draft| newborn(draft.id, Arc::clone(&draft.submission), caller.application, now));
        let born: Vec<StoredJob> = born.collect();
        let submit = Submit {
            application: caller.application,
            drafts,
            group: GroupChoice::Sealed { id: group_id, receiver },
            idempotency,
            breadth: self.core.receivers.breadth(caller.application),
            now,
            request_id: request_id.to_owned(),
        };
        match self.run_submit(submit).await? {
            None => Ok(BatchAnswer { group_id, jobs: born }),
            Some((_, group_id)) => self.first_states_of_group(group_id).await,
        }
    }

    /// Runs a submission; `None` when it is new, else what an earlier one made.
    async fn run_submit(&self, submit: Submit) -> EngineResult<Option<(String, Uuid)>> {
        let has_key = submit.idempotency.is_some();
        let outcome = self.writer.execute(Operation::Submit(submit)).await;
        match outcome {
            Ok(Outcome::Submit(Ok(Submitted::New { queues, lanes }))) => {
                if !queues.is_empty() {
                    self.bells.ring_queues(queues);
                }
                self.bells.ring_lanes(&lanes);
                Ok(None)
            }
            Ok(Outcome::Submit(Ok(Submitted::Replay { kind, id }))) => Ok(Some((kind, id))),
            Ok(Outcome::Submit(Err(error))) => Err(error),
            Ok(_) => Err(super::confused()),
            // The wait for another node's transaction on the same key was too long.
            Err(StoreError::Contended(_)) if has_key => Err(EngineError::IdempotencyInFlight),
            Err(error) => Err(error.into()),
        }
    }

    /// The job as event 1 tells it.
    async fn first_state(&self, id: Uuid) -> EngineResult<StoredJob> {
        let row = self.store.read(move |connection| jobs::find(connection, id)).await?;
        let job = row.map(StoredJob::read).transpose()?.ok_or(EngineError::IdempotencyGone)?;
        Ok(newborn(job.id, job.submission, job.application, job.created_at))
    }

    async fn first_states_of_group(&self, group_id: Uuid) -> EngineResult<BatchAnswer> {
        let (total, rows) = self
            .store
            .read(move |connection| match groups::find(connection, group_id)? {
                Some(group) => {
                    Ok((group.total, jobs::of_group(connection, group.id, (0, 0), 1_000)?))
                }
                None => Ok((0, Vec::new())),
            })
            .await?;
        // Some may be purged while others still owe a webhook: a part is not the same answer.
        if rows.is_empty() || i64::try_from(rows.len()).ok() != Some(total) {
            return Err(EngineError::IdempotencyGone);
        }
        let mut jobs = Vec::with_capacity(rows.len());
        for row in rows {
            let job = StoredJob::read(row)?;
            jobs.push(newborn(job.id, job.submission, job.application, job.created_at));
        }
        Ok(BatchAnswer { group_id, jobs })
    }

    /// Checks a job in meaning and completes it but for its key.
    async fn draft(
        &self,
        caller: &Caller,
        job: NewJob,
        batch: Option<Uuid>,
        now: Timestamp,
        request_id: &str,
    ) -> EngineResult<Draft> {
        if batch.is_some() && job.group_id.is_some() {
            return Err(EngineError::Invalid(
                "groupId is not allowed inside a batch: the batch is a group of its own".to_owned(),
            ));
        }
        let job_type = self.catalog.get(&job.job_type).map_err(EngineError::Invalid)?;
        let checked =
            job_type.check(&job.specification, &job.sources).map_err(EngineError::Invalid)?;
        let run_at = job.run_at.unwrap_or(now);
        // A deadline that has passed already is no mistake of form: the job ends as expired.
        if let (Some(deadline), Some(run_at)) = (job.expires_at, job.run_at)
            && deadline <= run_at
        {
            return Err(EngineError::Invalid(format!(
                "expiresAt {deadline} is not allowed: it must be later than runAt {run_at}"
            )));
        }
        let receiver = match &job.callback {
            Some(callback) => Some(self.receiver_for(caller, callback).await?),
            None => None,
        };
        let names = if checked.sources.is_empty() { job.sources } else { checked.sources };
        let id = new_id();
        let sealed = match &checked.secrets {
            Value::Null => None,
            secrets => Some(self.seal_secrets(secrets)?),
        };
        let is_replay = job.job_type == REPLAY_TYPE;
        let queue = if is_replay { REPLAY_QUEUE.to_owned() } else { job.queue };
        let submission = Submission {
            job_type: job.job_type,
            specification: json_of(&checked.specification)?,
            sources: self.pin(caller, names).await?,
            group_id: batch.or(job.group_id).unwrap_or(id),
            metadata: job.metadata,
            priority: job.priority,
            queue,
            run_at,
            expires_at: job.expires_at,
            max_attempts: job.max_attempts.unwrap_or_else(|| job_type.default_attempts()),
            timeout_seconds: job.timeout_seconds,
            callback: receiver.as_ref().map(|receiver| receiver.shown.clone()),
            retry_of: None,
            parent_id: None,
            issuer: caller.issuer(),
            actor: caller.actor(),
            request_id: request_id.to_owned(),
            has_secrets: sealed.is_some(),
        };
        complete_draft(id, submission, receiver, sealed)
    }

    fn seal_secrets(&self, secrets: &Value) -> EngineResult<Vec<u8>> {
        let plain = serde_json::to_vec(secrets)
            .map_err(|error| EngineError::Store(StoreError::Corrupt(error.to_string())))?;
        self.core
            .sealer
            .seal(PLACE, &plain)
            .map_err(|error| EngineError::Store(StoreError::Corrupt(error.to_string())))
    }

    /// Names files by path and id, and pins the bytes they have now. A file that is not there is
    /// left unpinned: the job will say so.
    async fn pin(&self, caller: &Caller, names: Vec<SourceName>) -> EngineResult<Vec<Source>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let application = caller.application;
        let sources = self
            .store
            .read(move |connection| {
                let mut sources = Vec::with_capacity(names.len());
                for name in names {
                    let file = match (&name.file_id, &name.path) {
                        (Some(id), _) => files::by_id(connection, application, *id)?,
                        (None, Some(path)) => files::at_path(connection, application, path)?,
                        (None, None) => None,
                    };
                    sources.push(match file {
                        Some(file) => Source {
                            path: Some(file.path),
                            file_id: Some(read_id(&file.public_id)?),
                            version: Some(read_id(&file.version_id)?),
                        },
                        None => Source { path: name.path, file_id: name.file_id, version: None },
                    });
                }
                Ok(sources)
            })
            .await?;
        Ok(sources)
    }

    /// Asks a job to stop. Asking again changes nothing; a final job refuses.
    pub async fn stop(&self, caller: &Caller, id: Uuid) -> EngineResult<StoredJob> {
        let mut job = self.find_job(caller, id).await?;
        let applied = self.apply_of(caller.application, job.key, Command::Stop).await?;
        job.state = applied.state;
        Ok(job)
    }

    /// Puts a final job into the trash.
    pub async fn trash(&self, caller: &Caller, id: Uuid) -> EngineResult<()> {
        let job = self.find_job(caller, id).await?;
        self.apply_of(caller.application, job.key, Command::Trash).await.map(|_| ())
    }

    /// Tries a final job again as a new one.
    pub async fn retry(
        &self,
        caller: &Caller,
        id: Uuid,
        idempotency: Option<Idempotency>,
        request_id: &str,
    ) -> EngineResult<StoredJob> {
        let old = self.find_job(caller, id).await?;
        if !old.state.status.is_final() || old.state.status == Status::Success {
            return Err(EngineError::NotRetryable(old.state.status));
        }
        if old.submission.job_type == REPLAY_TYPE && !caller.may(REPLAY_SCOPE) {
            return Err(EngineError::LacksScope(REPLAY_SCOPE));
        }
        let now = self.now();
        let (key, receiver_key) = (old.key, old.receiver);
        let core = std::sync::Arc::clone(&self.core);
        let has_secrets = old.submission.has_secrets;
        let (sealed, receiver) = self
            .store
            .read(move |connection| {
                let keys = if has_secrets { vec![key] } else { Vec::new() };
                let sealed = files::load_sealed(connection, &keys)?;
                let receivers = core.receivers(connection, receiver_key)?;
                let receiver = receiver_key.and_then(|key| receivers.get(&key).cloned());
                Ok((sealed.into_iter().next().map(|(_, sealed)| sealed), receiver))
            })
            .await?;
        let new = new_id();
        let names = old.submission.sources.iter().map(|source| SourceName {
            path: source.path.clone(),
            file_id: source.file_id.filter(|_| source.path.is_none()),
        });
        let sources = self.pin(caller, names.collect()).await?;
        let submission = Submission {
            sources,
            group_id: new,
            run_at: now,
            // The old deadline has passed or would be no deadline of this try.
            expires_at: None,
            retry_of: Some(old.id),
            actor: caller.actor(),
            request_id: request_id.to_owned(),
            ..Arc::unwrap_or_clone(old.submission)
        };
        let draft = complete_draft(new, submission, receiver, sealed)?;
        let submission = Arc::clone(&draft.submission);
        let submit = Submit {
            application: caller.application,
            drafts: vec![draft],
            group: GroupChoice::Alone,
            idempotency,
            breadth: self.core.receivers.breadth(caller.application),
            now,
            request_id: request_id.to_owned(),
        };
        match self.run_submit(submit).await? {
            None => Ok(newborn(new, submission, caller.application, now)),
            Some((_, id)) => self.first_state(id).await,
        }
    }
}

fn complete_draft(
    id: Uuid,
    submission: Submission,
    receiver: Option<std::sync::Arc<super::Receiver>>,
    sealed: Option<Vec<u8>>,
) -> EngineResult<Draft> {
    let json = serde_json::to_string(&submission)
        .map_err(|error| EngineError::Store(StoreError::Corrupt(error.to_string())))?;
    let submission = Arc::new(submission);
    Ok(Draft { id, submission, json, receiver, event_id: new_id(), sealed })
}
