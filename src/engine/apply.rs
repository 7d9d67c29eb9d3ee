//! One command on one job: load and hold, decide, write the row, the event and what it owes.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::core::Core;
use super::error::EngineError;
use super::files::publish;
use super::ledger::{Ledger, Occurrence};
use super::operation::{Applied, Apply, Outcome};
use super::receivers::Receiver;
use super::stored::{StoredJob, queue_place, read_id};
use super::unwritten::Unwritten;
use super::view;
use crate::ids::{Key, SubjectKind, Timestamp, new_id};
use crate::lifecycle::{
    Command, EventType, GroupState, JobEvent, JobState, Status, Transition, decide,
};
use crate::store::files::JobFile;
use crate::store::jobs::{FinalJob, LiveChange};
use crate::store::{StoreError, StoreResult, Transaction, files, groups, jobs};

/// Rows that transitions leave behind, gathered over a batch.
#[derive(Default)]
pub(super) struct Changes {
    /// Live rows that come to another phase or node.
    moved: Vec<LiveChange>,
    /// Live rows that stay with theirs: progress, a wish to stop.
    in_place: Vec<LiveChange>,
    ended: Vec<FinalJob>,
    gone: Vec<Key>,
    outputs: Vec<JobFile>,
    /// Callbacks of jobs that ended, unless that they are used is noted already.
    used: Vec<Arc<Receiver>>,
    /// Explicit groups with the ends of their jobs.
    groups: Vec<(Key, Status)>,
    ledger: Ledger,
}

impl Changes {
    /// None so far; their events come behind those that are not written yet.
    pub(super) fn after(unwritten: &mut Unwritten) -> Changes {
        Changes { ledger: std::mem::take(&mut unwritten.ledger), ..Changes::default() }
    }

    /// Deliveries that come of them.
    pub(super) fn owed(&self) -> usize {
        self.ledger.owed()
    }
}

/// Writes all but the events, which are among the unwritten afterwards. `held` are the jobs.
pub(super) fn apply(
    core: &Core,
    transaction: &mut Transaction<'_>,
    applies: &[(usize, &Apply)],
    mut held: HashMap<Key, StoredJob>,
    now: Timestamp,
    unwritten: &mut Unwritten,
    answer: &mut impl FnMut(usize, Outcome),
) -> StoreResult<()> {
    if applies.is_empty() {
        return Ok(());
    }
    let receivers = core.receivers(transaction, held.values().filter_map(|job| job.receiver))?;
    let mut changes = Changes::after(unwritten);
    let mut group_lanes = Vec::new();
    let mut answers = Vec::new();
    for (place, apply) in applies {
        let Some(mut job) = held.remove(&apply.job) else {
            answers.push((*place, Err(EngineError::not_found("job", "of that key"))));
            continue;
        };
        if apply.application.is_some_and(|owner| owner != job.application) {
            answers.push((*place, Err(EngineError::not_found("job", job.id))));
            continue;
        }
        let mut lanes = Vec::new();
        let settled = settle(core, transaction, apply, &job, now, &mut changes, &mut lanes)?;
        let transition = match settled {
            Ok(transition) => transition,
            Err(_) if transaction.is_repeated() && is_done(&apply.command, &job.state) => {
                let queue = job.submission.queue.clone();
                answers.push((*place, Ok(Applied { id: job.id, state: job.state, queue, lanes })));
                continue;
            }
            Err(refusal) => {
                answers.push((*place, Err(refusal.into())));
                continue;
            }
        };
        let receiver = job.receiver.and_then(|key| receivers.get(&key));
        change(
            core,
            transaction,
            &mut job,
            transition,
            None,
            receiver,
            now,
            &mut changes,
            &mut lanes,
        )?;
        let queue = job.submission.queue.clone();
        answers.push((*place, Ok(Applied { id: job.id, state: job.state, queue, lanes })));
    }
    finish(core, transaction, changes, now, unwritten, &mut group_lanes)?;
    for (place, result) in answers {
        let result = result.map(|mut applied| {
            applied.lanes.extend(group_lanes.iter().copied());
            applied
        });
        answer(place, Outcome::Apply(Box::new(result)));
    }
    Ok(())
}

/// Whether a job is already as a command of somebody without a lease leaves it. On a second run that
/// is the doing of the first one, whose commit got no answer.
fn is_done(command: &Command, state: &JobState) -> bool {
    match command {
        Command::Stop => state.status == Status::Stopped,
        Command::Trash => state.deleted_at.is_some(),
        Command::Restore => state.deleted_at.is_none(),
        _ => false,
    }
}

/// Decides; publishes outputs when the command is taken, since the result names them.
fn settle(
    core: &Core,
    transaction: &mut Transaction<'_>,
    apply: &Apply,
    job: &StoredJob,
    now: Timestamp,
    changes: &mut Changes,
    lanes: &mut Vec<i64>,
) -> StoreResult<Result<Transition, crate::lifecycle::Refusal>> {
    let decided = decide(&job.state, apply.command.clone(), now);
    let (Ok(_), Some(render), Command::Succeed { token, .. }) =
        (&decided, &apply.render, &apply.command)
    else {
        return Ok(decided);
    };
    let descriptors = publish(core, transaction, job.application, &apply.outputs, now, lanes)?;
    for (ordinal, descriptor) in descriptors.iter().enumerate() {
        changes.outputs.push(JobFile {
            job_id: job.key,
            role: 1,
            ordinal: i64::try_from(ordinal).unwrap_or(i64::MAX),
            application_id: job.application,
            path: descriptor.path.clone(),
            file_id: descriptor.id,
            version_id: Some(descriptor.version),
        });
    }
    let payload: Box<RawValue> = render(&descriptors);
    Ok(decide(&job.state, Command::Succeed { token: *token, payload }, now))
}

/// Takes a transition into the job and notes what it leaves behind. `node` is who holds the lease
/// afterwards, when the command was a start.
#[expect(clippy::too_many_arguments, reason = "the one place where all of it meets")]
pub(super) fn change(
    core: &Core,
    transaction: &mut Transaction<'_>,
    job: &mut StoredJob,
    transition: Transition,
    node: Option<Key>,
    receiver: Option<&Arc<Receiver>>,
    now: Timestamp,
    changes: &mut Changes,
    lanes: &mut Vec<i64>,
) -> StoreResult<()> {
    let was_final = job.state.status.is_final();
    let was_pending = job.state.status == Status::Pending;
    job.state = transition.next;
    if let Some(event) = &transition.event {
        let event_type = event.event_type();
        let occurrence = Occurrence {
            subject: job.key,
            kind: SubjectKind::Job,
            subject_id: job.id,
            application: job.application,
            sequence: job.state.sequence,
            event_id: new_id(),
            event_type,
            job_type: Some(&job.submission.job_type),
            at: now,
            data: event_data(event)?,
            receiver,
            request_id: &job.submission.request_id,
        };
        let job = &*job;
        changes.ledger.announce(transaction, core, occurrence, || view::job(job), lanes)?;
    }
    if job.state.status.is_final() {
        changes.ended.push(job.final_row()?);
        if !was_final {
            changes.gone.push(job.key);
            changes.used.extend(receiver.filter(|receiver| !receiver.is_noted(now)).cloned());
            if let Some(group) = job.group {
                changes.groups.push((group, job.state.status));
            }
        }
    } else {
        // A job that returns to the queue gets a new place in it.
        let back = job.state.status == Status::Pending && !was_pending;
        if back || node.is_some() {
            let place = if back { queue_place(now, transaction.key()?) } else { job.key };
            changes.moved.push(job.live_change(node, place, now));
        } else {
            changes.in_place.push(job.live_change(None, job.key, now));
        }
    }
    Ok(())
}

fn event_data(event: &JobEvent) -> StoreResult<String> {
    event.data().map_err(|error| StoreError::Corrupt(format!("an event: {error}")))
}

/// Writes what was gathered but its events, and completes groups that have nothing left to do.
pub(super) fn finish(
    core: &Core,
    transaction: &mut Transaction<'_>,
    mut changes: Changes,
    now: Timestamp,
    unwritten: &mut Unwritten,
    lanes: &mut Vec<i64>,
) -> StoreResult<()> {
    unwritten.newborns.change_jobs(&mut changes.moved);
    unwritten.newborns.drop_jobs(&changes.gone);
    tally(core, transaction, &mut changes, now, lanes)?;
    jobs::update_live(transaction, &changes.moved)?;
    jobs::update_live_in_place(transaction, &changes.in_place)?;
    jobs::delete_live(transaction, &changes.gone)?;
    jobs::update_final(transaction, &changes.ended)?;
    core.note_use(transaction, changes.used, now)?;
    unwritten.ledger = changes.ledger;
    files::insert_job_files(transaction, &changes.outputs)
}

fn tally(
    core: &Core,
    transaction: &mut Transaction<'_>,
    changes: &mut Changes,
    now: Timestamp,
    lanes: &mut Vec<i64>,
) -> StoreResult<()> {
    if changes.groups.is_empty() {
        return Ok(());
    }
    let mut keys: Vec<Key> = changes.groups.iter().map(|(group, _)| *group).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut rows = groups::load(transaction, &keys)?;
    for row in &mut rows {
        let key = row.id;
        let ends = changes.groups.iter().filter(|(group, _)| *group == key);
        count(row, ends.map(|(_, status)| *status));
        row.updated_at = now.0;
        complete(core, transaction, row, now, &mut changes.ledger, lanes)?;
    }
    groups::update(transaction, &rows)?;
    Ok(())
}

/// Counts ends of jobs in their group.
pub(super) fn count(row: &mut groups::GroupRow, ends: impl Iterator<Item = Status>) {
    let mut tally = view::tally(row);
    ends.for_each(|status| tally.count(status));
    (row.success, row.error, row.stopped) = (tally.success, tally.error, tally.stopped);
}

/// Announces `group.completed` when it is due, once.
pub(super) fn complete(
    core: &Core,
    transaction: &mut Transaction<'_>,
    row: &mut groups::GroupRow,
    now: Timestamp,
    ledger: &mut Ledger,
    lanes: &mut Vec<i64>,
) -> StoreResult<()> {
    let state = GroupState {
        sealed: row.sealed != 0,
        completed: row.completed_at.is_some(),
        tally: view::tally(row),
    };
    if !state.completes_now() {
        return Ok(());
    }
    row.completed_at = Some(now.0);
    row.last_sequence += 1;
    let receivers = core.receivers(transaction, row.receiver_id)?;
    let receiver = row.receiver_id.and_then(|key| receivers.get(&key));
    let shown = view::group(row, receiver.map(|receiver| &*receiver.shown))?;
    let data = serde_json::to_string(&state.tally)
        .map_err(|error| StoreError::Corrupt(format!("an event: {error}")))?;
    let occurrence = Occurrence {
        subject: row.id,
        kind: SubjectKind::Group,
        subject_id: read_id(&row.public_id)?,
        application: row.application_id,
        sequence: row.last_sequence,
        event_id: new_id(),
        event_type: EventType::GroupCompleted,
        job_type: None,
        at: now,
        data,
        receiver,
        request_id: &row.request_id.clone(),
    };
    ledger.announce(transaction, core, occurrence, || shown, lanes)
}
