//! A node takes ready jobs: lease with a grown token, event `job.started`, in one transaction.

use std::cmp::Reverse;

use super::apply::{Changes, change, finish};
use super::core::Core;
use super::fronts::Found;
use super::operation::{Claim, ClaimedBatch, ClaimedJob};
use super::stored::{PLACE_BITS, StoredJob, queue_place};
use super::submit::MOST_OWED;
use super::unwritten::Unwritten;
use crate::ids::{Key, Timestamp};
use crate::lifecycle::{Command, decide};
use crate::store::jobs::ReadyRow;
use crate::store::{Backend, StoreResult, Transaction, files, jobs};

/// Waiting jobs that are made ready in one transaction at most.
const PROMOTED: i64 = 256;

/// How much later than the jobs behind it one may be committed to be found without a search from the
/// start, as places.
const LATE_PLACES: i64 = 200 << PLACE_BITS;

/// The place name under which secrets of specifications are sealed.
pub(super) const PLACE: &str = "specification";

pub(super) fn claim(
    core: &Core,
    transaction: &mut Transaction<'_>,
    claim: &Claim,
    now: Timestamp,
    unwritten: &mut Unwritten,
) -> StoreResult<ClaimedBatch> {
    let mut keys: Vec<Key> = Vec::new();
    let mut batch = ClaimedBatch::default();
    for (queue, room) in &claim.queues {
        let want = (*room).min(claim.limit.saturating_sub(keys.len()));
        if want > 0 {
            let found = ready(core, transaction, queue, i64::try_from(want).unwrap_or(i64::MAX))?;
            let fresh = unwritten.newborns.ready(queue);
            batch.is_partial |= found.is_partial;
            let mut rows = found.rows;
            if !fresh.is_empty() {
                rows.extend(fresh);
                rows.sort_by_key(|row| (Reverse(row.priority), row.ready_sequence));
                let left = rows.split_off(want.min(rows.len()));
                if left.iter().any(|row| !unwritten.newborns.has_job(row.id)) {
                    // What was found and is not taken lies behind the front.
                    core.queues.forget(queue);
                }
            }
            keys.extend(rows.iter().map(|row| row.id));
        }
    }
    if keys.is_empty() {
        return Ok(batch);
    }
    let newborns = &mut unwritten.newborns;
    let stored: Vec<Key> = keys.iter().copied().filter(|key| !newborns.has_job(*key)).collect();
    let mut held: Vec<StoredJob> = keys.iter().filter_map(|key| newborns.take_job(*key)).collect();
    for row in jobs::load_live(transaction, &stored)? {
        held.push(StoredJob::read(row)?);
    }
    // Loads come in no promised order; slots are given in the order of the queue.
    held.sort_by_key(|job| keys.iter().position(|key| *key == job.key));
    let receivers = core.receivers(transaction, held.iter().filter_map(|job| job.receiver))?;
    let mut secrets = opened_secrets(core, transaction, &held)?;
    let mut changes = Changes::after(unwritten);
    for mut job in held {
        if changes.owed() >= MOST_OWED {
            // Untouched, they stay ready.
            batch.more = true;
            core.queues.forget_all();
            break;
        }
        // Another writer's clock, or a longer way to the commit, may have been ahead of this one.
        let now = now.max(job.created_at);
        let late = job.state.expires_at.is_some_and(|deadline| deadline <= now);
        let command =
            if late { Command::Expire } else { Command::Start { node: claim.node_name.clone() } };
        // A refusal means the row is not what the index said; it is left for the next look.
        let Ok(transition) = decide(&job.state, command, now) else { continue };
        let receiver = job.receiver.and_then(|key| receivers.get(&key));
        let node = Some(claim.node);
        let lanes = &mut batch.lanes;
        change(core, transaction, &mut job, transition, node, receiver, now, &mut changes, lanes)?;
        if late {
            batch.ended.push(job.id);
        } else {
            let secrets = secrets.remove(&job.key).unwrap_or_default();
            batch.jobs.push(ClaimedJob { job, secrets });
        }
    }
    finish(core, transaction, changes, now, unwritten, &mut batch.lanes)?;
    // What ended, or was not what the index said, has had somebody's place.
    batch.is_partial |= batch.jobs.len() < keys.len();
    Ok(batch)
}

/// Ready jobs of a queue in their order.
fn ready(
    core: &Core,
    transaction: &mut Transaction<'_>,
    queue: &str,
    most: i64,
) -> StoreResult<Found<ReadyRow>> {
    if transaction.backend() == Backend::Sqlite {
        let rows = jobs::ready(transaction, queue, None, most)?;
        return Ok(Found { rows, is_partial: false });
    }
    // Otherwise the search would be charged with it.
    transaction.settle("live_jobs")?;
    let place = |row: &ReadyRow| (row.priority, row.ready_sequence);
    core.queues.search(queue.to_owned(), most, LATE_PLACES, place, |from, most| {
        jobs::ready(transaction, queue, from, most)
    })
}

/// Makes waiting jobs ready whose time has come; how many.
pub(super) fn promote(transaction: &mut Transaction<'_>, now: Timestamp) -> StoreResult<usize> {
    let due = jobs::due(transaction, now.0, PROMOTED)?;
    let mut ready = Vec::with_capacity(due.len());
    for key in due {
        ready.push((key, queue_place(now, transaction.key()?)));
    }
    jobs::make_ready(transaction, &ready)?;
    Ok(ready.len())
}

fn opened_secrets(
    core: &Core,
    transaction: &mut Transaction<'_>,
    held: &[StoredJob],
) -> StoreResult<std::collections::HashMap<Key, serde_json::Value>> {
    let keys: Vec<Key> =
        held.iter().filter(|job| job.submission.has_secrets).map(|job| job.key).collect();
    let mut opened = std::collections::HashMap::new();
    for (key, sealed) in files::load_sealed(transaction, &keys)? {
        let value = core
            .sealer
            .open(PLACE, &sealed)
            .ok()
            .and_then(|plain| serde_json::from_slice::<serde_json::Value>(&plain).ok());
        match value {
            Some(value) => {
                opened.insert(key, value);
            }
            // The job goes without and fails by itself; others must not be held up.
            None => tracing::error!(job_key = key, "sealed values of a job cannot be read"),
        }
    }
    Ok(opened)
}
