//! Deliveries: a node takes due ones with an attempt row written first, and records what came.
//!
//! Rows are held in one order by everybody, so that no two transactions wait for each other: live
//! deliveries, then their lasting rows or their receivers, then lanes; of one table by key. A lasting
//! row is written only by who holds its live one, or, when that is gone, by nobody but who revives it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::core::Core;
use super::endpoints::reason_to_cancel;
use super::health::Conditions;
use super::ledger::RECEIVER_GONE;
use super::operation::{
    ClaimDeliveries, Claimed, LaneChange, LaneWish, Next, Outcome, OwedDelivery, Record, Recorded,
};
use super::receivers::Receiver;
use super::stored::read_id;
use crate::ids::{Key, Timestamp};
use crate::store::deliveries::{
    ClosedAttempt, Ended, LiveChange, LiveRow, OrderedRow, OwedRow, Predecessor, STRICT_TRACK,
    manner, phase, status,
};
use crate::store::lanes::LaneTrouble;
use crate::store::{StoreError, StoreResult, Transaction, deliveries, lanes, receivers};

/// Rows of an ordered lane that get their place in one page.
const SEQUENCED: i64 = 256;
/// Rows that a claim looks at for that, over all its lanes: however many of them have a long backlog,
/// everybody else waits for no more. Each lane may use its share, and what those before it left.
const MOST_SEQUENCED: i64 = 4 * SEQUENCED;

/// Why a delivery ended whose body has been removed with what it is about.
const SUBJECT_PURGED: &str = "subject_purged";
/// How long a delivery waits whose receiver could not be read, so that it stands in nobody's way.
const UNREADABLE_MILLIS: i64 = 30_000;

pub(super) fn claim_deliveries(
    core: &Core,
    transaction: &mut Transaction<'_>,
    claim: &ClaimDeliveries,
    now: Timestamp,
) -> StoreResult<Claimed> {
    let mut keys = Vec::new();
    let ordered = claim.lanes.iter().filter(|wish| wish.may_be_ordered).count();
    let ordered = i64::try_from(ordered).unwrap_or(i64::MAX).max(1);
    let share = (MOST_SEQUENCED / ordered).clamp(1, SEQUENCED);
    let mut left = MOST_SEQUENCED.saturating_sub(share.saturating_mul(ordered)).max(0);
    let mut unfinished = Vec::new();
    for wish in &claim.lanes {
        left += if wish.may_be_ordered { share } else { 0 };
        let (due, is_finished) = due(transaction, wish, now, &mut left)?;
        keys.extend(due);
        if !is_finished {
            unfinished.push(wish.lane);
        }
    }
    let mut rows = load(transaction, &keys, now, &mut unfinished)?;
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
                changes.push(waiting(&row, phase::HELD, row.owed_at));
                continue;
            }
            (_, Fate::Postpone, _) => {
                let later = now.plus_millis(UNREADABLE_MILLIS);
                changes.push(waiting(&row, phase::WAITING, later.0));
                continue;
            }
            (_, fate, _) => {
                let reason = if let Fate::Drop(reason) = fate { reason } else { SUBJECT_PURGED };
                unsendable.push(dropped(&row, reason, now));
                unfinished.push(row.lane);
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
    Ok(Claimed { owed, unfinished })
}

/// Due deliveries of a lane, as many as there is room for, and whether there is nothing else to look
/// at. `left` is how many rows may be given their place.
fn due(
    transaction: &mut Transaction<'_>,
    wish: &LaneWish,
    now: Timestamp,
    left: &mut i64,
) -> StoreResult<(Vec<Key>, bool)> {
    let room = i64::try_from(wish.room).unwrap_or(i64::MAX);
    if !wish.may_be_ordered {
        return Ok((deliveries::due(transaction, wish.lane, now.0, room)?, true));
    }
    loop {
        let page = SEQUENCED.min(*left);
        let (looked_at, moved) = sequence(transaction, wish.lane, now, page)?;
        *left -= looked_at;
        let due = deliveries::due(transaction, wish.lane, now.0, room)?;
        let is_finished = moved < page;
        // Keys tell the order only roughly: who is first may stand on a later page.
        if is_finished || !due.is_empty() || *left <= 0 {
            return Ok((due, is_finished));
        }
    }
}

/// Claimed deliveries with everything to send them. One that has lost its lasting row or its receiver
/// ends, which never happens in good order: nobody else is to wait for what cannot be read. Lanes that
/// had such a one are pushed to `unfinished`.
fn load(
    transaction: &mut Transaction<'_>,
    keys: &[Key],
    now: Timestamp,
    unfinished: &mut Vec<i64>,
) -> StoreResult<Vec<OwedRow>> {
    let loaded = deliveries::load_live(transaction, keys);
    if !loaded.as_ref().is_err_and(StoreError::is_unreadable) {
        return loaded;
    }
    let adrift = deliveries::adrift(transaction, keys)?;
    let reason = Some(RECEIVER_GONE.to_owned());
    let ended = adrift.iter().map(|row| row.ended(status::CANCELLED, reason.clone(), now.0));
    let ended: Vec<Ended> = ended.collect();
    for row in &adrift {
        unfinished.push(row.lane);
        tracing::error!(delivery_key = row.id, "a delivery has lost its receiver and ends");
    }
    drop_unsendable(transaction, &ended, now)?;
    let is_adrift = |key: &Key| ended.iter().any(|one| one.id == *key);
    let rest: Vec<Key> = keys.iter().copied().filter(|key| !is_adrift(key)).collect();
    deliveries::load_live(transaction, &rest)
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
/// were looked at, and how many of them got their place.
fn sequence(
    transaction: &mut Transaction<'_>,
    lane: i64,
    now: Timestamp,
    most: i64,
) -> StoreResult<(i64, i64)> {
    let (mut first, mut behind) = (Vec::new(), Vec::new());
    let fresh = fresh(transaction, lane, most)?;
    for row in &fresh {
        match deliveries::predecessor(transaction, lane, row.track, row.rank)? {
            Predecessor::None => first.push(row.id),
            Predecessor::Held => behind.push(row.id),
            Predecessor::Changing => {}
        }
    }
    let mut moved = deliveries::advance(transaction, &first, phase::WAITING, now.0)?;
    moved += deliveries::advance(transaction, &behind, phase::BEHIND, now.0)?;
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    Ok((number(fresh.len()), number(moved)))
}

/// Fresh rows of a lane. While its endpoint changes from one order to another, what came in the
/// order of before goes first: nothing else gets its place until then.
fn fresh(transaction: &mut Transaction<'_>, lane: i64, most: i64) -> StoreResult<Vec<OrderedRow>> {
    let rows = deliveries::fresh(transaction, lane, None, most)?;
    let Some(first) = rows.first() else { return Ok(rows) };
    if deliveries::orders(transaction, lane)? != (true, true) {
        return Ok(rows);
    }
    let is_strict = deliveries::is_to_strict(transaction, first.id)?;
    deliveries::fresh(transaction, lane, Some(!is_strict), most)
}

/// What a claim does with a due delivery.
#[derive(Clone, Copy)]
enum Fate {
    Send,
    Hold,
    /// This node cannot read its receiver: perhaps that is of a later version of this program.
    Postpone,
    Drop(&'static str),
}

fn fate(receiver: Option<&Arc<Receiver>>, row: &OwedRow) -> Fate {
    let Some(receiver) = receiver else { return Fate::Postpone };
    let before = receiver.discard_before.0;
    let unwanted = reason_to_cancel(receiver.is_deleted, before, row.manner, row.owed_at);
    let is_test = row.manner == manner::PING;
    match unwanted {
        Some(reason) => Fate::Drop(reason),
        None if receiver.is_disabled && !is_test => Fate::Hold,
        None => Fate::Send,
    }
}

/// The row leased by nobody.
fn waiting(row: &OwedRow, phase: i64, due_at: i64) -> LiveChange {
    LiveChange {
        id: row.id,
        phase,
        due_at,
        token: row.token,
        node_id: None,
        attempts: row.attempts,
        tries: row.tries,
        previous_failure: row.previous_failure.clone(),
    }
}

fn dropped(row: &OwedRow, reason: &str, now: Timestamp) -> Ended {
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
    let keys: Vec<Key> = records.iter().map(|(_, record)| record.delivery).collect();
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
    if record.receiver_gone {
        changes.ended.extend(rest(transaction, record, row, now)?);
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
        .map(|row| row.ended(status::CANCELLED, Some(RECEIVER_GONE.to_owned()), now.0))
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
