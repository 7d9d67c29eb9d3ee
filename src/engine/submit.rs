//! Jobs come in: idempotency record, rows, event 1 and what it owes, in one transaction.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::apply::count;
use super::core::Core;
use super::error::{EngineError, EngineResult};
use super::ledger::Occurrence;
use super::operation::{Draft, GroupChoice, Idempotency, Outcome, Submit, Submitted};
use super::receivers::Receiver;
use super::stored::{StoredJob, read_id};
use super::unwritten::Unwritten;
use super::view;
use crate::ids::{Key, SubjectKind, Timestamp};
use crate::lifecycle::{EventType, Status, Submission};
use crate::store::files::JobFile;
use crate::store::groups::GroupRow;
use crate::store::idempotency::IdempotencyRow;
use crate::store::jobs::NewJob;
use crate::store::{Run, StoreError, StoreResult, Transaction, files, groups, idempotency, jobs};

/// How long an idempotency key is remembered.
const IDEMPOTENCY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// Deliveries that one submission may owe for its jobs alone, unless it is a single job. All of it is
/// one transaction, and on SQLite everybody else waits for that. A claim stops at as many.
pub(super) const MOST_OWED: usize = 20_000;

/// Rows of all submissions of a batch.
#[derive(Default)]
struct Rows {
    jobs: Vec<NewJob>,
    files: Vec<JobFile>,
    sealed: Vec<(Key, Vec<u8>)>,
}

/// Writes all of the jobs but their events and live rows, which are among the unwritten afterwards.
/// Jobs that were alone before, with the groups in which they are now.
pub(super) fn submit(
    core: &Core,
    transaction: &mut Transaction<'_>,
    submits: &[(usize, &Submit)],
    run: Run,
    unwritten: &mut Unwritten,
    answer: &mut impl FnMut(usize, Outcome),
) -> StoreResult<HashMap<Key, Key>> {
    let mut rows = Rows::default();
    let mut joined = HashMap::new();
    for (place, submit) in in_order(submits) {
        let outcome = match admit(core, transaction, submit, run, &mut joined) {
            Ok(Admission::Replay(replay)) => Ok(replay),
            Ok(Admission::Group(group)) => {
                gather(core, transaction, submit, group, &mut rows, unwritten).map(Ok)?
            }
            Err(EngineError::Store(error)) => return Err(error),
            Err(refused) => Err(refused),
        };
        answer(*place, Outcome::Submit(outcome));
    }
    jobs::insert(transaction, rows.jobs.iter())?;
    files::insert_job_files(transaction, &rows.files)?;
    files::insert_sealed(transaction, &rows.sealed)?;
    Ok(joined)
}

/// Those that join groups by group: new groups are made in one order, whoever makes them.
fn in_order<'a>(submits: &'a [(usize, &'a Submit)]) -> Vec<&'a (usize, &'a Submit)> {
    let mut all: Vec<_> = submits.iter().collect();
    all.sort_by_key(|(_, submit)| submit.joins());
    all
}

enum Admission {
    Replay(Submitted),
    /// To be stored, in this explicit group if any.
    Group(Option<Key>),
}

/// Everything that may refuse, before anything of the jobs is written.
fn admit(
    core: &Core,
    transaction: &mut Transaction<'_>,
    submit: &Submit,
    run: Run,
    joined: &mut HashMap<Key, Key>,
) -> EngineResult<Admission> {
    let done = Admission::Replay(Submitted::New { queues: Vec::new(), lanes: Vec::new() });
    if run == Run::Repeated
        && let Some(draft) = submit.drafts.first()
        && jobs::find(transaction, draft.id)?.is_some()
    {
        return Ok(done);
    }
    let too_much = owes_too_much(core, transaction, submit)?;
    // An accepted request is answered as it was, also when its group has been sealed or endpoints
    // have been added since.
    if (matches!(submit.group, GroupChoice::Join(_)) || too_much.is_some())
        && let Some(replay) = known_key(transaction, submit)?
    {
        return Ok(Admission::Replay(replay));
    }
    if let Some(text) = too_much {
        return Err(EngineError::Invalid(text));
    }
    // Groups that the application may not join are refused before the key is taken: errors are
    // not remembered.
    let group = match &submit.group {
        GroupChoice::Join(id) => Some(join(transaction, submit, *id, joined)?),
        _ => None,
    };
    if let Some(replay) = take_key(transaction, submit)? {
        return Ok(Admission::Replay(replay));
    }
    let total = i64::try_from(submit.drafts.len()).unwrap_or(i64::MAX);
    let group = match (&submit.group, group) {
        (GroupChoice::Sealed { id, receiver }, _) => {
            let mut row = new_group(transaction, submit, *id)?;
            row.receiver_id = receiver.as_ref().map(|receiver| receiver.key);
            row.sealed = 1;
            row.total = total;
            groups::insert(transaction, std::slice::from_ref(&row))?;
            Some(row.id)
        }
        (_, Some(mut row)) => {
            row.total += total;
            row.updated_at = submit.now.0;
            groups::update(transaction, std::slice::from_ref(&row))?;
            Some(row.id)
        }
        _ => None,
    };
    Ok(Admission::Group(group))
}

/// Why a batch has too many jobs for the endpoints that there are, if so.
fn owes_too_much(
    core: &Core,
    transaction: &mut Transaction<'_>,
    submit: &Submit,
) -> StoreResult<Option<String>> {
    let jobs = submit.drafts.len();
    if jobs < 2 {
        return Ok(None);
    }
    let endpoints = core.endpoints(transaction, submit.application)?;
    if endpoints.len().saturating_mul(jobs) <= MOST_OWED {
        return Ok(None);
    }
    let mut by_type: HashMap<&str, usize> = HashMap::new();
    let mut owed: usize = 0;
    for draft in &submit.drafts {
        let job_type = draft.submission.job_type.as_str();
        let wanting = by_type.entry(job_type).or_insert_with(|| {
            let wants = |one: &&Arc<Receiver>| one.wants(EventType::JobCreated, Some(job_type));
            endpoints.iter().filter(wants).count()
        });
        owed += *wanting;
    }
    let most = by_type.values().copied().max().unwrap_or_default();
    Ok((owed > MOST_OWED).then(|| {
        format!(
            "{jobs} jobs for {most} endpoints that want their job.created are {owed} deliveries at \
             once; allowed: {MOST_OWED}: send smaller batches"
        )
    }))
}

fn new_group(
    transaction: &mut Transaction<'_>,
    submit: &Submit,
    id: Uuid,
) -> StoreResult<GroupRow> {
    Ok(GroupRow {
        id: transaction.key()?,
        public_id: id.as_bytes().to_vec(),
        application_id: submit.application,
        receiver_id: None,
        sealed: 0,
        completed_at: None,
        total: 0,
        success: 0,
        error: 0,
        stopped: 0,
        last_sequence: 0,
        request_id: submit.request_id.clone(),
        created_at: submit.now.0,
        updated_at: submit.now.0,
    })
}

/// Takes the idempotency key; a replay when it was used for the same request.
fn take_key(transaction: &mut Transaction<'_>, submit: &Submit) -> EngineResult<Option<Submitted>> {
    let Some(idempotency) = &submit.idempotency else { return Ok(None) };
    let (kind, id) = match (&submit.group, submit.drafts.first()) {
        (GroupChoice::Sealed { id, .. }, _) => ("group", *id),
        (_, Some(draft)) => ("job", draft.id),
        (GroupChoice::Join(id), None) => ("group", *id),
        (GroupChoice::Alone, None) => return Ok(None),
    };
    let taken = idempotency::take(
        transaction,
        submit.application,
        &idempotency.key,
        &idempotency.hash,
        kind,
        id,
        submit.now.0,
        submit.now.plus_millis(IDEMPOTENCY_MILLIS).0,
    )?;
    if taken {
        return Ok(None);
    }
    let row = idempotency::find(transaction, submit.application, &idempotency.key)?
        .ok_or(EngineError::IdempotencyInFlight)?;
    replay(&row, idempotency).map(Some)
}

/// What an earlier request with the key made, without taking the key.
fn known_key(
    transaction: &mut Transaction<'_>,
    submit: &Submit,
) -> EngineResult<Option<Submitted>> {
    let Some(idempotency) = &submit.idempotency else { return Ok(None) };
    let row = idempotency::find(transaction, submit.application, &idempotency.key)?;
    let row = row.filter(|row| row.expires_at > submit.now.0);
    row.map(|row| replay(&row, idempotency)).transpose()
}

fn replay(row: &IdempotencyRow, asked: &Idempotency) -> EngineResult<Submitted> {
    if row.hash != asked.hash {
        return Err(EngineError::IdempotencyMismatch);
    }
    Ok(Submitted::Replay { kind: row.subject_kind.clone(), id: read_id(&row.subject_id)? })
}

/// The group of that id, held; made when nobody has it yet.
fn join(
    transaction: &mut Transaction<'_>,
    submit: &Submit,
    id: Uuid,
    joined: &mut HashMap<Key, Key>,
) -> EngineResult<GroupRow> {
    let mut row = groups::hold(transaction, id)?;
    if row.is_none() {
        let mut new = new_group(transaction, submit, id)?;
        // The id may be a lone job's implicit group, which becomes a real one now.
        let lone = jobs::find(transaction, id)?;
        if let Some(lone) = &lone {
            if lone.application_id != submit.application || lone.deleted_at.is_some() {
                return Err(EngineError::not_found("group", id));
            }
            new.total = 1;
        }
        groups::insert(transaction, std::slice::from_ref(&new))?;
        row = groups::hold(transaction, id)?;
        if let (Some(lone), Some(row)) = (lone, row.as_mut().filter(|row| row.id == new.id)) {
            take_in(transaction, row, lone.state.id)?;
            joined.insert(lone.state.id, row.id);
        }
    }
    let row = row.ok_or_else(|| StoreError::Corrupt(format!("group {id} vanished")))?;
    if row.application_id != submit.application {
        return Err(EngineError::not_found("group", id));
    }
    if row.sealed != 0 {
        return Err(EngineError::GroupSealed(id));
    }
    Ok(row)
}

/// Makes a job that was alone the first one of its group, which counts its end if it has ended.
fn take_in(transaction: &mut Transaction<'_>, row: &mut GroupRow, lone: Key) -> StoreResult<()> {
    if jobs::join_group(transaction, lone, row.id)? {
        return Ok(());
    }
    let ended = jobs::load_final(transaction, &[lone])?;
    // None where retention was faster.
    row.total = i64::try_from(ended.len()).unwrap_or(1);
    count(row, ended.iter().map(|job| Status::from_number(job.state.status)));
    groups::update(transaction, std::slice::from_ref(row))
}

fn gather(
    core: &Core,
    transaction: &mut Transaction<'_>,
    submit: &Submit,
    group: Option<Key>,
    rows: &mut Rows,
    unwritten: &mut Unwritten,
) -> StoreResult<Submitted> {
    let mut queues = Vec::new();
    let mut lanes = Vec::new();
    for draft in &submit.drafts {
        let job = born(draft, submit, transaction.key()?, group);
        rows.jobs.push(NewJob {
            id: job.key,
            public_id: job.id,
            application_id: job.application,
            group_id: group,
            job_type: job.submission.job_type.clone(),
            receiver_id: job.receiver,
            parent_id: None,
            created_at: submit.now.0,
        });
        rows.files.extend(source_files(&job));
        if let Some(sealed) = &draft.sealed {
            rows.sealed.push((job.key, sealed.clone()));
        }
        let occurrence = Occurrence {
            subject: job.key,
            kind: SubjectKind::Job,
            subject_id: job.id,
            application: job.application,
            sequence: 1,
            event_id: draft.event_id,
            event_type: EventType::JobCreated,
            job_type: Some(&job.submission.job_type),
            at: submit.now,
            data: draft.json.clone(),
            receiver: draft.receiver.as_ref(),
            request_id: &submit.request_id,
        };
        let ledger = &mut unwritten.ledger;
        ledger.announce(transaction, core, occurrence, || view::job(&job), &mut lanes)?;
        let row = job.live_row(submit.now);
        if !queues.contains(&job.submission.queue) {
            queues.push(job.submission.queue.clone());
        }
        unwritten.newborns.keep_job(job, row);
    }
    Ok(Submitted::New { queues, lanes })
}

/// The job right after event 1; also what the answer to the request is rendered from.
pub(super) fn born(draft: &Draft, submit: &Submit, key: Key, group: Option<Key>) -> StoredJob {
    let submission = Arc::clone(&draft.submission);
    let mut job = newborn(draft.id, submission, submit.application, submit.now);
    job.key = key;
    job.group = group;
    job.receiver = draft.receiver.as_ref().map(|receiver| receiver.key);
    job
}

/// A job as event 1 alone tells it.
pub(super) fn newborn(
    id: Uuid,
    submission: Arc<Submission>,
    application: Key,
    at: Timestamp,
) -> StoredJob {
    let state = crate::lifecycle::born(&submission, at);
    StoredJob {
        key: 0,
        id,
        application,
        group: None,
        receiver: None,
        created_at: at,
        submission,
        state,
    }
}

fn source_files(job: &StoredJob) -> Vec<JobFile> {
    let sources = job.submission.sources.iter().enumerate();
    sources
        .filter_map(|(ordinal, source)| {
            Some(JobFile {
                job_id: job.key,
                role: 0,
                ordinal: i64::try_from(ordinal).unwrap_or(i64::MAX),
                application_id: job.application,
                path: source.path.clone().unwrap_or_default(),
                file_id: source.file_id.or(Some(Uuid::nil()))?,
                version_id: source.version,
            })
        })
        .collect()
}
