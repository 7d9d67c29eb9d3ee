//! Brings what is owed to an endpoint in line with its state, page by page: held while it is
//! disabled, due when it is enabled, cancelled when it was discarded or the endpoint deleted, and in
//! the order that it has now.
//!
//! The state is written first and these pages follow: a few at once, the rest by a loop of every
//! node. A crash in between leaves only work that the loop finds. A claim judges by the state as
//! well, so nothing is sent meanwhile that should not be.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::Engine;
use crate::engine::endpoints::{DELETED, DISCARDED};
use crate::engine::error::EngineResult;
use crate::engine::operation::subject;
use crate::engine::receivers::Ordering;
use crate::ids::{Key, Timestamp};
use crate::store::deliveries::{
    BacklogRow, Ended, OrderedRow, Place, STRICT_TRACK, manner, phase, status,
};
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreResult, Transaction, deliveries, receivers};

/// Deliveries that are looked at in one transaction.
const PAGE: i64 = 500;
/// Pages that whoever changes an endpoint waits for.
const PROMPT_PAGES: usize = 4;
/// Pages in one turn of the loop, over all endpoints.
const TURN_PAGES: usize = 100;
/// Endpoints that one turn settles at most.
const SWEPT: i64 = 100;
/// Tracks that are looked at together for what is stuck.
const TRACKS: usize = 5_000;

/// How far this process has come. What is forgotten is only looked at again.
#[derive(Default)]
pub(in crate::engine) struct Settling {
    backlogs: Mutex<HashMap<Key, Progress>>,
    /// The last lane and track that were looked at for what is stuck.
    tracks: Mutex<Option<(i64, i64)>>,
}

impl Settling {
    fn backlogs(&self) -> MutexGuard<'_, HashMap<Key, Progress>> {
        self.backlogs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tracks(&self) -> MutexGuard<'_, Option<(i64, i64)>> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a backlog has to be in line with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stand {
    disabled_at: Option<i64>,
    deleted_at: Option<i64>,
    discard_before: i64,
    ordering: Ordering,
}

impl Stand {
    fn of(row: &ReceiverRow) -> Stand {
        Stand {
            disabled_at: row.disabled_at,
            deleted_at: row.deleted_at,
            discard_before: row.discard_before,
            ordering: Ordering::parse(&row.ordering).unwrap_or_default(),
        }
    }
}

/// How far a backlog is in line.
#[derive(Clone, Debug)]
struct Progress {
    stand: Stand,
    after: Key,
    /// Whether some ended that others may stand behind.
    gaps: bool,
}

/// What a page came to.
#[derive(Default)]
struct Settled {
    /// Where the next one goes on; `None` behind the last one.
    next: Option<Progress>,
    /// Where others may stand behind what has ended.
    gaps_in: Option<i64>,
    lanes: Vec<i64>,
}

impl Engine {
    /// Rings for lanes on which something is due since long ago that claims have gone past.
    pub(super) fn ring_again(&self, lanes: &[i64]) {
        lanes.iter().for_each(|lane| self.core.lanes.forget(lane));
        self.bells.ring_lanes(lanes);
    }

    /// Brings the backlog of one endpoint in line, and leaves what is too much to wait for to the
    /// loop.
    pub(super) async fn settle_backlog(&self, endpoint: Key) -> EngineResult<()> {
        for _ in 0..PROMPT_PAGES {
            if self.settle_one_page(endpoint).await? {
                return Ok(());
            }
        }
        self.bells.settling.notify_one();
        Ok(())
    }

    /// One turn of the loop: a page of each endpoint after the other; how many endpoints it looked
    /// at. Rings for the next turn when something is left.
    pub async fn settle_backlogs(&self) -> EngineResult<usize> {
        let (mut keys, held) = self
            .store
            .read(|connection| {
                let settling = receivers::settling(connection, SWEPT)?;
                Ok((settling, deliveries::wrongly_held(connection)?))
            })
            .await?;
        for key in held {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        // Others may be settled by another node.
        self.settling.backlogs().retain(|key, _| keys.contains(key));
        let count = keys.len();
        let mut pages = TURN_PAGES;
        while pages > 0 && !keys.is_empty() {
            let mut left = Vec::new();
            for key in keys {
                if pages == 0 || !self.settle_one_page(key).await? {
                    left.push(key);
                }
                pages = pages.saturating_sub(1);
            }
            keys = left;
        }
        if !keys.is_empty() {
            self.bells.settling.notify_one();
        }
        Ok(count)
    }

    /// Whether there is no other page.
    async fn settle_one_page(&self, endpoint: Key) -> EngineResult<bool> {
        let known = self.settling.backlogs().get(&endpoint).cloned();
        let page = self
            .custom(vec![subject("backlog", endpoint)], move |transaction, _, now| {
                Ok(settle_page(transaction, endpoint, known.as_ref(), now)?)
            })
            .await?;
        self.ring_again(&page.lanes);
        if let Some(progress) = page.next {
            self.settling.backlogs().insert(endpoint, progress);
            return Ok(false);
        }
        self.settling.backlogs().remove(&endpoint);
        if let Some(lane) = page.gaps_in {
            // What was behind those that have ended is first now.
            let mut after = Some((lane, Key::MIN));
            while let Some(place) = after {
                after = self.free_behind(place, lane).await?.0;
            }
        }
        Ok(true)
    }

    /// Lets deliveries go on that wait behind nobody, which is never so in good order; how many of
    /// those tracks that are looked at in this turn.
    pub async fn free_stuck(&self) -> EngineResult<usize> {
        let after = self.settling.tracks().take().unwrap_or((i64::MIN, Key::MIN));
        let (next, freed) = self.free_behind(after, i64::MAX).await?;
        *self.settling.tracks() = next;
        Ok(freed)
    }

    /// Looks at the first deliveries of tracks behind a place, up to those of a lane; where to go
    /// on, and how many were let go on.
    async fn free_behind(
        &self,
        after: (i64, i64),
        last_lane: i64,
    ) -> EngineResult<(Option<(i64, i64)>, usize)> {
        let heads = self
            .store
            .read(move |connection| deliveries::heads(connection, after, last_lane, TRACKS))
            .await?;
        let next = heads.last().filter(|_| heads.len() >= TRACKS).map(|row| (row.lane, row.track));
        let stuck: Vec<OrderedRow> =
            heads.into_iter().filter(|row| row.phase == phase::BEHIND).collect();
        if stuck.is_empty() {
            return Ok((next, 0));
        }
        let lanes: Vec<i64> = stuck.iter().map(|row| row.lane).collect();
        let freed = self
            .custom(vec![subject("stuck deliveries", 0)], move |transaction, _, _| {
                let mut freed = 0;
                for row in &stuck {
                    freed += deliveries::free(transaction, row.id)?;
                }
                Ok(freed)
            })
            .await?;
        self.ring_again(&lanes);
        Ok((next, freed))
    }
}

fn settle_page(
    transaction: &mut Transaction<'_>,
    endpoint: Key,
    known: Option<&Progress>,
    now: Timestamp,
) -> StoreResult<Settled> {
    let mut settled = Settled::default();
    let Some(row) = receivers::load(transaction, &[endpoint])?.into_iter().next() else {
        return Ok(settled);
    };
    let stand = Stand::of(&row);
    let known = known.filter(|known| known.stand == stand);
    let mut progress = known.cloned().unwrap_or(Progress { stand, after: 0, gaps: false });
    let stand = &progress.stand;
    let page = deliveries::backlog(transaction, endpoint, progress.after, PAGE)?;
    let (mut placed, mut moved, mut ended, mut unblocked) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for delivery in &page {
        if let Some(place) = new_place(stand, delivery) {
            placed.push((delivery.id, place));
        }
        match fate(stand, delivery) {
            Fate::Stays => {}
            Fate::Moves(to) => {
                // What waited longest goes first; keys tell the order of rows only roughly.
                let due_at = if to == phase::HELD { delivery.due_at } else { delivery.owed_at };
                moved.push((delivery.id, to, due_at));
                if to != phase::HELD && !settled.lanes.contains(&delivery.lane) {
                    settled.lanes.push(delivery.lane);
                }
            }
            Fate::Ends(reason) => ended.push(cancelled(delivery, reason, now)),
            Fate::EndsAsItWas => ended.push(given_up(transaction, delivery, now)?),
        }
        if delivery.phase == phase::BLOCKING
            && ended.last().is_some_and(|end| end.id == delivery.id)
        {
            unblocked.push(delivery.id);
        }
    }
    deliveries::put_in_place(transaction, &placed)?;
    deliveries::set_phases(transaction, &moved)?;
    deliveries::end(transaction, &ended)?;
    for delivery in unblocked {
        deliveries::unblock(transaction, delivery, row.id)?;
    }
    progress.gaps |= !ended.is_empty();
    progress.after = page.last().map_or(progress.after, |last| last.id);
    let is_last = i64::try_from(page.len()).is_ok_and(|rows| rows < PAGE);
    if !is_last {
        settled.next = Some(progress);
        return Ok(settled);
    }
    // What somebody was just holding is looked at again by the next turn, from the start.
    let is_in_line = is_in_order(transaction, &row, stand.ordering)?
        && !is_wrongly_blocked(transaction, endpoint)?;
    if is_in_line && !receivers::settled(transaction, row.id, row.version)? {
        // It has got another stamp meanwhile.
        settled.next = Some(progress);
        return Ok(settled);
    }
    settled.gaps_in = progress.gaps.then_some(row.lane);
    Ok(settled)
}

/// Whether it is blocked by what may not block any more.
fn is_wrongly_blocked(transaction: &mut Transaction<'_>, endpoint: Key) -> StoreResult<bool> {
    let row = receivers::load(transaction, &[endpoint])?.into_iter().next();
    Ok(row.is_some_and(|row| {
        let may_block = row.deleted_at.is_none() && Stand::of(&row).ordering == Ordering::Strict;
        row.blocked_by.is_some() && !may_block
    }))
}

/// Whether nothing has the place of an order that the endpoint does not have any more. What came
/// in the order of each job is left to go before what comes strictly.
fn is_in_order(
    transaction: &mut Transaction<'_>,
    row: &ReceiverRow,
    ordering: Ordering,
) -> StoreResult<bool> {
    let (of_all, of_subjects) = deliveries::orders(transaction, row.lane)?;
    Ok(match ordering {
        Ordering::None => !of_all && !of_subjects,
        Ordering::PerJob => !of_all,
        Ordering::Strict => true,
    })
}

/// The place of a delivery in the order that its endpoint has now, when that is another.
fn new_place(stand: &Stand, delivery: &BacklogRow) -> Option<Option<Place>> {
    match (stand.ordering, delivery.track) {
        (Ordering::None, Some(_)) => Some(None),
        (Ordering::PerJob, Some(STRICT_TRACK)) => {
            Some(Some(Place { track: delivery.subject_id, rank: Some(delivery.sequence) }))
        }
        _ => None,
    }
}

enum Fate {
    Stays,
    Moves(i64),
    /// It is not wanted any more.
    Ends(&'static str),
    /// It had ended already, and nothing waits for it any more.
    EndsAsItWas,
}

fn fate(stand: &Stand, delivery: &BacklogRow) -> Fate {
    let is_ordered = delivery.track.is_some() && stand.ordering != Ordering::None;
    let is_replaced = new_place(stand, delivery).is_some();
    let (is_deleted, before) = (stand.deleted_at.is_some(), stand.discard_before);
    // Whoever sends it looks at the state when that is done.
    if delivery.phase == phase::LEASED {
        return Fate::Stays;
    }
    if let Some(reason) = reason_to_cancel(is_deleted, before, delivery.manner, delivery.owed_at) {
        return Fate::Ends(reason);
    }
    match delivery.phase {
        phase::HELD if stand.disabled_at.is_some() => Fate::Stays,
        phase::HELD if is_ordered => Fate::Moves(phase::FRESH),
        phase::HELD => Fate::Moves(phase::WAITING),
        phase::BLOCKING if stand.ordering == Ordering::Strict => Fate::Stays,
        phase::BLOCKING => Fate::EndsAsItWas,
        _ if stand.disabled_at.is_some() && delivery.manner != manner::PING => {
            Fate::Moves(phase::HELD)
        }
        phase::FRESH | phase::BEHIND if !is_ordered => Fate::Moves(phase::WAITING),
        phase::BEHIND if is_replaced => Fate::Moves(phase::FRESH),
        _ => Fate::Stays,
    }
}

/// Why a delivery is not wanted any more, if so. A ping is an answer that somebody waits for and no
/// backlog; whatever else was owed before it was discarded is, whoever asked for it.
pub(in crate::engine) fn reason_to_cancel(
    is_deleted: bool,
    discard_before: i64,
    manner: i64,
    owed_at: i64,
) -> Option<&'static str> {
    if is_deleted {
        Some(DELETED)
    } else {
        (manner != manner::PING && owed_at < discard_before).then_some(DISCARDED)
    }
}

fn cancelled(delivery: &BacklogRow, reason: &str, now: Timestamp) -> Ended {
    Ended {
        id: delivery.id,
        status: status::CANCELLED,
        attempts: delivery.attempts,
        token: delivery.token,
        reason: Some(reason.to_owned()),
        completed_at: now.0,
    }
}

/// The end of what held up its endpoint.
fn given_up(
    transaction: &mut Transaction<'_>,
    delivery: &BacklogRow,
    now: Timestamp,
) -> StoreResult<Ended> {
    let status = deliveries::status_of_blocking(transaction, delivery.id, delivery.attempts)?;
    Ok(Ended { status, reason: delivery.previous_failure.clone(), ..cancelled(delivery, "", now) })
}
