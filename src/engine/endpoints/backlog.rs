//! Brings what is owed to an endpoint in line with its state, page by page: held while it is
//! disabled, due when it is enabled, cancelled when it was discarded or the endpoint deleted.
//!
//! The state is written first and these pages follow, so a crash in between leaves only work that
//! the next sweep finds. A claim judges by the state as well, so nothing is sent meanwhile that
//! should not be.

use crate::engine::Engine;
use crate::engine::endpoints::{DELETED, DISCARDED};
use crate::engine::error::EngineResult;
use crate::engine::operation::subject;
use crate::engine::receivers::Ordering;
use crate::ids::{Key, Timestamp};
use crate::store::deliveries::{BacklogRow, Ended, manner, phase, status};
use crate::store::receivers::ReceiverRow;
use crate::store::{StoreResult, Transaction, deliveries, receivers};

/// Deliveries that are looked at in one transaction.
const PAGE: i64 = 500;
/// Endpoints that one sweep settles at most.
const SWEPT: i64 = 100;

/// What a page came to.
struct Settled {
    next: Option<Key>,
    /// Whether some ended that others may stand behind.
    gaps: bool,
    lanes: Vec<i64>,
}

impl Engine {
    /// Brings the whole backlog of one endpoint in line.
    pub(super) async fn settle_backlog(&self, endpoint: Key) -> EngineResult<()> {
        let mut next = Some(0);
        let mut gaps = false;
        while let Some(after) = next {
            let page = self
                .custom(vec![subject("backlog", endpoint)], move |transaction, _, now| {
                    Ok(settle_page(transaction, endpoint, after, now)?)
                })
                .await?;
            gaps |= page.gaps;
            self.bells.ring_lanes(&page.lanes);
            next = page.next;
        }
        // What was behind those that have ended is first now.
        while gaps && self.free_behind(Some(endpoint)).await? > 0 {}
        Ok(())
    }

    /// Finishes what a crash or a race has left of such changes; how many endpoints it looked at.
    pub async fn settle_backlogs(&self) -> EngineResult<usize> {
        let mut keys = self.store.read(|connection| receivers::settling(connection, SWEPT)).await?;
        for key in self.store.read(deliveries::wrongly_held).await? {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        for key in &keys {
            self.settle_backlog(*key).await?;
        }
        Ok(keys.len())
    }

    /// Lets deliveries go on that wait behind nobody, which is never so in good order.
    pub async fn free_stuck(&self) -> EngineResult<usize> {
        self.free_behind(None).await
    }

    async fn free_behind(&self, endpoint: Option<Key>) -> EngineResult<usize> {
        self.custom(vec![subject("stuck deliveries", 0)], move |transaction, _, _| {
            Ok(deliveries::free_stuck(transaction, endpoint, PAGE)?)
        })
        .await
    }
}

fn settle_page(
    transaction: &mut Transaction<'_>,
    endpoint: Key,
    after: Key,
    now: Timestamp,
) -> StoreResult<Settled> {
    let mut settled = Settled { next: None, gaps: false, lanes: Vec::new() };
    let Some(row) = receivers::load(transaction, &[endpoint])?.into_iter().next() else {
        return Ok(settled);
    };
    let page = deliveries::backlog(transaction, endpoint, after, PAGE)?;
    settled.next = page.last().map(|last| last.id);
    let (mut moved, mut ended) = (Vec::new(), Vec::new());
    for delivery in &page {
        match fate(&row, delivery) {
            Fate::Stays => {}
            Fate::Moves(to) => {
                // What waited longest goes first; keys tell the order of rows only roughly.
                let due_at = if to == phase::HELD { delivery.due_at } else { delivery.created_at };
                moved.push((delivery.id, to, due_at));
                if to != phase::HELD && !settled.lanes.contains(&delivery.lane) {
                    settled.lanes.push(delivery.lane);
                }
            }
            Fate::Ends(status, reason) => {
                settled.gaps = true;
                if row.blocked_by == Some(delivery.id) {
                    deliveries::unblock(transaction, delivery.id, row.id)?;
                }
                ended.push(Ended {
                    id: delivery.id,
                    status,
                    attempts: delivery.attempts,
                    token: delivery.token,
                    reason: Some(reason.to_owned()),
                    completed_at: now.0,
                });
            }
        }
    }
    deliveries::set_phases(transaction, &moved)?;
    deliveries::end(transaction, &ended)?;
    if settled.next.is_none() && !is_wrongly_blocked(&row) {
        receivers::settled(transaction, row.id, row.version)?;
    }
    Ok(settled)
}

/// Somebody was just holding what blocks it: the next sweep looks again.
fn is_wrongly_blocked(row: &ReceiverRow) -> bool {
    let may_block = row.deleted_at.is_none() && ordering(row) == Ordering::Strict;
    row.blocked_by.is_some() && !may_block
}

fn ordering(row: &ReceiverRow) -> Ordering {
    Ordering::parse(&row.ordering).unwrap_or_default()
}

enum Fate {
    Stays,
    Moves(i64),
    Ends(i64, &'static str),
}

fn fate(row: &ReceiverRow, delivery: &BacklogRow) -> Fate {
    let is_event = delivery.manner == manner::EVENT;
    let is_ordered = delivery.track.is_some() && ordering(row) != Ordering::None;
    if row.deleted_at.is_some() {
        return Fate::Ends(status::CANCELLED, DELETED);
    }
    if is_event && delivery.created_at < row.discard_before {
        return Fate::Ends(status::CANCELLED, DISCARDED);
    }
    match delivery.phase {
        phase::HELD if row.disabled_at.is_some() => Fate::Stays,
        phase::HELD if is_ordered => Fate::Moves(phase::FRESH),
        phase::HELD => Fate::Moves(phase::WAITING),
        phase::BLOCKING if ordering(row) == Ordering::Strict => Fate::Stays,
        // It was exhausted, and nothing waits for it any more.
        phase::BLOCKING => Fate::Ends(status::EXHAUSTED, "exhausted"),
        _ if row.disabled_at.is_some() && delivery.manner != manner::PING => {
            Fate::Moves(phase::HELD)
        }
        phase::FRESH | phase::BEHIND if !is_ordered => Fate::Moves(phase::WAITING),
        _ => Fate::Stays,
    }
}
