//! Deliveries: a node takes due ones, with an attempt row written first. What comes first in an
//! order is found here, too.
//!
//! Rows are held in the order that the records keep.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::core::Core;
use super::endpoints::reason_to_cancel;
use super::ledger::{BEFORE_ALL_ELSE, RECEIVER_GONE};
use super::operation::{ClaimDeliveries, Claimed, LaneWish, OwedDelivery};
use super::receivers::Receiver;
use super::record::follow;
use super::stored::read_id;
use super::unwritten::Newborns;
use crate::ids::{Key, Timestamp};
use crate::store::deliveries::{
    BegunAttempt, DueRow, Ended, LiveChange, OrderedRow, OwedRow, Predecessor, manner, phase,
    status,
};
use crate::store::{Backend, StoreError, StoreResult, Transaction, applications, deliveries};

/// Rows of an ordered lane that get their place in one page.
const SEQUENCED: i64 = 256;
/// Rows that a claim looks at for that, over all its lanes: however many of them have a long backlog,
/// everybody else waits for no more. Each lane may use its share, and what those before it left.
const MOST_SEQUENCED: i64 = 4 * SEQUENCED;

/// How much later than those due after it a delivery may be committed to be found without a search
/// from the start.
const LATE_MICROS: i64 = 200_000;

/// Why a delivery ended whose body has been removed with what it is about.
const SUBJECT_PURGED: &str = "subject_purged";
/// How long a delivery waits whose receiver could not be read, so that it stands in nobody's way.
const UNREADABLE_MILLIS: i64 = 30_000;

pub(super) fn claim_deliveries(
    core: &Core,
    transaction: &mut Transaction<'_>,
    claim: &ClaimDeliveries,
    now: Timestamp,
    newborns: &mut Newborns,
) -> StoreResult<Claimed> {
    let mut keys = Vec::new();
    let ordered = claim.lanes.iter().filter(|wish| wish.may_be_ordered).count();
    let ordered = i64::try_from(ordered).unwrap_or(i64::MAX).max(1);
    let share = (MOST_SEQUENCED / ordered).clamp(1, SEQUENCED);
    let mut left = MOST_SEQUENCED.saturating_sub(share.saturating_mul(ordered)).max(0);
    let (mut unfinished, mut partial) = (Vec::new(), Vec::new());
    let mut fresh = newborns.due(now);
    for wish in &claim.lanes {
        left += if wish.may_be_ordered { share } else { 0 };
        let (mut due, is_finished) = due(core, transaction, wish, now, &mut left, &mut partial)?;
        if let Some(fresh) = fresh.remove(&wish.lane) {
            due.extend(fresh);
            due.sort_by_key(|row| (row.due_at, row.id));
            let left = due.split_off(wish.room.min(due.len()));
            if left.iter().any(|row| !newborns.has_delivery(row.id)) {
                // What was found and is not taken lies behind the front.
                core.lanes.forget(&wish.lane);
            }
        }
        keys.extend(due.into_iter().map(|row| row.id));
        if !is_finished {
            unfinished.push(wish.lane);
        }
    }
    let stored: Vec<Key> =
        keys.iter().copied().filter(|key| !newborns.has_delivery(*key)).collect();
    let mut rows = load(transaction, &stored, now, &mut unfinished)?;
    rows.extend(keys.iter().filter_map(|key| newborns.take_delivery(*key)));
    rows.sort_by_key(|row| row.id);
    let versions = rows.iter().map(|row| (row.receiver_id, row.receiver_version));
    let found = core.receivers_of(transaction, versions)?;
    let declined = declined(transaction, &rows, &found, newborns)?;
    let mut applications: HashMap<Key, i64> = HashMap::new();
    let mut changes = Vec::with_capacity(rows.len());
    let mut begun = Vec::with_capacity(rows.len());
    let mut owed = Vec::with_capacity(rows.len());
    let mut unsendable = Vec::new();
    for row in rows {
        if declined.contains(&row.id) {
            unsendable.push(dropped(&row, RECEIVER_GONE, now));
            unfinished.push(row.lane);
            continue;
        }
        let receiver = found.get(&row.receiver_id);
        let (receiver, body) = match (receiver, fate(receiver, &row), row.body.clone()) {
            (Some(receiver), Fate::Send, Some(body)) => (Arc::clone(receiver), body),
            (_, Fate::Hold, _) => {
                changes.push(waiting(&row, phase::HELD, row.owed_at));
                partial.push(row.lane);
                continue;
            }
            (_, Fate::Postpone, _) => {
                let later = now.plus_millis(UNREADABLE_MILLIS);
                changes.push(waiting(&row, phase::WAITING, later.0));
                partial.push(row.lane);
                continue;
            }
            // It stays as it was made, for the next look.
            _ if newborns.has_delivery(row.id) => {
                partial.push(row.lane);
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
                    let version = applications::version(transaction, row.application_id)?;
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
        begun.push(BegunAttempt {
            delivery_id: row.id,
            number: attempt,
            started_at: now.0,
            endpoint_id: receiver.is_endpoint.then_some(receiver.key),
        });
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
    newborns.change_deliveries(&mut changes);
    deliveries::update_live(transaction, &changes)?;
    deliveries::begin_attempts(transaction, &begun)?;
    drop_unsendable(transaction, &unsendable, now)?;
    Ok(Claimed { owed, unfinished, partial })
}

/// Deliveries to callbacks that have said meanwhile that they want nothing more about that subject:
/// what was on its way then, or came to it from a transaction beside. Only those that chose their
/// events get more than one.
fn declined(
    transaction: &mut Transaction<'_>,
    rows: &[OwedRow],
    receivers: &HashMap<Key, Arc<Receiver>>,
    newborns: &Newborns,
) -> StoreResult<HashSet<Key>> {
    let may_have = |row: &&OwedRow| {
        let receiver = receivers.get(&row.receiver_id);
        row.manner == manner::EVENT
            && receiver.is_some_and(|receiver| !receiver.is_endpoint && receiver.events.is_some())
            && !newborns.has_delivery(row.id)
    };
    let about = |row: &OwedRow| (row.subject_id, row.receiver_id);
    let mut pairs: Vec<(Key, Key)> = rows.iter().filter(may_have).map(about).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let unwanted = deliveries::unwanted(transaction, &pairs, RECEIVER_GONE)?;
    let declined = rows.iter().filter(may_have).filter(|row| unwanted.contains(&about(row)));
    Ok(declined.map(|row| row.id).collect())
}

/// Due deliveries of a lane, as many as there is room for, and whether there is nothing else to look
/// at. `left` is how many rows may be given their place.
fn due(
    core: &Core,
    transaction: &mut Transaction<'_>,
    wish: &LaneWish,
    now: Timestamp,
    left: &mut i64,
    partial: &mut Vec<i64>,
) -> StoreResult<(Vec<DueRow>, bool)> {
    let room = i64::try_from(wish.room).unwrap_or(i64::MAX);
    if wish.may_be_ordered {
        // What follows one that is just being recorded gets its place by the next look.
        partial.push(wish.lane);
    }
    if !wish.may_be_ordered {
        return Ok((waiting_of(core, transaction, wish.lane, now, room, partial)?, true));
    }
    loop {
        let page = SEQUENCED.min(*left);
        let (looked_at, moved) = sequence(transaction, wish.lane, now, page)?;
        *left -= looked_at;
        let due = waiting_of(core, transaction, wish.lane, now, room, partial)?;
        let is_finished = moved < page;
        // Keys tell the order only roughly: who is first may stand on a later page.
        if is_finished || !due.is_empty() || *left <= 0 {
            return Ok((due, is_finished));
        }
    }
}

/// Due deliveries of a lane that wait for nothing else.
fn waiting_of(
    core: &Core,
    transaction: &mut Transaction<'_>,
    lane: i64,
    now: Timestamp,
    room: i64,
    partial: &mut Vec<i64>,
) -> StoreResult<Vec<DueRow>> {
    let rows = if transaction.backend() == Backend::Sqlite {
        deliveries::due(transaction, lane, None, now.0, room)?
    } else {
        // Otherwise the search would be charged with it.
        transaction.settle("live_deliveries")?;
        let place = |row: &DueRow| (0, row.due_at);
        let found = core.lanes.search(lane, room, LATE_MICROS, place, |from, room| {
            let Some((_, from)) = from else {
                return deliveries::due(transaction, lane, None, now.0, room);
            };
            // What goes before all else does so here, too.
            let mut rows = deliveries::due(transaction, lane, None, BEFORE_ALL_ELSE, room)?;
            let left = room - i64::try_from(rows.len()).unwrap_or(room);
            if left > 0 {
                rows.extend(deliveries::due(transaction, lane, Some(from), now.0, left)?);
            }
            Ok(rows)
        })?;
        partial.extend(found.is_partial.then_some(lane));
        found.rows
    };
    Ok(rows)
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
