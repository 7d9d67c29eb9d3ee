//! Deliveries: a node takes due ones with an attempt row written first, and records what came.

use std::collections::HashMap;
use std::sync::Arc;

use super::core::Core;
use super::ledger::RECEIVER_GONE;
use super::operation::{ClaimDeliveries, Next, Outcome, OwedDelivery, Record};
use super::stored::read_id;
use crate::ids::{Key, Timestamp};
use crate::store::deliveries::{ClosedAttempt, Ended, LiveChange, LiveRow, status};
use crate::store::{StoreResult, Transaction, deliveries};

pub(super) fn claim_deliveries(
    core: &Core,
    transaction: &mut Transaction<'_>,
    claim: &ClaimDeliveries,
    now: Timestamp,
) -> StoreResult<Vec<OwedDelivery>> {
    let mut keys = Vec::new();
    for (lane, room) in &claim.lanes {
        let room = i64::try_from(*room).unwrap_or(i64::MAX);
        keys.extend(deliveries::due(transaction, *lane, now.0, room)?);
    }
    let mut rows = deliveries::load_live(transaction, &keys)?;
    rows.sort_by_key(|row| row.id);
    let receivers = core.receivers(transaction, rows.iter().map(|row| row.receiver_id))?;
    let mut changes = Vec::with_capacity(rows.len());
    let mut begun = Vec::with_capacity(rows.len());
    let mut owed = Vec::with_capacity(rows.len());
    let mut unsendable = Vec::new();
    for row in rows {
        let (Some(receiver), Some(body)) = (receivers.get(&row.receiver_id), row.body) else {
            unsendable.push(Ended {
                id: row.id,
                status: status::CANCELLED,
                attempts: row.attempts,
                token: row.token,
                reason: Some(RECEIVER_GONE.to_owned()),
                completed_at: now.0,
            });
            continue;
        };
        let (token, attempt) = (row.token + 1, row.attempts + 1);
        changes.push(LiveChange {
            id: row.id,
            phase: 1,
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
            receiver: Arc::clone(receiver),
            event_id: read_id(&row.event_id)?,
            event_type: row.event_type,
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
    deliveries::end(transaction, &unsendable)?;
    Ok(owed)
}

pub(super) fn record(
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
    let mut changes = Vec::new();
    let mut ended = Vec::new();
    let mut closed = Vec::new();
    for (place, record) in records {
        let lease =
            held.get(&record.delivery).filter(|row| row.phase == 1 && row.token == record.token);
        let Some(row) = lease else {
            answer(*place, Outcome::Record(false));
            continue;
        };
        closed.push(record.closed.clone());
        match &record.next {
            Next::Delivered => ended.push(end(row, status::DELIVERED, None, now)),
            Next::Retry { due_at, failure } => changes.push(LiveChange {
                id: row.id,
                phase: 0,
                due_at: due_at.0,
                token: row.token,
                node_id: None,
                attempts: row.attempts,
                tries: row.tries,
                previous_failure: Some(failure.clone()),
            }),
            Next::End { status, reason, receiver_gone } => {
                ended.push(end(row, *status, Some(reason.clone()), now));
                if *receiver_gone {
                    ended.extend(rest(transaction, record, row, reason, now)?);
                }
            }
        }
        answer(*place, Outcome::Record(true));
    }
    deliveries::close_attempts(transaction, &closed)?;
    deliveries::update_live(transaction, &changes)?;
    deliveries::end(transaction, &ended)
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
    reason: &str,
    now: Timestamp,
) -> StoreResult<Vec<Ended>> {
    let rows = deliveries::of_subject_and_receiver(transaction, record.subject, ended.receiver_id)?;
    Ok(rows
        .iter()
        .filter(|row| row.id != ended.id && row.phase == 0)
        .map(|row| end(row, status::CANCELLED, Some(reason.to_owned()), now))
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
            phase: 0,
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
