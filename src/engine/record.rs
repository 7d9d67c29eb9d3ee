//! What came of attempts is recorded, with what follows from it for deliveries, endpoints and lanes.
//!
//! Rows are held in one order by everybody, so that no two transactions wait for each other: live
//! deliveries, then their lasting rows or their receivers, then lanes; of one table by key. A lasting
//! row is written only by who holds its live one, or, when that is gone, by nobody but who revives it.

use std::collections::{BTreeMap, HashMap};

use super::core::Core;
use super::health::Conditions;
use super::ledger::RECEIVER_GONE;
use super::operation::{LaneChange, Next, Outcome, Record, Recorded};
use crate::ids::{Key, Timestamp};
use crate::store::deliveries::{
    ClosedAttempt, Ended, LiveChange, LiveRow, STRICT_TRACK, phase, status,
};
use crate::store::lanes::LaneTrouble;
use crate::store::{StoreResult, Transaction, deliveries, lanes};

/// What the records of a batch leave behind.
#[derive(Default)]
struct Changes {
    live: Vec<LiveChange>,
    ended: Vec<Ended>,
    closed: Vec<ClosedAttempt>,
    /// The last change of each lane.
    lanes: BTreeMap<i64, LaneTrouble>,
}

impl Changes {
    fn take_lane(&mut self, change: &LaneChange, now: Timestamp) {
        let trouble = match change {
            LaneChange::Close(trouble) => trouble.clone(),
            LaneChange::Open { lane, number } => LaneTrouble::over(*lane, *number, now.0),
        };
        let known = self.lanes.get(&trouble.lane);
        if known.is_none_or(|known| known.number < trouble.number) {
            self.lanes.insert(trouble.lane, trouble);
        }
    }
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
    let mut keys: Vec<Key> = records.iter().map(|(_, record)| record.delivery).collect();
    // What is owed besides to a receiver that wants nothing more is held along, in the one order.
    let mut siblings: HashMap<Key, Vec<Key>> = HashMap::new();
    for (_, record) in records.iter().filter(|(_, record)| record.receiver_gone) {
        let (subject, receiver) = (record.subject, record.receiver);
        let found = deliveries::of_subject_and_receiver(transaction, subject, receiver)?;
        keys.extend(&found);
        siblings.insert(record.delivery, found);
    }
    let held: HashMap<Key, LiveRow> =
        deliveries::hold(transaction, &keys)?.into_iter().map(|row| (row.id, row)).collect();
    let mut taken = Vec::with_capacity(records.len());
    for (place, record) in records {
        let lease = held
            .get(&record.delivery)
            .filter(|row| row.phase == phase::LEASED && row.token == record.token);
        match lease {
            Some(row) => taken.push((*place, *record, row)),
            None => answer(*place, Outcome::Record(Recorded::default())),
        }
    }
    let mut changes = Changes::default();
    // What asks an endpoint's row comes after what only asks rows of deliveries.
    let (asking, others): (Vec<_>, Vec<_>) =
        taken.iter().partition(|(_, record, row)| may_block(record, row) || is_to_be_held(record));
    let mut answers = Vec::with_capacity(taken.len());
    for (place, record, row) in others {
        answers.push((place, note(transaction, record, row, now, &mut changes, false)?));
    }
    let mut conditions = hold_endpoints(transaction, &taken)?;
    for (place, record, row) in asking {
        let again = conditions.may_try_again(record);
        answers.push((place, note(transaction, record, row, now, &mut changes, again)?));
    }
    for (_, record, row) in taken.iter().filter(|(_, record, _)| record.receiver_gone) {
        let siblings = siblings.get(&record.delivery).into_iter().flatten();
        let siblings = siblings.filter_map(|key| held.get(key));
        changes.ended.extend(rest(row, siblings, now));
    }
    taken.iter().for_each(|(_, record, _)| conditions.take(record));
    deliveries::close_attempts(transaction, &changes.closed)?;
    deliveries::update_live(transaction, &changes.live)?;
    deliveries::end(transaction, &changes.ended)?;
    let mut told = Vec::new();
    conditions.write(core, transaction, now, &mut told)?;
    for trouble in changes.lanes.values() {
        lanes::change(transaction, trouble, now.0)?;
    }
    for (place, mut lanes) in answers {
        lanes.append(&mut told);
        answer(place, Outcome::Record(Recorded { held: true, lanes }));
    }
    Ok(())
}

/// Holds the endpoints that these records may block or say something of: all of a batch at once, in
/// one order.
fn hold_endpoints(
    transaction: &mut Transaction<'_>,
    taken: &[(usize, &Record, &LiveRow)],
) -> StoreResult<Conditions> {
    let concerned = taken
        .iter()
        .filter(|(_, record, row)| Conditions::are_told_by(record) || may_block(record, row));
    let keys = concerned.map(|(_, _, row)| row.receiver_id).collect();
    Conditions::hold(transaction, keys)
}

fn is_to_be_held(record: &Record) -> bool {
    matches!(record.next, Next::Hold { .. })
}

/// A strict endpoint gets nothing behind what it did not get.
fn may_block(record: &Record, row: &LiveRow) -> bool {
    row.track == Some(STRICT_TRACK) && matches!(record.next, Next::End { .. })
}

/// What one record leaves behind; lanes that have something to send. `again` is whether the endpoint
/// has changed since the delivery was claimed.
fn note(
    transaction: &mut Transaction<'_>,
    record: &Record,
    row: &LiveRow,
    now: Timestamp,
    changes: &mut Changes,
    again: bool,
) -> StoreResult<Vec<i64>> {
    let mut ring = Vec::new();
    changes.closed.push(record.closed.clone());
    match &record.next {
        Next::Delivered => {
            let reason = record.receiver_gone.then(|| RECEIVER_GONE.to_owned());
            changes.ended.push(row.ended(status::DELIVERED, reason, now.0));
            follow(transaction, row, now, &mut ring)?;
        }
        Next::Retry { due_at, failure } => {
            changes.live.push(row.moved(phase::WAITING, due_at.0, Some(failure.clone())));
        }
        Next::Hold { failure } if again => {
            // It was said of what the endpoint no longer is, so the try does not count.
            let moved = row.moved(phase::WAITING, now.0, Some(failure.clone()));
            changes.live.push(LiveChange { tries: (row.tries - 1).max(0), ..moved });
            ring.push(row.lane);
        }
        Next::Hold { failure } => {
            changes.live.push(row.moved(phase::HELD, now.0, Some(failure.clone())));
        }
        Next::End { status, reason } => {
            if may_block(record, row) && deliveries::block(transaction, row.id, row.receiver_id)? {
                changes.live.push(row.moved(phase::BLOCKING, now.0, Some(reason.clone())));
            } else {
                changes.ended.push(row.ended(*status, Some(reason.clone()), now.0));
                follow(transaction, row, now, &mut ring)?;
            }
        }
    }
    if let Some(change) = &record.lane {
        changes.take_lane(change, now);
    }
    Ok(ring)
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
        // While an endpoint changes from strict to another order, its rows leave the track of all
        // jobs page by page: what stood before this one may have left already and not have its
        // turn yet. This one gets its place when it leaves, too.
        if track == STRICT_TRACK && !deliveries::is_to_strict(transaction, next.id)? {
            return Ok(());
        }
        deliveries::advance(transaction, &[next.id], phase::WAITING, now.0)?;
        ring.push(ended.lane);
    }
    Ok(())
}

/// What else is owed about the same subject to a receiver that wants nothing more. Those that are
/// just being sent keep their lease and end by themselves; claims leave out what comes to it later.
fn rest<'a>(
    ended: &LiveRow,
    siblings: impl Iterator<Item = &'a LiveRow>,
    now: Timestamp,
) -> Vec<Ended> {
    siblings
        .filter(|row| row.id != ended.id && row.phase == phase::WAITING)
        .map(|row| row.ended(status::CANCELLED, Some(RECEIVER_GONE.to_owned()), now.0))
        .collect()
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
            // The try does not count against the schedule: nobody knows how it ended.
            tries: (row.tries - 1).max(0),
            ..row.moved(phase::WAITING, now.0, Some(code.to_owned()))
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
