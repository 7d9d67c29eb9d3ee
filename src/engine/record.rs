//! Deliveries: a node takes due ones with an attempt row written first, and records what came.

use std::collections::HashMap;
use std::sync::Arc;

use super::core::Core;
use super::endpoints::{DELETED, DISCARDED};
use super::health::Conditions;
use super::ledger::RECEIVER_GONE;
use super::operation::{
    ClaimDeliveries, LaneChange, LaneWish, Next, Outcome, OwedDelivery, Record, Recorded,
};
use super::receivers::Receiver;
use super::stored::read_id;
use crate::ids::{Key, Timestamp};
use crate::store::deliveries::{
    ClosedAttempt, Ended, LiveChange, LiveRow, OwedRow, Predecessor, manner, phase, status,
};
use crate::store::{StoreResult, Transaction, deliveries, lanes, receivers};

/// Rows of an ordered lane that get their place in one claim at most.
const SEQUENCED: i64 = 256;

pub(super) fn claim_deliveries(
    core: &Core,
    transaction: &mut Transaction<'_>,
    claim: &ClaimDeliveries,
    now: Timestamp,
) -> StoreResult<Vec<OwedDelivery>> {
    let mut keys = Vec::new();
    for wish in &claim.lanes {
        keys.extend(due(transaction, wish, now)?);
    }
    let mut rows = deliveries::load_live(transaction, &keys)?;
    rows.sort_by_key(|row| row.id);
    let versions = rows.iter().map(|row| (row.receiver_id, row.receiver_version));
    let found = core.receivers_of(transaction, versions)?;
    let mut applications: HashMap<Key, i64> = HashMap::new();
    let mut changes = Vec::with_capacity(rows.len());
    let mut begun = Vec::with_capacity(rows.len());
    let mut owed = Vec::with_capacity(rows.len());
    let mut unsendable = Vec::new();
    for row in rows {
        let receiver = found.get(&row.receiver_id);
        let (receiver, body) = match (receiver, fate(receiver, &row), row.body.clone()) {
            (Some(receiver), Fate::Send, Some(body)) => (Arc::clone(receiver), body),
            (_, Fate::Hold, _) => {
                changes.push(held(&row));
                continue;
            }
            (_, fate, _) => {
                unsendable.push(dropped(&row, fate, now));
                continue;
            }
        };
        let secrets_version = if receiver.is_endpoint {
            receiver.version
        } else {
            match applications.get(&row.application_id) {
                Some(version) => *version,
                None => {
                    let version = receivers::application_version(transaction, row.application_id)?;
                    applications.insert(row.application_id, version);
                    version
                }
            }
        };
        let (token, attempt) = (row.token + 1, row.attempts + 1);
        changes.push(LiveChange {
            id: row.id,
            phase: phase::LEASED,
            due_at: now.0,
            token,
            node_id: Some(claim.node),
            attempts: attempt,
            tries: row.tries + 1,
            previous_failure: row.previous_failure.clone(),
        });
        begun.push((row.id, attempt, now.0));
        owed.push(OwedDelivery {
            key: row.id,
            id: read_id(&row.public_id)?,
            application: row.application_id,
            receiver,
            event_id: read_id(&row.event_id)?,
            event_type: row.event_type,
            manner: row.manner,
            secrets_version,
            subject: row.subject_id,
            token,
            attempt,
            try_number: row.tries + 1,
            previous_failure: row.previous_failure,
            body,
            lane: row.lane,
            request_id: row.request_id,
            job_id: row.job_id.as_deref().map(read_id).transpose()?,
        });
    }
    deliveries::update_live(transaction, &changes)?;
    deliveries::begin_attempts(transaction, &begun)?;
    drop_unsendable(transaction, &unsendable, now)?;
    Ok(owed)
}

/// Due deliveries of a lane, as many as there is room for.
fn due(
    transaction: &mut Transaction<'_>,
    wish: &LaneWish,
    now: Timestamp,
) -> StoreResult<Vec<Key>> {
    let room = i64::try_from(wish.room).unwrap_or(i64::MAX);
    loop {
        let full = wish.may_be_ordered && sequence(transaction, wish.lane, now)? >= SEQUENCED;
        let due = deliveries::due(transaction, wish.lane, now.0, room)?;
        // Keys tell the order only roughly: who is first may stand on a later page.
        if !due.is_empty() || !full {
            return Ok(due);
        }
    }
}

/// Ends what will not be sent, and lets those behind it go on.
fn drop_unsendable(
    transaction: &mut Transaction<'_>,
    unsendable: &[Ended],
    now: Timestamp,
) -> StoreResult<()> {
    let keys: Vec<Key> = unsendable.iter().map(|ended| ended.id).collect();
    let rows = deliveries::hold(transaction, &keys)?;
    deliveries::end(transaction, unsendable)?;
    for row in &rows {
        follow(transaction, row, now, &mut Vec::new())?;
    }
    Ok(())
}

/// Looks at what has just come to an ordered lane: what is first in its track is due now, the rest
/// waits behind its predecessor. What somebody is just changing is left for the next look. How many
/// got their place.
fn sequence(transaction: &mut Transaction<'_>, lane: i64, now: Timestamp) -> StoreResult<i64> {
    let (mut first, mut behind) = (Vec::new(), Vec::new());
    for row in deliveries::fresh(transaction, lane, SEQUENCED)? {
        match deliveries::predecessor(transaction, lane, row.track, row.rank)? {
            Predecessor::None => first.push(row.id),
            Predecessor::Held => behind.push(row.id),
            Predecessor::Changing => {}
        }
    }
    let mut moved = deliveries::advance(transaction, &first, phase::WAITING, now.0)?;
    moved += deliveries::advance(transaction, &behind, phase::BEHIND, now.0)?;
    Ok(i64::try_from(moved).unwrap_or(i64::MAX))
}

/// What a claim does with a due delivery.
#[derive(Clone, Copy)]
enum Fate {
    Send,
    Hold,
    Drop(&'static str),
}

fn fate(receiver: Option<&Arc<Receiver>>, row: &OwedRow) -> Fate {
    let Some(receiver) = receiver else { return Fate::Drop(RECEIVER_GONE) };
    let is_test = row.manner == manner::PING;
    if receiver.is_deleted {
        Fate::Drop(DELETED)
    } else if row.created_at < receiver.discard_before.0 && row.manner == manner::EVENT {
        Fate::Drop(DISCARDED)
    } else if receiver.is_disabled && !is_test {
        Fate::Hold
    } else {
        Fate::Send
    }
}

fn held(row: &OwedRow) -> LiveChange {
    LiveChange {
        id: row.id,
        phase: phase::HELD,
        due_at: row.created_at,
        token: row.token,
        node_id: None,
        attempts: row.attempts,
        tries: row.tries,
        previous_failure: row.previous_failure.clone(),
    }
}

fn dropped(row: &OwedRow, fate: Fate, now: Timestamp) -> Ended {
    let reason = if let Fate::Drop(reason) = fate { reason } else { RECEIVER_GONE };
    Ended {
        id: row.id,
        status: status::CANCELLED,
        attempts: row.attempts,
        token: row.token,
        reason: Some(reason.to_owned()),
        completed_at: now.0,
    }
}

/// What the records of a batch leave behind.
struct Changes {
    live: Vec<LiveChange>,
    ended: Vec<Ended>,
    closed: Vec<ClosedAttempt>,
    conditions: Conditions,
}

pub(super) fn record(
    core: &Core,
    transaction: &mut Transaction<'_>,
    records: &[(usize, &Record)],
    now: Timestamp,
    answer: &mut impl FnMut(usize, Outcome),
) -> StoreResult<()> {
    if records.is_empty() {
        return Ok(());
    }
    let keys: Vec<Key> = records.iter().map(|(_, record)| record.delivery).collect();
    let held: HashMap<Key, LiveRow> =
        deliveries::hold(transaction, &keys)?.into_iter().map(|row| (row.id, row)).collect();
    let lease = |record: &Record| {
        let row = held.get(&record.delivery);
        row.filter(|row| row.phase == phase::LEASED && row.token == record.token)
    };
    let telling =
        records.iter().map(|(_, record)| *record).filter(|record| lease(record).is_some());
    let mut changes = Changes {
        live: Vec::new(),
        ended: Vec::new(),
        closed: Vec::new(),
        conditions: Conditions::hold(transaction, telling)?,
    };
    let mut answers = Vec::with_capacity(records.len());
    for (place, record) in records {
        let mut recorded = Recorded::default();
        if let Some(row) = lease(record) {
            recorded.held = true;
            note(transaction, record, row, now, &mut changes, &mut recorded.lanes)?;
        }
        answers.push((*place, recorded));
    }
    deliveries::close_attempts(transaction, &changes.closed)?;
    deliveries::update_live(transaction, &changes.live)?;
    deliveries::end(transaction, &changes.ended)?;
    let mut told = Vec::new();
    changes.conditions.write(core, transaction, now, &mut told)?;
    for (place, mut recorded) in answers {
        recorded.lanes.append(&mut told);
        answer(place, Outcome::Record(recorded));
    }
    Ok(())
}

/// What one record leaves behind.
fn note(
    transaction: &mut Transaction<'_>,
    record: &Record,
    row: &LiveRow,
    now: Timestamp,
    changes: &mut Changes,
    ring: &mut Vec<i64>,
) -> StoreResult<()> {
    changes.closed.push(record.closed.clone());
    match &record.next {
        Next::Delivered => {
            let reason = record.receiver_gone.then(|| RECEIVER_GONE.to_owned());
            changes.ended.push(end(row, status::DELIVERED, reason, now));
            follow(transaction, row, now, ring)?;
        }
        Next::Retry { due_at, failure } => {
            changes.live.push(changed(row, phase::WAITING, *due_at, failure));
        }
        Next::Hold { failure } if changes.conditions.may_try_again(record) => {
            // It was said of what the endpoint no longer is, so the try does not count.
            let again = changed(row, phase::WAITING, now, failure);
            changes.live.push(LiveChange { tries: (row.tries - 1).max(0), ..again });
            ring.push(row.lane);
        }
        Next::Hold { failure } => changes.live.push(changed(row, phase::HELD, now, failure)),
        Next::End { status, reason } => {
            // A strict endpoint gets nothing behind what it did not get.
            let is_strict = row.track == Some(0);
            if is_strict && deliveries::block(transaction, row.id, row.receiver_id)? {
                changes.live.push(changed(row, phase::BLOCKING, now, reason));
            } else {
                changes.ended.push(end(row, *status, Some(reason.clone()), now));
                follow(transaction, row, now, ring)?;
            }
        }
    }
    if record.receiver_gone {
        changes.ended.extend(rest(transaction, record, row, now)?);
    }
    match &record.lane {
        Some(LaneChange::Close(trouble)) => lanes::close(transaction, trouble, now.0)?,
        Some(LaneChange::Open(lane)) => lanes::open(transaction, *lane)?,
        None => {}
    }
    changes.conditions.take(record);
    Ok(())
}

/// Makes the successor of an ended delivery due.
pub(super) fn follow(
    transaction: &mut Transaction<'_>,
    ended: &LiveRow,
    now: Timestamp,
    ring: &mut Vec<i64>,
) -> StoreResult<()> {
    let (Some(track), Some(rank)) = (ended.track, ended.rank) else { return Ok(()) };
    let next = deliveries::successor(transaction, ended.lane, track, rank)?;
    if let Some(next) = next.filter(|next| deliveries::waits_for_others(next.phase)) {
        deliveries::advance(transaction, &[next.id], phase::WAITING, now.0)?;
        ring.push(ended.lane);
    }
    Ok(())
}

fn changed(row: &LiveRow, phase: i64, due_at: Timestamp, failure: &str) -> LiveChange {
    LiveChange {
        id: row.id,
        phase,
        due_at: due_at.0,
        token: row.token,
        node_id: None,
        attempts: row.attempts,
        tries: row.tries,
        previous_failure: Some(failure.to_owned()),
    }
}

fn end(row: &LiveRow, status: i64, reason: Option<String>, now: Timestamp) -> Ended {
    Ended {
        id: row.id,
        status,
        attempts: row.attempts,
        token: row.token,
        reason,
        completed_at: now.0,
    }
}

/// What else is owed about the same subject to a receiver that wants nothing more. Those that are
/// just being sent keep their lease and end by themselves.
fn rest(
    transaction: &mut Transaction<'_>,
    record: &Record,
    ended: &LiveRow,
    now: Timestamp,
) -> StoreResult<Vec<Ended>> {
    let rows = deliveries::of_subject_and_receiver(transaction, record.subject, ended.receiver_id)?;
    Ok(rows
        .iter()
        .filter(|row| row.id != ended.id && row.phase == phase::WAITING)
        .map(|row| end(row, status::CANCELLED, Some(RECEIVER_GONE.to_owned()), now))
        .collect())
}

/// Gives back deliveries whose sender died: the attempt stays in the log with an unknown outcome,
/// the next one starts at once with the same `webhook-id`. Lanes that have something to send.
pub(super) fn free_orphans(
    transaction: &mut Transaction<'_>,
    database_now: i64,
    now: Timestamp,
    limit: i64,
) -> StoreResult<Vec<i64>> {
    let orphans = deliveries::orphaned(transaction, database_now, limit)?;
    give_back(transaction, &orphans, "unknown", "sender_lost", now)
}

/// Makes leased deliveries due again and closes their attempts with an outcome.
pub(super) fn give_back(
    transaction: &mut Transaction<'_>,
    rows: &[LiveRow],
    outcome: &'static str,
    code: &str,
    now: Timestamp,
) -> StoreResult<Vec<i64>> {
    let mut changes = Vec::with_capacity(rows.len());
    let mut closed = Vec::with_capacity(rows.len());
    for row in rows {
        changes.push(LiveChange {
            id: row.id,
            phase: phase::WAITING,
            due_at: now.0,
            token: row.token,
            node_id: None,
            attempts: row.attempts,
            // The try does not count against the schedule: nobody knows how it ended.
            tries: (row.tries - 1).max(0),
            previous_failure: Some(code.to_owned()),
        });
        closed.push(ClosedAttempt {
            delivery_id: row.id,
            number: row.attempts,
            outcome,
            finished_at: now.0,
            error_code: Some(code.to_owned()),
            ..ClosedAttempt::default()
        });
    }
    deliveries::close_attempts(transaction, &closed)?;
    deliveries::update_live(transaction, &changes)?;
    let mut lanes: Vec<i64> = rows.iter().map(|row| row.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    Ok(lanes)
}
